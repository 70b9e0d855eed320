"""The same picture again, from the recipe in its file.

A recipe is a stranger's text. It chooses among `redo_verbs` and fills in their settings, which are checked
like any others. It cannot name a file or a folder to read, nor have anything fetched or unpickled: files come
from the person or, by their hash, from places that this user's own runs have seen; see `scumble.verbs.find`.
`redo_plan` reads it and finds everything; here the work is done.
"""

from __future__ import annotations

import os
import re
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from PIL import Image

from scumble.core.errors import InputError, ModelError
from scumble.core.events import Loop, finish
from scumble.core.files import explained
from scumble.core.images import Picture as Pixels
from scumble.core.images import check_size, read_image, shape_of
from scumble.history.recipe import Recipe, library_versions, printable
from scumble.history.store import Made, remember
from scumble.models.hash import fingerprint
from scumble.models.load import find
from scumble.models.model import Model
from scumble.verbs import redo_film
from scumble.verbs.drawing import SeriesConfig
from scumble.verbs.find import MODELS
from scumble.verbs.load import ModelConfig
from scumble.verbs.outputs import Picture, in_sheet, is_folder, planned_paths, sheet, written
from scumble.verbs.redo_plan import Plan, plan, upscaler_of
from scumble.verbs.vision import VisionConfig

__all__ = ["Plan", "Redone", "carried_out", "plan", "redo", "redo_to"]


Result = TypeVar("Result")

LOSSLESS = (".png", ".webp")


@dataclass(frozen=True, slots=True)
class Redone:
    """What came of it."""

    file: dict[str, str | int]
    """Path, seed and SHA-256."""
    same: bool | None
    """Whether the pixels are those of the original; None where that cannot be asked."""
    note: str = ""
    """What the person should know, in sentences."""


def redo(what: Path | str | int, **options: Any) -> Image.Image:
    """Make the picture `what`, a file or a number of the history, again; options are those of `plan`.

    >>> cat = scumble.redo("cat.png", changes=["steps=50"])
    """
    return finish(_made(plan(Path(what) if isinstance(what, str) else what, **options))).image


def redo_to(what: Path | int, out: Path, *, overwrite: bool = False, **options: Any) -> Loop[Redone]:
    """Make the picture `what` again and write it to `out`; options are those of `plan`.

    The result is compared with the original, pixel by pixel, where nothing was changed and both are lossless.
    """
    planned = plan(what, **options)
    done, made = yield from carried_out(
        planned, _place(planned, out, overwrite=overwrite), overwrite=overwrite
    )
    remember(made)
    return done


def carried_out(planned: Plan, path: Path, *, overwrite: bool = False) -> Loop[tuple[Redone, list[Made]]]:
    """Do what was planned and write the result to `path`: what came of it, and what the history, which is not
    told yet, shall remember. Raises ImageError, before the work, for a format that cannot hold the picture.
    """
    if planned.is_film:
        return (yield from _filmed(planned, path, overwrite=overwrite))
    _check_format(planned, path)
    picture = yield from _made(planned)
    before = _before(planned, path)
    edited = any(i.role not in ("weights", *MODELS) for i in planned.recipe.ingredients)
    made = written([picture], [path], edited=edited)
    same = None if before is None else read_image(path, background=None) == before
    withheld = ["The model's safety checker withheld the picture; it is black."] if picture.withheld else []
    notes = _notes(planned, picture.recipe.machine, same) + withheld
    return Redone(made[0].row, same, " ".join(notes)), made


def _place(planned: Plan, out: Path, *, overwrite: bool) -> Path:
    """Where the result is written: `out`, or `again` in it if that is a folder. Raises InputError."""
    film = planned.is_film
    suffix = planned.original.suffix if film and planned.original else ".mp4" if film else ".png"
    with explained(out, "written"):
        path = out / f"again{suffix}" if is_folder(out) else out
    if film:
        redo_film.check_suffix(path)  # what else there is to check, the command itself checks before its work
        return path
    return planned_paths(path, [0], overwrite=overwrite)[0]


def _check_format(planned: Plan, path: Path) -> None:
    """Raises ImageError where a file of the kind of `path` cannot hold the result, judged by the original
    where that is there. What a change does to the size is not known before.
    """
    if planned.original is not None:
        size, mode = shape_of(planned.original)
        check_size(path, size if planned.is_same else (1, 1), mode)


def _filmed(planned: Plan, out: Path, *, overwrite: bool) -> Loop[tuple[Redone, list[Made]]]:
    assert planned.verb.film is not None
    if isinstance(planned.config, VisionConfig) and planned.recipe.model is not None:
        _loaded(planned.config, planned)
    alike = planned.original is not None and planned.original.suffix.lower() == out.suffix.lower()
    before = redo_film.frames_of(planned.original) if planned.original and alike and planned.is_same else None
    with _threads(planned.recipe):
        made, note = yield from planned.verb.film(
            planned.config, planned.found.files, out, overwrite=overwrite
        )
    same = None if before is None else redo_film.same_frames(before, out)
    notes = _notes(planned, {}, same)
    return Redone(made[0].row, same, " ".join([*notes, note]).strip()), made


def _made(planned: Plan) -> Loop[Picture]:
    recipe, config = planned.recipe, planned.config
    if planned.is_film:
        raise InputError("A video was asked for as a picture.", "`scumble redo` writes videos.")
    model = None
    if isinstance(config, ModelConfig | VisionConfig) and recipe.model is not None:
        model = _loaded(config, planned)
    _check_upscaler(planned)
    with _threads(recipe):
        if recipe.output == "grid" and isinstance(config, SeriesConfig):
            return (yield from _grid(planned, config, model))
        pictures = yield from planned.verb.again(config, model, planned.found.files)
    seed = getattr(config, "seed", 0) if planned.changes else recipe.seed
    wanted = [p for p in pictures if p.recipe.output == recipe.output and p.seed == seed]
    if not wanted:
        raise InputError(f"The command gives no output {printable(str(recipe.output), 20)!r}.")
    return wanted[0]


def _grid(planned: Plan, config: SeriesConfig, model: Model | None) -> Loop[Picture]:
    """The sheet of all pictures of a run, made a batch at a time so that never all of them are held."""
    pictures: list[Picture] = []
    for done in range(0, config.count, config.batch):
        here = min(config.batch, config.count - done)
        part = config.replace(seed=config.seeds[done], count=here)
        made = yield from _counted(
            planned.verb.again(part, model, planned.found.files), done / here, config.count / here
        )
        pictures += [in_sheet(picture, config.count) for picture in made]
    return sheet(pictures)


def _counted(loop: Loop[Result], done: float, whole: float) -> Loop[Result]:
    """`loop`, which is one part of `whole` such parts, `done` being finished, as it counts in the whole."""
    while True:
        try:
            event = next(loop)
        except StopIteration as stop:
            return stop.value
        step, total = event.step + round(done * event.total), round(whole * event.total)
        yield replace(event, step=step, total=total)


def _loaded(config: ModelConfig | VisionConfig, planned: Plan) -> Model | None:
    """The model, if it is the one of the recipe; None for CLIP, which verbs load themselves."""
    wanted, name = planned.recipe.model, config.model if isinstance(config, ModelConfig) else config.clip
    assert wanted is not None
    try:
        if isinstance(config, ModelConfig):
            model = config.load()
            found = model.hash
        else:
            model, found = None, config.load_clip()[1].hash
    except ModelError as problem:
        if config.offline and "/" in name and not Path(name).exists():
            raise ModelError(problem.message, "Say --download to have it fetched.") from problem
        raise
    if found != wanted.hash and not planned.anyway:
        raise InputError(
            f"{name} is not the model that made it: its hash is {found[:12]}, not {wanted.hash[:12]}.",
            "Give the right one with --model, or say --anyway.",
        )
    return model


def _check_upscaler(planned: Plan) -> None:
    """Raises InputError where the upscaler that was found is another than the recipe's."""
    wanted, name = upscaler_of(planned.recipe), getattr(planned.config, "upscaler", None)
    if wanted is None or name is None or planned.anyway:
        return
    found = fingerprint(find(name, offline=True))
    if found != wanted.hash:
        raise InputError(
            f"{name} is not the upscaler that made it: its hash is {found[:12]}, not {wanted.hash[:12]}.",
            "Say --anyway to use it all the same.",
        )


# Sameness


@contextmanager
def _threads(recipe: Recipe) -> Generator[None]:
    """As many threads as before, if the machine has them: sums are split by their number."""
    text, before = recipe.machine.get("threads", ""), torch.get_num_threads()
    wanted = int(text) if re.fullmatch("[0-9]{1,4}", text) else before
    torch.set_num_threads(wanted if 1 <= wanted <= (os.cpu_count() or 1) else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _before(planned: Plan, path: Path) -> Pixels | None:
    """The original, read before the new file may take its place; None where they cannot be the same."""
    suffixes = {path.suffix.lower(), planned.original.suffix.lower() if planned.original else ""}
    if planned.original is None or not planned.is_same or not suffixes <= {*LOSSLESS}:
        return None
    return read_image(planned.original, background=None)


def _notes(planned: Plan, machine: dict[str, str], same: bool | None) -> list[str]:
    """What the person should know: what went in instead, and why the pixels may be others."""
    notes = [f"It was made with {text}." for text in planned.found.replaced]
    if same is False:
        now = machine or library_versions(
            str(planned.config.model_dump().get("device")), torch.get_num_threads()
        )
        differing = [
            f"{name} was {printable(value, 40)} and is {now.get(name, 'not there')}"
            for name, value in planned.recipe.machine.items()
            if now.get(name) != value
        ]
        reason = f": {'; '.join(differing)}" if differing else ""
        notes.append(f"The pixels are not the same as before{reason}.")
    return notes
