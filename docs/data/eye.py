"""Does the judge see what a person sees? 200 pictures that the toybox drew, labelled by eye.

    python docs/data/eye.py OUT       lays out 200 of the pictures of `scumble bench toybox -o OUT`, chosen by
                                      a fixed draw: eye.webp here, and numbered pages to label in OUT/eye
    python docs/data/eye.py           holds the labels in eye.json against the judge's, on eye.webp

Who labels sees the pages alone: neither prompts nor verdicts. A label is one of the world's words, or "?"
where the picture does not show it; a picture without a recognisable thing has "?" for its kind. Agreement is
the share of the labels, without the "?", that the judge gives too.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont

from scumble.bench.common import judged
from scumble.core.files import atomic_path
from scumble.core.images import grid, to_unit
from scumble.models import toybox

HERE = Path(__file__).parent
SHEET, LABELS = HERE / "eye.webp", HERE / "eye.json"
COUNT, COLUMNS, SIDE = 200, 20, 128
PAGE, ACROSS, SHOWN = 20, 5, 224
ASKED = ("kind", "colour", "place", "time", "style")
UNCLEAR = "?"


def lay_out(run: Path) -> None:
    """Write eye.webp, and the pages to label."""
    files = sorted((run / "drawn").glob("*.png"))
    chosen = random.Random(0).sample(files, COUNT)
    pictures = [Image.open(file).convert("RGB") for file in chosen]
    with atomic_path(SHEET) as temporary:
        grid(pictures, columns=COLUMNS).save(temporary, "WEBP", quality=92, method=6)
    for first in range(0, COUNT, PAGE):
        cells = [_numbered(picture, first + i) for i, picture in enumerate(pictures[first : first + PAGE])]
        with atomic_path(run / "eye" / f"{first // PAGE:02d}.png") as temporary:
            grid(cells, columns=ACROSS, gap=6).save(temporary)


def agreement() -> dict[str, float]:
    """Share of the labels that the judge gives too; `unclear`, of those without a recognisable thing the
    share that the judge does not count as pictures of its world, and `clear`, the like of the others.
    """
    labels: dict[str, list[str]] = json.loads(LABELS.read_bytes())
    sheet = to_unit(Image.open(SHEET).convert("RGB"))  # (1, 3, H, W)
    cells = sheet[0].unfold(1, SIDE, SIDE).unfold(2, SIDE, SIDE)  # (3, rows, columns, side, side)
    verdict = judged(toybox.judge(), cells.permute(1, 2, 0, 3, 4).flatten(0, 1))
    seen = verdict.labels()
    shares: dict[str, float] = {}
    for name in ASKED:
        pairs = [(mine, its[name]) for mine, its in zip(labels[name], seen, strict=True) if mine != UNCLEAR]
        shares[name] = sum(mine == its for mine, its in pairs) / len(pairs)
    clear = torch.tensor([kind != UNCLEAR for kind in labels["kind"]])
    known = verdict.known > 0
    return {
        **shares,
        "with a recognisable thing": float(clear.float().mean()),
        "known to the judge, of these": float(known[clear].float().mean()),
        "known to the judge, of the others": float(known[~clear].float().mean()),
    }


def _numbered(picture: Image.Image, number: int) -> Image.Image:
    cell = Image.new("RGB", (SHOWN, SHOWN + 20), "white")
    cell.paste(picture.resize((SHOWN, SHOWN), Image.Resampling.BICUBIC), (0, 20))
    ImageDraw.Draw(cell).text((4, 2), str(number), fill="black", font=ImageFont.load_default(14))
    return cell


if __name__ == "__main__":
    if len(sys.argv) > 1:
        lay_out(Path(sys.argv[1]))
    else:
        for name, share in agreement().items():
            print(f"{name}: {100 * share:.1f} %")
