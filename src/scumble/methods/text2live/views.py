"""The training set inside one picture, and the views of a picture that CLIP looks at (2204.02491, 3.2).

A view is drawn once, from a generator, and can then be taken of several pictures. All that moves pixels in it
is one map of the plane, so a view is sampled once; all that jitters colours is one matrix and a contrast.

Letters: V views of h x w pixels, pictures of H x W.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import pi

import torch
from torch import Tensor
from torch.nn.functional import grid_sample, interpolate

__all__ = ["GREEN", "Crop", "Jitter", "Views", "draw_crop", "draw_jitter", "draw_views", "over", "uniforms"]

GREEN = (0.0, 177 / 255, 64 / 255)
"""The screen that the layer alone is shown on."""

GREY = (0.299, 0.587, 0.114)
"""How light each colour is, by Rec. 601."""
JITTER = 0.1
"""The most by which brightness, contrast and saturation are jittered; and hue, if nothing else is said."""
TURN, SHIFT, LEAN = 15.0, 0.1, 0.4
"""Degrees, share of the side, and share of half the side by which CLIP's views are turned, moved, and their
corners pulled in, at most."""
AFFINE, PERSPECTIVE, COLOUR, MIRRORED = 0.8, 0.5, 0.7, 0.5
"""How often each happens to a view."""


def over(layer: Tensor, below: Tensor) -> Tensor:
    """a C + (1 - a) below, of layers (B, 4, H, W) over pictures (B, 3, H, W) or a colour (3,): equation 1."""
    below = below[:, None, None] if below.ndim == 1 else below
    return below + layer[:, 3:] * (layer[:, :3] - below)


def uniforms(generator: torch.Generator, count: int) -> list[float]:
    """So many numbers from [0, 1)."""
    return [float(number) for number in torch.rand(count, generator=generator)]


# Colours


@dataclass(frozen=True, slots=True)
class Jitter:
    """A change of colours for each of V pictures."""

    matrix: Tensor
    """(V, 3, 3)."""
    contrast: Tensor
    """(V,): about the mean grey of a picture."""

    def __call__(self, pictures: Tensor) -> Tensor:
        """The pictures (V, 3, H, W) in [0, 1], changed and clipped."""
        grey = pictures.new_tensor(GREY)
        middle = torch.einsum("c,vchw->v", grey, pictures) / (pictures.shape[-1] * pictures.shape[-2])
        contrast = self.contrast.to(pictures)
        spread = contrast[:, None, None, None] * pictures
        shifted = spread + ((1 - contrast) * middle)[:, None, None, None]
        return torch.einsum("vrc,vchw->vrhw", self.matrix.to(pictures), shifted).clamp(0, 1)


def draw_jitter(
    generator: torch.Generator, count: int, colour: float, *, hue: float = JITTER, grey: float = 0.0
) -> Jitter:
    """Jitters for `count` pictures, of which a share `colour` is jittered and a share `grey` made grey; hues
    are turned by at most the share `hue` of the circle."""
    amounts = (torch.rand(count, 4, generator=generator) * 2 - 1) * JITTER
    amounts = amounts * (torch.rand(count, 1, generator=generator) < colour)
    brightness, contrast, saturation, turned = amounts.unbind(1)
    without = torch.tensor(GREY).expand(3, 3)  # each row makes grey of a colour
    whole = torch.eye(3)
    kept = (1 + saturation) * (torch.rand(count, generator=generator) >= grey)
    saturated = without + kept[:, None, None] * (whole - without)
    matrix = saturated @ _turned_hue(turned * (hue / JITTER) * 2 * pi) * (1 + brightness)[:, None, None]
    return Jitter(matrix, 1 + contrast)


def _turned_hue(angle: Tensor) -> Tensor:
    """(V, 3, 3): rotations by `angle` about the axis of greys, by Rodrigues' formula."""
    axis = torch.tensor(1 / 3).sqrt()
    cross = axis * torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]])
    cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
    return cos * torch.eye(3) + sin * cross + (1 - cos) / 3


# The training set


@dataclass(frozen=True, slots=True)
class Crop:
    """A part of a picture, resized, perhaps mirrored."""

    top: int
    left: int
    height: int
    width: int
    size: tuple[int, int]
    mirrored: bool

    def __call__(self, pictures: Tensor) -> Tensor:
        """(B, C, *size) of pictures (B, C, H, W), within the range that they have."""
        part = pictures[..., self.top : self.top + self.height, self.left : self.left + self.width]
        if self.size != (self.height, self.width):
            sized = interpolate(part, self.size, mode="bicubic", antialias=True, align_corners=False)
            part = sized.clamp(0, 1)
        return part.flip(-1) if self.mirrored else part


def draw_crop(
    generator: torch.Generator,
    size: tuple[int, int],
    *,
    cover: float,
    scales: Sequence[float],
    flip: float,
    least: int = 8,
) -> Crop:
    """A crop of a picture of `size` (H, W): at least `cover` of both sides, resized between `scales` but not
    below `least` pixels, mirrored by the chance `flip`.

    Sides are rounded to multiples of ROUND: convolutions are prepared anew for every new size.
    """
    height, width = size
    share, scale, y, x, chance = uniforms(generator, 5)
    share, scale = cover + (1 - cover) * share, scales[0] + (scales[1] - scales[0]) * scale
    h, w = max(1, round(height * share)), max(1, round(width * share))
    out = _rounded(h * scale, least), _rounded(w * scale, least)
    return Crop(round(y * (height - h)), round(x * (width - w)), h, w, out, chance < flip)


ROUND = 8
"""Pixels that sides of training crops are multiples of."""


def _rounded(side: float, least: int) -> int:
    return max(-(-least // ROUND) * ROUND, round(side / ROUND) * ROUND)


# CLIP's views


@dataclass(frozen=True, slots=True)
class Views:
    """V views of a picture."""

    places: Tensor
    """(V, h, w, 2): where in the crop each pixel comes from; beyond [-1, 1] is nothing."""
    crops: Tensor
    """(V, 2, 2): middle and half side of each crop, x and y, with the picture's edges at -1 and 1."""
    jitter: Jitter

    def of(self, picture: Tensor, fill: float = 1.0) -> Tensor:
        """The views (V, 3, h, w) of a picture (1, 3, H, W) in [0, 1]; what lies outside is `fill`."""
        places, crops = self.places.to(picture), self.crops.to(picture)
        count, height, width, _ = places.shape
        whole = _shrunk(picture, (height, width))
        at = places * crops[:, None, None, 1] + crops[:, None, None, 0]
        found = grid_sample(whole.expand(count, -1, -1, -1), at, padding_mode="border", align_corners=False)
        inside = (places.abs() <= 1 + 1e-4).all(-1)[:, None]
        return self.jitter(torch.where(inside, found, found.new_tensor(fill)))


def draw_views(
    generator: torch.Generator,
    count: int,
    size: tuple[int, int],
    smallest: float,
    *,
    hue: float = JITTER,
    grey: float = 0.15,
) -> Views:
    """`count` views of `size` (h, w); the first is of the whole picture, the others of crops whose sides are
    at least the share `smallest` of its. Colours are jittered as `draw_jitter` has it."""

    def chance(share: float) -> Tensor:
        return torch.rand(count, generator=generator) < share

    def spread(*shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=generator) * 2 - 1

    half = smallest + (1 - smallest) * torch.rand(count, generator=generator)
    half[0] = 1.0
    middle = spread(2) * (1 - half)[:, None]
    crops = torch.stack([middle, half[:, None].expand(-1, 2)], dim=1)
    mirror = torch.where(chance(MIRRORED), -1.0, 1.0)
    moved = chance(AFFINE)[:, None]
    plane = _affine(spread() * moved[:, 0] * (TURN * pi / 180), spread(2) * moved * (2 * SHIFT), size)
    pulled = torch.rand(count, 4, 2, generator=generator) * LEAN * chance(PERSPECTIVE)[:, None, None]
    plane = plane @ _perspective(pulled)
    plane = (
        torch.diag_embed(torch.stack([mirror, torch.ones_like(mirror), torch.ones_like(mirror)], 1)) @ plane
    )
    jitter = draw_jitter(generator, count, COLOUR, hue=hue, grey=grey)
    return Views(_mapped(plane, size), crops, jitter)


def _affine(angle: Tensor, shift: Tensor, size: tuple[int, int]) -> Tensor:
    """(V, 3, 3): turns by `angle` in pixels of a view of `size`, and shifts (V, 2)."""
    aspect = size[0] / size[1]
    cos, sin = angle.cos(), angle.sin()
    plane = torch.eye(3).repeat(len(angle), 1, 1)
    plane[:, 0, 0], plane[:, 0, 1] = cos, -sin * aspect
    plane[:, 1, 0], plane[:, 1, 1] = sin / aspect, cos
    plane[:, :2, 2] = shift
    return plane


def _perspective(pulled: Tensor) -> Tensor:
    """(V, 3, 3): the map to the square of the quadrangle whose corners are `pulled` (V, 4, 2) in from its."""
    corners = torch.tensor([[-1.0, -1], [1, -1], [1, 1], [-1, 1]])
    start, end = (corners - corners * pulled).double(), corners.expand_as(pulled).double()
    x, y, one, none = *start.unbind(-1), torch.ones_like(start[..., 0]), torch.zeros_like(start[..., 0])
    u, v = end.unbind(-1)
    # u (g x + h y + 1) = a x + b y + c, and the same for v: eight equations for a ... h.
    rows_u = torch.stack([x, y, one, none, none, none, -u * x, -u * y], -1)
    rows_v = torch.stack([none, none, none, x, y, one, -v * x, -v * y], -1)
    found = (torch.inverse(torch.cat([rows_u, rows_v], 1)) @ torch.cat([u, v], 1)[..., None])[..., 0]
    return torch.cat([found, torch.ones_like(found[:, :1])], 1).view(-1, 3, 3).float()


def _mapped(plane: Tensor, size: tuple[int, int]) -> Tensor:
    """(V, h, w, 2): the middles of the pixels of a view, through maps of the plane (V, 3, 3)."""
    y, x = ((torch.arange(side) + 0.5) * (2 / side) - 1 for side in size)
    there = torch.stack([*torch.meshgrid(x, y, indexing="xy"), torch.ones(size)], -1)  # (h, w, 3)
    found = torch.einsum("vrc,hwc->vhwr", plane, there)
    return found[..., :2] / found[..., 2:].clamp(min=1e-3)


MOST = 1.7
"""How many times larger than a view a picture may be before sampling would skip pixels of it."""


def _shrunk(picture: Tensor, size: tuple[int, int]) -> Tensor:
    """The picture, made smaller where it has far more pixels than views of it."""
    height, width = (
        min(have, round(view * MOST)) for have, view in zip(picture.shape[-2:], size, strict=True)
    )
    if (height, width) == tuple(picture.shape[-2:]):
        return picture
    return interpolate(picture, (height, width), mode="bilinear", antialias=True, align_corners=False)
