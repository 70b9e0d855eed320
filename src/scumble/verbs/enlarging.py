"""An upscaler in use, for `upscale` and `generate --upscale`: loaded, with what was learnt on it."""

from __future__ import annotations

import re
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from scumble.adapters.attach import attach
from scumble.adapters.weights import Weights
from scumble.core.errors import WeightsError
from scumble.core.events import Loop
from scumble.core.files import sha256
from scumble.diffusion.samplers import SAMPLERS
from scumble.history.recipe import Ingredient
from scumble.models.model import Model
from scumble.sampling import estimate
from scumble.sampling.guided import default_guidance
from scumble.sampling.image_to_image import grid
from scumble.sampling.text_to_image import SamplerOptions
from scumble.sampling.tiles import starts
from scumble.sampling.upscaling import Enlarging, enlarge, no_words, tiling_of, upscaling
from scumble.verbs.load import ModelConfig, scaled_weights

__all__ = ["STEPS", "UPSCALER", "Enlarger", "Learnt", "cost", "enlarger", "learnt_attached"]

UPSCALER = "upscaler"
"""The role, in recipes, of the model that enlarged what another drew."""
STEPS = 20
"""Denoising steps of an upscaler, where nothing else is said."""


@dataclass(frozen=True, slots=True)
class Learnt:
    """What attached weights bring."""

    ingredients: tuple[Ingredient, ...] = ()
    noise_level: int | None = None
    """The noise level that the upscaler was tuned with."""
    words: frozenset[str] = frozenset()
    """Words that the upscaler does not know, though what drew the picture does."""


@dataclass(frozen=True, slots=True)
class Enlarger:
    """A loaded upscaler and how it is used."""

    model: Model
    task: Enlarging
    ingredient: Ingredient

    def __call__(self, pixels: Tensor, seeds: Sequence[int]) -> Loop[Tensor]:
        """`pixels` (B, 3, H, W) in [0, 1], enlarged."""
        return (yield from enlarge(self.model, pixels, seeds, self.task))


@contextmanager
def learnt_attached(
    model: Model, texts: Sequence[str], *, any_base: bool = False, strict: bool = True
) -> Generator[Learnt]:
    """Inside, the upscaler `model` has what the weights FILE or FILE:SCALE in `texts` hold for it.

    Raises WeightsError for weights that hold nothing for an upscaler; unless `strict`, they are passed over.
    """
    given = [scaled_weights(text) for text in texts]
    parts = [(_part(path, weights, strict), scale) for path, weights, scale in given]
    used = [(part, scale) for part, scale in parts if part is not None]
    levels = [part.config.get("upscaler_noise") for part, scale in used if scale != 0]
    unknown = {word for _, weights, _ in given for word in weights.words}
    with attach(model, *used, any_base=any_base):
        yield Learnt(
            tuple(Ingredient.of("weights", path, sha256(path), scale) for path, _, scale in given),
            max((level for level in levels if isinstance(level, int)), default=None),
            frozenset(unknown - model.words.keys()),
        )


@contextmanager
def enlarger(where: ModelConfig, prompt: str, negative: str, noise_level: int | None) -> Generator[Enlarger]:
    """Inside, the upscaler `where.model` with what `where.weights` hold for it, for pictures of `prompt`.

    Learnt words that it does not know are left out of the prompt. Raises InputError where it is no upscaler.
    """
    model = where.load()
    upscaling(model)
    with learnt_attached(model, where.weights, any_base=where.any_base, strict=False) as learnt:
        options = SamplerOptions(steps=STEPS, guidance=default_guidance(model))
        asked = learnt.noise_level if noise_level is None else noise_level
        known, away = _plain(prompt, learnt.words), _plain(negative, learnt.words)
        task = Enlarging(prompt=known, negative=away, noise_level=asked, options=options)
        yield Enlarger(model, task, Ingredient.of(UPSCALER, where.model, model.hash))


def cost(model: Model, size: tuple[int, int], task: Enlarging, count: int = 1) -> estimate.Cost:
    """Of enlarging `count` pictures of `size` (H, W): every window of every step, and decoding."""
    cell, f = grid(model), model.downsample
    tiling, factor = tiling_of(model, task), upscaling(model).factor
    height, width = (max(2 * cell, -(-side * factor // cell) * cell) // f for side in size)
    windows = len(starts(height, tiling)) * len(starts(width, tiling))
    shape = (min(height, tiling.side), min(width, tiling.side))
    words = bool(model.text_encoders)
    guided = words and task.options.guidance != 1 and task.prompt != task.negative
    condition = model.prompt([task.prompt]) if words else no_words(model)
    channels = model.latent_channels + upscaling(model).channels
    labels, time = torch.zeros(1, dtype=torch.long, device=model.device), torch.zeros((), device=model.device)

    def call() -> None:
        batch = 2 if guided else 1
        x = torch.zeros(batch, channels, *shape, device=model.device)
        model.predict(x, time, condition, labels.expand(batch))

    step = estimate.trace(call)
    latents = torch.zeros(1, model.latent_channels, *shape, device=model.device)
    decoding = estimate.trace(lambda: model.decode(latents))
    calls = SAMPLERS[task.options.sampler].calls(task.options.steps)
    return estimate.Cost(
        flops=(step.flops * calls + decoding.flops) * windows * count,
        peak_bytes=max(step.peak_bytes, decoding.peak_bytes),
    )


def _part(path: Path, weights: Weights, strict: bool) -> Weights | None:
    """What `weights` hold for an upscaler."""
    if weights.upscaler is not None:
        return weights.upscaler
    if weights.family == UPSCALER:
        return weights
    if strict:
        raise WeightsError(
            f"{path} was learnt without the super-resolution stage, and holds nothing for an upscaler.",
            "Learn it again with --upscaler.",
        )
    return None


def _plain(text: str, words: frozenset[str]) -> str:
    """`text` without `words`, each with the blanks behind it."""
    for word in sorted(words, key=len, reverse=True):
        text = re.sub(re.escape(word) + r"\s*", "", text)
    return text
