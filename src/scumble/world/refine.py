"""One ray a pixel, and more where the picture has an edge: what pixels show."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, max_pool2d

from scumble.world.march import MISS, compact, put, take
from scumble.world.shade import Known, Reach, Samples, approached, see
from scumble.world.stage import Stage
from scumble.world.tone import tone

__all__ = ["BLOCK", "GREEN_SCREEN", "MARGIN", "Pixels", "grid", "pixels"]

GREEN_SCREEN = (0.0, 177.0 / 255.0, 64.0 / 255.0)
"""sRGB of the place without ground and sky."""
MARGIN = 0.06
"""How much nearer or further than in its neighbours a thing may be in a pixel with an edge."""
BLOCK = 4
"""Side of the blocks of pixels that one cone goes before."""


@dataclass(frozen=True, slots=True)
class Pixels:
    """Values of P pixels of S pictures."""

    colour: Tensor
    """(S, 3, P) sRGB in [0, 1]."""
    masks: Tensor
    """(S, 2, P) share of the pixel in [0, 1] that each thing covers."""
    depth: Tensor
    """(S, P) length of the shortest ray."""
    centre: Samples
    """What the rays through the middles of the pixels see."""


def grid(size: int, device: torch.device) -> Tensor:
    """Centres of size x size pixels (1, 2, size * size), x right and y down in [-1, 1]."""
    line = (torch.arange(size, device=device) + 0.5) / size * 2.0 - 1.0
    y, x = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([x.flatten(), y.flatten()])[None]


def pixels(stage: Stage, size: int, supersample: int) -> Pixels:
    """Pictures of size x size pixels from one ray a pixel, or supersample^2 where solids have an edge.

    Beside a thing, pixels of which it covers nothing keep the colour of their one ray, so that what lies
    about a thing does not depend on its shape."""
    device = stage.light.device
    centres = grid(size, device).expand(len(stage.light), -1, -1)
    pitch = 2.0 * stage.camera.slope / size
    first = see(stage, stage.camera.directions(centres), pitch, _far_reach(stage, size, pitch))
    coarse = Pixels(_toned(stage, first), _coverage(first), first.depth, first)
    index, valid = compact(_edges(first, size))
    if supersample == 1 or index.shape[1] == 0:
        return coarse
    count = supersample * supersample
    parts = (take(centres, index)[..., None] + _offsets(size, supersample, device)).flatten(
        2
    )  # (S, 2, n count)
    spread = index.repeat_interleave(count, dim=1)
    reach, known = _near_reach(first, size), _known(first, size)
    fine = see(
        stage,
        stage.camera.directions(parts),
        pitch / supersample,
        Reach(take(reach.since, spread), take(reach.until, spread)),
        Known(take(known.sunlight, spread), take(known.openness, spread)),
    )
    masks = _pooled(_coverage(fine), count)
    valid = valid & ((masks.sum(1) > 0.0) | (take(reach.since, index) == 0.0))
    return Pixels(
        put(coarse.colour, index, valid, _pooled(_toned(stage, fine), count)),
        put(coarse.masks, index, valid, masks),
        put(coarse.depth, index, valid, fine.depth.view(len(index), -1, count).amin(2)),
        first,
    )


def _toned(stage: Stage, samples: Samples) -> Tensor:
    """sRGB of samples (S, 3, N); the green screen is not lit and so not exposed."""
    colour = tone(samples.colour)
    if stage.place != "green screen":
        return colour
    green = torch.tensor(GREEN_SCREEN, device=colour.device)[:, None]
    return torch.where((samples.body < 0)[:, None], green, colour)


def _pooled(values: Tensor, count: int) -> Tensor:
    """(S, C, n count) -> (S, C, n)."""
    return values.view(values.shape[0], values.shape[1], -1, count).mean(3)


def _coverage(samples: Samples) -> Tensor:
    return torch.stack([samples.body == 0, samples.body == 1], dim=1).float()


def _offsets(size: int, supersample: int, device: torch.device) -> Tensor:
    """(2, 1, supersample^2): from a pixel's centre to those of its parts."""
    line = ((torch.arange(supersample, device=device) + 0.5) / supersample - 0.5) * (2.0 / size)
    y, x = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([x.flatten(), y.flatten()])[:, None]


def _far_reach(stage: Stage, size: int, pitch: float) -> Reach:
    """Where rays through pixels may meet things: not before the cone round their block of pixels does."""
    device, count = stage.light.device, len(stage.light)
    if size % BLOCK:
        since = torch.zeros(count, size * size, device=device)
    else:
        side = size // BLOCK
        rays = stage.camera.directions(grid(side, device).expand(count, -1, -1))
        coarse = approached(stage, rays, pitch * BLOCK * math.sqrt(0.5)).view(count, side, side)
        since = coarse.repeat_interleave(BLOCK, 1).repeat_interleave(BLOCK, 2).flatten(1)
    return Reach(since, torch.full_like(since, MISS))


def _near_reach(samples: Samples, size: int) -> Reach:
    """Where parts of pixels may meet things: near where the 3 x 3 pixels about them do, or anywhere."""
    count = len(samples.body)
    hit = (samples.body >= 0).view(count, 1, size, size)
    depth = samples.depth.view(count, 1, size, size)
    least = -max_pool2d(torch.where(hit, -depth, -MISS), 3, stride=1, padding=1).flatten(1)
    most = max_pool2d(torch.where(hit, depth, 0.0), 3, stride=1, padding=1).flatten(1)
    alone = least >= MISS
    return Reach(torch.where(alone, 0.0, least - MARGIN), torch.where(alone, MISS, most + MARGIN))


def _known(samples: Samples, size: int) -> Known:
    """Soft light for the parts of pixels: that of the 3 x 3 pixels about them that show the same."""
    count = len(samples.body)
    kinds = torch.stack([samples.body == kind for kind in (-1, 0, 1)], dim=1).float()  # (S, 3, P)
    share = _neighbourly(kinds.view(count, 3, size, size))

    def pooled(values: Tensor) -> Tensor:
        near = _neighbourly((kinds * values[:, None]).view(count, 3, size, size))
        return torch.where(share == 0.0, 1.0, near / share.clamp(min=1e-6)).flatten(2)

    return Known(pooled(samples.sunlight), pooled(samples.openness))


def _neighbourly(values: Tensor) -> Tensor:
    return avg_pool2d(values, 3, stride=1, padding=1)


def _edges(samples: Samples, size: int) -> Tensor:
    """Pixels (S, P) that differ from a neighbour in the body seen, in depth or in the way the surface faces.

    Colour plays no part, so that scenes that differ in colour alone are sampled alike."""
    count = len(samples.body)
    body = samples.body.clamp(min=-1).view(count, size, size)
    depth = samples.depth.clamp(max=60.0).view(count, size, size)
    normal = samples.normal.view(count, 3, size, size)
    edge = torch.zeros_like(body, dtype=torch.bool)
    for axis in (1, 2):
        n = size - 1
        one, two = depth.narrow(axis, 0, n), depth.narrow(axis, 1, n)
        bodies = body.narrow(axis, 0, n), body.narrow(axis, 1, n)
        step = (one - two).abs() / torch.minimum(one, two)
        bend = (normal.narrow(axis + 1, 0, n) * normal.narrow(axis + 1, 1, n)).sum(1) < 0.82
        within = (bodies[0] >= 0) & ((step > 0.015) | bend)
        behind = (step > 0.12) & (torch.maximum(one, two) > 25.0)
        differs = (bodies[0] != bodies[1]) | within | behind
        edge.narrow(axis, 0, n).logical_or_(differs)
        edge.narrow(axis, 1, n).logical_or_(differs)
    return edge.flatten(1)
