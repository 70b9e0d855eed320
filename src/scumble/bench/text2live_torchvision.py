"""The transforms of torchvision that the original code of Text2LIVE calls, for machines without it: on
tensors, and on PIL images where that code has these. Written from the library's documentation; its `Resize`
of tensors smooths nothing, as it did not when that code was written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from math import cos, pi, sin
from typing import Any

import torch
from PIL import Image, ImageEnhance
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, interpolate

from scumble.core.images import to_unit

__all__ = ["FUNCTIONAL", "TRANSFORMS"]


class _Mode(Enum):
    NEAREST, BILINEAR, BICUBIC = "nearest", "bilinear", "bicubic"


Picture = Any
"""A PIL image, or a tensor (..., 3, H, W) in [0, 1]."""
Change = Callable[[Picture], Picture]


class _Compose:
    def __init__(self, transforms: Sequence[Change]) -> None:
        self.transforms = list(transforms)

    def __call__(self, picture: Picture) -> Picture:
        for change in self.transforms:
            picture = change(picture)
        return picture


def _applied(changes: Sequence[Change], p: float = 0.5) -> Change:
    whole = _Compose(changes)
    return lambda picture: whole(picture) if _chance(p) else picture


def _turning(degrees: float, translate: Sequence[float], fill: float = 0, **_: Any) -> Change:
    return lambda picture: _moved(picture, degrees, translate, fill)


def _tilting(distortion_scale: float = 0.5, p: float = 0.5, fill: float = 0, **_: Any) -> Change:
    return lambda picture: _tilted(picture, distortion_scale, fill) if _chance(p) else picture


def _normalised(mean: Sequence[float], std: Sequence[float]) -> Change:
    middle, spread = (torch.tensor(values).view(-1, 1, 1) for values in (mean, std))
    return lambda picture: (picture - middle.to(picture)) / spread.to(picture)


def _chance(p: float) -> bool:
    return bool(torch.rand(1) < p)


def _between(low: float, high: float) -> float:
    return float(torch.empty(1).uniform_(low, high))


def _size(picture: Picture) -> tuple[int, int]:
    """(H, W)."""
    if isinstance(picture, Tensor):
        return picture.shape[-2], picture.shape[-1]
    return picture.height, picture.width


def _resized(picture: Picture, size: Any, longest: int | None) -> Picture:
    """To (h, w), or to a shorter side, the longer at most `longest`."""
    height, width = _size(picture)
    if isinstance(size, int):
        factor = size / min(height, width)
        if longest is not None:
            factor = min(factor, longest / max(height, width))
        size = int(height * factor), int(width * factor)
    if tuple(size) == (height, width):
        return picture
    if isinstance(picture, Tensor):
        return interpolate(picture, tuple(size), mode="bilinear", align_corners=False)
    return picture.resize((size[1], size[0]), Image.Resampling.BILINEAR)


def _middle(room: int) -> int:
    return room // 2


def _anywhere(room: int) -> int:
    return int(torch.randint(0, room + 1, (1,)))


def _cut(picture: Picture, size: tuple[int, int], place: Callable[[int], int]) -> Picture:
    height, width = _size(picture)
    top, left = place(height - size[0]), place(width - size[1])
    if isinstance(picture, Tensor):
        return picture[..., top : top + size[0], left : left + size[1]]
    return picture.crop((left, top, left + size[1], top + size[0]))


def _mirrored(picture: Picture) -> Picture:
    if isinstance(picture, Tensor):
        return picture.flip(-1)
    return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def _grey(picture: Tensor) -> Tensor:
    """(..., 1, H, W), by Rec. 601."""
    red, green, blue = picture.unbind(-3)
    return (0.299 * red + 0.587 * green + 0.114 * blue).unsqueeze(-3)


def _jittered(picture: Picture, most: dict[str, float]) -> Picture:
    """Brightness, contrast, saturation, hue, in an order by chance."""
    changes: dict[str, Callable[[Any, float], Any]]
    changes = _tensor_changes if isinstance(picture, Tensor) else _image_changes
    names = ("brightness", "contrast", "saturation", "hue")
    for number in torch.randperm(len(names)).tolist():
        name = names[number]
        middle = 0.0 if name == "hue" else 1.0
        picture = changes[name](picture, _between(middle - most[name], middle + most[name]))
    return picture


def _blend(picture: Tensor, other: Any, share: float) -> Tensor:
    return (share * picture + (1 - share) * other).clamp(0, 1)


def _hued(picture: Tensor, turn: float) -> Tensor:
    """The hue of HSV turned by a share of the circle."""
    most, where = picture.max(-3)
    least = picture.amin(-3)
    range_ = most - least
    still = range_ == 0
    red, green, blue = picture.unbind(-3)
    across = torch.where(still, torch.ones_like(range_), range_)
    sixth = torch.stack([(green - blue) / across, 2 + (blue - red) / across, 4 + (red - green) / across], -3)
    hue = sixth.gather(-3, where.unsqueeze(-3)).squeeze(-3) + 6 * turn
    saturation = range_ / torch.where(most == 0, torch.ones_like(most), most)
    # Each channel of a colour of hue h is V (1 - S clamp(min(k, 4 - k), 0, 1)) with k = (n + h) mod 6.
    parts = [(n + hue) % 6 for n in (5, 3, 1)]
    return torch.stack([most * (1 - saturation * torch.minimum(k, 4 - k).clamp(0, 1)) for k in parts], -3)


def _image_hued(image: Image.Image, turn: float) -> Image.Image:
    hue, *rest = image.convert("HSV").split()
    turned = hue.point([(level + round(turn * 255)) % 256 for level in range(256)])
    return Image.merge("HSV", [turned, *rest]).convert("RGB")


_tensor_changes: dict[str, Callable[[Tensor, float], Tensor]] = {
    "brightness": lambda picture, share: _blend(picture, 0.0, share),
    "contrast": lambda picture, share: _blend(
        picture, _grey(picture).mean((-3, -2, -1), keepdim=True), share
    ),
    "saturation": lambda picture, share: _blend(picture, _grey(picture), share),
    "hue": _hued,
}
_image_changes: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "brightness": lambda image, share: ImageEnhance.Brightness(image).enhance(share),
    "contrast": lambda image, share: ImageEnhance.Contrast(image).enhance(share),
    "saturation": lambda image, share: ImageEnhance.Color(image).enhance(share),
    "hue": _image_hued,
}


def _moved(picture: Tensor, degrees: float, shares: Sequence[float], fill: float) -> Tensor:
    """Turned about the middle, and shifted by whole pixels."""
    height, width = _size(picture)
    angle = _between(-degrees, degrees) * pi / 180
    most = shares[0] * width, shares[1] * height
    x, y = (round(_between(-length, length)) for length in most)
    c, s, aspect = cos(angle), sin(angle), height / width
    # Where each pixel comes from: the shift taken back, then the turn, in units of half sides.
    back_x, back_y = -2 * x / width, -2 * y / height
    rows = [
        [c, s * aspect, c * back_x + s * aspect * back_y],
        [-s / aspect, c, -s / aspect * back_x + c * back_y],
    ]
    grid = affine_grid(picture.new_tensor([rows]), [1, 1, height, width], align_corners=False)
    return _sampled(picture, grid, fill)


def _tilted(picture: Tensor, scale: float, fill: float) -> Tensor:
    """Seen from another side: each corner pulled in by up to `scale` of half the sides."""
    height, width = _size(picture)
    room = int(scale * (width // 2)), int(scale * (height // 2))
    start = [(0, 0), (width - 1, 0), (width - 1, height - 1), (0, height - 1)]
    signs = [(1, 1), (-1, 1), (-1, -1), (1, -1)]
    end = [
        tuple(edge + sign * _anywhere(most) for edge, sign, most in zip(corner, towards, room, strict=True))
        for corner, towards in zip(start, signs, strict=True)
    ]
    rows: list[tuple[float, ...]] = []
    for (u, v), (x, y) in zip(start, end, strict=True):  # x = end -> u = start
        rows += [(x, y, 1, 0, 0, 0, -u * x, -u * y), (0, 0, 0, x, y, 1, -v * x, -v * y)]
    wanted = torch.tensor([float(value) for corner in start for value in corner], dtype=torch.float64)
    plane = torch.cat([torch.linalg.solve(torch.tensor(rows, dtype=torch.float64), wanted), torch.ones(1)])
    a = plane.view(3, 3).to(picture)
    at_y, at_x = torch.meshgrid(*(torch.arange(n) + 0.5 for n in (height, width)), indexing="ij")
    found = torch.stack([at_x, at_y, torch.ones_like(at_x)], -1).to(picture) @ a.T  # (H, W, 3)
    grid = found[..., :2] / found[..., 2:] * 2 / picture.new_tensor([width, height]) - 1
    return _sampled(picture, grid[None], fill)


def _sampled(picture: Tensor, grid: Tensor, fill: float) -> Tensor:
    """A picture (1, 3, H, W) at the places of a grid; `fill` where there is none of it."""
    seen = torch.cat([picture, torch.ones_like(picture[:, :1])], 1)
    found = grid_sample(seen, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    colours, share = found[:, :3], found[:, 3:]
    return colours + (1 - share) * fill


TRANSFORMS: dict[str, Any] = {
    "InterpolationMode": _Mode,
    "Compose": _Compose,
    "Lambda": lambda change: change,
    "ToTensor": lambda: lambda picture: to_unit(picture)[0],
    "Normalize": _normalised,
    "Resize": lambda size, max_size=None: lambda picture: _resized(picture, size, max_size),
    "CenterCrop": lambda size: lambda picture: _cut(picture, size, _middle),
    "RandomCrop": lambda size: lambda picture: _cut(picture, size, _anywhere),
    "RandomApply": _applied,
    "RandomHorizontalFlip": lambda p=0.5: _applied([_mirrored], p),
    "RandomGrayscale": lambda p=0.1: _applied([lambda picture: _grey(picture).expand_as(picture)], p),
    "ColorJitter": lambda **most: lambda picture: _jittered(picture, most),
    "RandomAffine": _turning,
    "RandomPerspective": _tilting,
}
"""Names of `torchvision.transforms`."""
FUNCTIONAL: dict[str, Any] = {
    "InterpolationMode": _Mode,
    # Imported there, and never called for a picture:
    **dict.fromkeys(("_interpolation_modes_from_int", "get_image_num_channels", "get_image_size")),
    **dict.fromkeys(("perspective", "crop")),
}
"""Names of `torchvision.transforms.functional`."""
