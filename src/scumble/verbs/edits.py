"""What all edits of pictures share: how many and with which seeds, where results go, their recipes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from secrets import randbelow
from typing import Annotated, Self

import torch
from pydantic import Field
from torch import Tensor

from scumble.core.errors import ConfigError
from scumble.core.images import from_unit, to_model, to_unit
from scumble.history.recipe import Ingredient, Recipe
from scumble.models.model import Model
from scumble.verbs.generate import RANDOM_MODEL, together
from scumble.verbs.inputs import Source, planned_file
from scumble.verbs.load import ModelConfig
from scumble.verbs.outputs import Picture, planned_paths

__all__ = ["EditConfig", "edited_paths", "finished", "first_notes", "grey", "recipe_of", "withheld_notes"]

NOT_EXACT = "JPEG changes every pixel a little: write PNG or WebP where what is kept must stay as it was."


class EditConfig(ModelConfig):
    """Settings of every edit."""

    count: Annotated[int, Field(ge=1, le=10_000)] = 1
    """How many results of each picture; their seeds follow one another."""
    seed: Annotated[int, Field(ge=0, le=2**63 - 10_001)] | None = None
    """Seed of the first result; none draws one."""
    batch: Annotated[int, Field(ge=1, le=1024)] = 8
    """Results made at once; halved when memory runs out."""

    def seeded(self) -> Self:
        """The same with a seed, drawn if there is none."""
        return self if self.seed is not None else self.replace(seed=randbelow(2**32))

    @property
    def seeds(self) -> range:
        """One seed a result. The settings need to be `seeded`."""
        if self.seed is None:
            raise ConfigError("The settings have no seed yet.", "Draw one with seeded().")
        return range(self.seed, self.seed + self.count)


def grey(mask: Source) -> Tensor:
    """(1, 1, H, W) in [0, 1]; transparent counts as black."""
    return to_unit(mask.picture.on((0, 0, 0)).convert("L"))[:, :1]


def recipe_of(
    command: str, config: EditConfig, model: Model, ingredients: tuple[Ingredient, ...], seed: int
) -> Recipe:
    """The recipe of one picture: as if it had been the only one asked for."""
    elsewhere = {"seed", "count", "batch", "preset", "clip", *ModelConfig.model_fields}
    return Recipe(
        command=command,
        settings=config.model_dump(mode="json", exclude=elsewhere, exclude_none=True),
        seed=seed,
        batch=together(config.seeds, seed, config.batch),
        model=Ingredient.of("model", config.model, model.hash),
        ingredients=ingredients,
        machine=config.machine(model),
    )


def finished(model: Model, pixels: Tensor, recipe: Recipe) -> Picture:
    """`pixels` (3, H, W) in [0, 1] with their recipe; black if the model's safety checker flags them."""
    withheld = model.safety_checker is not None and model.safety_checker.flagged(to_model(pixels[None]))[0]
    shown = torch.zeros_like(pixels) if withheld else pixels
    return Picture(from_unit(shown[None])[0], recipe, withheld)


def edited_paths(
    config: EditConfig, out: Path, file: Path, *, in_folder: bool, overwrite: bool
) -> list[Path]:
    """Where the results for `file`, one of a folder or alone, go. Raises InputError before any work."""
    if config.count > 1 and not in_folder:
        return planned_paths(out, config.seeds, overwrite=overwrite)
    place = planned_file(out, file, in_folder=in_folder, overwrite=True)
    return planned_paths(place, config.seeds, overwrite=overwrite)


def first_notes(model: Model, kept: Sequence[bool], places: Sequence[Sequence[Path]]) -> list[str]:
    """What a person should know before: of a random model, and of JPEG where something is to be kept."""
    notes = [RANDOM_MODEL] if model.is_random else []
    if any(kept) and any(path.suffix.lower() in (".jpg", ".jpeg") for paths in places for path in paths):
        notes.append(NOT_EXACT)
    return notes


def withheld_notes(file: Path, pictures: Sequence[Picture]) -> Iterator[str]:
    """What a person should know of the `pictures` made of one file."""
    if withheld := sum(picture.withheld for picture in pictures):
        yield f"The model's safety checker withheld {withheld} pictures of {file.name}; they are black."
