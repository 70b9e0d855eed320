"""Pictures of scenes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scumble.world.camera import Camera, Pose
from scumble.world.march import MISS
from scumble.world.scene import Scene
from scumble.world.shade import Samples, see
from scumble.world.stage import stage

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
    view = stage(scenes, poses, device)
    fine = size * supersample
    rays = view.camera.directions(grid(fine, device))
    samples = see(view, rays, 2.0 * view.camera.slope / fine)
    return _average(samples, view.camera, len(scenes), size, supersample)


def _average(samples: Samples, seen: Camera, count: int, size: int, supersample: int) -> Rendering:
    def box(values: Tensor) -> Tensor:
        shaped = values.view(count, -1, size, supersample, size, supersample)
        return shaped.mean(dim=(3, 5))

    masks = torch.stack([samples.body == 0, samples.body == 1], dim=1).float()
    return Rendering(box(tone(samples.colour)), box(masks), box(samples.depth.clamp(max=MISS))[:, 0], seen)
