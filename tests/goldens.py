"""The pictures that must not change by accident, and the script that makes them.

After a change that is meant to be seen: `python tests/goldens.py` from the root, and a look at the result.
"""

from __future__ import annotations

from itertools import cycle
from pathlib import Path

from PIL import Image

from scumble.core.images import from_unit, grid, save_image
from scumble.world.render import render
from scumble.world.scene import (
    ACCESSORIES,
    COLOURS,
    EFFECTS,
    KINDS,
    MATERIALS,
    PLACES,
    STYLES,
    TIMES,
    VIEWS,
    WEARERS,
    Scene,
    Thing,
)

__all__ = ["FOLDER", "SHEETS", "sheet"]

FOLDER = Path(__file__).parent / "picture" / "goldens"
SIZE = 64
COLUMNS = 8


def _kinds() -> list[Scene]:
    """Every kind once, going round colours, materials, places, times, views and what can be worn."""
    turns = zip(
        KINDS, cycle(COLOURS), cycle(MATERIALS), cycle(PLACES), cycle(TIMES), cycle(VIEWS),
        cycle(ACCESSORIES), strict=False,
    )  # fmt: skip
    return [
        Scene(
            things=(Thing(kind=k, colour=c, material=m, accessory=worn if k in WEARERS else None),),
            place=place,
            time="day" if place == "green screen" else time,
            view=view,
            seed=i,
        )
        for i, (k, c, m, place, time, view, worn) in enumerate(turns)
    ]


def _styles() -> list[Scene]:
    """A cat and its ball in every style; every effect; the three relations."""
    cat, ball = Thing(kind="cat", colour="orange", accessory="crown"), Thing(kind="ball", colour="blue")
    pair = Scene(things=(cat, ball), relation="next to", place="grass", seed=1)
    styled = [Scene(things=pair.things, relation="next to", place="grass", style=s, seed=1) for s in STYLES]
    house = [
        Scene(things=(Thing(kind="house", colour="red", effect=e),), place="snow", seed=2) for e in EFFECTS
    ]
    cube = Thing(kind="cube", colour="purple")
    pairs = [Scene(things=(ball, cube), relation=r, seed=3) for r in ("next to", "in front of", "on top of")]
    return [*styled, *house, *pairs]


SHEETS = {"kinds": _kinds, "styles": _styles}
"""Name of a sheet, and the scenes on it."""


def sheet(name: str) -> Image.Image:
    """The sheet as it is drawn now."""
    return grid(from_unit(render(SHEETS[name](), size=SIZE).pixels), columns=COLUMNS)


if __name__ == "__main__":
    for name in SHEETS:
        save_image(sheet(name), FOLDER / f"{name}.png")
