"""L1 and L2 as tables of edits have them: means over pixels and channels, so figures of all sizes compare."""

from __future__ import annotations

from torch import Tensor

__all__ = ["l1", "mse", "mse_where"]


def l1(one: Tensor, other: Tensor) -> Tensor:
    """Mean absolute difference of pictures (B, C, H, W) in [0, 1]: (B,), in [0, 1].

    The L1 of MagicBrush (Zhang et al. 2023) and Emu Edit: results are resized to the target first.
    """
    return (one - other).abs().flatten(1).mean(1)


def mse(one: Tensor, other: Tensor) -> Tensor:
    """Mean squared difference of pictures (B, C, H, W) in [0, 1]: (B,), in [0, 1].

    The L2 of MagicBrush. That of SDEdit is a norm over all pixels, see `scumble.metrics.l2`.
    """
    return (one - other).square().flatten(1).mean(1)


def mse_where(one: Tensor, other: Tensor, where: Tensor) -> Tensor:
    """Mean squared difference of pictures (..., C, H, W) in [0, 1] over the pixels where `where` (..., H, W)
    is True: (...,), not a number where that is nowhere.
    """
    weight = where.unsqueeze(-3).to(one)  # (..., 1, H, W)
    total = ((one - other).square() * weight).flatten(-3).sum(-1)
    return total / (one.shape[-3] * weight.flatten(-3).sum(-1))
