"""Where results go: names, and the promise that nothing is overwritten unless it was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from scumble.core.errors import InputError
from scumble.core.files import sha256
from scumble.core.images import grid, save_image
from scumble.history.embed import save_options
from scumble.history.recipe import Recipe

__all__ = ["SUFFIXES", "Picture", "planned_paths", "save_pictures"]

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


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


def planned_paths(out: Path, seeds: Sequence[int], *, overwrite: bool) -> list[Path]:
    """The files that pictures with these `seeds` will be written to, one each, and a grid last if several.

    `out` with a picture's suffix and one seed: that file. With several seeds: `out` is the grid, and the
    pictures stand beside it as `stem-seed.suffix`. Without a suffix: a folder with `seed.png` and `grid.png`.
    Raises InputError before any work is done if one of them exists and `overwrite` is false.
    """
    if out.suffix and out.suffix.lower() not in SUFFIXES:
        raise InputError(f"{out} has no picture's suffix.", f"Use one of {', '.join(SUFFIXES)}, or a folder.")
    if not out.suffix:
        paths = [out / f"{seed}.png" for seed in seeds] + ([out / "grid.png"] if len(seeds) > 1 else [])
    elif len(seeds) == 1:
        paths = [out]
    else:
        paths = [out.with_name(f"{out.stem}-{seed}{out.suffix}") for seed in seeds] + [out]
    taken = [path for path in paths if path.exists()]
    if taken and not overwrite:
        raise InputError(f"{taken[0]} exists already.", "Give another name with -o, or say --overwrite.")
    return paths


def save_pictures(
    pictures: Sequence[Picture], paths: Sequence[Path], *, with_recipe: bool = True, edited: bool = False
) -> list[dict[str, str | int]]:
    """Write `pictures` to `paths` as `planned_paths` gave them; returns path, seed and hash of each file.

    A grid holds the recipe of its first picture, with the count in it, so it can be made again.
    """
    rows: list[dict[str, str | int]] = []
    for picture, path in zip(pictures, paths, strict=False):
        recipe = picture.recipe if with_recipe else None
        save_image(picture.image, path, **save_options(path.suffix, recipe, edited=edited))
        rows.append({"path": str(path), "seed": picture.seed, "sha256": sha256(path)})
    if len(paths) > len(pictures):
        sheet, recipe = grid([p.image for p in pictures]), pictures[0].recipe if with_recipe else None
        save_image(sheet, paths[-1], **save_options(paths[-1].suffix, recipe, edited=edited))
        rows.append({"path": str(paths[-1]), "seed": pictures[0].seed, "sha256": sha256(paths[-1])})
    return rows
