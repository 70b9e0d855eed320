"""`scumble composite`: a cut-out pasted onto a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scumble.cli.console import give
from scumble.cli.options import ConfigFile, Json, NoRecipe, Output, Overwrite, number, settings

__all__ = ["composite"]

At = Annotated[
    str | None,
    typer.Option(metavar="X,Y", help="Where the patch's centre goes, in pixels from the top left."),
]


def composite(
    image: Annotated[Path, typer.Argument(help="The picture to paste onto.")],
    patch: Annotated[Path, typer.Argument(help="What to paste, transparent where it is cut out.")],
    output: Output,
    at: At = None,
    scale: Annotated[float | None, typer.Option(help="How many times as large.  [1]")] = None,
    rotate: Annotated[float | None, typer.Option(help="Degrees, counter-clockwise.  [0]")] = None,
    mask_out: Annotated[
        Path | None, typer.Option(metavar="MASK", help="Also write what was pasted, as a mask.")
    ] = None,
    config: ConfigFile = None,
    as_json: Json = False,
    overwrite: Overwrite = False,
    no_recipe: NoRecipe = False,
) -> None:
    """Paste a cut-out onto a picture: a guide, and a mask, for `edit sdedit`."""
    from scumble.verbs.composite import CompositeConfig, composite_to

    place = None if at is None else [number(part) for part in at.split(",")]
    chosen = settings(CompositeConfig, config, at=place, scale=scale, rotate=rotate)
    given = {"mask_out": mask_out, "overwrite": overwrite, "with_recipe": not no_recipe}
    paths = composite_to(chosen, image, patch, output, **given)
    files = [str(path) for path in paths]
    give({"pictures": files}, as_json=as_json, text="\n".join(files))
