"""Changes to pictures that leave what is in them recognisable, for networks that look at edited pictures.

All take pictures (B, 3, H, W) in [-1, 1] and a generator on their device; each picture draws its own values.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

WHITE = 1.0


def crop(pictures: Tensor, generator: torch.Generator, *, smallest: float = 0.8) -> Tensor:
    """A random square window of at least `smallest` of the side, resized back; half of them mirrored."""
    b = len(pictures)
    scale = _uniform(b, smallest, 1.0, generator, pictures)
    mirror = torch.where(_uniform(b, 0.0, 1.0, generator, pictures) < 0.5, -1.0, 1.0)
    shift = (1.0 - scale)[:, None] * (2.0 * _uniform((b, 2), 0.0, 1.0, generator, pictures) - 1.0)
    matrix = torch.zeros(b, 2, 3, device=pictures.device)
    matrix[:, 0, 0], matrix[:, 1, 1], matrix[:, :, 2] = scale * mirror, scale, shift
    return _warp(pictures, matrix)


def affine(
    pictures: Tensor, generator: torch.Generator, *, degrees: float = 15.0, shift: float = 0.1
) -> Tensor:
    """Turn and move, white where nothing is known."""
    b = len(pictures)
    angle = _uniform(b, -degrees, degrees, generator, pictures) * (math.pi / 180.0)
    matrix = torch.zeros(b, 2, 3, device=pictures.device)
    matrix[:, 0, 0] = matrix[:, 1, 1] = angle.cos()
    matrix[:, 0, 1], matrix[:, 1, 0] = -angle.sin(), angle.sin()
    matrix[:, :, 2] = _uniform((b, 2), -2.0 * shift, 2.0 * shift, generator, pictures)
    return _warp(pictures - WHITE, matrix) + WHITE


def blur(pictures: Tensor, generator: torch.Generator, *, largest: float = 1.5) -> Tensor:
    """A Gaussian blur with a standard deviation of up to `largest` pixels."""
    b, c, h, w = pictures.shape
    sigma = _uniform(b, 0.1, largest, generator, pictures)[:, None]
    x = torch.arange(-4, 5, device=pictures.device, dtype=pictures.dtype)
    kernel = torch.softmax(-(x**2) / (2.0 * sigma**2), dim=1).repeat_interleave(c, 0)  # (B C, 9)
    flat = pictures.reshape(1, b * c, h, w)
    flat = functional.conv2d(
        functional.pad(flat, (4, 4, 0, 0), "replicate"), kernel[:, None, None, :], groups=b * c
    )
    flat = functional.conv2d(
        functional.pad(flat, (0, 0, 4, 4), "replicate"), kernel[:, None, :, None], groups=b * c
    )
    return flat.view(b, c, h, w)


def light(pictures: Tensor, generator: torch.Generator, *, most: float = 0.1) -> Tensor:
    """Brightness, contrast and colour balance changed by up to `most`."""
    shape = (len(pictures), 3, 1, 1)
    gain = 1.0 + _uniform((len(pictures), 1, 1, 1), -most, most, generator, pictures)
    balance = _uniform(shape, -most, most, generator, pictures)
    return (pictures * gain + balance).clamp(-1.0, 1.0)


def mixed(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """All of the above, each applied to some of the pictures."""
    out = crop(pictures, generator)
    for change, share in ((affine, 0.3), (blur, 0.3), (light, 0.5)):
        chosen = _uniform(len(out), 0.0, 1.0, generator, out) < share
        out = torch.where(chosen[:, None, None, None], change(out, generator), out)
    return out


def softly(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Slight changes only, after which size, colour and time of day are still what they were."""
    out = crop(pictures, generator, smallest=0.94)
    chosen = _uniform((len(out), 1, 1, 1), 0.0, 1.0, generator, out) < 0.3
    return light(torch.where(chosen, blur(out, generator, largest=0.8), out), generator, most=0.03)


def _uniform(
    shape: int | tuple[int, ...], low: float, high: float, generator: torch.Generator, like: Tensor
) -> Tensor:
    return low + (high - low) * torch.rand(shape, generator=generator, device=like.device)


def _warp(pictures: Tensor, matrix: Tensor) -> Tensor:
    grid = functional.affine_grid(matrix, list(pictures.shape), align_corners=False)
    return functional.grid_sample(pictures, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
