"""Noise schedules: from a time to a level and back, with real-valued times.

A schedule is two tables, alpha and sigma at the times 0 ... T - 1 a network was trained on, in float64.
Between the entries log(sigma / alpha) is linear in time, as in Karras et al. 2022's reading of such models;
where the last entry has no signal at all (zero terminal SNR), alpha is linear in the last interval instead.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from scumble.core.errors import ModelError
from scumble.diffusion.levels import Level

__all__ = ["Schedule", "cosine", "from_diffusers_config", "linear", "scaled_linear", "ve", "zero_snr"]

MAX_STEPS = 100_000
"""The most times a config may ask a table for."""


@dataclass(frozen=True, slots=True, eq=False)
class Schedule:
    """Levels over the times 0 (almost clean) to T - 1 (almost noise)."""

    name: str
    alpha: Tensor
    """(T,) float64, falling; all 1 for a variance-exploding schedule."""
    sigma: Tensor
    """(T,) float64, rising."""

    @property
    def num_train_timesteps(self) -> int:
        return len(self.alpha)

    @property
    def is_variance_preserving(self) -> bool:
        return bool(self.alpha[-1] < 1)

    @property
    def log_ratio(self) -> Tensor:
        """log(sigma / alpha) (T,), strictly rising; infinite at the end of a zero-SNR schedule."""
        return self.sigma.log() - self.alpha.log()

    def levels(self, time: Tensor) -> Level:
        """The level at real `time` of any shape, on the CPU; exactly the tables at whole numbers.

        Times below 0 are taken as 0, above T - 1 as T - 1.
        """
        time = time.to("cpu", torch.float64).clamp(0, self.num_train_timesteps - 1)
        low = time.floor().long().clamp(0, self.num_train_timesteps - 2)
        share = time - low
        table = self.log_ratio
        between = torch.lerp(table[low], table[low + 1], share)
        level = self.at_ratio(between.exp())
        alpha, sigma = level.alpha, level.sigma
        # At the ends of the interval the tables themselves, and alpha linear where the ratio is infinite.
        open_end = ~torch.isfinite(table[low + 1])
        straight = torch.lerp(self.alpha[low], self.alpha[low + 1], share)
        alpha = torch.where(open_end, straight, alpha)
        sigma = torch.where(open_end, (1 - straight**2).clamp(min=0).sqrt(), sigma)
        for end in (0, 1):
            exact = share == end
            alpha = torch.where(exact, self.alpha[low + end], alpha)
            sigma = torch.where(exact, self.sigma[low + end], sigma)
        return Level(alpha, sigma)

    def at_ratio(self, ratio: Tensor) -> Level:
        """The level of this schedule's kind with sigma / alpha = `ratio`, finite and of any shape."""
        one = torch.ones_like(ratio)
        alpha = 1 / torch.hypot(one, ratio) if self.is_variance_preserving else one
        return Level(alpha, alpha * ratio)

    def time(self, level: Level) -> Tensor:
        """The time (same shape as the level, float64, on the CPU) of `level`, by its ratio.

        The inverse of `levels`. Levels cleaner than time 0 give 0, noisier than the last give T - 1.
        """
        alpha, sigma = (v.to("cpu", torch.float64) for v in (level.alpha, level.sigma))
        table, wanted = self.log_ratio, (sigma.log() - alpha.log())
        high = torch.searchsorted(table, wanted.contiguous()).clamp(1, self.num_train_timesteps - 1)
        low = high - 1
        share = (wanted - table[low]) / (table[high] - table[low])
        straight = (alpha - self.alpha[low]) / (self.alpha[high] - self.alpha[low])
        share = torch.where(torch.isfinite(table[high]), share, straight)
        time = (low + share).clamp(0, self.num_train_timesteps - 1)
        whole = time.round()
        return torch.where((time - whole).abs() < 1e-7, whole, time)


def _preserving(name: str, betas: Tensor) -> Schedule:
    """alpha_t^2 = prod(1 - beta_s), s <= t (Ho et al. 2020, equation 4)."""
    kept = torch.cumprod(1 - betas, 0)
    return Schedule(name, kept.sqrt(), (1 - kept).sqrt())


def linear(steps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02) -> Schedule:
    """beta rises linearly (Ho et al. 2020, section 4)."""
    return _preserving("linear", torch.linspace(beta_start, beta_end, steps, dtype=torch.float64))


def scaled_linear(steps: int = 1000, beta_start: float = 0.00085, beta_end: float = 0.012) -> Schedule:
    """The square root of beta rises linearly (Rombach et al. 2022)."""
    roots = torch.linspace(math.sqrt(beta_start), math.sqrt(beta_end), steps, dtype=torch.float64)
    return _preserving("scaled_linear", roots**2)


def cosine(steps: int = 1000, max_beta: float = 0.999) -> Schedule:
    """alpha^2 falls as a squared cosine (Nichol and Dhariwal 2021, equation 17)."""
    t = torch.arange(steps + 1, dtype=torch.float64) / steps
    kept = torch.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2
    return _preserving("cosine", (1 - kept[1:] / kept[:-1]).clamp(max=max_beta))


def zero_snr(schedule: Schedule) -> Schedule:
    """Shift and scale alpha so that the last level is pure noise (Lin et al. 2024, algorithm 1).

    Such a schedule is for predictions of v or x0: of pure noise, eps says nothing.
    """
    first, last = schedule.alpha[0], schedule.alpha[-1]
    alpha = (schedule.alpha - last) * first / (first - last)
    return replace(schedule, name=f"{schedule.name}, zero SNR", alpha=alpha, sigma=(1 - alpha**2).sqrt())


def ve(steps: int = 1000, sigma_min: float = 0.01, sigma_max: float = 348.0) -> Schedule:
    """Variance exploding: sigma geometric from `sigma_min` to `sigma_max` (Song et al. 2021, appendix C)."""
    logs = torch.linspace(math.log(sigma_min), math.log(sigma_max), steps, dtype=torch.float64)
    return Schedule("ve", torch.ones(steps, dtype=torch.float64), logs.exp())


def from_diffusers_config(config: Mapping[str, Any]) -> Schedule:
    """The schedule of a diffusers scheduler config. Raises ModelError for one that is not known."""
    steps = int(config.get("num_train_timesteps", 1000))
    if not 2 <= steps <= MAX_STEPS:
        raise ModelError(
            f"A noise schedule of {steps} steps is not supported.", f"It has 2 to {MAX_STEPS:,}."
        )
    _refuse_other_families(config)
    if "beta_min" in config:  # the VP-SDE, in the steps of Song et al. 2021, appendix B
        return linear(steps, float(config["beta_min"]) / steps, float(config["beta_max"]) / steps)
    if "sigma_min" in config and "beta_schedule" not in config and "beta_start" not in config:
        return ve(steps, float(config["sigma_min"]), float(config["sigma_max"]))
    if config.get("trained_betas") is not None:
        betas = torch.tensor(config["trained_betas"], dtype=torch.float64)
        if betas.ndim != 1 or not 2 <= len(betas) <= MAX_STEPS:
            raise ModelError("The trained_betas of the model's noise schedule are no list of numbers.")
        schedule = _preserving("trained", betas)
    else:
        schedule = _named(config, steps)
    return zero_snr(schedule) if config.get("rescale_betas_zero_snr") else schedule


def _named(config: Mapping[str, Any], steps: int) -> Schedule:
    kind = config.get("beta_schedule", "linear")
    start, end = float(config.get("beta_start", 1e-4)), float(config.get("beta_end", 0.02))
    if kind == "linear":
        return linear(steps, start, end)
    if kind == "scaled_linear":
        return scaled_linear(steps, start, end)
    if kind == "squaredcos_cap_v2":
        return cosine(steps)
    raise ModelError(
        f"The noise schedule {kind!r} is not supported.", "Known: linear, scaled_linear, squaredcos_cap_v2."
    )


def _refuse_other_families(config: Mapping[str, Any]) -> None:
    """Flow matching and EDM configs have no betas; read as if they had the defaults they would give noise."""
    name = str(config.get("_class_name", ""))
    flow = "FlowMatch" in name or config.get("use_flow_sigmas")
    if flow or name.startswith("EDM") or "sigma_data" in config:
        raise ModelError(
            f"The scheduler {name or 'of this model'} is of a family that is not supported.",
            "Supported are models trained on noise levels of DDPM or of the score SDEs.",
        )
