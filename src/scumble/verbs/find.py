"""The files that a recipe speaks of, found without believing it: by what the person gives, then by their hash
among the places that this user's own runs have seen. A recipe's names are never followed as paths.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote

from scumble.core.errors import InputError
from scumble.core.files import is_there, sha256
from scumble.history.recipe import Ingredient, Recipe, printable
from scumble.history.store import Store
from scumble.models.hub import is_hub_id
from scumble.verbs.lineage import how_again, is_learnt

__all__ = ["MODELS", "Found", "Place", "find_files", "find_model", "role_and_file", "shown", "stranger"]

TOYBOX = ("toybox", "toybox-instruct", "toybox-upscaler")
"""Models that come with the package, by name."""
WEIGHTS = "weights"
MODELS = ("upscaler",)
"""Roles of ingredients that are models, which `find_model` finds."""


@dataclass(slots=True)
class Found:
    """What was found for the ingredients of a recipe."""

    files: dict[str, Path] = field(default_factory=dict[str, Path])
    """Role -> file, of everything but weights."""
    weights: list[str] = field(default_factory=list[str])
    """FILE:SCALE, in the order of the recipe."""
    replaced: list[str] = field(default_factory=list[str])
    """What the person put in place of something else, in words."""
    other_weights: bool = False
    """Whether weights are among that."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a model is to be had."""

    name: str
    """For `scumble.models.load`."""
    offline: bool = True
    """Whether nothing may be fetched for it."""


def shown(ingredient: Ingredient) -> str:
    """An ingredient in words, safe to print."""
    return f"{printable(ingredient.name, 60)} ({printable(ingredient.role, 20)})"


def find_files(
    recipe: Recipe, given: Sequence[str], history: Store | None, coming: Mapping[str, Path]
) -> Found:
    """A file for every ingredient of `recipe` but models.

    `given` are `FILE`, which must be one of those that went in, or `ROLE=FILE`, which goes in for it whatever
    it holds. `coming` are files that will be there in time, by the hash of what they stand for. Raises
    InputError, by name, for what is missing, for a file that is another than it was, and for one that belongs
    to nothing.
    """
    slots: dict[int, Path] = {}
    found = Found()
    for text in given:
        _place_given(recipe, text, slots, found)
    missing: list[Ingredient] = []
    for number, ingredient in enumerate(recipe.ingredients):
        if number in slots or ingredient.role in MODELS:
            continue
        if (file := coming.get(ingredient.hash) or _remembered(ingredient, history)) is not None:
            slots[number] = file
        else:
            missing.append(ingredient)
    if missing:
        raise InputError(_missing(missing), _remedy(missing, history))
    for number, file in sorted(slots.items()):
        ingredient = recipe.ingredients[number]
        if ingredient.role == WEIGHTS:
            scale = 1.0 if ingredient.scale is None else ingredient.scale
            found.weights.append(f"{file}:{scale!r}")
        else:
            found.files[ingredient.role] = file
    return found


def _place_given(recipe: Recipe, text: str, slots: dict[int, Path], found: Found) -> None:
    """Put one given file where it belongs."""
    role, file = role_and_file(text)
    digest = sha256(file)
    free = [(n, i) for n, i in enumerate(recipe.ingredients) if n not in slots]
    if role is not None:
        fitting = [(n, i) for n, i in free if i.role == role][:1]
        if not fitting:
            roles = ", ".join(printable(i.role, 20) for _, i in free) or "nothing more"
            raise InputError(f"Nothing with the role {role!r} is missing.", f"There is: {roles}.")
        if fitting[0][1].hash != digest:
            found.replaced.append(f"{file.name} for {shown(fitting[0][1])}")
            found.other_weights |= role == WEIGHTS
    else:
        fitting = [(n, i) for n, i in free if i.hash == digest]
        if not fitting:
            raise stranger(file, [i for _, i in free])
    slots.update((number, file) for number, _ in fitting)


def role_and_file(text: str) -> tuple[str | None, Path]:
    """What stands in `FILE`, which has no role, or `ROLE=FILE`."""
    role, equals, rest = text.partition("=")
    named = bool(equals) and not is_there(Path(text))
    return role if named else None, Path(rest if named else text).expanduser()


def stranger(file: Path, free: Sequence[Ingredient]) -> InputError:
    """The error for a file that is none of the inputs."""
    alike = [i for i in free if i.name == file.name]
    if alike:
        return InputError(
            f"{file} is not the {shown(alike[0])} that went in: its content is different.",
            f"To use it all the same, say --input {printable(alike[0].role, 20)}={file}.",
        )
    wanted = ", ".join(map(shown, free)) or "nothing more"
    return InputError(f"{file} is none of the files that went in.", f"Wanted: {wanted}.")


def _remembered(ingredient: Ingredient, history: Store | None) -> Path | None:
    """A file that still has the content, among the places this user's runs have seen."""
    for place in history.places(ingredient.hash) if history else []:
        if place.is_file() and sha256(place) == ingredient.hash:
            return place
    return None


def _missing(missing: Sequence[Ingredient]) -> str:
    count = "A file" if len(missing) == 1 else f"{len(missing)} files"
    return f"{count} that went in cannot be found: {', '.join(map(shown, missing))}."


def _remedy(missing: Sequence[Ingredient], history: Store | None) -> str:
    for ingredient in missing:
        if history and (entries := history.made(ingredient.hash)):
            entry, name = entries[0], printable(ingredient.name, 60)  # a stranger's, and meant to be pasted
            again = f"scumble redo {entry.number} -o {quote(name)}"
            if is_learnt(entry.recipe):
                again = how_again(entry.recipe, name)
            return f"Make it again first with `{again}`, then give it with --input."
    here = [Path(Path(i.name).name) for i in missing]
    for file, ingredient in zip(here, missing, strict=True):
        if file.is_file() and sha256(file) == ingredient.hash:
            return f"It lies here, unknown to the history: give it with --input {quote(str(file))}."
    return "Give each with --input FILE."


def find_model(model: Ingredient, given: str | None, history: Store | None, *, download: bool) -> Place:
    """Where to load the model of a recipe from.

    That is what the person names; else the toybox; else a folder or file that this user's runs loaded it
    from; else the hub, if the name is one of the hub's, and only its cache on this machine unless `download`.
    Raises InputError where there is none of these. Whether it is the right one shows when it is loaded.
    """
    if given is not None:
        return Place(given, offline=False)
    if model.name in TOYBOX and not Path(model.name).exists():
        return Place(model.name)
    for place in history.places(model.hash) if history else []:
        if place.exists():
            return Place(str(place))
    # A relative path may look like a name of the hub; what lies there is nothing that a recipe may choose.
    if is_hub_id(model.name) and not Path(model.name).exists():
        return Place(model.name, offline=not download)
    raise InputError(
        f"It is not known where the model {printable(model.name, 60)} is ({model.hash[:12]}).",
        "Give it with --model.",
    )
