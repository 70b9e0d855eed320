"""Subjects as a denoiser is shown them: their pictures encoded once, in buckets of one size, and the sentence
that each example is told with.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, cycle, islice
from typing import Protocol

import torch

from scumble.adapters.tokens import check_new_word
from scumble.adapters.weights import MAX_TEXT
from scumble.core import rng
from scumble.core.errors import InputError, PromptError
from scumble.data.augment import View, prefixed
from scumble.data.subjects import Shot, Subject, buckets, cropped, worded
from scumble.diffusion.parameterisation import Weighting
from scumble.models.model import Model
from scumble.training.examples import (
    Drawn,
    Latents,
    Part,
    Prompts,
    condition_of,
    draw,
    encoded,
    encoded_views,
)

__all__ = [
    "Bucket",
    "Gallery",
    "Telling",
    "ViewsOf",
    "check_subjects",
    "gallery",
    "sentences",
    "subject_part",
]

ViewsOf = Callable[[Shot, tuple[int, int], tuple[int, int]], list[View]]
"""The views of a shot at a size (H, W); the last argument says which subject and which of its shots it is."""


class Telling(Protocol):
    """The settings of how pictures are drawn and told."""

    @property
    def seed(self) -> int: ...
    @property
    def templates(self) -> tuple[str, ...]: ...
    @property
    def captions(self) -> bool: ...
    @property
    def weighting(self) -> Weighting: ...


@dataclass(frozen=True, slots=True)
class Bucket:
    """Pictures of one size: `latents`; for each picture which subject and which of its shots it is; and what
    is said of each of its views, if anything is.
    """

    size: tuple[int, int]
    latents: Latents
    origins: list[tuple[int, int]]
    said: list[list[str]] = field(default_factory=list[list[str]])


@dataclass(frozen=True, slots=True)
class Gallery:
    """All pictures of all subjects."""

    buckets: list[Bucket]

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """(H, W) of each bucket."""
        return [bucket.size for bucket in self.buckets]

    def draw(self, model: Model, seed: int, step: int, rows: Sequence[int]) -> tuple[Bucket, Drawn]:
        """The examples `rows` of a step, all from one bucket. Every subject has the same share of all
        examples however many pictures it has, and each of its pictures the same share of these.
        """
        counts = Counter(owner for bucket in self.buckets for owner, _ in bucket.origins)
        shares = [torch.tensor([1 / counts[owner] for owner, _ in b.origins]) for b in self.buckets]
        chance = rng.generator(rng.derive(seed, "bucket", step))
        which = int(torch.multinomial(torch.stack([s.sum() for s in shares]), 1, generator=chance))
        bucket, share = self.buckets[which], shares[which]
        uneven = None if bool((share == share[0]).all()) else share
        return bucket, draw(model, bucket.latents, seed, step, rows, "example", shares=uneven)

    def spread(self, model: Model, seed: int, count: int) -> list[tuple[Bucket, Drawn]]:
        """`count` examples, or as many more as it takes to see every bucket of every subject: the subjects
        take turns, and of each its buckets, and of these its pictures. Times are spread evenly, since most of
        the chance of a loss is in the time.
        """
        owned: dict[int, dict[int, list[int]]] = {}
        for b, bucket in enumerate(self.buckets):
            for picture, (owner, _) in enumerate(bucket.origins):
                owned.setdefault(owner, {}).setdefault(b, []).append(picture)
        total = max(count, len(owned) * max(len(in_buckets) for in_buckets in owned.values()))
        turns = zip(*(_in_turn(owned[owner]) for owner in sorted(owned)), strict=True)  # endless, all of them
        chosen = list(islice(chain.from_iterable(turns), total))
        found: list[tuple[Bucket, Drawn]] = []
        for b, bucket in enumerate(self.buckets):
            rows = [row for row, (which, _) in enumerate(chosen) if which == b]
            pictures = [chosen[row][1] for row in rows]
            drawn = draw(model, bucket.latents, seed, 0, rows, "example", pictures=pictures)
            times = (torch.tensor(rows) + 0.5) * model.schedule.num_train_timesteps / total
            found.append((bucket, replace(drawn, t=times.long())))
        return found


def _in_turn(pictures: Mapping[int, Sequence[int]]) -> Iterator[tuple[int, int]]:
    """(bucket, picture) without end: one of each bucket after another."""
    sources = {bucket: cycle(of) for bucket, of in pictures.items()}
    return ((bucket, next(source)) for bucket, source in cycle(list(sources.items())))


def gallery(
    model: Model,
    subjects: Sequence[Subject],
    *,
    size: int,
    cell: int,
    mirrored: bool,
    views: ViewsOf | None = None,
) -> Gallery:
    """Encode the pictures of all subjects, each in the bucket nearest to its proportions.

    Each is seen as it is and, if `mirrored`, mirrored; or in the `views` that a method makes of it.
    """
    shots = [(s, i, shot) for s, subject in enumerate(subjects) for i, shot in enumerate(subject.shots)]
    found: list[Bucket] = []
    for shape, chosen in buckets([shot for _, _, shot in shots], size, cell).items():
        origins = [shots[i][:2] for i in chosen]
        if views is not None:
            seen = [views(shots[i][2], shape, shots[i][:2]) for i in chosen]
            stacked = (
                (torch.stack([v.picture for v in vs]), torch.stack([v.mask for v in vs])) for vs in seen
            )
            latents = encoded_views(model, stacked)
            found.append(Bucket(shape, latents, origins, [[v.said for v in vs] for vs in seen]))
            continue
        pairs = [cropped(shots[i][2], shape) for i in chosen]
        masked = any(shots[i][2].mask is not None for i in chosen)
        latents = encoded(
            model,
            [picture for picture, _ in pairs],
            masks=[mask for _, mask in pairs] if masked else None,
            mirrored=mirrored,
        )
        found.append(Bucket(shape, latents, origins))
    return Gallery(found)


def sentences(
    subjects: Sequence[Subject], bucket: Bucket, drawn: Drawn, templates: Sequence[str], *, captions: bool
) -> list[str]:
    """What each example is told with: its picture's own caption where it has one and `captions` are wanted,
    else a template by chance, from the example's seed, with word and noun in it; and what is said of its
    view.
    """
    told: list[str] = []
    for picture, view, seed in zip(drawn.pictures, drawn.views, drawn.seeds, strict=True):
        owner, shot = bucket.origins[picture]
        subject = subjects[owner]
        chance = rng.generator(rng.derive(seed, "sentence"))
        template = templates[int(torch.randint(len(templates), (), generator=chance))]
        caption = subject.shots[shot].caption
        if captions and caption:
            text = worded(caption, subject.name, subject.word, subject.noun)
        else:
            text = template.replace("{}", subject.name)
        told.append(prefixed(bucket.said[picture][view], text) if bucket.said else text)
    return told


def subject_part(
    model: Model,
    pictures: Gallery,
    subjects: Sequence[Subject],
    config: Telling,
    step: int,
    rows: Sequence[int],
    prompts: Prompts,
) -> Part:
    """The examples `rows` of a step, each told with a sentence that has its subject's word in it."""
    bucket, drawn = pictures.draw(model, config.seed, step, rows)
    texts = sentences(subjects, bucket, drawn, config.templates, captions=config.captions)
    condition = condition_of(model, texts, bucket.size, prompts)
    return Part(drawn, condition, list(range(len(rows))), config.weighting)


def check_subjects(model: Model, subjects: Sequence[Subject]) -> None:
    """Raise PromptError for a model without words; InputError for an upscaler, for a model that is shown more
    than what it denoises, in float16, for a word that the model knows already, for one word for two subjects,
    and for a noun that no file can hold; WeightsError for what can be no word.
    """
    if model.upscaling is not None:
        raise InputError(f"{model.name} is an upscaler.", "Learn on a model that draws; see --upscaler.")
    channels = int(model.denoiser.config.in_channels)
    if channels != model.latent_channels:
        raise InputError(
            f"{model.name} reads {channels} channels and draws {model.latent_channels}: it edits pictures.",
            "Learn on a model that draws from words alone.",
        )
    if not model.text_encoders:
        raise PromptError(f"{model.name} is a model without words.", "Choose one that reads prompts.")
    if model.dtype == torch.float16:
        raise InputError("Learning in float16 overflows.", "Take --dtype bfloat16 or float32.")
    words = [check_new_word(model, subject.word) for subject in subjects if subject.word]
    if twice := {word for word in words if words.count(word) > 1}:
        raise InputError(f"{min(twice)!r} is to be the word for two subjects.", "Give each its own.")
    for noun in (subject.noun for subject in subjects):
        if len(noun) > MAX_TEXT or not noun.isprintable():
            raise InputError(
                f"{noun[:40]!r} cannot be a class noun.", f"Take up to {MAX_TEXT} visible characters."
            )
