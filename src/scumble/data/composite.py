"""One picture pasted onto another, and the mask of what was pasted."""

from __future__ import annotations

from PIL import Image

from scumble.core.errors import ImageError
from scumble.core.images import MAX_PIXELS

__all__ = ["composite"]


def composite(
    image: Image.Image,
    patch: Image.Image,
    *,
    at: tuple[float, float],
    scale: float = 1.0,
    rotate: float = 0.0,
) -> tuple[Image.Image, Image.Image]:
    """`image` (RGB) with `patch` (RGB or RGBA) over it, and a mask (L) that is white where it was pasted.

    The centre of the patch comes to `at`, x and y in pixels of the image from its top left corner, after it
    was made `scale` times as large and turned by `rotate` degrees counter-clockwise. What sticks out is cut
    off. Raises ImageError where nothing of the patch is on the image, or the patch would be too large.
    """
    layer = _turned(patch.convert("RGBA"), scale, rotate)
    left, top = round(at[0] - layer.width / 2), round(at[1] - layer.height / 2)
    sheet = Image.new("RGBA", image.size)
    sheet.paste(layer, (left, top))
    alpha = sheet.getchannel("A")
    if alpha.getbbox() is None:
        raise ImageError(
            f"The patch at {at[0]:g},{at[1]:g} does not touch the picture.",
            f"It has {image.width} x {image.height} pixels; x and y are where the patch's centre goes.",
        )
    result = Image.composite(sheet.convert("RGB"), image, alpha)
    return result, alpha.point(lambda value: 255 if value else 0)


def _turned(patch: Image.Image, scale: float, rotate: float) -> Image.Image:
    """Pillow multiplies colours by alpha before it resamples, so what is transparent does not bleed in."""
    width, height = (max(1, round(side * scale)) for side in patch.size)
    if width * height > MAX_PIXELS:
        raise ImageError(f"At scale {scale:g} the patch would have {width} x {height} pixels.", "Take less.")
    if (width, height) != patch.size:
        patch = patch.resize((width, height), Image.Resampling.LANCZOS)
    return patch.rotate(rotate, Image.Resampling.BICUBIC, expand=True) if rotate % 360 else patch
