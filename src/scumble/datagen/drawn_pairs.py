"""Pictures for edits in words: both captions drawn side by side from the same noise with shared attention,
many times, and the best kept (Brooks et al. 2022, section 3.1.2).

Letters: n pairs of a batch, K = 2 n pictures, the n first ones before the n second; H W their size in
pixels, c h w channels and size of their latents.

A sample is a triple and a number. Its seed gives everything that is drawn for it: how long attention is
shared, the guidance scale, the start noise and the noise of every step, the same for both pictures.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from typing import Annotated, Any

import torch
from PIL import Image
from pydantic import Field
from torch import Tensor

from scumble.core import rng
from scumble.core.errors import ConfigError, OutOfMemoryError
from scumble.core.events import Loop, Progress
from scumble.core.images import from_model, from_uint8, from_unit, save_image, to_model, to_uint8
from scumble.datagen.alignment import align
from scumble.datagen.attention_sharing import Sharing, shared
from scumble.datagen.clip_filter import Scores, Thresholds, best, first_failed, scores
from scumble.datagen.shards import ROWS, Counts, Shard
from scumble.datagen.triples import Triple
from scumble.diffusion.levels import Level
from scumble.diffusion.samplers import SAMPLERS
from scumble.diffusion.spacing import SPACINGS, levels_for
from scumble.models.clip import Clip
from scumble.models.model import Model
from scumble.sampling.memory import is_out_of_memory

__all__ = ["PRESETS", "DrawPairs", "PairConfig", "Sample", "draw_pairs", "literal", "sample"]

Range = tuple[float, float]


class PairConfig(Thresholds):
    """How pictures for edits are drawn and chosen. The defaults are the paper's."""

    samples: Annotated[int, Field(ge=1, le=10_000)] = 100
    """Pairs drawn for each edit."""
    keep: Annotated[int, Field(ge=1)] = 4
    """Pairs of an edit kept, those that follow its words best."""
    steps: Annotated[int, Field(ge=1, le=1000)] = 100
    """Denoising steps."""
    sampler: str = "euler_ancestral"
    """How each step is taken."""
    spacing: str = "log_sigma"
    """How the steps are spread over the noise levels."""
    guidance: Range = (7.5, 15.0)
    """Least and largest guidance scale; each pair has its own, evenly drawn."""
    share: Range = (0.1, 0.9)
    """Least and largest share of the steps in which the second picture has the first one's self-attention."""
    cross_share: Range = (0.0, 0.0)
    """The same for cross-attention, word by word (Prompt-to-Prompt); the paper has none."""
    size: Annotated[int, Field(ge=8, le=4096)] | None = None
    """Side of the pictures in pixels; none takes the model's own."""
    batch: Annotated[int, Field(ge=1, le=1024)] = 4
    """Pairs drawn at once. It is part of what the pictures depend on, by rounding."""
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] = 0
    """Of all chance."""

    def check(self) -> None:
        """Raises ConfigError for what no model could draw with."""
        for name, known in (("sampler", SAMPLERS), ("spacing", SPACINGS)):
            if getattr(self, name) not in known:
                raise ConfigError(
                    f"There is no {name} {getattr(self, name)!r}.", f"Choose one of {', '.join(known)}."
                )
        for name, most in (("guidance", 100.0), ("share", 1.0), ("cross_share", 1.0)):
            low, high = getattr(self, name)
            if not 0 <= low <= high <= most:
                raise ConfigError(f"{name} cannot go from {low} to {high}.", f"It is from 0 to {most:g}.")


PRESETS: dict[str, dict[str, Any]] = {
    "paper": {},
    "toybox": {
        "samples": 8,
        "steps": 25,
        "spacing": "trailing",
        "guidance": (2.0, 6.0),
        "min_image": 0.6,  # of rendered pairs nine in ten have more, in the toybox's own CLIP
        "min_text": 0.5,  # and all of these
    },
}
"""Settings that differ from the defaults, by name."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One pair to draw."""

    triple: Triple
    number: int
    seed: int
    """Of its noise."""
    share: float
    cross_share: float
    guidance: float


def sample(triple: Triple, number: int, config: PairConfig) -> Sample:
    """The sample of that number: a function of the words, the number and the seed, whatever the rest."""
    seed = rng.derive(config.seed, "pair", triple.id, number)
    chance = torch.rand(
        3, generator=rng.generator(rng.derive(seed, "settings")), dtype=torch.float64
    ).tolist()
    ranges = (config.share, config.cross_share, config.guidance)
    return Sample(triple, number, seed, *(a + u * (b - a) for u, (a, b) in zip(chance, ranges, strict=True)))


def literal(caption: str) -> str:
    """A prompt that means the caption as it stands: brackets weigh nothing, and nothing breaks it up."""
    return re.sub(r"([()\[\]\\])", r"\\\1", caption).replace("BREAK", "break")


@torch.inference_mode()
def draw_pairs(model: Model, samples: Sequence[Sample], config: PairConfig) -> Tensor:
    """Pictures (2, n, 3, H, W) in [0, 1], on the CPU, of n samples in one batch; NaN where the model gave
    it.
    """
    size = config.size or model.default_size
    pairs = [(s.triple.input_caption, s.triple.edited_caption) for s in samples]
    prompts = [literal(pair[side]) for side in (0, 1) for pair in pairs]  # (K,)
    towards = model.prompt(prompts, size=(size, size))
    branches = model.branches([model.empty(size=(size, size)), towards])
    scale = torch.tensor([s.guidance for s in samples], dtype=torch.float32).repeat(2).view(-1, 1, 1, 1)
    scale = scale.to(model.device)

    def denoise(x: Tensor, level: Level) -> Tensor:
        away, guided = branches(x, level, (0, 1))
        return away + scale * (guided - away)

    generators, shape = rng.generators(s.seed for s in samples), model.latent_shape(size, size)

    def noise() -> Tensor:
        return rng.randn(shape, generators, device=model.device).repeat(2, 1, 1, 1)  # (K, c, h, w)

    sharing = _sharing(model, samples, pairs, config.steps, towards.embeddings.shape[1])
    levels = [level.to(model.device) for level in levels_for(model.schedule, config.steps, config.spacing)]
    x, last = noise() * levels[0].spread, sharing.last()
    with ExitStack() as stack:
        stack.enter_context(shared(model, sharing))
        for step in SAMPLERS[config.sampler].run(denoise, x, levels, noise=noise):
            x, sharing.step = step.x, step.index + 1
            if sharing.step >= last:
                stack.close()  # the rest is drawn at the layers' own speed
    pixels = from_model(torch.cat([model.decode(row[None]) for row in x]))  # one at a time, for memory
    pixels = torch.where(pixels.isfinite(), pixels.clamp(0, 1), torch.nan)
    return pixels.cpu().unflatten(0, (2, len(samples)))


def _sharing(
    model: Model, samples: Sequence[Sample], pairs: Sequence[tuple[str, str]], steps: int, length: int
) -> Sharing:
    own, cross = (
        torch.tensor([ceil(share * steps) for share in shares], device=model.device)
        for shares in zip(*((s.share, s.cross_share) for s in samples), strict=True)
    )
    words = None
    if any(s.cross_share for s in samples):
        words = align(model.tokenizers[0], pairs, length).to(model.device)
    return Sharing(own, cross, words)


# Choosing


@dataclass(frozen=True, slots=True)
class _Kept:
    sample: Sample
    scores: Scores
    pictures: tuple[Image.Image, Image.Image]


@dataclass(frozen=True, slots=True)
class DrawPairs:
    """The work of drawing: for a shard of triples the best pairs of each, as pictures and rows.

    Counts samples `drawn`, and of these those `broken` (not a number), `flagged` by the model's safety
    checker, and failing each stage of the filter; pairs `kept` and the `triples` that have one.
    """

    model: Model
    clip: Clip
    config: PairConfig
    save_options: dict[str, Any] = field(default_factory=dict[str, Any])
    """For `save_image`: what is written into every file beside its pixels."""

    def __call__(self, shard: Shard, folder: Path) -> Loop[Counts]:
        counts: Counts = Counter()
        triples: Sequence[Triple] = shard.items
        work = [sample(triple, i, self.config) for triple in triples for i in range(self.config.samples)]
        kept: dict[str, list[_Kept]] = {triple.id: [] for triple in triples}
        for start in range(0, len(work), self.config.batch):
            batch = work[start : start + self.config.batch]
            for pair in self._passing(batch, self._drawn(batch), counts):
                rivals = kept[pair.sample.triple.id]
                rivals.append(pair)
                order = best([(r.sample.number, r.scores) for r in rivals], self.config.keep)
                kept[pair.sample.triple.id] = [r for n in order for r in rivals if r.sample.number == n]
            yield Progress(stage="drawing", step=start + len(batch), total=len(work))
        self._write(folder, [pair for triple in triples for pair in kept[triple.id]])
        counts["kept"] = sum(len(pairs) for pairs in kept.values())
        counts["triples"] = sum(bool(pairs) for pairs in kept.values())
        return counts

    def _drawn(self, batch: Sequence[Sample]) -> Tensor:
        try:
            return draw_pairs(self.model, batch, self.config)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        raise OutOfMemoryError(
            f"There is not enough memory for {len(batch)} pairs at once.",
            "Take a smaller --batch, --dtype float16 or fewer workers; shared attention needs much.",
        )

    @torch.inference_mode()
    def _passing(self, batch: Sequence[Sample], pixels: Tensor, counts: Counts) -> list[_Kept]:
        """The pairs of a batch that pass everything. They are judged as they will be stored, in 8 bits."""
        counts["drawn"] += len(batch)
        whole = [i for i in range(len(batch)) if bool(pixels[:, i].isfinite().all())]
        counts["broken"] += len(batch) - len(whole)
        stored = from_uint8(to_uint8(pixels[:, whole]))
        if (checker := self.model.safety_checker) is not None and whole:
            flags = [any(checker.flagged(to_model(stored[:, i]))) for i in range(len(whole))]
            counts["flagged"] += sum(flags)
            fine = [i for i, flag in enumerate(flags) if not flag]
            whole, stored = [whole[i] for i in fine], stored[:, fine]
        if not whole:
            return []
        chosen = [batch[i] for i in whole]
        features = [self.clip.image_features(to_model(side)) for side in stored]
        texts = [[s.triple.input_caption for s in chosen], [s.triple.edited_caption for s in chosen]]
        words = [self.clip.text_features(side) for side in texts]
        passing: list[_Kept] = []
        for i, found in enumerate(scores((features[0], features[1]), (words[0], words[1]))):
            if (stage := first_failed(found, self.config)) is not None:
                counts[stage] += 1
                continue
            before, after = from_unit(stored[:, i])
            passing.append(_Kept(chosen[i], found, (before, after)))
        return passing

    def _write(self, folder: Path, pairs: Sequence[_Kept]) -> None:
        with (folder / ROWS).open("w", encoding="utf-8") as rows:
            for pair in pairs:
                stem = f"{pair.sample.triple.id}-{pair.sample.number:04d}"
                names = f"{stem}-input.png", f"{stem}-edited.png"
                for name, picture in zip(names, pair.pictures, strict=True):
                    save_image(picture, folder / name, **self.save_options)
                rows.write(json.dumps(_row(pair, *names), ensure_ascii=False) + "\n")


def _row(pair: _Kept, first: str, second: str) -> dict[str, Any]:
    """What the data set says of a pair."""
    drawn, found = pair.sample, pair.scores
    return {
        "input": first,
        "edited": second,
        "instruction": drawn.triple.instruction,
        "input_caption": drawn.triple.input_caption,
        "edited_caption": drawn.triple.edited_caption,
        "kind": drawn.triple.kind,
        "seed": drawn.seed,
        "share": round(drawn.share, 6),
        "cross_share": round(drawn.cross_share, 6),
        "guidance": round(drawn.guidance, 6),
        "clip_image": round(found.image, 6),
        "clip_text_input": round(found.text_input, 6),
        "clip_text_edited": round(found.text_edited, 6),
        "clip_direction": round(found.direction, 6),
    }
