"""Marks painted on bodies, as signed distances in the plane: negative inside."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["MARK_RADIUS", "MARK_SHAPES", "mark_distance"]

MARK_SHAPES = ("star", "heart", "ring", "zigzag")
"""The marks; a body's mark is its place here plus one, 0 for none."""
MARK_RADIUS = 0.155
"""Half the width of a mark, in heights of a medium thing: 20 pixels across at 128."""


def mark_distance(mark: int, u: Tensor, v: Tensor) -> Tensor:
    """Distance to the mark's outline at (u, v), in radii of the mark, v upwards."""
    return (_star, _heart, _ring, _zigzag)[mark - 1](u, v)


def _star(u: Tensor, v: Tensor) -> Tensor:
    inner, tip = 0.46, math.radians(36.0)
    turn = torch.atan2(u, v)
    angle = (
        turn - 2 * tip * torch.floor(turn / (2 * tip) + 0.5)
    ).abs()  # from the nearest tip, in [0, 36] degrees
    s, c = inner * math.sin(tip), inner * math.cos(tip)
    outline = s / (s * torch.cos(angle) + (1.0 - c) * torch.sin(angle))
    return ((u.square() + v.square()).sqrt() - outline) * 0.55


def _heart(u: Tensor, v: Tensor) -> Tensor:
    lifted = v * 1.05 + 0.22 - 0.62 * u.abs().clamp(min=1e-4).sqrt()
    return ((u.square() + lifted.square()).sqrt() - 0.86) * 0.7


def _ring(u: Tensor, v: Tensor) -> Tensor:
    return ((u.square() + v.square()).sqrt() - 0.70).abs() - 0.24


def _zigzag(u: Tensor, v: Tensor) -> Tensor:
    phase = u * 1.5 + 0.25
    wave = ((phase - phase.floor() - 0.5).abs() * 4.0 - 1.0) * 0.42
    return torch.maximum((v - wave).abs() * 0.45 - 0.13, u.abs() - 1.0)
