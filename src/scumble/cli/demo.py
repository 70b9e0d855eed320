"""`scumble demo`: a page of pictures, made before your eyes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scumble.cli.console import duration, follow, give
from scumble.cli.options import Json

__all__ = ["demo"]


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder of the page.")] = Path(
        "scumble-demo"
    ),
    quick: Annotated[bool, typer.Option("--quick", help="Half of the pictures.")] = False,
    as_json: Json = False,
) -> None:
    """Paint with the toybox: one page of pictures, which checks itself."""
    from scumble.verbs import demo as verb

    report = follow(verb.demo(output, quick=quick))
    text = f"{report.pictures} pictures in {duration(report.seconds)}: open {report.page}"
    give(
        {"page": str(report.page), "seconds": report.seconds, "problems": report.problems},
        as_json=as_json,
        text=text,
    )
    verb.check(report)
