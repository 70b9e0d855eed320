"""Styles: what a picture looks like once drawn or painted, from photos, outlines and the seed's grain."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import (
    adaptive_avg_pool2d,
    avg_pool2d,
    conv2d,
    grid_sample,
    interpolate,
    max_pool2d,
    pad,
)

from scumble.world.places import smooth

__all__ = [
    "DRAWN",
    "Sheet",
    "blueprint",
    "blurred",
    "cartoon",
    "cloudy",
    "flattened",
    "luminance",
    "oil_painting",
    "outlines",
    "pencil_sketch",
    "pixel_art",
    "restyle",
    "strokes",
    "warped",
    "watercolour",
]


@dataclass(frozen=True, slots=True)
class Sheet:
    """B pictures about to be restyled."""

    pixels: Tensor
    """(B, 3, H, W) sRGB in [0, 1]."""
    outline: Tensor
    """(B, 1, H, W) in [0, 1]: where solids end or crease."""
    grain: Tensor
    """(B, 2, H, W) standard normal noise of the scenes' seeds."""

    @property
    def unit(self) -> float:
        """Pixels of a hundred-and-twenty-eighth of the picture's width."""
        return self.pixels.shape[-1] / 128.0


def blurred(image: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of (B, C, H, W), edges repeated."""
    reach = max(1, math.ceil(2.5 * sigma))
    line = torch.arange(-reach, reach + 1, device=image.device, dtype=image.dtype)
    weights = torch.exp(-line.square() / (2.0 * sigma * sigma))
    weights = (weights / weights.sum()).expand(image.shape[1], 1, -1)
    image = conv2d(
        pad(image, (reach, reach, 0, 0), mode="replicate"), weights[:, :, None], groups=image.shape[1]
    )
    return conv2d(
        pad(image, (0, 0, reach, reach), mode="replicate"), weights[..., None], groups=image.shape[1]
    )


def luminance(pixels: Tensor) -> Tensor:
    """(B, 3, H, W) -> (B, 1, H, W), Rec. 709 weights on sRGB values."""
    weights = torch.tensor([0.2126, 0.7152, 0.0722], device=pixels.device)[:, None, None]
    return (pixels * weights).sum(1, keepdim=True)


def cloudy(grain: Tensor, sigma: float) -> Tensor:
    """Grain (B, 1, H, W) blurred, with variance 1 again."""
    return blurred(grain, sigma) * (2.0 * math.sqrt(math.pi) * sigma)


def outlines(body: Tensor, depth: Tensor, normal: Tensor) -> Tensor:
    """Where bodies end or crease, (B, 1, H, W): body and depth (B, H, W), normal (B, 3, H, W)."""
    depth = depth.clamp(max=40.0)
    found = torch.zeros_like(depth)
    for axis in (1, 2):
        n = depth.shape[axis] - 1
        one, two = depth.narrow(axis, 0, n), depth.narrow(axis, 1, n)
        bodies = body.narrow(axis, 0, n), body.narrow(axis, 1, n)
        thing = torch.maximum(*bodies) >= 0
        bend = 1.0 - (normal.narrow(axis + 1, 0, n) * normal.narrow(axis + 1, 1, n)).sum(1)
        crease = smooth(0.22, 0.55, bend) * (torch.minimum(*bodies) >= 0)
        jump = smooth(0.02, 0.045, (one - two).abs() / torch.minimum(one, two)) * thing
        edge = torch.maximum(torch.maximum(crease, jump), (bodies[0] != bodies[1]).float())
        for start in (0, 1):
            part = found.narrow(axis, start, n)
            part.copy_(torch.maximum(part, edge))
    return found[:, None]


def strokes(sheet: Sheet, strength: float) -> Tensor:
    """Drawn lines (B, 1, H, W) in [0, 1]: outlines and steps of tone (difference of Gaussians)."""
    tone = luminance(sheet.pixels)
    step = (blurred(tone, 1.6 * sheet.unit) - blurred(tone, 0.7 * sheet.unit)).clamp(min=0.0)
    outline = blurred(sheet.outline, 0.55 * sheet.unit)
    return torch.maximum(smooth(0.012, 0.075, step * strength), smooth(0.15, 0.75, outline))


def warped(image: Tensor, dx: Tensor, dy: Tensor) -> Tensor:
    """Image (B, C, H, W) read at pixels moved by dx, dy (B, 1, H, W) pixels."""
    b, _, h, w = image.shape
    y, x = torch.meshgrid(
        torch.arange(h, device=image.device), torch.arange(w, device=image.device), indexing="ij"
    )
    across = (x + dx[:, 0] + 0.5) / w * 2.0 - 1.0
    down = (y + dy[:, 0] + 0.5) / h * 2.0 - 1.0
    where = torch.stack([across.expand(b, h, w), down.expand(b, h, w)], dim=-1)
    return grid_sample(image, where, mode="bilinear", padding_mode="border", align_corners=False)


def flattened(image: Tensor, radius: int) -> Tensor:
    """Kuwahara's filter, softened: each pixel gets the mean of the calmest of the four squares about it."""
    side = radius + 1
    padded = pad(image, (radius,) * 4, mode="replicate")
    mean = avg_pool2d(padded, side, stride=1)
    variance = (avg_pool2d(padded.square(), side, stride=1) - mean.square()).sum(1, keepdim=True)
    h, w = image.shape[-2:]
    corners = [(y, x) for y in (0, radius) for x in (0, radius)]
    means = torch.stack([mean[..., y : y + h, x : x + w] for y, x in corners])
    calm = torch.stack([variance[..., y : y + h, x : x + w] for y, x in corners])
    weights = torch.softmax(-calm * 900.0, dim=0)
    return (weights * means).sum(0)


def pencil_sketch(sheet: Sheet) -> Tensor:
    """Graphite on paper: lines, and hatching that thickens with darkness."""
    h, w = sheet.pixels.shape[-2:]
    device = sheet.pixels.device
    y, x = torch.meshgrid(torch.arange(h, device=device), torch.arange(w, device=device), indexing="ij")
    wobble = cloudy(sheet.grain[:, :1], 9.0 * sheet.unit) * 2.2
    tone = blurred(luminance(sheet.pixels), 0.8 * sheet.unit)
    paper = 0.955 + 0.018 * cloudy(sheet.grain[:, 1:], 0.6)
    step = 1.75 / sheet.unit
    shade = torch.zeros_like(tone)
    for turn, limit, weight in ((1.0, 0.66, 0.22), (-1.0, 0.42, 0.24), (0.15, 0.22, 0.34)):
        line = torch.sin((x + turn * y) * step + wobble) * 0.5 + 0.5
        shade = shade + weight * smooth(0.30, 0.75, line) * smooth(limit, limit - 0.20, tone)
    lines = strokes(sheet, 1.0) * (0.86 + 0.10 * cloudy(sheet.grain[:, 1:], 0.8).clamp(-1.0, 1.0))
    value = paper * (1.0 - shade) * (1.0 - 0.80 * lines)
    tint = torch.tensor([1.0, 0.995, 0.975], device=device)[:, None, None]
    return value * tint


def watercolour(sheet: Sheet) -> Tensor:
    """Washes on rough paper: soft shapes, darker rims, pale edges of the sheet."""
    u = sheet.unit
    broad, fine = cloudy(sheet.grain[:, :1], 5.0 * u), cloudy(sheet.grain[:, 1:], 5.0 * u)
    image = warped(sheet.pixels, 0.55 * u * broad, 0.55 * u * fine)
    image = flattened(image, max(1, round(2 * u)))
    soft = blurred(image, 1.1 * u)
    rim = (soft - image).abs().sum(1, keepdim=True)
    pigment = 1.0 - image
    density = 0.86 + 0.12 * cloudy(sheet.grain[:, :1], 9.0 * u) + 0.9 * smooth(0.02, 0.30, rim)
    paper = cloudy(sheet.grain[:, 1:], 0.9)
    density = (density + 0.05 * paper).clamp(0.35, 1.5)
    h, w = image.shape[-2:]
    y = torch.linspace(-1, 1, h, device=image.device)[:, None].abs()
    x = torch.linspace(-1, 1, w, device=image.device)[None, :].abs()
    border = torch.maximum(x, y)[None, None] + 0.016 * broad + 0.022 * cloudy(sheet.grain[:, 1:], 11.0 * u)
    density = density * smooth(1.0, 0.91, border)
    return (
        0.985 * torch.exp(torch.log((1.0 - 0.94 * pigment).clamp(min=0.02)) * density) * (1.0 + 0.012 * paper)
    )


def oil_painting(sheet: Sheet) -> Tensor:
    """Short thick strokes, each of one colour, with ridges that catch the light."""
    u = sheet.unit
    base = flattened(sheet.pixels, max(2, round(2 * u)))
    vivid = luminance(base) + 1.22 * (base - luminance(base))
    angle = cloudy(sheet.grain[:, :1], 10.0 * u) * 0.8 + 0.7
    coarse, ridge_a = _dabs(vivid, angle, sheet.grain, 4.2 * u, 0)
    fine, ridge_b = _dabs(vivid, angle + 0.3, sheet.grain.flip(1), 1.9 * u, 1)
    detail = blurred((vivid - blurred(vivid, 2.0 * u)).abs().sum(1, keepdim=True), 1.2 * u)
    share = smooth(0.02, 0.07, detail)
    image = coarse + (fine - coarse) * share
    ridge = ridge_a + (ridge_b - ridge_a) * share
    return image * (1.0 + 0.05 * ridge) + 0.008 * ridge


def _dabs(image: Tensor, angle: Tensor, grain: Tensor, cell: float, shift: int) -> tuple[Tensor, Tensor]:
    """Image (B, 3, H, W) as strokes on a jittered grid of `cell` pixels, and their ridges (B, 1, H, W)."""
    b, _, h, w = image.shape
    device = image.device
    y, x = torch.meshgrid(
        torch.arange(h, device=device) + 0.5, torch.arange(w, device=device) + 0.5, indexing="ij"
    )
    c, s = torch.cos(angle[:, 0]), torch.sin(angle[:, 0])
    best = torch.full((b, h, w), 1e9, device=device)
    where = torch.zeros(b, h, w, 2, device=device)
    ridge = torch.zeros(b, h, w, device=device)
    rows = (y / cell).floor()
    columns = (x / cell + 0.5 * shift).floor()
    for i in (-1, 0, 1):
        for j in (-1, 0, 1):
            row, column = rows + i, columns + j
            at_y = (row.clamp(0, h / cell) * cell).long().clamp(0, h - 1)
            at_x = (column.clamp(0, w / cell) * cell).long().clamp(0, w - 1)
            jitter = grain[:, :, at_y, at_x]  # (B, 2, H, W)
            cy = (row + 0.5 + 0.28 * jitter[:, 0].clamp(-1.5, 1.5)) * cell
            cx = (column + 0.5 - 0.5 * shift + 0.28 * jitter[:, 1].clamp(-1.5, 1.5)) * cell
            dx, dy = x - cx, y - cy
            along, across = (c * dx + s * dy) / (1.35 * cell), (c * dy - s * dx) / (0.62 * cell)
            far = along.square() + across.square() + 0.25 * (jitter[:, 0] + jitter[:, 1])
            nearer = far < best
            best = torch.where(nearer, far, best)
            ridge = torch.where(
                nearer, torch.sin(across * 2.4 + along) * (1.0 - along.square()).clamp(-0.5, 1.0), ridge
            )
            centre = torch.stack([cx / w * 2.0 - 1.0, cy / h * 2.0 - 1.0], dim=-1)
            where = torch.where(nearer[..., None], centre, where)
    colour = grid_sample(image, where, mode="bilinear", padding_mode="border", align_corners=False)
    return colour, ridge[:, None]


def cartoon(sheet: Sheet) -> Tensor:
    """Few flat tones, strong colours, black outlines."""
    u = sheet.unit
    image = flattened(sheet.pixels, max(2, round(2 * u)))
    tone = image.amax(1, keepdim=True).clamp(min=1e-3)
    levels = 4.0
    scaled = tone * levels
    step = scaled.floor() + smooth(0.35, 0.65, scaled - scaled.floor())
    flat = image / tone * ((step + 0.35) / (levels + 0.15)).clamp(max=1.0)
    grey = luminance(flat)
    vivid = (grey + 1.38 * (flat - grey)).clamp(0.0, 1.0)
    outline = blurred(
        max_pool2d(sheet.outline, 2 * round(u) - 1, 1, round(u) - 1) if u > 1 else sheet.outline, 0.6 * u
    )
    tones = luminance(sheet.pixels)
    inner = smooth(0.045, 0.11, (blurred(tones, 1.6 * u) - blurred(tones, 0.7 * u)).clamp(min=0.0))
    line = torch.maximum(smooth(0.12, 0.50, outline), 0.8 * inner)
    ink = torch.tensor([0.05, 0.04, 0.07], device=image.device)[:, None, None]
    return vivid + (ink - vivid) * line


def pixel_art(sheet: Sheet) -> Tensor:
    """Blocks of four pixels (at 128) in few colours, with an ordered dither."""
    size = sheet.pixels.shape[-1]
    blocks = max(8, size // max(1, round(4 * sheet.unit)))
    small = adaptive_avg_pool2d(sheet.pixels, blocks)
    grey = luminance(small)
    small = (grey + 1.2 * (small - grey)).clamp(0.0, 1.0)
    small = (0.5 + 1.12 * (small - 0.5)).clamp(0.0, 1.0)
    bayer = torch.tensor([[0.0, 0.5], [0.75, 0.25]], device=small.device) - 0.375
    dither = bayer.repeat(math.ceil(blocks / 2), math.ceil(blocks / 2))[:blocks, :blocks]
    levels = 7.0
    small = ((small * levels + 0.18 * dither).round() / levels).clamp(0.0, 1.0)
    return interpolate(small, size=sheet.pixels.shape[-2:], mode="nearest")


def blueprint(sheet: Sheet) -> Tensor:
    """White lines on blue squared paper."""
    h, w = sheet.pixels.shape[-2:]
    device, u = sheet.pixels.device, sheet.unit
    y, x = torch.meshgrid(torch.arange(h, device=device), torch.arange(w, device=device), indexing="ij")
    squares = 8.0 * u
    off = torch.minimum((x + 0.5) % squares, (y + 0.5) % squares)
    fine = (off < 1.0 * u).float()[None, None]
    strong = (torch.minimum((x + 0.5) % (4 * squares), (y + 0.5) % (4 * squares)) < 1.0 * u).float()[
        None, None
    ]
    tone = luminance(sheet.pixels)
    lines = strokes(sheet, 1.0)
    step = (blurred(tone, 1.6 * u) - blurred(tone, 0.7 * u)).abs()
    lines = torch.maximum(lines, smooth(0.012, 0.07, step) * 0.85)
    value = 0.07 * fine + 0.07 * strong + 0.10 * (tone - 0.5) + 0.015 * cloudy(sheet.grain[:, :1], 1.0)
    paper = torch.tensor([0.07, 0.25, 0.55], device=device)[:, None, None]
    ink = torch.tensor([0.93, 0.97, 1.0], device=device)[:, None, None]
    ground = paper + value
    return ground + (ink - ground) * lines * 0.95


DRAWN: dict[str, Callable[[Sheet], Tensor]] = {
    "pencil sketch": pencil_sketch,
    "watercolour": watercolour,
    "oil painting": oil_painting,
    "cartoon": cartoon,
    "pixel art": pixel_art,
    "blueprint": blueprint,
}
"""Every style but `photo`, which leaves pictures as they are."""


def restyle(style: str, sheet: Sheet) -> Tensor:
    """Pictures (B, 3, H, W) in a style, sRGB in [0, 1]."""
    if style == "photo":
        return sheet.pixels
    return DRAWN[style](sheet).clamp(0.0, 1.0)
