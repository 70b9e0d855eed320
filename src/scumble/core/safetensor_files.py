"""The header of a `.safetensors` file, read as the untrusted text it is; and such files written atomically.

Layout: 8 bytes, little-endian length N of the header; N bytes of JSON, an object that maps each tensor's name
to `{"dtype", "shape", "data_offsets": [begin, end]}` and `"__metadata__"` to an object of strings; then the
tensors' bytes, one after another without holes (https://github.com/huggingface/safetensors, "Format").
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch
from torch import Tensor

from scumble.core.errors import InputError
from scumble.core.files import atomic_write, explained

__all__ = ["MAX_HEADER", "safetensors_header", "save_safetensors"]

MAX_HEADER = 100_000_000
"""The longest header read, in bytes: the format's own limit."""

_NAMES = {
    torch.bool: "BOOL", torch.uint8: "U8", torch.int8: "I8",
    torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2",
    torch.uint16: "U16", torch.int16: "I16", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.uint32: "U32", torch.int32: "I32", torch.float32: "F32",
    torch.uint64: "U64", torch.int64: "I64", torch.float64: "F64",
}  # fmt: skip
_SIZES = {name: dtype.itemsize for dtype, name in _NAMES.items()}
_MAX_DIMENSIONS = 32
_PICTURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")
"""What PNG and JPEG files begin with."""


def safetensors_header(
    path: Path | str, max_bytes: int = MAX_HEADER, *, error: type[InputError] = InputError
) -> dict[str, Any]:
    """The header as a dict: tensor name -> `{"dtype": str, "shape": [int], "data_offsets": [int, int]}`.

    `"__metadata__"` -> dict of str to str is always there, empty if the file has none. Everything is checked
    before any tensor is touched: the length against the file and `max_bytes`, the JSON, no name twice, types,
    shapes that agree with the offsets, and offsets that cover the rest of the file exactly. Raises `error`
    with the path and the first thing found wrong.
    """
    path = Path(path)
    text, data_size = _header_text(path, max_bytes, error)
    try:
        header = json.loads(text, object_pairs_hook=_object_without_repeats)
        return _checked(header, data_size)
    except (ValueError, RecursionError) as problem:
        reason = "its JSON is nested too deeply" if isinstance(problem, RecursionError) else str(problem)
        raise _damaged(path, reason, error) from problem


def save_safetensors(path: Path | str, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors of any device and layout, and a header of strings, to `path`: whole or not at all.

    Equal content gives equal bytes. Tensors are streamed one by one, without a second copy of
    them all. Raises DiskFullError when the disk is full.
    """
    # Widest elements first, so that each tensor begins at a multiple of its element size.
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    position = 0
    for name in names:
        tensor = tensors[name]
        end = position + tensor.numel() * tensor.element_size()
        dtype, shape = _NAMES[tensor.dtype], list(tensor.shape)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [position, end]}
        position = end
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)

    def write(file: BinaryIO) -> None:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            flat = tensors[name].detach().to("cpu").contiguous().reshape(-1)
            file.write(flat.view(torch.uint8).numpy().data)

    atomic_write(path, write)


def _header_text(path: Path, max_bytes: int, error: type[InputError]) -> tuple[bytes, int]:
    """The header's bytes, and how many bytes of tensors follow."""
    with explained(path, "read", error), path.open("rb") as file:
        size = path.stat().st_size
        start = file.read(12)
        length = int.from_bytes(start[:8], "little")
        if size < 8:
            raise _damaged(path, f"it has {size} bytes, too few to hold a header", error)
        if length > size - 8:
            if start.startswith(_PICTURES) or (start.startswith(b"RIFF") and start.endswith(b"WEBP")):
                raise error(f"{path} is a picture, not a .safetensors file.", "Give another file.")
            raise _damaged(path, "it announces a header longer than the file itself", error)
        if length > max_bytes:
            reason = f"it announces a header of {length:,} bytes, longer than the limit of {max_bytes:,}"
            raise _damaged(path, reason, error)
        file.seek(8)
        return file.read(length), size - 8 - length


def _checked(header: object, data_size: int) -> dict[str, Any]:
    """The header with every entry looked at; ValueError says what is wrong."""
    if not isinstance(header, dict):
        raise ValueError("its header is not a JSON object")
    entries = cast("dict[str, Any]", header)
    metadata = entries.setdefault("__metadata__", {})
    if not isinstance(metadata, dict) or not all(
        isinstance(v, str) for v in cast("dict[str, Any]", metadata).values()
    ):
        raise ValueError("its metadata is not an object of strings")
    spans = sorted(_span(name, entry) for name, entry in entries.items() if name != "__metadata__")
    position = 0
    for begin, end, name in spans:
        if begin != position:
            raise ValueError(f"the tensor {name[:80]!r} begins at byte {begin} where {position} was expected")
        position = end
    if position != data_size:
        raise ValueError(f"its tensors take {position:,} bytes but {data_size:,} are there")
    return entries


def _span(name: str, entry: object) -> tuple[int, int, str]:
    """(begin, end, name) of one tensor, its type, shape and offsets checked against one another."""
    label = f"the tensor {name[:80]!r}"
    fields = cast("dict[str, Any]", entry) if isinstance(entry, dict) else {}
    if fields.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{label} is not described by dtype, shape and data_offsets")
    size = _SIZES.get(fields["dtype"]) if isinstance(fields["dtype"], str) else None
    if size is None:
        raise ValueError(f"{label} has an unknown dtype {str(fields['dtype'])[:20]!r}")
    shape, offsets = _naturals(fields["shape"]), _naturals(fields["data_offsets"])
    if shape is None or len(shape) > _MAX_DIMENSIONS or max(shape, default=0) >= 2**63:
        raise ValueError(f"{label} has an impossible shape {str(fields['shape'])[:60]}")
    if offsets is None or len(offsets) != 2:
        raise ValueError(f"{label} has impossible offsets {str(fields['data_offsets'])[:60]}")
    begin, end = offsets
    if end - begin != prod(shape) * size:
        raise ValueError(f"{label} of shape {shape} does not fit its {end - begin} bytes")
    return begin, end, name


def _naturals(value: object) -> list[int] | None:
    """`value` if it is a list of integers from zero up, else None (true and 1.0 are not integers here)."""
    if isinstance(value, list) and all(type(n) is int and n >= 0 for n in cast("list[Any]", value)):
        return cast("list[int]", value)
    return None


def _object_without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a name stands twice in its header")
    return result


def _damaged(path: Path, reason: str, error: type[InputError]) -> InputError:
    return error(f"{path} is not a sound .safetensors file: {reason}.", "Download or make the file again.")
