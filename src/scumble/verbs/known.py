"""What is known of the six methods, published and measured: for `advise` and for the table of choosing.

Facts are data in the folder `figures` beside this file: `methods.toml`, written by people; `claims.json`, as
`scumble bench claims --docs` found it; `compare.json`, of comparisons on the toybox.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

from scumble.core.config import Config

__all__ = ["FIGURES", "Known", "choosing", "claim_figures", "compared", "methods"]

FIGURES = Path(__file__).parent / "figures"
DENOISER = 859_520_964
"""Numbers in the denoiser of Stable Diffusion 1.5."""


class Known(Config):
    """One method as people choose it."""

    title: str
    """Its name."""
    paper: str
    """Who wrote of it, and when."""
    arxiv: str
    """Where that is."""
    tuning: str
    """Whether it learns first."""
    told: tuple[str, ...]
    """What it is told with: words, paint, examples."""
    changes: str
    """What of the model changes."""
    numbers: int
    """How many numbers of a Stable Diffusion 1.5 learn; 0 where none of its own do."""
    kept: str
    """What is kept on the disk."""
    time: str
    """The published time, and where it stands."""
    quality: str
    """Published figures, and where they stand."""
    best: str
    """What it serves best."""
    limits: str
    """What it does not do well."""
    claims: tuple[str, ...]
    """Claims whose figures speak for or against it."""


@cache
def methods() -> Mapping[str, Known]:
    """The six, by the names that commands have for them."""
    rows = tomllib.loads((FIGURES / "methods.toml").read_text(encoding="utf-8"))
    return {name: Known.of(row) for name, row in rows.items()}


@cache
def claim_figures() -> Mapping[str, Mapping[str, Any]]:
    """Claims that were measured, by name."""
    rows: dict[str, dict[str, Any]] = json.loads((FIGURES / "claims.json").read_bytes())["claims"]
    return {name: row for name, row in rows.items() if "figure" in row}


@cache
def compared() -> Mapping[str, Mapping[str, float]]:
    """For each method that was compared on the toybox, the middle of its seconds and of its figures."""
    runs: list[dict[str, Any]] = json.loads((FIGURES / "compare.json").read_bytes())["runs"]
    found: dict[str, dict[str, float]] = {}
    for method in methods():
        rows = [row for run in runs for row in run["rows"] if row["method"] == method and row["picture"]]
        if rows:
            seconds = median(sum(row["seconds"].values()) for row in rows)
            found[method] = {"tasks": len(rows), "seconds": seconds, **_figures(rows)}
    return found


def _figures(rows: list[dict[str, Any]]) -> dict[str, float]:
    names = dict.fromkeys(score["name"] for row in rows for score in row["scores"])
    found: dict[str, float] = {}
    for name in names:
        values = [s["value"] for row in rows for s in row["scores"] if s["name"] == name]
        if real := [value for value in values if value is not None]:
            found[name] = median(real)
    return found


# The page

HEAD = """# Which method?

<!-- Made by `python docs/data/make.py`; a test refuses changes by hand. -->

`scumble advise` asks what you have and what you want, and names the method, the command and the reasons.
This is the comparison behind it. Counts are for Stable Diffusion 1.5; what is measured here is measured on
the toybox, by [`scumble compare`](compare.md) and [`scumble bench claims`](claims.md); where nothing is
measured yet, the published figure stands with its source. Times on the toybox are of one core, which other
work shared, with loading, class pictures and the drawing of the results in them; on two idle cores learning
itself takes the three methods 31, 69 and 45 s ([demo](demo.md)).

"""
TAIL = """
**In short.** Examples teach a subject, words tell a change, paint shows one. DreamBooth has the best
likeness; Custom Diffusion is smaller and takes several subjects (nearly as good in its paper, clearly less so
on the toybox); Textual Inversion leaves the model as it is. To edit a picture that is there, say it
(InstructPix2Pix), paint it (SDEdit), or let a layer do it (Text2LIVE), which is the one for videos. Words
suit "make it night" and suit badly "the third window from the left": paint that, or give a mask.

Low-rank adaptation (Hu et al. 2021) is no method of its own here: it is how DreamBooth learns by default on
models of full size (`--train low-rank`).
"""


def choosing() -> str:
    """`docs/choosing.md`, made from the figures."""
    lines = [
        "| | fine-tuned or ready | told with | what of the model changes | kept | time | quality |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, known in methods().items():
        share = f" ({_percent(known.numbers / DENOISER)} of the denoiser)" if known.numbers else ""
        cells = [
            f"**{known.title}** ({known.paper}, [{known.arxiv}](https://arxiv.org/abs/{known.arxiv}))",
            known.tuning,
            " and ".join(known.told),
            known.changes + share,
            known.kept,
            _time(name, known),
            _quality(name, known),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "| | best for | where it ends |", "|---|---|---|"]
    lines += [f"| **{known.title}** | {known.best} | {known.limits} |" for known in methods().values()]
    lines += ["", *_behind()]
    return HEAD + "\n".join(lines).rstrip() + "\n" + TAIL


def _percent(share: float) -> str:
    return (
        "all" if share == 1 else f"{100 * share:.1f} %" if share >= 1e-3 else f"{1e6 * share:.1f} millionths"
    )


def _time(name: str, known: Known) -> str:
    row = compared().get(name)
    if row is None:
        return f"{known.time}; not yet measured here"
    return f"{row['seconds']:.0f} s on the toybox, middle of {row['tasks']:.0f}; published: {known.time}"


def _quality(name: str, known: Known) -> str:
    row = compared().get(name, {})
    parts = [f"{what} {row[what]:.2f}" for what in ("done", "preserved", "identity", "CLIP-T") if what in row]
    if not parts:
        return f"{known.quality}; not yet measured here"
    return f"{', '.join(parts)} on the toybox; published: {known.quality}"


def _behind() -> list[str]:
    """The measured claims that speak of each method."""
    lines = ["| | claims measured on the toybox |", "|---|---|"]
    for known in methods().values():
        found = {name: claim_figures()[name] for name in known.claims if name in claim_figures()}
        parts = [
            f"`{name}` {row['figure']:.3g}, {'holds' if row['holds'] else 'does not hold'}"
            for name, row in found.items()
        ]
        lines.append(f"| **{known.title}** | {'; '.join(parts) or 'not yet measured'} |")
    return lines
