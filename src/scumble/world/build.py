"""From scenes to bodies: applies looks, colours, sizes and relations, and gathers everything in tensors."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from scumble.world import materials
from scumble.world.accessories import worn
from scumble.world.field import Solid, pack
from scumble.world.kinds import Kind, anchor, moved, scaled
from scumble.world.marks import MARK_SHAPES
from scumble.world.materials import EMISSION, FINISHES, FIXED, PATTERNS, linear
from scumble.world.scene import COLOURS, Look, Thing
from scumble.world.solid import Part, Vec3, bounds
from scumble.world.things import THINGS

__all__ = ["PAINT", "Bodies", "Placed", "Shape", "gather", "moved_to", "paint", "shape", "turn_about_y"]


@dataclass(frozen=True, slots=True)
class Shape:
    """A thing with its look applied, in its own frame: feet at y = 0, front towards +z."""

    parts: tuple[Part, ...]
    blend: float
    low: Vec3
    """Least x, y and z."""
    high: Vec3
    """Greatest x, y and z."""
    mark: Vec3
    """Middle of the mark; only x and y count."""
    tall: float
    """Height without what it wears."""


def _looked(part: Part, kind: Kind, look: Look) -> Part:
    grow = look.limbs if part.limb else 1.0
    if part.group == "head":
        size = scaled(part.size, (look.head * grow, look.head * grow, look.head * grow))
    else:
        wide, tall = 1.0 / math.sqrt(look.stretch), look.stretch
        by: Vec3 = (wide, tall, wide)
        if part.turn != (0, 0, 0):
            by = (1.0, 1.0, 1.0)
        elif part.shape in ("cylinder", "capsule"):
            by = (wide, tall, 1.0)
        elif part.shape == "torus":
            by = (wide, 1.0, 1.0)
        size = scaled(part.size, scaled(by, (grow, grow, grow)))
    hard = part.hard or kind.blend == 0.0
    return replace(part, at=anchor(part.at, part.group, kind, look), size=size, hard=hard)


def shape(thing: Thing) -> Shape:
    """A thing with its look and what it wears, put down so that its lowest point is at y = 0."""
    kind, look = THINGS[thing.kind], thing.look
    extra = worn(thing.accessory, kind, look) if thing.accessory else ()
    parts = [_looked(p, kind, look) for p in kind.parts]
    drop = (0.0, -min(bounds(p)[0][1] for p in parts if not p.cut), 0.0)
    whole = tuple(replace(p, at=moved(p.at, drop)) for p in (*parts, *extra))
    boxes = [bounds(p) for p in whole if not p.cut]
    mark = moved(anchor((*kind.mark, 0.0), kind.mark_on, kind, look), drop)
    tall = max(bounds(p)[1][1] for p in parts if not p.cut) + drop[1]
    low, high = _corner(min, [b[0] for b in boxes]), _corner(max, [b[1] for b in boxes])
    return Shape(whole, kind.blend, low, high, mark, tall)


def _corner(choose: Callable[[Iterable[float]], float], points: Sequence[Vec3]) -> Vec3:
    return (choose(p[0] for p in points), choose(p[1] for p in points), choose(p[2] for p in points))


PAINT = 9
"""Columns of a part's paint: linear red, green, blue; pattern; emission; specular, gloss, mirror; metal."""


def paint(part: Part, thing: Thing, second: str) -> list[float]:
    """A part's row of paint."""
    if part.slot in FIXED:
        finish = FINISHES["fixed"]
        return [
            *linear(FIXED[part.slot]),
            0.0,
            EMISSION.get(part.slot, 0.0),
            finish.specular,
            finish.gloss,
            finish.mirror,
            0.0,
        ]
    finish = FINISHES[thing.material]
    if part.slot == "wear":
        finish = FINISHES["fixed"]
        return [
            *linear(COLOURS[thing.accessory_colour]),
            0.0,
            0.0,
            finish.specular,
            finish.gloss,
            finish.mirror,
            0.0,
        ]
    colour = COLOURS[thing.colour if part.slot == "main" else second]
    metal = 1.0 if thing.material == "metal" else 0.0
    pattern = 1.0 if part.slot == "main" else 0.0
    return [*linear(colour), pattern, 0.0, finish.specular, finish.gloss, finish.mirror, metal]


@dataclass(frozen=True, slots=True)
class Bodies:
    """T things of S scenes as tensors. A body's frame is the world's, moved, turned about y and scaled."""

    scene: Tensor
    """(T,) which scene each belongs to."""
    thing: Tensor
    """(T,) which of its scene's things it is."""
    solid: Solid
    paint: Tensor
    """(T, M, 9) see `PAINT`."""
    at: Tensor
    """(T, 3) where its feet stand."""
    turn: Tensor
    """(T, 3, 3) takes the body's directions to the world's."""
    scale: Tensor
    """(T,)"""
    low: Tensor
    """(T, 3) least corner of the bounding box, in the body's frame."""
    high: Tensor
    """(T, 3) greatest corner of the bounding box, in the body's frame."""
    pattern: Tensor
    """(T,) see `materials.PATTERNS`."""
    pattern_colour: Tensor
    """(T, 3) linear."""
    grain: Tensor
    """(T,) size of the pattern."""
    mark: Tensor
    """(T,) 0 for none, else see `marks.MARK_SHAPES`."""
    mark_at: Tensor
    """(T, 3) its middle in the body's frame; only x and y count."""
    mark_colour: Tensor
    """(T, 3) linear."""
    snow: Tensor
    """(T,) 1 where snow lies on what faces up."""
    glow: Tensor
    """(T, 3) linear light that the body gives."""

    def local(self, points: Tensor) -> Tensor:
        """World points (T, 3, N) in the bodies' frames."""
        return self.turn.transpose(1, 2) @ (points - self.at[..., None]) / self.scale[:, None, None]

    def local_directions(self, directions: Tensor) -> Tensor:
        """World directions (T, 3, N) in the bodies' frames; lengths stay."""
        return self.turn.transpose(1, 2) @ directions


@dataclass(frozen=True, slots=True)
class Placed:
    """A thing with its shape and where it stands."""

    scene: int
    index: int
    thing: Thing
    shape: Shape
    at: Vec3
    yaw: float
    scale: float


def turn_about_y(degrees: float) -> list[list[float]]:
    """Rotation that takes +z towards +x by `degrees`."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return [[c, 0.0, s], [0.0, 1.0, 0.0], [-s, 0.0, c]]


def gather(placed: Sequence[Placed], device: torch.device) -> Bodies:
    """Tensors of all bodies of a chunk."""
    shapes = [p.shape for p in placed]
    solid, columns = pack([s.parts for s in shapes], [s.blend for s in shapes])
    paints: list[list[list[float]]] = []
    patterned: list[str] = []
    marked: list[str] = []
    for row, p in enumerate(placed):
        kind = THINGS[p.thing.kind]
        second = materials.second_colour(p.thing.colour, p.thing.look.second_colour, kind.second)
        marked.append(materials.mark_colour(p.thing, second))
        patterned.append(materials.pattern_colour(p.thing.colour, second))
        paints.append([paint(q, p.thing, second) if q else [0.0] * PAINT for q in columns[row]])
    bodies = Bodies(
        scene=torch.tensor([p.scene for p in placed]),
        thing=torch.tensor([p.index for p in placed]),
        solid=solid,
        paint=torch.tensor(paints),
        at=torch.tensor([p.at for p in placed]),
        turn=torch.tensor([turn_about_y(p.yaw) for p in placed]),
        scale=torch.tensor([p.scale for p in placed]),
        low=torch.tensor([s.low for s in shapes]) - 0.01,
        high=torch.tensor([s.high for s in shapes]) + 0.01,
        pattern=torch.tensor([PATTERNS[p.thing.material] for p in placed]),
        pattern_colour=torch.tensor([linear(COLOURS[name]) for name in patterned]),
        grain=torch.tensor([THINGS[p.thing.kind].grain for p in placed]),
        mark=torch.tensor(
            [MARK_SHAPES.index(p.thing.look.mark) + 1 if p.thing.look.mark else 0 for p in placed]
        ),
        mark_at=torch.tensor([s.mark for s in shapes]),
        mark_colour=torch.tensor([linear(COLOURS[name]) for name in marked]),
        snow=torch.tensor([float(p.thing.effect == "snow-capped") for p in placed]),
        glow=torch.tensor([materials.glow(p.thing) for p in placed]),
    )
    return moved_to(bodies, device)


def moved_to(bodies: Bodies, device: torch.device) -> Bodies:
    """The same bodies on a device."""
    if device.type == "cpu":
        return bodies
    fields = {name: getattr(bodies, name).to(device) for name in bodies.__dataclass_fields__}
    return Bodies(**fields)
