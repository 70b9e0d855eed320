"""Samplers: from noise to a picture, as generator functions over `denoise(x, level) -> x0`.

Each takes x (B, ...) at `levels[0]` and yields a `Step` for every further level. Levels of shape () on the
CPU keep the loops free of waits for the device. `noise()` gives fresh standard normal noise like x, each row
from its picture's own generator.

Several well-known samplers are one formula: Euler's method in the coordinates x / alpha, sigma / alpha
(Karras et al. 2022) is DDIM (Song et al. 2021a) with eta = 0; DDPM's posterior (Ho et al. 2020, equation 7)
and Euler with ancestral noise are DDIM with eta = 1. They stand under all their names, and the tests hold
each against its namesake.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from torch import Tensor

from scumble.diffusion.levels import Denoise, Level, broadcast

__all__ = ["SAMPLERS", "Sampler", "Step", "ddim", "dpmpp_2m", "heun", "reverse_sde"]

Noise = Callable[[], Tensor]


@dataclass(frozen=True, slots=True)
class Step:
    """What a sampler says after each step."""

    index: int
    """0 for the first step."""
    total: int
    level: Level
    """Where x is now."""
    x: Tensor
    x0: Tensor
    """The clean picture as it looked from the level before."""


def _pairs(levels: Sequence[Level]) -> Iterator[tuple[int, Level, Level]]:
    for i in range(len(levels) - 1):
        yield i, levels[i], levels[i + 1]


def ddim(
    denoise: Denoise, x: Tensor, levels: Sequence[Level], *, noise: Noise, eta: float = 0.0
) -> Iterator[Step]:
    """DDIM (Song et al. 2021a, equations 12 and 16); `eta` 0 is deterministic, 1 has DDPM's noise."""
    total = len(levels) - 1
    for i, now, then in _pairs(levels):
        x0 = denoise(x, now)
        eps = (x - broadcast(now.alpha, x) * x0) / broadcast(now.sigma, x)
        added = (now.sigma**2 - (now.alpha / then.alpha * then.sigma) ** 2).clamp(
            min=0
        )  # variance of x now given then
        std = eta * then.sigma / now.sigma * added.sqrt()
        rest = (then.sigma**2 - std**2).clamp(min=0).sqrt()
        x = broadcast(then.alpha, x) * x0 + broadcast(rest, x) * eps
        if eta > 0:
            x = x + broadcast(std, x) * noise()
        yield Step(i, total, then, x, x0)


def heun(denoise: Denoise, x: Tensor, levels: Sequence[Level], *, noise: Noise) -> Iterator[Step]:
    """Heun's second-order method in x / alpha (Karras et al.

    2022, algorithm 1); two calls a step but the last.
    """
    total = len(levels) - 1
    for i, now, then in _pairs(levels):
        x0 = denoise(x, now)
        y, ratio, next_ratio = x / broadcast(now.alpha, x), now.ratio, then.ratio
        slope = (y - x0) / broadcast(ratio, x)
        y_next = y + broadcast(next_ratio - ratio, x) * slope
        if i < total - 1:
            x0 = denoise(broadcast(then.alpha, x) * y_next, then)
            slope = (slope + (y_next - x0) / broadcast(next_ratio, x)) / 2
            y_next = y + broadcast(next_ratio - ratio, x) * slope
        x = broadcast(then.alpha, x) * y_next
        yield Step(i, total, then, x, x0)


def dpmpp_2m(
    denoise: Denoise, x: Tensor, levels: Sequence[Level], *, noise: Noise, stochastic: bool = False
) -> Iterator[Step]:
    """DPM-Solver++ 2M (Lu et al.

    2022b, algorithm 2), or its SDE form with `stochastic`; first order at both ends.
    """
    total = len(levels) - 1
    before: tuple[Tensor, Tensor] | None = None  # (ratio of the last step, its x0)
    for i, now, then in _pairs(levels):
        x0 = denoise(x, now)
        shrink = then.ratio / now.ratio  # exp(-h), h = lambda_then - lambda_now
        direction = x0
        if before is not None and i < total - 1:
            last_shrink, last_x0 = before
            share = shrink.log() / last_shrink.log() / 2  # 1 / (2 r)
            direction = x0 + broadcast(share, x) * (x0 - last_x0)
        if stochastic:
            kept, moved = then.sigma / now.sigma * shrink, then.alpha * (1 - shrink**2)
            x = broadcast(kept, x) * x + broadcast(moved, x) * direction
            x = x + broadcast(then.sigma * (1 - shrink**2).sqrt(), x) * noise()
        else:
            x = broadcast(then.sigma / now.sigma, x) * x + broadcast(then.alpha * (1 - shrink), x) * direction
        before = (shrink, x0)
        yield Step(i, total, then, x, x0)


def reverse_sde(denoise: Denoise, x: Tensor, levels: Sequence[Level], *, noise: Noise) -> Iterator[Step]:
    """Euler-Maruyama on the reverse SDE (Song et al. 2021b, appendix E and F; Meng et al. 2021, algorithms 1
    and 2).

    Variance exploding where alpha stays 1: x + v s + sqrt(v) z, v the variance that the step takes away.
    Variance preserving otherwise: (x + b s) / sqrt(1 - b) + sqrt(b) z, b the step's beta. The last step adds
    no noise.
    """
    total = len(levels) - 1
    for i, now, then in _pairs(levels):
        x0 = denoise(x, now)
        kept = now.alpha / then.alpha
        taken = now.sigma**2 - (kept * then.sigma) ** 2  # v, and b for variance-preserving levels
        score = (broadcast(now.alpha, x) * x0 - x) / broadcast(now.sigma**2, x)
        x = (x + broadcast(taken, x) * score) / broadcast(kept, x)
        if i < total - 1:
            x = x + broadcast(taken.clamp(min=0).sqrt(), x) * noise()
        yield Step(i, total, then, x, x0)


class Run(Protocol):
    """A sampler as it is called."""

    def __call__(
        self, denoise: Denoise, x: Tensor, levels: Sequence[Level], *, noise: Noise, **options: float
    ) -> Iterator[Step]: ...


@dataclass(frozen=True, slots=True)
class Sampler:
    """A sampler under its name."""

    run: Callable[..., Iterator[Step]]
    stochastic: bool = False
    second_order: bool = False

    def calls(self, steps: int) -> int:
        """How often `steps` steps call the denoiser."""
        return 2 * steps - 1 if self.second_order else steps


SAMPLERS: dict[str, Sampler] = {
    "ddpm": Sampler(partial(ddim, eta=1.0), stochastic=True),
    "ddim": Sampler(ddim),
    "euler": Sampler(ddim),
    "euler_ancestral": Sampler(partial(ddim, eta=1.0), stochastic=True),
    "heun": Sampler(heun, second_order=True),
    "dpmpp_2m": Sampler(dpmpp_2m),
    "dpmpp_2m_sde": Sampler(partial(dpmpp_2m, stochastic=True), stochastic=True),
    "reverse_sde": Sampler(reverse_sde, stochastic=True),
}
