"""Guidance: several branches of one model become one `denoise`, without knowing what the branches are
conditioned on.

`branches(x, level, which)` gives x0 of each branch asked for, all in one batch. The formulas are linear, so
that at one level they read the same in x0 as in eps.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from scumble.diffusion.levels import Denoise, Level

__all__ = ["Branches", "image_text", "text"]

Branches = Callable[[Tensor, Level, tuple[int, ...]], list[Tensor]]
"""(x (B, ...), level, indices) -> x0 (B, ...) for each index."""


def text(
    branches: Branches, scale: float, *, interval: tuple[float, float] | None = None, rescale: float = 0.0
) -> Denoise:
    """Classifier-free guidance (Ho and Salimans 2022) over branches (unconditional, conditional).

    unconditional + scale (conditional - unconditional); scale 1 asks for the conditional branch only.
    `interval` in noise shares sigma^2 / (alpha^2 + sigma^2), low to high, is where guidance acts
    (Kynkaanniemi et al. 2024); `rescale` is phi of Lin et al. 2024, equation 16.
    """

    def denoise(x: Tensor, level: Level) -> Tensor:
        if scale == 1 or not _inside(level, interval):
            return branches(x, level, (1,))[0]
        without, conditional = branches(x, level, (0, 1))
        return _rescaled(torch.lerp(without, conditional, scale), conditional, rescale)

    return denoise


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
    enough where s_I = 1 or s_T = s_I, one where both are 1.
    """
    weights = (1 - image_scale, image_scale - text_scale, text_scale)
    which = tuple(i for i, weight in enumerate(weights) if weight != 0)

    def denoise(x: Tensor, level: Level) -> Tensor:
        if not _inside(level, interval):
            return branches(x, level, (2,))[0]
        results = branches(x, level, which)
        mixed = sum((weights[i] * r for i, r in zip(which, results, strict=True)), torch.zeros_like(x))
        return _rescaled(mixed, results[-1], rescale) if which[-1] == 2 else mixed

    return denoise


def _inside(level: Level, interval: tuple[float, float] | None) -> bool:
    """Levels are CPU scalars here, so that this waits for no device."""
    if interval is None:
        return True
    share = float(level.sigma**2 / (level.alpha**2 + level.sigma**2))
    return interval[0] <= share <= interval[1]


def _rescaled(guided: Tensor, conditional: Tensor, phi: float) -> Tensor:
    if phi == 0:
        return guided
    axes = tuple(range(1, guided.ndim))
    contrast = conditional.std(axes, keepdim=True) / guided.std(axes, keepdim=True)  # (B, 1, ...)
    return guided * torch.lerp(torch.ones_like(contrast), contrast, phi)
