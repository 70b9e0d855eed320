"""Scenes with some attributes fixed: five snowmen, each in another colour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from scumble.world.scene import (
    ACCESSORIES,
    COLOURLESS_STYLES,
    COLOURS,
    EFFECTS,
    KINDS,
    MATERIALS,
    PLACES,
    SIZES,
    STYLES,
    TIMES,
    VIEWS,
    WEARERS,
    Scene,
)

__all__ = ["NONE", "OF_SCENE", "OF_THING", "fixed"]

NONE = "none"
OF_THING: dict[str, Sequence[str]] = {
    "kind": KINDS,
    "colour": tuple(COLOURS),
    "material": MATERIALS,
    "size": tuple(SIZES),
    "accessory": (NONE, *ACCESSORIES),
    "effect": (NONE, *EFFECTS),
}
"""Attributes of the first thing, each with its values."""
OF_SCENE: dict[str, Sequence[str]] = {"place": PLACES, "time": TIMES, "style": STYLES, "view": VIEWS}
"""Attributes of the whole scene, each with its values."""


def fixed(scene: Scene, wishes: Mapping[str, str]) -> Scene:
    """The scene with these attributes, all named in OF_THING or OF_SCENE, of it or of its first thing.

    What then cannot be is left out: things that wear nothing lose what they wore, and effects go in styles
    of lines, which show none; on the plain screen it is day.
    """
    first, *others = scene.things
    mine = {name: None if value == NONE else value for name, value in wishes.items() if name in OF_THING}
    first = replace(first, **mine)
    if first.kind not in WEARERS:
        first = replace(first, accessory=None)
    scene = replace(scene, **{name: value for name, value in wishes.items() if name in OF_SCENE})
    if scene.style in COLOURLESS_STYLES:
        first = replace(first, effect=None)
    if scene.place == "green screen":
        scene = replace(scene, time="day")
    return replace(scene, things=(first, *others))
