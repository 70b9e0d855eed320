"""DreamBooth (Ruiz et al. 2022, "DreamBooth: Fine Tuning Text-to-Image Diffusion Models for Subject-Driven
Generation", arXiv:2208.12242): fine-tune the denoiser to bind a rare word to a subject, while what it draws
of the class keeps it from forgetting the class.

`loss` is their equation 2, whose second term is the class-specific prior preservation: both are means of
their own, with times and noise of their own. The rare token, section 4.1, is found by
`scumble.adapters.tokens.identifier_of`. `learn_upscaler` is the super-resolution stage of their section on
implementation: the upscaler learns the subject too, on pairs of its photos and the same made small.

Where we differ, and why:

- The word is one of the person's own (`<rex>`), whose vectors are those of a rare token: prompts stay
  readable, and no token of the vocabulary is claimed. The paper writes the rare token itself.
- A sentence is "a photo of a <rex> dog", of the class "a dog". The paper's, "a <rex> dog", is in `paper`.
- Pictures of the class are kept as the latents that the frozen model drew; nothing is decoded and encoded
  again.
- Steps, rate and weight are the paper's for Stable Diffusion in the preset `paper`. `low-rank`, which trains
  0.1 to 1 % as many numbers (Hu et al. 2021), is the default on models of full size.
- Masters are float32 whatever the model computes in: at rates of 1e-6 half precision loses every step.
- The paper lowers the noise on the small picture from 1e-3 to 1e-5 while the upscaler is tuned, so that it
  learns the subject's details instead of inventing others. Its numbers are of a continuous schedule; an
  upscaler here is told whole levels, and 1e-5 lies below the first of them however it is read. So the
  default is that first level alone, `upscaler_noise` 0, and what was tuned is used at the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from scumble.adapters.changes import Change
from scumble.adapters.lora import ATTENTION
from scumble.adapters.tokens import identifier_of, new_word, words_attached
from scumble.adapters.weights import Weights, Word
from scumble.core.errors import InputError, PromptError
from scumble.core.events import Loop
from scumble.core.runs import RunFolder
from scumble.data.subjects import Subject
from scumble.data.templates import Sentences
from scumble.datagen.priors import Prior, drawn_prior, prior_parts
from scumble.diffusion.parameterisation import Weighting
from scumble.models.model import Model
from scumble.sampling.guided import default_guidance
from scumble.sampling.image_to_image import grid
from scumble.sampling.text_to_image import SamplerOptions
from scumble.sampling.upscaling import as_seen, no_words, upscaling
from scumble.training.examples import (
    Prompts,
    condition_of,
    objective,
    precision,
    prompt_caches,
    total_loss,
)
from scumble.training.fit import FitConfig, Fitted, fit
from scumble.training.parts import check_parts, trained
from scumble.training.subjects import Gallery, check_subjects, gallery, sentences, subject_part
from scumble.training.super_resolution import Pairs, pairs

__all__ = [
    "PRESETS",
    "TRAIN",
    "Config",
    "check",
    "check_upscaler",
    "learn",
    "learn_upscaler",
    "loss",
    "upscaler_loss",
]

METHOD = "dreambooth"
TRAIN: dict[str, tuple[str, ...]] = {
    "all": ("unet.*",),
    "attention": ("unet.*attn[12].*",),
    "cross-attention": ("unet.*attn2.*",),
    "up": ("unet.up_blocks.*",),
    "low-rank": (),
}
"""Parameters of each part that learn as they are; none where the changes are of low rank."""


class Config(FitConfig):
    """How a subject is bound to a word."""

    steps: Annotated[int, Field(ge=1, le=10_000_000)] = 800
    """Optimiser steps."""
    batch: Annotated[int, Field(ge=1, le=4096)] = 1
    """Pictures of the subject in a step; as many of the class go with them."""
    lr: Annotated[float, Field(ge=0, le=10)] = 1e-4
    """Learning rate of the denoiser."""
    train: Literal["all", "attention", "cross-attention", "up", "low-rank"] = "low-rank"
    """What of the denoiser learns."""
    rank: Annotated[int, Field(ge=1, le=1024)] = 16
    """Rank of low-rank changes."""
    alpha: Annotated[float, Field(gt=0)] | None = None
    """Their scale times the rank; none takes the rank."""
    targets: Annotated[tuple[str, ...], Field(min_length=1)] = ATTENTION
    """Layers with low-rank changes, by patterns of their names."""
    dora: bool = False
    """Learn the length of each output's weights apart from their direction (Liu et al. 2024)."""
    text_lr: Annotated[float, Field(ge=0)] = 0.0
    """Learning rate of the text encoders, low-rank or whole as the denoiser; 0 leaves them frozen."""
    identifier: str = ""
    """The rare token whose meaning the word takes; empty looks for one in the model's own vocabulary."""
    templates: Sentences = ("a photo of a {}",)
    """Sentences that the subject is told with; `{}` is where word and noun go."""
    captions: bool = True
    """Use the pictures' own captions where they have any, with the word put before the noun."""
    prior_weight: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the class; 0 does without it."""
    prior_count: Annotated[int, Field(ge=1, le=100_000)] = 200
    """Pictures of the class that the frozen model draws."""
    prior_steps: Annotated[int, Field(ge=1, le=1000)] = 25
    """Denoising steps of each of them."""
    weighting: Weighting = "none"
    """Weight of each time in the subject's loss: none, min_snr, debiased."""
    prior_weighting: Weighting = "none"
    """The same in the class's loss."""
    mirror: bool = True
    """Show every picture mirrored too."""
    size: Annotated[int, Field(ge=32, le=4096)] | None = None
    """Pixels, as the side of a square; none takes the model's own size."""
    upscaler_steps: Annotated[int, Field(ge=0, le=10_000_000)] = 200
    """Optimiser steps of the super-resolution stage, where an upscaler is given; 0 leaves it out."""
    upscaler_lr: Annotated[float, Field(ge=0, le=10)] | None = None
    """Its learning rate; none takes the denoiser's."""
    upscaler_noise: Annotated[int, Field(ge=0, le=999)] = 0
    """Highest noise level of the small pictures in it."""


PRESETS: dict[str, Config] = {
    "default": Config(),
    # The paper's for Stable Diffusion: all of it, 5e-6, about 1000 steps, about 1000 pictures of the class.
    "paper": Config(train="all", lr=5e-6, steps=1000, prior_count=1000, templates=("a {}",)),
    "text-encoder": Config(train="all", lr=1e-6, text_lr=1e-6),
    "toybox": Config(train="all", lr=4e-4, steps=250, batch=4, prior_count=64, prior_steps=15),
    "toybox-low-rank": Config(lr=2e-3, steps=250, batch=4, prior_count=64, prior_steps=15),
}
"""Settings by purpose."""


def learn(
    model: Model, subjects: Sequence[Subject], config: Config, *, run: RunFolder | None = None
) -> Loop[tuple[Weights, Fitted]]:
    """Bind a word to each of `subjects`; goes on from the newest checkpoint in `run`.

    Raises what `check` raises, and NumericError where the loss is no number.
    """
    check(model, subjects, config)
    side = config.size or model.default_size
    pictures = gallery(model, subjects, size=side, cell=grid(model), mirrored=config.mirror)
    words = _identifiers(model, subjects, config)
    classes: list[Prior] = []
    for noun in dict.fromkeys(s.noun for s in subjects) if config.prior_weight else ():
        classes.append((yield from _class(model, noun, side, config)))
    with trained(model, config, TRAIN[config.train]) as parts, words_attached(model, words):
        sizes = {*pictures.sizes, (side, side)}
        prompts = None if config.text_lr else prompt_caches(model, sizes)

        def of(step: int, rows: Sequence[int]) -> Tensor:
            with precision(model):
                return loss(model, pictures, subjects, classes, config, step, rows, prompts)

        alone = config.replace(upscaler_steps=0, upscaler_lr=None, upscaler_noise=0)  # a stage of its own
        done = yield from fit(parts.groups(config.text_lr), of, alone, run=run)
        changes = parts.changes()
    weights = Weights(
        method=METHOD,
        family=model.family,
        base_hash=model.hash,
        words={s.word: Word(tuple(v.cpu() for v in words[s.word]), s.noun) for s in subjects},
        changes=changes,
        config=config.model_dump(mode="json", exclude_none=True),
        training={"steps": done.steps, "losses": done.losses[-50:]},
    )
    return weights, done


def loss(
    model: Model,
    pictures: Gallery,
    subjects: Sequence[Subject],
    classes: Sequence[Prior],
    config: Config,
    step: int,
    rows: Sequence[int],
    prompts: Prompts,
) -> Tensor:
    """Equation 2 for the examples `rows` of a step, (B,): the loss on the subject, and by its weight that on
    the class, whose noise and times are independent of the first's.
    """
    of_class = prior_parts(
        model,
        classes,
        seed=config.seed,
        batch=config.batch,
        step=step,
        rows=rows,
        prompts=prompts,
        weighting=config.prior_weighting,
        weight=config.prior_weight,
    )
    shown = subject_part(model, pictures, subjects, config, step, rows, prompts)
    return total_loss(model, [shown, *of_class], len(rows))


def learn_upscaler(
    model: Model, subjects: Sequence[Subject], config: Config, *, run: RunFolder | None = None
) -> Loop[tuple[Weights, Fitted]]:
    """Tune the upscaler `model` on the photos of `subjects`; goes on from the newest checkpoint in `run`.

    What learns of it is what `config` says of the denoiser. Words, if it reads any, are rare tokens again.
    Raises what `check_upscaler` raises, and NumericError where the loss is no number.
    """
    check_upscaler(model, config)
    lr = config.lr if config.upscaler_lr is None else config.upscaler_lr
    tuning = config.replace(steps=max(1, config.upscaler_steps), lr=lr, text_lr=0.0, upscaler_steps=0)
    reads = bool(model.text_encoders)
    words = _identifiers(model, subjects, config) if reads else {}
    changes: dict[str, Change] = {}
    done = Fitted(steps=0)
    if config.upscaler_steps:
        shown = pairs(model, subjects, partial(as_seen, model), mirrored=config.mirror, seed=config.seed)
        with trained(model, tuning, TRAIN[tuning.train]) as parts, words_attached(model, words):
            prompts = prompt_caches(model, [shown.bucket.size]) if reads else None

            def of(step: int, rows: Sequence[int]) -> Tensor:
                with precision(model):
                    return upscaler_loss(model, shown, subjects, config, step, rows, prompts)

            stage = "tuning the upscaler"
            done = yield from fit(parts.groups(tuning.text_lr), of, tuning, stage=stage, run=run)
            changes = parts.changes()
    weights = Weights(
        method=METHOD,
        family=model.family,
        base_hash=model.hash,
        words={s.word: Word(tuple(v.cpu() for v in words[s.word]), s.noun) for s in subjects if reads},
        changes=changes,
        config=config.model_dump(mode="json", exclude_none=True),
        training={"steps": done.steps, "losses": done.losses[-50:]},
    )
    return weights, done


def upscaler_loss(
    model: Model,
    shown: Pairs,
    subjects: Sequence[Subject],
    config: Config,
    step: int,
    rows: Sequence[int],
    prompts: Prompts,
) -> Tensor:
    """The first term of equation 2 for an upscaler, which sees the small pictures too, (B,)."""
    drawn, small, labels = shown.draw(model, config.seed, step, rows, config.upscaler_noise)
    condition = no_words(model)
    if model.text_encoders:
        bucket = shown.bucket
        texts = sentences(subjects, bucket, drawn, config.templates, captions=config.captions)
        condition = condition_of(model, texts, bucket.size, prompts)
    return objective(
        model, drawn, condition, weighting=config.weighting, beside=small, labels=labels.to(model.device)
    )


def check(model: Model, subjects: Sequence[Subject], config: Config) -> None:
    """Raise, before the work, PromptError for a model without words, and for a subject without a word or
    without a noun, where the paper's results break down; InputError for one identifier for several subjects;
    ConfigError for parts that the model does not have and a rank that does not fit; what `check_subjects`
    raises.
    """
    check_subjects(model, subjects)
    for subject in subjects:
        if not subject.word:
            raise PromptError("DreamBooth binds a subject to a word.", "Give one: --word '<rex>'.")
        if not subject.noun:
            raise PromptError(
                f"{subject.word} has no class noun, and DreamBooth needs one.", "Say what it is: --noun dog."
            )
    if config.identifier and len(subjects) > 1:
        raise InputError("One identifier would mean several subjects.", "Leave it out: each finds its own.")
    check_parts(model, config, TRAIN[config.train])


def check_upscaler(model: Model, config: Config) -> None:
    """Raise, before the work, InputError for a model that is no upscaler, for one in float16, and for a noise
    level that it does not know; ConfigError for parts that it does not have and a rank that does not fit.
    """
    about = upscaling(model)
    if model.dtype == torch.float16:
        raise InputError("Learning in float16 overflows.", "Take --dtype bfloat16 or float32.")
    if config.upscaler_noise > about.highest:
        raise InputError(
            f"{model.name} knows no noise level {config.upscaler_noise}.",
            f"Its levels go from 0 to {about.highest}.",
        )
    if config.upscaler_steps:
        check_parts(model, config.replace(text_lr=0.0), TRAIN[config.train])


def _identifiers(model: Model, subjects: Sequence[Subject], config: Config) -> dict[str, tuple[Tensor, ...]]:
    """For each word the vectors of a rare token of its own, for each text encoder."""
    tokens: dict[str, str] = {}
    for subject in subjects:
        tokens[subject.word] = config.identifier or identifier_of(model, subject.word, tokens.values())
    return {w: tuple(v.detach() for v in new_word(model, token)) for w, token in tokens.items()}


def _class(model: Model, noun: str, side: int, config: Config) -> Loop[Prior]:
    options = SamplerOptions(
        sampler="ddim", eta=1.0, steps=config.prior_steps, guidance=default_guidance(model)
    )
    return drawn_prior(model, f"a {noun}", config.prior_count, side=side, options=options, seed=config.seed)
