"""What is true of a picture, as class numbers for classifiers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from scumble.world.scene import COLOURS, KINDS, PLACES, STYLES, TIMES, Scene
from scumble.world.words import describe

CLASSES: dict[str, tuple[str, ...]] = {
    "kind": KINDS,
    "colour": tuple(COLOURS),
    "place": PLACES,
    "time": TIMES,
    "style": STYLES,
}
UNKNOWN = -100
"""The class number that cross-entropy ignores: the picture does not show it."""


def of(scenes: Sequence[Scene]) -> dict[str, Tensor]:
    """The class of each scene under every heading: (N,) int64, UNKNOWN where it cannot be seen."""
    told = [describe(scene) for scene in scenes]
    return {name: _numbers([t[name] for t in told], classes) for name, classes in CLASSES.items()}


def _numbers(values: list[str | int | None], classes: tuple[str, ...]) -> Tensor:
    return torch.tensor([UNKNOWN if value is None else classes.index(str(value)) for value in values])
