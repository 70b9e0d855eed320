"""What floats about things: the halo of glowing ones and the smoke of smoking ones, laid over the picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

from scumble.world.build import Placed
from scumble.world.materials import glow
from scumble.world.places import LIGHTS, smooth
from scumble.world.stage import Stage
from scumble.world.tone import encode

__all__ = ["HALO", "PUFFS", "Veil", "halo", "lay", "smoke", "veils"]

HALO = 0.105
"""Width of a halo, as a share of the picture."""
PUFFS = (
    (0.00, 0.06, 0.085),
    (-0.05, 0.17, 0.115),
    (0.05, 0.29, 0.14),
    (-0.03, 0.43, 0.165),
    (0.08, 0.57, 0.17),
)
"""Each puff of smoke: right, up, radius, from the top of the thing, lowest first."""


@dataclass(frozen=True, slots=True)
class Veil:
    """Something half transparent over a picture."""

    colour: Tensor
    """(3, P) sRGB."""
    share: Tensor
    """(P,) how much of the picture it hides."""


def halo(thing: Placed, mask: Tensor, size: int) -> Veil:
    """The halo round a thing that covers `mask` (P,)."""
    sigma = HALO * size / 2.0
    reach = max(1, round(2.5 * sigma))
    line = torch.arange(-reach, reach + 1, device=mask.device, dtype=mask.dtype)
    weights = torch.exp(-line.square() / (2.0 * sigma * sigma))
    weights = weights / weights.sum()
    image = mask.view(1, 1, size, size)
    image = conv2d(pad(image, (reach, reach, 0, 0)), weights.view(1, 1, 1, -1))
    image = conv2d(pad(image, (0, 0, reach, reach)), weights.view(1, 1, -1, 1))
    share = (1.35 * image.flatten() - 0.03).clamp(0.0, 0.9) * (1.0 - mask)
    colour = encode(torch.tensor(glow(thing.thing), device=mask.device))
    return Veil(colour[:, None].expand(3, mask.shape[0]), share)


def smoke(thing: Placed, stage: Stage, row: int, rays: Tensor, depth: Tensor) -> list[Veil]:
    """The puffs over a smoking thing, the lowest first: rays (3, P), depth (P,) of what is there."""
    top, grow = thing.shape.high[1] * thing.scale, 0.72 + 0.28 * thing.scale
    light, sky = stage.light[row], LIGHTS[stage.times[row]]
    bright = [s * 0.62 + k * 0.8 + f for s, k, f in zip(sky.sun, sky.sky, sky.fill, strict=True)]
    grey = 0.62 * torch.tensor(bright, device=depth.device)[:, None]
    found: list[Veil] = []
    for right, up, radius in PUFFS:
        centre = torch.tensor([thing.at[0] + right * grow, thing.at[1] + top + up * grow, thing.at[2]])
        away = centre.to(depth.device) - stage.camera.origin[row]
        along = (rays * away[:, None]).sum(0)
        offset = (rays * along - away[:, None]) / (radius * grow)
        share = 0.80 * smooth(1.0, 0.62, offset.square().sum(0).sqrt()) * (along < depth)
        lit = 0.62 + 0.38 * (offset * light[:, None]).sum(0)
        found.append(Veil(encode((grey * lit.clamp(0.2, 1.1)).clamp(max=1.0)), share))
    return found


def veils(
    stage: Stage, row: int, rays: Tensor, depth: Tensor, masks: Tensor, size: int
) -> list[tuple[int, Veil]]:
    """All veils of a scene with the thing that each belongs to: rays (3, P), depth (P,), masks (2, P)."""
    found: list[tuple[int, Veil]] = []
    for thing in stage.things[row]:
        if thing.thing.effect == "glowing":
            found.append((thing.index, halo(thing, masks[thing.index], size)))
        elif thing.thing.effect == "smoking":
            found += [(thing.index, veil) for veil in smoke(thing, stage, row, rays, depth)]
    return found


def lay(pixels: Tensor, masks: Tensor, over: Sequence[tuple[int, Veil]]) -> tuple[Tensor, Tensor]:
    """A picture (3, P) and its masks (2, P) with veils laid over them."""
    for index, veil in over:
        pixels = pixels + (veil.colour - pixels) * veil.share
        own = torch.zeros_like(masks)
        own[index] = veil.share
        masks = masks * (1.0 - veil.share) + own
    return pixels, masks
