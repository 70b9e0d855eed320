"""How a few steps are spread over a schedule: lists of levels, from the noisiest to the clean one.

Every list has one level more than there are steps, and ends at alpha = 1, sigma = 0 unless told otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from scumble.core.errors import ConfigError
from scumble.diffusion.levels import Level, clean
from scumble.diffusion.schedules import Schedule

__all__ = [
    "SPACINGS",
    "End",
    "Spacing",
    "leading",
    "levels_at",
    "levels_for",
    "levels_for_strength",
    "levels_from",
    "sde_levels",
    "ve_sde_levels",
    "vp_sde_levels",
]

RHO = 7.0
"""Exponent of Karras et al. 2022, equation 5."""

MAX_RATIO = 2.0**12
"""Stands for an infinite sigma / alpha where `karras` needs a number: the second step counts from there."""

Spacing = Callable[[Schedule, int, float], Tensor]
"""(schedule, steps, last time T' <= T - 1) -> times (steps,), float64, falling."""

End = Literal["clean", "first"]
"""Where a list ends: the clean level, or the schedule's own first, time 0."""


def _linspace(_schedule: Schedule, steps: int, last: float) -> Tensor:
    """Whole times evenly spread over [0, T'], both ends included; T' itself may be real."""
    return _begin_at(last, torch.linspace(last, 0, steps, dtype=torch.float64).round())


def _log_sigma(_schedule: Schedule, steps: int, last: float) -> Tensor:
    """Real times evenly spread over [0, T']; between whole ones log(sigma / alpha) is interpolated."""
    return torch.linspace(last, 0, steps, dtype=torch.float64)


def leading(offset: int) -> Spacing:
    """Multiples of floor((T' + 1) / steps), `offset` later, which is 1 in Stable Diffusion's first samplers.

    The list starts up to one stride below T'. The offset is less where there is no room for it.
    """

    def spread(_schedule: Schedule, steps: int, last: float) -> Tensor:
        stride = math.floor((last + 1) / steps)
        times = torch.arange(steps - 1, -1, -1, dtype=torch.float64) * stride
        return times + min(offset, last - float(times[0]))

    return spread


def _trailing(_schedule: Schedule, steps: int, last: float) -> Tensor:
    """Whole times counted down evenly from T' (Lin et al. 2024, table 2); T' itself may be real."""
    times = last + 1 - torch.arange(steps, dtype=torch.float64) * (last + 1) / steps
    return _begin_at(last, times.round() - 1).clamp(min=0)


def _karras(schedule: Schedule, steps: int, last: float) -> Tensor:
    """sigma / alpha evenly spread after the power 1 / rho (Karras et al. 2022, equation 5)."""
    ends = schedule.levels(torch.tensor([last, 0.0], dtype=torch.float64)).ratio
    ends = torch.where(torch.isinf(ends), MAX_RATIO, ends) ** (1 / RHO)
    ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
    ratio = (ends[0] + ramp * (ends[1] - ends[0])) ** RHO
    return _begin_at(last, schedule.time(schedule.at_ratio(ratio)))


def _begin_at(last: float, times: Tensor) -> Tensor:
    return torch.cat([torch.tensor([last], dtype=torch.float64), times[1:]])


SPACINGS: dict[str, Spacing] = {
    "trailing": _trailing,
    "leading": leading(1),
    "linspace": _linspace,
    "log_sigma": _log_sigma,
    "karras": _karras,
}

_REAL = {"log_sigma", "karras"}
"""Spacings over real times, into which any number of steps fits."""


def levels_at(schedule: Schedule, times: Tensor, end: End = "clean") -> list[Level]:
    """The levels at real `times` (n,), each of shape (), with the level `end` after them."""
    table = schedule.levels(times)
    last = clean() if end == "clean" else Level(schedule.alpha[0], schedule.sigma[0])
    return [Level(a, s) for a, s in zip(table.alpha, table.sigma, strict=True)] + [last]


def levels_for(
    schedule: Schedule, steps: int, spacing: str | Spacing = "trailing", end: End = "clean"
) -> list[Level]:
    """`steps` + 1 levels over the whole schedule.

    Raises ConfigError for a spacing or a number that cannot be.
    """
    return levels_from(schedule, steps, 1.0, spacing, end)


def levels_from(
    schedule: Schedule, steps: int, t0: float, spacing: str | Spacing = "trailing", end: End = "clean"
) -> list[Level]:
    """`steps` + 1 levels inside [0, t0], for the share `t0` in (0, 1] of the schedule (Meng et al. 2021,
    section 3).

    All but `leading` begin at the real time t0 T - 1 exactly (time 0, if that is below it). Raises
    ConfigError.
    """
    if isinstance(spacing, str) and spacing not in SPACINGS:
        raise ConfigError(f"There is no spacing {spacing!r}.", f"Choose one of {', '.join(SPACINGS)}.")
    if not 0 < t0 <= 1:
        raise ConfigError(f"t0 is {t0}.", "It goes from just above 0 (unchanged) to 1 (from noise).")
    last = max(t0 * schedule.num_train_timesteps - 1, 0.0)
    if abs(last - round(last)) < 1e-6:  # (1 - 0.9) 1000 is just below 100 in float64
        last = float(round(last))
    if steps < 1 or (spacing not in _REAL and steps > last + 1):
        raise ConfigError(f"{steps} steps do not fit.", f"This model has {math.floor(last + 1)} there.")
    spread = SPACINGS[spacing] if isinstance(spacing, str) else spacing
    return levels_at(schedule, spread(schedule, steps, last), end)


def levels_for_strength(
    schedule: Schedule, steps: int, strength: float, spacing: str | Spacing = "trailing", end: End = "clean"
) -> list[Level]:
    """The last int(`strength` `steps`) whole steps of `steps` over the whole schedule, and the level they
    start from: what image-to-image pipelines make of a strength in (0, 1], less exact than `levels_from`.

    Raises ConfigError where not one step is left.
    """
    if not 0 < strength <= 1:
        raise ConfigError(f"The strength is {strength}.", "It goes from just above 0 to 1.")
    kept = int(steps * strength)
    if kept < 1:
        raise ConfigError(
            f"A strength of {strength} leaves none of {steps} steps.",
            f"Take at least {math.ceil(1 / strength)} steps.",
        )
    return levels_for(schedule, steps, spacing, end)[steps - kept :]


def vp_sde_levels(t0: float, steps: int, *, beta_min: float = 0.1, beta_max: float = 20.0) -> list[Level]:
    """Meng et al. 2021's own grid for `reverse_sde` on the VP-SDE: t = t0 n / N for n = N ... 0.

    alpha^2 at n is the product of 1 - beta(t) t0 / N over the steps up to n, with beta(t) = beta_min +
    t (beta_max - beta_min) (Song et al. 2021, appendix C). `t0` is real, in (0, 1], and N is `steps`. Raises
    ConfigError, also where the steps are so long that beta(t) t0 / N reaches 1.
    """
    times = _grid(t0, steps)
    betas = (beta_min + times * (beta_max - beta_min)) * (t0 / steps)  # (N,), of the steps n = 1 ... N
    if betas[-1] >= 1:
        needed = math.floor((beta_min + t0 * (beta_max - beta_min)) * t0) + 1
        raise ConfigError(
            f"{steps} steps are too long for t0 = {t0}.", f"Take at least {needed}; hundreds are usual."
        )
    kept = torch.cumprod(1 - betas, 0).flip(0)
    return [Level(a, s) for a, s in zip(kept.sqrt(), (1 - kept).sqrt(), strict=True)] + [clean()]


def sde_levels(schedule: Schedule, t0: float, steps: int) -> list[Level]:
    """The grid t = t0 n / N of Meng et al. 2021 on the SDE whose table a variance-preserving `schedule` is.

    Where beta is linear that is `vp_sde_levels` with the schedule's own ends. Elsewhere the levels are those
    of the schedule at real times, so that none is noisier than the model has seen. Raises ConfigError.
    """
    count = schedule.num_train_timesteps
    if schedule.name == "linear":
        first, last = 1 - schedule.alpha[0] ** 2, 1 - (schedule.alpha[-1] / schedule.alpha[-2]) ** 2
        return vp_sde_levels(t0, steps, beta_min=count * float(first), beta_max=count * float(last))
    times = count * _grid(t0, steps).flip(0) - 1
    return [schedule.levels(time) for time in times] + [clean()]


def ve_sde_levels(t0: float, steps: int, *, sigma_min: float = 0.01, sigma_max: float = 348.0) -> list[Level]:
    """Meng et al. 2021's own grid for `reverse_sde` on the VE-SDE: t = t0 n / N for n = N ... 0.

    sigma(t) = sigma_min (sigma_max / sigma_min)^t, and 0 at t = 0 (Song et al. 2021, appendix C). `t0` is
    real, in (0, 1], and N is `steps`. Raises ConfigError.
    """
    sigmas = sigma_min * (sigma_max / sigma_min) ** _grid(t0, steps).flip(0)
    return [Level(torch.ones_like(sigma), sigma) for sigma in sigmas] + [clean()]


def _grid(t0: float, steps: int) -> Tensor:
    """t0 n / N for n = 1 ... N, (N,) float64."""
    if not 0 < t0 <= 1:
        raise ConfigError(f"t0 is {t0}.", "It goes from just above 0 (unchanged) to 1 (from noise).")
    if steps < 1:
        raise ConfigError(f"{steps} steps do not fit.", "Take at least one.")
    return torch.arange(1, steps + 1, dtype=torch.float64) * t0 / steps
