"""`scumble toybox`: pictures, subjects, clips and the model of the toy world."""

from __future__ import annotations

from typing import Annotated

import typer

from scumble.cli.console import follow, give
from scumble.cli.options import Json, Output

__all__ = ["Size", "app", "clips", "render", "subjects", "unpack"]

app = typer.Typer(
    name="toybox", help="The toy world: its pictures, subjects, clips and model.", no_args_is_help=True
)

Size = Annotated[int, typer.Option(min=16, max=1024, help="Width and height in pixels.")]


@app.command()
def render(
    output: Output,
    count: Annotated[int, typer.Option(min=1, help="How many pictures.")] = 16,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the first scene.")] = 0,
    size: Size = 128,
    profile: Annotated[
        str, typer.Option(help="photo (one thing, photo style), core (mostly that) or full.")
    ] = "full",
    wishes: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="Fix what scenes have, such as kind=snowman; of several values (colour=red,blue) each next"
            " picture takes the next. May be repeated.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Render pictures of the toy world to a folder, with captions in metadata.jsonl."""
    from scumble.verbs.toybox import render_world

    drawing = render_world(output, count=count, seed=seed, size=size, profile=profile, wishes=wishes or ())
    folder = follow(drawing)
    give({"folder": str(folder), "count": count}, as_json=as_json, text=f"{count} pictures in {folder}")


@app.command()
def subjects(output: Output, size: Size = 128, as_json: Json = False) -> None:
    """Render the benchmark subjects: five pictures each, with prompts to try."""
    from scumble.verbs.toybox import render_subjects

    folder = follow(render_subjects(output, size=size))
    give({"folder": str(folder)}, as_json=as_json, text=f"subjects in {folder}")


@app.command()
def clips(output: Output, size: Size = 128, as_json: Json = False) -> None:
    """Render short videos of one thing each, with masks and the true flow: something for `atlas`."""
    from scumble.verbs.toybox import render_clips

    folder = follow(render_clips(output, size=size))
    give({"folder": str(folder)}, as_json=as_json, text=f"clips in {folder}")


@app.command()
def unpack(output: Output, as_json: Json = False) -> None:
    """Write the toybox as a diffusers folder, for any program that reads Stable Diffusion 1.x."""
    from scumble.verbs.toybox import unpack_model

    folder = unpack_model(output)
    give({"folder": str(folder)}, as_json=as_json, text=f"the toybox is in {folder}")
