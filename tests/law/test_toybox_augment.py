"""Augmentations: nothing changes where there is nothing to change, and a seed decides all."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from recipes.toybox import augment
from recipes.toybox.autoencoder import crops, psnr
from recipes.toybox.denoiser import MIDDLE, spread_times
from torch import Tensor

Change = Callable[[Tensor, torch.Generator], Tensor]
CHANGES: list[Change] = [
    augment.crop, augment.affine, augment.blur, augment.light, augment.mixed, augment.softly,
]  # fmt: skip


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("change", CHANGES)
def test_seed_decides_and_range_holds(change: Change) -> None:
    x = torch.rand(4, 3, 32, 32, generator=generator()) * 2 - 1
    once, twice, other = (change(x, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(once, twice)
    assert not torch.equal(once, other)
    assert once.shape == x.shape
    assert once.abs().max() <= 1.0 + 1e-5


@pytest.mark.parametrize("change", [augment.crop, augment.blur])
def test_a_plain_picture_stays_plain(change: Change) -> None:
    x = torch.full((3, 3, 32, 32), 0.25)
    torch.testing.assert_close(change(x, generator()), x, atol=1e-5, rtol=0.0)


def test_neutral_settings_change_nothing() -> None:
    x = torch.rand(4, 3, 32, 32, generator=generator()) * 2 - 1
    torch.testing.assert_close(augment.affine(x, generator(), degrees=0.0, shift=0.0), x, atol=1e-5, rtol=0.0)
    torch.testing.assert_close(augment.light(x, generator(), most=0.0), x)
    kept = augment.crop(x, generator(), smallest=1.0)
    same = [
        torch.allclose(a, b, atol=1e-5) or torch.allclose(a, b.flip(-1), atol=1e-5)
        for a, b in zip(kept, x, strict=True)
    ]
    assert all(same)


def test_moving_fills_with_white() -> None:
    x = torch.full((8, 3, 32, 32), -1.0)
    moved = augment.affine(x, generator(), degrees=0.0, shift=0.4)
    assert (moved > 0.99).any()
    assert (moved < -0.99).any()


def test_crops_are_windows_of_the_pictures() -> None:
    pixels = torch.arange(128 * 128, dtype=torch.int64).remainder(251).to(torch.uint8).view(1, 1, 128, 128)
    pixels = pixels.expand(2, 3, -1, -1).contiguous()
    windows = ((crops(pixels, 6, 16, generator()) + 1) * 127.5).round().to(torch.uint8)
    every = pixels[0, 0].unfold(0, 16, 1).unfold(1, 16, 1).flatten(0, 1)  # (113 * 113, 16, 16)
    for window in windows:
        views = torch.stack([window[0], window[0].flip(-1)])
        assert (every[:, None] == views).flatten(2).all(-1).any()


def test_times_are_one_from_each_equal_part_of_their_distribution() -> None:
    batch = 400
    times = spread_times(batch, generator(), torch.device("cpu"))
    assert (times[: batch // 4] // 10).tolist() == list(range(100))
    # Each of the others lies between two neighbouring quantiles of the logit-normal distribution.
    edges = torch.linspace(0, 1, 1 + 3 * batch // 4, dtype=torch.double)
    bounds = 1000 * torch.sigmoid(MIDDLE + torch.special.ndtri(edges))
    lower, upper = bounds[:-1].floor() - 1, bounds[1:].ceil() + 1
    assert ((times[batch // 4 :] >= lower) & (times[batch // 4 :] <= upper)).all()


def test_psnr_is_that_of_a_known_error() -> None:
    a = torch.full((1, 3, 8, 8), 100, dtype=torch.uint8)
    assert float(psnr(a, a + 10)) == pytest.approx(20 * torch.log10(torch.tensor(25.5)).item(), abs=1e-4)
