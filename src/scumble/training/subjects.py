"""Subjects as a denoiser is shown them: their pictures encoded once, in buckets of one size, and the sentence
that each example is told with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from scumble.core import rng
from scumble.data.subjects import Subject, buckets, cropped
from scumble.models.model import Model
from scumble.training.examples import Drawn, Latents, draw, encoded

__all__ = ["Bucket", "Gallery", "gallery"]


@dataclass(frozen=True, slots=True)
class Bucket:
    """Pictures of one size: `latents`, and for each picture which subject and which of its shots it is."""

    size: tuple[int, int]
    latents: Latents
    origins: list[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Gallery:
    """All pictures of all subjects."""

    buckets: list[Bucket]

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """(H, W) of each bucket."""
        return [bucket.size for bucket in self.buckets]

    def draw(self, model: Model, seed: int, step: int, rows: Sequence[int]) -> tuple[Bucket, Drawn]:
        """The examples `rows` of a step, all from one bucket, chosen as often as it has pictures."""
        counts = torch.tensor([float(len(bucket.origins)) for bucket in self.buckets])
        chance = rng.generator(rng.derive(seed, "bucket", step))
        bucket = self.buckets[int(torch.multinomial(counts, 1, generator=chance))]
        return bucket, draw(model, bucket.latents, seed, step, rows, "example")


def gallery(model: Model, subjects: Sequence[Subject], *, size: int, cell: int, mirrored: bool) -> Gallery:
    """Encode the pictures of all subjects, each in the bucket nearest to its proportions."""
    shots = [(s, i, shot) for s, subject in enumerate(subjects) for i, shot in enumerate(subject.shots)]
    found: list[Bucket] = []
    for shape, chosen in buckets([shot for _, _, shot in shots], size, cell).items():
        pairs = [cropped(shots[i][2], shape) for i in chosen]
        masked = any(shots[i][2].mask is not None for i in chosen)
        latents = encoded(
            model,
            [picture for picture, _ in pairs],
            masks=[mask for _, mask in pairs] if masked else None,
            mirrored=mirrored,
        )
        found.append(Bucket(shape, latents, [shots[i][:2] for i in chosen]))
    return Gallery(found)
