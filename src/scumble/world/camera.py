"""The camera, and how a clip moves it: everything needed to carry a pixel of one frame into another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scumble.world.solid import Vec3

__all__ = ["DISTANCE", "HALF_ANGLE", "Camera", "Pose", "camera"]

HALF_ANGLE = 18.5
"""Half the field of view, in degrees."""
DISTANCE = 3.0
"""From the camera to what it looks at, in heights of a medium thing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pose:
    """A frame of a clip: what differs from the still picture of the scene."""

    orbit: float = 0.0
    """Degrees that the camera goes round to the right."""
    rise: float = 0.0
    """Degrees that the camera rises."""
    moves: tuple[Vec3, ...] = ()
    """World offset of each thing: right, up, towards the camera; things past the end stay."""
    turns: tuple[float, ...] = ()
    """Degrees that each thing turns about y; things past the end stay."""


@dataclass(frozen=True, slots=True)
class Camera:
    """B pinhole cameras. World: y up, the ground at y = 0, +z towards the unturned camera."""

    origin: Tensor
    """(B, 3)"""
    axes: Tensor
    """(B, 3, 3): columns right, up and forwards."""
    slope: float = math.tan(math.radians(HALF_ANGLE))
    """Tangent of half the field of view."""

    def directions(self, grid: Tensor) -> Tensor:
        """Unit directions (B, 3, N) through picture points `grid` (B or 1, 2, N): x right, y down in ±1."""
        x, y = grid[:, 0] * self.slope, -grid[:, 1] * self.slope
        local = torch.stack([x, y, torch.ones_like(x)], dim=1)  # (B, 3, N)
        return self.axes @ (local / local.square().sum(1, keepdim=True).sqrt())

    def project(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """World points (B, 3, ...) to picture points (B, 2, ...), x right, y down in ±1, and depth (B, ...)
        along the camera's axis, negative behind it."""
        flat = points.flatten(2) - self.origin[..., None]
        right, up, depth = (self.axes.transpose(1, 2) @ flat).unbind(1)
        scale = 1.0 / (depth.clamp(min=1e-6) * self.slope)
        grid = torch.stack([right * scale, -up * scale], dim=1)
        return grid.view(points.shape[0], 2, *points.shape[2:]), depth.view(
            points.shape[0], *points.shape[2:]
        )


def camera(views: Sequence[tuple[Vec3, float, float, float]]) -> Camera:
    """Cameras from (target, azimuth, elevation, distance), angles in degrees; azimuth 0 looks along -z."""
    origins: list[list[float]] = []
    axes: list[list[list[float]]] = []
    for target, azimuth, elevation, distance in views:
        a, e = math.radians(azimuth), math.radians(elevation)
        back = (math.sin(a) * math.cos(e), math.sin(e), math.cos(a) * math.cos(e))
        right = (math.cos(a), 0.0, -math.sin(a))
        up = (-math.sin(a) * math.sin(e), math.cos(e), -math.cos(a) * math.sin(e))
        origins.append([t + distance * b for t, b in zip(target, back, strict=True)])
        axes.append([[r, u, -b] for r, u, b in zip(right, up, back, strict=True)])
    return Camera(torch.tensor(origins), torch.tensor(axes))
