"""What training never sees: combinations, seeds and the proportions of the benchmark's subjects.

Three things are kept apart, each by a rule that needs no stored list:

- about a tenth of all (kind, colour, place, style) combinations, chosen by hash, never appears in training;
- seeds from `EVALUATION_SEEDS` up belong to evaluation;
- narrow bands inside the ranges of `Look` are skipped by training samples; subjects take their values there.
"""

from __future__ import annotations

from functools import cache
from hashlib import blake2b
from typing import Literal

from scumble.world.scene import COLOURLESS_STYLES, Scene

__all__ = [
    "EVALUATION_SEEDS",
    "HELD_HALF_WIDTH",
    "HELD_OUT_SHARE",
    "HELD_VALUES",
    "LOOK_RANGES",
    "Split",
    "is_combination_held_out",
    "is_held_out",
    "is_held_value",
]

EVALUATION_SEEDS = 10**6
"""Scenes with this seed or a higher one are for evaluation: never trained on, never looked at in tuning."""

HELD_OUT_SHARE = 0.1
"""Share of the combinations that is held out."""

LOOK_RANGES: dict[str, tuple[float, float]] = {
    "head": (0.8, 1.25),
    "stretch": (0.8, 1.25),
    "limbs": (0.75, 1.35),
}
"""Ranges of the numeric fields of `Look`."""

HELD_VALUES: dict[str, tuple[float, ...]] = {
    "head": (0.84, 0.95, 1.06, 1.19),
    "stretch": (0.85, 0.96, 1.07, 1.18),
    "limbs": (0.82, 0.95, 1.12, 1.28),
}
"""Values of `Look` that subjects have and training samples never come near."""

HELD_HALF_WIDTH = 0.012
"""Half the width of the band that training skips around each held value."""

Split = Literal["train", "held_out"]


@cache
def is_combination_held_out(kind: str, colour: str, place: str, style: str) -> bool:
    """Whether no training sample shows this combination.

    In styles without colour the colour cannot be seen, so there the answer is the same for every colour.
    """
    seen_colour = "" if style in COLOURLESS_STYLES else colour
    key = "|".join(("combination", kind, seen_colour, place, style)).encode()
    fraction = int.from_bytes(blake2b(key, digest_size=8).digest(), "big") / 2**64
    return fraction < HELD_OUT_SHARE


def is_held_out(scene: Scene) -> bool:
    """Whether any thing of the scene is part of a combination that training never shows."""
    return any(is_combination_held_out(t.kind, t.colour, scene.place, scene.style) for t in scene.things)


def is_held_value(field: str, value: float) -> bool:
    """Whether a value of the `Look` field (`head`, `stretch`, `limbs`) lies in a band training skips."""
    return any(abs(value - held) <= HELD_HALF_WIDTH for held in HELD_VALUES[field])
