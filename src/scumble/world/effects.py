"""What floats about things: the halo of glowing things and the smoke of smoking ones, laid over the picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from scumble.world.build import Placed
from scumble.world.camera import Camera
from scumble.world.materials import glow, linear
from scumble.world.places import LIGHTS, smooth

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
    image = F.conv2d(F.pad(image, (reach, reach, 0, 0)), weights.view(1, 1, 1, -1))
    image = F.conv2d(F.pad(image, (0, 0, reach, reach)), weights.view(1, 1, -1, 1))
    share = (1.35 * image.flatten()).clamp(max=0.9) * (1.0 - mask)
    colour = torch.tensor(glow(thing.thing), device=mask.device).clamp(min=1e-4) ** (1 / 2.4)
    return Veil(colour[:, None].expand(3, mask.shape[0]), share)


def smoke(thing: Placed, time: str, camera: Camera, rays: Tensor, depth: Tensor, light: Tensor) -> list[Veil]:
    """The puffs over a smoking thing, the lowest first: rays (1, 3, P), depth (P,) of what is there, light (3,)."""
    top, grow = thing.shape.high[1] * thing.scale, 0.72 + 0.28 * thing.scale
    middle = (thing.shape.low[0] + thing.shape.high[0]) / 2 * 0.0
    sky = LIGHTS[time]
    bright = [s * 0.62 + k * 0.8 + f for s, k, f in zip(sky.sun, sky.sky, sky.fill, strict=True)]
    veils: list[Veil] = []
    for right, up, radius in PUFFS:
        centre = torch.tensor(
            [thing.at[0] + middle + right * grow, thing.at[1] + top + up * grow, thing.at[2]]
        )
        away = centre.to(depth.device) - camera.origin[0]
        along = (rays[0] * away[:, None]).sum(0)
        offset = rays[0] * along - away[:, None]
        distance = offset.square().sum(0).sqrt() / (radius * grow)
        share = 0.80 * smooth(1.0, 0.62, distance) * (along < depth)
        lit = 0.62 + 0.38 * (offset * light[:, None]).sum(0) / (radius * grow)
        grey = torch.tensor([0.62 * b for b in bright], device=depth.device)[:, None] * lit.clamp(0.2, 1.1)
        veils.append(Veil(grey.clamp(1e-4, 1.0) ** (1 / 2.4), share))
    return veils


def veils(
    things: Sequence[Placed],
    time: str,
    camera: Camera,
    rays: Tensor,
    depth: Tensor,
    masks: Tensor,
    light: Tensor,
    size: int,
) -> list[tuple[int, Veil]]:
    """All veils of a scene with the thing that each belongs to."""
    found: list[tuple[int, Veil]] = []
    for thing in things:
        if thing.thing.effect == "glowing":
            found.append((thing.index, halo(thing, masks[thing.index], size)))
        elif thing.thing.effect == "smoking":
            found += [(thing.index, veil) for veil in smoke(thing, time, camera, rays, depth, light)]
    return found


def lay(pixels: Tensor, masks: Tensor, over: Sequence[tuple[int, Veil]]) -> tuple[Tensor, Tensor]:
    """A picture (3, P) and its masks (2, P) with veils laid over them."""
    for index, veil in over:
        pixels = pixels + (veil.colour - pixels) * veil.share
        own = torch.zeros_like(masks)
        own[index] = veil.share
        masks = masks * (1.0 - veil.share) + own
    return pixels, masks
