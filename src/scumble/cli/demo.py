"""`scumble demo`: a page of pictures, made before your eyes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scumble.cli.console import duration, follow, give, say
from scumble.cli.options import Json, Overwrite, Page

__all__ = ["demo"]


def demo(
    output: Page = Path("scumble-demo"),
    quick: Annotated[bool, typer.Option("--quick", help="Two minutes: without all that is learnt.")] = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """The six methods at work on the toybox: one page of pictures.

    It checks itself. Ten minutes on two cores; stopped, the same command goes on.
    """
    from scumble.verbs import demo as verb

    report = follow(verb.demo(output, quick=quick, overwrite=overwrite))
    for sentence in report.left_out:
        say(sentence)
    text = f"{report.pictures} pictures in {duration(report.seconds)}: open {report.page}"
    facts = {"page": str(report.page), "seconds": report.seconds, "pictures": report.pictures}
    give({**facts, "left out": report.left_out, "problems": report.problems}, as_json=as_json, text=text)
    verb.check(report)
