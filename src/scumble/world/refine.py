"""One ray a pixel, and more where the picture has an edge: what pixels show."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, max_pool2d

from scumble.world.march import MISS, compact, put, take
from scumble.world.shade import Known, Samples, see
from scumble.world.stage import Stage
from scumble.world.tone import tone

GREEN_SCREEN = (0.0, 177.0 / 255.0, 64.0 / 255.0)
"""sRGB of the place without ground and sky."""
MARGIN = 0.06
"""How much nearer than its neighbours a thing may be in a pixel with an edge."""


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
    first = see(stage, stage.camera.directions(centres), pitch)
    coarse = Pixels(_toned(stage, first), _coverage(first), first.depth, first)
    index, valid = compact(_edges(first, size))
    if supersample == 1 or index.shape[1] == 0:
        return coarse
    count = supersample * supersample
    parts = (take(centres, index)[..., None] + _offsets(size, supersample, device)).flatten(
        2
    )  # (S, 2, n count)
    known = _known(first, size)
    spread = index.repeat_interleave(count, dim=1)
    own = Known(take(known.since, spread), take(known.sunlight, spread), take(known.openness, spread))
    fine = see(stage, stage.camera.directions(parts), pitch / supersample, own)
    masks = _pooled(_coverage(fine), count)
    valid = valid & ((masks.sum(1) > 0.0) | (take(known.since, index) == 0.0))
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


def _known(samples: Samples, size: int) -> Known:
    """What the parts of pixels take over from the 3 x 3 pixels about them: soft light, and a length before
    which they meet no thing."""
    count = len(samples.body)
    near = torch.where(samples.body >= 0, -samples.depth, -MISS).view(count, 1, size, size)
    least = -max_pool2d(near, 3, stride=1, padding=1).flatten(1)
    kinds = torch.stack([samples.body == kind for kind in (-1, 0, 1)], dim=1).float()  # (S, 3, P)
    share = _neighbourly(kinds.view(count, 3, size, size))
    light = _neighbourly((kinds * samples.sunlight[:, None]).view(count, 3, size, size)) / share.clamp(
        min=1e-6
    )
    openness = _neighbourly((kinds * samples.openness[:, None]).view(count, 3, size, size)) / share.clamp(
        min=1e-6
    )
    alone = share == 0.0
    return Known(
        torch.where(least < MISS, least - MARGIN, 0.0),
        torch.where(alone, 1.0, light).flatten(2),
        torch.where(alone, 1.0, openness).flatten(2),
    )


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
