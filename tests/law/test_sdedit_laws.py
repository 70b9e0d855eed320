"""What holds of SDEdit whatever the model says."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from scumble.core import rng
from scumble.core.events import Progress, finish
from scumble.data.paintings import Painting, painting
from scumble.diffusion import schedules
from scumble.diffusion.levels import Level
from scumble.diffusion.samplers import SAMPLERS, Step
from scumble.methods.sdedit import Config, Kept, edit, levels, paint
from scumble.models.load import load
from scumble.models.model import Model
from tiny import shared


@pytest.fixture(scope="module", params=["sd1", "sdxl", "ddpm", "ve"])
def model(request: pytest.FixtureRequest) -> Model:
    return load(shared(request.param))


def noise_picture(height: int, width: int, seed: int = 1, channels: int = 3) -> Tensor:
    """Colours of 8 bits, as files have them."""
    pixels = torch.randint(0, 256, (1, channels, height, width), generator=rng.generator(seed))
    return pixels / 255


def disc(height: int, width: int) -> Tensor:
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return ((x - width / 2) ** 2 + (y - height / 2) ** 2 < 36).float()[None, None]


def one(model: Model, work: Painting, **settings: object) -> Tensor:
    [picture] = finish(edit(model, [work], [5], Config.of({"steps": 3, **settings})))
    return picture[None]


def test_t0_zero_returns_the_guide(model: Model) -> None:
    guide = noise_picture(23, 37)
    assert torch.equal(one(model, painting(guide), t0=0), guide)
    assert torch.equal(one(model, painting(guide, mask=disc(23, 37)), t0=0, feather=3), guide)


@pytest.mark.parametrize("feather", [0, 4])
def test_what_the_mask_keeps_is_the_originals(model: Model, feather: int) -> None:
    guide, original, mask = noise_picture(30, 41), noise_picture(30, 41, 2), disc(30, 41)
    mask = mask * noise_picture(30, 41, 3, channels=1)  # greys, some 0 inside
    picture = one(model, painting(guide, original=original, mask=mask), t0=0.7, repeats=2, feather=feather)
    kept = (mask == 0).expand_as(guide)
    assert torch.equal(picture[kept], original[kept])
    assert (picture - guide)[~kept].abs().max() > 0.05


@pytest.mark.parametrize("size", [(1, 1), (5, 90), (17, 16)])
def test_any_size(model: Model, size: tuple[int, int]) -> None:
    guide = noise_picture(*size)
    picture = one(model, painting(guide), t0=0.5)
    assert picture.shape == guide.shape
    assert not torch.equal(picture, guide)


def test_a_seed_belongs_to_a_painting(model: Model) -> None:
    """Together or apart, with masks or without: equal to rounding."""
    works = [painting(noise_picture(16, 16), mask=disc(16, 16)), painting(noise_picture(16, 16, 2))]
    config = Config(steps=3, sampler="euler_ancestral", kept_noise="fresh", spacing="karras")
    together = finish(edit(model, works, [5, 6], config))
    apart = [finish(edit(model, [w], [s], config))[0] for w, s in zip(works, [5, 6], strict=True)]
    assert (torch.stack(together) - torch.stack(apart)).abs().max() < 1e-4


def test_progress_counts_every_step() -> None:
    tiny = load(shared("ddpm"))
    works = [painting(noise_picture(16, 16))] * 3
    loop = edit(tiny, works, [1, 2, 3], Config(steps=2, repeats=2), batch_size=2, preview_every=1)
    seen: list[Progress] = list(loop)
    assert [p.step for p in seen] == [2, 4, 6, 8, 9, 10, 11, 12]
    assert all(p.total == 12 and p.preview is not None for p in seen)


# With a denoiser that is known: pixels drawn from N(0, SPREAD^2), each for itself.

SPREAD = 0.4
SCHEDULE = schedules.linear()


def gaussian(x: Tensor, level: Level) -> Tensor:
    """E[x0 | x] for x0 of N(0, SPREAD^2)."""
    return x * level.alpha * SPREAD**2 / (level.alpha**2 * SPREAD**2 + level.sigma**2)


def run(guide: Tensor, mask: Tensor | None, config: Config) -> list[Step]:
    noisy = levels(SCHEDULE, config)
    times = [float(SCHEDULE.time(level)) + 1 for level in noisy[:-1]]
    draw, fresh = rng.generator(3), rng.generator(4)
    kept = (
        mask
        if mask is None
        else Kept(
            mask=mask,
            joins=[t / times[0] for t in times],
            noise=(lambda: torch.randn(guide.shape, generator=fresh))
            if config.kept_noise == "fresh"
            else None,
        )
    )
    steps = paint(
        gaussian, guide, noisy, config, noise=lambda: torch.randn(guide.shape, generator=draw), kept=kept
    )
    return list(steps)


@pytest.mark.parametrize("kept_noise", ["fresh", "fixed"])
def test_grey_masks_are_monotone(kept_noise: str) -> None:
    greys = torch.tensor([0.0, 0.1, 0.3, 0.6, 1.0]).repeat_interleave(40).expand(1, 1, 60, 200)
    guide = torch.full((1, 3, 60, 200), 0.3)
    config = Config.of({"t0": 0.4, "steps": 60, "sampler": "ddpm", "kept_noise": kept_noise})
    change = (run(guide, greys, config)[-1].x - guide).square().mean((0, 1, 2)).reshape(5, 40).mean(1)
    assert change[0] == 0
    assert all(one < other * 0.9 for one, other in pairwise(change.tolist())), change


@pytest.mark.parametrize("kept_noise", ["fresh", "fixed"])
def test_the_kept_part_is_at_the_level_of_the_picture(kept_noise: str) -> None:
    guide, mask = torch.full((1, 3, 64, 64), 0.3), torch.zeros(1, 1, 64, 64)
    mask[..., :4] = 1
    config = Config.of({"t0": 0.5, "steps": 10, "sampler": "ddim", "kept_noise": kept_noise})
    for step in run(guide, mask, config):
        kept = step.x[..., 4:]
        assert kept.mean() == pytest.approx(0.3 * float(step.level.alpha), abs=0.02)
        assert kept.std() == pytest.approx(float(step.level.sigma), abs=0.02)


def test_repeats_are_anchored_to_the_original() -> None:
    """In the last step of each repeat the kept part is the guide's own, not what the last repeat noised."""
    guide, mask = torch.rand(1, 3, 8, 8, generator=rng.generator(2)), torch.zeros(1, 1, 8, 8)
    mask[..., :4] = 1
    steps = run(guide, mask, Config(t0=0.5, steps=4, sampler="ddpm", repeats=3))
    ends = [step.x for step in steps if step.index == 3]
    assert len(ends) == 3
    assert all(torch.equal(x[..., 4:], guide[..., 4:]) for x in ends)
    assert not torch.equal(ends[0][..., :4], ends[1][..., :4])


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_starts_at_t0_and_keeps_the_distribution(sampler: str) -> None:
    """A guide drawn from the model's own distribution stays in it, whatever t0."""
    guide = SPREAD * torch.randn(1, 3, 64, 64, generator=rng.generator(2))
    config = Config.of({"t0": 0.437, "steps": 40, "sampler": sampler})
    start = levels(SCHEDULE, config)[0]
    assert float(SCHEDULE.time(start)) == pytest.approx(436.0, abs=1e-6)
    assert run(guide, None, config)[-1].x.std() == pytest.approx(SPREAD, rel=0.08)


def test_the_papers_grids() -> None:
    """Algorithm 1's sigma(t) and the VP-SDE's beta(t), at t = t0 n / N."""
    ve = schedules.ve(2000, 0.01, 380.0)
    config = Config(t0=0.45, steps=9, spacing="sde")
    sigmas = [float(level.sigma) for level in levels(ve, config)]
    assert sigmas == pytest.approx([0.01 * 38000 ** (0.05 * n) for n in range(9, 0, -1)] + [0.0])
    kept: Sequence[float] = [1.0]
    for n in range(1, 501):
        kept = [*kept, kept[-1] * (1 - (0.1 + 19.9 * n / 1000) / 1000)]
    config = Config(t0=0.5, steps=500, spacing="sde")
    squares = [float(level.alpha**2) for level in levels(SCHEDULE, config)]
    assert squares == pytest.approx(kept[::-1])


def test_the_papers_grid_on_another_schedule_is_that_schedules_own() -> None:
    """Stable Diffusion's betas are not linear: t0 is a share of its diffusion, and never beyond its end."""
    schedule = schedules.scaled_linear()
    config = Config(t0=0.5, steps=100, spacing="sde")
    times = [float(schedule.time(level)) + 1 for level in levels(schedule, config)[:-1]]
    assert times == pytest.approx([5.0 * n for n in range(100, 0, -1)])
    assert levels(schedule, config.replace(t0=1.0))[0].sigma == schedule.sigma[-1]
