"""Solids as tables: a list of parts becomes tensors, and the tensors answer how far away a point is.

Every part is one of three families of signed distance function, chosen so that a whole solid is evaluated with
three formulas whatever it is made of: ellipsoids; boxes with rounded edges (capsules among them: a box without
width); and solids of revolution about y (cylinders, cones, tori). The bounds are those of Quilez, "Distance
functions" (https://iquilezles.org/articles/distfunctions/).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Vec3 = tuple[float, float, float]
FAR = 1e3
"""Distance of a part that is not there."""


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


@dataclass(frozen=True, slots=True)
class Solid:
    """Parts of T solids as tensors, padded to equal numbers in each family: E ellipsoids, B boxes, R revolved.

    Distances come in the order ellipsoids, boxes, revolved: M = E + B + R.
    """

    frames: Tensor
    """(T, 3 M, 6): takes (x, y, z, |x|, |z|, 1) to each part's own coordinates, in radii for ellipsoids."""
    ellipsoids: Tensor
    """(T, E, 3) radii."""
    boxes: Tensor
    """(T, B, 4) half extents without the rounding, rounding."""
    revolved: Tensor
    """(T, R, 6) ring radius, radius at y = 0, change of radius with y, half height, cosine of the slope, rounding."""
    absent: Tensor
    """(T, M) 1000 where there is padding, else 0."""
    soft: Tensor
    """(T, M) 0 where a part takes part in the smooth union, 1000 where not."""
    hard: Tensor
    """(T, M) 0 where a part is joined with a crease, 1000 where not."""
    cuts: Tensor
    """(T, M) 0 where a part is taken away, 1000 where not."""
    blend: Tensor
    """(T, 1, 1) radius of the smooth union."""
    has_cuts: bool
    has_soft: bool

    @property
    def count(self) -> int:
        """T."""
        return self.frames.shape[0]

    def select(self, rows: Tensor) -> Solid:
        """The solids at `rows` (n,)."""
        return Solid(
            *(getattr(self, name)[rows] for name in _TENSORS), has_cuts=self.has_cuts, has_soft=self.has_soft
        )


_TENSORS = ("frames", "ellipsoids", "boxes", "revolved", "absent", "soft", "hard", "cuts", "blend")


def rotation(turn: Vec3) -> list[list[float]]:
    """3 x 3 matrix that turns by degrees about x, then y, then z."""
    (cx, sx), (cy, sy), (cz, sz) = ((math.cos(math.radians(a)), math.sin(math.radians(a))) for a in turn)
    return [
        [cz * cy, cz * sy * sx - sz * cx, cz * sy * cx + sz * sx],
        [sz * cy, sz * sy * sx + cz * cx, sz * sy * cx - cz * sx],
        [-sy, cy * sx, cy * cx],
    ]


def family(part: Part) -> int:
    """0 for ellipsoids, 1 for boxes, 2 for solids of revolution."""
    return {"ellipsoid": 0, "box": 1, "capsule": 1, "cylinder": 2, "cone": 2, "torus": 2}[part.shape]


def extent(part: Part, direction: Vec3) -> float:
    """How far the part reaches along a unit direction, from the origin of the thing's frame."""
    matrix = rotation(part.turn)
    local = [sum(matrix[row][column] * direction[row] for row in range(3)) for column in range(3)]
    a, b, c = part.size
    if part.shape == "ellipsoid":
        reach = math.sqrt((local[0] * a) ** 2 + (local[1] * b) ** 2 + (local[2] * c) ** 2)
    elif part.shape == "box":
        reach = abs(local[0]) * a + abs(local[1]) * b + abs(local[2]) * c
    elif part.shape == "capsule":
        reach = a + abs(local[1]) * b
    elif part.shape == "torus":
        reach = math.hypot(local[0], local[2]) * a + b
    else:
        radius = max(a, c) if part.shape == "cone" else a
        side = math.hypot(local[0], local[2])
        reach = abs(local[1]) * b + side * radius
    folded = [axis in part.mirror for axis in "xyz"]
    centre = sum(abs(d * p) if fold else d * p for d, p, fold in zip(direction, part.at, folded, strict=True))
    return centre + reach


def _sizes(part: Part) -> list[float]:
    """The part's row in its family's table."""
    a, b, c = part.size
    r = part.round
    if part.shape == "ellipsoid":
        return [a, b, c]
    if part.shape == "box":
        r = min(r, a, b, c)
        return [a - r, b - r, c - r, r]
    if part.shape == "capsule":
        return [0.0, b, 0.0, a]
    if part.shape == "torus":
        return [a, 0.0, 0.0, 0.0, 1.0, b]
    top = c if part.shape == "cone" else a
    r = min(r, b)
    below, above, half = max(a - r, 0.0), max(top - r, 0.0), b - r
    slope = (above - below) / (2.0 * half) if half > 0 else 0.0
    return [0.0, (below + above) / 2.0, slope, half, 1.0 / math.sqrt(1.0 + slope * slope), r]


def _frame(part: Part) -> list[list[float]]:
    """(6, 3) columns that take (x, y, z, |x|, |z|, 1) to the part's coordinates, in radii for ellipsoids."""
    unit = part.size if part.shape == "ellipsoid" else (1.0, 1.0, 1.0)
    matrix = rotation(part.turn)  # local = matrix^T (p - at)
    frame = [[0.0] * 3 for _ in range(6)]
    rows = (3 if "x" in part.mirror else 0, 1, 4 if "z" in part.mirror else 2)
    for column in range(3):
        for axis in range(3):
            frame[rows[axis]][column] = matrix[axis][column] / unit[column]
        frame[5][column] = -sum(matrix[axis][column] * part.at[axis] for axis in range(3)) / unit[column]
    return frame


def ordered(parts: Sequence[Part]) -> list[Part]:
    """Parts in the order of their families, as `distances` returns them."""
    return sorted(parts, key=family)


def pack(solids: Sequence[Sequence[Part]], blends: Sequence[float]) -> tuple[Solid, list[list[int]]]:
    """Tensors of T solids, and where each of their parts (in the order of `ordered`) stands among the M columns."""
    grouped = [[[p for p in parts if family(p) == f] for f in range(3)] for parts in solids]
    counts = [max(len(groups[f]) for groups in grouped) for f in range(3)]
    fillers = ([1.0] * 3, [1.0] * 4, [0.0, 1.0, 0.0, 1.0, 1.0, 0.0])
    tables: list[list[list[list[float]]]] = [[], [], []]
    frames: list[list[list[list[float]]]] = []
    flags: list[list[list[float]]] = [[], [], [], []]
    slots: list[list[int]] = []
    for groups in grouped:
        padded: list[Part | None] = []
        slots.append([])
        for f in range(3):
            missing = counts[f] - len(groups[f])
            tables[f].append([_sizes(p) for p in groups[f]] + [fillers[f]] * missing)
            slots[-1] += [len(padded) + i for i in range(len(groups[f]))]
            padded += [*groups[f], *[None] * missing]
        frames.append([_frame(p) if p else [[0.0] * 3] * 6 for p in padded])
        for flag, rows in zip(_flags(padded), flags, strict=True):
            rows.append(flag)
    frame = torch.tensor(frames).permute(0, 3, 1, 2).flatten(1, 2)  # (T, M, 6, 3) -> (T, 3 M, 6)
    sized = [
        torch.tensor(t).reshape(len(solids), n, w) for t, n, w in zip(tables, counts, (3, 4, 6), strict=True)
    ]
    return Solid(
        frame.contiguous(),
        *sized,
        *(torch.tensor(rows) for rows in flags),
        torch.tensor(blends).clamp(min=1e-3).reshape(-1, 1, 1),
        has_cuts=any(p.cut for parts in solids for p in parts),
        has_soft=any(b > 0 for b in blends),
    ), slots


def _flags(parts: Sequence[Part | None]) -> tuple[list[float], list[float], list[float], list[float]]:
    """Offsets that leave a part out: absent, soft, hard, cuts."""
    return (
        [0.0 if p else FAR for p in parts],
        [0.0 if p and not p.hard and not p.cut else FAR for p in parts],
        [0.0 if p and p.hard and not p.cut else FAR for p in parts],
        [0.0 if p and p.cut else FAR for p in parts],
    )


def distances(solid: Solid, points: Tensor) -> Tensor:
    """Signed distance of each part: points (T, 3, N) in the solids' frames -> (T, M, N)."""
    t, _, n = points.shape
    ones = torch.ones_like(points[:, :1])
    basis = torch.cat([points, points[:, 0:1].abs(), points[:, 2:3].abs(), ones], dim=1)  # (T, 6, N)
    local = (solid.frames @ basis).view(t, 3, -1, n)
    e, b = solid.ellipsoids.shape[1], solid.boxes.shape[1]
    found: list[Tensor] = []
    if e:
        found.append(_ellipsoid(local[:, :, :e], solid.ellipsoids))
    if b:
        found.append(_box(local[:, :, e : e + b], solid.boxes))
    if solid.revolved.shape[1]:
        found.append(_revolved(local[:, :, e + b :], solid.revolved))
    return torch.cat(found, dim=1)


def _ellipsoid(p: Tensor, sizes: Tensor) -> Tensor:
    """k0 (k0 - 1) / k1 with k0 = |p / r| and k1 = |p / r^2|; p is divided by r already. (T, 3, E, N) -> (T, E, N)."""
    squared = p.square()
    k0 = squared[:, 0] + squared[:, 1] + squared[:, 2]
    scaled = squared * sizes.square().reciprocal().transpose(1, 2)[..., None]
    k1 = scaled[:, 0] + scaled[:, 1] + scaled[:, 2]
    return (k0 - k0.sqrt()) * k1.clamp(min=1e-12).rsqrt()


def _box(p: Tensor, sizes: Tensor) -> Tensor:
    q = p.abs() - sizes[..., :3].transpose(1, 2)[..., None]
    inside = torch.maximum(torch.maximum(q[:, 0], q[:, 1]), q[:, 2]).clamp(max=0.0)
    q = q.clamp(min=0.0).square()
    return (q[:, 0] + q[:, 1] + q[:, 2]).sqrt() + inside - sizes[..., 3:]


def _revolved(p: Tensor, sizes: Tensor) -> Tensor:
    ring, middle, slope, half, cosine, rounding = sizes[..., None].unbind(2)  # (T, R, 1) each
    x, y, z = p.unbind(1)
    radius = (x.square() + z.square()).sqrt()
    height = torch.minimum(torch.maximum(y, -half), half)
    side = ((radius - ring).abs() - middle - slope * height) * cosine
    cap = y.abs() - half
    outside = (side.clamp(min=0.0).square() + cap.clamp(min=0.0).square()).sqrt()
    return outside + torch.maximum(side, cap).clamp(max=0.0) - rounding


def union(solid: Solid, parts: Tensor) -> Tensor:
    """Distance of the whole: (T, M, N) -> (T, N).

    The smooth union is Quilez's quadratic one, written so that the order of the parts does not matter: with m the
    least distance and k the blend, m - k / 4 (sum of max(1 - (d - m) / k, 0)^2 - 1).
    """
    whole = (parts + solid.hard[..., None]).amin(1)
    if solid.has_soft:
        soft = parts + solid.soft[..., None]
        least = soft.amin(1, keepdim=True)
        near = (1.0 + (least - soft) / solid.blend).clamp(min=0.0).square().sum(1)
        body = least[:, 0] - 0.25 * solid.blend[:, 0] * (near - 1.0)
        if solid.has_cuts:
            body = torch.maximum(body, -(parts + solid.cuts[..., None]).amin(1))
        whole = torch.minimum(whole, body)
    return whole
