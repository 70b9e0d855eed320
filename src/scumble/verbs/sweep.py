"""A strip of pictures over t0, with how faithful and how natural each is drawn under it.

Faithfulness is the paper's L2 and, where a person has its weights (see `scumble.models.lpips`), LPIPS too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from scumble.core import rng
from scumble.core.events import Loop
from scumble.core.images import from_unit, to_model
from scumble.data.paintings import Painting
from scumble.methods import sdedit
from scumble.metrics.l2 import l2
from scumble.metrics.realism import picture_residual, realism
from scumble.models import lpips
from scumble.models.model import Model
from scumble.verbs.sheet import shrunk

__all__ = ["T0S", "Tried", "strip", "sweep"]

T0S = tuple(tenth / 10 for tenth in range(11))
"""From the guide itself to a picture drawn from nothing."""

SIDE = 128
"""Longest side of a picture in the strip, in pixels."""
CHART, LINE, MARGIN = 96, 16, 8
"""Height of the chart, of a line of text, and space around, in pixels."""
INK, FAITHFUL, REAL, PERCEIVED = (60, 60, 60), (31, 95, 180), (214, 96, 20), (24, 128, 84)


@dataclass(frozen=True, slots=True)
class Tried:
    """One t0 and what came of it."""

    t0: float
    image: Image.Image
    distance: float
    """L2 to the guide over all pixels, the paper's measure of faithfulness: 0 for the guide itself."""
    realism: float
    """0 for as natural as the guide, 1 for as natural as a picture drawn from nothing."""
    perceived: float | None = None
    """LPIPS to the guide, where its weights are present."""


def sweep(model: Model, painting: Painting, seed: int, config: sdedit.Config) -> Loop[list[Tried]]:
    """Paint with every t0 of `T0S`, all from the same noise, and measure; see `scumble.metrics.realism`.

    What the model's safety checker flags is shown black.
    """
    metric = lpips.present()  # first, so that a file that is amiss is told before the work
    drawn: list[Tensor] = []
    for t0 in T0S:
        drawn += yield from sdedit.edit(model, [painting], [seed], config.replace(t0=t0))
    pixels = torch.stack(drawn)  # (n, 3, H, W)
    noise = rng.derive(seed, "realism")
    # One at a time: the measure needs no more memory than the edits did.
    left = torch.cat(
        [
            picture_residual(model, row[None], prompt=painting.prompt, mask=painting.mask, seed=noise)
            for row in pixels
        ]
    )
    natural = realism(left, left[:1], left[-1:])
    withheld = [False] * len(pixels)
    if model.safety_checker is not None:
        withheld = model.safety_checker.flagged(to_model(pixels))
    images = from_unit(pixels * ~torch.tensor(withheld).reshape(-1, 1, 1, 1))
    distances = l2(pixels, painting.guide.expand_as(pixels))
    perceived = _perceived(metric, pixels, painting.guide)
    rows = zip(T0S, images, distances.tolist(), natural.tolist(), perceived, strict=True)
    return [Tried(*row) for row in rows]


@torch.inference_mode()
def _perceived(metric: lpips.Lpips | None, pixels: Tensor, guide: Tensor) -> list[float | None]:
    """LPIPS of each picture (n, 3, H, W) to the guide (1, 3, H, W), both in [0, 1]; None without weights."""
    if metric is None or min(guide.shape[-2:]) < lpips.SMALLEST:
        return [None] * len(pixels)
    return [float(metric(to_model(row[None]), to_model(guide))) for row in pixels]


def strip(tried: Sequence[Tried]) -> Image.Image:
    """The pictures side by side, each over its t0, and a chart of the two measures under them."""
    shown = [shrunk(one.image, SIDE) for one in tried]
    width, height = shown[0].size
    cell = max(width, 64) + MARGIN
    chart_top = height + LINE + 2 * MARGIN
    lines = 2 if tried[0].perceived is None else 3
    sheet = Image.new("RGB", (cell * len(tried) + MARGIN, chart_top + CHART + lines * LINE + MARGIN), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    centres = [MARGIN + cell * i + (cell - MARGIN) / 2 for i in range(len(tried))]
    for one, small, x in zip(tried, shown, centres, strict=True):
        sheet.paste(small, (round(x - width / 2), MARGIN))
        draw.text((x, height + MARGIN + LINE / 2), f"t0 {one.t0:g}", fill=INK, font=font, anchor="mm")
    farthest = max(one.distance for one in tried) or 1.0
    curves = [
        (FAITHFUL, [one.distance / farthest for one in tried], f"L2 to the guide, up to {farthest:.1f}"),
        (REAL, [one.realism for one in tried], "realism, 0 the guide's to 1 a sampled picture's"),
    ]
    perceived = [one.perceived for one in tried if one.perceived is not None]
    if perceived:
        most = max(perceived) or 1.0
        curves.append((PERCEIVED, [p / most for p in perceived], f"LPIPS to the guide, up to {most:.2f}"))
    bottom = chart_top + CHART
    draw.line([(MARGIN, bottom), (sheet.width - MARGIN, bottom)], fill=INK)
    for row, (colour, heights, label) in enumerate(curves):
        points = [(x, bottom - h * CHART) for x, h in zip(centres, heights, strict=True)]
        draw.line(points, fill=colour, width=2)
        for x, y in points:
            draw.ellipse((x - 3, y - 3, x + 3, y + 3), fill=colour)
        draw.text((MARGIN, bottom + LINE * (row + 0.5)), label, fill=colour, font=font, anchor="lm")
    return sheet
