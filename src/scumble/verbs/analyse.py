"""Which layers learning changes most: measured, as a table and a plot."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path
from typing import Any, cast

from PIL import Image, ImageDraw, ImageFont

from scumble.adapters.rates import GROUPS, Rate, by_group
from scumble.core.events import Loop
from scumble.core.files import atomic_folder
from scumble.core.images import save_image
from scumble.methods import custom_diffusion
from scumble.training.fit import FitConfig
from scumble.training.processes import is_main_process
from scumble.verbs.learn import for_learning
from scumble.verbs.learn_inputs import read_to_analyse
from scumble.verbs.load import RANDOM_MODEL, ModelConfig

__all__ = ["Analysed", "analyse_to", "plot", "table"]

COLOURS = {"cross-attention": (31, 95, 180), "self-attention": (214, 96, 20), "rest": (120, 120, 120)}
INK = (60, 60, 60)
WIDTH, HEIGHT, MARGIN, LINE = 960, 320, 48, 18
"""Of the plot, in pixels."""


@dataclass(frozen=True, slots=True)
class Analysed:
    """What was found."""

    facts: dict[str, Any]
    text: str
    note: str = ""


def analyse_to(
    subjects: Sequence[tuple[Path, str, str]], config: FitConfig, on: ModelConfig, out: Path
) -> Loop[Analysed]:
    """Fine-tune all of the denoiser on `subjects` and write to the folder `out` how much each layer changed:
    `rates.json`, `rates.txt` and `rates.png`. Raises InputError if `out` is there and not empty.
    """
    settings = cast("custom_diffusion.Config", config)
    read = read_to_analyse(subjects, out)
    model = for_learning(on).load()
    found = yield from custom_diffusion.analyse(model, read, settings)
    means = by_group(found)
    finite = {group: mean if isfinite(mean) else None for group, mean in means.items()}
    facts = {
        "model": model.hash,
        "steps": settings.steps,
        "lr": settings.lr,
        "groups": finite,
        "layers": [asdict(rate) for rate in found],
    }
    if is_main_process():
        with atomic_folder(out) as folder:
            (folder / "rates.json").write_text(json.dumps(facts, indent=1) + "\n")
            (folder / "rates.txt").write_text(table(found) + "\n")
            save_image(plot(found), folder / "rates.png")
    notes = [note for subject in read for note in subject.notes] + ([RANDOM_MODEL] if model.is_random else [])
    rows = [f"{group:16} {means[group]:.2e}" for group in GROUPS]
    text = "\n".join(["mean relative change by group", *rows, f"every layer: {out / 'rates.txt'}"])
    return Analysed({"folder": str(out), "groups": finite}, text, " ".join(notes))


def table(found: Sequence[Rate]) -> str:
    """The groups, then every layer, the most changed first."""
    means = by_group(found)
    lines = [f"{'group':16} {'mean change':>11} {'layers':>7} {'numbers':>12}"]
    for group in GROUPS:
        mine = [rate.numbers for rate in found if rate.group == group]
        lines.append(f"{group:16} {means[group]:>11.3e} {len(mine):>7} {sum(mine):>12,}")
    lines += ["", f"{'change':>11} {'numbers':>12}  group            layer"]
    ranked = sorted(found, key=lambda rate: -rate.change)
    lines += [f"{r.change:>11.3e} {r.numbers:>12,}  {r.group:16} {r.layer}" for r in ranked]
    return "\n".join(lines)


def plot(found: Sequence[Rate]) -> Image.Image:
    """Every layer as a bar, in the order of the network, and the mean of each group as a line."""
    sheet = Image.new("RGB", (WIDTH, HEIGHT + MARGIN + LINE * (len(GROUPS) + 1)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    most = max((rate.change for rate in found), default=0.0) or 1.0
    bottom, step = MARGIN + HEIGHT - LINE, (WIDTH - 2 * MARGIN) / max(1, len(found))

    def height(change: float) -> float:
        return bottom - (bottom - MARGIN) * change / most

    for i, rate in enumerate(found):
        left = MARGIN + i * step
        draw.rectangle(
            (left, height(rate.change), left + max(1.0, step - 1), bottom), fill=COLOURS[rate.group]
        )
    draw.line([(MARGIN, bottom), (WIDTH - MARGIN, bottom)], fill=INK)
    title = f"relative change of each layer, in the order of the network, up to {most:.2e}"
    draw.text((MARGIN, MARGIN / 2), title, fill=INK, font=font, anchor="lm")
    for row, (group, mean) in enumerate(by_group(found).items(), 1):
        y = bottom + LINE * (row + 0.5)
        draw.text((MARGIN, y), f"{group}: mean {mean:.2e}", fill=COLOURS[group], font=font, anchor="lm")
        if isfinite(mean):  # a group without layers has no mean
            draw.line([(MARGIN, height(mean)), (WIDTH - MARGIN, height(mean))], fill=COLOURS[group], width=2)
    return sheet
