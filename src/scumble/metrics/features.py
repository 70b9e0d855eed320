"""Features by name, for distances of sets (`kid`) and for likeness: whose features they are belongs to a
figure as much as its value.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from scumble.core.errors import InputError
from scumble.core.images import to_model
from scumble.models import toybox
from scumble.models.clip import load_clip
from scumble.models.dino import load_dino

__all__ = ["Features", "named_features"]

BATCH = 64


@dataclass(frozen=True, slots=True)
class Features:
    """A way from pictures to vectors."""

    name: str
    of: Callable[[Tensor], Tensor]
    """(B, 3, H, W) in [-1, 1] to (B, D)."""

    def __call__(self, pixels: Tensor) -> Tensor:
        """(B, D) on the CPU, of any number of pictures (B, 3, H, W) in [0, 1]."""
        with torch.inference_mode():
            return torch.cat([self.of(to_model(part)).cpu() for part in pixels.split(BATCH)])


def named_features(name: str, *, device: str = "cpu", trust_pickle: bool = False) -> Features:
    """The features called `name`:

    | name | features |
    |---|---|
    | `judge` | of the toy world's judge, under its heads |
    | `identity` | of the judge, equal for pictures of one thing |
    | `clip` | of the toybox's CLIP |
    | `clip:WHERE`, `dino:WHERE` | of a CLIP or DINO model, a folder or hub id |

    Those of Inception, which published KIDs are on, are not here: its weights come as a pickle of a network
    that transformers does not have. Raises InputError for another name, ModelError where a model is missing.
    """
    kind, _, where = name.partition(":")
    if kind == "clip":
        return Features(name, load_clip(where or toybox.clip(), device=device).image_features)
    if kind == "dino" and where:
        dino = load_dino(where, device=device, trust_pickle=trust_pickle)
        return Features(name, dino.image_features)
    if name in ("judge", "identity"):
        judge = toybox.judge(device)
        if name == "judge":
            return Features(name, lambda pixels: judge.features(pixels.to(device)))
        return Features(name, lambda pixels: judge(pixels.to(device)).identity)
    raise InputError(f"There are no features {name!r}.", "There are judge, identity, clip:WHERE, dino:WHERE.")
