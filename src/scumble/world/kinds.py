"""What a row of the table of things looks like, and short ways to write one."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scumble.world.scene import Look
from scumble.world.solid import Part, Vec3

__all__ = ["Kind", "anchor", "moved", "part", "rod", "scaled"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A thing as data: its parts and where it is worn and marked. Lengths in heights of a medium thing."""

    parts: tuple[Part, ...]
    blend: float = 0.0
    """Radius of the smooth union; 0 for a thing with creases only."""
    second: tuple[str, ...] = ("white", "grey")
    """Default second colours; the first that differs enough from the main colour is taken."""
    pivot: Vec3 = (0.0, 0.5, 0.0)
    """The point about which the head scales."""
    mark: tuple[float, float] = (0.0, 0.3)
    """The (x, y) on the front where a mark is painted."""
    mark_on: str = "body"
    """Whether the mark moves with the `body` or the `head`."""
    top: tuple[Vec3, float] | None = None
    """Where a hat sits: point, radius of the hat."""
    eyes: tuple[Vec3, float] | None = None
    """Between the eyes, at their front: point, half the distance between them."""
    neck: tuple[Vec3, float, float, float] | None = None
    """Centre of the neck, its radius, how far in front of it a bow tie sits, tilt of a scarf in degrees."""
    grain: float = 1.0
    """Relative size of stripes, dots and squares."""


def part(
    shape: str,
    at: Vec3,
    size: Vec3,
    slot: str = "main",
    *flags: str,
    turn: Vec3 = (0, 0, 0),
    edge: float = 0.02,
) -> Part:
    """A `Part`; flags are `head`, `limb`, `hard`, `cut`, `x` and `xz` (mirrored). `edge` rounds boxes."""
    return Part(
        shape=shape,
        at=at,
        size=size,
        turn=turn,
        slot=slot,
        group="head" if "head" in flags else "body",
        limb="limb" in flags,
        mirror="xz" if "xz" in flags else "x" if "x" in flags else "",
        hard="hard" in flags,
        cut="cut" in flags,
        round=edge,
    )


def rod(start: Vec3, end: Vec3, radius: float, slot: str = "main", *flags: str) -> Part:
    """A capsule between two points."""
    delta = [b - a for a, b in zip(start, end, strict=True)]
    length = math.hypot(*delta)
    x, y, z = (d / length for d in delta)
    turn = (math.degrees(math.asin(z)), 0.0, math.degrees(math.atan2(-x, y)))
    middle = (start[0] + delta[0] / 2, start[1] + delta[1] / 2, start[2] + delta[2] / 2)
    return part("capsule", middle, (radius, length / 2, 0.0), slot, *flags, turn=turn)


def scaled(at: Vec3, by: Vec3) -> Vec3:
    """A point scaled along each axis."""
    return (at[0] * by[0], at[1] * by[1], at[2] * by[2])


def moved(at: Vec3, by: Vec3) -> Vec3:
    """A point moved."""
    return (at[0] + by[0], at[1] + by[1], at[2] + by[2])


def anchor(at: Vec3, group: str, kind: Kind, look: Look) -> Vec3:
    """Where a point of the table's frame lies once the look is applied."""
    wide = 1.0 / math.sqrt(look.stretch)
    body = (wide, look.stretch, wide)
    if group == "body":
        return scaled(at, body)
    away = moved(at, scaled(kind.pivot, (-1.0, -1.0, -1.0)))
    return moved(scaled(kind.pivot, body), scaled(away, (look.head, look.head, look.head)))
