"""Likeness and distances by hand on vectors and pictures so small that the answer is known."""

from __future__ import annotations

import math

import pytest
import torch

from scumble.core.errors import InputError
from scumble.metrics.features import named_features
from scumble.metrics.kid import kid
from scumble.metrics.pixels import l1, mse
from scumble.metrics.prior import diversity, prior_preservation
from scumble.metrics.similarity import (
    clip_score,
    directional_similarity,
    paired_similarity,
    subject_similarity,
)
from scumble.models.judge import Judge

X, Y = torch.tensor([1.0, 0, 0]), torch.tensor([0, 1.0, 0])
HALF = (X + Y) / math.sqrt(2)


def test_l1_and_l2_are_means() -> None:
    black = torch.zeros(2, 3, 8, 8)
    grey = black.clone()
    grey[1, :, :4] = 0.5  # half of one picture
    assert l1(black, grey).tolist() == [0, 0.25]
    assert mse(black, grey).tolist() == [0, 0.125]


def test_subject_similarity_is_over_all_pairs() -> None:
    generated, real = torch.stack([X, Y]), torch.stack([X, X, HALF])
    expected = (1 + 1 + math.sqrt(0.5) + 0 + 0 + math.sqrt(0.5)) / 6
    assert subject_similarity(generated, real) == pytest.approx(expected)
    assert prior_preservation(generated, real) == pytest.approx(expected)


def test_paired_similarity_and_clip_score() -> None:
    pictures, texts = torch.stack([X, X, X]), torch.stack([X, HALF, -X])
    assert paired_similarity(pictures, texts).tolist() == pytest.approx([1, math.sqrt(0.5), -1])
    assert clip_score(pictures, texts).tolist() == pytest.approx([2.5, 2.5 * math.sqrt(0.5), 0])


def test_directional_similarity_compares_ways_and_not_places() -> None:
    before, after = torch.stack([X, X, X, X]), torch.stack([Y, Y, X, HALF])
    text_before, text_after = torch.stack([X, Y, X, X]), torch.stack([Y, X, Y, Y])
    found = directional_similarity(before, after, text_before, text_after).tolist()
    to_half = float(torch.nn.functional.cosine_similarity(HALF - X, Y - X, dim=0))
    assert found == pytest.approx([1, -1, 0, to_half], abs=1e-6)


def test_diversity_is_the_mean_over_pairs() -> None:
    pictures = torch.tensor([0.0, 0.25, 1.0]).reshape(3, 1, 1, 1).expand(3, 3, 4, 4)
    assert diversity(pictures, l1) == pytest.approx((0.25 + 1 + 0.75) / 3)
    assert diversity(pictures[[1, 1]], l1) == 0
    with pytest.raises(InputError, match="diversity of one picture"):
        diversity(pictures[:1], l1)


def test_features_have_names(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    tiny = Judge((8, 16), (1, 1), 4).eval().requires_grad_(False)
    monkeypatch.setattr("scumble.models.toybox.judge", lambda device: tiny)
    pictures = torch.rand(70, 3, 32, 32, generator=torch.Generator().manual_seed(0))  # more than one batch
    judge, identity = named_features("judge"), named_features("identity")
    assert (judge(pictures).shape, identity(pictures).shape) == ((70, 16), (70, 4))
    assert identity(pictures).norm(dim=1).tolist() == pytest.approx([1] * 70, abs=1e-5)
    near, far = (
        kid(judge(pictures[:35]), judge(other), size=20).mean for other in (pictures[35:], pictures[35:] / 4)
    )
    assert abs(near) < far
    for name in ("inception", "dino", "judge2"):
        with pytest.raises(InputError, match=f"no features '{name}'"):
            named_features(name)
