"""Windows leave no seam and bound memory; every size is taken; a seed is a picture."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tiny
from scumble.adapters.attach import attach
from scumble.core import rng
from scumble.core.errors import ConfigError, InputError
from scumble.core.events import finish
from scumble.diffusion.samplers import SAMPLERS
from scumble.models import toybox
from scumble.models.load import load
from scumble.models.model import Model
from scumble.sampling import upscaling
from scumble.sampling.text_to_image import SamplerOptions
from scumble.sampling.tiles import Tiling, fading, over_tiles, starts
from scumble.sampling.upscaling import Enlarging, as_seen, enlarge
from upscalers import shared_latent_upscaler

FEW = SamplerOptions(sampler="ddim", steps=3, guidance=3.0)
TASK = Enlarging(prompt="a red cat", options=FEW, tile=512)


@pytest.fixture(scope="module", params=["pixels", "latents"])
def model(request: pytest.FixtureRequest) -> Model:
    """An upscaler of each layout."""
    return load(tiny.shared("upscaler") if request.param == "pixels" else shared_latent_upscaler())


def picture(height: int, width: int, seed: int = 0) -> Tensor:
    """Smooth: a random picture of 5 x 5 spread out."""
    small = torch.rand(1, 3, 5, 5, generator=rng.generator(seed))
    return nn.functional.interpolate(small, (height, width), mode="bicubic").clamp(0, 1)


def enlarged(model: Model, shown: Tensor, task: Enlarging = TASK, seed: int = 5) -> Tensor:
    return finish(enlarge(model, shown, [seed], task))


# Windows


@pytest.mark.parametrize("length", [5, 8, 9, 16, 23, 64, 100])
@pytest.mark.parametrize("tiling", [Tiling(8, 4, 2), Tiling(8, 0, 2), Tiling(12, 5, 4), Tiling(16, 8)])
def test_weights_sum_to_one_and_windows_cover_all(length: int, tiling: Tiling) -> None:
    total, seen = torch.zeros(3 * length), set[int]()
    begins = starts(length, tiling)
    for begin, weight in zip(begins, fading(length, tiling, 3), strict=True):
        size = min(length, tiling.side)
        total[3 * begin : 3 * (begin + size)] += weight
        seen |= set(range(begin, begin + size))
        assert bool((weight >= 0).all())
    torch.testing.assert_close(total, torch.ones(3 * length))
    assert seen == set(range(length))
    assert all(b - a <= tiling.side - tiling.overlap for a, b in pairwise(begins))


def test_what_looks_less_far_than_the_guard_is_the_same_in_windows_and_whole() -> None:
    """A stack of convolutions that sees 3 cells around, and a guard of 4: not a rounding's difference, so no
    seam. With an overlap that has no guard the same windows differ, so this can fail.
    """
    torch.manual_seed(0)
    network = nn.Sequential(*(nn.Conv2d(2, 2, 3, padding=1) for _ in range(3)))
    x = torch.randn(1, 2, 50, 37)

    def work(window: tuple[slice, slice]) -> Tensor:
        return network(x[(..., *window)])

    with torch.no_grad():
        whole = network(x)
        torch.testing.assert_close(over_tiles(work, (50, 37), Tiling(32, 16)), whole, rtol=1e-5, atol=1e-6)
        assert (over_tiles(work, (50, 37), Tiling(32, 2)) - whole).abs().max() > 1e-2


def test_a_large_picture_in_windows_has_no_seams(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a network that sees every window in another light, as one that normalises over what it sees does,
    the picture is no rougher along the lines where windows begin and end than elsewhere; with windows that do
    not overlap those lines stand out.
    """
    f = model.downsample

    def branches(_: Model, __: Any, low: Tensor, ___: Tensor) -> Any:
        lit = 0.1 * low[:, :1] + torch.sin(1e4 * low.mean((1, 2, 3), keepdim=True))
        return lambda x, level, which: [lit.expand_as(x)] * len(which)

    monkeypatch.setattr(upscaling, "_branches", branches)
    monkeypatch.setattr(
        model, "decode", lambda z: nn.functional.interpolate(0.2 * z[:, :3], scale_factor=f, mode="nearest")
    )
    cells, tile, shown = 48, 24 * f, picture(48 * f // _factor(model), 48 * f // _factor(model))

    def jumps(overlap: int) -> tuple[float, float]:
        """The largest between cells at windows' edges and anywhere else."""
        task = replace(TASK, tile=tile, overlap=overlap, noise_level=0)
        large = enlarged(model, shown, task)[..., ::f, ::f]
        begins = starts(cells, Tiling(24, overlap // f, 2))
        lines = [edge - 1 for b in begins for edge in (b, b + 24) if 0 < edge < cells]
        between = large.diff(dim=-1).abs().amax((0, 1, 2))
        others = [i for i in range(cells - 1) if i not in lines]
        return float(between[lines].max()), float(between[others].max())

    at, elsewhere = jumps(tile // 2)
    assert at <= elsewhere
    at, elsewhere = jumps(0)
    assert at > 2 * elsewhere


def test_memory_is_that_of_a_window_whatever_the_size(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    for name in ("predict", "decode", "encode"):
        plain = getattr(model, name)

        def watched(x: Tensor, *rest: Any, plain: Any = plain) -> Any:
            seen.append(x.shape[-1] * x.shape[-2])
            return plain(x, *rest)

        monkeypatch.setattr(model, name, watched)
    task = replace(TASK, tile=64, options=replace(FEW, steps=1, guidance=1.0))
    largest: list[int] = []
    for width in (48, 160):
        seen.clear()
        assert enlarged(model, picture(48, width), task).shape[-1] == width * _factor(model)
        largest.append(max(seen))
    assert largest[0] == largest[1]


# Sizes and seeds


@pytest.mark.parametrize("size", [(1, 1), (7, 30), (16, 16), (33, 21)])
def test_any_size_is_taken(model: Model, size: tuple[int, int]) -> None:
    large = enlarged(model, torch.rand(1, 3, *size), replace(TASK, options=replace(FEW, steps=1)))
    factor = _factor(model)
    assert large.shape == (1, 3, size[0] * factor, size[1] * factor)
    assert 0 <= float(large.min()) <= float(large.max()) <= 1


def test_a_seed_is_a_picture_whatever_its_company(model: Model) -> None:
    shown = torch.cat([picture(16, 16, seed) for seed in (1, 2)])
    both = finish(enlarge(model, shown, [5, 6], TASK))
    for row, seed in ((0, 5), (1, 6)):
        alone = enlarged(model, shown[row : row + 1], seed=seed)
        torch.testing.assert_close(both[row : row + 1], alone, rtol=0, atol=1e-4)
    assert not torch.allclose(enlarged(model, shown[:1], seed=6), enlarged(model, shown[:1]), atol=1e-2)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_runs(model: Model, sampler: str) -> None:
    large = enlarged(model, picture(16, 16), replace(TASK, options=replace(FEW, sampler=sampler)))
    assert bool(large.isfinite().all())
    assert float(large.std()) > 0.01


def test_noise_and_its_level_are_told(model: Model) -> None:
    low, high = (enlarged(model, picture(16, 16), replace(TASK, noise_level=n)) for n in (0, 99))
    assert (low - high).abs().max() > 1e-2


def test_the_small_picture_is_seen_at_the_size_of_the_latents(model: Model) -> None:
    shown = picture(32, 48)
    seen, f = as_seen(model, shown), model.downsample
    assert seen.shape[-2:] == (32 * _factor(model) // f, 48 * _factor(model) // f)
    if seen.shape[1] == 3:
        torch.testing.assert_close(seen, shown * 2 - 1)
    else:
        assert torch.equal(seen[..., ::2, ::2], seen[..., 1::2, 1::2])


# What cannot be


def test_noise_levels_and_windows_that_cannot_be_are_one_sentence(model: Model) -> None:
    highest = model.upscaling.highest if model.upscaling else 0
    with pytest.raises(InputError, match=f"no noise level {highest + 1}"):
        enlarged(model, picture(16, 16), replace(TASK, noise_level=highest + 1))
    for task in (replace(TASK, tile=model.downsample), replace(TASK, tile=64, overlap=64)):
        with pytest.raises(ConfigError, match="Windows of"):
            enlarged(model, picture(16, 16), task)


@pytest.mark.parametrize("there", [False, True])
def test_an_upscaler_neither_draws_nor_is_drawn_with(
    model: Model, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, there: bool
) -> None:
    with pytest.raises(InputError, match="is an upscaler"):
        model.branches()
    (tmp_path / toybox.UPSCALING).mkdir()
    if there:
        (tmp_path / toybox.UPSCALING / "model_index.json").touch()
    monkeypatch.setattr(toybox, "packed", lambda: tmp_path)
    ours = "toybox-upscaler or " if there else ""
    with pytest.raises(InputError, match=rf"is no upscaler\. Give {ours}a folder of the x4-upscaler\."):
        enlarged(load(tiny.shared("sd1")), picture(16, 16))


def test_nothing_attached_changes_nothing(model: Model) -> None:
    before = enlarged(model, picture(16, 16))
    with attach(model):
        assert torch.equal(enlarged(model, picture(16, 16)), before)


def _factor(model: Model) -> int:
    assert model.upscaling is not None
    return model.upscaling.factor
