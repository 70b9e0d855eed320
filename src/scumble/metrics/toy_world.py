"""Measures that only a world made by a program allows: what is in a picture is known, so an answer is right
or wrong.

Letters: B pictures, H W their size, E width of an embedding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from scumble.models.clip import Clip
from scumble.models.judge import Verdict
from scumble.world.scene import Scene

__all__ = ["auroc", "prefers", "retrieval", "right", "share", "spoilt", "tells_same"]

GRID = 4
"""Tiles a side of a shuffled picture."""
SMEAR = 8
"""Cells a side that a smeared picture keeps."""


def right(verdict: Verdict, scenes: Sequence[Scene]) -> dict[str, list[bool | None]]:
    """For every question, whether each picture shows what its scene asks for, None where it cannot be seen.

    As `Verdict.scores`, but for what most pictures lack: `accessory` and `effect` ask only where there
    should be one, `no accessory` and `no effect` where there should be none. `both` asks for the kinds of two
    things.
    """
    answers = verdict.scores(scenes)
    for name in ("accessory", "effect"):
        asked = [getattr(scene.things[0], name) is not None for scene in scenes]
        row = answers[name]
        answers[name] = [answer if wanted else None for answer, wanted in zip(row, asked, strict=True)]
        answers[f"no {name}"] = [
            None if wanted else answer for answer, wanted in zip(row, asked, strict=True)
        ]
    two = [len(scene.things) == 2 for scene in scenes]
    answers["both"] = [answer if pair else None for answer, pair in zip(answers["kind"], two, strict=True)]
    return answers


def share(
    answers: Mapping[str, Sequence[bool | None]], keep: Sequence[bool] | None = None
) -> dict[str, float]:
    """The share of right answers to each question, of the pictures marked in `keep` (all, if not given).

    Questions that none of them answers are left out.
    """
    shares: dict[str, float] = {}
    for question, row in answers.items():
        wanted = [True] * len(row) if keep is None else keep
        seen = [answer for answer, kept in zip(row, wanted, strict=True) if kept and answer is not None]
        if seen:
            shares[question] = sum(seen) / len(seen)
    return shares


def retrieval(clip: Clip, pixels: Tensor, captions: Sequence[str], *, among: int = 100) -> float:
    """Share of pictures (B, 3, H, W) in [-1, 1] whose caption, or one in the same words, is the nearest to
    them among those of each `among` pictures; pictures that do not fill such a block are left out, unless
    there are fewer than one block.
    """
    seen, said = clip.image_features(pixels), clip.text_features(captions)  # (B, E)
    whole = len(captions) // among * among or len(captions)
    hits = 0
    for first in range(0, whole, among):
        block = slice(first, min(first + among, whole))
        best = (seen[block] @ said[block].T).argmax(1).tolist()
        hits += sum(captions[first + i] == captions[first + j] for i, j in enumerate(best))
    return hits / whole


def prefers(clip: Clip, pixels: Tensor, captions: Sequence[str], others: Sequence[str]) -> float:
    """Share of pictures (B, 3, H, W) in [-1, 1] nearer to their caption than to the other one."""
    seen = clip.image_features(pixels)
    own, other = ((seen * clip.text_features(texts)).sum(-1) for texts in (captions, others))
    return float((own > other).float().mean())


def tells_same(identity: Tensor) -> float:
    """Share of triples in which the first is nearer to the same thing elsewhere than to a look-alike in that
    place: `identity` (3 T, E) holds first, same and look-alike of each triple in turn.
    """
    first, same, other = identity.unflatten(0, (-1, 3)).unbind(1)
    return float(((first * same).sum(-1) > (first * other).sum(-1)).float().mean())


def auroc(higher: Tensor, lower: Tensor) -> float:
    """Chance that one of `higher` (N,) scores above one of `lower` (M,), equal scores counting half."""
    above = (higher[:, None] > lower[None]).double() + 0.5 * (higher[:, None] == lower[None]).double()
    return float(above.mean())


def spoilt(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Pictures (B, 3, H, W) in [-1, 1], H and W multiples of 8, made to show nothing known: in turn mixed
    with the one before, smeared, shuffled in tiles, or noise.
    """
    b, _, h, w = pixels.shape
    order = torch.randperm(GRID**2, generator=generator, device=pixels.device)
    tiles = pixels.unflatten(3, (GRID, -1)).unflatten(2, (GRID, -1))  # (B, 3, G, H/G, G, W/G)
    tiles = tiles.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)[:, order]  # (B, G G, 3, H/G, W/G)
    shuffled = tiles.unflatten(1, (GRID, GRID)).permute(0, 3, 1, 4, 2, 5).reshape(pixels.shape)
    mixed = 0.5 * (pixels + pixels.roll(1, 0))
    cells = avg_pool2d(pixels, (h // SMEAR, w // SMEAR))
    smeared = interpolate(cells, (h, w), mode="bilinear", align_corners=False)
    noise = torch.randn(pixels.shape, generator=generator, device=pixels.device).mul(0.5).clamp(-1.0, 1.0)
    number = torch.arange(b, device=pixels.device)
    return torch.stack([mixed, smeared, shuffled, noise])[number % 4, number]
