"""Attention maps equal those of diffusers' own plain processor, which forms them explicitly."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers.models.attention_processor import Attention, AttnProcessor

from learnt import output, tiny_model
from scumble.adapters.attention import record


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_maps_equal_get_attention_scores(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model(family)
    theirs: list[torch.Tensor] = []
    original = Attention.get_attention_scores

    def kept(layer: Any, *arguments: Any) -> torch.Tensor:
        scores = original(layer, *arguments)
        theirs.append(scores.unflatten(0, (-1, layer.heads)))
        return scores

    monkeypatch.setattr(Attention, "get_attention_scores", kept)
    model.denoiser.set_attn_processor(AttnProcessor())
    ours: list[torch.Tensor] = []
    with torch.no_grad(), record(model) as maps:
        output(model, rows=2)
    ours = [seen for calls in maps.values() for seen in calls]
    assert len(ours) == len(theirs) >= 6
    for mine, reference in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-5, atol=1e-6)
