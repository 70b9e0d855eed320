"""Measures that know the truth, on answers made up by hand."""

from __future__ import annotations

import pytest
import torch

from scumble.metrics.toy_world import auroc, share, spoilt, tells_same


def test_shares_leave_out_what_cannot_be_seen_and_who_was_not_asked() -> None:
    answers = {"kind": [True, False, True, True], "colour": [None, None, True, False], "both": [None] * 4}
    assert share(answers) == {"kind": 0.75, "colour": 0.5}
    assert share(answers, [True, True, False, False]) == {"kind": 0.5}


def test_auroc_is_the_chance_to_score_higher() -> None:
    assert auroc(torch.tensor([3.0, 4.0]), torch.tensor([1.0, 2.0])) == 1.0
    assert auroc(torch.tensor([1.0, 4.0]), torch.tensor([2.0, 1.0])) == pytest.approx(0.625)
    assert auroc(torch.ones(3), torch.ones(5)) == 0.5


def test_same_things_are_told_from_look_alikes() -> None:
    x, y = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    assert tells_same(torch.stack([x, x, y, x, y, x])) == 0.5


def test_spoilt_pictures_differ_from_their_origins_in_four_ways() -> None:
    x = torch.rand(8, 3, 64, 64) * 2 - 1
    nothing = spoilt(x, torch.Generator().manual_seed(0))
    assert nothing.shape == x.shape
    assert nothing.abs().max() <= 1.0
    assert ((nothing - x).abs().mean((1, 2, 3)) > 0.1).all()
    torch.testing.assert_close(nothing[0], 0.5 * (x[0] + x[-1]))
    assert torch.equal(nothing[2].flatten().sort().values, x[2].flatten().sort().values)
