"""`scumble doctor`: whether the installation is sound."""

from __future__ import annotations

from dataclasses import asdict

import typer

from scumble.cli.console import follow, give
from scumble.cli.options import Json

__all__ = ["doctor"]

MARKS = {"good": "ok", "note": "--", "broken": "!!"}


def doctor(as_json: Json = False) -> None:
    """Check the installation: versions, device, disk, weights, a picture; with remedies.

    Exits with 1 when something is broken.
    """
    from scumble.verbs import doctor as verb

    checks = follow(verb.doctor())
    broken = verb.is_broken(checks)
    lines = [
        f"{MARKS[c.state]} {c.name:16} {c.found}{f'  -> {c.remedy}' if c.remedy else ''}" for c in checks
    ]
    facts = {"broken": broken, "checks": [asdict(check) for check in checks]}
    give(facts, as_json=as_json, text="\n".join(lines))
    if broken:
        raise typer.Exit(1)
