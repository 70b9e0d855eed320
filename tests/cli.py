"""Running the command line as a stranger would, in this process, for the tests."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import StringIO
from typing import Any

from scumble.cli.main import main

__all__ = ["COMMANDS", "Outcome", "scumble"]

COMMANDS: tuple[tuple[str, ...], ...] = (
    (),
    ("advise",),
    ("atlas",),
    ("bench",),
    ("bench", "claims"),
    ("bench", "edits"),
    ("bench", "full-size"),
    ("bench", "speed"),
    ("bench", "toybox"),
    ("compare",),
    ("composite",),
    ("convert",),
    ("data",),
    ("data", "instructions"),
    ("data", "language-model"),
    ("data", "regularization"),
    ("demo",),
    ("doctor",),
    ("edit",),
    ("edit", "instruct"),
    ("edit", "sdedit"),
    ("edit", "text2live"),
    ("generate",),
    ("history",),
    ("history", "branch"),
    ("history", "prune"),
    ("history", "show"),
    ("history", "thumbnails"),
    ("inspect",),
    ("learn",),
    ("learn", "custom-diffusion"),
    ("learn", "dreambooth"),
    ("learn", "textual-inversion"),
    ("merge",),
    ("redo",),
    ("strokes",),
    ("studio",),
    ("toybox",),
    ("toybox", "clips"),
    ("toybox", "render"),
    ("toybox", "subjects"),
    ("toybox", "unpack"),
    ("train",),
    ("train", "instruct-pix2pix"),
    ("upscale",),
)
"""Every command there is."""


@dataclass(frozen=True)
class Outcome:
    """What a command left behind."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def sentence(self) -> str:
        """The one line on standard error that says what was wrong."""
        [line] = [row for row in self.err.splitlines() if row.startswith("scumble: ")]
        return line.removeprefix("scumble: ")


@contextmanager
def _redirected(*argv: str) -> Iterator[tuple[StringIO, StringIO]]:
    before = sys.argv, sys.stdout, sys.stderr
    out, err = StringIO(), StringIO()
    sys.argv, sys.stdout, sys.stderr = ["scumble", *argv], out, err
    try:
        yield out, err
    finally:
        sys.argv, sys.stdout, sys.stderr = before


def scumble(*argv: str) -> Outcome:
    """`scumble argv...`: its exit status and what it printed."""
    status = 0
    with _redirected(*argv) as (out, err):
        try:
            main()
        except SystemExit as stop:
            status = stop.code if isinstance(stop.code, int) else 1
    return Outcome(status, out.getvalue(), err.getvalue())
