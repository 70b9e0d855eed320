"""What becomes of the part of weights that is for an upscaler when they are merged, converted, looked at."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cli import scumble
from learnt import noise
from scumble.adapters.changes import LowRank
from scumble.adapters.merge import compose
from scumble.adapters.weights import Weights, Word
from scumble.core.errors import WeightsError
from scumble.models.load import load
from tiny import shared

NAME = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q.weight"


@pytest.fixture(scope="module")
def both() -> Weights:
    """A word and a low-rank change of the base, and the same of an upscaler."""
    model = load(shared("sd1"))
    change = LowRank(noise(2, 32), noise(32, 2), 1.0)
    large = Weights(
        method="dreambooth",
        family="upscaler",
        base_hash="0" * 64,
        words={"<rex>": Word((noise(1, 48),), "dog")},
        changes={NAME: change},
        config={"upscaler_noise": 0},
    )
    words = {"<rex>": Word((noise(1, 32),), "dog")}
    return Weights(
        method="dreambooth",
        family="sd1",
        base_hash=model.hash,
        words=words,
        changes={NAME: change},
        upscaler=large,
    )


def test_one_of_several_may_have_it(both: Weights) -> None:
    model = load(shared("sd1"))
    plain = replace(both, words={"<tom>": Word((noise(1, 32) + 1.0,), "dog")}, upscaler=None)
    assert compose(model, [(both, 1.0), (plain, 0.5)]).upscaler is both.upscaler
    third = replace(plain, words={"<b>": Word((noise(1, 32) + 2.0,), "ball")})
    assert compose(model, [(plain, 1.0), (third, 0.5)]).upscaler is None
    other = replace(plain, upscaler=both.upscaler)
    for given in ([(both, 1.0), (other, 1.0)], [(both, 0.5), (plain, 1.0)]):
        with pytest.raises(WeightsError, match="from one of them only"):
            compose(model, given)


def test_converting_says_that_it_is_left_out_and_renaming_keeps_it(both: Weights, tmp_path: Path) -> None:
    file, model = tmp_path / "rex.safetensors", ("--model", str(shared("sd1")))
    both.save(file)
    outcome = scumble("convert", str(file), "--to", "kohya", *model, "-o", str(tmp_path / "kohya"))
    assert outcome.status == 0
    assert "for an upscaler is left out" in outcome.err
    renamed = tmp_path / "tom.safetensors"
    outcome = scumble("convert", str(file), "--to", "scumble", "--word", "<tom>", *model, "-o", str(renamed))
    assert "left out" not in outcome.err
    back = Weights.load(renamed)
    assert back.upscaler is not None
    assert list(back.words) == list(back.upscaler.words) == ["<tom>"]
    assert torch.equal(back.upscaler.changes[NAME].tensors()["b"], both.changes[NAME].tensors()["b"])


def test_inspect_shows_it(both: Weights, tmp_path: Path) -> None:
    both.save(tmp_path / "rex.safetensors")
    facts = scumble("inspect", str(tmp_path / "rex.safetensors"), "--json").json
    assert facts["upscaler"] == facts["changes"]
    replace(both, upscaler=None).save(tmp_path / "rex.safetensors")
    assert "upscaler" not in scumble("inspect", str(tmp_path / "rex.safetensors"), "--json").json


def test_a_part_that_lacks_a_tensor_is_named(both: Weights, tmp_path: Path) -> None:
    from safetensors import safe_open
    from safetensors.torch import save_file

    file = tmp_path / "rex.safetensors"
    both.save(file)
    with safe_open(file, "pt") as opened:
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        metadata = opened.metadata()
    del tensors[f"upscaler.change.{NAME}.b"]
    save_file(tensors, file, metadata=metadata)
    with pytest.raises(WeightsError, match=r"lacks the tensor 'upscaler\.change"):
        Weights.load(file)
