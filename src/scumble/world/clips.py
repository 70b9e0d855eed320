"""Short videos of the toy world, with what a video method has to find: masks, opacity and optical flow.

Flow is not estimated: each pixel's point in the world is carried along by what it belongs to and seen by the
other frame's camera. Positions in pictures are in pixels, x to the right and y down.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from scumble.core.errors import InputError
from scumble.world.camera import Camera, Pose
from scumble.world.render import Rendering, grid, render
from scumble.world.sampling import PROFILES, dice, pick, sample_scene
from scumble.world.scene import PLACES, Scene
from scumble.world.splits import EVALUATION_SEEDS, Split

__all__ = [
    "BENCHMARK_CLIPS",
    "CLIP_KINDS",
    "FRAMES",
    "ORBIT",
    "PATH",
    "SAME_DISTANCE",
    "Clip",
    "ClipRendering",
    "Flow",
    "render_clip",
    "sample_clip",
]

CLIP_KINDS = ("orbit", "move")
"""The camera goes round the scene, or the first thing moves over a fixed ground."""

FRAMES = 24
ORBIT = 24.0
"""Degrees that the camera goes round in a whole clip."""
PATH = ((-0.38, 0.0, 0.10), (0.38, 0.0, -0.10))
"""Offsets of a moving thing in the first and in the last frame, in heights of a medium thing."""

SAME_DISTANCE = 0.02
"""Relative difference of distances up to which two frames are taken to see the same point."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """A scene in motion."""

    scene: Scene
    kind: str
    """One of `CLIP_KINDS`."""
    frames: int = FRAMES
    backwards: bool = False
    """Whether the motion runs from its end to its start."""

    def __post_init__(self) -> None:
        if self.kind not in CLIP_KINDS:
            raise InputError(f"There is no clip {self.kind!r}.", f"Kinds: {', '.join(CLIP_KINDS)}.")
        if self.frames < 2:
            raise InputError(f"A clip of {self.frames} frames does not move.", "Give at least 2 frames.")

    @property
    def poses(self) -> tuple[Pose, ...]:
        """What differs from the still picture, frame by frame, at constant speed."""
        times = [frame / (self.frames - 1) for frame in range(self.frames)]
        return tuple(self._pose(1.0 - time if self.backwards else time) for time in times)

    def _pose(self, time: float) -> Pose:
        if self.kind == "orbit":
            return Pose(orbit=ORBIT * (time - 0.5))
        x, y, z = (a + (b - a) * time for a, b in zip(*PATH, strict=True))
        return Pose(moves=((x, y, z),))


@dataclass(frozen=True, slots=True)
class Flow:
    """Where the pixels of some frames are in others."""

    offset: Tensor
    """(F, 2, H, W) in pixels: the pixel at p is at p + offset in the other frame."""
    visible: Tensor
    """(F, H, W) bool: whether the other frame shows the same point, unhidden and inside the picture."""


@dataclass(frozen=True, slots=True)
class ClipRendering:
    """The F frames of a clip and what is known of each pixel."""

    pixels: Tensor
    """(F, 3, H, W) sRGB in [0, 1]."""
    opacity: Tensor
    """(F, 2, H, W) share of each pixel that the first and the second thing cover."""
    forward: Flow
    """From frame t to t + 1, for the F - 1 first frames."""
    backward: Flow
    """From frame t + 1 to t, for the F - 1 last frames."""

    @property
    def masks(self) -> Tensor:
        """(F, 2, H, W) bool: pixels that each thing covers for the greater part."""
        return self.opacity > 0.5


def sample_clip(seed: int, *, kind: str | None = None, split: Split = "train") -> Clip:
    """A clip of one matte thing without effect in a photo by day, seen from the front; pure in the seed."""
    rng = dice(seed, "clip")
    drawn = pick(rng, CLIP_KINDS)
    backwards = rng.random() < 0.5
    profile = replace(
        PROFILES["photo"],
        views={"front": 1.0},
        times={"day": 1.0},
        places={name: 1.0 for name in PLACES if name != "green screen"},
        materials={"matte": 2.0, "striped": 1.0, "dotted": 1.0, "checkered": 1.0},
        effect=0.0,
    )
    scene = sample_scene(seed, profile=profile, split=split)
    return Clip(scene=scene, kind=drawn if kind is None else kind, backwards=backwards)


def _benchmark(count: int) -> tuple[Clip, ...]:
    """The first clips that each show another thing, orbits and moving things in turn."""
    clips: dict[str, Clip] = {}
    seed = EVALUATION_SEEDS + 50_000
    while len(clips) < count:
        clip = sample_clip(seed, kind=CLIP_KINDS[len(clips) % len(CLIP_KINDS)])
        clips.setdefault(clip.scene.things[0].kind, clip)
        seed += 1
    return tuple(clips.values())


BENCHMARK_CLIPS = _benchmark(8)
"""Eight clips for evaluation."""


def render_clip(
    clip: Clip, *, size: int = 128, supersample: int = 2, device: str | torch.device = "cpu"
) -> ClipRendering:
    """The frames of a clip (F, 3, size, size) with opacity and flow.

    Opacity comes from the picture's own rays; flow from one ray through the middle of each pixel, so at the
    rim of a thing it belongs to what lies in the middle of the pixel.
    """
    poses = clip.poses
    scenes = [clip.scene] * len(poses)
    pictures = render(scenes, size=size, supersample=supersample, device=device, poses=poses)
    middle = render(scenes, size=size, supersample=1, device=device, poses=poses)
    return ClipRendering(
        pixels=pictures.pixels,
        opacity=pictures.masks,
        forward=_flow(middle, poses, slice(None, -1), slice(1, None)),
        backward=_flow(middle, poses, slice(1, None), slice(None, -1)),
    )


def _flow(seen: Rendering, poses: Sequence[Pose], source: slice, other: slice) -> Flow:
    """Flow between frames, from a rendering with one ray a pixel."""
    count, _, size, _ = seen.pixels.shape
    device = seen.depth.device
    centres = grid(size, device)  # (1, 2, N)
    points = _points(seen, centres)[source]  # (F - 1, 3, N)
    bodies = seen.masks.flatten(2)  # (F, 2, N)
    moves = torch.tensor([[_move(pose, index) for index in range(2)] for pose in poses], device=device)
    shift = moves[other] - moves[source]  # (F - 1, 2, 3)
    points = points + torch.einsum("fbn,fbc->fcn", bodies[source], shift)
    target, _ = _camera(seen.camera, other).project(points)  # (F - 1, 2, N)
    offset = (target - centres) * (size / 2)
    distance = (points - seen.camera.origin[other][..., None]).square().sum(1).sqrt()
    visible = _is_seen(seen, other, target, distance, bodies[source])
    return Flow(offset.view(count - 1, 2, size, size), visible.view(count - 1, size, size))


def _points(seen: Rendering, centres: Tensor) -> Tensor:
    """What each pixel shows, in the world (F, 3, N)."""
    rays = seen.camera.directions(centres)
    return seen.camera.origin[..., None] + rays * seen.depth.flatten(1)[:, None]


def _is_seen(seen: Rendering, other: slice, target: Tensor, distance: Tensor, bodies: Tensor) -> Tensor:
    """Whether the pixel of the other frame at `target` (F, 2, N) shows the same body at the same distance."""
    size = seen.depth.shape[-1]
    column, row = ((target + 1.0) * (size / 2) - 0.5).round().long().unbind(1)  # (F, N)
    inside = (column >= 0) & (column < size) & (row >= 0) & (row < size)
    index = (row.clamp(0, size - 1) * size + column.clamp(0, size - 1)).clamp(0, size * size - 1)
    there = seen.depth[other].flatten(1).gather(1, index)
    bodies_there = seen.masks[other].flatten(2).gather(2, index[:, None].expand(-1, 2, -1))
    same_body = (bodies_there == bodies).all(dim=1)
    return inside & same_body & ((there - distance).abs() <= SAME_DISTANCE * distance)


def _camera(seen: Camera, frames: slice) -> Camera:
    return Camera(seen.origin[frames], seen.axes[frames])


def _move(pose: Pose, index: int) -> tuple[float, float, float]:
    return pose.moves[index] if index < len(pose.moves) else (0.0, 0.0, 0.0)
