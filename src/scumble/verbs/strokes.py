"""Stroke paintings from photographs: guides for `edit sdedit` to try."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from PIL import Image
from pydantic import Field

from scumble.core.config import Config
from scumble.core.events import Loop, Progress
from scumble.data.strokes import stroke_painting
from scumble.history.recipe import Recipe, library_versions
from scumble.verbs.inputs import Given, Source, picture_files, planned_file
from scumble.verbs.outputs import Picture, save_pictures

__all__ = ["StrokesConfig", "again", "strokes", "strokes_to"]


class StrokesConfig(Config):
    """What `scumble strokes` can be told."""

    colours: Annotated[int, Field(ge=1, le=256)] = 6
    """Colours of the palette."""
    kernel: Annotated[int, Field(ge=1, le=255)] = 23
    """Width of the brush (the median filter) in pixels, for a picture whose short side has 256."""


def strokes(image: Given, **settings: Any) -> Image.Image:
    """Paint over `image` with a broad brush and few colours; settings are the fields of `StrokesConfig`.

    >>> guide = scumble.strokes("photo.jpg", colours=6)
    """
    return _painted(Source.of(image), StrokesConfig.of(settings)).image


def strokes_to(
    config: StrokesConfig, place: Path, out: Path, *, overwrite: bool = False, with_recipe: bool = True
) -> Loop[list[Path]]:
    """Paint over the picture `place`, or each one in that folder; returns the files written."""
    files = picture_files(place)
    several = place.is_dir()
    paths = [planned_file(out, file, in_folder=several, overwrite=overwrite) for file in files]
    for done, (file, path) in enumerate(zip(files, paths, strict=True), 1):
        save_pictures([_painted(Source.of(file), config)], [path], with_recipe=with_recipe)
        yield Progress(stage="painting", step=done, total=len(files))
    return paths


def again(config: StrokesConfig, _: None, inputs: Mapping[str, Path]) -> Loop[list[Picture]]:
    """Paint as a recipe says; see `scumble.verbs.redo`."""
    picture = _painted(Source.of(inputs["image"]), config)
    yield Progress(stage="painting", step=1, total=1)
    return [picture]


def _painted(source: Source, config: StrokesConfig) -> Picture:
    image = source.picture.on((255, 255, 255))
    recipe = Recipe(
        command="strokes",
        settings=config.model_dump(mode="json"),
        ingredients=(source.ingredient("image"),),
        machine=library_versions("cpu", 1),
    )
    return Picture(stroke_painting(image, colours=config.colours, kernel=config.kernel), recipe)
