"""`scumble demo`: what the toybox can do, drawn before your eyes on one page of pictures.

The page is one file that needs no other. Each picture is its prompt's first and only attempt. The demo checks
itself: no picture may be blank, and an edit may change no pixel outside its mask.
"""

from __future__ import annotations

import base64
import html
import io
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from PIL import Image

from scumble.core.errors import ScumbleError
from scumble.core.events import Loop
from scumble.core.files import atomic_write
from scumble.core.images import from_uint8, from_unit, grid, to_uint8, to_unit
from scumble.data.paintings import painting
from scumble.data.strokes import stroke_painting
from scumble.methods import sdedit
from scumble.models.model import Model
from scumble.verbs.generate import RANDOM_MODEL, GenerateConfig, draw
from scumble.verbs.outputs import Picture
from scumble.world.render import render
from scumble.world.scene import Scene, Thing
from scumble.world.words import caption

__all__ = ["PROMPTS", "SCENES", "DemoReport", "Row", "check", "demo"]

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

SCENES = (
    Scene(things=(Thing(kind="cat", colour="red"),), place="grass", seed=3),
    Scene(things=(Thing(kind="boat", colour="white"),), place="beach", time="sunset", seed=4),
    Scene(things=(Thing(kind="robot", colour="teal"),), place="snow", seed=5),
    Scene(things=(Thing(kind="castle", colour="pink"),), place="desert", seed=6),
)
"""Pictures that are edited: turned into strokes, and the strokes into pictures again."""
PAINT = (0.12, 0.28, 0.82)
"""The colour of the stroke that the last part paints over the thing."""
T0 = 0.5
SAMPLER = "euler_ancestral"
"""Its fresh noise corrects earlier errors (Karras et al. 2022), of which a preview makes many."""
STEPS = 40


@dataclass(frozen=True, slots=True)
class Row:
    """Pictures that belong together, and what they show."""

    caption: str
    images: tuple[Image.Image, ...]


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
        config = GenerateConfig(prompt=prompt, seed=1, sampler=SAMPLER, steps=STEPS)
        pictures += yield from draw(config, model, config.task(model))
    rows: list[Row] = []
    for scene in SCENES[: 2 if quick else None]:
        rows.append((yield from _from_strokes(model, scene)))
    local, problems = yield from _local(model, SCENES[0])
    seconds = time.perf_counter() - started
    problems += [RANDOM_MODEL] if model.is_random else []
    problems += [f"{p.recipe.settings['prompt']!r} came out blank." for p in pictures if _is_blank(p.image)]
    sheet = io.BytesIO()
    grid([p.image for p in pictures]).save(sheet, "PNG")
    atomic_write(out / "grid.png", sheet.getvalue())
    page = out / "index.html"
    atomic_write(page, _page(pictures, [*rows, local], seconds, problems).encode())
    return DemoReport(page, len(pictures) + len(rows) + 1, seconds, tuple(problems))


def _from_strokes(model: Model, scene: Scene) -> Loop[Row]:
    """A picture as strokes, and the strokes made natural again with all of it free to change."""
    [original] = from_unit(render([scene]).pixels)
    strokes = stroke_painting(original)
    job = painting(to_unit(strokes), prompt=caption(scene))
    [edited] = yield from sdedit.edit(
        model, [job], [1], sdedit.Config(t0=T0, sampler=SAMPLER, steps=STEPS // 2)
    )
    return Row(caption(scene), (original, strokes, from_unit(edited[None])[0]))


def _local(model: Model, scene: Scene) -> Loop[tuple[Row, list[str]]]:
    """A stroke over the thing, made natural; the rest has to stay as it was, to the bit."""
    rendering = render([scene])
    where = (rendering.masks[:, :1] > 0.5).float()  # (1, 1, H, W)
    before = from_uint8(to_uint8(rendering.pixels))
    painted = torch.where(where > 0, before * 0.5 + torch.tensor(PAINT).reshape(1, 3, 1, 1) * 0.5, before)
    words = caption(replace(scene, things=(replace(scene.things[0], colour="blue"),)))
    job = painting(painted, original=before, mask=where, prompt=words)
    [edited] = yield from sdedit.edit(
        model, [job], [1], sdedit.Config(t0=T0, sampler=SAMPLER, steps=STEPS // 2)
    )
    kept = torch.equal(torch.where(where > 0, 0, edited[None]), torch.where(where > 0, 0, before))
    images = tuple(from_unit(pixels)[0] for pixels in (before, painted, edited[None]))
    problems = [] if kept else ["An edit changed pixels outside its mask."]
    return Row(f"{words}: a stroke over the thing; outside it no pixel has changed", images), problems


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
main.rows { grid-template-columns: repeat(auto-fill, minmax(24rem, 1fr)); }
figure { margin: 0; }
figure div { display: flex; gap: .4rem; }
img { flex: 1; min-width: 0; border-radius: .5rem; }
figcaption { font-size: .9rem; padding-top: .4rem; }
.problem { border-left: .3rem solid #c33; padding-left: .8rem; }
"""


def _page(pictures: list[Picture], rows: list[Row], seconds: float, problems: list[str]) -> str:
    figures = "\n".join(_figure(str(p.recipe.settings["prompt"]), [p.image]) for p in pictures)
    edits = "\n".join(_figure(row.caption, row.images) for row in rows)
    wrong = "".join(f'<p class="problem">{html.escape(p)}</p>' for p in problems)
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>scumble demo</title><style>{STYLE}</style>
<h1>scumble</h1>
<p>Made in {seconds:.0f} seconds on this machine by the toybox, the small model that ships with scumble.</p>
{wrong}
<h2>Painted</h2>
<p>{len(pictures)} prompts, one picture each, none chosen.</p>
<main>
{figures}
</main>
<h2>Edited by painting</h2>
<p>SDEdit (Meng et al. 2021): a picture, strokes of it, and what the model makes of the strokes.</p>
<main class="rows">
{edits}
</main>
</html>
"""


def _figure(text: str, images: Sequence[Image.Image]) -> str:
    shown = "".join(f'<img alt="" src="{_data_url(image)}">' for image in images)
    return f"<figure><div>{shown}</div><figcaption>{html.escape(text)}</figcaption></figure>"


def _data_url(image: Image.Image) -> str:
    data = io.BytesIO()
    image.save(data, "PNG")
    return f"data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}"
