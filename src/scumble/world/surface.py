"""What surface points are painted with: colours of parts, patterns, marks and snow."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from scumble.world.build import Bodies
from scumble.world.field import exposed
from scumble.world.marks import MARK_RADIUS, MARK_SHAPES, mark_distance
from scumble.world.places import column, mix, smooth

__all__ = ["CELLS", "DOTS", "STRIPES", "surface_paint"]

CELLS = 5.4
"""Squares of a checkered pattern in the height of a medium thing."""
STRIPES = 5.6
DOTS = 5.2


def surface_paint(layer: Bodies, points: Tensor, field: Tensor, width: Tensor) -> Tensor:
    """Paint (T, 9, n) at surface points, blended over a pixel where parts meet, patterns applied."""
    weights = torch.softmax(-exposed(layer.solid, points) / (0.45 * width[:, None]), dim=1)
    paint = layer.paint.transpose(1, 2) @ weights
    if bool((layer.pattern > 0).any()):
        paint = _patterned(layer, points, field, width, paint)
    if bool((layer.mark > 0).any()):
        paint = _marked(layer, points, field, width, paint)
    if bool((layer.snow > 0.0).any()):
        paint = _snowed(layer, points, field, paint)
    return paint


def _patterned(layer: Bodies, points: Tensor, field: Tensor, width: Tensor, paint: Tensor) -> Tensor:
    """Paint with each body's pattern: see `materials.PATTERNS`."""
    share = _second_share(layer, points, field, width) * paint[:, 3]
    plain = mix(paint[:, :3], layer.pattern_colour[..., None], share)
    wood = _wood(points, paint[:, :3], paint[:, 3])
    wooden = (layer.pattern == 1)[:, None, None]
    return torch.cat([torch.where(wooden, wood, plain), paint[:, 3:]], dim=1)


def _marked(layer: Bodies, points: Tensor, field: Tensor, width: Tensor, paint: Tensor) -> Tensor:
    """Paint with the mark on what faces the front."""
    u = (points[:, 0] - layer.mark_at[:, :1]) / MARK_RADIUS
    v = (points[:, 1] - layer.mark_at[:, 1:2]) / MARK_RADIUS
    away = torch.ones_like(u)
    for number in range(1, len(MARK_SHAPES) + 1):
        away = torch.where((layer.mark == number)[:, None], mark_distance(number, u, v), away)
    inside = smooth(0.0, 1.0, 0.5 - away * MARK_RADIUS / width) * smooth(0.05, 0.2, field[:, 2])
    inside = inside * (points[:, 2] > 0)
    return torch.cat([mix(paint[:, :3], layer.mark_colour[..., None], inside), paint[:, 3:]], dim=1)


def _snowed(layer: Bodies, points: Tensor, field: Tensor, paint: Tensor) -> Tensor:
    """Paint with snow on what faces up, with a ragged edge."""
    x, y, z = points.unbind(1)
    ragged = 0.10 * torch.sin(x * 31.0 + 2.0 * torch.sin(y * 17.0)) * torch.sin(z * 27.0 + 2.0)
    inside = smooth(0.34, 0.44, field[:, 1] + ragged) * layer.snow[:, None]
    snow = torch.zeros_like(paint[:1, :, :1])
    snow[:, :3] = column((0.97, 0.98, 1.0), points)
    snow[:, 6] = 20.0  # gloss: broad and, without specular, not seen
    return mix(paint, snow, inside)


def _wood(points: Tensor, colour: Tensor, share: Tensor) -> Tensor:
    """The colour with the rings of a plank cut out of a log, warmed a little."""
    x, y, z = points.unbind(1)
    rings = ((x - 0.17).square() + (0.9 * z + 0.55 + 0.10 * torch.sin(y * 5.0)).square()).sqrt()
    wave = torch.sin(rings * 78.0 + 1.3 * torch.sin(y * 7.0 + x * 3.0)) * 0.5 + 0.5
    fine = torch.sin(rings * 260.0) * 0.5 + 0.5
    dark = (0.55 * wave.square() + 0.12 * fine) * share
    tan = column((0.72, 0.50, 0.28), points)
    warm = mix(colour, tan, 0.16 * share)
    return warm * (1.0 - dark)[:, None]


def _second_share(layer: Bodies, points: Tensor, field: Tensor, width: Tensor) -> Tensor:
    """How much of the pattern's second colour shows, (T, n) in [0, 1]; edges as soft as a pixel is wide."""
    kind = layer.pattern[:, None]
    x, y, z = points.unbind(1)
    across = (y * STRIPES - (y * STRIPES).floor() - 0.5).abs()
    stripes = smooth(0.0, 1.0, (across - 0.25) / (width * STRIPES) + 0.5)
    waves = [
        torch.sin(a * CELLS * math.pi + phase) for a, phase in ((x, math.pi / 2), (y, 0.4), (z, math.pi / 2))
    ]
    signs = [(wave / (width * CELLS * math.pi)).clamp(-1.0, 1.0) for wave in waves]
    checks = 0.5 + 0.5 * signs[0] * signs[1] * signs[2]
    dots = _dots(points, field, width)
    return torch.where(kind == 2, stripes, torch.where(kind == 3, dots, torch.where(kind == 4, checks, 0.0)))


def _dots(points: Tensor, field: Tensor, soft: Tensor) -> Tensor:
    """Dots on the plane that the surface faces most."""
    axis = field.abs().argmax(1, keepdim=True)
    x, y, z = points.unbind(1)
    u = torch.where(axis[:, 0] == 0, z, x) * DOTS
    v = torch.where(axis[:, 0] == 1, z, y) * DOTS
    row = v.floor()
    u = u + 0.5 * (row - 2.0 * (row / 2.0).floor())
    away = ((u - u.floor() - 0.5).square() + (v - row - 0.5).square()).sqrt()
    return smooth(0.0, 1.0, (0.31 - away) / (soft * DOTS) + 0.5)
