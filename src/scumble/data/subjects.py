"""What a person wants learnt: a folder of a few pictures, a word for it, its class noun.

A folder may hold, beside its pictures, a caption for each (`cat.txt` for `cat.png`, or rows of
`metadata.jsonl` with `file_name` and `text`) and a mask for each in the folder `masks` (white is what to
learn). They belong to the picture whose name is the same up to the suffix; suffixes in capitals are as good.
"""

from __future__ import annotations

import json
import re
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any, cast

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from scumble.core.errors import ImageError, InputError
from scumble.core.files import read_bytes
from scumble.core.images import SUFFIXES, read_image, read_mask, to_unit
from scumble.core.text import decoded, printable
from scumble.data.templates import meaning

__all__ = [
    "SMALLEST",
    "Shot",
    "Subject",
    "buckets",
    "captions_of",
    "cropped",
    "passed_over",
    "read_subject",
    "worded",
]

SMALLEST = 32
"""Pixels that the shorter side of a picture must have."""
MAX_CAPTION = 10_000
MAX_METADATA = 16_000_000
UNREAD = {
    ".apng", ".avif", ".bmp", ".dib", ".gif", ".heic", ".heif", ".hif", ".ico", ".j2k", ".jfif", ".jp2",
    ".jpe", ".jxl", ".pbm", ".pgm", ".pnm", ".ppm", ".psd", ".svg", ".tga", ".tif", ".tiff", ".xcf",
    ".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dng", ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2",
    ".srw",
}  # fmt: skip
"""Suffixes of pictures that are not read, the second part those that cameras write."""
SHOWN, LONGEST = 3, 80
"""The most files that a note names, and letters of each name."""
NOT_THERE = "no picture has that name"
NO_TEXT = "neither UTF-8 nor UTF-16"
LOOKED_AT = 10_000
"""The most files that are looked at for a hint."""
WIDEST = 2.0
"""The most that a bucket's width and height differ by, as a factor."""


@dataclass(frozen=True, slots=True, eq=False)
class Shot:
    """One picture of a subject."""

    name: str
    image: Image.Image
    caption: str | None = None
    mask: Tensor | None = None
    """(1, 1, H, W) in [0, 1], of the picture's size; 1 is what to learn."""


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """What is to be learnt."""

    word: str
    """The word for it, as it will stand in prompts: `<rex>`. Empty for a concept told by captions alone."""
    noun: str
    """What it is a kind of: `dog`."""
    shots: tuple[Shot, ...]
    notes: tuple[str, ...] = ()
    """What a person should know of the pictures, in sentences."""

    @property
    def name(self) -> str:
        """Word and noun, as they stand in a prompt."""
        return f"{self.word} {self.noun}".strip()


def read_subject(folder: Path | str, word: str = "", noun: str = "") -> Subject:
    """Read a subject's folder.

    Pictures that are broken or too small are left out, as are copies of others, each named in `notes`; so are
    pictures of types that are not read, captions that are no text, and captions and masks of no picture.
    Raises InputError where there is no folder or no usable picture in it, a picture has two captions or
    masks, metadata.jsonl is no text or the noun has a character that means something in a prompt; ImageError
    for a mask of another size or without white.
    """
    if found := meaning(noun):
        raise InputError(
            f"{noun[:40]!r} cannot be a class noun: {found!r} means something in a prompt.",
            "Take ordinary words, such as dog.",
        )
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"There is no folder {folder}.", "Give a folder with a few pictures of the subject.")
    files = _files(folder, SUFFIXES)
    captions, strays = _captions(folder, files)
    masks, of_none = _matched(files, _files(folder / "masks", SUFFIXES))
    unread = [*_files(folder, UNREAD), *_files(folder / "masks", UNREAD)]
    notes: list[str] = []
    shots: list[Shot] = []
    seen: dict[str, str] = {}
    for file in files:
        try:
            image = read_image(file).image
        except ImageError as problem:
            notes.append(f"{problem.message} It was left out.")
            continue
        digest = sha256(f"{image.size}".encode() + image.tobytes()).hexdigest()
        if min(image.size) < SMALLEST:
            notes.append(f"{file.name} has only {image.width} x {image.height} pixels and was left out.")
        elif digest in seen:
            notes.append(f"{file.name} is the same picture as {seen[digest]} and was left out.")
        else:
            seen[digest] = file.name
            mask = _mask(masks[file.name], file, image) if file.name in masks else None
            shots.append(Shot(file.name, image, captions.get(file.name), mask))
    notes += passed_over(_names(unread, folder), "not a type that is read")
    notes += strays
    notes += passed_over(_names(of_none, folder), NOT_THERE)
    if not shots:
        raise InputError(
            f"There is no usable picture in {folder}. {' '.join(notes)}".rstrip(),
            "Pictures in folders inside it are not read: give one of these folders, or move the pictures up."
            if _has_pictures_below(folder)
            else f"Put a few in, of {' or '.join(SUFFIXES)}.",
        )
    if len(shots) == 1:
        notes.append("There is one picture only: what is learnt will cling to it; 3 to 5 are better.")
    return Subject(word, noun, tuple(shots), tuple(notes))


def worded(caption: str, named: str, word: str, noun: str) -> str:
    """A picture's own caption, made to speak of the subject as `named`.

    `named` goes where `{}` is, else where the class noun first stands as a word of its own, else before all.
    A caption that has the subject's word already, and one of a subject without word, stays as it is.
    """
    if "{}" in caption:
        return caption.replace("{}", named)
    if not word or _stands(word, caption):
        return caption
    found = re.search(rf"(?<!\w){re.escape(noun)}(?!\w)", caption) if noun else None
    if found is None:
        return f"{named}, {caption}"
    return caption[: found.start()] + named + caption[found.end() :]


def _stands(word: str, caption: str) -> bool:
    """Whether a prompt would read `word` in the caption: as a whole, not inside another."""
    before, after = ("(?<!\\w)" if word[0].isalnum() else "", "(?!\\w)" if word[-1].isalnum() else "")
    return re.search(before + re.escape(word) + after, caption) is not None


def captions_of(folder: Path) -> tuple[dict[str, str], list[str]]:
    """The captions of a folder's pictures by file name: from text files, else from `metadata.jsonl`, where a
    later row wins; and sentences on those that were passed over. Raises InputError for a picture with two
    text files, and for a `metadata.jsonl` that is no text.
    """
    return _captions(folder, _files(folder, SUFFIXES))


def _captions(folder: Path, pictures: Sequence[Path]) -> tuple[dict[str, str], list[str]]:
    """Captions by the picture's file name, and sentences on those that are no text or of no picture."""
    table = folder / "metadata.jsonl"
    rows = dict(_rows(table)) if table.is_file() else {}
    texts, of_none = _matched(pictures, _files(folder, {".txt"}))
    alike = {_folded(name): text for name, text in rows.items()}
    found: dict[str, str] = {}
    unread: list[Path] = []
    for name in (picture.name for picture in pictures):
        if name in rows or _folded(name) in alike:
            found[name] = rows[name] if name in rows else alike[_folded(name)]
        if name in texts:
            text = decoded(read_bytes(texts[name], max_bytes=MAX_CAPTION))
            unread += [texts[name]] if text is None else []
            found |= {name: text.strip()} if text and text.strip() else {}
    there = {_folded(picture.name) for picture in pictures}
    lost = [name for name in rows if _folded(name) not in there]
    notes = passed_over(_names(unread, folder), NO_TEXT) + passed_over(_names(of_none, folder), NOT_THERE)
    return found, notes + passed_over(lost, f"in metadata.jsonl, but {NOT_THERE}")


def _rows(table: Path) -> Iterator[tuple[str, str]]:
    text = decoded(read_bytes(table, max_bytes=MAX_METADATA))
    if text is None:
        raise InputError(f"{table} is {NO_TEXT}.", "Save it as UTF-8.")
    for number, line in enumerate(text.splitlines(), 1):
        try:
            row: Any = json.loads(line) if line.strip() else {}
        except (ValueError, RecursionError):
            raise InputError(f"Line {number} of {table} is no JSON object.", "Write one a line.") from None
        fields = cast("dict[str, Any]", row) if isinstance(row, dict) else {}
        if isinstance(fields.get("text"), str) and "file_name" in fields:
            yield str(fields["file_name"]), fields["text"][:MAX_CAPTION]


def _mask(place: Path, file: Path, image: Image.Image) -> Tensor:
    mask = read_mask(place)
    if mask.shape[-2:] != (image.height, image.width):
        raise ImageError(f"The mask {place} is not of the size of {file.name}.")
    if not bool(mask.any()):
        raise ImageError(f"The mask {place} is black all over.", "White is what to learn.")
    return mask


def _files(folder: Path, suffixes: Container[str]) -> list[Path]:
    """The files of a folder with one of the suffixes, small letters or capitals, by name; none of one that
    is not there.
    """
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in suffixes and p.is_file())


def _has_pictures_below(folder: Path) -> bool:
    """Whether there are pictures further down, where a person may have put them."""
    inner = (file.relative_to(folder) for file in islice(folder.rglob("*"), LOOKED_AT))
    pictures = (path for path in inner if path.suffix.lower() in SUFFIXES and len(path.parts) > 1)
    return any(path.parts[0] != "masks" and not str(path).startswith(".") for path in pictures)


def _folded(name: str) -> str:
    """The name with its suffix in small letters."""
    stem, dot, suffix = name.rpartition(".")
    return f"{stem}{dot}{suffix.lower()}"


def _matched(pictures: Sequence[Path], others: Sequence[Path]) -> tuple[dict[str, Path], list[Path]]:
    """Which of `others` goes with a picture, by the picture's file name, and which go with none.

    One has the picture's name but for the suffix; of several it is the one that has its suffix too. Raises
    InputError where that leaves two.
    """
    stems: dict[str, list[Path]] = {}
    for other in others:
        stems.setdefault(other.stem, []).append(other)
    found: dict[str, Path] = {}
    for picture in pictures:
        alike = stems.get(picture.stem, [])
        same = [other for other in alike if _folded(other.name) == _folded(picture.name)]
        nearest = [other for other in alike if other.name == picture.name] or same or alike
        if len(nearest) > 1:
            raise InputError(f"{nearest[0]} and {nearest[1].name} both go with {picture.name}.", "Keep one.")
        if nearest:
            found[picture.name] = nearest[0]
    used = set(found.values())
    return found, [other for other in others if other not in used]


def _names(files: Sequence[Path], folder: Path) -> list[str]:
    """What a person calls the files, seen from the folder; hidden ones are not a person's."""
    return [file.relative_to(folder).as_posix() for file in files if not file.name.startswith(".")]


def passed_over(names: Sequence[str], why: str) -> list[str]:
    """A sentence on files that were not used, if there are any."""
    shown = ", ".join(printable(name, LONGEST) for name in names[:SHOWN])
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return [f"Passed over: {shown}{more} ({why})."] if names else []


def buckets(shots: Sequence[Shot], size: int, cell: int) -> dict[tuple[int, int], list[int]]:
    """Which shots are shown at which size (H, W): multiples of `cell` with about `size`^2 pixels, as near to
    the shot's own proportions as those of a factor of two allow, so that little is cut off.
    """
    sizes: set[tuple[int, int]] = {(size, size)}
    for height in range(cell, 2 * size + 1, cell):
        width = round(size * size / height / cell) * cell
        if width and 1 / WIDEST <= width / height <= WIDEST:
            sizes.add((height, width))
    chosen: dict[tuple[int, int], list[int]] = {}
    for i, shot in enumerate(shots):
        shape = shot.image.height / shot.image.width
        best = min(sorted(sizes), key=lambda s: max(s[0] / s[1] / shape, shape / (s[0] / s[1])))
        chosen.setdefault(best, []).append(i)
    return chosen


def cropped(shot: Shot, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The shot at `size` (H, W), (3, H, W) in [0, 1], and its mask, (1, H, W), ones if it has none: resized
    to cover that size, nothing stretched, and cut to the middle.
    """
    height, width = size
    image = shot.image
    factor = max(height / image.height, width / image.width)
    whole = (max(width, round(image.width * factor)), max(height, round(image.height * factor)))
    left, top = (whole[0] - width) // 2, (whole[1] - height) // 2
    box = (left, top, left + width, top + height)
    picture = to_unit(image.resize(whole, Image.Resampling.LANCZOS).crop(box))[0]
    if shot.mask is None:
        return picture, torch.ones(1, height, width)
    resized = interpolate(shot.mask, (whole[1], whole[0]), mode="area")
    return picture, resized[0, :, top : top + height, left : left + width]
