"""The weights file: what is written is read, and nothing else is."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from collections.abc import Callable
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from learnt import CONV, KEY, TEXT, learnt, tiny_model
from scumble.adapters.attach import attach
from scumble.adapters.changes import Dense, LowRank, parameters_of
from scumble.adapters.weights import Weights, Word
from scumble.core.errors import DiskFullError, WeightsError
from scumble.core.safetensor_files import safetensors_header, save_safetensors


def small(**fields: Any) -> Weights:
    words = {"<rex>": Word((torch.ones(2, 3),), "dog"), "sks": Word((torch.zeros(1, 3),))}
    changes = {
        "unet.a.weight": Dense(torch.arange(6.0).reshape(2, 3)),
        "unet.b.weight": LowRank(torch.ones(2, 3), torch.ones(4, 2), 8.0, torch.ones(4)),
    }
    about = {"method": "test", "family": "sd1", "base_hash": "ab" * 32, "words": words, "changes": changes}
    return Weights(
        **(about | {"config": {"rate": 1e-4}, "training": {"steps": 3, "loss": [0.5, None]}} | fields)
    )


def raw(weights: Weights, folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the JSON of the file of `weights`."""
    weights.save(folder / "raw.safetensors")
    metadata = safetensors_header(folder / "raw.safetensors")["__metadata__"]
    return load_file(folder / "raw.safetensors"), json.loads(metadata["scumble"])


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_what_is_written_is_read(family: str, tmp_path: Path) -> None:
    model = tiny_model(family)
    weights = learnt(model, config={"steps": 5}, training={"seconds": 1.5})
    weights.save(tmp_path / "w.safetensors")
    read = Weights.load(tmp_path / "w.safetensors")
    for name in ("method", "family", "base_hash", "config", "training"):
        assert getattr(read, name) == getattr(weights, name)
    assert list(read.words) == list(weights.words)
    assert read.words["<rex>"].noun == "dog"
    assert all(map(torch.equal, read.words["<rex>"].vectors, weights.words["<rex>"].vectors))
    assert list(read.changes) == list(weights.changes)
    for name, change in weights.changes.items():
        assert type(read.changes[name]) is type(change)
        ours, theirs = change.tensors(), read.changes[name].tensors()
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[kind], theirs[kind]) for kind in ours)
    assert {n: c.alpha for n, c in read.changes.items() if isinstance(c, LowRank)}.keys() > {CONV, TEXT}
    assert "magnitude" in read.changes[TEXT].tensors()
    read.save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "w.safetensors").read_bytes()
    with attach(model, read):
        assert list(model.words) == ["<rex>"]


def test_half_precision_and_order_survive(tmp_path: Path) -> None:
    changes = {name: Dense(torch.ones(2, dtype=torch.bfloat16)) for name in ("unet.z", "unet.a", "unet.m")}
    small(changes=changes).save(tmp_path / "w")
    read = Weights.load(tmp_path / "w").changes
    assert list(read) == ["unet.z", "unet.a", "unet.m"]
    assert read["unet.z"].tensors()["delta"].dtype == torch.bfloat16


def test_the_file_describes_itself(tmp_path: Path) -> None:
    tensors, header = raw(small(), tmp_path)
    assert header["format"] == 1
    assert header["words"][0] == {"word": "<rex>", "vectors": 2, "encoders": 1, "noun": "dog"}
    assert header["changes"]["unet.b.weight"] == {"kind": "low-rank", "alpha": 8.0, "magnitude": True}
    assert set(tensors) == {
        "word.0.0", "word.1.0", "change.unet.a.weight.delta",
        "change.unet.b.weight.a", "change.unet.b.weight.b", "change.unet.b.weight.magnitude",
    }  # fmt: skip
    assert safetensors_header(tmp_path / "raw.safetensors")["__metadata__"]["format"] == "pt"


Spoil = Callable[[dict[str, Any], dict[str, Any]], Any]

SPOILT: dict[str, Spoil] = {
    "is of format '7', and this version reads format 1": lambda t, h: h.update(format=7),
    "is of format 'x'": lambda t, h: h.update(format="x"),
    "lacks the tensor 'word.1.0'": lambda t, h: t.pop("word.1.0"),
    "lacks the tensor 'change.unet.b.weight.a' and 1 more": lambda t, h: [
        t.pop("change.unet.b.weight.a"), t.pop("change.unet.b.weight.b")],
    "should not have the tensor 'extra'": lambda t, h: t.update(extra=torch.ones(1)),
    "should not have the tensor 'change.unet.b.weight.magnitude'":
        lambda t, h: h["changes"]["unet.b.weight"].update(magnitude=False),
    "the word '<rex>' does not have the vectors": lambda t, h: t.update({"word.0.0": torch.ones(3, 3)}),
    "the word 'sks' does not have the vectors": lambda t, h: t.update({"word.1.0": torch.ones(3)}),
    "the word '<rex>' does not have": lambda t, h: h["words"][1].update(word="<rex>"),
    "change of 'unet.b.weight' do not fit":
        lambda t, h: t.update({"change.unet.b.weight.b": torch.ones(4, 3)}),
    "'change.unet.a.weight.delta' holds NaN": lambda t, h: t["change.unet.a.weight.delta"].fill_(torch.nan),
    "'word.0.0' holds NaN, infinity or no fractions":
        lambda t, h: t.update({"word.0.0": torch.ones(2, 3).int()}),
    "'a b' cannot be a word": lambda t, h: h["words"][0].update(word="a b"),
    "cannot be a word": lambda t, h: h["words"][0].update(word="\x1b[2J"),
    "words.0.word: String should have at most 100": lambda t, h: h["words"][0].update(word="x" * 101),
    "words.0.vectors: Input should be less than": lambda t, h: h["words"][0].update(vectors=10**9),
    "base_hash: String should match": lambda t, h: h.update(base_hash="../x"),
    "surprise: Extra inputs are not permitted": lambda t, h: h.update(surprise=1),
    "method: Field required": lambda t, h: h.pop("method"),
    "changes.unet.a.weight.kind: Input should be":
        lambda t, h: h["changes"]["unet.a.weight"].update(kind="pickle"),
}  # fmt: skip


@pytest.mark.parametrize("reason", SPOILT)
def test_a_spoilt_file_is_one_sentence_with_the_reason(tmp_path: Path, reason: str) -> None:
    tensors, header = raw(small(), tmp_path)
    SPOILT[reason](tensors, header)
    path = tmp_path / "spoilt.safetensors"
    save_safetensors(path, tensors, {"scumble": json.dumps(header)})
    with pytest.raises(WeightsError) as caught:
        Weights.load(path)
    assert reason in caught.value.message
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({}, "was not written by scumble"),
        ({"scumble": "{"}, "is not sound: its JSON: Invalid JSON"),
        ({"scumble": "[" * 100_000}, "is not sound: its JSON"),
        ({"scumble": "x" * 4_000_001}, "description of 4,000,001 characters"),
        ({"x": "x" * 16_000_000}, "longer than the limit of 16,000,000"),
    ],
)
def test_a_stranger_is_one_sentence(tmp_path: Path, metadata: dict[str, str], message: str) -> None:
    path = tmp_path / "x.safetensors"
    save_safetensors(path, {"a": torch.ones(1)}, metadata)
    with pytest.raises(WeightsError, match=message):
        Weights.load(path)


def test_a_pickle_is_never_opened(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(1)}, tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match=r"not a sound \.safetensors file"):
        Weights.load(tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match="does not exist"):
        Weights.load(tmp_path / "nothing.safetensors")


def test_weights_that_do_not_fit_together_cannot_be_made() -> None:
    for vectors in ((), (torch.ones(3),), (torch.ones(0, 3),), (torch.ones(1, 3), torch.ones(2, 3))):
        with pytest.raises(WeightsError, match="'w' needs as many vectors for each text encoder"):
            small(words={"w": Word(vectors)})
    for a, b in ((torch.ones(2, 3), torch.ones(4, 1)), (torch.ones(0, 3), torch.ones(4, 0))):
        with pytest.raises(WeightsError, match="do not fit together"):
            small(changes={"unet.a": LowRank(a, b, 1.0)})


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "w.safetensors"
    small().save(path)
    before = path.read_bytes()

    def fsync(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(DiskFullError):
        small(method="other").save(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["w.safetensors"]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)


@cache
def _sound() -> tuple[dict[str, Tensor], dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        return raw(small(), Path(folder))


@st.composite
def spoilt_headers(draw: st.DrawFn) -> Any:
    """The JSON of a sound file with a value somewhere in it replaced."""
    header = deepcopy(_sound()[1])
    place: Any = header
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = draw(st.sampled_from(keys))
        inside = place[key]
        if not isinstance(inside, dict | list) or not inside or draw(st.booleans()):
            place[key] = draw(json_values)
            return header
        place = inside


@settings(max_examples=150, deadline=None)
@given(spoilt_headers())
def test_any_header_gives_weights_or_a_sentence(header: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.safetensors")
        save_safetensors(path, _sound()[0], {"scumble": json.dumps(header)})
        sentence = ""
        try:
            assert set(Weights.load(path).changes) == {"unet.a.weight", "unet.b.weight"}
        except WeightsError as problem:
            sentence = str(problem)
        assert "\n" not in sentence
        assert len(sentence) < 600


def test_the_key_of_the_examples_is_a_parameter_of_the_model() -> None:
    named = parameters_of(tiny_model("sdxl"))
    assert {KEY, CONV, TEXT} < set(named)
    assert not any("text_model" in name or name.startswith("vae") for name in named)
    assert "text_encoder_2.text_projection.weight" in named
