"""What surfaces are painted with: fixed colours, finishes, patterns and the choice of second colours."""

from __future__ import annotations

from dataclasses import dataclass

from scumble.world.scene import COLOURS, Thing

__all__ = [
    "EMISSION",
    "FINISHES",
    "FIXED",
    "PATTERNS",
    "Finish",
    "Rgb",
    "contrast",
    "glow",
    "linear",
    "mark_colour",
    "pattern_colour",
    "second_colour",
]

Rgb = tuple[float, float, float]

FIXED: dict[str, Rgb] = {
    "dark": (0.09, 0.09, 0.11),
    "light": (0.96, 0.95, 0.92),
    "grey": (0.55, 0.56, 0.60),
    "pink": (0.93, 0.55, 0.60),
    "orange": (0.95, 0.50, 0.12),
    "wood": (0.50, 0.31, 0.16),
    "cream": (0.95, 0.88, 0.74),
    "glass": (0.56, 0.78, 0.90),
    "window": (1.00, 0.86, 0.48),
    "lamp": (1.00, 0.93, 0.66),
    "crimson": (0.82, 0.14, 0.16),
    "brick": (0.62, 0.30, 0.22),
    "gold": (0.95, 0.74, 0.22),
    "leaf": (0.22, 0.52, 0.18),
    "coffee": (0.28, 0.16, 0.09),
}
"""Colours of the parts that neither the main nor the second colour paints, as sRGB."""

EMISSION: dict[str, float] = {"window": 0.35, "lamp": 0.45}
"""How much light these fixed colours give of themselves."""


@dataclass(frozen=True, slots=True)
class Finish:
    """How a surface answers light."""

    specular: float
    """Strength of the highlight."""
    gloss: float
    """Exponent of the highlight (Blinn-Phong)."""
    mirror: float
    """Share of the surroundings that it reflects face on."""


FINISHES: dict[str, Finish] = {
    "matte": Finish(0.04, 12.0, 0.0),
    "shiny": Finish(1.50, 42.0, 0.14),
    "metal": Finish(1.00, 30.0, 0.80),
    "wooden": Finish(0.10, 18.0, 0.0),
    "striped": Finish(0.10, 24.0, 0.0),
    "dotted": Finish(0.10, 24.0, 0.0),
    "checkered": Finish(0.10, 24.0, 0.0),
    "fixed": Finish(0.35, 60.0, 0.02),
}
"""The finish of each material; `fixed` is that of parts with fixed colours."""

PATTERNS = {"matte": 0, "shiny": 0, "metal": 0, "wooden": 1, "striped": 2, "dotted": 3, "checkered": 4}


def linear(colour: Rgb) -> Rgb:
    """sRGB in [0, 1] to linear light (IEC 61966-2-1)."""
    r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour)
    return (r, g, b)


def contrast(first: Rgb, second: Rgb) -> float:
    """Distance between two sRGB colours, with lightness counted twice."""
    difference = sum((a - b) ** 2 for a, b in zip(first, second, strict=True)) ** 0.5
    weights = (0.30, 0.59, 0.11)
    lightness = abs(sum(w * (a - b) for w, a, b in zip(weights, first, second, strict=True)))
    return difference + lightness


def second_colour(main: str, wished: str | None, defaults: tuple[str, ...]) -> str:
    """The colour of secondary parts: the one wished for, else the first default that differs from `main`."""
    if wished is not None:
        return wished
    for name in defaults:
        if contrast(COLOURS[main], COLOURS[name]) > 0.42:
            return name
    return max(defaults, key=lambda name: contrast(COLOURS[main], COLOURS[name]))


def pattern_colour(main: str, second: str) -> str:
    """The second colour of a pattern: the thing's own where it stands out, else white or black."""
    if contrast(COLOURS[main], COLOURS[second]) > 0.75:
        return second
    return (
        "white"
        if contrast(COLOURS[main], COLOURS["white"]) > contrast(COLOURS[main], COLOURS["black"])
        else "black"
    )


def mark_colour(thing: Thing, second: str) -> str:
    """The colour of a thing's mark: the one wished for, else the one that stands out most."""
    if thing.look.mark_colour is not None:
        return thing.look.mark_colour
    under = (COLOURS[thing.colour], COLOURS[second], FIXED["light"])
    return max(
        ("black", "red", "blue", "yellow"), key=lambda name: min(contrast(COLOURS[name], c) for c in under)
    )


def glow(thing: Thing) -> Rgb:
    """Linear light that a glowing thing gives: its colour, lightened; none for others."""
    if thing.effect != "glowing":
        return (0.0, 0.0, 0.0)
    r, g, b = (0.30 + 0.70 * c for c in COLOURS[thing.colour])
    return linear((r, g, b))
