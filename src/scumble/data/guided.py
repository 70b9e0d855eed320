"""Making a small map large, or a vague one sharp, along the edges of the picture that it belongs to.

After the guided filter of He, Sun, Tang 2013 and its fast form (1505.00996): near every pixel the map is
explained by the colours of the small picture, p = a I + b. Here only a is used, to say what the large picture
adds to the small one:

    q = up(p) + up(a) (I_large - up(I_small))

so that the map keeps all its own detail, and has the picture's edges where it went along with them. For a
vague map the filter itself is wanted, q = mean(a) I + mean(b).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, pad

__all__ = ["guided_filter", "guided_upsample", "slopes"]

RADIUS = 2
"""Pixels of the small picture around each that explain it."""
RIDGE = 1e-3
"""Added to the variances of the picture's colours: what varies less is not followed."""


def guided_upsample(small: Tensor, guide: Tensor, large: Tensor) -> Tensor:
    """(1, C, H, W) from a map (1, C, h, w), the picture of its size, `guide` (1, 3, h, w), and the `large`
    one (1, 3, H, W), all in [0, 1]. The map itself, bit for bit, where the sizes are equal.
    """
    size = (large.shape[-2], large.shape[-1])
    if small.shape[-2:] == size:
        return small
    slope = slopes(small, guide)
    raised = _raised(slope.flatten(1, 2), size).view(1, -1, 3, *size)
    finer = large - _raised(guide, size)
    return (_raised(small, size) + torch.einsum("brchw,bchw->brhw", raised, finer)).clamp(0, 1)


def guided_filter(vague: Tensor, guide: Tensor, radius: int) -> Tensor:
    """The map (1, C, H, W) explained by the picture's colours in windows of `radius` pixels around each: its
    edges are those of the picture, `guide` (1, 3, H, W), both in [0, 1]."""
    slope = slopes(vague, guide, radius)
    means = _window_mean(vague, radius), _window_mean(guide, radius)
    offset = means[0] - torch.einsum("bcrhw,brhw->bchw", slope, means[1])
    steep = _window_mean(slope.flatten(1, 2), radius).view_as(slope)
    return (torch.einsum("bcrhw,brhw->bchw", steep, guide) + _window_mean(offset, radius)).clamp(0, 1)


def slopes(small: Tensor, guide: Tensor, radius: int = RADIUS) -> Tensor:
    """a (1, C, 3, h, w): least squares of the map on the guide's colours in the window about each pixel."""
    mean_p, mean_i = _window_mean(small, radius), _window_mean(guide, radius)
    height, width = small.shape[-2:]
    cross = (small[:, :, None] * guide[:, None]).flatten(1, 2)
    cross = _window_mean(cross, radius).view(1, -1, 3, height, width)
    cross = cross - mean_p[:, :, None] * mean_i[:, None]  # (1, C, 3, h, w)
    spread = (guide[:, :, None] * guide[:, None]).flatten(1, 2)
    spread = _window_mean(spread, radius).view(1, 3, 3, height, width)
    spread = spread - mean_i[:, :, None] * mean_i[:, None]  # (1, 3, 3, h, w)
    ridge = RIDGE * torch.eye(3, device=small.device, dtype=small.dtype)
    left = spread.permute(0, 3, 4, 1, 2) + ridge  # (1, h, w, 3, 3)
    found = torch.inverse(left) @ cross.permute(0, 3, 4, 2, 1)  # (1, h, w, 3, C)
    return found.permute(0, 4, 3, 1, 2)


def _window_mean(maps: Tensor, radius: int) -> Tensor:
    padded = pad(maps, (radius,) * 4, mode="replicate")
    return avg_pool2d(padded, 2 * radius + 1, stride=1)


def _raised(maps: Tensor, size: tuple[int, int]) -> Tensor:
    return interpolate(maps, size, mode="bilinear", align_corners=False)
