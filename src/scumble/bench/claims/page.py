"""`docs/claims.md`, made from the claims and from what was measured of them, never by hand."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

from scumble.bench.claims.charts import charts
from scumble.bench.claims.table import Claim, claims
from scumble.core.files import atomic_path, atomic_write

__all__ = ["page", "shown", "verdict", "write"]

TITLES = {
    "textual-inversion": "Textual Inversion",
    "dreambooth": "DreamBooth",
    "custom-diffusion": "Custom Diffusion",
    "instruct-pix2pix": "InstructPix2Pix",
    "sdedit": "SDEdit",
    "text2live": "Text2LIVE",
}
NOT_YET = "not yet measured"
CHARTS = "images/claims"
"""Where the charts lie in the docs."""
HEAD = """# The papers' claims

<!-- Made by `scumble bench claims --docs docs`; a test refuses changes by hand. -->

Every headline claim of the six papers as an experiment that one command repeats on the toybox:

```
scumble bench claims --quick -o claims        # half an hour of one core; a run that was stopped goes on
scumble bench claims --only dreambooth/drift -o claims
```

When a claim holds was written down before anything was measured, in
`src/scumble/bench/claims/claims.toml`. "Holds" speaks of the toybox, a small model of a rendered world, with
the settings given; "does not hold" says as much about the toybox as about the paper. A quick run has one
subject, eight prompts, 120 steps of learning and 20 scenes: enough to see which way a claim points.
"""


def verdict(claim: Claim, row: Mapping[str, Any]) -> str:
    """What is said of a claim: holds, does not hold, cannot be told, or not yet measured, with the reason."""
    if "figure" in row:
        return "**holds**" if claim.holds(row["figure"]) else "does not hold"
    if "untold" in row:
        return f"cannot be told: {row['untold']}"
    reason = row.get("why") or claim.not_here
    return f"{NOT_YET}: {reason[:1].lower()}{reason[1:].rstrip('.')}" if reason else NOT_YET


def shown(figure: float) -> str:
    """A figure as pages have it: three digits that count, no ten-thousandths."""
    return f"{figure:.0f}" if abs(figure) >= 1000 else f"{figure:.3g}"


def write(found: Mapping[str, Any], docs: Path) -> None:
    """Write the page and its charts into the folder `docs`."""
    folder = docs / CHARTS
    folder.mkdir(parents=True, exist_ok=True)
    for method, chart in charts(found).items():
        with atomic_path(folder / f"{method}.png") as temporary:
            chart.quantize(32).save(temporary, "PNG", optimize=True)
    atomic_write(docs / "claims.md", page(found).encode())


def page(found: Mapping[str, Any]) -> str:
    """The whole page."""
    rows: Mapping[str, Any] = found["claims"]
    drawn = charts(found)
    known = claims()
    measured = [claim for claim in known if "figure" in rows.get(claim.name, {})]
    held = sum(claim.holds(rows[claim.name]["figure"]) for claim in measured)
    untold = sum("untold" in rows.get(claim.name, {}) for claim in known)
    of_others = f" Of {untold} more the toybox cannot tell." if untold else ""
    counts = f"Of {len(known)} claims {len(measured)} are measured, and {held} of these hold.{of_others}"
    lines = [HEAD, counts, ""]
    for method, group in groupby(known, key=lambda claim: claim.method):
        lines += [
            f"## {TITLES[method]}",
            "",
            "| claim | here | holds if | figure | |",
            "|---|---|---|---|---|",
        ]
        lines += [_row(claim, rows.get(claim.name, {})) for claim in group]
        if method in drawn:
            lines += ["", f"![{TITLES[method]}: what was compared, as bars]({CHARTS}/{method}.png)"]
        lines.append("")
    lines += _details([(claim, rows[claim.name]) for claim in known if "details" in rows.get(claim.name, {})])
    return "\n".join(lines).rstrip() + "\n"


def _row(claim: Claim, row: Mapping[str, Any]) -> str:
    told = f"{claim.claim} ({claim.where}; {claim.published})"
    name = claim.name.partition("/")[2]
    figure = shown(row["figure"]) if "figure" in row else ""
    return f"| {told} | `{name}`: {claim.how} | {claim.holds} | {figure} | {verdict(claim, row)} |"


def _details(measured: list[tuple[Claim, Mapping[str, Any]]]) -> list[str]:
    if not measured:
        return []
    lines = ["## The figures behind them", "", "| claim | figures | run | seconds |", "|---|---|---|---|"]
    for claim, row in measured:
        parts = ", ".join(f"{name} {shown(value)}" for name, value in row["details"].items())
        about = f"{'quick' if row['quick'] else 'full'}, weights {row['weights'][:8]}"
        about += f", {row['machine']['threads']} threads, torch {row['machine']['torch']}"
        lines.append(f"| `{claim.name}` | {parts} | {about} | {row['seconds']} |")
    return lines
