"""Tables of levels and lists of times, against diffusers and against formulas written out here."""

from __future__ import annotations

from itertools import product
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    ScoreSdeVeScheduler,
    StableDiffusionImg2ImgPipeline,
)

from scumble.diffusion.levels import Level
from scumble.diffusion.schedules import Schedule, from_diffusers_config, scaled_linear
from scumble.diffusion.spacing import Spacing, leading, levels_for, levels_for_strength, levels_from

SD: dict[str, Any] = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
CONFIGS: tuple[dict[str, Any], ...] = (
    {},
    SD,
    {"beta_schedule": "squaredcos_cap_v2"},
    {"beta_schedule": "linear", "num_train_timesteps": 250, "beta_end": 0.05},
    {"trained_betas": [0.001 * (i + 1) for i in range(40)], "num_train_timesteps": 40},
)


def times(schedule: Schedule, steps: int, spacing: str | Spacing) -> list[float]:
    return [float(schedule.time(level)) for level in levels_for(schedule, steps, spacing)[:-1]]


@pytest.mark.parametrize("zero_snr", [False, True])
@pytest.mark.parametrize("config", CONFIGS)
def test_tables(config: dict[str, Any], zero_snr: bool) -> None:
    scheduler = DDIMScheduler(**config, rescale_betas_zero_snr=zero_snr)
    schedule = from_diffusers_config(scheduler.config)
    assert schedule.num_train_timesteps == config.get("num_train_timesteps", 1000)
    kept = scheduler.alphas_cumprod.double()
    assert (schedule.alpha**2 - kept).abs().max() < 1e-6
    assert ((schedule.alpha**2 - kept) / kept.clamp(min=1e-30)).abs()[:-1].max() < 1e-4
    assert (float(schedule.alpha[-1]) == 0) is zero_snr
    assert torch.allclose(schedule.alpha**2 + schedule.sigma**2, torch.ones_like(kept), rtol=0, atol=1e-12)


def test_tables_ve() -> None:
    scheduler = ScoreSdeVeScheduler(num_train_timesteps=2000, sigma_min=0.01, sigma_max=1348.0)
    schedule = from_diffusers_config(scheduler.config)
    assert torch.allclose(schedule.sigma.float(), scheduler.discrete_sigmas, rtol=1e-5)
    assert (schedule.alpha == 1).all()


def test_whole_times() -> None:
    """Exactly diffusers' times, also where the number of steps does not divide 1000."""
    schedule, count = scaled_linear(), 0
    spacings: dict[tuple[str, int], str | Spacing] = {
        ("trailing", 0): "trailing",
        ("leading", 0): leading(0),
        ("leading", 1): "leading",
        ("linspace", 0): "linspace",
    }
    for (name, offset), steps in product(spacings, (1, 2, 3, 7, 10, 25, 30, 50, 333)):
        for kind in (DDIMScheduler, DDPMScheduler):
            scheduler = kind(**SD, timestep_spacing=name, steps_offset=offset)
            scheduler.set_timesteps(steps)
            wanted = scheduler.timesteps.tolist()
            if (name, steps) == ("linspace", 1):
                wanted = [999]  # diffusers would start, and end, at time 0: nothing to draw from
            assert times(schedule, steps, spacings[name, offset]) == wanted
            count += 1
    assert count == 72


def test_karras_and_log_sigma() -> None:
    count = 0
    for config, steps in product(CONFIGS[:3], (2, 10, 33)):
        euler = EulerDiscreteScheduler(**config, use_karras_sigmas=True)
        euler.set_timesteps(steps)
        schedule = from_diffusers_config(euler.config)
        levels = levels_for(schedule, steps, "karras")
        ratios = torch.stack([level.ratio for level in levels])
        assert torch.allclose(ratios, euler.sigmas.double(), rtol=5e-4)
        assert np.allclose(times(schedule, steps, "karras"), euler.timesteps, atol=0.2)
        solver = DPMSolverMultistepScheduler(**config, use_karras_sigmas=True)
        solver.set_timesteps(steps)
        assert torch.allclose(ratios, solver.sigmas.double(), rtol=5e-4)
        # k-diffusion: log sigma linear in time, times evenly from the last to 0, then sigma = 0
        table = (schedule.sigma / schedule.alpha).log().numpy()
        wanted = np.exp(np.interp(np.linspace(999, 0, steps), np.arange(1000), table))
        own = [float(level.ratio) for level in levels_for(schedule, steps, "log_sigma")]
        assert np.allclose(own, [*wanted, 0.0], rtol=1e-12)
        count += 1
    assert count == 9


def test_time_of_a_sigma() -> None:
    """The inverse that Euler schedulers use for the times they show their networks."""
    scheduler = EulerDiscreteScheduler(**SD)
    schedule = from_diffusers_config(scheduler.config)
    table = schedule.log_ratio.numpy()
    for sigma in (0.03, 0.1, 0.77, 1.0, 5.0, 14.5):
        wanted = scheduler._sigma_to_t(np.array(sigma), table)
        ratio = torch.tensor(sigma, dtype=torch.float64)
        for level in (Level(torch.ones_like(ratio), ratio), schedule.at_ratio(ratio)):
            assert abs(float(schedule.time(level)) - float(wanted)) < 1e-6


def test_strength() -> None:
    """The levels of image-to-image pipelines, which take whole steps."""
    schedule, count = scaled_linear(), 0
    kinds = {"ddim": DDIMScheduler, "heun": HeunDiscreteScheduler}
    cases = product(kinds, ("trailing", "leading"), (5, 10, 50), (0.2, 0.3, 0.58, 0.7, 0.99, 1.0))
    for kind, spacing, steps, strength in cases:
        scheduler = kinds[kind](**SD, timestep_spacing=spacing, steps_offset=1)
        scheduler.set_timesteps(steps)
        pipeline = SimpleNamespace(scheduler=scheduler)
        theirs, number = StableDiffusionImg2ImgPipeline.get_timesteps(pipeline, steps, strength, "cpu")
        levels = levels_for_strength(schedule, steps, strength, spacing)
        wanted = list(dict.fromkeys(theirs.tolist()))  # Heun's are there twice
        assert [float(schedule.time(level)) for level in levels[:-1]] == wanted
        assert len(levels) == number + 1
        assert float(levels[-1].sigma) == 0
        count += 1
    assert count == 72


def test_t0_at_whole_steps_is_a_strength() -> None:
    schedule = scaled_linear()
    for whole in range(1, 11):
        one, other = levels_from(schedule, whole, whole / 10), levels_for_strength(schedule, 10, whole / 10)
        assert [float(level.sigma) for level in one] == [float(level.sigma) for level in other]
