"""The `scumble` command: the list of commands, and what happens when one fails."""

from __future__ import annotations

import os
import sys

import typer

from scumble.cli import (
    atlas,
    bench,
    composite,
    data,
    demo,
    edit,
    generate,
    history,
    learn,
    redo,
    strokes,
    toybox,
    train,
    weights,
)
from scumble.cli.console import say
from scumble.core.errors import ScumbleError

__all__ = ["app", "main", "root"]

app = typer.Typer(
    name="scumble",
    help="Six published ways to edit images with diffusion models.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
for command in (demo.demo, generate.generate, strokes.strokes, composite.composite, atlas.atlas, redo.redo):
    app.command()(command)
for command in (weights.merge, weights.convert, weights.inspect):
    app.command()(command)
for group in (learn.app, edit.app, train.app, data.app, history.app, toybox.app, bench.app):
    app.add_typer(group)


@app.callback(invoke_without_command=True)
def root(version: bool = typer.Option(False, "--version", help="Print the version.")) -> None:
    if version:
        import scumble

        print(scumble.__version__)
        raise typer.Exit


def main() -> None:
    """Run the command line; exits with 0, 1 for failure, 2 for bad input, 130 when interrupted."""
    try:
        app(prog_name="scumble")
    except ScumbleError as error:
        say(f"scumble: {error}")
        sys.exit(error.exit_status)
    except KeyboardInterrupt:
        say("scumble: stopped; what was finished is kept.")
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
