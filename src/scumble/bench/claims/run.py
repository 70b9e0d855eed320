"""The run of the experiments, claim by claim, and the page that is made of what they found.

A claim that was measured is a file in the run's folder, and is not measured again. A figure is published
with the settings, weights and machine that gave it, so claims may be measured one at a time.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from math import isnan
from pathlib import Path
from typing import Any

from scumble.bench.claims import custom, editing, enlarging, layers, learners
from scumble.bench.claims.lab import QUICK, Lab, Settings
from scumble.bench.claims.page import shown, verdict, write
from scumble.bench.claims.table import Claim, claims
from scumble.bench.common import claim as noted
from scumble.bench.common import machine, one_of, rounded, write_json
from scumble.core.errors import InputError, ModelError
from scumble.core.events import Loop, Progress

__all__ = ["EXPERIMENTS", "chosen", "estimate", "measure", "publish", "summary"]

NOTHING = "what it compares is in none of the pictures"
"""Why nothing can be told, unless the claim says it better."""
EXPERIMENTS: dict[str, learners.Experiment] = {
    **learners.EXPERIMENTS,
    **custom.EXPERIMENTS,
    **editing.EXPERIMENTS,
    **enlarging.EXPERIMENTS,
    **layers.EXPERIMENTS,
}
"""Claim -> its experiment; every claim but those that say why there is none."""


def chosen(only: Sequence[str] = ()) -> list[Claim]:
    """The claims of these names, or of these methods; all without any. Raises InputError."""
    known = claims()
    for name in only:
        one_of("claim or method", name, [*dict.fromkeys(c.method for c in known), *(c.name for c in known)])
    return [c for c in known if not only or c.name in only or c.method in only]


def measure(out: Path, settings: Settings, only: Sequence[str] = ()) -> Loop[dict[str, Any]]:
    """Measure the claims into the folder `out` and write `claims.json` there; returns it.

    Raises InputError where `out` holds a run with other settings or weights. A claim whose model is missing
    is not measured, and says so; whatever else goes wrong stops the run, which then goes on from there.
    """
    wanted, lab = chosen(only), Lab(settings, out)
    noted(out, {"settings": settings.model_dump(mode="json"), "weights": lab.model.hash})
    missing: dict[str, dict[str, Any]] = {}
    for done, claim in enumerate(wanted, 1):
        place = out / "claims" / f"{claim.name.replace('/', '-')}.json"
        if not place.is_file() and not claim.not_here:
            row = yield from _measured(lab, claim)
            if "details" in row:
                write_json(place, row)
            else:
                missing[claim.name] = row
        yield Progress(stage="claims", step=done, total=len(wanted))
    rows = {claim.name: _found(out, claim) or missing.get(claim.name, {}) for claim in claims()}
    found = {"claims": rows}
    write_json(out / "claims.json", found)
    return found


def _measured(lab: Lab, claim: Claim) -> Loop[dict[str, Any]]:
    start = time.perf_counter()
    try:
        found = yield from EXPERIMENTS[claim.name](lab)
    except ModelError as problem:  # toybox-instruct and toybox-upscaler are not in every toybox
        return {"why": problem.message}
    figure = rounded(found.pop("figure"))
    decided = (
        {"untold": claim.untold or NOTHING}
        if isnan(figure)
        else {"figure": figure, "holds": claim.holds(figure)}
    )
    return {
        **decided,
        "details": rounded(found),
        "quick": lab.settings.replace(upscaler=QUICK.upscaler) == QUICK,
        "settings": lab.settings.model_dump(mode="json", exclude_none=True),
        "weights": lab.model.hash,
        "seconds": round(time.perf_counter() - start),
        "machine": machine(),
    }


def _found(out: Path, claim: Claim) -> dict[str, Any]:
    place = out / "claims" / f"{claim.name.replace('/', '-')}.json"
    return json.loads(place.read_bytes()) if place.is_file() else {}


def publish(found: Mapping[str, Any], docs: Path) -> None:
    """Put what was measured into `docs/data/claims.json`, over what was there, and make `docs/claims.md`
    with its charts.

    `python docs/data/make.py` then copies the figures to where `scumble advise` reads them.

    Raises InputError where `docs` is no documentation of this project.
    """
    place = docs / "data" / "claims.json"
    if not place.is_file():
        raise InputError(f"There is no {place}.", "Give the folder docs of a checkout.")
    before: dict[str, Any] = json.loads(place.read_bytes())["claims"]
    now: Mapping[str, Any] = found["claims"]
    rows: dict[str, Any] = {}
    for name in (claim.name for claim in claims()):
        new, old = now.get(name, {}), before.get(name, {})
        rows[name] = new if "details" in new else old if "details" in old else new or old
    write_json(place, {"claims": rows})
    write({"claims": rows}, docs)


def estimate(only: Sequence[str] = ()) -> dict[str, Any]:
    """What a run would measure, without a model."""
    wanted = chosen(only)
    return {
        "measured": [claim.name for claim in wanted if not claim.not_here],
        "not here": {claim.name: claim.not_here for claim in wanted if claim.not_here},
    }


def summary(found: Mapping[str, Any], only: Sequence[str] = ()) -> str:
    """A line for each claim."""
    lines: list[str] = []
    for claim in chosen(only):
        row = found["claims"].get(claim.name, {})
        figure = shown(row["figure"]) if "figure" in row else ""
        lines.append(f"{claim.name:34} {figure:>8} {verdict(claim, row).strip('*')}")
    return "\n".join(lines)
