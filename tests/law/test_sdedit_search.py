"""The search for t0, and the realism of one picture, on denoisers that are known."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

from scumble.core import rng
from scumble.core.errors import ConfigError
from scumble.core.events import finish
from scumble.data.paintings import Painting, painting
from scumble.diffusion import schedules
from scumble.diffusion.levels import Level
from scumble.methods.sdedit import PRESETS, PROBES, Config, find_t0
from scumble.metrics.realism import realism, residual
from scumble.models.load import load
from scumble.models.model import Model
from tiny import shared

SPREAD = 0.4


def gaussian(x: Tensor, level: Level) -> Tensor:
    """E[x0 | x] for pixels of N(0, SPREAD^2), each for itself."""
    return x * level.alpha * SPREAD**2 / (level.alpha**2 * SPREAD**2 + level.sigma**2)


def test_the_residual_tells_flat_from_natural_from_broken() -> None:
    """Of pictures that are as the model expects it is the posterior variance; of flat ones less."""
    schedule = schedules.linear()
    noise, texture = (torch.randn(1, 3, 64, 64, generator=rng.generator(s)) for s in (1, 2))
    found = [
        float(residual(gaussian, contrast * SPREAD * texture, schedule, noise))
        for contrast in (0.0, 1.0, 3.0)
    ]
    level = schedule.levels(torch.tensor(149.0))
    variance = SPREAD**2 * level.ratio**2 / (SPREAD**2 + level.ratio**2)
    assert found[1] == pytest.approx(float(variance / level.ratio**2), rel=0.05)
    assert found[0] < 0.7 * found[1] < 0.7 * found[2]


def test_the_residual_is_that_of_the_mask() -> None:
    schedule, noise = schedules.linear(), torch.randn(1, 3, 8, 8, generator=rng.generator(1))
    picture, mask = torch.randn(1, 3, 8, 8, generator=rng.generator(2)), torch.zeros(1, 1, 8, 8)
    mask[..., :4] = 1
    inside = residual(gaussian, picture[..., :4], schedule, noise[..., :4])
    assert residual(gaussian, picture, schedule, noise, mask).item() == pytest.approx(inside.item())


def test_realism_runs_from_the_guide_to_a_sampled_picture() -> None:
    guide, sampled = torch.tensor([0.1]), torch.tensor([0.4])
    found = [float(realism(torch.tensor([r]), guide, sampled)) for r in (0.1, 0.2, 0.4, 0.8, 1.6)]
    assert found == pytest.approx([0, 0.5, 1, 0.5, 0])
    assert float(realism(guide, sampled, sampled)) == 1


@contextmanager
def counted(model: Model) -> Iterator[Callable[[], int]]:
    """Counts how many pictures the denoiser is given."""
    seen: list[int] = []
    handle = model.denoiser.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    try:
        yield lambda: sum(seen)
    finally:
        handle.remove()


def strokes() -> Painting:
    return painting(torch.rand(1, 3, 16, 16, generator=rng.generator(1)))


@pytest.mark.parametrize(("sampler", "steps"), [("dpmpp_2m", 12), ("heun", 8), ("ddim", 5), ("ddim", 3)])
def test_it_costs_at_most_two_edits_more(sampler: str, steps: int) -> None:
    model = load(shared("ddpm"))
    config = Config.of({"sampler": sampler, "steps": steps})
    with counted(model) as calls:
        t0 = finish(find_t0(model, strokes(), 3, config))
    plain = 2 * steps - 1 if sampler == "heun" else steps
    assert calls() <= 2 * plain
    assert 0 < t0 < 1
    assert (t0 * 2 ** (PROBES + 1)).is_integer()


def test_without_room_for_a_probe_it_says_so() -> None:
    model = load(shared("ddpm"))
    with counted(model) as calls, pytest.raises(ConfigError, match="1 steps are too few to look for t0"):
        finish(find_t0(model, strokes(), 3, Config(t0=0.37, steps=1)))
    assert calls() == 0


def test_the_papers_presets_can_be_searched_in_few_steps() -> None:
    config = PRESETS["strokes"].replace(steps=30)
    assert 0 < finish(find_t0(load(shared("ddpm")), strokes(), 3, config)) < 1


def test_it_is_the_same_each_time_and_progress_counts() -> None:
    model, config = load(shared("sd1")), Config(steps=12)
    one, other = (finish(find_t0(model, strokes(), 3, config)) for _ in range(2))
    assert one == other
    seen = list(find_t0(model, strokes(), 3, config))
    assert [p.step for p in seen] == list(range(1, len(seen) + 1))
    assert {p.total for p in seen} == {len(seen)} == {5 + PROBES * 3}
