"""What an upscaler is shown while it learns: photos beside the same photos made small.

Letters: N photos, V views of each, B examples, S their side, f the upscaler's factor, c h w latents, k
channels of the small picture as the denoiser sees it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from scumble.core import rng
from scumble.core.images import to_unit
from scumble.data.subjects import Shot, Subject, cropped
from scumble.models.model import Model
from scumble.training.examples import Drawn, encoded_views
from scumble.training.subjects import Bucket, Gallery

__all__ = ["CUTS", "Pairs", "pairs"]

CUTS = 4
"""Parts of each photo that are shown beside the whole of it, where it is larger than the model's size."""
CLOSEST = 2.0
"""The most that a part is enlarged against the whole, if the photo has the pixels."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """All photos of all subjects: large ones as posteriors in `bucket`, `small` (N, V, k, h, w) clean."""

    bucket: Bucket
    small: Tensor

    def draw(
        self, model: Model, seed: int, step: int, rows: Sequence[int], highest: int
    ) -> tuple[Drawn, Tensor, Tensor]:
        """The examples `rows` of a step; the noised small pictures (B, k, h, w); their levels (B,) int64.

        Levels are uniform in 0 ... `highest`; each example has its own chance.
        """
        _, drawn = Gallery([self.bucket]).draw(model, seed, step, rows)
        chance = rng.generators(rng.derive(of, "augmentation") for of in drawn.seeds)
        levels = torch.stack([torch.randint(highest + 1, (), generator=g) for g in chance])
        blur = rng.randn(self.small.shape[2:], chance, device=self.small.device)
        assert model.upscaling is not None
        level = model.upscaling.schedule.levels(levels).to(self.small.device)
        return drawn, level.mix(self.small[drawn.pictures, drawn.views], blur), levels


@torch.no_grad()
def pairs(
    model: Model, subjects: Sequence[Subject], seen: Callable[[Tensor], Tensor], *, mirrored: bool, seed: int
) -> Pairs:
    """Encode the photos of all subjects at the upscaler's own size S, and as `seen` small.

    Each is shown whole and, where it has the pixels, in CUTS parts at random places and scales; all of them
    mirrored too if `mirrored`. Small is the mean over f x f pixels.
    """
    assert model.upscaling is not None
    side, factor = model.default_size, model.upscaling.factor
    shots = [(s, i, shot) for s, subject in enumerate(subjects) for i, shot in enumerate(subject.shots)]
    views = [_views(shot, side, rng.derive(seed, "cut", s, i), mirrored=mirrored) for s, i, shot in shots]
    latents = encoded_views(model, ((view, None) for view in views))
    small = torch.stack([seen(interpolate(view, scale_factor=1 / factor, mode="area")) for view in views])
    return Pairs(Bucket((side, side), latents, [(s, i) for s, i, _ in shots]), small)


def _views(shot: Shot, side: int, seed: int, *, mirrored: bool) -> Tensor:
    """(V, 3, S, S) in [0, 1]: the whole, then the parts, then all of them mirrored."""
    whole, _ = cropped(shot, (side, side))
    seeds = (rng.derive(seed, number) for number in range(CUTS))
    found = torch.stack([whole, *(_part(shot.image, side, of) for of in seeds)])
    return torch.cat([found, found.flip(-1)]) if mirrored else found


def _part(image: Image.Image, side: int, seed: int) -> Tensor:
    """A square (3, S, S) of the photo, its scale between that of the whole and its own pixels."""
    chance = rng.generator(seed)
    scale, x, y = (float(torch.rand((), generator=chance)) for _ in range(3))
    short = min(image.size)
    wanted = side * (1 + scale * (min(CLOSEST, max(1.0, short / side)) - 1))  # of the short side, resized
    width, height = (max(side, round(length * wanted / short)) for length in image.size)
    left, top = round(x * (width - side)), round(y * (height - side))
    resized = image.resize((width, height), Image.Resampling.LANCZOS)
    return to_unit(resized.crop((left, top, left + side, top + side)))[0]
