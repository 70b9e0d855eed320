"""The renderer still draws the pictures that are committed."""

from __future__ import annotations

import pytest

from goldens import FOLDER, SHEETS, sheet
from scumble.core.images import read_image, to_unit


def test_every_golden_has_its_scenes() -> None:
    assert {path.stem for path in FOLDER.glob("*.png")} == set(SHEETS)
    assert len(SHEETS) == 2


@pytest.mark.parametrize("name", SHEETS)
def test_pictures_are_the_committed_ones(name: str) -> None:
    """To half a grey level on average; a ray at an edge may fall to the other side on another processor."""
    difference = (to_unit(sheet(name)) - to_unit(read_image(FOLDER / f"{name}.png").image)).abs() * 255
    assert float(difference.mean()) < 0.5
    assert float((difference.amax(1) > 24).float().mean()) < 0.002
