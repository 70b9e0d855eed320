"""`scumble redo`: the same picture again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scumble.cli import options
from scumble.cli.console import follow, give, say

__all__ = ["Inputs", "Settings", "redo", "reference"]

LONGEST = 255
"""Bytes of the longest name that files have, here and elsewhere."""

Inputs = Annotated[
    list[str] | None,
    typer.Option(
        "--input", metavar="[ROLE=]FILE", help="A file that went in; with its role, one in place of it."
    ),
]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Change a setting: steps=50.")
]


def redo(
    picture: Annotated[str, typer.Argument(help="A picture made by scumble, or its number in the history.")],
    output: options.Output,
    inputs: Inputs = None,
    changes: Settings = None,
    model: Annotated[
        str | None, typer.Option(metavar="NAME_OR_PATH", help="Where its model is.  [looked up by its hash]")
    ] = None,
    anyway: Annotated[bool, typer.Option("--anyway", help="Go on with another model than it was.")] = False,
    download: Annotated[bool, typer.Option("--download", help="Fetch its model from the hub.")] = False,
    device: options.Device = None,
    dtype: options.Dtype = None,
    trust_pickle: options.TrustPickle = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and stop.")] = False,
    as_json: options.Json = False,
    overwrite: options.Overwrite = False,
) -> None:
    """Make a picture again from the recipe in it: the same pixels, or with a setting changed."""
    from scumble.verbs.redo import plan, redo_to

    what = reference(picture)
    given = {
        "inputs": inputs or (),
        "changes": changes or (),
        "model": model,
        "device": device,
        "dtype": dtype,
        "anyway": anyway,
        "download": download,
        "trust_pickle": bool(trust_pickle),
    }
    if dry_run:
        facts = plan(what, **given).facts()
        give(facts, as_json=as_json, text="\n".join(f"{name}: {value}" for name, value in facts.items()))
        return
    done = follow(redo_to(what, output, overwrite=overwrite, **given))
    if done.note:
        say(done.note)
    ending = {True: ": the same pixels", False: ": other pixels", None: ""}[done.same]
    give({**done.file, "same": done.same}, as_json=as_json, text=f"{done.file['path']}{ending}")


def reference(text: str) -> Path | int:
    """The file of that name, or else a number of the history. Raises InputError for what can be neither."""
    from scumble.core.errors import InputError
    from scumble.core.files import is_there
    from scumble.core.text import printable

    if is_there(text):
        return Path(text)
    if any(len(part.encode(errors="replace")) > LONGEST for part in Path(text).parts):
        raise InputError(f"{printable(text, 40)} is neither a file nor a number of the history.")
    return int(text) if text.isdecimal() else Path(text)
