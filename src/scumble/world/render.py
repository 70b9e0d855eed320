"""Pictures of scenes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from scumble.core.rng import derive, generators, randn
from scumble.world.camera import Camera, Pose
from scumble.world.effects import lay, veils
from scumble.world.march import MISS, compact, put, take
from scumble.world.scene import Scene
from scumble.world.shade import Samples, see
from scumble.world.stage import Stage, stage
from scumble.world.styles import Sheet, outlines, restyle
from scumble.world.vocabulary import check_scene

EXPOSURE = 0.92
SHOULDER = 0.70


@dataclass(frozen=True, slots=True)
class Rendering:
    """B pictures and what is known of each pixel."""

    pixels: Tensor
    """(B, 3, H, W) sRGB in [0, 1]."""
    masks: Tensor
    """(B, 2, H, W) share of the pixel in [0, 1] that each thing covers, with what it wears and its effect."""
    depth: Tensor
    """(B, H, W) mean length of the pixel's rays, in heights of a medium thing; 10000 for the sky."""
    camera: Camera


def tone(light: Tensor) -> Tensor:
    """Linear light to sRGB in [0, 1], with a shoulder so that bright colours keep their hue a while."""
    x = light * EXPOSURE
    x = torch.where(
        x > SHOULDER, SHOULDER + (1.0 - SHOULDER) * (1.0 - torch.exp(-(x - SHOULDER) / (1.0 - SHOULDER))), x
    )
    return encode(x)


def encode(x: Tensor) -> Tensor:
    """Linear light to sRGB (IEC 61966-2-1)."""
    return torch.where(x <= 0.0031308, 12.92 * x, 1.055 * x.clamp(min=0.0031308) ** (1 / 2.4) - 0.055).clamp(
        0.0, 1.0
    )


def grid(size: int, device: torch.device) -> Tensor:
    """Centres of size x size pixels (1, 2, size * size), x right and y down in [-1, 1]."""
    line = (torch.arange(size, device=device) + 0.5) / size * 2.0 - 1.0
    y, x = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([x.flatten(), y.flatten()])[None]


def render(
    scenes: Sequence[Scene],
    *,
    size: int = 128,
    supersample: int = 2,
    device: str | torch.device = "cpu",
    poses: Sequence[Pose] | None = None,
) -> Rendering:
    """Pictures of scenes, `size` x `size` pixels, from `supersample`^2 rays a pixel.

    The same scene gives the same picture, whatever else is in the batch.
    """
    for scene in scenes:
        check_scene(scene)
    device = torch.device(device)
    poses = [Pose()] * len(scenes) if poses is None else list(poses)
    parts: list[Rendering | None] = [None] * len(scenes)
    for i, (scene, pose) in enumerate(zip(scenes, poses, strict=True)):
        parts[i] = _chunk([scene], [pose], size, supersample, device)
    done = [p for p in parts if p is not None]
    return Rendering(
        torch.cat([p.pixels for p in done]),
        torch.cat([p.masks for p in done]),
        torch.cat([p.depth for p in done]),
        Camera(torch.cat([p.camera.origin for p in done]), torch.cat([p.camera.axes for p in done])),
    )


def _chunk(
    scenes: Sequence[Scene], poses: Sequence[Pose], size: int, supersample: int, device: torch.device
) -> Rendering:
    """Scenes of one place: one ray a pixel, then supersample^2 where the picture of the solids has an edge."""
    view = stage(scenes, poses, device)
    centres = grid(size, device)
    first = see(view, view.camera.directions(centres), 2.0 * view.camera.slope / size)
    samples = _Pixels(tone(first.colour), _coverage(first), first.depth)
    index, valid = compact(_edges(first, size))
    if supersample > 1 and index.shape[1]:
        points = take(centres.expand(len(scenes), -1, -1), index)
        fine = (points[..., None] + _offsets(size, supersample, device)).flatten(2)  # (S, 2, n supersample^2)
        count = supersample * supersample
        since = take(_since(first.depth, first.body, size), index).repeat_interleave(count, dim=1)
        second = see(
            view, view.camera.directions(fine), 2.0 * view.camera.slope / (size * supersample), since
        )
        samples = _Pixels(
            put(samples.pixels, index, valid, tone(second.colour).unflatten(2, (-1, count)).mean(3)),
            put(samples.masks, index, valid, _coverage(second).unflatten(2, (-1, count)).mean(3)),
            put(samples.depth, index, valid, second.depth.unflatten(1, (-1, count)).amin(2)),
        )
    pixels, masks = _veiled(view, samples, view.camera.directions(centres), size)
    pixels = _restyled(scenes, pixels.unflatten(2, (size, size)), first, size)
    return Rendering(
        pixels, masks.unflatten(2, (size, size)), samples.depth.unflatten(1, (size, size)), view.camera
    )


def _veiled(view: Stage, samples: _Pixels, rays: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Pixels and masks with halos and smoke."""
    rows: list[tuple[Tensor, Tensor]] = []
    for i, things in enumerate(view.things):
        seen = Camera(view.camera.origin[i : i + 1], view.camera.axes[i : i + 1])
        over = veils(
            things,
            view.times[i],
            seen,
            rays[i : i + 1],
            samples.depth[i],
            samples.masks[i],
            view.light[i],
            size,
        )
        rows.append(lay(samples.pixels[i], samples.masks[i], over))
    return torch.stack([row[0] for row in rows]), torch.stack([row[1] for row in rows])


def _restyled(scenes: Sequence[Scene], pixels: Tensor, first: Samples, size: int) -> Tensor:
    if all(scene.style == "photo" for scene in scenes):
        return pixels
    body = first.body.unflatten(1, (size, size))
    outline = outlines(body, first.depth.unflatten(1, (size, size)), first.normal.unflatten(2, (size, size)))
    grain = randn((2, size, size), generators(derive(s.seed, "grain") for s in scenes), device=pixels.device)
    done = [
        restyle(scene.style, Sheet(pixels[i : i + 1], outline[i : i + 1], grain[i : i + 1]))
        for i, scene in enumerate(scenes)
    ]
    return torch.cat(done)


def _since(depth: Tensor, body: Tensor, size: int) -> Tensor:
    """A ray length (S, P) before which the rays of a pixel meet no thing: that of its nearest neighbour on a thing,
    less a margin; 0 where no neighbour is on one."""
    near = torch.where(body >= 0, -depth, -MISS).unflatten(1, (size, size))
    least = -F.max_pool2d(near[:, None], 3, stride=1, padding=1).flatten(1)
    return torch.where(least < MISS, least - 0.06, 0.0)


class _Pixels(NamedTuple):
    """Values of flat pixels: (S, 3, P) sRGB, (S, 2, P) coverage, (S, P) depth."""

    pixels: Tensor
    masks: Tensor
    depth: Tensor


def _coverage(samples: Samples) -> Tensor:
    return torch.stack([samples.body == 0, samples.body == 1], dim=1).float()


def _offsets(size: int, supersample: int, device: torch.device) -> Tensor:
    """(2, 1, supersample^2): from a pixel's centre to those of its parts."""
    line = ((torch.arange(supersample, device=device) + 0.5) / supersample - 0.5) * (2.0 / size)
    y, x = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([x.flatten(), y.flatten()])[:, None]


def _edges(samples: Samples, size: int) -> Tensor:
    """Pixels (S, P) that differ from a neighbour in the body seen, in depth or in the way the surface faces.

    Colour plays no part, so that scenes that differ in colour alone are sampled alike."""
    body = samples.body.unflatten(1, (size, size))
    depth = samples.depth.clamp(max=60.0).unflatten(1, (size, size))
    normal = samples.normal.unflatten(2, (size, size))
    edge = torch.zeros_like(body, dtype=torch.bool)
    for axis in (1, 2):
        n = size - 1
        one, two = depth.narrow(axis, 0, n), depth.narrow(axis, 1, n)
        jump = (one - two).abs() > 0.12 * torch.minimum(one, two)
        other = body.narrow(axis, 0, n) != body.narrow(axis, 1, n)
        solid = (body.narrow(axis, 0, n) >= 0) & ~other
        near = (one - two).abs() > 0.015 * torch.minimum(one, two)
        bend = (normal.narrow(axis + 1, 0, n) * normal.narrow(axis + 1, 1, n)).sum(1) < 0.82
        differs = other | (solid & (near | bend)) | (jump & (torch.maximum(one, two) > 25.0))
        edge.narrow(axis, 0, n).logical_or_(differs)
        edge.narrow(axis, 1, n).logical_or_(differs)
    return edge.flatten(1)
