"""Warp error: how far a video changes along its own motion (Lai et al. 2018, 1808.00449, equation 9, with the
absolute difference for the square)."""

from __future__ import annotations

from torch import Tensor

from scumble.data.flow import sampled

__all__ = ["warp_error"]


def warp_error(frames: Tensor, forward: Tensor, trusted: Tensor) -> Tensor:
    """Mean |frame t - frame t + 1 looked up along the flow| over trusted pixels: (F - 1,), in [0, 1].

    `frames` (F, C, H, W) in [0, 1]; `forward` (F - 1, 2, H, W) in pixels, of the unedited video, since an
    edit has to move as what it lies on; `trusted` (F - 1, H, W) leaves out what the next frame hides. 0 for a
    pair with nothing to trust.
    """
    change = (frames[:-1] - sampled(frames[1:], forward)).abs().mean(1)  # (F - 1, H, W)
    weight = trusted.to(change.dtype)
    return (change * weight).flatten(1).sum(1) / weight.flatten(1).sum(1).clamp(min=1.0)
