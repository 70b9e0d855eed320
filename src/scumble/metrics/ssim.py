"""Structural similarity (Wang et al. 2004, "Image Quality Assessment: From Error Visibility to Structural
Similarity")."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from scumble.core.errors import InputError

__all__ = ["ssim"]

SIDE, SIGMA = 11, 1.5
"""The window: a Gaussian of this deviation, cut to this many pixels a side."""
C1, C2 = 0.01**2, 0.03**2
"""The constants K1 and K2 for pixels in [0, 1], squared."""


def ssim(one: Tensor, other: Tensor) -> Tensor:
    """Mean of equation 13 over all whole windows and channels of pictures (B, C, H, W) in [0, 1]: (B,), at
    most 1, which equal pictures have.

    Colours are compared channel by channel, variances are those of the weighted window (divided by 1, as in
    the paper). Raises InputError for pictures of fewer than 11 pixels a side.
    """
    if min(one.shape[-2:]) < SIDE:
        raise InputError(f"SSIM needs pictures of at least {SIDE} x {SIDE} pixels.")
    x, y = (side.double().flatten(0, 1)[:, None] for side in (one, other))  # (B C, 1, H, W)
    mean_x, mean_y = _blurred(x), _blurred(y)
    variance_x = _blurred(x * x) - mean_x.square()
    variance_y = _blurred(y * y) - mean_y.square()
    covariance = _blurred(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + C1) / (mean_x.square() + mean_y.square() + C1)
    structure = (2 * covariance + C2) / (variance_x + variance_y + C2)
    return (luminance * structure).flatten(1).mean(1).unflatten(0, one.shape[:2]).mean(1)


def _blurred(x: Tensor) -> Tensor:
    """(N, 1, H - 10, W - 10): the window's weighted mean around every pixel that has a whole one."""
    offsets = torch.arange(SIDE, dtype=x.dtype, device=x.device) - SIDE // 2
    weights = torch.exp(-offsets.square() / (2 * SIGMA**2))
    weights = weights / weights.sum()
    return conv2d(conv2d(x, weights.reshape(1, 1, -1, 1)), weights.reshape(1, 1, 1, -1))
