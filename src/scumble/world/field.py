"""Solids as tensors that answer how far away a point is.

Every part belongs to one of three families of signed distance functions, so that a whole solid is evaluated
with three formulas whatever it is made of: ellipsoids; boxes with rounded edges; and solids of revolution
about y (cylinders, cones, tori; capsules are rounded cylinders without width). The formulas are those of
Quilez, "Distance functions" (https://iquilezles.org/articles/distfunctions/).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scumble.world.solid import Part, rotation

__all__ = ["FAMILIES", "FAR", "TINY", "Solid", "distance", "distances", "exposed", "pack", "union"]

FAR = 1e3
"""Distance of a part that is not there."""
TINY = 1e-6
"""Instead of 0 under a square root, where processors are slow at 0."""
FAMILIES = {"ellipsoid": 0, "box": 1, "capsule": 2, "cylinder": 2, "cone": 2, "torus": 2}


@dataclass(frozen=True, slots=True)
class Solid:
    """Parts of T solids as tensors, padded to equal numbers: E ellipsoids, B boxes, R solids of revolution.

    Distances come in the order ellipsoids, boxes, revolved: M = E + B + R.
    """

    turns: Tensor
    """(T, 3 M, 5): with `moves`, takes (x, y, z, |x|, |z|) to each part's frame; ellipsoids in radii."""
    moves: Tensor
    """(T, 3 M, 1)"""
    ellipsoids: Tensor
    """(T, 3, E, 1): 1 / radius^2."""
    boxes: Tensor
    """(T, 4, B, 1): half extents without the rounding, rounding."""
    revolved: Tensor
    """(T, 6, R, 1): ring radius, radius at y = 0, its slope, half height, cosine of the slope, rounding."""
    absent: Tensor
    """(T, M, 1): `FAR` where there is padding or a part taken away, else 0."""
    soft: Tensor
    """(T, M, 1): 0 where a part takes part in the smooth union, `FAR` where not."""
    hard: Tensor
    """(T, M, 1): 0 where a part is joined with a crease, `FAR` where not."""
    cuts: Tensor
    """(T, M, 1): 0 where a part is taken away, `FAR` where not."""
    blend: Tensor
    """(T, 1, 1): radius of the smooth union."""
    has_cuts: bool
    has_soft: bool

    def to(self, device: torch.device) -> Solid:
        """The same solids on a device."""
        tensors = (self.turns, self.moves, self.ellipsoids, self.boxes, self.revolved)
        flags = (self.absent, self.soft, self.hard, self.cuts, self.blend)
        moved = [tensor.to(device) for tensor in (*tensors, *flags)]
        return Solid(*moved, has_cuts=self.has_cuts, has_soft=self.has_soft)


def _sizes(part: Part) -> list[float]:
    """The part's row in its family's table."""
    a, b, c = part.size
    r = part.round
    if part.shape == "ellipsoid":
        return [a**-2, b**-2, c**-2]
    if part.shape == "box":
        r = min(r, a, b, c)
        return [a - r, b - r, c - r, r]
    if part.shape == "capsule":
        return [0.0, 0.0, 0.0, b, 1.0, a]
    if part.shape == "torus":
        return [a, 0.0, 0.0, 0.0, 1.0, b]
    top = c if part.shape == "cone" else a
    r = min(r, b)
    below, above, half = max(a - r, 0.0), max(top - r, 0.0), b - r
    slope = (above - below) / (2.0 * half) if half > 0 else 0.0
    return [0.0, (below + above) / 2.0, slope, half, 1.0 / math.sqrt(1.0 + slope * slope), r]


def _frame(part: Part | None) -> list[list[float]]:
    """Three rows that take (x, y, z, |x|, |z|, 1) to the part's coordinates."""
    rows = [[0.0] * 6 for _ in range(3)]
    if part is None:
        return rows
    unit = part.size if part.shape == "ellipsoid" else (1.0, 1.0, 1.0)
    matrix = rotation(part.turn)  # local = matrix^T (p - at)
    columns = (3 if "x" in part.mirror else 0, 1, 4 if "z" in part.mirror else 2)
    for row in range(3):
        for axis in range(3):
            rows[row][columns[axis]] = matrix[axis][row] / unit[row]
        rows[row][5] = -sum(matrix[axis][row] * part.at[axis] for axis in range(3)) / unit[row]
    return rows


def pack(solids: Sequence[Sequence[Part]], blends: Sequence[float]) -> tuple[Solid, list[list[Part | None]]]:
    """Tensors of T solids, and for each the part in each of the M columns, None where there is padding."""
    families = [[[p for p in parts if FAMILIES[p.shape] == f] for f in range(3)] for parts in solids]
    counts = [max(len(groups[f]) for groups in families) for f in range(3)]
    fillers = ([1.0] * 3, [1.0] * 4, [0.0, 1.0, 0.0, 1.0, 1.0, 0.0])
    columns: list[list[Part | None]] = [[] for _ in solids]
    tables: list[Tensor] = []
    for f, (count, filler) in enumerate(zip(counts, fillers, strict=True)):
        table: list[list[list[float]]] = []
        for row, groups in zip(columns, families, strict=True):
            missing = count - len(groups[f])
            row += [*groups[f], *[None] * missing]
            table.append([_sizes(p) for p in groups[f]] + [filler] * missing)
        tables.append(
            torch.tensor(table).view(len(solids), count, len(filler)).transpose(1, 2)[..., None].contiguous()
        )
    frames = torch.tensor([[_frame(p) for p in row] for row in columns])  # (T, M, 3, 6)
    frames = frames.transpose(1, 2).flatten(1, 2)  # (T, 3 M, 6)
    ellipsoids, boxes, revolved = tables
    solid = Solid(
        turns=frames[..., :5].contiguous(),
        moves=frames[..., 5:].contiguous(),
        ellipsoids=ellipsoids,
        boxes=boxes,
        revolved=revolved,
        absent=_offsets([[p is not None and not p.cut for p in row] for row in columns]),
        soft=_offsets([[p is not None and not p.hard and not p.cut for p in row] for row in columns]),
        hard=_offsets([[p is not None and p.hard and not p.cut for p in row] for row in columns]),
        cuts=_offsets([[p is not None and p.cut for p in row] for row in columns]),
        blend=torch.tensor(blends).clamp(min=1e-3)[:, None, None],
        has_cuts=any(p.cut for parts in solids for p in parts),
        has_soft=any(not p.hard for parts in solids for p in parts),
    )
    return solid, columns


def _offsets(chosen: Sequence[Sequence[bool]]) -> Tensor:
    """(T, M, 1): 0 where chosen, `FAR` where not."""
    return FAR * (1.0 - torch.tensor(chosen, dtype=torch.float32)[..., None])


def distances(solid: Solid, points: Tensor) -> Tensor:
    """Signed distance of each part: points (T, 3, N) in the solids' frames -> (T, M, N)."""
    t, _, n = points.shape
    basis = torch.cat([points, points[:, ::2].abs()], dim=1)  # (T, 5, N): x, y, z, |x|, |z|
    local = torch.baddbmm(solid.moves, solid.turns, basis).view(t, 3, -1, n)
    e, b, r = (sizes.shape[2] for sizes in (solid.ellipsoids, solid.boxes, solid.revolved))
    found: list[Tensor] = []
    if e:
        found.append(_ellipsoid(local[:, :, :e], solid.ellipsoids))
    if b:
        found.append(_box(local[:, :, e : e + b], solid.boxes))
    if r:
        found.append(_revolved(local[:, :, e + b :], solid.revolved))
    return torch.cat(found, dim=1)


def _ellipsoid(p: Tensor, inverse: Tensor) -> Tensor:
    """k0 (k0 - 1) / k1 with k0 = |p / r| and k1 = |p / r^2|; p (T, 3, E, N) is p / r already. -> (T, E, N)"""
    squared = p.square()
    k0 = squared.sum(1)
    k1 = squared.mul_(inverse).sum(1)
    return (k0 - k0.sqrt()).mul_(k1.clamp_(min=TINY * TINY).rsqrt_())


def _box(p: Tensor, sizes: Tensor) -> Tensor:
    q = p.abs().sub_(sizes[:, :3])
    inside = q.amax(1).clamp_(max=0.0)
    return q.clamp_(min=TINY).square_().sum(1).sqrt_().add_(inside).sub_(sizes[:, 3])


def _revolved(p: Tensor, sizes: Tensor) -> Tensor:
    ring, middle, slope, half, cosine, rounding = sizes.unbind(1)  # (T, R, 1) each
    y = p[:, 1]
    radius = p[:, ::2].square().sum(1).sqrt_()
    side = radius.sub_(ring).abs_().sub_(middle).sub_(y.clamp(-half, half).mul_(slope)).mul_(cosine)
    cap = y.abs().sub_(half)
    inside = torch.maximum(side, cap).clamp_(max=0.0)
    outside = side.clamp_(min=TINY).square_().add_(cap.clamp_(min=TINY).square_()).sqrt_()
    return outside.add_(inside).sub_(rounding)


def union(solid: Solid, parts: Tensor) -> Tensor:
    """Distance of the whole: (T, M, N) -> (T, N).

    The smooth union is Quilez's quadratic one, written so that the order of the parts does not matter: with m
    the least distance and k the blend, m - k / 4 (sum of max(1 - (d - m) / k, 0)^2 - 1).
    """
    whole = (parts + solid.hard).amin(1)
    if solid.has_soft:
        soft = parts + solid.soft
        least = soft.amin(1, keepdim=True)
        near = (least - soft).div_(solid.blend).add_(1.0).clamp_(min=0.0).square_().sum(1)
        body = least[:, 0] - near.sub_(1.0).mul_(0.25 * solid.blend[:, 0])
        if solid.has_cuts:
            body = torch.maximum(body, -(parts + solid.cuts).amin(1))
        whole = torch.minimum(whole, body)
    return whole


def distance(solid: Solid, points: Tensor) -> Tensor:
    """Signed distance of the whole: points (T, 3, N) in the solids' frames -> (T, N)."""
    return union(solid, distances(solid, points))


def exposed(solid: Solid, points: Tensor) -> Tensor:
    """Distance of each part where cutting left it, `FAR` for padding: (T, 3, N) -> (T, M, N)."""
    parts = distances(solid, points)
    if solid.has_cuts:
        left = -(parts + solid.cuts).amin(1, keepdim=True)
        parts = torch.where(solid.soft == 0.0, torch.maximum(parts, left), parts)
    return parts + solid.absent
