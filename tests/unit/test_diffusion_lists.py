"""What cannot be is refused with a sentence, and nothing in the loops looks into a tensor on a device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from scumble.core.errors import ConfigError, ModelError
from scumble.diffusion import guidance
from scumble.diffusion.invert import ddim_inversion
from scumble.diffusion.levels import Level, clean
from scumble.diffusion.samplers import SAMPLERS
from scumble.diffusion.schedules import from_diffusers_config, linear, scaled_linear, zero_snr
from scumble.diffusion.spacing import (
    levels_at,
    levels_for,
    levels_for_strength,
    levels_from,
    ve_sde_levels,
    vp_sde_levels,
)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: levels_for(linear(), 10, "sideways"), "sideways"),
        (lambda: levels_for(linear(), 0), "0 steps"),
        (lambda: levels_for(linear(), 1001), "1001 steps"),
        (lambda: levels_for(linear(), 0, "karras"), "0 steps"),
        (lambda: levels_from(linear(), 10, 0.005), "10 steps"),
        (lambda: levels_from(linear(), 10, 0.0), "t0 is 0.0"),
        (lambda: levels_from(linear(), 10, 1.5), "t0 is 1.5"),
        (lambda: levels_from(linear(), 10, float("nan")), "t0 is nan"),
        (lambda: levels_for_strength(linear(), 10, 0.05), "none of 10 steps"),
        (lambda: levels_for_strength(linear(), 10, -1), "strength is -1"),
        (lambda: vp_sde_levels(1.0, 20), "20 steps are too long"),
        (lambda: vp_sde_levels(0.0, 20), "t0 is 0.0"),
        (lambda: ve_sde_levels(0.5, 0), "0 steps"),
    ],
)
def test_refused(make: Callable[[], list[Level]], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make()
    assert said in caught.value.message
    assert caught.value.remedy


@pytest.mark.parametrize(
    "config",
    [
        {"beta_schedule": "sigmoid"},
        {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0},
        {"_class_name": "DPMSolverMultistepScheduler", "beta_schedule": "linear", "use_flow_sigmas": True},
        {"_class_name": "EDMEulerScheduler", "sigma_min": 0.002, "sigma_max": 80.0, "sigma_data": 0.5},
    ],
)
def test_schedules_of_other_families_are_refused(config: dict[str, Any]) -> None:
    with pytest.raises(ModelError):
        from_diffusers_config(config)


def test_vp_sde_config_is_the_linear_schedule() -> None:
    """beta from 0.1 to 20 in 1000 steps is DDPM's 1e-4 to 0.02 (Song et al. 2021, appendix B)."""
    config = {
        "_class_name": "ScoreSdeVpScheduler",
        "beta_min": 0.1,
        "beta_max": 20,
        "num_train_timesteps": 1000,
    }
    assert torch.allclose(from_diffusers_config(config).alpha, linear().alpha, rtol=1e-12)


def test_the_fewest_steps_that_are_told_do_work() -> None:
    with pytest.raises(ConfigError) as caught:
        vp_sde_levels(0.7, 2)
    fewest = int("".join(c for c in caught.value.remedy if c.isdigit()))
    assert len(vp_sde_levels(0.7, fewest)) == fewest + 1
    with pytest.raises(ConfigError):
        vp_sde_levels(0.7, fewest - 1)


def test_lists_may_end_at_the_first_level() -> None:
    schedule = scaled_linear()
    for levels in (levels_for(schedule, 5, end="first"), levels_from(schedule, 5, 0.3, "karras", "first")):
        assert (float(levels[-1].alpha), float(levels[-1].sigma)) == (
            float(schedule.alpha[0]),
            float(schedule.sigma[0]),
        )
    assert levels_at(schedule, torch.tensor([3.5]))[-1] == clean()


def test_more_steps_than_whole_times_fit_real_spacings() -> None:
    """As in the paper's 1000 steps within t0 = 0.45."""
    for spacing in ("karras", "log_sigma"):
        assert len(levels_from(linear(), 1000, 0.45, spacing)) == 1001


def test_times_outside_the_schedule_are_its_ends() -> None:
    schedule = zero_snr(scaled_linear())
    level = schedule.levels(torch.tensor([-5.0, 1200.0]))
    assert torch.equal(level.alpha, schedule.alpha[[0, -1]])
    assert schedule.time(Level(torch.tensor(1.0), torch.tensor(0.0))) == 0


def test_pure_noise_starts_the_zero_snr_lists() -> None:
    for spacing in ("trailing", "linspace", "log_sigma", "karras"):
        first = levels_for(zero_snr(scaled_linear()), 10, spacing)[0]
        assert (float(first.alpha), float(first.sigma), float(first.spread)) == (0, 1, 1)


@pytest.mark.parametrize("name", [*SAMPLERS, "ddim_inversion"])
def test_loops_wait_for_no_device(name: str) -> None:
    """A tensor on the meta device has no values: who asks for one fails, as who waits for a device would."""
    x = torch.empty(2, 3, 4, 4, device="meta")

    def branches(x: Tensor, level: Level, which: tuple[int, ...]) -> list[Tensor]:
        return [x * level.alpha + i for i in which]

    denoise = guidance.text(branches, 5.0, interval=(0.1, 0.9), rescale=0.5)
    levels = [level.to("meta") for level in levels_for(zero_snr(scaled_linear()), 6)]
    if name == "ddim_inversion":
        steps = list(ddim_inversion(denoise, x, levels, refinements=1))
    else:
        steps = list(SAMPLERS[name].run(denoise, x, levels, noise=lambda: torch.empty_like(x)))
    assert len(steps) == 6
    assert all(step.x.device.type == "meta" and step.level.alpha.device.type == "cpu" for step in steps)


def test_levels_with_a_batch_dimension_move() -> None:
    level = scaled_linear().levels(torch.tensor([1.0, 2.0])).to("meta")
    assert level.alpha.device.type == level.sigma.device.type == "meta"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("name", SAMPLERS)
def test_dtypes_are_kept(name: str, dtype: torch.dtype) -> None:
    """Weights are computed in float64 and rounded once, whatever x is in."""
    x = torch.ones(1, 2, dtype=dtype)
    steps = list(
        SAMPLERS[name].run(lambda x, _: x / 2, x, levels_for(linear(), 4), noise=lambda: torch.ones_like(x))
    )
    assert {step.x.dtype for step in steps} == {dtype}
    assert all(torch.isfinite(step.x).all() for step in steps)


def test_leading_where_the_offset_has_no_room() -> None:
    """All 1000 steps: the times are 999 to 0, each once."""
    schedule = linear()
    times = [float(schedule.time(level)) for level in levels_for(schedule, 1000, "leading")[:-1]]
    assert times == list(range(999, -1, -1))


def test_a_t0_that_binary_numbers_miss_is_whole() -> None:
    """(1 - 0.9) T is 99.99999999999997 in float64, and would make the stride 9."""
    schedule = linear()
    times = [float(schedule.time(level)) for level in levels_from(schedule, 10, 1 - 0.9, "leading")[:-1]]
    assert times == [10 * i + 1 for i in range(9, -1, -1)]
