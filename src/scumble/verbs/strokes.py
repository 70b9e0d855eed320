"""Stroke paintings from photographs: guides for `edit sdedit` to try."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from PIL import Image
from pydantic import Field

from scumble.core.config import Config
from scumble.core.events import Loop, Progress
from scumble.core.images import save_image
from scumble.data.strokes import stroke_painting
from scumble.verbs.inputs import Given, Source, picture_files, planned_file

__all__ = ["StrokesConfig", "strokes", "strokes_to"]


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
    return _painted(Source.of(image), StrokesConfig.of(settings))


def strokes_to(config: StrokesConfig, place: Path, out: Path, *, overwrite: bool = False) -> Loop[list[Path]]:
    """Paint over the picture `place`, or each one in that folder; returns the files written."""
    files = picture_files(place)
    several = place.is_dir()
    paths = [planned_file(out, file, in_folder=several, overwrite=overwrite) for file in files]
    for done, (file, path) in enumerate(zip(files, paths, strict=True), 1):
        save_image(_painted(Source.of(file), config), path)
        yield Progress(stage="painting", step=done, total=len(files))
    return paths


def _painted(source: Source, config: StrokesConfig) -> Image.Image:
    image = source.picture.on((255, 255, 255))
    return stroke_painting(image, colours=config.colours, kernel=config.kernel)
