"""What an editing model learns from: pictures before and after, and the instruction between them.

A folder of pairs has pictures, in folders of their own if wanted, and `metadata.jsonl`, a JSON object a line:

    {"input": "0_in.png", "edited": "0_out.png", "instruction": "make it night",
     "input_caption": "a cat by day", "edited_caption": "a cat at night"}

`input` and `edited` are relative to the folder. The captions may be missing, and other keys may be there:
they are kept as they are. The names that the training script of diffusers wants are read too
(`input_image_file_name`, `edited_image_file_name`, `edit_prompt`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, cast

import torch
from PIL import Image
from torch import Tensor

from scumble.core.errors import ImageError, InputError
from scumble.core.files import explained
from scumble.core.images import read_image, to_unit

__all__ = ["METADATA", "Pair", "covering", "mirrors", "pictures", "read_pairs"]

METADATA = "metadata.jsonl"
MAX_LINE = 100_000
"""Characters of one line of metadata."""
MAX_TEXT = 10_000
_SPELLINGS = {
    "input": ("input", "input_image_file_name"),
    "edited": ("edited", "edited_image_file_name"),
    "instruction": ("instruction", "edit_prompt"),
    "input_caption": ("input_caption",),
    "edited_caption": ("edited_caption",),
}
_SIDES = re.compile(r"(?i)\b(left|right)(most|wards?|hand)?\b")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One example."""

    input: Path
    """The picture before."""
    edited: Path
    """The picture after, of the same size."""
    instruction: str
    input_caption: str = ""
    edited_caption: str = ""
    more: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What else the row says."""


def read_pairs(folder: Path | str) -> list[Pair]:
    """The pairs of a folder, in the order of its metadata; pictures are looked for, and not opened.

    Raises InputError with the line at fault: for metadata that is missing or no JSON, a row without pictures
    or instruction, a name outside the folder; and with the picture's name where one is missing.
    """
    folder = Path(folder)
    table = folder / METADATA
    if not table.is_file():
        raise InputError(
            f"There are no pairs in {folder}: it has no {METADATA}.",
            "`scumble data instructions` makes such a folder.",
        )
    pairs = [_pair(folder, row, number) for number, row in _rows(table)]
    if not pairs:
        raise InputError(f"{table} has no rows.", "It needs one JSON object a line, one for each pair.")
    return pairs


def mirrors(instruction: str) -> bool:
    """Whether a pair may be shown mirrored: the instruction says neither left nor right."""
    return _SIDES.search(instruction) is None


def pictures(pair: Pair) -> tuple[Image.Image, Image.Image]:
    """Both pictures, RGB. Raises ImageError, with names, where one cannot be read or their sizes differ."""
    before, after = read_image(pair.input).image, read_image(pair.edited).image
    if before.size != after.size:
        sizes = (f"{image.width} x {image.height}" for image in (before, after))
        raise ImageError(
            f"{pair.input.name} and {pair.edited.name} are a pair of different sizes, {' and '.join(sizes)}."
        )
    return before, after


def covering(images: tuple[Image.Image, Image.Image], side: int, at: tuple[float, float]) -> Tensor:
    """Both pictures (2, 3, side, side) in [0, 1], cut alike: the shorter side is resized to `side`, nothing
    stretched, and of what stands over the share `at` (down, right) in [0, 1] is cut off before.
    """
    width, height = images[0].size
    factor = side / min(width, height)
    whole = max(side, round(width * factor)), max(side, round(height * factor))
    top, left = round(at[0] * (whole[1] - side)), round(at[1] * (whole[0] - side))
    box = (left, top, left + side, top + side)
    cut = [image.resize(whole, Image.Resampling.LANCZOS).crop(box) for image in images]
    return torch.cat([to_unit(image) for image in cut])


def _rows(table: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with explained(table, "read"), table.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row: Any = json.loads(line) if len(line) <= MAX_LINE else None
            except (ValueError, RecursionError):
                row = None
            if not isinstance(row, dict):
                raise InputError(f"Line {number} of {table} is no JSON object.", "Write one a line.")
            yield number, cast("dict[str, Any]", row)


def _pair(folder: Path, row: dict[str, Any], number: int) -> Pair:
    found: dict[str, str] = {}
    for key, spellings in _SPELLINGS.items():
        value = next((row[name] for name in spellings if name in row), "")
        found[key] = value.strip()[:MAX_TEXT] if isinstance(value, str) else ""
    for key in ("input", "edited", "instruction"):
        if not found[key]:
            raise InputError(f"Line {number} of {folder / METADATA} has no {key}.", "Every pair needs one.")
    known = {name for spellings in _SPELLINGS.values() for name in spellings}
    return Pair(
        input=_picture(folder, found["input"], number),
        edited=_picture(folder, found["edited"], number),
        instruction=found["instruction"],
        input_caption=found["input_caption"],
        edited_caption=found["edited_caption"],
        more={key: value for key, value in row.items() if key not in known},
    )


def _picture(folder: Path, name: str, number: int) -> Path:
    """The picture of that name. A stranger's metadata reads nothing outside its folder."""
    outside = PurePosixPath(name).is_absolute() or PureWindowsPath(name).anchor or ".." in Path(name).parts
    if outside or "\0" in name:
        raise InputError(f"Line {number} of {folder / METADATA} names {name[:80]!r}, outside its folder.")
    if not (folder / name).is_file():
        raise InputError(
            f"The picture {name[:120]} of line {number} of {folder / METADATA} is not there.",
            "Put it there, or take the line out.",
        )
    return folder / name
