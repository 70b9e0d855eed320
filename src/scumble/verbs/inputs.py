"""Pictures that verbs are given: read, named and hashed for the recipe; one file or a folder of them."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from itertools import pairwise
from pathlib import Path

from PIL import Image

from scumble.core.errors import InputError
from scumble.core.files import read_bytes
from scumble.core.images import MAX_BYTES, SUFFIXES, Picture, read_image
from scumble.history.recipe import Ingredient
from scumble.verbs.outputs import is_folder, planned_paths

__all__ = ["Given", "Source", "picture_files", "planned_file", "same_named"]

Given = Path | str | Image.Image
"""A picture as it may be given: the path of a file, or a picture in memory."""


@dataclass(frozen=True, slots=True)
class Source:
    """A picture that was given."""

    picture: Picture
    name: str
    hash: str
    """SHA-256 of the file; of mode, size and pixels for a picture that came from no file."""
    place: Path | None = None
    """The file, if it came from one."""

    @classmethod
    def of(cls, given: Given) -> Source:
        """Read `given`. Transparent pixels keep their colours. Raises ImageError with one sentence."""
        if isinstance(given, Image.Image):
            digest = sha256(f"{given.mode} {given.size} ".encode() + given.tobytes()).hexdigest()
            return cls(Picture.of(given), "image", digest)
        picture = read_image(given, background=None)
        digest = sha256(read_bytes(given, max_bytes=MAX_BYTES)).hexdigest()
        return cls(picture, Path(given).name, digest, Path(given))

    def ingredient(self, role: str) -> Ingredient:
        """What the recipe remembers of it."""
        if self.place is None:
            return Ingredient(role=role, name=self.name, hash=self.hash)
        return Ingredient.of(role, self.place, self.hash)


def picture_files(place: Path) -> list[Path]:
    """`place` itself if it is no folder, else its pictures by name.

    Raises InputError if it has none, or two of one stem, whose results would have one name.
    """
    if not place.is_dir():
        return [place]
    files = sorted(p for p in place.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())
    if not files:
        raise InputError(f"There is no picture in {place}.", f"Pictures end in {', '.join(SUFFIXES)}.")
    for one, other in pairwise(sorted(files, key=lambda file: file.stem)):
        if one.stem == other.stem:
            raise InputError(f"{one.name} and {other.name} would give one file.", "Rename one of them.")
    return files


def same_named(place: Path | None, file: Path) -> Path | None:
    """What belongs to `file`: `place` itself if it is a file, else the picture of the same stem in it."""
    if place is None or not place.is_dir():
        return place
    for suffix in SUFFIXES:
        if (found := place / f"{file.stem}{suffix}").exists():
            return found
    raise InputError(f"There is no picture {file.stem} in {place}.", f"It belongs to {file.name}.")


def planned_file(out: Path, file: Path, *, in_folder: bool, overwrite: bool) -> Path:
    """Where the result for the picture `file` goes: `out`, or `stem.png` in it if it has no suffix.

    Raises InputError if it exists and `overwrite` is false, or if `file` is one of a folder and `out` none.
    """
    if in_folder and not is_folder(out):
        raise InputError(f"{out} is one file, and there are several pictures.", "Give a folder with -o.")
    place = out / f"{file.stem}.png" if is_folder(out) else out
    return planned_paths(place, [0], overwrite=overwrite)[0]
