"""The parts that things are made of, and how much room each takes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

__all__ = ["Matrix3", "Part", "Vec3", "bounds", "rotation"]

Vec3 = tuple[float, float, float]
Matrix3 = tuple[Vec3, Vec3, Vec3]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One primitive of a thing, in the thing's own frame: y up, front towards +z, feet at y = 0.

    `size` means, by shape: `ellipsoid` its three radii; `box` half extents including the rounding; `capsule`
    (radius, half length along y, -); `cylinder` (radius, half height, -); `cone` (radius below, half height,
    radius above); `torus` (ring radius, tube radius, -) with axis y.
    """

    shape: str
    at: Vec3
    size: Vec3
    turn: Vec3 = (0.0, 0.0, 0.0)
    """Degrees about x, then y, then z."""
    slot: str = "main"
    """What it is painted with: `main`, `second`, `wear` or a fixed colour of `materials.FIXED`."""
    group: str = "body"
    """`body`, or `head` for what moves and scales with the head."""
    limb: bool = False
    """Scaled by `Look.limbs`."""
    mirror: str = ""
    """`x` draws it on the other side too, `xz` in all four corners."""
    hard: bool = False
    """Joined with a crease instead of the thing's smooth union."""
    cut: bool = False
    """Taken away from the smooth union; parts joined with a crease stay whole."""
    round: float = 0.0
    """Radius of the edges, of boxes, cylinders and cones."""


@cache
def rotation(turn: Vec3) -> Matrix3:
    """3 x 3 matrix that turns by degrees about x, then y, then z."""
    (cx, sx), (cy, sy), (cz, sz) = ((math.cos(math.radians(a)), math.sin(math.radians(a))) for a in turn)
    return (
        (cz * cy, cz * sy * sx - sz * cx, cz * sy * cx + sz * sx),
        (sz * cy, sz * sy * sx + cz * cx, sz * sy * cx - cz * sx),
        (-sy, cy * sx, cy * cx),
    )


def _reach(part: Part, local: Vec3) -> float:
    """How far the part reaches from its centre along a unit direction in its own coordinates."""
    x, y, z = (abs(d) for d in local)
    a, b, c = part.size
    if part.shape == "ellipsoid":
        return math.sqrt((x * a) ** 2 + (y * b) ** 2 + (z * c) ** 2)
    if part.shape == "box":
        return x * a + y * b + z * c
    if part.shape == "capsule":
        return a + y * b
    if part.shape == "torus":
        return math.hypot(x, z) * a + b
    return y * b + math.hypot(x, z) * (max(a, c) if part.shape == "cone" else a)


def bounds(part: Part) -> tuple[Vec3, Vec3]:
    """Least and greatest corner of a box round the part and its mirror images."""
    reach = [_reach(part, row) for row in rotation(part.turn)]
    low = [p - r for p, r in zip(part.at, reach, strict=True)]
    high = [p + r for p, r in zip(part.at, reach, strict=True)]
    for axis, name in enumerate("xyz"):
        if name in part.mirror:
            high[axis] = max(high[axis], -low[axis])
            low[axis] = -high[axis]
    return (low[0], low[1], low[2]), (high[0], high[1], high[2])
