"""The figures of `scumble.bench.instruct` as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from scumble.bench.common import percent

__all__ = ["table"]

COUNTS = ("edits", "readable")
SHARES = (
    "done",
    "preserved",
    "right",
    "done in pixels",
    "preserved in pixels",
    "right in pixels",
)
MEASURES = {
    "psnr": "PSNR to the truth, dB",
    "clip distance": "distance to it in CLIP",
    "judge distance": "in the judge's features",
    "outside, dB": "outside the mask, dB",
    "below the round trip, dB": "below the round trip, dB",
    "direction": "CLIP direction",
    "likeness": "CLIP image similarity",
}


def table(scores: Mapping[str, Any]) -> str:
    """All tables: of all edits, by kind of instruction, over the scales, of chains."""
    lines = [*_outcomes("", scores["rows"]), "", *_measures("", scores["rows"]), ""]
    kinds = {
        f"{kind}, {name}": row for kind, found in scores["by kind"].items() for name, row in found.items()
    }
    lines += _outcomes("instruction, picture", kinds)
    if curve := scores["curve"]:
        rows = {f"{over} {at}": row for over in ("image scale", "t0") for at, row in curve[over].items()}
        rows["truth"] = curve["truth"]
        lines += ["", *_outcomes("over the scales", rows), "", *_measures("over the scales", rows)]
    if scores["chains"]:
        lines += ["", *_outcomes("chains of four", scores["chains"])]
    return "\n".join(lines)


def _outcomes(title: str, rows: Mapping[str, Any]) -> Iterator[str]:
    heads = ["edits", "read by the judge", *SHARES]
    yield f"| {title} | {' | '.join(heads)} |"
    yield "|---" * (len(heads) + 1) + "|"
    for name, row in rows.items():
        counts = [str(row[head]) for head in COUNTS]
        shares = ["" if row[head] is None else percent(row[head]) for head in SHARES]
        yield f"| {name} | {' | '.join(counts + shares)} |"


def _measures(title: str, rows: Mapping[str, Any]) -> Iterator[str]:
    yield f"| {title} | {' | '.join(MEASURES.values())} |"
    yield "|---" * (len(MEASURES) + 1) + "|"
    for name, row in rows.items():
        yield f"| {name} | {' | '.join(_figure(row[head], head) for head in MEASURES)} |"


def _figure(value: float | None, head: str) -> str:
    return "" if value is None else f"{value:.{1 if 'dB' in MEASURES[head] else 3}f}"
