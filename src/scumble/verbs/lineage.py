"""What the history remembers of what is learnt: weights, merges and atlases, which hold no recipe themselves.

They stand between pictures: what a picture came from goes on through them. They are not made again by `redo`,
so a command line says how that is done.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from shlex import join
from typing import TYPE_CHECKING, Any

from scumble.core.files import sha256
from scumble.history.recipe import Ingredient, Recipe, library_versions, printable
from scumble.history.store import Made, remember

if TYPE_CHECKING:
    from PIL import Image

    from scumble.core.config import Config
    from scumble.data.subjects import Subject
    from scumble.models.model import Model
    from scumble.verbs.load import ModelConfig

__all__ = ["how_again", "is_learnt", "remember_atlas", "remember_learnt", "remember_merged"]

LEARN, MERGE, ATLAS = "learn", "merge", "atlas"
MOST = 200
"""Photos of a run that are remembered; a recipe is short."""
SHOWN = 6
"""Subjects, and twice as many words, that a command line to read has at most."""


def remember_learnt(
    out: Path,
    method: str,
    subjects: Sequence[tuple[Path, str, str]],
    read: Sequence[Subject],
    config: Config,
    on: ModelConfig,
    model: Model,
) -> None:
    """Tell the history of the weights `out`: the photos that were `read` of the `subjects`, the settings."""

    def made() -> Iterator[Made]:
        photos = [
            folder / shot.name
            for (folder, _, _), subject in zip(subjects, read, strict=True)
            for shot in subject.shots
        ]
        told = [f"{folder.resolve().name}:{word}:{noun}" for folder, word, noun in subjects]
        settings = config.model_dump(mode="json", exclude={"seed"}, exclude_defaults=True)
        if "regularization" in settings:
            settings["regularization"] = Path(settings["regularization"]).name  # as all inputs of recipes
        recipe = Recipe(
            command=f"{LEARN} {method}",
            settings={"subjects": told, **settings},
            seed=getattr(config, "seed", 0),
            model=Ingredient.of("model", on.model, model.hash),
            ingredients=tuple(Ingredient.of("photo", photo, sha256(photo)) for photo in photos[:MOST]),
            machine=on.machine(model),
        )
        yield Made(out, sha256(out), recipe, None)

    remember(made())


def remember_merged(
    out: Path,
    given: Sequence[tuple[Path, float]],
    settings: Mapping[str, Any],
    on: ModelConfig,
    model: Model,
) -> None:
    """Tell the history of the weights `out`, merged from those `given` with their scales."""

    def made() -> Iterator[Made]:
        recipe = Recipe(
            command=MERGE,
            settings=dict(settings),
            model=Ingredient.of("model", on.model, model.hash),
            ingredients=tuple(Ingredient.of("weights", path, sha256(path), scale) for path, scale in given),
            machine=on.machine(model),
        )
        yield Made(out, sha256(out), recipe, None)

    remember(made())


def remember_atlas(
    out: Path,
    video: Path,
    masks: Sequence[Path],
    settings: Mapping[str, Any],
    seed: int,
    sheets: Mapping[Path, tuple[str, Image.Image]],
    device: str,
) -> None:
    """Tell the history of the atlas `out` of a video, and of its `sheets`: file -> (layer, picture)."""

    def made() -> Iterator[Made]:
        files = [("video", video), *(("mask", mask) for mask in masks if mask.is_file())]
        recipe = Recipe(
            command=ATLAS,
            settings=dict(settings),
            seed=seed,
            ingredients=tuple(Ingredient.of(role, file, sha256(file)) for role, file in files),
            machine=library_versions(device, 1),
        )
        first, *_ = (picture for _, picture in sheets.values())
        yield Made(out, sha256(out), recipe, first)
        for path, (layer, picture) in sheets.items():
            yield Made(path, sha256(path), recipe.model_copy(update={"output": layer}), picture)

    remember(made())


def is_learnt(recipe: Recipe) -> bool:
    """Whether it is of what is learnt, and so not of what `redo` makes."""
    return recipe.command.partition(" ")[0] in (LEARN, MERGE, ATLAS)


def how_again(recipe: Recipe, out: str = "OUT") -> str:
    """The command line that makes such a thing again; of a stranger's recipe too it is safe to print."""
    kind, _, method = recipe.command.partition(" ")
    subjects, box = recipe.settings.get("subjects"), recipe.settings.get("box")
    words = [kind, *([method] if method else [])]
    for subject in subjects[:SHOWN] if isinstance(subjects, list) else []:
        words += ["--subject", str(subject)]
    for i in recipe.ingredients:
        if i.role == "mask":
            words += ["--mask", i.name]
        elif i.role == "video":
            words.append(i.name)
        elif i.role == "weights":
            words.append(i.name if i.scale in (None, 1.0) else f"{i.name}:{i.scale:g}")
    if isinstance(box, list):
        words += ["--box", ",".join(map(str, box[:4]))]
    return join(["scumble", *(printable(word, 60) for word in words[: 2 * SHOWN]), "-o", out])
