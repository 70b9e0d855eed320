"""DDIM inversion: from a clean picture back to the noise that DDIM makes it from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor

from scumble.diffusion.levels import Denoise, Level, broadcast, quotient
from scumble.diffusion.parameterisation import to_eps
from scumble.diffusion.samplers import Step

__all__ = ["ddim_inversion"]


def ddim_inversion(
    denoise: Denoise, x: Tensor, levels: Sequence[Level], *, refinements: int = 0
) -> Iterator[Step]:
    """Walk `levels`, a list as samplers take it, from its end to its start; `x` (B, ...) is at `levels[-1]`.

    DDIM's step down (Song et al. 2021a, equation 13, backwards) solved for where it came from, with the noise
    that the model sees in the picture before the step as if it were at the level after it. That guess is off
    by the size of the step; each of `refinements` further calls sees the noise in the result instead, a
    fixed-point iteration (Pan et al. 2023) at whose end DDIM goes back exactly. With guidance well above 1
    the iteration may not settle.
    """
    total = len(levels) - 1
    for i in range(total):
        now, then = levels[total - i], levels[total - i - 1]
        start, x0 = x, denoise(x, then)
        x = _up(start, _noise(x0, start, then, start, now), now, then)
        for _ in range(refinements):
            x0 = denoise(x, then)
            x = _up(start, _noise(x0, x, then, start, now), now, then)
        yield Step(i, total, then, x, x0)


def _noise(x0: Tensor, seen: Tensor, then: Level, start: Tensor, now: Level) -> Tensor:
    """The noise (B, ...) in `seen` at level `then`, given its x0.

    Where `then` has no signal all of `seen` is noise, whatever x0 is; there the noise in `start` is what DDIM
    would go on with.
    """
    signal = (then.alpha > 0).to(then.alpha)  # 0 or 1
    usual, limit = to_eps(x0, seen, then), to_eps(x0, start, now)
    return broadcast(signal, seen) * usual + broadcast(1 - signal, seen) * limit


def _up(start: Tensor, eps: Tensor, now: Level, then: Level) -> Tensor:
    """alpha' (x - sigma eps) / alpha + sigma' eps."""
    kept = quotient(then.alpha, now.alpha)
    return broadcast(kept, start) * start + broadcast(then.sigma - kept * now.sigma, start) * eps
