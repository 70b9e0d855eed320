"""What it takes to make a picture again: its recipe, the command, the settings, and every file that went in,
found before the work.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError

from scumble.core.config import Config
from scumble.core.errors import ConfigError, InputError
from scumble.core.files import sha256
from scumble.core.images import SUFFIXES
from scumble.data.video import VIDEO_SUFFIXES
from scumble.history.embed import read_recipe
from scumble.history.recipe import Ingredient, Recipe, printable
from scumble.history.store import Store, recalled
from scumble.models.load import DTYPES
from scumble.verbs.find import MODELS, Found, find_files, find_model
from scumble.verbs.lineage import how_again, is_learnt
from scumble.verbs.load import ModelConfig
from scumble.verbs.redo_verbs import OURS, VERBS, Verb
from scumble.verbs.vision import VisionConfig

__all__ = ["Plan", "plan", "upscaler_of"]

ALONE = ("count", "batch")
"""Settings of a run of several pictures."""


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

    @property
    def is_film(self) -> bool:
        """Whether it is a video itself, and not its layer."""
        return self.verb.film is not None and self.recipe.output is None

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
    coming: Mapping[str, Path] | None = None,
) -> Plan:
    """Find everything that the picture `what`, a file or a number of the history, was made from.

    `inputs` are `FILE` or `ROLE=FILE`, see `find_files`; `changes` are `NAME=VALUE` for settings; `coming`
    are files that will be there in time, by the hash of what they stand for. Raises InputError, in one
    sentence, for a recipe that cannot be followed and, by name, for what is missing.
    """
    with recalled() as history:
        recipe, original = _recipe_of(what, history)
        verb = _verb(recipe)
        values, changed = _values(verb, recipe, changes)
        found = find_files(recipe, inputs, history, coming or {})
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
            if (upscaler := upscaler_of(recipe)) is not None:
                ours["upscaler"] = find_model(upscaler, None, history, download=download).name
            where = ModelConfig if issubclass(verb.config, ModelConfig) else VisionConfig
            fields = {*where.model_fields, *verb.places}
            values |= {name: value for name, value in ours.items() if name in fields}
    return Plan(recipe, verb, _config(verb, values), found, changed, original, anyway)


# Settings


def _recipe_of(what: Path | int, history: Store | None) -> tuple[Recipe, Path | None]:
    """The recipe, and the file of the picture where it is there as it was."""
    if isinstance(what, Path):
        # What is neither picture nor video holds no recipe, but the history may know it.
        known = history and what.is_file() and what.suffix.lower() not in (*SUFFIXES, *VIDEO_SUFFIXES)
        entry = history.of_file(what) if history and known else None
        return entry.recipe if entry else read_recipe(what), what
    if history is None:
        raise InputError(f"There is no history to look up {what} in.", "Give the picture's file.")
    entry = history.entry(what)
    return entry.recipe, entry.place if entry.is_there and sha256(entry.place) == entry.hash else None


def _verb(recipe: Recipe) -> Verb:
    """How to follow `recipe`. Raises InputError where its command or what goes into it is not known."""
    of_a_video = any(ingredient.role == "video" for ingredient in recipe.ingredients)
    command = f"{recipe.command} of a video" if of_a_video else recipe.command
    if is_learnt(recipe):
        raise InputError(
            f"What comes of {printable(recipe.command, 40)!r} is not made again by redo.",
            f"Make it again with: {how_again(recipe)}",
        )
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
    kind = verb.config.model_fields[name].annotation
    if kind is str:
        return name, value
    try:
        return name, json.loads(value)
    except (ValueError, RecursionError):
        return name, _typed(kind, value)


def _typed(kind: Any, text: str) -> Any:
    """`.5`, `True` and what else people type for a setting of that type; where it is none, the text."""
    try:
        return TypeAdapter(kind).validate_strings(text)
    except ValidationError:
        return text


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


def upscaler_of(recipe: Recipe) -> Ingredient | None:
    """The model that enlarged the picture, if one did."""
    return next((i for i in recipe.ingredients if i.role in MODELS), None)
