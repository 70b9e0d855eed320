"""Work on a large picture in overlapping windows, so that memory is bounded, and no seam shows.

Each window's result is weighted, and the weights of all windows sum to 1 everywhere. Towards an edge at which
a window cuts the picture its weight falls along a squared sine over the middle half of the overlap; in the
outer quarter it is 0, because what lies there was computed without knowing what is beside it. Done at every
step of a sampler, on x0, this is MultiDiffusion (Bar-Tal et al. 2023, equation 5) with weights that fade.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Tiling", "Window", "fading", "over_tiles", "starts"]

Window = tuple[slice, slice]
"""Rows and columns, in cells."""


@dataclass(frozen=True, slots=True)
class Tiling:
    """How large windows are and how far neighbours overlap at least, in cells."""

    side: int
    overlap: int
    step: int = 1
    """Windows begin at multiples of this."""

    def scaled(self, factor: int) -> Tiling:
        """The same for cells `factor` times as large as these; what is left over is dropped."""
        return Tiling(self.side // factor, self.overlap // factor, max(1, self.step // factor))


def starts(length: int, tiling: Tiling) -> list[int]:
    """Where the windows over `length` cells begin: one at 0 if all fits into it; the last ends with them."""
    if length <= tiling.side:
        return [0]
    stride = max(tiling.step, (tiling.side - tiling.overlap) // tiling.step * tiling.step)
    last = length - tiling.side
    return [*range(0, last, stride), last]


def fading(length: int, tiling: Tiling, scale: int = 1) -> list[Tensor]:
    """The weights (n scale,) of each window over `length` cells of `scale` pixels; their sum is 1."""
    begins = starts(length, tiling)
    size, overlap = min(length, tiling.side) * scale, tiling.overlap * scale
    guard = overlap // 4
    rise = (torch.arange(overlap) - guard + 0.5) / max(1, overlap - 2 * guard)
    ramp = torch.sin(rise.clamp(0, 1) * math.pi / 2).square()  # (overlap,)
    total = torch.zeros(length * scale)
    weights: list[Tensor] = []
    for begin in begins:
        weight = torch.ones(size)
        if begin > 0 and overlap:
            weight[:overlap] *= ramp
        if begin + tiling.side < length and overlap:
            weight[-overlap:] *= ramp.flip(0)
        total[begin * scale : begin * scale + size] += weight
        weights.append(weight)
    return [w / total[b * scale : b * scale + size] for w, b in zip(weights, begins, strict=True)]


def over_tiles(
    work: Callable[[Window], Tensor], size: tuple[int, int], tiling: Tiling, *, scale: int = 1
) -> Tensor:
    """What `work` makes of each window, (B, C, rows scale, columns scale), put together to one picture of
    `size` (rows, columns) cells. One window is returned as it is.
    """
    height, width = size
    tops, lefts = starts(height, tiling), starts(width, tiling)
    if len(tops) == len(lefts) == 1:
        return work((slice(0, height), slice(0, width)))
    down, across = fading(height, tiling, scale), fading(width, tiling, scale)
    whole: Tensor | None = None
    for top, row in zip(tops, down, strict=True):
        for left, column in zip(lefts, across, strict=True):
            rows = slice(top, min(height, top + tiling.side))
            columns = slice(left, min(width, left + tiling.side))
            part = work((rows, columns))
            if whole is None:
                whole = part.new_zeros(*part.shape[:2], height * scale, width * scale)
            place = whole[
                ..., rows.start * scale : rows.stop * scale, columns.start * scale : columns.stop * scale
            ]
            place += part * (row[:, None] * column).to(part)
    assert whole is not None
    return whole
