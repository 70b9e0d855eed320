"""Where and when: ground, sky and light of each place and time. Colours are linear light."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import grid_sample, interpolate, pad

from scumble.world.materials import Rgb, linear

__all__ = [
    "GROUNDS",
    "LIGHTS",
    "Ground",
    "Light",
    "column",
    "ground_colour",
    "light_direction",
    "mix",
    "sample",
    "sky_colour",
    "smooth",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Light:
    """The light of a time of day."""

    direction: tuple[float, float, float]
    """Towards the sun or the moon; turned a little by the seed."""
    sun: Rgb
    sky: Rgb
    """Light from above."""
    fill: Rgb
    """Light from the camera's side, so that no side is black."""
    zenith: Rgb
    """sRGB of the sky high up."""
    horizon: Rgb
    """sRGB of the sky low down."""


LIGHTS: dict[str, Light] = {
    "day": Light(
        direction=(-0.48, 0.74, 0.58), sun=(1.02, 0.97, 0.88), sky=(0.34, 0.40, 0.50),
        fill=(0.13, 0.13, 0.13), zenith=(0.27, 0.55, 0.90), horizon=(0.76, 0.88, 0.97),
    ),
    "sunset": Light(
        direction=(-0.80, 0.36, 0.50), sun=(1.18, 0.66, 0.36), sky=(0.30, 0.25, 0.36),
        fill=(0.15, 0.125, 0.12), zenith=(0.36, 0.30, 0.58), horizon=(1.00, 0.62, 0.34),
    ),
    "night": Light(
        direction=(0.50, 0.74, 0.50), sun=(0.38, 0.47, 0.72), sky=(0.13, 0.165, 0.30),
        fill=(0.12, 0.13, 0.16), zenith=(0.035, 0.05, 0.15), horizon=(0.12, 0.17, 0.34),
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """A place as data. Colours are sRGB."""

    low: Rgb
    """Ground colour in the noise's hollows."""
    high: Rgb
    """Ground colour on the noise's tops."""
    coarse: float
    """Spatial frequency of the noise."""
    fine: float
    """Strength of the fine grain."""
    hills: tuple[Rgb, Rgb] | None
    """Far and near hills on the horizon."""
    height: tuple[float, float]
    """Their heights, as the tangent of the angle above the horizon."""
    rough: float
    """Frequency of the hills' outline."""


GROUNDS: dict[str, Ground] = {
    "grass": Ground(
        low=(0.24, 0.47, 0.13), high=(0.52, 0.70, 0.24), coarse=0.9, fine=0.42,
        hills=((0.42, 0.62, 0.50), (0.30, 0.54, 0.24)), height=(0.115, 0.055), rough=1.0,
    ),
    "beach": Ground(
        low=(0.88, 0.77, 0.56), high=(0.97, 0.89, 0.70), coarse=0.7, fine=0.13,
        hills=None, height=(0.0, 0.0), rough=1.0,
    ),
    "desert": Ground(
        low=(0.78, 0.47, 0.22), high=(0.93, 0.64, 0.34), coarse=0.5, fine=0.12,
        hills=((0.80, 0.52, 0.38), (0.84, 0.53, 0.27)), height=(0.105, 0.055), rough=0.6,
    ),
    "snow": Ground(
        low=(0.80, 0.87, 0.95), high=(0.97, 0.98, 1.0), coarse=0.5, fine=0.05,
        hills=((0.62, 0.72, 0.84), (0.86, 0.91, 0.97)), height=(0.15, 0.045), rough=2.2,
    ),
    "studio": Ground(
        low=(0.74, 0.73, 0.76), high=(0.77, 0.76, 0.79), coarse=0.5, fine=0.0,
        hills=None, height=(0.0, 0.0), rough=1.0,
    ),
    "moon": Ground(
        low=(0.40, 0.40, 0.43), high=(0.66, 0.66, 0.68), coarse=0.8, fine=0.24,
        hills=((0.36, 0.36, 0.40), (0.50, 0.50, 0.53)), height=(0.085, 0.035), rough=2.6,
    ),
    "table": Ground(
        low=(0.50, 0.30, 0.15), high=(0.74, 0.47, 0.26), coarse=0.8, fine=0.0,
        hills=None, height=(0.0, 0.0), rough=1.0,
    ),
}  # fmt: skip


@functools.cache
def _texture(device: str) -> Tensor:
    """(1, 4, 257, 257) maps in [0, 1] that repeat with period 1: broad noise, grain, stars, craters."""
    generator = torch.Generator().manual_seed(20)
    size = 256

    def noise(cells: int) -> Tensor:
        grid = torch.rand(1, 1, cells, cells, generator=generator)
        padded = pad(grid, (2, 2, 2, 2), mode="circular")
        scaled = interpolate(padded, scale_factor=size // cells, mode="bicubic", align_corners=False)
        edge = 2 * size // cells
        return scaled[0, 0, edge : edge + size, edge : edge + size]

    broad = torch.stack([noise(8 * 2**i) * 0.5**i for i in range(4)]).sum(0)
    broad = (broad - broad.amin()) / (broad.amax() - broad.amin())
    grain = noise(128) * 0.6 + noise(64) * 0.4
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    stars, craters = torch.zeros(size, size), torch.zeros(size, size)
    for i in range(230):
        cx, cy, u = (torch.rand(3, generator=generator) * torch.tensor([size, size, 1.0])).unbind()
        dx, dy = ((x - cx + size / 2) % size) - size / 2, ((y - cy + size / 2) % size) - size / 2
        stars = torch.maximum(stars, (0.35 + 0.65 * u) * torch.exp(-(dx**2 + dy**2) / 1.1))
        if i < 46:
            far = (dx**2 + dy**2).sqrt() / (4.0 + 11.0 * u**2)
            rim = torch.exp(-((far - 1.0) ** 2) / 0.03) - 0.9 * torch.sigmoid((0.92 - far) / 0.06)
            craters = torch.where(rim.abs() > craters.abs(), rim, craters)
    maps = torch.stack([broad, grain.clamp(0, 1), stars, craters])[None]
    return pad(maps, (0, 1, 0, 1), mode="circular").to(device)


def sample(u: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Broad noise, grain, stars and craters at (u, v) (S, N), period 1, each (S, N)."""
    maps = _texture(str(u.device))
    grid = torch.stack([u - u.floor(), v - v.floor()], dim=-1).view(1, -1, 1, 2) * 2.0 - 1.0
    found = grid_sample(maps, grid, mode="bilinear", align_corners=True)[0, :, :, 0]
    broad, grain, stars, craters = found.view(4, *u.shape).unbind(0)
    return broad, grain, stars, craters


def column(colour: Rgb, like: Tensor) -> Tensor:
    """An sRGB colour as linear light, (1, 3, 1)."""
    return torch.tensor(linear(colour), device=like.device)[None, :, None]


def mix(a: Tensor, b: Tensor, share: Tensor) -> Tensor:
    """a where share (S, N) is 0, b where it is 1; colours (S or 1, 3, N or 1)."""
    return a + (b - a) * share[:, None]


def smooth(low: float, high: float, x: Tensor) -> Tensor:
    """Cubic step from 0 at `low` to 1 at `high`."""
    s = ((x - low) / (high - low)).clamp(0.0, 1.0)
    return s * s * (3.0 - 2.0 * s)


def ground_colour(place: str, x: Tensor, z: Tensor, width: Tensor, seed: Tensor) -> tuple[Tensor, Tensor]:
    """Albedo (S, 3, N) of the ground at (x, z) (S, N), and how much of the sky it mirrors (S, N).

    `width` (S, N) is how far apart neighbouring pixels lie there; `seed` (S, 2) moves the patterns."""
    ground = GROUNDS[place]
    u, v = x + seed[:, :1], z + seed[:, 1:]
    near = 1.0 / (1.0 + (width * 14.0).square())
    broad = sample(u * 0.11 * ground.coarse, v * 0.11 * ground.coarse)[0]
    _, grain, _, craters = sample(u * 0.33, v * 0.33)
    value = smooth(0.2, 0.8, broad) + (grain - 0.5) * 2.0 * ground.fine * near
    mirror = torch.zeros_like(x)
    if place == "table":
        return _planks(ground, u, v, width), mirror + 0.05
    if place == "moon":
        value = value + craters * 0.55 * near
    if place == "grass":
        blades = sample(u * 1.9, v * 0.42)[1]
        value = value + (blades - 0.5) * 0.9 * near
    if place == "desert":
        wave = torch.sin((v + 0.25 * torch.sin(u * 1.7) + broad * 1.2) * 15.0)
        value = value + wave * 0.20 * near
    colour = mix(column(ground.low, x), column(ground.high, x), value.clamp(-0.35, 1.25))
    colour = colour.clamp(min=0.003)
    if place == "beach":
        colour, mirror = _sea(colour, x, z, u, broad, near)
    return colour, mirror


def _planks(ground: Ground, u: Tensor, v: Tensor, width: Tensor) -> Tensor:
    plank = 0.42
    row = (u / plank).floor()
    tone = torch.sin(row * 12.9898) * 0.5 + 0.5
    broad = sample(u * 0.9 + row * 0.37, v * 0.07 + row * 0.61)[0]
    grain = torch.sin((broad * 9.0 + (u / plank) * 1.5) * 6.0) * 0.5 + 0.5
    value = tone * 0.45 + 0.55 * (0.35 * grain + 0.65 * broad)
    colour = mix(column(ground.low, u), column(ground.high, u), value)
    gap = (u / plank - row - 0.5).abs() * plank
    dark = smooth(0.0, 1.0, (gap - plank / 2 + 0.012) / (width + 0.006) + 0.5)
    return colour * (1.0 - 0.62 * dark)[:, None]


def _sea(sand: Tensor, x: Tensor, z: Tensor, u: Tensor, broad: Tensor, near: Tensor) -> tuple[Tensor, Tensor]:
    shore = -z - 1.75 - 0.16 * torch.sin(u * 1.3) - 0.25 * (broad - 0.5)
    wet = smooth(-0.45, 0.0, shore)
    water = smooth(0.0, 0.12, shore)
    waves = sample(x * 0.11, z * 0.5)[1]
    deep = mix(column((0.30, 0.72, 0.74), x), column((0.07, 0.36, 0.60), x), smooth(0.2, 3.5, shore))
    deep = deep * (1.0 + 0.5 * (waves - 0.5))[:, None]
    colour = mix(sand * (1.0 - 0.32 * wet)[:, None], deep, water)
    lines = (
        smooth(0.10, 0.02, (shore - 0.09).abs())
        + 0.5 * smooth(0.07, 0.0, (shore - 0.55 - 0.1 * broad).abs()) * near
    )
    return mix(colour, column((0.97, 0.98, 0.98), x), lines.clamp(0.0, 1.0)), 0.45 * water


def sky_colour(place: str, time: str, direction: Tensor, seed: Tensor) -> Tensor:
    """Light (S, 3, N) that comes from directions (S, 3, N) where nothing stands in the way."""
    x, y, z = direction.unbind(1)
    flat = (x.square() + z.square()).sqrt().clamp(min=1e-4)
    around, tangent = torch.atan2(x, -z), y / flat
    if place == "studio":
        return _backdrop(time, tangent, around)
    if place == "table":
        return _room(time, around, tangent, seed)
    light = LIGHTS[time]
    up = tangent.clamp(0.0, 1.2)
    high = smooth(-0.06, 0.42, up)
    sky = mix(column(light.horizon, x), column(light.zenith, x), high)
    if place == "moon":
        sky = _space(time, sky, tangent)
    elif time != "night":
        broad = sample(around * 0.35 + seed[:, :1], (tangent * 1.3 + seed[:, 1:]))[0]
        cloud = smooth(0.52, 0.78, broad) * smooth(0.03, 0.2, up)
        sky = mix(sky, column((1.0, 1.0, 1.0) if time == "day" else (1.0, 0.72, 0.60), x), 0.75 * cloud)
    if time == "sunset":
        sky = _low_sun(sky, around, tangent, seed)
    if time == "night" or place == "moon":
        stars = sample(around * 0.55 + seed[:, :1], tangent * 0.55 + seed[:, 1:])[2]
        sky = sky + (stars * smooth(0.02, 0.12, tangent) * (1.0 if time == "night" else 0.6))[:, None]
    return _hills(place, time, sky, around, tangent, seed)


def _low_sun(sky: Tensor, around: Tensor, tangent: Tensor, seed: Tensor) -> Tensor:
    side = 0.16 + 0.12 * torch.sin(seed[:, :1] * 6.28)
    away = ((around + side).square() + (tangent - 0.10).square()).sqrt()
    glow = torch.exp(-away * 5.0)
    sky = mix(sky, column((1.0, 0.78, 0.42), away), 0.75 * glow)
    return mix(sky, column((1.0, 0.97, 0.80), away), smooth(0.047, 0.040, away))


def _space(time: str, sky: Tensor, tangent: Tensor) -> Tensor:
    black = column((0.03, 0.03, 0.06), tangent)
    share = {"day": 1.0, "sunset": 0.55, "night": 0.85}[time]
    return (
        mix(sky, black, smooth(0.0, 0.35, tangent) * share)
        if time == "sunset"
        else mix(sky, black, torch.full_like(tangent, share))
    )


def _hills(place: str, time: str, sky: Tensor, around: Tensor, tangent: Tensor, seed: Tensor) -> Tensor:
    ground, light = GROUNDS[place], LIGHTS[time]
    if ground.hills is None:
        return sky
    tint = torch.tensor(
        [s * 0.62 + k + f for s, k, f in zip(light.sun, light.sky, light.fill, strict=True)],
        device=sky.device,
    )
    haze = column(light.horizon, tangent)
    for layer, (colour, height, fog) in enumerate(
        zip(ground.hills, ground.height, (0.42, 0.16), strict=True)
    ):
        line = sample(
            (around * 0.16 * ground.rough) + seed[:, :1] + 0.37 * layer,
            seed[:, 1:] + 0.5 * layer + around * 0.0,
        )[0]
        top = height * (0.25 + 1.1 * line)
        lit = column(colour, tangent) * tint[None, :, None]
        if place == "snow" and layer == 0:
            capped = smooth(0.0, 0.05, tangent - 0.45 * top - 0.02)
            lit = mix(lit * 0.55, column((0.96, 0.97, 1.0), tangent) * tint[None, :, None], capped)
        if place != "moon":
            lit = mix(lit, haze, torch.full_like(tangent, fog))
        sky = mix(sky, lit, smooth(0.008, -0.008, tangent - top))
    return sky


def _backdrop(time: str, tangent: Tensor, around: Tensor) -> Tensor:
    """A seamless paper sweep, lit from one side; the time is the colour of the light."""
    low, high = {
        "day": ((0.84, 0.84, 0.87), (0.66, 0.68, 0.74)),
        "sunset": ((0.98, 0.70, 0.50), (0.66, 0.38, 0.42)),
        "night": ((0.24, 0.28, 0.46), (0.08, 0.09, 0.22)),
    }[time]
    colour = mix(column(low, tangent), column(high, tangent), smooth(-0.05, 0.34, tangent + 0.10 * around))
    if time == "night":
        stars = sample(around * 0.5 + 0.13, tangent * 0.5 + 0.29)[2]
        colour = colour + (0.8 * stars * smooth(0.05, 0.15, tangent))[:, None]
    return colour


def _room(time: str, around: Tensor, tangent: Tensor, seed: Tensor) -> Tensor:
    """A wall out of focus with a window, through which the time shows."""
    wall, dado = {
        "day": ((0.80, 0.72, 0.58), (0.58, 0.46, 0.34)),
        "sunset": ((0.80, 0.52, 0.36), (0.50, 0.28, 0.20)),
        "night": ((0.22, 0.22, 0.34), (0.13, 0.13, 0.22)),
    }[time]
    light = LIGHTS[time]
    colour = mix(column(dado, tangent), column(wall, tangent), smooth(0.0, 0.012, tangent))
    side = torch.where(torch.sin(seed[:, :1] * 40.0) > 0, 0.19, -0.19)
    dx, dy = (around - side).abs(), (tangent - 0.125).abs()
    frame = smooth(0.125, 0.118, dx) * smooth(0.095, 0.088, dy)
    glass = (
        smooth(0.113, 0.106, dx)
        * smooth(0.083, 0.076, dy)
        * smooth(0.003, 0.009, dx)
        * smooth(0.003, 0.009, dy)
    )
    colour = mix(colour, column((0.93, 0.90, 0.84), tangent) * (0.2 if time == "night" else 0.8), frame)
    view = mix(column(light.horizon, tangent), column(light.zenith, tangent), smooth(0.0, 0.22, tangent))
    if time == "night":
        view = view + sample(around * 0.5 + seed[:, :1], tangent * 0.5 + seed[:, 1:])[2][:, None]
    return mix(colour, view, glass)


def light_direction(time: str, turn: float) -> tuple[float, float, float]:
    """Unit direction towards the sun, turned about y by degrees."""
    x, y, z = LIGHTS[time].direction
    c, s = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    x, z = c * x + s * z, -s * x + c * z
    norm = math.sqrt(x * x + y * y + z * z)
    return (x / norm, y / norm, z / norm)
