"""What edits of pictures share: masks, where results go, and what a person should know of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from torch import Tensor

from scumble.core.images import to_unit
from scumble.models.model import Model
from scumble.verbs.drawing import SeriesConfig
from scumble.verbs.inputs import Source, planned_file
from scumble.verbs.load import RANDOM_MODEL
from scumble.verbs.outputs import Picture, planned_paths

__all__ = ["edited_paths", "first_notes", "grey", "lossy_notes", "withheld_notes"]

NOT_EXACT = "JPEG changes every pixel a little: write PNG or WebP where what is kept must stay as it was."


def grey(mask: Source) -> Tensor:
    """(1, 1, H, W) in [0, 1]; transparent counts as black."""
    return to_unit(mask.picture.on((0, 0, 0)).convert("L"))[:, :1]


def edited_paths(
    config: SeriesConfig, out: Path, file: Path, *, in_folder: bool, overwrite: bool
) -> list[Path]:
    """Where the results for `file`, one of a folder or alone, go. Raises InputError before any work."""
    if config.count > 1 and not in_folder:
        return planned_paths(out, config.seeds, overwrite=overwrite)
    place = planned_file(out, file, in_folder=in_folder, overwrite=True)
    return planned_paths(place, config.seeds, overwrite=overwrite)


def first_notes(model: Model, kept: Sequence[bool], places: Sequence[Sequence[Path]]) -> list[str]:
    """What a person should know before: of a random model, and of JPEG where something is to be kept."""
    notes = [RANDOM_MODEL] if model.is_random else []
    return [*notes, *lossy_notes(places)] if any(kept) else notes


def lossy_notes(places: Sequence[Sequence[Path]]) -> list[str]:
    """What a person should know where something is to be kept and one of the files is a JPEG."""
    jpeg = any(path.suffix.lower() in (".jpg", ".jpeg") for paths in places for path in paths)
    return [NOT_EXACT] if jpeg else []


def withheld_notes(file: Path, pictures: Sequence[Picture]) -> Iterator[str]:
    """What a person should know of the `pictures` made of one file."""
    if withheld := sum(picture.withheld for picture in pictures):
        yield f"The model's safety checker withheld {withheld} pictures of {file.name}; they are black."
