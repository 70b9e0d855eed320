"""`scumble atlas`: a video as a few flat pictures that can be edited."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scumble.cli import options
from scumble.cli.console import follow, give, say

__all__ = ["atlas"]

Masks = Annotated[
    list[Path] | None,
    typer.Option(
        help="White what moves in front: a picture for the first frame, or a folder with one a frame; one "
        "for each thing, the nearest first."
    ),
]


def atlas(
    video: Annotated[Path, typer.Argument(help="A video.")],
    output: options.Output,
    mask: Masks = None,
    box: Annotated[
        str | None,
        typer.Option(metavar="L,T,R,B", help="Around it in the first frame, in pixels, for a mask."),
    ] = None,
    flow: Annotated[
        Path | None, typer.Option(help="A folder with forward and backward: flow as .flo or .npy.  [found]")
    ] = None,
    form: Annotated[str | None, typer.Option(help="fast, or faithful to the paper.  [fast]")] = None,
    size: Annotated[int | None, typer.Option(help="Shorter side looked at, in pixels.  [432]")] = None,
    first: Annotated[int | None, typer.Option(help="Number of the first frame taken.  [0]")] = None,
    count: Annotated[int | None, typer.Option(help="Frames taken at most.  [all]")] = None,
    steps: Annotated[int | None, typer.Option(help="Steps of the fit.  [500]")] = None,
    seed: options.Seed = None,
    device: options.Device = None,
    config: options.ConfigFile = None,
    as_json: options.Json = False,
    overwrite: options.Overwrite = False,
) -> None:
    """Unroll a video into layers (layered neural atlases): edit those, get the video.

    Writes the atlas and, beside it, a picture of each layer that can be painted on.
    """
    given = dict(locals())
    from scumble.core.errors import InputError
    from scumble.verbs.atlas import AtlasVideoConfig, atlas_to

    corners = None
    if box is not None:
        try:
            left, top, right, bottom = (int(part) for part in box.split(","))
        except ValueError:
            raise InputError(
                f"{box!r} is no box.", "Write left,top,right,bottom: --box 40,30,200,180."
            ) from None
        corners = (left, top, right, bottom)
    # `flow` is a weight among the settings, and a folder here.
    settings = options.from_command(AtlasVideoConfig, given, flow=None)
    loop = atlas_to(settings, video, output, masks=mask or [], box=corners, flow=flow, overwrite=overwrite)
    done = follow(loop)
    for note in done["notes"]:
        say(note)
    files = "\n".join([done["atlas"], *done["sheets"]])
    give(done, as_json=as_json, text=f"{files}\nreconstruction {done['psnr']:.1f} dB")
