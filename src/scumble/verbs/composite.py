"""A cut-out pasted onto a picture, with the mask of what was pasted: the start of a composite."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from PIL import Image
from pydantic import Field

from scumble.core.config import Config
from scumble.core.images import save_image
from scumble.data.composite import composite as pasted
from scumble.verbs.inputs import Given, Source, planned_file

__all__ = ["CompositeConfig", "composite", "composite_to"]

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
    return _pasted(Source.of(image), Source.of(patch), CompositeConfig.of(settings))


def composite_to(
    config: CompositeConfig,
    image: Path,
    patch: Path,
    out: Path,
    *,
    mask_out: Path | None = None,
    overwrite: bool = False,
) -> list[Path]:
    """Write the picture to `out` and the mask to `mask_out`, if given; returns the files written."""
    given = [out] if mask_out is None else [out, mask_out]
    paths = [planned_file(path, image, in_folder=False, overwrite=overwrite) for path in given]
    results = _pasted(Source.of(image), Source.of(patch), config)
    for result, path in zip(results, paths, strict=False):
        save_image(result, path)
    return paths


def _pasted(image: Source, patch: Source, config: CompositeConfig) -> tuple[Image.Image, Image.Image]:
    layer = patch.picture.image
    if patch.picture.alpha is not None:
        layer = layer.copy()
        layer.putalpha(patch.picture.alpha)
    under = image.picture.on((255, 255, 255))
    return pasted(under, layer, at=config.at, scale=config.scale, rotate=config.rotate)
