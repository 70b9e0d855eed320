"""Samplers: from noise to a picture, as generator functions over `denoise(x, level) -> x0`.

Each takes x (B, ...) at `levels[0]` and yields a `Step` for every further level. `noise()` gives fresh
standard normal noise like x, each row from its picture's own generator. Who drives a sampler may `send` it
another x (B, ...) to go on from, as `steer` does. Levels of shape () on the CPU keep the loops free of waits
for the device.

Every step here is linear in x and x0, and its weights need two numbers only: `fade` = sigma' / sigma and
`shrink` = (sigma' / alpha') / (sigma / alpha), the level of Karras et al. 2022 after the step over that
before it. Written in them, nothing is divided by the alpha of a level without signal (zero terminal SNR) or
the sigma of a clean one, and a step between equal levels returns x bit for bit.

Several well-known samplers are one formula: Euler's method in the coordinates x / alpha, sigma / alpha
(Karras et al. 2022) is DDIM (Song et al. 2021a) with eta = 0; DDPM's posterior (Ho et al. 2020, equation 7)
and Euler with ancestral noise are DDIM with eta = 1. They stand under all their names, and the tests hold
each against its namesake.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from scumble.core.errors import ConfigError
from scumble.diffusion.levels import Denoise, Level, broadcast, quotient

__all__ = [
    "SAMPLERS",
    "Noise",
    "Run",
    "Sampler",
    "Step",
    "ddim",
    "dpmpp_2m",
    "heun",
    "reverse_sde",
    "steer",
    "with_eta",
]

Noise = Callable[[], Tensor]

FEW_STEPS = 15
"""With fewer steps than this, DPM-Solver++ ends with a first-order one, as its authors' solver does."""


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


Run = Generator[Step, Tensor | None, None]
"""A sampler under way: iterate over it, or `send` another x in answer to a step."""


def steer(run: Run, change: Callable[[Step], Tensor]) -> Iterator[Step]:
    """The steps of `run` with x replaced by `change(step)` (B, ...) after each, from where it goes on.

    With a mask, `change` puts back the part to keep at `step.level` (Meng et al. 2021, section 3).
    """
    step = next(run, None)
    while step is not None:
        step = replace(step, x=change(step))
        yield step
        try:
            step = run.send(step.x)
        except StopIteration:
            return


def ddim(denoise: Denoise, x: Tensor, levels: Sequence[Level], *, noise: Noise, eta: float = 0.0) -> Run:
    """DDIM (Song et al. 2021a, equations 12 and 16); `eta` 0 is deterministic, 1 has DDPM's noise."""
    for i, now, then in _pairs(levels):
        x0 = denoise(x, now)
        fade, shrink = _change(now, then)
        fresh = eta**2 * (1 - shrink**2).clamp(min=0)  # share of sigma'^2 that is new noise
        kept = fade * (1 - fresh).clamp(min=0).sqrt()
        x = _weighted(x, kept, x0, then.alpha - kept * now.alpha)
        if eta > 0:
            x = x + broadcast(then.sigma * fresh.sqrt(), x) * noise()
        sent = yield Step(i, len(levels) - 1, then, x, x0)
        x = x if sent is None else sent


def heun(denoise: Denoise, x: Tensor, levels: Sequence[Level], *, noise: Noise) -> Run:
    """Heun's second-order method in x / alpha (Karras et al. 2022, algorithm 1).

    Two calls a step, but one for a step to the clean level. With y = x / alpha, r = sigma / alpha and slope
    (y - x0) / r, the trapezoid differs from Euler's step by (r' - r) / 2 times the difference of the two
    slopes, which is (x0 - x0') / r'. From a level without signal, where r is infinite, the step is Euler's.
    """
    for i, now, then in _pairs(levels):
        x0 = denoise(x, now)
        fade, shrink = _change(now, then)
        x = _weighted(x, fade, x0, then.alpha * (1 - shrink))
        if (then.sigma > 0).all():
            half = torch.where(shrink > 0, (1 / shrink - 1) / 2, torch.zeros_like(shrink))
            x = x + broadcast(then.alpha * half, x) * (denoise(x, then) - x0)
        sent = yield Step(i, len(levels) - 1, then, x, x0)
        x = x if sent is None else sent


def dpmpp_2m(
    denoise: Denoise, x: Tensor, levels: Sequence[Level], *, noise: Noise, stochastic: bool = False
) -> Run:
    """DPM-Solver++ 2M (Lu et al. 2022b, algorithm 2), or its SDE form with `stochastic`.

    First order where there is nothing to extrapolate from: in the first step, in steps from a level without
    signal or to the clean one, and in the last of fewer than 15.
    """
    total = len(levels) - 1
    before: tuple[Tensor, Tensor] | None = None  # (log-ratio that the last step went down, its x0)
    for i, now, then in _pairs(levels):
        x0 = denoise(x, now)
        fade, shrink = _change(now, then)
        h, direction = -shrink.log(), x0
        if before is not None and not (i == total - 1 and total < FEW_STEPS):
            usable = torch.isfinite(h) & (before[0] > 0)
            share = torch.where(usable, h / before[0] / 2, torch.zeros_like(h))  # 1 / (2 r)
            direction = x0 + broadcast(share, x) * (x0 - before[1])
        if stochastic:
            x = _weighted(x, fade * shrink, direction, then.alpha * (1 - shrink**2))
            x = x + broadcast(then.sigma * (1 - shrink**2).clamp(min=0).sqrt(), x) * noise()
        else:
            x = _weighted(x, fade, direction, then.alpha * (1 - shrink))
        before = (h, x0)
        sent = yield Step(i, total, then, x, x0)
        x = x if sent is None else sent


def reverse_sde(
    denoise: Denoise, x: Tensor, levels: Sequence[Level], *, noise: Noise, final_noise: bool = False
) -> Run:
    """Euler-Maruyama on the reverse SDE (Song et al. 2021b, appendices E and F; Meng et al. 2021, section 3).

    With the score s = (alpha x0 - x) / sigma^2, kept k = alpha / alpha' and the variance v = sigma^2 - k^2
    sigma'^2 that the step takes away, x' = (x + v s) / k + sqrt(v) z. For variance-exploding levels k = 1;
    for variance-preserving ones k = sqrt(1 - v) and v is the step's beta. So the mean is DDPM's, and the
    noise is that of the level the step starts from. A step to the clean level adds none, unless
    `final_noise`, as Meng et al. print it.
    """
    for i, now, then in _pairs(levels):
        x0 = denoise(x, now)
        fade, shrink = _change(now, then)
        fresh = (1 - shrink**2).clamp(min=0)  # v / sigma^2
        x = _weighted(x, fade * shrink, x0, then.alpha * fresh)
        std = now.sigma * fresh.sqrt()
        if not final_noise:
            std = torch.where(then.sigma > 0, std, torch.zeros_like(std))
        x = x + broadcast(std, x) * noise()
        sent = yield Step(i, len(levels) - 1, then, x, x0)
        x = x if sent is None else sent


@dataclass(frozen=True, slots=True)
class Sampler:
    """A sampler under its name."""

    run: Callable[..., Run]
    stochastic: bool = False
    second_order: bool = False

    def calls(self, steps: int) -> int:
        """How often `steps` steps down to the clean level call the denoiser."""
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


def with_eta(name: str, eta: float) -> dict[str, float]:
    """What the sampler `name` is told of `eta`: DDIM the number, the others nothing. Raises ConfigError where
    one is given to a sampler that has none, rather than pass over it.
    """
    if eta and name != "ddim":
        raise ConfigError(f"The sampler {name} has no eta.", "Leave eta out, or take ddim.")
    return {"eta": eta} if name == "ddim" else {}


def _pairs(levels: Sequence[Level]) -> Iterator[tuple[int, Level, Level]]:
    for i in range(len(levels) - 1):
        yield i, levels[i], levels[i + 1]


def _change(now: Level, then: Level) -> tuple[Tensor, Tensor]:
    """(fade, shrink) of the module's docstring, each () or (B,), finite for all levels."""
    fade = quotient(then.sigma, now.sigma)
    return fade, fade * quotient(now.alpha, then.alpha)


def _weighted(x: Tensor, x_weight: Tensor, x0: Tensor, x0_weight: Tensor) -> Tensor:
    return broadcast(x_weight, x) * x + broadcast(x0_weight, x) * x0  # (B, ...)
