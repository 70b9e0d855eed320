"""From the bytes of a picture file, which somebody else wrote, to pixels.

The format is told by the content, never by the name, and is one of PNG, JPEG and WebP; the size is read from
the header and checked before anything is decoded; several frames, or fewer bytes than the header promises,
are refused. Pillow bounds the text that a PNG may unpack to (1 MB a chunk, 64 MB in all). Whatever Pillow
raises becomes one ImageError.
"""

from __future__ import annotations

import struct
import warnings
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from io import BytesIO
from typing import Any, cast
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms, UnidentifiedImageError
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from scumble.core.errors import ImageError

__all__ = ["DECODER_ERRORS", "MAX_PIXELS", "decode", "plain"]

MAX_PIXELS = 80_000_000
"""The most pixels a picture may have, unless a caller allows fewer."""

_READERS: dict[str, type[ImageFile]] = {"PNG": PngImageFile, "JPEG": JpegImageFile, "WebP": WebPImageFile}
_SIGNATURES = (
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (0, b"\xff\xd8\xff", "JPEG"),
    (8, b"WEBP", "WebP"),
    (0, b"GIF8", "GIF"),
    (0, b"BM", "BMP"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (4, b"ftyp", "HEIC, AVIF or video"),
)
_SECOND_BYTES = {"RGB;16B": "RGB;16L", "RGBA;16B": "RGBA;16L"}
"""Pillow's layouts that take the first byte of each 16-bit channel, and those that take the second."""
DECODER_ERRORS = (
    OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, EOFError, AttributeError,
    NotImplementedError, struct.error, UnidentifiedImageError, Image.DecompressionBombError,
)  # fmt: skip
"""What Pillow's parsers, written for sound files, are known to raise on damaged ones."""

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation -> what makes the picture upright (EXIF 2.32, table 9)."""


def decode(
    content: bytes, name: str, *, max_pixels: int = MAX_PIXELS
) -> tuple[Image.Image, Image.Image | None]:
    """The picture upright in 8-bit sRGB, mode RGB, and its alpha, mode L, or None where it has none.

    Colours under the alpha are as stored. 16-bit channels are rounded to 8. An embedded colour profile other
    than sRGB is applied, and ignored if it is damaged. Raises ImageError, with `name` in it, for anything
    that is not one whole PNG, JPEG or WebP picture of at most `max_pixels`.
    """
    kind = _kind(content, name)
    with _one_sentence(name, kind):
        if kind == "WebP":  # whose reader sets up its canvas as soon as it is opened
            _check_size(_webp_size(content), name, max_pixels)
        with _READERS[kind](BytesIO(content)) as image:
            _check_size(image.size, name, max_pixels)
            if getattr(image, "n_frames", 1) > 1:
                raise ImageError(f"{name} is animated.", "Save one of its frames as a picture of its own.")
            layout = image.tile[0].args if kind == "PNG" and image.tile else None
            image.load()
            return _plain(image, _sixteen_bits(image, content, layout))


def plain(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """The same of a picture in memory, of any mode: upright, in 8-bit sRGB, and its alpha or None."""
    deep = image.mode.startswith("I")  # 16 bits, in Pillow's older versions as numbers of 32
    return _plain(image, np.asarray(image).clip(0, 65535).astype(np.uint16)[..., None] if deep else None)


def _plain(image: Image.Image, deep: NDArray[np.uint16] | None) -> tuple[Image.Image, Image.Image | None]:
    """What `decode` gives for a loaded picture, whose 16-bit channels (H, W, C) are `deep` if it has any."""
    turn = _UPRIGHT.get(_orientation(image))
    colours, alpha = _separated(image) if deep is None else _rounded(deep, image.info)
    colours = _to_srgb(colours, image.info.get("icc_profile"))
    if turn is not None:
        colours, alpha = colours.transpose(turn), alpha.transpose(turn) if alpha else None
    for result in filter(None, (colours, alpha)):
        result.info.clear()  # else a later save would pass on profile, place and camera of the original
    return colours, alpha


def _kind(content: bytes, name: str) -> str:
    if not content:
        raise ImageError(f"{name} is empty: it has zero bytes.")
    kind = next((k for start, mark, k in _SIGNATURES if content[start : start + len(mark)] == mark), "")
    if kind not in _READERS:
        raise ImageError(
            f"{name} is {kind or 'no picture'}.", "Pictures are read from PNG, JPEG and WebP files."
        )
    return kind


@contextmanager
def _one_sentence(name: str, kind: str) -> Generator[None]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's remarks on metadata, which is not kept anyway
            yield
    except DECODER_ERRORS as problem:
        reason = str(problem).splitlines()[0][:120] if str(problem) else type(problem).__name__
        raise ImageError(
            f"{name} is not a sound {kind} file: {reason}.", "It may be cut short; get it again."
        ) from problem


def _check_size(size: tuple[int, int], name: str, max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise ImageError(
            f"{name} has {width} x {height} pixels, and at most {max_pixels:,} are read.",
            "Make it smaller first.",
        )
    if not width or not height:
        raise ImageError(f"{name} has {width} x {height} pixels: nothing is in it.")


def _webp_size(content: bytes) -> tuple[int, int]:
    """(width, height) from the first chunk (RFC 9649, sections 2.5 to 2.7)."""
    chunk, data = content[12:16], content[20:30]
    if chunk == b"VP8X":
        return 1 + int.from_bytes(data[4:7], "little"), 1 + int.from_bytes(data[7:10], "little")
    if chunk == b"VP8L":
        bits = int.from_bytes(data[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if chunk == b"VP8 ":
        width, height = struct.unpack("<HH", data[6:10])
        return width & 0x3FFF, height & 0x3FFF
    raise ValueError(f"its first chunk is {chunk!r}")


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 (upright) where there is none or the EXIF is damaged."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except DECODER_ERRORS:
        return 1


def _separated(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Colours, mode RGB, L or CMYK, 8 bits a channel; and alpha, mode L, or None."""
    if image.has_transparency_data:
        with_alpha = image.convert("RGBA")
        return with_alpha.convert("RGB"), with_alpha.getchannel("A")
    if image.mode in ("L", "CMYK"):
        return image, None
    return image.convert("L" if image.mode == "1" else "RGB"), None


def _sixteen_bits(image: Image.Image, content: bytes, layout: object) -> NDArray[np.uint16] | None:
    """The channels (H, W, C) of a 16-bit PNG, of most of which Pillow keeps the first byte only; None of any
    other picture.
    """
    if layout == "I;16B":
        return np.asarray(image)[..., None]
    if layout in _SECOND_BYTES:
        with PngImageFile(BytesIO(content)) as low:
            low.tile = [low.tile[0]._replace(args=_SECOND_BYTES[str(layout)])]
            return _joined(np.asarray(image), np.asarray(low))
    if layout == "LA;16B" and content[12:16] == b"IHDR":
        with PngImageFile(BytesIO(_as_rgba(content))) as four:
            parts = np.asarray(four)  # (H, W, 4)
        return _joined(parts[..., ::2], parts[..., 1::2])
    return None


def _joined(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """The numbers of two bytes."""
    return first.astype(np.uint16) * np.uint16(256) + second


def _as_rgba(content: bytes) -> bytes:
    """A PNG of 16-bit grey and alpha as one of 8-bit RGBA: a pixel of either is four bytes."""
    header = content[16:24] + b"\x08\x06" + content[26:29]  # size, depth, colour type and the rest
    return content[:16] + header + struct.pack(">I", crc32(b"IHDR" + header)) + content[33:]


def _rounded(values: NDArray[np.uint16], info: Mapping[Any, Any]) -> tuple[Image.Image, Image.Image | None]:
    """16-bit channels (H, W, C) to 8 bits, 0 to 0 and 65535 to 255: colours, mode RGB or L, and alpha."""
    eight = ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    alpha = None
    if values.shape[2] in (2, 4):
        eight, alpha = eight[..., :-1], eight[..., -1]
    elif isinstance(key := info.get("transparency"), int | tuple):  # the one colour that is transparent
        alpha = np.where((values == key).all(2), 0, 255).astype(np.uint8)
    colours = np.ascontiguousarray(eight if eight.shape[2] == 3 else eight[..., 0])
    return Image.fromarray(colours), None if alpha is None else Image.fromarray(np.ascontiguousarray(alpha))


def _to_srgb(colours: Image.Image, profile: bytes | None) -> Image.Image:
    """Mode RGB in sRGB. A profile that calls itself sRGB is not applied, so that such pictures stay as they
    are bit for bit."""
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(BytesIO(profile))
            if "sRGB" not in ImageCms.getProfileDescription(source):
                target = cast("Any", ImageCms).createProfile("sRGB")  # typed as nothing known
                converted = ImageCms.profileToProfile(colours, source, target, outputMode="RGB")
                return converted or colours.convert("RGB")
        except (ImageCms.PyCMSError, *DECODER_ERRORS):
            return colours.convert("RGB")
    return colours.convert("RGB")
