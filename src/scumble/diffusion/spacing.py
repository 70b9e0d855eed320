"""How a few steps are spread over a schedule: lists of levels, from the noisiest to the clean one.

Every list has one level more than there are steps, and ends at alpha = 1, sigma = 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from scumble.core.errors import ConfigError
from scumble.diffusion.levels import Level
from scumble.diffusion.schedules import Schedule

__all__ = ["SPACINGS", "levels_at", "levels_for", "levels_from"]

RHO = 7.0
"""Exponent of Karras et al. 2022, equation 5."""

Spacing = Callable[[Schedule, int, float], Tensor]
"""(schedule, steps, last time T' <= T - 1) -> times (steps,), float64, falling from T'."""


def _linspace(_schedule: Schedule, steps: int, last: float) -> Tensor:
    """Whole times evenly spread over [0, T'], both ends included."""
    return torch.linspace(last, 0, steps, dtype=torch.float64).round()


def _log_sigma(_schedule: Schedule, steps: int, last: float) -> Tensor:
    """Real times evenly spread over [0, T']; between whole ones log(sigma / alpha) is interpolated."""
    return torch.linspace(last, 0, steps, dtype=torch.float64)


def _leading(_schedule: Schedule, steps: int, last: float) -> Tensor:
    """Multiples of floor(T' + 1 / steps), one later, as Stable Diffusion's first samplers have it."""
    stride = math.floor((last + 1) / steps)
    times = torch.arange(steps - 1, -1, -1, dtype=torch.float64) * stride + 1
    return times.clamp(max=last)


def _trailing(_schedule: Schedule, steps: int, last: float) -> Tensor:
    """Whole times counted down from T' (Lin et al.

    2024, table 2): the first step starts at the noisiest level.
    """
    times = last + 1 - torch.arange(steps, dtype=torch.float64) * (last + 1) / steps
    return (times.round() - 1).clamp(min=0)


def _karras(schedule: Schedule, steps: int, last: float) -> Tensor:
    """sigma / alpha evenly spread after the power 1 / rho (Karras et al. 2022, equation 5)."""
    ends = schedule.levels(torch.tensor([last, 0.0], dtype=torch.float64)).ratio ** (1 / RHO)
    ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
    ratio = (ends[0] + ramp * (ends[1] - ends[0])) ** RHO
    alpha = 1 / torch.hypot(torch.ones_like(ratio), ratio)
    level = (
        Level(alpha, alpha * ratio)
        if schedule.is_variance_preserving
        else Level(torch.ones_like(ratio), ratio)
    )
    return schedule.time(level)


SPACINGS: dict[str, Spacing] = {
    "trailing": _trailing,
    "leading": _leading,
    "linspace": _linspace,
    "log_sigma": _log_sigma,
    "karras": _karras,
}


def levels_at(schedule: Schedule, times: Tensor) -> list[Level]:
    """The levels at `times` (n,), each of shape (), with the clean level after them."""
    table = schedule.levels(times)
    clean = Level(torch.ones((), dtype=torch.float64), torch.zeros((), dtype=torch.float64))
    return [Level(a, s) for a, s in zip(table.alpha, table.sigma, strict=True)] + [clean]


def levels_for(schedule: Schedule, steps: int, spacing: str = "trailing") -> list[Level]:
    """`steps` + 1 levels over the whole schedule.

    Raises ConfigError for a spacing or a number that cannot be.
    """
    return levels_from(schedule, steps, 1.0, spacing)


def levels_from(schedule: Schedule, steps: int, t0: float, spacing: str = "trailing") -> list[Level]:
    """`steps` + 1 levels inside [0, t0], for the share `t0` in (0, 1] of the schedule (Meng et al. 2021,
    section 3).

    `karras`, `log_sigma` and `linspace` begin at the real time t0 T - 1 exactly; `trailing` and `leading` at
    the whole times nearest below. Raises ConfigError.
    """
    total = schedule.num_train_timesteps
    if spacing not in SPACINGS:
        raise ConfigError(f"There is no spacing {spacing!r}.", f"Choose one of {', '.join(SPACINGS)}.")
    if not 0 < t0 <= 1:
        raise ConfigError(f"t0 is {t0}.", "It goes from just above 0 (unchanged) to 1 (from noise).")
    last = max(t0 * total - 1, 0.0)
    if not 1 <= steps <= last + 1:
        raise ConfigError(f"{steps} steps do not fit.", f"This model has {math.floor(last + 1)} there.")
    return levels_at(schedule, SPACINGS[spacing](schedule, steps, last))
