"""The same picture again, from the recipe in its file.

A recipe is a stranger's text. It chooses among `redo_verbs` and fills in their settings, which are checked
like any others. It cannot name a file or a folder to read, nor have anything fetched or unpickled: files come
from the person or, by their hash, from places that this user's own runs have seen; see `scumble.verbs.find`.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from PIL import Image

from scumble.core.config import Config
from scumble.core.errors import ConfigError, InputError, ModelError
from scumble.core.events import Loop, finish
from scumble.core.files import sha256
from scumble.core.images import Picture as Pixels
from scumble.core.images import read_image
from scumble.history.embed import read_recipe
from scumble.history.recipe import Ingredient, Recipe, library_versions, printable
from scumble.history.store import Store, recalled
from scumble.models.hash import fingerprint
from scumble.models.load import DTYPES, find
from scumble.models.model import Model
from scumble.verbs import redo_film
from scumble.verbs.drawing import SeriesConfig
from scumble.verbs.find import MODELS, Found, find_files, find_model
from scumble.verbs.load import ModelConfig
from scumble.verbs.outputs import Picture, Saved, in_sheet, is_folder, planned_paths, save_pictures, sheet
from scumble.verbs.redo_verbs import OURS, VERBS, Verb
from scumble.verbs.vision import VisionConfig

__all__ = ["Plan", "Redone", "plan", "redo", "redo_to"]


Result = TypeVar("Result")

LOSSLESS = (".png", ".webp")
ALONE = ("count", "batch")


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be done, with everything found."""

    recipe: Recipe
    verb: Verb
    config: Config
    """Settings of the verb; where its model is, is among them."""
    found: Found
    changes: dict[str, Any] = field(default_factory=dict[str, Any])
    original: Path | None = None
    """The picture that is made again, where it is there."""
    anyway: bool = False

    @property
    def is_same(self) -> bool:
        """Whether the same pixels are to be expected."""
        return not self.changes and not self.found.replaced

    def facts(self) -> dict[str, Any]:
        """What will be done, for a person to read."""
        settings = self.config.model_dump(mode="json", exclude_none=True)
        return {
            "command": self.recipe.command,
            "made with": f"scumble {printable(self.recipe.scumble, 40)}",
            **{name: settings[name] for name in ("model", "clip") if name in settings},
            "files": [f"{role}: {file}" for role, file in self.found.files.items()] + self.found.weights,
            "settings": {name: value for name, value in settings.items() if name not in OURS},
        }


@dataclass(frozen=True, slots=True)
class Redone:
    """What came of it."""

    file: dict[str, str | int]
    """Path, seed and SHA-256."""
    same: bool | None
    """Whether the pixels are those of the original; None where that cannot be asked."""
    note: str = ""
    """What the person should know, in sentences."""


def plan(
    what: Path | int,
    *,
    inputs: Sequence[str] = (),
    changes: Sequence[str] = (),
    model: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    anyway: bool = False,
    download: bool = False,
    trust_pickle: bool = False,
) -> Plan:
    """Find everything that the picture `what`, a file or a number of the history, was made from.

    `inputs` are `FILE` or `ROLE=FILE`, see `find_files`; `changes` are `NAME=VALUE` for settings. Raises
    InputError, in one sentence, for a recipe that cannot be followed and, by name, for what is missing.
    """
    with recalled() as history:
        recipe, original = _recipe_of(what, history)
        verb = _verb(recipe)
        values, changed = _values(verb, recipe, changes)
        found = find_files(recipe, inputs, history)
        if issubclass(verb.config, ModelConfig | VisionConfig) and "painted" not in found.files:
            if recipe.model is None:
                raise InputError("The recipe names no model, and its command needs one.")
            place = find_model(recipe.model, model, history, download=download)
            ours = {
                "model": place.name,
                "clip": place.name,
                "offline": place.offline,
                "weights": tuple(found.weights),
                "trust_pickle": trust_pickle,
                # Base and weights are the ones that were together before.
                "any_base": not anyway and not found.other_weights,
                **_computed(recipe, device, dtype),
            }
            if (upscaler := _upscaler(recipe)) is not None:
                ours["upscaler"] = find_model(upscaler, None, history, download=download).name
            where = ModelConfig if issubclass(verb.config, ModelConfig) else VisionConfig
            fields = {*where.model_fields, *verb.places}
            values |= {name: value for name, value in ours.items() if name in fields}
    return Plan(recipe, verb, _config(verb, values), found, changed, original, anyway)


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
    if planned.verb.film is not None:
        return (yield from _filmed(planned, planned.verb.film, out, overwrite=overwrite))
    [path] = planned_paths(out / "again.png" if is_folder(out) else out, [0], overwrite=overwrite)
    picture = yield from _made(planned)
    before = _before(planned, path)
    edited = any(i.role not in ("weights", *MODELS) for i in planned.recipe.ingredients)
    [row] = save_pictures([picture], [path], edited=edited)
    same = None if before is None else read_image(path, background=None) == before
    withheld = ["The model's safety checker withheld the picture; it is black."] if picture.withheld else []
    return Redone(row, same, " ".join(_notes(planned, picture.recipe.machine, same) + withheld))


def _filmed(planned: Plan, film: Callable[..., Loop[Saved]], out: Path, *, overwrite: bool) -> Loop[Redone]:
    redo_film.check_suffix(out)
    if isinstance(planned.config, VisionConfig) and planned.recipe.model is not None:
        _loaded(planned.config, planned)
    alike = planned.original is not None and planned.original.suffix.lower() == out.suffix.lower()
    before = redo_film.frames_of(planned.original) if planned.original and alike and planned.is_same else None
    with _threads(planned.recipe):
        saved = yield from film(planned.config, planned.found.files, out, overwrite=overwrite)
    same = None if before is None else redo_film.same_frames(before, out)
    notes = _notes(planned, {}, same)
    return Redone(saved.files[0], same, " ".join([*notes, saved.note]).strip())


def _made(planned: Plan) -> Loop[Picture]:
    recipe, config = planned.recipe, planned.config
    if planned.verb.film is not None:
        raise InputError("A video was asked for as a picture.", "`scumble redo` writes videos.")
    model = _loaded(config, planned) if isinstance(config, ModelConfig | VisionConfig) else None
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


def _upscaler(recipe: Recipe) -> Ingredient | None:
    """The model that enlarged the picture, if one did."""
    return next((i for i in recipe.ingredients if i.role in MODELS), None)


def _check_upscaler(planned: Plan) -> None:
    """Raises InputError where the upscaler that was found is another than the recipe's."""
    wanted, name = _upscaler(planned.recipe), getattr(planned.config, "upscaler", None)
    if wanted is None or name is None or planned.anyway:
        return
    found = fingerprint(find(name, offline=True))
    if found != wanted.hash:
        raise InputError(
            f"{name} is not the upscaler that made it: its hash is {found[:12]}, not {wanted.hash[:12]}.",
            "Say --anyway to use it all the same.",
        )


# Settings


def _recipe_of(what: Path | int, history: Store | None) -> tuple[Recipe, Path | None]:
    """The recipe, and the file of the picture where it is there as it was."""
    if isinstance(what, Path):
        return read_recipe(what), what
    if history is None:
        raise InputError(f"There is no history to look up {what} in.", "Give the picture's file.")
    entry = history.entry(what)
    return entry.recipe, entry.place if entry.is_there and sha256(entry.place) == entry.hash else None


def _verb(recipe: Recipe) -> Verb:
    """How to follow `recipe`. Raises InputError where its command or what goes into it is not known."""
    of_a_video = any(ingredient.role == "video" for ingredient in recipe.ingredients)
    command = f"{recipe.command} of a video" if of_a_video else recipe.command
    if command not in VERBS:
        raise InputError(
            f"Pictures of the command {printable(command, 60)!r} cannot be made again.",
            f"Those of {', '.join(VERBS)} can.",
        )
    verb = VERBS[command]
    roles = [
        i.role for i in recipe.ingredients if i.role != "weights" or not issubclass(verb.config, ModelConfig)
    ]
    for role in roles:
        if role not in (*verb.needs, *verb.takes) or roles.count(role) > 1:
            raise InputError(f"The recipe has no use for its ingredient {printable(role, 40)!r}.")
    if lacking := set(verb.needs) - set(roles):
        raise InputError(f"The recipe lacks its ingredient {min(lacking)!r}.")
    return verb


def _values(verb: Verb, recipe: Recipe, changes: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings for the verb and, of those, what the person changes."""
    if wrong := recipe.settings.keys() - set(_settings(verb)):
        name = printable(min(wrong), 60)
        raise InputError(f"The recipe has a setting {name!r}, which no recipe has.", "Do not use it.")
    fields, values = verb.config.model_fields, dict(recipe.settings)
    if "seed" in fields:
        values["seed"] = recipe.seed
    changed = dict(_change(verb, text) for text in changes)
    if recipe.output != "grid" and (several := [name for name in ALONE if name in changed]):
        raise ConfigError(f"{several[0]} cannot be set here: one picture is made again.")
    if changed or recipe.batch is None or "count" not in fields:
        return values | changed, changed
    first, count = recipe.batch
    if not first <= recipe.seed < first + count:
        raise InputError(f"The recipe's seed {recipe.seed} is not in its own batch.")
    return values | {"seed": first, "count": count, "batch": count}, changed


def _change(verb: Verb, text: str) -> tuple[str, Any]:
    """NAME=VALUE; the value as JSON where the setting is no text."""
    name, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"{text!r} is no setting.", "Write --set steps=50.")
    if name in OURS or name in verb.places:
        raise ConfigError(f"{name} cannot be set here.", "There are --model, --input, --device and --dtype.")
    if name not in verb.config.model_fields:
        raise ConfigError(f"There is no setting {name!r}.", f"There are: {', '.join(_settings(verb))}.")
    if verb.config.model_fields[name].annotation is str:
        return name, value
    try:
        return name, json.loads(value)
    except (ValueError, RecursionError):
        return name, value


def _settings(verb: Verb) -> list[str]:
    """Names of the settings that a recipe may have and a person may change."""
    return [name for name in verb.config.model_fields if name not in OURS and name not in verb.places]


def _config(verb: Verb, values: dict[str, Any]) -> Config:
    """The settings, checked. Their checks are written for what people type: whatever they raise over what a
    stranger wrote is one sentence too.
    """
    try:
        return verb.config.of(values)
    except (TypeError, ValueError, LookupError, ArithmeticError, RecursionError) as problem:
        raise InputError(f"The settings in the recipe cannot be used: {type(problem).__name__}.") from problem


# Sameness


def _computed(recipe: Recipe, device: str | None, dtype: str | None) -> dict[str, Any]:
    """Settings of how to compute: as before, where this machine can, unless told otherwise."""
    machine = recipe.machine
    kind, before = machine.get("device", "").split(":")[0], machine.get("dtype")
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    return {
        "device": device or (kind if there.get(kind) else "auto"),
        "dtype": dtype or (before if before in DTYPES else "auto"),
        # Not `compile`: nobody's recipe sets a compiler to work.
        **{name: True for name in ("low_memory", "channels_last") if name in machine},
    }


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
