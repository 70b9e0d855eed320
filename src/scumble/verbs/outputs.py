"""Where results go: names, the promise that nothing is overwritten unless it was asked for, and the one place
where pictures are written, with their recipes, and remembered in the history.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from scumble.core.errors import InputError
from scumble.core.files import check_writable, explained, sha256
from scumble.core.images import SUFFIXES, fitted, grid, save_image
from scumble.history.embed import save_options
from scumble.history.recipe import Recipe
from scumble.history.store import Made, remember

__all__ = [
    "Picture",
    "Saved",
    "check_free",
    "check_new",
    "in_sheet",
    "is_folder",
    "planned_paths",
    "save_pictures",
    "sheet",
    "written",
]


@dataclass(frozen=True, slots=True)
class Picture:
    """A finished picture and how it was made."""

    image: Image.Image
    recipe: Recipe
    withheld: bool = False
    """Whether the model's safety checker flagged it; the image is black then."""

    @property
    def seed(self) -> int:
        return self.recipe.seed


@dataclass(frozen=True, slots=True)
class Saved:
    """What was written."""

    files: list[dict[str, str | int]]
    """Path, seed and SHA-256 of each file, a grid last."""
    note: str = ""
    """A sentence for the person, if something should be known."""


def planned_paths(out: Path, seeds: Sequence[int], *, overwrite: bool) -> list[Path]:
    """The files that pictures with these `seeds` will be written to, one each, and a grid last if several.

    `out` with a picture's suffix and one seed: that file. With several seeds: `out` is the grid, and the
    pictures stand beside it as `stem-seed.suffix`. Without a suffix: a folder with `seed.png` and `grid.png`.
    A folder that is there is one whatever its name. Raises InputError before any work is done if one of them
    exists and `overwrite` is false, or cannot be written.
    """
    with explained(out, "written"):
        folder = is_folder(out)
    if not folder and out.name.lower() in SUFFIXES:
        raise InputError(f"{out} has no name before its suffix.", "Give a name such as picture.png.")
    if not folder and out.suffix.lower() not in SUFFIXES:
        raise InputError(f"{out} has no picture's suffix.", f"Use one of {', '.join(SUFFIXES)}, or a folder.")
    if folder:
        paths = [out / f"{seed}.png" for seed in seeds] + ([out / "grid.png"] if len(seeds) > 1 else [])
    elif len(seeds) == 1:
        paths = [out]
    else:
        paths = [out.with_name(f"{out.stem}-{seed}{out.suffix}") for seed in seeds] + [out]
    check_free(paths, overwrite=overwrite)
    return paths


def check_free(paths: Sequence[Path], *, overwrite: bool) -> None:
    """Raises InputError, before any work, if one of the files `paths`, all of one folder, exists and
    `overwrite` is false, or cannot be written.
    """
    check_writable(max(paths, key=lambda path: len(path.name)))
    taken = [path for path in paths if path.exists()]
    if taken and not overwrite:
        raise InputError(f"{taken[0]} exists already.", "Give another name with -o, or say --overwrite.")
    for path in taken:
        if path.is_dir():
            raise InputError(f"{path} is a folder, not a file.", "Give another name with -o.")


def check_new(folder: Path) -> None:
    """Raises InputError, before any work, if `folder` is there and no empty folder, or cannot be made."""
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise InputError(f"{folder} exists already.", "Give another name with -o, or remove it.")
    check_writable(folder)


def is_folder(out: Path) -> bool:
    """Whether results go into `out` and not to it: it is a folder, or is not there and has no suffix."""
    return out.is_dir() or not (out.suffix or out.name.lower() in SUFFIXES)


def save_pictures(
    pictures: Sequence[Picture], paths: Sequence[Path], *, with_recipe: bool = True, edited: bool = False
) -> list[dict[str, str | int]]:
    """Write `pictures` to `paths` as `planned_paths` gave them; returns path, seed and hash of each file.

    Where there is a path more than pictures, it gets the `sheet` of them all. The history remembers those
    that have a recipe; where it cannot, that is logged and breaks nothing.
    """
    made = written(pictures, paths, with_recipe=with_recipe, edited=edited)
    if with_recipe:
        remember(made)
    return [one.row for one in made]


def written(
    pictures: Sequence[Picture], paths: Sequence[Path], *, with_recipe: bool = True, edited: bool = False
) -> list[Made]:
    """The same, but the history is not told: what it shall remember."""
    finished = [*pictures, sheet(pictures)] if len(paths) > len(pictures) else pictures
    made: list[Made] = []
    for picture, path in zip(finished, paths, strict=True):
        recipe, by_ai = picture.recipe if with_recipe else None, picture.recipe.model is not None
        save_image(picture.image, path, **save_options(path.suffix, recipe, edited=edited, by_ai=by_ai))
        made.append(Made(path, sha256(path), picture.recipe, picture.image))
    return made


def in_sheet(picture: Picture, count: int) -> Picture:
    """`picture` as a `sheet` of `count` shows it: what is kept for one is no larger than the sheet."""
    return replace(picture, image=fitted(picture.image, count))


def sheet(pictures: Sequence[Picture]) -> Picture:
    """A grid of all pictures of one run, with the recipe of its first and the count in it.

    Very many pictures stand in it smaller, see `scumble.core.images.fitted`.
    """
    first = pictures[0].recipe
    together = first.batch[1] if first.batch else 1
    settings = first.settings | {"count": len(pictures), "batch": together}
    recipe = first.model_copy(update={"output": "grid", "settings": settings, "batch": None})
    return Picture(grid([in_sheet(p, len(pictures)).image for p in pictures]), recipe)
