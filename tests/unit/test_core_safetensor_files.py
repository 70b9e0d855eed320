from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file

from scumble.core.errors import InputError, WeightsError
from scumble.core.safetensor_files import safetensors_header, save_safetensors


def file_of(header: object, data: bytes = b"", *, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def entry(dtype: str = "F32", shape: Any = (1,), offsets: Any = (0, 4)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def test_the_library_reads_what_we_write_and_back(tmp_path: Path) -> None:
    kinds = (
        torch.float32,
        torch.float16,
        torch.bfloat16,
        torch.float64,
        torch.int64,
        torch.uint8,
        torch.bool,
    )
    tensors = {str(kind): torch.arange(6).reshape(2, 3).to(kind) for kind in kinds}
    tensors["scalar"] = torch.tensor(3.5)
    tensors["empty"] = torch.zeros(0, 4)
    tensors["transposed"] = torch.arange(6.0).reshape(2, 3).T
    save_safetensors(tmp_path / "w.safetensors", tensors, {"kéy": 'a "value"'})
    read = load_file(tmp_path / "w.safetensors")
    assert read.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert read[name].dtype == tensor.dtype
        assert torch.equal(read[name], tensor)
    header = safetensors_header(tmp_path / "w.safetensors")
    assert header["__metadata__"] == {"kéy": 'a "value"'}
    assert header["transposed"]["shape"] == [3, 2]
    assert len(header) == len(tensors) + 1


def test_the_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    a, b = torch.ones(2), torch.zeros(3, dtype=torch.bfloat16)
    save_safetensors(tmp_path / "1", {"a": a, "b": b}, {"k": "v"})
    save_safetensors(tmp_path / "2", {"b": b, "a": a}, {"k": "v"})
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


BAD = {
    "its header is not a JSON object": file_of([]),
    "has 3 bytes": b"abc",
    "a header longer than the file itself.": file_of({}, length=2**64 - 1),
    "a header longer than the file itself": file_of({}, length=3),
    "a name stands twice": file_of(b'{"a": 1, "a": 2}'),
    "nested too deeply": file_of(b'{"a":' + b"[" * 100_000),
    "not described by dtype": file_of({"a": {"dtype": "F32"}}),
    "unknown dtype 'PICKLE'": file_of({"a": entry("PICKLE")}),
    "impossible shape [-1]": file_of({"a": entry(shape=[-1])}),
    "impossible shape [True]": file_of({"a": entry(shape=[True])}),
    "impossible shape [9223372036854775808]": file_of({"a": entry(shape=[2**63])}),
    "impossible offsets [0]": file_of({"a": entry(offsets=[0])}),
    "does not fit its 4 bytes": file_of({"a": entry(shape=[2])}, bytes(4)),
    "begins at byte 0 where 4 was expected": file_of({"a": entry(), "b": entry()}, bytes(8)),
    "begins at byte 4 where 0 was expected": file_of({"a": entry(offsets=[4, 8])}, bytes(8)),
    "take 4 bytes but 5 are there": file_of({"a": entry()}, bytes(5)),
    "metadata is not an object of strings": file_of({"__metadata__": {"a": 1}}),
    "Expecting property name": file_of(b"{nonsense"),
    "can't decode": file_of(b'{"\xff": 1}'),
    "integer string conversion": file_of(b'{"a": ' + b"9" * 5000 + b"}"),
}


@pytest.mark.parametrize("reason", BAD)
def test_a_malformed_header_is_one_sentence_with_the_reason(tmp_path: Path, reason: str) -> None:
    path = tmp_path / "bad.safetensors"
    path.write_bytes(BAD[reason])
    with pytest.raises(WeightsError, match=re.escape(reason)) as caught:
        safetensors_header(path, error=WeightsError)
    assert "bad.safetensors is not a sound .safetensors file" in caught.value.message
    assert "\n" not in str(caught.value)
    assert len(caught.value.message) < 400 + len(str(tmp_path))


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_a_picture_is_called_one(tmp_path: Path, suffix: str) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / f"a{suffix}")
    with pytest.raises(WeightsError, match=rf"a\{suffix} is a picture, not a \.safetensors file\."):
        safetensors_header(tmp_path / f"a{suffix}", error=WeightsError)


def test_the_limit_is_an_argument(tmp_path: Path) -> None:
    save_safetensors(tmp_path / "x", {"a": torch.ones(1)}, {"k": "v" * 500})
    safetensors_header(tmp_path / "x", 1000)
    with pytest.raises(InputError, match=r"header of [0-9]{3} bytes, longer than the limit of 100"):
        safetensors_header(tmp_path / "x", 100)


def test_a_missing_file_and_a_folder_are_sentences(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        safetensors_header(tmp_path / "nothing.safetensors")
    with pytest.raises(InputError, match="is a folder"):
        safetensors_header(tmp_path)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
near_entries = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "BF16", "U8", "F64"]) | json_values,
        "shape": st.lists(st.integers(-1, 4), max_size=3) | json_values,
        "data_offsets": st.tuples(st.integers(-1, 16), st.integers(-1, 16)) | json_values,
    }
)
headers = st.dictionaries(st.sampled_from(["a", "b", "__metadata__"]), near_entries | json_values, max_size=3)
contents = st.binary(max_size=64) | st.builds(file_of, headers, st.binary(max_size=16))


@settings(max_examples=300)
@given(contents)
def test_any_file_gives_a_header_or_a_sentence(content: bytes) -> None:
    """And what we accept, the reference reader accepts."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.safetensors")
        path.write_bytes(content)
        try:
            header = safetensors_header(path)
        except InputError:
            return
        assert isinstance(header["__metadata__"], dict)
        load_file(path)
