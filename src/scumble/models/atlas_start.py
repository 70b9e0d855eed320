"""Where a fit of an atlas begins: one affine map a frame and layer, chained along the flow.

Between frames t and t + 1 a layer's flow is fitted by y = A x + b, by least squares weighted with the layer's
mask and reweighted against outliers. Maps are chained both ways from the middle frame, so that drift is
shared, and one scale brings every visible pixel of every frame into the atlas.
"""

from __future__ import annotations

import torch
from torch import Tensor

from scumble.models.atlas import Layout

__all__ = ["MARGIN", "affine_between", "start_maps"]

MARGIN = 0.9
"""Largest |u|, |v| of a visible pixel at the start."""
FEWEST = 12.0
"""Pixels, added up by weight, below which a layer is taken to stand still from one frame to the next."""
ROUNDS = 5
MAX_SCALE = 1.6


def start_maps(forward: Tensor, trusted: Tensor, seen: Tensor, layout: Layout) -> tuple[Tensor, float]:
    """Maps (F, 2, 3) from xy to uv of one layer, and their scale: uv lengths per xy length.

    `forward` (F - 1, 2, H, W) in pixels, `trusted` (F - 1, H, W) bool, `seen` (F, H, W) in [0, 1].
    """
    xy = layout.pixel_centres(layout.height, layout.width, forward.device).double()  # (H W, 2)
    chained = torch.eye(3, dtype=torch.float64, device=forward.device).repeat(layout.frames, 1, 1)
    steps = [
        affine_between(
            xy, xy + (2.0 / layout.longest) * flow.flatten(1).T.double(), (weight * sound).flatten().double()
        )
        for flow, sound, weight in zip(forward, trusted, seen, strict=False)
    ]
    middle = layout.frames // 2
    for t in range(middle + 1, layout.frames):
        chained[t] = chained[t - 1] @ torch.linalg.inv(steps[t - 1])
    for t in range(middle - 1, -1, -1):
        chained[t] = chained[t + 1] @ steps[t]
    return _fitted(chained, xy, seen)


def affine_between(start: Tensor, end: Tensor, weight: Tensor) -> Tensor:
    """The map (3, 3), on homogeneous columns, that best carries `start` (P, 2) to `end` (P, 2).

    Weighted least squares, five times, each time with weights w / (r + r_m) for residuals r of median r_m:
    nearly the least sum of distances, which a few wrong pixels do not sway. The identity where weights add up
    to little.
    """
    whole = torch.eye(3, dtype=start.dtype, device=start.device)
    if float(weight.sum()) < FEWEST:
        return whole
    rows = torch.cat([start, torch.ones_like(start[:, :1])], dim=1)  # (P, 3)
    solid, current, shift = weight > 0, weight, torch.zeros_like(rows.T[:, :2])
    for _ in range(ROUNDS):
        normal = rows.T @ (current[:, None] * rows)
        normal = normal + 1e-6 * normal.trace() * torch.eye(3, dtype=start.dtype, device=start.device)
        shift = torch.linalg.solve(normal, rows.T @ (current[:, None] * (end - start)))  # (3, 2)
        residual = (rows @ shift - (end - start)).square().sum(1).sqrt()
        current = weight / (residual + residual[solid].median() + 1e-6)
    whole[:2] += shift.T
    return whole


def _bounds(chained: Tensor, rows: Tensor, visible: Tensor) -> tuple[Tensor, Tensor]:
    """The corners (2,) of the box of all places (P, 3) that are visible (F, P), or of all where none is,
    after each frame's map; frame by frame, as long videos have very many places."""
    none = not bool(visible.any())
    low, high = rows.new_full((2,), torch.inf), rows.new_full((2,), -torch.inf)
    for step, shown in zip(chained, visible, strict=True):
        placed = (rows if none else rows[shown]) @ step[:2].T
        if len(placed):
            low, high = torch.minimum(low, placed.amin(0)), torch.maximum(high, placed.amax(0))
    return low, high


def _fitted(chained: Tensor, xy: Tensor, seen: Tensor) -> tuple[Tensor, float]:
    """The chained maps scaled and moved so that everything seen lies within MARGIN."""
    rows = torch.cat([xy, torch.ones_like(xy[:, :1])], dim=1)
    low, high = _bounds(chained, rows, (seen > 0.5).flatten(1))
    scale = min(MAX_SCALE, 2 * MARGIN / max(float((high - low).max()), 1e-3))
    maps = scale * chained[:, :2]
    maps[:, :, 2] -= scale * (low + high) / 2
    return maps.float(), scale
