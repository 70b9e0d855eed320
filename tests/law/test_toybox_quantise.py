"""Eight bits and back: no weight is off by more than half a step of its channel; all else is untouched."""

from __future__ import annotations

import pytest
import torch
from recipes.toybox.pack import quantised
from torch import Tensor

from scumble.models.toybox import SCALE, dequantised


def tensors(seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    spread = torch.rand(64, 1, 1, 1, generator=generator) * 10.0
    return {
        "conv.weight": torch.randn(64, 8, 3, 3, generator=generator) * spread,
        "linear.weight": torch.randn(48, 96, generator=generator).half(),
        "norm.weight": torch.randn(64, generator=generator),
        "token_embedding.weight": torch.randn(100, 32, generator=generator),
        "position_ids": torch.arange(77)[None],
    }


@pytest.mark.parametrize("seed", range(3))
def test_error_is_at_most_half_a_step(seed: int) -> None:
    before = tensors(seed)
    small = quantised(before)
    after = dequantised(small)
    assert set(after) == set(before)
    for name in ("conv.weight", "linear.weight"):
        assert small[name].dtype == torch.int8
        scale = small[name + SCALE]
        assert scale.shape == before[name].shape[:1]
        error = (after[name] - before[name].float()).flatten(1).abs().amax(1)
        assert (error <= 0.5 * scale * (1 + 1e-5)).all()


def test_norms_biases_and_embeddings_are_halves_and_integers_stay() -> None:
    before = tensors(0)
    after = dequantised(quantised(before))
    for name in ("norm.weight", "token_embedding.weight"):
        assert after[name].dtype == torch.float32
        assert torch.equal(after[name], before[name].half().float())
    assert torch.equal(after["position_ids"], before["position_ids"])


def test_quantising_again_changes_nothing() -> None:
    once = dequantised(quantised(tensors(1)))
    twice = dequantised(quantised(once))
    for name, value in once.items():
        torch.testing.assert_close(twice[name], value, rtol=1e-6, atol=0.0)


def test_a_channel_of_zeros_stays_zero() -> None:
    before = {"weight": torch.zeros(32, 64)}
    assert torch.equal(dequantised(quantised(before))["weight"], before["weight"])
