"""Which pairs are worth keeping: four cosines in CLIP's space (Brooks et al. 2022, section 3.1.2; the
direction is that of Gal et al. 2021, equation 2).

Letters: n pairs, E width of the space. All features have length one.

Where we differ: pictures are resized as CLIP's own preprocessing does it, antialiased; the released code
resizes without, which moves its numbers a little.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from torch import Tensor
from torch.nn.functional import cosine_similarity

from scumble.core.config import Config

__all__ = ["STAGES", "Scores", "Thresholds", "best", "first_failed", "scores"]

STAGES = ("image", "text", "direction")
"""In the order in which pairs are dropped."""

Cosine = Annotated[float, Field(ge=-1, le=1)]


class Thresholds(Config):
    """The least that a pair must have; the defaults are the paper's code's, for CLIP ViT-L/14."""

    min_image: Cosine = 0.7
    """Cosine of the two pictures."""
    min_text: Cosine = 0.2
    """Cosine of each picture with its own caption."""
    min_direction: Cosine = 0.2
    """Cosine of the change of the pictures with the change of the captions."""


@dataclass(frozen=True, slots=True)
class Scores:
    """What one pair has."""

    image: float
    text_input: float
    text_edited: float
    direction: float


def scores(pictures: tuple[Tensor, Tensor], captions: tuple[Tensor, Tensor]) -> list[Scores]:
    """The scores of n pairs: features of first and second pictures, and of first and second captions, each
    (n, E).
    """
    columns = (
        cosine_similarity(pictures[0], pictures[1]),
        cosine_similarity(pictures[0], captions[0]),
        cosine_similarity(pictures[1], captions[1]),
        cosine_similarity(pictures[1] - pictures[0], captions[1] - captions[0]),
    )
    return [Scores(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]


def first_failed(found: Scores, least: Thresholds) -> str | None:
    """The first of STAGES that the pair does not pass, or None. A score that is not a number passes
    nothing.
    """
    passes = {
        "image": found.image >= least.min_image,
        "text": min(found.text_input, found.text_edited) >= least.min_text,
        "direction": found.direction >= least.min_direction,
    }
    return next((stage for stage in STAGES if not passes[stage]), None)


def best(pairs: Sequence[tuple[int, Scores]], keep: int) -> list[int]:
    """Of the numbered pairs the `keep` that go most in the captions' direction, the first of equals first."""
    ordered = sorted(pairs, key=lambda pair: (-pair[1].direction, pair[0]))
    return [number for number, _ in ordered[:keep]]
