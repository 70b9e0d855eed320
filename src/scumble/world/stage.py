"""From scenes to a stage: where things stand, where the camera is, what the seed decides."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scumble.core.rng import MAX_SEED, derive
from scumble.world.build import Bodies, Placed, Shape, gather, shape
from scumble.world.camera import DISTANCE, Camera, Pose, camera
from scumble.world.places import LIGHTS, light_direction
from scumble.world.scene import SIZES, Scene
from scumble.world.solid import Vec3

__all__ = [
    "ELEVATIONS",
    "STACK",
    "TALLEST",
    "YAWS",
    "Stage",
    "arrange",
    "look_at",
    "spread",
    "stage",
    "unit",
    "yaw_of",
]

YAWS = {"front": 0.0, "side": 90.0, "back": 180.0, "above": 0.0}
TALLEST = 1.38
"""Greatest height of a thing without what it wears."""
STACK = 1.40
"""Greatest height of two things on top of each other."""
ELEVATIONS = {"front": 9.0, "side": 9.0, "back": 9.0, "above": 50.0}


@dataclass(frozen=True, slots=True)
class Stage:
    """A chunk of S scenes in one place, ready to be seen."""

    place: str
    times: tuple[str, ...]
    camera: Camera
    things: tuple[tuple[Placed, ...], ...]
    """Of each scene."""
    layers: tuple[Bodies, ...]
    """First things, then second things: in each at most one body a scene."""
    light: Tensor
    """(S, 3) towards the sun."""
    sun: Tensor
    """(S, 3)"""
    sky: Tensor
    """(S, 3)"""
    fill: Tensor
    """(S, 3)"""
    seed: Tensor
    """(S, 2) in [0, 1): moves patterns of ground and sky."""


def unit(seed: int, *purpose: str) -> float:
    """A number in [0, 1) for a purpose."""
    return derive(seed, *purpose) / (MAX_SEED + 1)


def spread(seed: int, purpose: str, width: float) -> float:
    """A number in [-width, width)."""
    return (2.0 * unit(seed, purpose) - 1.0) * width


def look_at(scene: Scene, pose: Pose) -> tuple[Vec3, float, float, float]:
    """Target, azimuth, elevation and distance of the camera of a scene."""
    above = scene.view == "above"
    target = (0.0, 0.36 if above else 0.55, 0.0)
    azimuth = spread(scene.seed, "azimuth", 4.0) + pose.orbit
    elevation = ELEVATIONS[scene.view] + spread(scene.seed, "elevation", 4.0 if above else 2.5) + pose.rise
    distance = DISTANCE * (1.0 + spread(scene.seed, "distance", 0.07))
    return target, azimuth, elevation, distance


def yaw_of(scene: Scene, index: int) -> float:
    """How far a thing is turned from facing the camera, in degrees."""
    width = {"front": 22.0, "side": 12.0, "back": 22.0, "above": 30.0}[scene.view]
    side = 1.0 if scene.view != "side" or unit(scene.seed, "side") < 0.5 else -1.0
    return side * YAWS[scene.view] + spread(scene.seed, f"yaw {index}", width)


def arrange(scene: Scene, row: int, pose: Pose) -> list[Placed]:
    """Where the things of a scene stand."""
    seed = scene.seed
    shapes = [shape(thing) for thing in scene.things]
    yaws = [yaw_of(scene, i) for i in range(len(shapes))]
    grow = 1.0 + spread(seed, "scale", 0.05)
    scales = [min(SIZES[t.size] * grow, TALLEST / s.tall) for t, s in zip(scene.things, shapes, strict=True)]
    away = spread(seed, "x", 0.14)
    first = (away + math.copysign(0.06, away), 0.0, spread(seed, "z", 0.10))
    places: list[Vec3] = [first]
    if len(shapes) == 2:
        scales, second = _related(scene, shapes, yaws, scales, first)
        if scene.relation == "on top of":
            places = [(first[0], shapes[1].high[1] * scales[1] - 0.02, first[2])]
        places.append(second)
    placed: list[Placed] = []
    for i, thing in enumerate(scene.things):
        move = pose.moves[i] if i < len(pose.moves) else (0.0, 0.0, 0.0)
        turn = pose.turns[i] if i < len(pose.turns) else 0.0
        at = (places[i][0] + move[0], places[i][1] + move[1], places[i][2] + move[2])
        placed.append(Placed(row, i, thing, shapes[i], at, yaws[i] + turn, scales[i]))
    return placed


def _related(
    scene: Scene, shapes: Sequence[Shape], yaws: Sequence[float], scales: Sequence[float], first: Vec3
) -> tuple[list[float], Vec3]:
    """Scales of two things that both fit into the picture, and where the second stands."""
    if scene.relation == "on top of":
        height = sum(s.high[1] * scale for s, scale in zip(shapes, scales, strict=True))
        shrink = min(0.85, STACK / height)
        return [scale * shrink for scale in scales], first
    halves = [
        _half_widths(s.low, s.high, yaw, scale) for s, yaw, scale in zip(shapes, yaws, scales, strict=True)
    ]
    side = -1.0 if first[0] > 0 else 1.0
    room = 1.0 + abs(first[0]) - halves[0][0] - 0.06
    shrink = min(0.88, max(0.5, 0.5 * room / halves[1][0])) if scene.relation == "next to" else 0.88
    wide, deep = halves[1][0] * shrink, halves[1][1] * shrink
    if scene.relation == "next to":
        return [scales[0], scales[1] * shrink], (
            first[0] + side * (halves[0][0] + wide + 0.06),
            0.0,
            first[2],
        )
    away = side * (0.72 * halves[0][0] + 0.45 * wide)
    return [scales[0], scales[1] * shrink], (first[0] + away, 0.0, first[2] - halves[0][1] - deep - 0.06)


def _half_widths(low: Vec3, high: Vec3, yaw: float, scale: float) -> tuple[float, float]:
    """Half the room a turned thing takes along x and along z."""
    x, z = max(-low[0], high[0]), max(-low[2], high[2])
    c, s = abs(math.cos(math.radians(yaw))), abs(math.sin(math.radians(yaw)))
    return ((x * c + z * s) * scale, (x * s + z * c) * scale)


def stage(scenes: Sequence[Scene], poses: Sequence[Pose], device: torch.device) -> Stage:
    """The stage of scenes that share a place."""
    views = [look_at(scene, pose) for scene, pose in zip(scenes, poses, strict=True)]
    placed = [arrange(scene, row, pose) for row, (scene, pose) in enumerate(zip(scenes, poses, strict=True))]
    layers = [[things[k] for things in placed if len(things) > k] for k in range(2)]
    lights = [LIGHTS[scene.time] for scene in scenes]
    seen = camera(views)
    return Stage(
        place=scenes[0].place,
        times=tuple(scene.time for scene in scenes),
        camera=Camera(seen.origin.to(device), seen.axes.to(device)),
        things=tuple(tuple(row) for row in placed),
        layers=tuple(gather(layer, device) for layer in layers if layer),
        light=torch.tensor(
            [light_direction(s.time, spread(s.seed, "sun", 14.0)) for s in scenes], device=device
        ),
        sun=torch.tensor([light.sun for light in lights], device=device),
        sky=torch.tensor([light.sky for light in lights], device=device),
        fill=torch.tensor([light.fill for light in lights], device=device),
        seed=torch.tensor([[unit(s.seed, "u"), unit(s.seed, "v")] for s in scenes], device=device),
    )
