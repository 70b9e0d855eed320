"""A cut-out pasted onto a picture, with the mask of what was pasted: the start of a composite."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from PIL import Image
from pydantic import Field

from scumble.core.config import Config
from scumble.core.events import Loop, Progress
from scumble.data.composite import composite as pasted
from scumble.history.recipe import Recipe, library_versions
from scumble.verbs.inputs import Given, Source, planned_file
from scumble.verbs.outputs import Picture, save_pictures

__all__ = ["CompositeConfig", "again", "composite", "composite_to"]

Finite = Annotated[float, Field(allow_inf_nan=False)]


class CompositeConfig(Config):
    """What `scumble composite` can be told."""

    at: tuple[Finite, Finite]
    """x and y, in pixels of the picture from its top left, where the centre of the patch goes."""
    scale: Annotated[float, Field(gt=0, le=100)] = 1.0
    """How many times as large the patch becomes."""
    rotate: Finite = 0.0
    """Degrees by which the patch is turned, counter-clockwise."""


def composite(image: Given, patch: Given, **settings: Any) -> tuple[Image.Image, Image.Image]:
    """Paste `patch`, transparent where it is cut out, onto `image`; settings are those of `CompositeConfig`.

    Returns the picture and the mask, white where something was pasted.

    >>> picture, mask = scumble.composite("face.png", "glasses.png", at=(64, 50), scale=0.5)
    """
    picture, mask = _pasted(Source.of(image), Source.of(patch), CompositeConfig.of(settings))
    return picture.image, mask.image


def composite_to(
    config: CompositeConfig,
    image: Path,
    patch: Path,
    out: Path,
    *,
    mask_out: Path | None = None,
    overwrite: bool = False,
    with_recipe: bool = True,
) -> list[Path]:
    """Write the picture to `out` and the mask to `mask_out`, if given; returns the files written."""
    given = [out] if mask_out is None else [out, mask_out]
    paths = [planned_file(path, image, in_folder=False, overwrite=overwrite) for path in given]
    results = _pasted(Source.of(image), Source.of(patch), config)
    save_pictures(results[: len(paths)], paths, with_recipe=with_recipe)
    return paths


def again(config: CompositeConfig, _: None, inputs: Mapping[str, Path]) -> Loop[list[Picture]]:
    """Paste as a recipe says; see `scumble.verbs.redo`."""
    results = _pasted(Source.of(inputs["image"]), Source.of(inputs["patch"]), config)
    yield Progress(stage="pasting", step=1, total=1)
    return list(results)


def _pasted(image: Source, patch: Source, config: CompositeConfig) -> tuple[Picture, Picture]:
    """The picture and the mask."""
    layer = patch.picture.image
    if patch.picture.alpha is not None:
        layer = layer.copy()
        layer.putalpha(patch.picture.alpha)
    under = image.picture.on((255, 255, 255))
    picture, mask = pasted(under, layer, at=config.at, scale=config.scale, rotate=config.rotate)
    recipe = Recipe(
        command="composite",
        settings=config.model_dump(mode="json"),
        ingredients=(image.ingredient("image"), patch.ingredient("patch")),
        machine=library_versions("cpu", 1),
    )
    return Picture(picture, recipe), Picture(mask, recipe.model_copy(update={"output": "mask"}))
