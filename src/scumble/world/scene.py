"""A scene of the toy world is a value: what is in the picture, where, when and in which style.

Nothing here draws or speaks: `render` turns scenes into pictures, `words` into captions, `instructions` into
edited scenes. The tables below are the whole vocabulary; each name is also the word used in captions.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "ACCESSORIES",
    "COLOURLESS_STYLES",
    "COLOURS",
    "EFFECTS",
    "KINDS",
    "MATERIALS",
    "PLACES",
    "RELATIONS",
    "SIZES",
    "STYLES",
    "TIMES",
    "VIEWS",
    "WEARERS",
    "Look",
    "Scene",
    "Thing",
]

COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.83, 0.10, 0.09),
    "orange": (0.95, 0.47, 0.06),
    "yellow": (0.96, 0.82, 0.12),
    "green": (0.16, 0.60, 0.18),
    "teal": (0.06, 0.60, 0.60),
    "blue": (0.12, 0.28, 0.82),
    "purple": (0.47, 0.16, 0.68),
    "pink": (0.96, 0.50, 0.68),
    "brown": (0.42, 0.24, 0.12),
    "white": (0.94, 0.94, 0.92),
    "grey": (0.48, 0.49, 0.51),
    "black": (0.07, 0.07, 0.08),
}
"""Main colours as sRGB in [0, 1]."""

MATERIALS = ("matte", "shiny", "metal", "wooden", "striped", "dotted", "checkered")
"""`striped`, `dotted` and `checkered` are patterns of the main colour and a second one."""

PLACES = ("grass", "beach", "desert", "snow", "studio", "moon", "table", "green screen")
"""Grounds with their backgrounds; `table` is a wooden table; `green screen` is a plain (0, 177, 64)."""

TIMES = ("day", "sunset", "night")
STYLES = ("photo", "pencil sketch", "watercolour", "oil painting", "cartoon", "pixel art", "blueprint")
COLOURLESS_STYLES = frozenset({"pencil sketch", "blueprint"})
"""Styles in which colour is neither captioned nor scored."""

ACCESSORIES = ("party hat", "crown", "sunglasses", "scarf", "bow tie")
EFFECTS = ("snow-capped", "glowing", "smoking")
RELATIONS = ("next to", "in front of", "on top of")
SIZES: dict[str, float] = {"small": 0.72, "medium": 1.0, "large": 1.3}
"""Relative sizes; `medium` is not captioned."""

VIEWS = ("front", "side", "back", "above")

KINDS = (
    "cat", "dog", "duck", "bear", "fish", "rabbit", "car", "truck", "rocket", "boat", "house", "castle",
    "tree", "mushroom", "cactus", "flower", "snowman", "robot", "mug", "lamp", "ball", "cube", "cone", "ring",
)  # fmt: skip
"""The things. What each is made of stands in `things`."""

WEARERS = frozenset({"cat", "dog", "duck", "bear", "fish", "rabbit", "snowman", "robot"})
"""Things that can wear accessories."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """The private look of a subject: what tells this cat from other cats of its colour.

    Every training sample draws its own values from the same ranges, so a model can express the values of the
    benchmark subjects without having seen them. `mark` is the exception: no training sample has one.
    """

    head: float = 1.0
    """Scale of the head, or of the second largest part, in [0.8, 1.25]."""
    stretch: float = 1.0
    """Scale of the body's height against its width, in [0.8, 1.25]."""
    limbs: float = 1.0
    """Scale of ears, limbs, wheels and other small parts, in [0.75, 1.35]."""
    second_colour: str | None = None
    """Colour of belly, ears, wheels, roof and other secondary parts; None for the thing's own default."""
    mark: str | None = None
    """One of `subjects.MARKS`, painted on the body; never in training samples."""
    mark_colour: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Thing:
    """One thing: a kind with its colour, material, size and what it wears."""

    kind: str
    colour: str
    material: str = "matte"
    size: str = "medium"
    accessory: str | None = None
    accessory_colour: str = "red"
    effect: str | None = None
    look: Look = Look()


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One or two things in a place at a time, seen from a side, drawn in a style.

    `things[0]` is what the picture is about; with two, it stands in `relation` to `things[1]`
    ("a cat next to a ball", "a duck on top of a cube"). `seed` decides everything that is not said: the
    camera's small turns, where things stand, the horizon, the grain of the style.
    """

    things: tuple[Thing, ...]
    relation: str | None = None
    place: str = "grass"
    time: str = "day"
    style: str = "photo"
    view: str = "front"
    seed: int = 0
