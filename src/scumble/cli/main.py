"""The `scumble` command: the list of commands, and what happens when one fails."""

from __future__ import annotations

import os
import signal
import sys
import threading

import typer

from scumble.cli import (
    advise,
    atlas,
    bench,
    compare,
    composite,
    data,
    demo,
    doctor,
    edit,
    generate,
    history,
    learn,
    redo,
    strokes,
    studio,
    toybox,
    train,
    upscale,
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
INTERRUPTED = 130
STOPPED = "scumble: stopped; what was finished is kept."

for command in (demo.demo, generate.generate, strokes.strokes, composite.composite, atlas.atlas, redo.redo):
    app.command()(command)
for command in (weights.merge, weights.convert, weights.inspect, compare.compare, upscale.upscale):
    app.command()(command)
app.command()(studio.studio)
for command in (advise.advise, doctor.doctor):
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
    """Run the command line; exits with 0, 1 for failure, 2 for bad input, 130 when interrupted, 143 when told
    to end.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _end)
    try:
        app(prog_name="scumble")
    except SystemExit as stop:
        if stop.code == INTERRUPTED:  # typer has made it of a KeyboardInterrupt, without a word
            say(STOPPED)
        raise
    except KeyboardInterrupt:
        say(STOPPED)
        sys.exit(INTERRUPTED)
    except ScumbleError as error:
        say(f"scumble: {error}")
        sys.exit(error.exit_status)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (RuntimeError, MemoryError) as error:
        from scumble.core.memory import is_out_of_memory, too_little

        if not is_out_of_memory(error):
            raise
        say(f"scumble: {too_little('this')}")
        sys.exit(1)


def _end(number: int, _: object) -> None:
    """Leave as after an error, so that what is half-written is removed."""
    sys.exit(128 + number)
