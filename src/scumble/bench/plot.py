"""Small charts: curves of points with a word at each, and bars in groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw, ImageFont

__all__ = ["Point", "bars", "plot"]

Point = tuple[float, float, str]
"""x, y and what stands at it."""

WIDTH, HEIGHT, LEFT, MARGIN, LINE = 640, 420, 64, 24, 18
"""In pixels: of the whole, the room for numbers on the left, around, and of a line of text."""
INK, PALE = (60, 60, 60), (225, 225, 225)
COLOURS = ((31, 95, 180), (214, 96, 20), (24, 128, 84), (140, 60, 140))
TICKS = 5
NAMES, VALUES = 190, 56
"""Pixels for the names of bars on the left, and for their values on either side."""


def plot(curves: Mapping[str, Sequence[Point]], *, across: str, up: str) -> Image.Image:
    """The curves, each a name and its points in order, over axes with the names `across` and `up`."""
    points = [point for curve in curves.values() for point in curve]
    xs, ys = _span([x for x, _, _ in points]), _span([y for _, y, _ in points])
    top, bottom = MARGIN + LINE * len(curves), HEIGHT - MARGIN - 2 * LINE
    sheet = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)

    def place(x: float, y: float) -> tuple[float, float]:
        right = (x - xs[0]) / (xs[1] - xs[0]) * (WIDTH - LEFT - MARGIN)
        return LEFT + right, bottom - (y - ys[0]) / (ys[1] - ys[0]) * (bottom - top)

    for i in range(TICKS + 1):
        x, y = (low + (high - low) * i / TICKS for low, high in (xs, ys))
        draw.line([place(x, ys[0]), place(x, ys[1])], fill=PALE)
        draw.line([place(xs[0], y), place(xs[1], y)], fill=PALE)
        draw.text((place(x, ys[0])[0], bottom + 4), f"{x:.2f}", fill=INK, font=font, anchor="mt")
        draw.text((LEFT - 6, place(xs[0], y)[1]), f"{y:.2f}", fill=INK, font=font, anchor="rm")
    draw.text(((LEFT + WIDTH) / 2, HEIGHT - MARGIN / 2), across, fill=INK, font=font, anchor="mb")
    draw.text((WIDTH - MARGIN, MARGIN / 2), up, fill=INK, font=font, anchor="rt")
    for row, (name, curve) in enumerate(curves.items()):
        colour, at = COLOURS[row % len(COLOURS)], [place(x, y) for x, y, _ in curve]
        draw.text((LEFT, MARGIN / 2 + LINE * row), name, fill=colour, font=font, anchor="lt")
        if len(at) > 1:
            draw.line(at, fill=colour, width=2)
        for (x, y), (_, _, word) in zip(at, curve, strict=True):
            draw.ellipse((x - 3, y - 3, x + 3, y + 3), fill=colour)
            draw.text((x + 5, y - 3), word, fill=colour, font=font, anchor="lb")
    return sheet


def bars(groups: Mapping[str, Mapping[str, float]]) -> Image.Image:
    """A bar for each value, from zero, with its name and the value written at it; each group under its own
    heading and on its own scale.
    """
    rows = sum(len(group) + 2 for group in groups.values())
    sheet = Image.new("RGB", (WIDTH, 2 * MARGIN + LINE * rows - LINE), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    y = MARGIN
    for row, (heading, group) in enumerate(groups.items()):
        draw.text((MARGIN, y), heading, fill=INK, font=font, anchor="lt")
        low, high = min(0.0, *group.values()), max(0.0, *group.values())
        left, right = MARGIN + NAMES + VALUES, WIDTH - MARGIN - VALUES
        unit = (right - left) / ((high - low) or 1.0)
        zero = left - low * unit
        for name, value in group.items():
            y += LINE
            end, middle = zero + value * unit, y + LINE / 2
            box = (min(zero, end), y + 3, max(zero, end), y + LINE - 3)
            draw.rectangle(box, fill=COLOURS[row % len(COLOURS)])
            draw.text((MARGIN + NAMES, middle), name, fill=INK, font=font, anchor="rm")
            side = ("lm", 5) if value >= 0 else ("rm", -5)
            draw.text((end + side[1], middle), f"{value:.3g}", fill=INK, font=font, anchor=side[0])
        draw.line((zero, y - LINE * (len(group) - 1), zero, y + LINE), fill=INK)
        y += 2 * LINE
    return sheet


def _span(values: Sequence[float]) -> tuple[float, float]:
    """From the least to the largest, with room around; wide enough to divide by."""
    low, high = min(values), max(values)
    room = 0.08 * (high - low) or 0.5
    return low - room, high + room
