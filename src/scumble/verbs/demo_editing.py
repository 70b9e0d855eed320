"""The demo's chapters of editing by strokes and by instruction, and of doing it all again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import torch
from PIL import Image
from torch import Tensor

from scumble.core.errors import ModelError
from scumble.core.events import Loop, Progress
from scumble.core.images import from_unit
from scumble.data.strokes import stroke_painting
from scumble.metrics.l2 import l2
from scumble.models import toybox
from scumble.verbs import edit_instruct, edit_sdedit
from scumble.verbs.compare_truth import answers, questions
from scumble.verbs.demo_chapter import (
    SAMPLER,
    SEED,
    Chapter,
    Check,
    Row,
    Score,
    Shown,
    Work,
    read,
    rendered,
)
from scumble.verbs.redo import redo_to
from scumble.world.instructions import Edit, every_edit
from scumble.world.render import render
from scumble.world.scene import Scene, Thing
from scumble.world.words import caption

__all__ = ["INSTRUCTIONS", "SCENES", "instruct", "redo", "strokes"]

SCENES = (
    Scene(things=(Thing(kind="cat", colour="red"),), place="grass", seed=3),
    Scene(things=(Thing(kind="boat", colour="white"),), place="beach", time="sunset", seed=4),
    Scene(things=(Thing(kind="robot", colour="teal"),), place="snow", seed=5),
    Scene(things=(Thing(kind="castle", colour="pink"),), place="desert", seed=6),
)
"""Pictures that are edited; their first is painted over in `strokes`."""
PAINT, COLOUR = (0.12, 0.28, 0.82), "blue"
"""Of the stroke that is laid over the first thing, half of which shows through."""
T0 = 0.5
INSTRUCTIONS = (
    (0, "make it night"),
    (1, "make it day"),
    (2, "make the robot red"),
    (3, "turn it into a watercolour"),
)
"""Number of a scene, and what is said of it."""
DONE = 0.5
"""The least share of instructions that the judge has to see done."""


# By strokes


def strokes(work: Work) -> Loop[Chapter]:
    """Strokes made pictures, and a stroke over a part of one."""
    scenes = SCENES[: work.amount.guides]
    rows: list[Row] = []
    guides: list[Shown] = []
    results: list[Shown] = []
    for number, (scene, original) in enumerate(zip(scenes, rendered(scenes), strict=True), 1):
        before = work.save(original, f"strokes/{number}-photo.png")
        guides.append(work.save(stroke_painting(original), f"strokes/{number}-strokes.png"))
        picture = yield from _repainted(work, guides[-1], f"strokes/{number}.png", caption(scene))
        results.append(picture)
        texts = ("a picture", "strokes of it", "made natural")
        shown = (
            one.replace(text=text) for one, text in zip((before, guides[-1], picture), texts, strict=True)
        )
        rows.append(Row(text=caption(scene), pictures=tuple(shown)))
        yield Progress(stage="pictures", step=number, total=len(scenes) + 1)
    local, mask = yield from _local(work)
    was, _, now = work.pixels(local.pictures)
    touched = int(((was != now).any(0) & (read(mask)[0, 0] == 0)).sum())
    pixels, rough = work.pixels(results), work.pixels(guides)
    known = float((work.judged(pixels).known - work.judged(rough).known).mean())
    yield Progress(stage="pictures", step=len(scenes) + 1, total=len(scenes) + 1)
    near = Score(
        name="L2 to the strokes",
        value=fmean(float(l2(one[None], other[None])) for one, other in zip(pixels, rough, strict=True)),
        what="distance over all pixels; less is more faithful",
    )
    return Chapter(
        name="strokes",
        title="By strokes",
        method="sdedit",
        text="SDEdit: half of the noise is added to a painting and taken away again, so coarse strokes "
        "become a picture of what they mean. Where a mask is black, every bit stays.",
        rows=(*rows, local),
        scores=(near, Score(name="more natural", value=known, what=KNOWN)),
        checks=(
            Check(claim=f"The pictures are more natural than the strokes ({KNOWN})", figure=known, limit=0),
            Check(
                claim="Outside of the mask no pixel has changed (pixels that have)",
                figure=touched,
                limit=0,
                at_most=True,
            ),
        ),
        commands=(
            work.command("strokes", work.out / "strokes/1-photo.png", "-o", work.out / "strokes/again.png"),
            _command(work, "1-strokes.png", caption(scenes[0]), "1-again.png"),
            _command(work, "painted.png", _local_words(), "local-again.png", local=True),
        ),
    )


KNOWN = "how much surer the judge is that it sees the toy world, in logits"


def _config(work: Work, prompt: str) -> edit_sdedit.SdeditConfig:
    return edit_sdedit.SdeditConfig.of(
        {
            "prompt": prompt,
            "t0": T0,
            "sampler": SAMPLER,
            "steps": max(1, work.amount.steps // 2),
            "seed": SEED,
        }
    )


def _command(work: Work, guide: str, prompt: str, out: str, *, local: bool = False) -> str:
    config, place = _config(work, prompt), work.out / "strokes"
    kept = ["--original", place / "original.png", "--mask", place / "mask.png"] if local else []
    how = ["--t0", T0, "--sampler", SAMPLER, "--steps", config.steps, "--seed", SEED]
    return work.command("edit", "sdedit", place / guide, *kept, "--prompt", prompt, *how, "-o", place / out)


def _repainted(work: Work, guide: Shown, name: str, prompt: str, *kept: Path) -> Loop[Shown]:
    """Make `guide` natural, with `kept` its original and its mask, if it has them."""
    config = _config(work, prompt)
    job = edit_sdedit.prepare(work.out / guide.file, *kept, prompt=prompt)
    with work.timed("painting"):
        [picture] = yield from edit_sdedit.repaint(config, work.model, job)
    return work.save(picture, name, edited=True)


def _local_words() -> str:
    scene = SCENES[0]
    return caption(replace(scene, things=(replace(scene.things[0], colour=COLOUR),)))


def _local(work: Work) -> Loop[tuple[Row, Path]]:
    """A stroke over a thing made natural: the row, and the mask."""
    rendering = render([SCENES[0]])
    where = (rendering.masks[:, :1] > 0.5).float()  # (1, 1, H, W)
    colour = torch.tensor(PAINT).reshape(1, 3, 1, 1)
    painted = torch.lerp(rendering.pixels, colour, 0.5 * where)
    [mask] = from_unit(where.expand(-1, 3, -1, -1))
    kept = [
        work.save(i, f"strokes/{n}.png") for i, n in ((_image(rendering.pixels), "original"), (mask, "mask"))
    ]
    guide = work.save(_image(painted), "strokes/painted.png")
    files = [work.out / one.file for one in kept]
    words = _local_words()
    result = yield from _repainted(work, guide, "strokes/local.png", words, *files)
    texts = ("a picture", "a stroke over a part", "made natural; the rest stays, bit for bit")
    shown = (one.replace(text=text) for one, text in zip((kept[0], guide, result), texts, strict=True))
    return Row(text=words, pictures=tuple(shown)), files[1]


def _image(pixels: Tensor) -> Image.Image:
    return from_unit(pixels)[0]


# By instruction


def instruct(work: Work) -> Loop[Chapter]:
    """Pictures edited by what is said, if this toybox can."""
    about = Chapter(
        name="instruct",
        title="By instruction",
        method="instruct",
        text="InstructPix2Pix: say what to change. One pass, no mask, no tuning.",
    )
    try:
        toybox.editing()
    except ModelError as problem:
        return about.replace(left_out=problem.message)
    edits = [_edit(SCENES[number], said) for number, said in INSTRUCTIONS[: work.amount.instructions]]
    rows: list[Row] = []
    for number, (edit, original) in enumerate(
        zip(edits, rendered([e.before for e in edits]), strict=True), 1
    ):
        before = work.save(original, f"instruct/{number}-photo.png")
        config = _instructed(edit.text)
        job = edit_instruct.prepare(work.out / before.file, None, config)
        with work.timed("loading"):
            model = config.load()
        with work.timed("editing"):
            [picture] = yield from edit_instruct.follow(config, model, job)
        after = work.save(picture, f"instruct/{number}.png", edited=True)
        rows.append(
            Row(text=edit.text, pictures=(before.replace(text="before"), after.replace(text=edit.text)))
        )
        yield Progress(stage="pictures", step=number, total=len(edits))
    done, kept = _followed(work, edits, rows)
    first = work.out / rows[0].pictures[0].file
    return about.replace(
        rows=tuple(rows),
        scores=(
            Score(
                name="done", value=done, what="share of edits in which the judge sees all that was asked for"
            ),
            Score(name="preserved", value=kept, what="share of the rest that it saw before and still sees"),
        ),
        checks=(Check(claim="Half of the instructions are followed", figure=done, limit=DONE),),
        commands=(
            work.command(
                "edit",
                "instruct",
                first,
                edits[0].text,
                "--seed",
                SEED,
                "-o",
                work.out / "instruct/again.png",
            ),
        ),
    )


def _instructed(said: str) -> edit_instruct.InstructConfig:
    return edit_instruct.InstructConfig.of({"instructions": (said,), "seed": SEED})


def _edit(scene: Scene, said: str) -> Edit:
    return next(edit for edit in every_edit(scene) if edit.text == said)


def _followed(work: Work, edits: Sequence[Edit], rows: Sequence[Row]) -> tuple[float, float]:
    """Share of edits that are done, and of what should stay, of what the judge saw before, that it sees."""
    before, after = (work.judged(work.pixels([row.pictures[side] for row in rows])) for side in (0, 1))
    done: list[bool] = []
    kept: list[bool] = []
    for i, edit in enumerate(edits):
        old, new = answers(before, i, edit.after), answers(after, i, edit.after)
        asked = questions(edit.before, edit.after)
        done.append(all(new[name] is not False for name in asked))
        kept += [bool(new[name]) for name, right in old.items() if right and name not in asked]
    return fmean(done), fmean(kept) if kept else 0.0


# Again


def redo(work: Work) -> Loop[Chapter]:
    """Two of the pictures, made again from the recipes in their files."""
    again = {
        "painted/01.png": [],
        "strokes/local.png": [
            f"{role}={work.out / 'strokes' / name}.png"
            for role, name in (("guide", "painted"), ("original", "original"), ("mask", "mask"))
        ],
    }
    rows: list[Row] = []
    differing, commands = 0, list[str]()
    for name, inputs in again.items():
        place = work.place(f"redo/{Path(name).stem}.png")
        with work.timed("drawing"):
            done = yield from redo_to(work.out / name, place, overwrite=True, inputs=inputs)
        differing += done.same is not True
        both = (Shown(file=name, text="as it was"), Shown(file=f"redo/{place.name}", text="made again"))
        rows.append(Row(text="The same pixels" if done.same else "Other pixels", pictures=both))
        given = [word for text in inputs for word in ("--input", text.replace(f"{work.out}/", ""))]
        commands.append(
            work.command("redo", work.out / name, *given, "-o", work.out / f"redo/again-{place.name}")
        )
    return Chapter(
        name="redo",
        title="Again, from the picture alone",
        text="Every picture carries the recipe that made it, and the recipe gives the same pixels.",
        rows=tuple(rows),
        checks=(
            Check(
                claim="Made again, a picture has the same pixels (pictures that have others)",
                figure=differing,
                limit=0,
                at_most=True,
            ),
        ),
        commands=tuple(commands),
    )
