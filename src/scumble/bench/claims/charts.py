"""A chart for each method: what its experiments compared, bar beside bar."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from PIL import Image

from scumble.bench.claims.table import claims
from scumble.bench.plot import bars

__all__ = ["charts"]

LARGEST = 1000
"""Figures above are counts of bytes and numbers, which no bar beside the others could show."""
HEADING = 90
"""Letters of a heading."""


def charts(found: Mapping[str, Any]) -> dict[str, Image.Image]:
    """Method -> its chart, of every claim that was measured by more than one figure."""
    groups: dict[str, dict[str, Mapping[str, float]]] = {}
    for claim in claims():
        details: Mapping[str, float] = found["claims"].get(claim.name, {}).get("details", {})
        compared = {name: value for name, value in details.items() if abs(value) <= LARGEST}
        if len(compared) > 1:
            name = claim.name.partition("/")[2]
            heading = f"{name}: {claim.how}"
            short = heading if len(heading) <= HEADING else heading[:HEADING].rsplit(" ", 1)[0] + " ..."
            groups.setdefault(claim.method, {})[short] = compared
    return {method: bars(group) for method, group in groups.items()}
