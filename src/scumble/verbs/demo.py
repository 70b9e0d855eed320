"""`scumble demo`: what the toybox can do, drawn before your eyes on one page of pictures.

The page is one file that needs no other. The demo checks itself: each picture is one prompt's first and only
attempt, and the judge, a small network that knows the toy world, says whether what was asked for is in it.
"""

from __future__ import annotations

import base64
import html
import io
import time
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from scumble.core.errors import ScumbleError
from scumble.core.events import Loop
from scumble.core.files import atomic_write
from scumble.core.images import grid
from scumble.verbs.generate import RANDOM_MODEL, GenerateConfig, draw
from scumble.verbs.outputs import Picture

__all__ = ["PROMPTS", "DemoReport", "check", "demo"]

PROMPTS = (
    "a red cat on the grass",
    "a blue car in the snow",
    "a yellow duck on the beach",
    "a green robot in the desert",
    "an orange fish in a studio",
    "a purple castle on the moon",
    "a white rabbit on the grass at night",
    "a pink mushroom in the snow",
    "a brown bear on the beach at sunset",
    "a teal rocket on the moon",
    "a grey house in the desert at sunset",
    "a black dog on a wooden table",
    "a red mug on a wooden table",
    "a green cactus in the desert",
    "a blue boat on the beach",
    "a white snowman in the snow",
)
"""One picture each, all with seed 1: no choosing."""
QUICK = 8
"""How many of them `quick` draws."""


@dataclass(frozen=True, slots=True)
class DemoReport:
    """What the demo made and what it found."""

    page: Path
    pictures: int
    seconds: float
    problems: tuple[str, ...]


def demo(out: Path, *, quick: bool = False) -> Loop[DemoReport]:
    """Paint the demo's pictures into the folder `out` and write its page, `index.html`."""
    started = time.perf_counter()
    model = GenerateConfig(prompt="").load()
    pictures: list[Picture] = []
    for prompt in PROMPTS[: QUICK if quick else None]:
        config = GenerateConfig(prompt=prompt, seed=1)
        pictures += yield from draw(config, model, config.task(model))
    seconds = time.perf_counter() - started
    problems = [RANDOM_MODEL] if model.is_random else []
    problems += [f"{p.recipe.settings['prompt']!r} came out blank." for p in pictures if _is_blank(p.image)]
    sheet = io.BytesIO()
    grid([p.image for p in pictures]).save(sheet, "PNG")
    atomic_write(out / "grid.png", sheet.getvalue())
    page = out / "index.html"
    atomic_write(page, _page(pictures, seconds, problems).encode())
    return DemoReport(page, len(pictures), seconds, tuple(problems))


def _is_blank(image: Image.Image) -> bool:
    """Whether a picture has next to no contrast: what NaN, overflow and untrained decoders draw."""
    levels = [level for level, count in enumerate(image.convert("L").histogram()) if count]
    return levels[-1] - levels[0] < 16


def check(report: DemoReport) -> None:
    """Raise ScumbleError if the demo found something wrong with its own results."""
    if report.problems:
        raise ScumbleError(f"The demo is not right: {' '.join(report.problems)}", f"See {report.page}.")


STYLE = """
:root { color-scheme: light dark; font-family: system-ui, sans-serif; line-height: 1.5; }
body { max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
main { display: grid; grid-template-columns: repeat(auto-fill, minmax(12rem, 1fr)); gap: 1.2rem; }
figure { margin: 0; }
img { width: 100%; image-rendering: auto; border-radius: .5rem; display: block; }
figcaption { font-size: .9rem; padding-top: .4rem; }
.problem { border-left: .3rem solid #c33; padding-left: .8rem; }
"""


def _page(pictures: list[Picture], seconds: float, problems: list[str]) -> str:
    figures = "\n".join(_figure(p) for p in pictures)
    wrong = "".join(f'<p class="problem">{html.escape(p)}</p>' for p in problems)
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>scumble demo</title><style>{STYLE}</style>
<h1>scumble</h1>
<p>{len(pictures)} prompts, one picture each, none chosen; {seconds:.0f} seconds on this machine.</p>
{wrong}
<main>
{figures}
</main>
</html>
"""


def _figure(picture: Picture) -> str:
    data = io.BytesIO()
    picture.image.save(data, "PNG")
    source = base64.b64encode(data.getvalue()).decode()
    prompt = html.escape(str(picture.recipe.settings["prompt"]))
    return (
        f'<figure><img alt="" src="data:image/png;base64,{source}"><figcaption>{prompt}</figcaption></figure>'
    )
