"""Guidance: several branches of one model become one `denoise`, without knowing what the branches are
conditioned on.

`branches(x, level, which)` gives x0 of each branch asked for, all in one batch. The formulas are linear and
their weights sum to 1, so that at one level they read the same in x0 as in eps.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from scumble.diffusion.levels import Denoise, Level, broadcast

__all__ = ["Branches", "image_text", "text"]

Branches = Callable[[Tensor, Level, tuple[int, ...]], list[Tensor]]
"""(x (B, ...), level, indices) -> x0 (B, ...) for each index."""


def text(
    branches: Branches, scale: float, *, interval: tuple[float, float] | None = None, rescale: float = 0.0
) -> Denoise:
    """Classifier-free guidance (Ho and Salimans 2022) over branches (unconditional, conditional).

    unconditional + scale (conditional - unconditional); scale 1 asks for the conditional branch only, scale 0
    for the other only. `interval` in noise shares sigma^2 / (alpha^2 + sigma^2), low to high, is where
    guidance acts (Kynkaanniemi et al. 2024); elsewhere the conditional branch stands alone. `rescale` is phi
    of Lin et al. 2024, equation 16, on v as in their model, whatever the network predicts.
    """
    return _guided(branches, (1 - scale, scale), interval, rescale)


def image_text(
    branches: Branches,
    image_scale: float,
    text_scale: float,
    *,
    interval: tuple[float, float] | None = None,
    rescale: float = 0.0,
) -> Denoise:
    """Two-scale guidance (Brooks et al. 2023, equation 3) over branches (none, image, image and text).

    none + s_I (image - none) + s_T (both - image). Branches whose weight is zero are not asked for: two are
    enough where s_I = 1 or s_T = s_I, one where both are 1. `interval` and `rescale` as for `text`.
    """
    weights = (1 - image_scale, image_scale - text_scale, text_scale)
    return _guided(branches, weights, interval, rescale)


def _guided(
    branches: Branches, weights: tuple[float, ...], interval: tuple[float, float] | None, rescale: float
) -> Denoise:
    """The branches in these weights, inside `interval`; outside it the last, which has all conditions."""
    full = len(weights) - 1
    which = tuple(i for i, weight in enumerate(weights) if weight != 0)

    def denoise(x: Tensor, level: Level) -> Tensor:
        inside = _inside(level, interval)
        if which == (full,) or not inside.any():
            return branches(x, level, (full,))[0]
        asked = which if inside.all() or full in which else (*which, full)
        results = dict(zip(asked, branches(x, level, asked), strict=True))
        guided = sum((weights[i] * results[i] for i in which[1:]), weights[which[0]] * results[which[0]])
        if full in which:
            guided = _rescaled(guided, results[full], x, level, rescale)
        if inside.all():
            return guided
        return torch.where(broadcast(inside, x).bool(), guided, results[full])

    return denoise


def _inside(level: Level, interval: tuple[float, float] | None) -> Tensor:
    """Whether guidance acts at `level`, () or (B,); on the CPU for levels of shape (), so nothing waits."""
    if interval is None:
        return torch.tensor(True)
    share = (level.sigma / level.spread) ** 2
    return (interval[0] <= share) & (share <= interval[1])


def _rescaled(guided: Tensor, conditional: Tensor, x: Tensor, level: Level, phi: float) -> Tensor:
    """`guided` (B, ...) with the standard deviation of its v taken the share `phi` towards `conditional`'s.

    At one level v is a multiple of x0 - m with m = alpha x / (alpha^2 + sigma^2), so x0 - m is what scales.
    """
    if phi == 0:
        return guided
    axes = tuple(range(1, guided.ndim))
    middle = broadcast(level.alpha / level.spread**2, x) * x
    spread, wanted = ((x0 - middle).std(axes, keepdim=True) for x0 in (guided, conditional))  # (B, 1, ...)
    contrast = torch.where(spread > 0, wanted / spread, 1.0)
    return guided + phi * (contrast - 1) * (guided - middle)
