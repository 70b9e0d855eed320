"""Peak signal-to-noise ratio."""

from __future__ import annotations

from torch import Tensor

__all__ = ["psnr"]


def psnr(one: Tensor, other: Tensor) -> Tensor:
    """-10 log10 of the mean squared difference of pictures (B, C, H, W) in [0, 1], in dB: (B,).

    Infinite for equal pictures.
    """
    return -10 * (one - other).square().flatten(1).mean(1).log10()
