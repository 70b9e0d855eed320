"""Pictures over two settings as one sheet, the value of each beside its row or over its column."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

__all__ = ["labelled", "shrunk"]

SIDE = 192
"""Longest side of a picture in the sheet, in pixels."""
LINE, MARGIN, INK = 16, 8, (60, 60, 60)


def labelled(
    images: Sequence[Sequence[Image.Image]], *, columns: Sequence[str], rows: Sequence[str]
) -> Image.Image:
    """Rows of pictures of one size, made smaller if they are large, in black on white."""
    font = ImageFont.load_default(11)
    shown = [[shrunk(image, SIDE) for image in row] for row in images]
    width, height = shown[0][0].size
    cell = (max(width, round(max(map(font.getlength, columns)))) + MARGIN, max(height, LINE) + MARGIN)
    left, top = round(max(map(font.getlength, rows))) + 2 * MARGIN, LINE + MARGIN
    sheet = Image.new("RGB", (left + cell[0] * len(columns), top + cell[1] * len(rows)), "white")
    draw = ImageDraw.Draw(sheet)
    for i, label in enumerate(columns):
        draw.text((left + i * cell[0] + width / 2, top / 2), label, fill=INK, font=font, anchor="mm")
    for j, label in enumerate(rows):
        draw.text((MARGIN, top + j * cell[1] + height / 2), label, fill=INK, font=font, anchor="lm")
        for i, image in enumerate(shown[j]):
            sheet.paste(image, (left + i * cell[0], top + j * cell[1]))
    return sheet


def shrunk(image: Image.Image, side: int) -> Image.Image:
    """A copy of `image`, smaller if it is longer than `side` pixels."""
    copy = image.copy()
    copy.thumbnail((side, side))
    return copy
