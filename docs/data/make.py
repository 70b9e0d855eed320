"""Makes the pages that stand on figures: docs/choosing.md and docs/claims.md.

    python docs/data/make.py                     from docs/data/*.json
    python docs/data/make.py night/compare.json  puts finished comparisons on the toybox into them first

The package carries copies of the figures, which `scumble advise` reads; this writes them too.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from scumble.bench.claims.page import write
from scumble.core.files import atomic_write
from scumble.verbs.known import FIGURES, choosing

HERE = Path(__file__).parent
KEPT = ("method", "picture", "seconds", "peak_memory_bytes", "scores")


def main(folders: list[str]) -> None:
    """Put the comparisons in, copy the figures, write both pages."""
    runs = json.loads((HERE / "compare.json").read_bytes())["runs"]
    for place in map(Path, folders):
        facts = json.loads(place.read_bytes())
        rows = [{name: row[name] for name in KEPT} for row in facts["rows"]]
        about = {name: facts[name] for name in ("settings", "machine", "model")}
        runs = [run for run in runs if run["settings"] != facts["settings"]] + [{**about, "rows": rows}]
    atomic_write(HERE / "compare.json", (json.dumps({"runs": runs}, indent=2) + "\n").encode())
    for name in ("claims.json", "compare.json"):
        atomic_write(FIGURES / name, (HERE / name).read_bytes())
    atomic_write(HERE.parent / "choosing.md", choosing().encode())
    found = json.loads((HERE / "claims.json").read_bytes())
    write(found, HERE.parent)


if __name__ == "__main__":
    main(sys.argv[1:])
