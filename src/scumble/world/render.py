"""Pictures of scenes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scumble.core.rng import derive, generators, randn
from scumble.world.camera import Camera, Pose
from scumble.world.effects import lay, veils
from scumble.world.refine import Pixels, grid, pixels
from scumble.world.scene import Scene
from scumble.world.stage import Stage, stage
from scumble.world.styles import Sheet, outlines, restyle
from scumble.world.vocabulary import check_scene

__all__ = ["CHUNKS", "Camera", "Pose", "Rendering", "grid", "render"]

CHUNKS = {"cpu": 1}
"""Scenes rendered together. On a processor one, so that not a bit of a picture depends on its batch."""


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
    most = CHUNKS.get(device.type, 64)
    chunks: list[list[int]] = []
    for place in dict.fromkeys(scene.place for scene in scenes):
        rows = [row for row, scene in enumerate(scenes) if scene.place == place]
        chunks += [rows[start : start + most] for start in range(0, len(rows), most)]
    done = [
        _chunk([scenes[r] for r in rows], [poses[r] for r in rows], size, supersample, device)
        for rows in chunks
    ]
    order = torch.tensor([row for rows in chunks for row in rows], device=device).argsort()
    return Rendering(
        torch.cat([part.pixels for part in done])[order],
        torch.cat([part.masks for part in done])[order],
        torch.cat([part.depth for part in done])[order],
        Camera(
            torch.cat([part.camera.origin for part in done])[order],
            torch.cat([part.camera.axes for part in done])[order],
        ),
    )


def _chunk(
    scenes: Sequence[Scene], poses: Sequence[Pose], size: int, supersample: int, device: torch.device
) -> Rendering:
    """Pictures of scenes of one place."""
    view = stage(scenes, poses, device)
    seen = pixels(view, size, supersample)
    colour, masks = _veiled(view, seen, size)
    return Rendering(
        _restyled(scenes, colour.view(-1, 3, size, size), seen, size),
        masks.view(-1, 2, size, size),
        seen.depth.view(-1, size, size),
        view.camera,
    )


def _veiled(view: Stage, seen: Pixels, size: int) -> tuple[Tensor, Tensor]:
    """Pixels and masks with halos and smoke."""
    if not any(placed.thing.effect in ("glowing", "smoking") for things in view.things for placed in things):
        return seen.colour, seen.masks
    rays = view.camera.directions(grid(size, seen.depth.device))
    rows = [
        lay(seen.colour[i], seen.masks[i], veils(view, i, rays[i], seen.depth[i], seen.masks[i], size))
        for i in range(len(view.things))
    ]
    return torch.stack([row[0] for row in rows]), torch.stack([row[1] for row in rows])


def _restyled(scenes: Sequence[Scene], photos: Tensor, seen: Pixels, size: int) -> Tensor:
    """Photos (S, 3, H, W) in the scenes' styles."""
    if all(scene.style == "photo" for scene in scenes):
        return photos
    centre = seen.centre
    body, depth = (v.view(-1, size, size) for v in (centre.body.clamp(min=-1), centre.depth))
    outline = outlines(body, depth, centre.normal.view(-1, 3, size, size))
    grain = randn((2, size, size), generators(derive(s.seed, "grain") for s in scenes), device=photos.device)
    rows = [slice(i, i + 1) for i in range(len(scenes))]
    sheets = [Sheet(photos[row], outline[row], grain[row]) for row in rows]
    return torch.cat([restyle(scene.style, sheet) for scene, sheet in zip(scenes, sheets, strict=True)])
