"""Rays against bodies: where they meet (sphere tracing, Hart 1996), normals, soft shadows."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from scumble.world.field import FAR, Solid, distance

__all__ = [
    "APPROACH_STEPS",
    "MISS",
    "SHADOW_STEPS",
    "SHARPNESS",
    "TRACE_STEPS",
    "approach",
    "box",
    "compact",
    "normals",
    "put",
    "shadow",
    "take",
    "trace",
]

MISS = 1e4
"""Ray length of a miss."""
TRACE_STEPS = (2, 3, 4, 5, 6)
"""Steps of rays between two times of leaving out those that have arrived."""
APPROACH_STEPS = 8
"""Steps of the cones that go before the rays."""
SHADOW_STEPS = (3, 3, 3, 4)
SHARPNESS = 9.0
"""Of shadows: 1 / the tangent of the angle that the light is wide."""


def compact(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Columns where `mask` (T, N) holds, (T, n) padded with others, and which are not padding (T, n)."""
    if mask.shape[0] == 1:
        index = mask[0].nonzero()[:, 0][None]
        return index, torch.ones_like(index, dtype=torch.bool)
    counts = mask.sum(1)
    n = int(counts.max())
    index = mask.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :n]
    return index, torch.arange(n, device=mask.device) < counts[:, None]


def take(values: Tensor, index: Tensor) -> Tensor:
    """Columns `index` (T, n) of (T, N) or (T, C, N)."""
    if values.dim() == 2:
        return values.gather(1, index)
    return values.gather(2, index[:, None].expand(-1, values.shape[1], -1))


def put(values: Tensor, index: Tensor, valid: Tensor, new: Tensor) -> Tensor:
    """`values` (T, N) or (T, C, N) with `new` written at the valid columns."""
    mask = valid if values.dim() == 2 else valid[:, None]
    # padding points at columns that are not selected, each once: writing back what stands there is safe
    where = index if values.dim() == 2 else index[:, None].expand(-1, values.shape[1], -1)
    return values.scatter(values.dim() - 1, where, torch.where(mask, new, take(values, index)))


def box(low: Tensor, high: Tensor, origin: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    """Where rays enter and leave boxes along the axes: low, high (T, 3), origin, direction (T, 3, N or 1)
    -> near, far (T, N); near is at least 0, and far < near where a ray misses."""
    inverse = 1.0 / torch.where(direction.abs() < 1e-7, 1e-7, direction)
    one, two = (low[..., None] - origin) * inverse, (high[..., None] - origin) * inverse
    near = torch.minimum(one, two).amax(1).clamp(min=0.0)
    return near, torch.maximum(one, two).amin(1)


def trace(
    solid: Solid, origin: Tensor, direction: Tensor, near: Tensor, far: Tensor, *, width: float
) -> Tensor:
    """Lengths (T, N) at which rays meet the solid, `MISS` where they do not: where the distance is less than
    `width` times the length. Rays that graze it to the last step meet it where they are close."""
    length, found = near.clone(), torch.full_like(near, MISS)
    index, alive = compact(far > near)
    for turn, steps in enumerate(TRACE_STEPS):
        if index.shape[1] == 0:
            break
        at, rays, limit = take(length, index), take(direction, index), take(far, index)
        step = at
        for _ in range(steps):
            step = distance(solid, origin + rays * at[:, None])
            at = at + 0.97 * step * (step >= width * at)
        last = turn + 1 == len(TRACE_STEPS)
        hit = (step < (6.0 if last else 1.0) * width * at) & alive & (at < limit)
        length, found = put(length, index, alive, at), put(found, index, hit, at)
        narrow, alive = compact(alive & ~hit & (at < limit))
        index = index.gather(1, narrow)
    return found


def approach(
    solid: Solid, origin: Tensor, direction: Tensor, near: Tensor, far: Tensor, *, width: float
) -> Tensor:
    """Lengths (T, N) up to which cones about rays, `width` times the length wide, meet nothing; `MISS` where
    they leave the solid's box without."""
    at = near
    for _ in range(APPROACH_STEPS):
        away = distance(solid, origin + direction * at[:, None])
        at = at + (away - width * at).clamp_(min=0.0).mul_(0.95)
    return torch.where(at < far, at, MISS)


def normals(field: Callable[[Tensor], Tensor], points: Tensor, step: float) -> Tensor:
    """Unit gradients (T, 3, N) of a distance field at points (T, 3, N), from the corners of a tetrahedron."""
    total = torch.zeros_like(points)
    for corner in ((1.0, -1.0, -1.0), (-1.0, -1.0, 1.0), (-1.0, 1.0, -1.0), (1.0, 1.0, 1.0)):
        way = torch.tensor(corner, device=points.device)[None, :, None]
        total = total + way * field(points + step * way)[:, None]
    return total / total.square().sum(1, keepdim=True).sqrt().clamp(min=1e-9)


def shadow(solid: Solid, points: Tensor, light: Tensor, near: Tensor, far: Tensor, *, start: float) -> Tensor:
    """Share of the light (T, N) that reaches points (T, 3, N) from directions `light` (T, 3, 1).

    The soft shadow of Quilez: the least of sharpness * distance / length on the way from `near` to `far`."""
    length = near.clamp(min=start)
    share = torch.ones_like(far)
    index, alive = compact(length < far)
    for steps in SHADOW_STEPS:
        if index.shape[1] == 0:
            break
        at, least, limit, base = (take(v, index) for v in (length, share, far, points))
        for _ in range(steps):
            step = distance(solid, base + light * at[:, None])
            least = torch.minimum(least, SHARPNESS * step / at + FAR * (at >= limit))
            at = at + step.clamp(0.015, 0.3)
        length, share = put(length, index, alive, at), put(share, index, alive, least)
        narrow, kept = compact(alive & (at < limit) & (least > 0.0))
        index, alive = index.gather(1, narrow), kept & alive.gather(1, narrow)
    share = share.clamp(0.0, 1.0)
    return share * share * (3.0 - 2.0 * share)
