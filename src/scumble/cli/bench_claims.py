"""`scumble bench claims`: the headline claims of the six papers, measured."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scumble.cli.console import follow, give
from scumble.cli.options import DryRun, Json, Output

__all__ = ["claims"]


def claims(
    output: Output,
    quick: Annotated[
        bool, typer.Option("--quick", help="Fewer subjects, scenes and steps: half an hour on two cores.")
    ] = False,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A claim, or all of a method; as often as needed.  [all]"),
    ] = None,
    docs: Annotated[
        Path | None, typer.Option(metavar="DIR", help="A checkout's docs, to put the figures into.")
    ] = None,
    upscaler: Annotated[
        str | None,
        typer.Option(
            metavar="NAME_OR_PATH", help="What makes pictures larger.  [the toybox's, if it has one]"
        ),
    ] = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Repeat the headline claims of the six papers on the toybox, each with a figure.

    A run that was stopped goes on, claim by claim.
    """
    from scumble.bench.claims.lab import QUICK, Settings
    from scumble.bench.claims.run import estimate, measure, publish, summary

    if dry_run:
        needs = estimate(only or ())
        give(needs, as_json=as_json, text="\n".join(needs["measured"]))
        return
    settings = QUICK if quick else Settings()
    if upscaler is not None:
        settings = settings.replace(upscaler=upscaler)
    found = follow(measure(output, settings, only or ()))
    if docs is not None:
        publish(found, docs)
    give(found, as_json=as_json, text=summary(found, only or ()))
