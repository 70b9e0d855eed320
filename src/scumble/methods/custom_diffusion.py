"""Custom Diffusion (Kumari et al. 2022, "Multi-Concept Customization of Text-to-Image Diffusion",
arXiv:2212.04488): tune only how the picture reads the prompt, the keys and values of cross-attention, and a
word for each subject; several subjects in one run.

`loss` is their equation 1 on the subjects' pictures, shown at several sizes with words that say so
(`scumble.data.augment`), and the same on the regularisation pictures of section 3.2, found by their captions
or drawn. `analyse` is the measurement of figure 3 that the choice of parameters rests on. The
closed-form merge, section 3.3, is `scumble.adapters.merge`.

Where we differ from the released code, and why:

- A word is a parameter of its own that starts from a rare token. The code trains the whole table and zeroes
  the gradients of other rows, which AdamW's decay moves all the same; and a second word there never learns.
- Views of a picture are drawn from a seed and encoded once, `views` of them, instead of one anew each step.
- The loss under a mask is the mean over what the mask shows. The code divides four channels' sum by one
  channel's count, which in one of its versions makes a subject count four times its regularisation.
- Each step has `batch` pictures of the subjects and as many for regularisation, each with noise and times of
  their own. The code shuffles both into one list.
- A concept that is new can be told by captions alone; then no word is learnt and prompts are encoded once.
- What the frozen model draws of a class is kept as latents. The prompts are those of the paper.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

from scumble.adapters.attention import first_token_stopped
from scumble.adapters.dense import DenseLayers, dense, find_parameters
from scumble.adapters.rates import Rate, rates
from scumble.adapters.tokens import new_word, rare_word, words_attached
from scumble.adapters.weights import Weights, Word
from scumble.core import rng
from scumble.core.errors import ConfigError, InputError, PromptError
from scumble.core.events import Loop
from scumble.core.files import is_there
from scumble.core.runs import RunFolder
from scumble.data.augment import View, scaled_views
from scumble.data.subjects import Shot, Subject
from scumble.data.templates import PlainWords, Sentences
from scumble.datagen.priors import Prior, drawn_prior, prior_parts
from scumble.datagen.retrieval import clip_for, read_captions, retrieved_prior
from scumble.diffusion.parameterisation import Weighting
from scumble.models.model import Model
from scumble.sampling.guided import default_guidance
from scumble.sampling.image_to_image import grid
from scumble.sampling.text_to_image import SamplerOptions
from scumble.training.examples import Prompts, gradient_checkpointing, precision, prompt_caches, total_loss
from scumble.training.fit import FitConfig, Fitted, Group, fit
from scumble.training.subjects import Gallery, check_subjects, gallery, subject_part

__all__ = ["PRESETS", "TRAIN", "Config", "analyse", "check", "learn", "loss"]

METHOD = "custom-diffusion"

TRAIN: dict[str, tuple[str, ...]] = {
    "key-value": ("unet.*attn2.to_k.weight", "unet.*attn2.to_v.weight"),
    "cross-attention": ("unet.*attn2.*",),
}
"""Parameters of each part that can be trained."""
PLACES = ("regularization", "clip_model")
"""Settings that may be a place on this machine."""
NO_NOUN = "Without a class noun nothing is drawn to keep the model from forgetting: add one, or own pictures."


class Config(FitConfig):
    """How subjects are learnt."""

    steps: Annotated[int, Field(ge=1, le=10_000_000)] = 250
    """Optimiser steps; about 250 a subject."""
    batch: Annotated[int, Field(ge=1, le=4096)] = 4
    """Pictures of the subjects in a step; as many for regularisation go with them."""
    lr: Annotated[float, Field(ge=0, le=10)] = 8e-5
    """Learning rate of keys and values."""
    word_lr: Annotated[float, Field(ge=0, le=10)] | None = None
    """Learning rate of the words; none takes that of keys and values."""
    train: Literal["key-value", "cross-attention"] = "key-value"
    """What of the denoiser learns: keys and values of cross-attention, or all of cross-attention."""
    initial: PlainWords = ""
    """What the words start from; empty takes rare tokens of the model's own vocabulary."""
    templates: Sentences = ("photo of a {}",)
    """Sentences that a subject is told with; `{}` is where word and noun go."""
    captions: bool = True
    """Use the pictures' own captions where they have any, with the word put before the noun."""
    augment: bool = True
    """Show pictures smaller and larger, and say so."""
    views: Annotated[int, Field(ge=1, le=1024)] = 16
    """How many such views there are of each picture."""
    mirror: bool = True
    """Show pictures mirrored too."""
    stop_first: bool = True
    """Learn nothing from the start marker, which every prompt has."""
    prior_weight: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the regularisation pictures; 0 does without them."""
    prior_count: Annotated[int, Field(ge=1, le=100_000)] = 200
    """Regularisation pictures for each class noun, or for each caption's subject."""
    prior_steps: Annotated[int, Field(ge=1, le=1000)] = 50
    """Denoising steps of those that the frozen model draws."""
    regularization: str = ""
    """A captioned folder, or an index of one, to take them from; empty lets the frozen model draw them."""
    similarity: Annotated[float, Field(ge=-1, le=1)] = 0.85
    """The least cosine in CLIP's space between the caption of one that is taken and the subject's."""
    faiss: bool = False
    """Search by FAISS: faster among millions of captions, and not exact there. An index made so always is."""
    clip_model: str = ""
    """CLIP model that compares captions, a folder or a hub id; empty takes the one that fits the model."""
    weighting: Weighting = "none"
    """Weight of each time in the subjects' loss: none, min_snr, debiased."""
    prior_weighting: Weighting = "none"
    """The same in the loss on the regularisation pictures."""
    size: Annotated[int, Field(ge=32, le=4096)] | None = None
    """Pixels, as the side of a square; none takes the model's own size."""


PRESETS: dict[str, Config] = {
    "default": Config(),
    # The paper's, 250 steps of 8 pictures, 4 of them for regularisation; its code draws those in 50 steps.
    "paper": Config(views=128),
    "joint": Config(steps=500),
    "face": Config(steps=750, lr=4e-5, train="cross-attention"),
    "toybox": Config(steps=250, lr=5e-4, batch=4, views=8, prior_count=64, prior_steps=15),
}
"""Settings by purpose."""


def learn(
    model: Model, subjects: Sequence[Subject], config: Config, *, run: RunFolder | None = None
) -> Loop[tuple[Weights, Fitted]]:
    """Learn `subjects` together; goes on from the newest checkpoint in `run`.

    A subject without a word is told by its captions alone. Raises what `check` raises; InputError where no
    caption is near enough; NumericError where the loss is no number.
    """
    check(model, subjects, config)
    side = config.size or model.default_size
    pictures = _pictures(model, subjects, config)
    notes, priors = yield from _priors(model, subjects, config, side)
    words = _words(model, subjects, config)
    with dense(model, TRAIN[config.train]) as layers, _learning(model, words, config):
        own = None if words else prompt_caches(model, pictures.sizes)
        kept = prompt_caches(model, _sizes(model, priors))

        def of(step: int, rows: Sequence[int]) -> Tensor:
            with precision(model):
                return loss(model, pictures, subjects, priors, config, step, rows, (own, kept))

        done = yield from fit(_groups(layers, words, config), of, config, run=run)
        changes = layers.changes()
    done.notes += notes
    weights = Weights(
        method=METHOD,
        family=model.family,
        base_hash=model.hash,
        words={s.word: Word(_detached(words[s.word]), s.noun) for s in subjects if s.word},
        changes=changes,
        config=_shared(config).model_dump(mode="json", exclude_none=True),
        training={"steps": done.steps, "losses": done.losses[-50:], "told": _told(subjects)},
    )
    return weights, done


def loss(
    model: Model,
    pictures: Gallery,
    subjects: Sequence[Subject],
    priors: Sequence[Prior],
    config: Config,
    step: int,
    rows: Sequence[int],
    prompts: tuple[Prompts, Prompts],
) -> Tensor:
    """Equation 1 for the examples `rows` of a step, (B,), each in one of its picture's views, and by its
    weight the same on the regularisation pictures; each of the two with caches of its prompts.
    """
    of_others = prior_parts(
        model,
        priors,
        seed=config.seed,
        batch=config.batch,
        step=step,
        rows=rows,
        prompts=prompts[1],
        weighting=config.prior_weighting,
        weight=config.prior_weight,
    )
    shown = subject_part(model, pictures, subjects, config, step, rows, prompts[0])
    return total_loss(model, [shown, *of_others], len(rows))


def analyse(model: Model, subjects: Sequence[Subject], config: Config) -> Loop[list[Rate]]:
    """Figure 3: fine-tune every parameter of the denoiser on the subjects, and say how much each layer moved,
    |W - W0| / |W0|. The words stay at their start, and nothing is regularised, as there; a subject with
    neither word nor captions is called by a rare token. The model is as before when it is done.
    """
    told = [config.captions and all(shot.caption for shot in s.shots) for s in subjects]
    subjects = [
        s if s.word or named else replace(s, word=f"<new{i}>")
        for i, (s, named) in enumerate(zip(subjects, told, strict=True), 1)
    ]
    check(model, subjects, config)
    pictures = _pictures(model, subjects, config)
    words = {word: tuple(v.detach() for v in vs) for word, vs in _words(model, subjects, config).items()}
    with dense(model, ("unet.*",)) as layers, words_attached(model, words):
        prompts = prompt_caches(model, pictures.sizes)

        def of(step: int, rows: Sequence[int]) -> Tensor:
            with precision(model), gradient_checkpointing(model, config.gradient_checkpointing):
                return loss(model, pictures, subjects, [], config, step, rows, (prompts, None))

        yield from fit([Group(layers.named_parameters())], of, config)
        return rates(layers)


def check(model: Model, subjects: Sequence[Subject], config: Config) -> None:
    """Raise, before the work, PromptError for a model without words and for a subject with neither a word nor
    captions; InputError where there are no pictures to take; ConfigError for parts that the model does not
    have; what `check_subjects` raises.
    """
    check_subjects(model, subjects)
    find_parameters(model, TRAIN[config.train])
    if config.regularization and not is_there(config.regularization):
        raise InputError(f"There is no {config.regularization}.", "Give a captioned folder, or its index.")
    if config.regularization and not config.prior_weight:
        raise ConfigError(
            "Regularization pictures of weight 0 do nothing.", "Leave them out, or their weight."
        )
    for subject in subjects:
        told = config.captions and all(shot.caption for shot in subject.shots)
        if not subject.word and not told:
            raise PromptError(
                "A subject without a word needs a caption for each of its pictures.",
                "Write them beside the pictures, or give a word: --word '<rex>'.",
            )


def _shared(config: Config) -> Config:
    """The settings as weights have them, which go from hand to hand: of a place on this machine its last name
    only. What is no place is the name of a model on the hub.
    """
    places = {name: value for name in PLACES if (value := getattr(config, name)) and _is_place(value)}
    return config.replace(**{name: Path(value).resolve().name for name, value in places.items()})


def _is_place(name: str) -> bool:
    return Path(name).is_absolute() or is_there(name)


def _words(model: Model, subjects: Sequence[Subject], config: Config) -> dict[str, tuple[nn.Parameter, ...]]:
    """The vectors of each subject's word, each word from a start of its own."""
    worded = [subject for subject in subjects if subject.word]
    return {s.word: new_word(model, config.initial or rare_word(model, i)) for i, s in enumerate(worded)}


def _pictures(model: Model, subjects: Sequence[Subject], config: Config) -> Gallery:
    def views(shot: Shot, size: tuple[int, int], origin: tuple[int, int]) -> list[View]:
        seed = rng.derive(config.seed, "views", *origin)
        return scaled_views(shot, size, model.downsample, config.views, seed, mirrored=config.mirror)

    side = config.size or model.default_size
    made = partial(gallery, model, subjects, size=side, cell=grid(model), mirrored=config.mirror)
    return made(views=views if config.augment else None)


def _priors(
    model: Model, subjects: Sequence[Subject], config: Config, side: int
) -> Loop[tuple[list[str], list[Prior]]]:
    """Regularisation pictures, and what a person should know of them."""
    notes: list[str] = []
    priors: list[Prior] = []
    if not config.prior_weight:
        return notes, priors
    if config.regularization:
        return (yield from _retrieved(model, subjects, config, side))
    options = SamplerOptions(
        sampler="ddim", eta=1.0, steps=config.prior_steps, guidance=default_guidance(model)
    )
    for noun in dict.fromkeys(s.noun for s in subjects):
        if not noun:
            notes.append(NO_NOUN)
            continue
        prompt = config.templates[0].replace("{}", noun)
        drawing = drawn_prior(model, prompt, config.prior_count, side=side, options=options, seed=config.seed)
        priors.append((yield from drawing))
    return notes, priors


def _retrieved(
    model: Model, subjects: Sequence[Subject], config: Config, side: int
) -> Loop[tuple[list[str], list[Prior]]]:
    """Regularisation pictures by their captions, for each kind of subject its own."""
    kinds: dict[tuple[str, ...], None] = {}
    for subject in subjects:
        captions = [shot.caption for shot in subject.shots if shot.caption]
        nouns = [t.replace("{}", subject.noun) for t in ("{}", *config.templates)] if subject.noun else []
        kinds[tuple(nouns or captions)] = None
    if () in kinds:
        raise PromptError(
            "There is nothing to compare captions with.", "Say what the subject is: --noun dog."
        )
    clip = clip_for(model.name, config.clip_model, device=str(model.device))
    known = yield from read_captions(Path(config.regularization), clip, faiss=config.faiss)
    found = [
        retrieved_prior(
            model, clip, known, queries, config.prior_count, config.similarity,
            side=side, mirrored=config.mirror,
        )
        for queries in kinds
    ]  # fmt: skip
    return [*known.notes, *(note for _, note in found if note)], [prior for prior, _ in found]


@contextmanager
def _learning(model: Model, words: dict[str, tuple[nn.Parameter, ...]], config: Config) -> Generator[None]:
    with ExitStack() as stack:
        stack.enter_context(words_attached(model, words))
        stack.enter_context(gradient_checkpointing(model, config.gradient_checkpointing))
        if config.stop_first:
            stack.enter_context(first_token_stopped(model))
        yield


def _groups(layers: DenseLayers, words: dict[str, tuple[nn.Parameter, ...]], config: Config) -> list[Group]:
    vectors = {f"{word}.{e}": v for word, vs in words.items() for e, v in enumerate(vs)}
    return [Group(layers.named_parameters()), *([Group(vectors, config.word_lr)] if vectors else [])]


def _sizes(model: Model, priors: Sequence[Prior]) -> set[tuple[int, int]]:
    return {(p.cells[0] * model.downsample, p.cells[1] * model.downsample) for p in priors}


def _told(subjects: Sequence[Subject]) -> list[str]:
    """How each subject is spoken of: what a merge has to keep. A few captions for one without a word."""
    told = [s.name for s in subjects if s.word]
    told += [shot.caption[:300] for s in subjects if not s.word for shot in s.shots[:20] if shot.caption]
    return list(dict.fromkeys(told))


def _detached(vectors: Sequence[nn.Parameter]) -> tuple[Tensor, ...]:
    return tuple(v.detach().to("cpu", copy=True) for v in vectors)
