"""Stroke paintings simulated from photographs, as Meng et al. 2021 do to have guides by the thousand."""

from __future__ import annotations

from PIL import Image, ImageFilter

__all__ = ["SIDE", "stroke_painting"]

SIDE = 256
"""Short side, in pixels, of the pictures that the paper filters."""


def stroke_painting(image: Image.Image, *, colours: int = 6, kernel: int = 23) -> Image.Image:
    """`image` (RGB) as if painted with a broad brush and few colours, in the same size.

    A median filter of `kernel` x `kernel` pixels for a short side of 256, in proportion for smaller pictures;
    then the adaptive palette of `colours` colours. Larger pictures are filtered at a short side of 256 and
    enlarged before the palette, so that contours stay smooth. The defaults are the paper's.
    """
    reduction = max(1.0, min(image.size) / SIDE)
    small = image
    if reduction > 1:
        width, height = (max(1, round(side / reduction)) for side in image.size)
        small = image.resize((width, height), Image.Resampling.BOX)
    blobs = small.filter(ImageFilter.MedianFilter(_odd(kernel * min(small.size) / SIDE)))
    if blobs.size != image.size:
        blobs = blobs.resize(image.size, Image.Resampling.BICUBIC)
    return blobs.convert("P", palette=Image.Palette.ADAPTIVE, colors=colours).convert("RGB")


def _odd(size: float) -> int:
    """The odd number nearest to `size`, 1 at least."""
    return max(1, 2 * round((size - 1) / 2) + 1)
