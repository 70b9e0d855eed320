"""Pictures in and out, and the ranges that pixels have, in one place.

| name | type | range | shape |
|---|---|---|---|
| image | `PIL.Image`, mode RGB | 0 to 255, sRGB | H x W |
| uint8 | tensor, uint8 | 0 to 255 | (B, 3, H, W) |
| unit | tensor, float32 | [0, 1] | (B, 3, H, W) |
| model | tensor, float32 | [-1, 1] | (B, 3, H, W) |

`image -> uint8 -> unit -> model` and all the way back gives the same image bit for bit.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from math import ceil, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import pad

from scumble.core.decoding import DECODER_ERRORS, MAX_PIXELS, decode, plain
from scumble.core.errors import ImageError, NumericError
from scumble.core.files import atomic_write, read_bytes

__all__ = [
    "MAX_BYTES",
    "MAX_PIXELS",
    "SUFFIXES",
    "Picture",
    "check_size",
    "crop_back",
    "fitted",
    "from_model",
    "from_uint8",
    "from_unit",
    "grid",
    "pad_to_multiple",
    "read_image",
    "read_mask",
    "save_image",
    "shape_of",
    "to_model",
    "to_uint8",
    "to_unit",
]

MAX_BYTES = 256 * 2**20
"""The longest picture file read, in bytes."""

Colour = tuple[int, int, int]
WHITE: Colour = (255, 255, 255)

_FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    ".png": ("PNG", {}),
    ".jpg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".jpeg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".webp": ("WEBP", {"lossless": True, "exact": True}),
}
SUFFIXES = tuple(_FORMATS)
"""Of the files that pictures are read from and written to."""
_LONGEST = {"JPEG": 65_500, "WEBP": 16_383}
"""The most pixels along a side that a file of a format holds."""
SHEET_PIXELS, SHEET_SIDE = 40_000_000, _LONGEST["WEBP"]
"""The largest sheet of pictures: what still opens everywhere, in every format."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture as read from a file: upright, 8-bit sRGB, without metadata.

    `image` has mode RGB. `alpha` has mode L and the same size, or is None where every pixel is opaque.
    """

    image: Image.Image
    alpha: Image.Image | None = None

    @classmethod
    def of(cls, image: Image.Image) -> Picture:
        """A picture in memory, of any mode, as if read from a file."""
        return cls(*plain(image))

    def on(self, background: Colour) -> Image.Image:
        """The picture laid over one colour: `alpha * image + (1 - alpha) * background`, mode RGB."""
        if self.alpha is None:
            return self.image
        return Image.composite(self.image, Image.new("RGB", self.image.size, background), self.alpha)


# Files


def read_image(
    source: Path | str | bytes, *, background: Colour | None = WHITE, max_pixels: int = MAX_PIXELS
) -> Picture:
    """Read a PNG, JPEG or WebP file, or the bytes of one.

    EXIF orientation and colour profile are applied; grey, palette, CMYK and 16-bit pictures become 8-bit RGB.
    Where there is transparency the image is laid over `background`, and stays as stored if that is None;
    `alpha` is there either way. Raises ImageError with one sentence for a file that is not one whole picture,
    and before decoding it for one of more than `max_pixels` or MAX_BYTES.
    """
    if isinstance(source, bytes):
        content, name = source, "The picture"
    else:
        content, name = read_bytes(source, max_bytes=MAX_BYTES, error=ImageError), str(source)
    image, alpha = decode(content, name, max_pixels=min(max_pixels, MAX_PIXELS))
    if alpha is not None and alpha.getextrema() == (255, 255):
        alpha = None
    picture = Picture(image, alpha)
    return picture if background is None else Picture(picture.on(background), alpha)


def read_mask(source: Path | str | bytes, *, max_pixels: int = MAX_PIXELS) -> Tensor:
    """A mask (1, 1, H, W) in [0, 1] from a picture file: 1 (white) may change, 0 (black) and transparent may
    not.
    """
    image = read_image(source, background=(0, 0, 0), max_pixels=max_pixels).image
    return _tensor(image.convert("L")) / 255


def shape_of(path: Path) -> tuple[tuple[int, int], str]:
    """Size (W, H) and Pillow's mode of a picture file; only its header is read. Raises ImageError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's remarks on metadata, and on sizes that are not decoded
            with Image.open(path, formats=("PNG", "JPEG", "WEBP")) as image:
                return image.size, image.mode
    except DECODER_ERRORS as problem:
        raise ImageError(f"{path} cannot be read as a picture.") from problem


def save_image(image: Image.Image, path: Path | str, **options: Any) -> None:
    """Write a picture to a .png, .jpg, .jpeg or .webp file, whole or not at all.

    WebP is lossless and JPEG of quality 95 unless `options`, Pillow's own, say otherwise. Nothing is written
    that is not in the pixels or in `options`. Raises ImageError for another suffix, for transparency in a
    JPEG and for a picture that is too long for the format; DiskFullError.
    """
    path = Path(path)
    kind, defaults = _format(path)
    check_size(path, image.size, image.mode)
    bare = image.copy()
    bare.info.clear()
    # Encoded in memory: Pillow's own writing to a file loses the reason when the disk is full.
    encoded = BytesIO()
    bare.save(encoded, kind, **(defaults | options))
    atomic_write(path, encoded.getvalue())


def check_size(path: Path | str, size: tuple[int, int], mode: str = "RGB") -> None:
    """Raises ImageError if a file of the kind that `path` names holds no picture of `size` (W, H), in pixels,
    and of Pillow's `mode`: for whoever knows them before the work.
    """
    kind, _ = _format(Path(path))
    if kind == "JPEG" and mode != "RGB":
        raise ImageError(f"A JPEG file cannot hold a picture of mode {mode}.", "Save it as PNG.")
    if max(size) > (longest := _LONGEST.get(kind, max(size))):
        raise ImageError(
            f"A {kind} file holds {longest:,} pixels a side, and this is {size[0]} x {size[1]}.",
            "Save it as PNG.",
        )


def _format(path: Path) -> tuple[str, dict[str, Any]]:
    """Pillow's name of the format and how it is written."""
    if path.suffix.lower() not in _FORMATS:
        raise ImageError(f"{path} has no suffix of a picture.", f"Use one of {', '.join(_FORMATS)}.")
    return _FORMATS[path.suffix.lower()]


# Ranges


def to_unit(images: Image.Image | Sequence[Image.Image]) -> Tensor:
    """Pictures of one size as (B, 3, H, W) float32 in [0, 1]. Raises ImageError if sizes differ."""
    images = [images] if isinstance(images, Image.Image) else images
    if len(sizes := {image.size for image in images}) != 1:
        raise ImageError(f"Pictures of {len(sizes)} different sizes cannot go into one batch.")
    return from_uint8(torch.cat([_tensor(image.convert("RGB")) for image in images]))


def from_unit(pixels: Tensor) -> list[Image.Image]:
    """The B pictures of (B, 3, H, W) in [0, 1]; values outside are clipped. Raises NumericError for NaN."""
    arrays = to_uint8(pixels).permute(0, 2, 3, 1).cpu().numpy()  # (B, H, W, 3)
    return [Image.fromarray(array) for array in arrays]


def to_uint8(unit: Tensor) -> Tensor:
    """[0, 1] to uint8, clipped and rounded to the nearest. Raises NumericError for NaN."""
    if bool(unit.isnan().any()):
        raise NumericError("The picture holds NaN instead of colours.", "Try float32, or a smaller scale.")
    return (unit.float().clamp(0, 1) * 255).round().to(torch.uint8)


def from_uint8(pixels: Tensor) -> Tensor:
    """uint8 to float32 in [0, 1]."""
    return pixels.float() / 255


def to_model(unit: Tensor) -> Tensor:
    """[0, 1] to [-1, 1], the range in which networks see pictures."""
    return unit * 2 - 1


def from_model(pixels: Tensor) -> Tensor:
    """[-1, 1] to [0, 1], not clipped."""
    return (pixels + 1) / 2


# Sizes


def pad_to_multiple(pixels: Tensor, multiple: int) -> Tensor:
    """(B, C, H, W) continued by its edge pixels, below and to the right, to multiples of `multiple`."""
    height, width = pixels.shape[-2:]
    below, right = -height % multiple, -width % multiple
    return pad(pixels, (0, right, 0, below), mode="replicate") if below or right else pixels


def crop_back(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """The part of a padded (B, C, H', W') that was there before: (B, C, H, W), `size` being (H, W)."""
    return pixels[..., : size[0], : size[1]]


def fitted(image: Image.Image, count: int) -> Image.Image:
    """`image` itself, or smaller where a `grid` of `count` of its size would have more than SHEET_PIXELS or a
    side over SHEET_SIDE. What was fitted once stays as it is.
    """
    columns, width, height = ceil(sqrt(count)), image.width, image.height
    rows = ceil(count / columns)
    sides = SHEET_SIDE / (columns * width), SHEET_SIDE / (rows * height)
    share = min(1.0, *sides, sqrt(SHEET_PIXELS / (columns * width * rows * height)))
    if share == 1:
        return image
    return image.resize((max(1, int(share * width)), max(1, int(share * height))), Image.Resampling.BOX)


def grid(
    images: Sequence[Image.Image], *, columns: int | None = None, gap: int = 0, background: Colour = WHITE
) -> Image.Image:
    """A contact sheet, row by row, each picture centred in a cell of the largest width and height.

    As many columns as make it nearest to square, if not given.
    """
    if not images:
        raise ImageError("A sheet of no pictures cannot be made.")
    columns = columns or ceil(sqrt(len(images)))
    width, height = max(i.width for i in images), max(i.height for i in images)
    rows = ceil(len(images) / columns)
    size = (columns * (width + gap) - gap, rows * (height + gap) - gap)
    sheet = Image.new("RGB", size, background)
    for index, image in enumerate(images):
        row, column = divmod(index, columns)
        left = column * (width + gap) + (width - image.width) // 2
        top = row * (height + gap) + (height - image.height) // 2
        sheet.paste(image, (left, top))
    return sheet


def _tensor(image: Image.Image) -> Tensor:
    """(1, C, H, W) uint8."""
    array = np.array(image)
    tensor = torch.as_tensor(array.reshape(1, image.height, image.width, -1))
    return tensor.permute(0, 3, 1, 2).contiguous()
