"""Stage `landed`: begin from the parts that ship, so that later stages can be trained again without the
earlier ones.
"""

from __future__ import annotations

from recipes.toybox.loop import Run
from scumble.models import toybox


def stage(run: Run) -> None:
    """Expand the packed weights into the run's folder, which must be new or empty."""
    toybox.expand(toybox.packed(), run.out)
