"""Masks over pictures: (B, 1, H, W) in [0, 1], where 1 may change, 0 may not, and grey may change a little.

What a mask keeps stays bit for bit: pixels of mask 0 are copied and never computed with.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

__all__ = ["differing", "feathered", "pasted", "pooled"]


def differing(one: Tensor, other: Tensor) -> Tensor:
    """1 where two pictures (B, 3, H, W) differ in any channel, else 0: (B, 1, H, W)."""
    return (one != other).any(1, keepdim=True).to(one.dtype)


def pooled(mask: Tensor, factor: int) -> Tensor:
    """The mask on a grid `factor` times coarser: each cell as changeable as its most changeable pixel.

    H and W are multiples of `factor`. No editable pixel is lost; what must not change inside such a cell is
    put back afterwards, in pixels, with `pasted`.
    """
    return max_pool2d(mask, factor) if factor > 1 else mask


def feathered(mask: Tensor, width: int) -> Tensor:
    """Weights (B, 1, H, W) of the edited picture: 0 where the mask is 0, rising to 1 `width` pixels inside.

    With d the distance in pixels (the larger of the two axes) to the nearest kept pixel, the weight is
    min(1, d / (width + 1)). The edge of the picture is no seam. Width 0 gives 1 wherever the mask is not 0.
    """
    kept = (mask == 0).to(torch.float32)
    reached = 1 - kept
    total = reached
    for _ in range(width):
        kept = max_pool2d(kept, 3, stride=1, padding=1)
        total = total + (1 - kept)
    return total / (width + 1)


def pasted(original: Tensor, edited: Tensor, mask: Tensor, feather: int = 0) -> Tensor:
    """`edited` where `mask` is above 0, `original` where it is 0, bit for bit, all (B, 3, H, W).

    `feather` blends the two over that many pixels on the edited side of the seam.
    """
    weight = feathered(mask, feather)
    blended = torch.where(weight < 1, torch.lerp(original, edited, weight), edited)
    return torch.where(mask > 0, blended, original)
