"""Text2LIVE measured on scenes whose truth is known (Bar-Tal et al. 2022, 2204.02491, sections 3 and 5, in a
world of toys): whether the judge recognises the edit, what changes where nothing should, what CLIP itself can
tell of such edits, and what each loss does.

All scenes are combinations that training never shows.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from scumble.bench.common import as_saved, claim, judged, machine, percent, rounded, write_json
from scumble.core.config import Config
from scumble.core.events import Loop, Progress
from scumble.core.files import atomic_write
from scumble.core.images import from_unit, grid, read_image, save_image, to_uint8, to_unit
from scumble.methods.text2live import losses
from scumble.models import toybox
from scumble.models.judge import Judge
from scumble.verbs.edit_text2live import Text2liveConfig, Work, paint
from scumble.world.instructions import Edit, instruct
from scumble.world.pairs import EditPictures, render_edits
from scumble.world.phrases import PLACE_PHRASES, STYLE_PREFIXES
from scumble.world.sampling import PROFILES, sample_scene
from scumble.world.splits import EVALUATION_SEEDS
from scumble.world.words import noun_phrase, with_article

__all__ = ["ABLATIONS", "ASKED", "TRYING", "Settings", "measure", "settings_of", "table", "task"]

ASKED = {"colour": "colour", "material": "material", "style": "style", "add effect": "effect"}
"""The kinds of edit, in turn, with what the judge is asked of each."""
ABLATIONS: dict[str, dict[str, float]] = {
    "no screen loss": {"green": 0.0},
    "no bootstrapping": {"bootstrapping": 0.0},
    "no structure": {"structure": 0.0},
}
"""What the paper takes away, as settings."""
GOAL, OUTSIDE = 0.7, 4.0
"""Share of edits recognised, and levels of 255 by which the rest may change."""
FIRST = EVALUATION_SEEDS + 700_000
TRYING = 900_000
"""Scenes from here on are for tuning, and never measured."""


class Settings(Config):
    """How much is measured."""

    count: Annotated[int, Field(ge=1)] = 20
    """Scenes, each edited without a mask and with the true one."""
    ablated: Annotated[int, Field(ge=0)] = 6
    """Scenes edited once more without each loss."""
    steps: Annotated[int, Field(ge=1)] | None = None
    """Steps of an edit; none takes the preset's."""
    first: Annotated[int, Field(ge=0)] = FIRST
    """Seed of the first scene."""


@dataclass(frozen=True)
class _Bench:
    settings: Settings
    judge: Judge
    out: Path

    @cached_property
    def edits(self) -> list[Edit]:
        return [task(self.settings.first + i, i) for i in range(self.settings.count)]

    @cached_property
    def truth(self) -> EditPictures:
        """Pictures of the edits, of 8 bits."""
        parts = [render_edits([edit]) for edit in self.edits]
        return EditPictures(
            as_saved(torch.cat([part.before for part in parts])),
            as_saved(torch.cat([part.after for part in parts])),
            torch.cat([part.mask for part in parts]),
        )

    def recognised(self, pictures: Tensor) -> list[bool]:
        """Whether the judge sees what each edit asked for, in pictures of the first edits."""
        edits = self.edits[: len(pictures)]
        answers = judged(self.judge, pictures).scores([edit.after for edit in edits])
        return [bool(answers[ASKED[edit.kind]][i]) for i, edit in enumerate(edits)]


def task(seed: int, number: int) -> Edit:
    """One of the four kinds of edit, in turn, of a photo of one thing that shows no such thing yet."""
    scene = sample_scene(seed, profile=PROFILES["photo"], split="held_out")
    thing = replace(scene.things[0], material="matte", effect=None, accessory=None)
    scene = replace(scene, things=(thing,), relation=None)
    return instruct(scene, seed, kinds=[list(ASKED)[number % len(ASKED)]], split=None)


def settings_of(edit: Edit, seed: int, steps: int | None = None) -> Text2liveConfig:
    """The texts of an edit in the toy world's words, with a seed."""
    before, after = (with_article(noun_phrase(scene.things[0])) for scene in (edit.before, edit.after))
    given: dict[str, Any] = {"seed": seed, "prompt": f"{after} {PLACE_PHRASES[edit.after.place][0]}"}
    given |= {"screen": after, "region": before}
    if edit.kind == "style":  # the templates say that all is a photo
        medium = STYLE_PREFIXES[edit.after.style][0]
        given |= {"prompt": f"{medium} {given['prompt']}", "screen": f"{medium} {after}"}
        given |= {"region": f"{STYLE_PREFIXES[edit.before.style][0]} {before}", "templates": ("{}",)}
    return Text2liveConfig.of(given | ({} if steps is None else {"steps": steps}))


def measure(out: Path, settings: Settings) -> Loop[dict[str, Any]]:
    """Measure Text2LIVE on the toybox into the folder `out`: pictures, `scores.json`, `table.md`,
    `sheet.png`, `ablations.png`.

    A run that was stopped goes on where it was, also with more scenes than before. Raises InputError where
    `out` holds another run.
    """
    start = time.perf_counter()
    _, known = settings_of(task(settings.first, 0), 0).load_clip()
    fixed = settings.model_dump(mode="json", exclude={"count", "ablated"})  # more scenes may follow
    claim(out, {"settings": fixed, "clip": known.hash})
    bench = _Bench(settings, toybox.judge(), out)
    truth, count = bench.truth, settings.count
    free = yield from _edited(bench, "without a mask", range(count))
    masked = yield from _edited(bench, "with the mask", range(count), masked=True)
    known_of_clip = _clip_tells(bench)
    named = {"input": truth.before, "without a mask": free, "with the mask": masked, "truth": truth.after}
    seen = {name: bench.recognised(pictures) for name, pictures in named.items()}
    each = [
        {"kind": edit.kind, "text": edit.text, "clip": known_of_clip[i]}
        | {name: right[i] for name, right in seen.items()}
        | {"outside": _outside(free[i], truth, i), "pixels outside": _pixels_outside(masked[i], truth, i)}
        for i, edit in enumerate(bench.edits)
    ]
    lacking = yield from _ablated(bench, free)
    scores = rounded(
        {
            "settings": settings.model_dump(mode="json"),
            "kinds": {name: _row([e for e in each if e["kind"] == name]) for name in ASKED}
            | {"all": _row(each)},
            "ablations": lacking,
            "each": each,
            "machine": machine() | {"seconds": round(time.perf_counter() - start)},
        }
    )
    cells = torch.stack(list(named.values()), 1).flatten(0, 1)
    save_image(grid(from_unit(cells), columns=len(named)), out / "sheet.png")
    write_json(out / "scores.json", scores)
    atomic_write(out / "table.md", (table(scores) + "\n").encode())
    return scores


def table(scores: dict[str, Any]) -> str:
    """The scores as Markdown."""
    rows = [
        "| edit | scenes | input | no mask | with the mask | true picture | CLIP prefers the true one"
        " | change outside, of 255 | pixels outside changed, with the mask |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in scores["kinds"].items():
        if row["scenes"]:
            shares = (row[key] for key in ("input", "without a mask", "with the mask", "truth", "clip"))
            outside = "-" if row["outside"] is None else f"{row['outside']:.1f}"
            cells = [name, row["scenes"], *map(percent, shares), outside, row["pixels outside"]]
            rows.append("| " + " | ".join(map(str, cells)) + " |")
    rows += ["", f"Goal: {GOAL:.0%} recognised, at most {OUTSIDE:g} outside, 0 pixels with the mask."]
    if scores["ablations"]:
        rows += ["", "| without | scenes | recognised | change outside, of 255 | opacity |", "|---" * 5 + "|"]
        for name, row in scores["ablations"].items():
            outside = "-" if row["outside"] is None else f"{row['outside']:.1f}"
            cells = (name, row["scenes"], percent(row["right"]), outside, f"{row['opacity']:.2f}")
            rows.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(rows)


def _row(each: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The means of some edits; nothing lies outside of an edit of the whole picture."""
    number = max(1, len(each))
    names = ("input", "without a mask", "with the mask", "truth", "clip")
    outside = [e["outside"] for e in each if e["outside"] is not None]
    return {name: sum(e[name] for e in each) / number for name in names} | {
        "scenes": len(each),
        "outside": sum(outside) / len(outside) if outside else None,
        "pixels outside": sum(e["pixels outside"] for e in each),
    }


def _outside(picture: Tensor, truth: EditPictures, i: int) -> float | None:
    """Mean change in 255ths of a picture (3, H, W) where nothing has a reason to change."""
    where = ~truth.mask[i]
    change = (picture - truth.before[i]).abs().mean(0)[where]
    return 255 * float(change.mean()) if bool(where.any()) else None


def _pixels_outside(picture: Tensor, truth: EditPictures, i: int) -> int:
    return int(((picture != truth.before[i]).any(0) & ~truth.mask[i]).sum())


@torch.inference_mode()
def _clip_tells(bench: _Bench) -> list[bool]:
    """Whether CLIP, by the loss that is minimised, likes the true result better than the input: what an edit
    by CLIP alone can hope for."""
    found: list[bool] = []
    for i, edit in enumerate(bench.edits):
        config = settings_of(edit, 0)
        clip, _ = config.load_clip()
        words = clip.text_features([each.format(config.texts.prompt) for each in config.templates])
        seen = clip.image_features(torch.stack([bench.truth.before[i], bench.truth.after[i]]))
        before, after = (float(losses.distance(part[None], words, config.distance)) for part in seen)
        found.append(after < before)
    return found


def _edited(
    bench: _Bench,
    name: str,
    numbers: Sequence[int],
    *,
    masked: bool = False,
    changes: Mapping[str, float] | None = None,
) -> Loop[Tensor]:
    """(N, 3, H, W) in [0, 1]: the edits, one file each and its opacity beside it, read again if there."""
    folder = bench.out / name
    folder.mkdir(parents=True, exist_ok=True)
    found: list[Tensor] = []
    for i in numbers:
        file = folder / f"{i:04d}.png"
        if not file.exists():
            config = settings_of(bench.edits[i], i, bench.settings.steps).replace(**(changes or {}))
            clip, known = config.load_clip()
            mask = bench.truth.mask[i].float()[None, None] if masked else None
            work = Work(to_uint8(bench.truth.before[i]), mask, ())
            [edited] = yield from paint([config], clip, known, work)
            save_image(edited.opacity.image, folder / f"{i:04d}-opacity.png")
            save_image(edited.image, file)
        found.append(to_unit(read_image(file).image))
        yield Progress(stage=name, step=i + 1, total=len(numbers))
    return torch.cat(found)


def _ablated(bench: _Bench, whole: Tensor) -> Loop[dict[str, Any]]:
    """A row for all losses and for each without one, and a strip of the pictures."""
    numbers = range(min(bench.settings.ablated, bench.settings.count))
    if not numbers:
        return {}
    drawn = {"nothing": whole[: len(numbers)]}
    for name, changes in ABLATIONS.items():
        drawn[name] = yield from _edited(bench, name, numbers, changes=changes)
    strip = torch.stack([bench.truth.before[: len(numbers)], *drawn.values()], 1).flatten(0, 1)
    save_image(grid(from_unit(strip), columns=1 + len(drawn)), bench.out / "ablations.png")
    rows: dict[str, Any] = {}
    for name, pictures in drawn.items():
        outside = [_outside(pictures[i], bench.truth, i) for i in numbers]
        kept = [value for value in outside if value is not None]
        folder = bench.out / ("without a mask" if name == "nothing" else name)
        opacity = [to_unit(read_image(folder / f"{i:04d}-opacity.png").image).mean() for i in numbers]
        rows[name] = {
            "scenes": len(numbers),
            "right": sum(bench.recognised(pictures)) / len(numbers),
            "outside": sum(kept) / len(kept) if kept else None,
            "opacity": float(torch.stack(opacity).mean()),
        }
    return rows
