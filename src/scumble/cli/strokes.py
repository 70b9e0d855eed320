"""`scumble strokes`: a painting in broad strokes from a picture."""

from __future__ import annotations

from typing import Annotated

import typer

from scumble.cli.console import follow, give
from scumble.cli.options import ConfigFile, Json, NoRecipe, Output, Overwrite, Pictures, settings

__all__ = ["strokes"]


def strokes(
    image: Pictures,
    output: Output,
    colours: Annotated[int | None, typer.Option(help="Colours of the palette.  [6]")] = None,
    kernel: Annotated[
        int | None, typer.Option(help="Width of the brush, in pixels of a picture with 256.  [23]")
    ] = None,
    config: ConfigFile = None,
    as_json: Json = False,
    overwrite: Overwrite = False,
    no_recipe: NoRecipe = False,
) -> None:
    """Paint a picture over in broad strokes: a guide for `edit sdedit`."""
    from scumble.verbs.strokes import StrokesConfig, strokes_to

    chosen = settings(StrokesConfig, config, colours=colours, kernel=kernel)
    loop = strokes_to(chosen, image, output, overwrite=overwrite, with_recipe=not no_recipe)
    files = [str(path) for path in follow(loop)]
    give({"pictures": files}, as_json=as_json, text="\n".join(files))
