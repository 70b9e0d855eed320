"""Textual Inversion (Gal et al. 2022, "An Image is Worth One Word: Personalizing Text-to-Image Generation
using Textual Inversion", arXiv:2208.01618): learn a word for a subject from a few pictures, everything else
frozen.

`loss` is equation 2: the model's own denoising loss on the pictures, told with the word in neutral sentences,
as a function of the word's vectors alone. `_told` is section 3's "derived from the CLIP ImageNet templates",
with the paper's extras: a word for each picture, words that grow, and pull towards a coarse word (section 5
and appendix).

Where we differ from the released code, and why:

- A word is a parameter of its own beside the vocabulary, as there; but a word of several vectors takes as
  many places, and a prompt that gets too long goes on in a second chunk instead of losing its end.
- Several initial words give each vector its own start; the code repeats one.
- Progressive words count optimiser steps; the code counts calls, also those made for logging.
- Learning rates are what they say. The code multiplies its 0.005 by batch and number of GPUs; the paper's
  0.04 and batch of 8 are the preset `paper`.
- Pictures are cut to the middle of the nearest proportions, not squashed.
- The sentences are 12 about things and 10 about styles, not the paper's 27 and the code's 19.
- The gradient is cut to length 1 (`clip`); neither paper nor code has that, nor has the preset `paper`.
- Stopping: a loss on fixed noise and times, which falls smoothly (Voronov et al. 2023, arXiv:2302.04841).
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from scumble.adapters.lora import ATTENTION, LowRankLayers, check_rank, find_layers, low_rank
from scumble.adapters.tokens import new_word, words_attached
from scumble.adapters.weights import Weights, Word
from scumble.core import rng
from scumble.core.errors import PromptError
from scumble.core.events import Loop
from scumble.core.runs import RunFolder
from scumble.data.subjects import Subject, worded
from scumble.data.templates import TEMPLATES, Kind, PlainWords
from scumble.models.model import Model
from scumble.sampling.image_to_image import grid
from scumble.training.examples import Drawn, gradient_checkpointing, objective
from scumble.training.fit import FitConfig, Fitted, Group, HeldOut, fit
from scumble.training.subjects import Bucket, Gallery, check_subjects, gallery

__all__ = ["PRESETS", "Config", "check", "learn", "loss"]

METHOD = "textual-inversion"
HELD_OUT = 16
"""Examples of the loss that decides about stopping."""
MOST = 75
"""Vectors of a word: more do not fit a prompt."""


class Config(FitConfig):
    """How a word is learnt."""

    steps: Annotated[int, Field(ge=1, le=10_000_000)] = 1000
    """Optimiser steps."""
    lr: Annotated[float, Field(ge=0, le=10)] = 0.01
    """Learning rate of the vectors."""
    vectors: Annotated[int, Field(ge=1, le=MOST)] | None = None
    """How many vectors the word has; none takes as many as the initial words have tokens."""
    initial: PlainWords = ""
    """Words to start from, each vector from its own token; empty takes the class noun."""
    templates: Kind = "object"
    """Sentences that the word is told in: object, style, or plain for the word alone."""
    captions: bool = True
    """Use the pictures' own captions where they have any, with the word put before or for the noun."""
    image_words: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of examples told with a word of the picture's own too, which takes up what is the picture's."""
    progressive: Annotated[int, Field(ge=0)] = 0
    """Steps after which another vector joins in; 0 uses all from the start."""
    regularisation: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the squared distance of each vector from its start."""
    mirror: bool = True
    """Show every picture mirrored too."""
    size: Annotated[int, Field(ge=32, le=4096)] | None = None
    """Pixels, as the side of a square; none takes the model's own size."""
    stop_after: Annotated[int, Field(ge=0)] = 0
    """Looks at the held-out loss without progress before stopping early; 0 never does."""
    stop_every: Annotated[int, Field(ge=1)] = 25
    """Steps between these looks."""
    pivotal: Annotated[int, Field(ge=0)] = 0
    """Steps of low-rank tuning around the learnt word, which then stays (Roich et al. 2021)."""
    pivotal_lr: Annotated[float, Field(ge=0)] = 1e-4
    """Learning rate of that tuning."""
    rank: Annotated[int, Field(ge=1, le=1024)] = 8
    """Rank of that tuning."""


PRESETS: dict[str, Config] = {
    "default": Config(stop_after=6),
    # The paper's: two GPUs of batch 4, 0.005 times 8; no early stop.
    "paper": Config(steps=5000, batch=8, lr=0.04, vectors=1, clip=0.0),
    "style": Config(templates="style", stop_after=6),
    "pivotal": Config(stop_after=6, pivotal=300),
    "toybox": Config(steps=300, batch=4, lr=0.005, vectors=4),
}
"""Settings by purpose."""


@dataclass(frozen=True, slots=True)
class _Words:
    """The vectors of one subject, and of each of its pictures where asked for."""

    subject: Subject
    vectors: tuple[nn.Parameter, ...]
    of_images: tuple[tuple[nn.Parameter, ...], ...] = ()

    def shown(self, count: int) -> dict[str, tuple[Tensor, ...]]:
        """The first `count` vectors of the word, or all if it has fewer, and the pictures' words."""
        images = {_image_word(self.subject.word, i): v for i, v in enumerate(self.of_images)}
        return {self.subject.word: tuple(v[:count] for v in self.vectors), **images}

    def parameters(self) -> dict[str, nn.Parameter]:
        named = {f"{self.subject.word}.{e}": v for e, v in enumerate(self.vectors)}
        for i, vectors in enumerate(self.of_images):
            named |= {f"{_image_word(self.subject.word, i)}.{e}": v for e, v in enumerate(vectors)}
        return named


def learn(
    model: Model, subjects: Sequence[Subject], config: Config, *, run: RunFolder | None = None
) -> Loop[tuple[Weights, Fitted]]:
    """Learn a word for each of `subjects`, all in one run; goes on from the newest checkpoint in `run`.

    Raises what `check` raises, and NumericError where the loss is no number.
    """
    check(model, subjects, config)
    words = _words(model, subjects, config)
    pictures = gallery(
        model, subjects, size=config.size or model.default_size, cell=grid(model), mirrored=config.mirror
    )
    start = {name: p.detach().clone() for w in words for name, p in w.parameters().items()}

    def of(step: int, rows: Sequence[int]) -> Tensor:
        count = _vectors_at(step, config)
        return loss(model, pictures, words, config, step, rows, count) + _pull(words, start, config)

    held_out = None
    if config.stop_after:
        held_out = HeldOut(
            lambda step: _held_out(model, pictures, words, config, _vectors_at(step, config)),
            config.stop_every,
            config.stop_after,
        )
    group = Group({name: p for w in words for name, p in w.parameters().items()})
    known = {w.subject.word: w.vectors for w in words}  # to whoever looks at the model between two steps
    with gradient_checkpointing(model, config.gradient_checkpointing), words_attached(model, known):
        alone = config.replace(pivotal=0, pivotal_lr=0.0, rank=1)  # the tuning is a run of its own
        done = yield from fit([group], of, alone, run=run, held_out=held_out)
    count = _vectors_at(done.steps - 1, config)  # those that have not joined have learnt nothing
    learnt = {w.subject.word: Word(_detached(w.vectors, count), w.subject.noun) for w in words}
    layers = None
    if config.pivotal:
        layers, tuned = yield from _tune(model, pictures, words, config, count, run)
        done.notes += tuned.notes
    weights = Weights(
        method=METHOD,
        family=model.family,
        base_hash=model.hash,
        words=learnt,
        changes={} if layers is None else layers.changes(),
        config=config.model_dump(mode="json", exclude_none=True),
        training={"steps": done.steps, "stopped_early": done.stopped_early, "losses": done.losses[-50:]},
    )
    return weights, done


def loss(
    model: Model,
    pictures: Gallery,
    words: Sequence[_Words],
    config: Config,
    step: int,
    rows: Sequence[int],
    count: int,
) -> Tensor:
    """Equation 2 for the examples `rows` of a step, (B,): gradients reach the first `count` vectors."""
    bucket, drawn = pictures.draw(model, config.seed, step, rows)
    return _denoised(model, bucket, drawn, words, config, count)


def _denoised(
    model: Model, bucket: Bucket, drawn: Drawn, words: Sequence[_Words], config: Config, count: int
) -> Tensor:
    texts = [
        _told(words, bucket.origins[picture], config, seed)
        for picture, seed in zip(drawn.pictures, drawn.seeds, strict=True)
    ]
    shown = {text: vectors for w in words for text, vectors in w.shown(count).items()}
    with _only(model, shown):
        condition = model.prompt(texts, size=bucket.size)
    return objective(model, drawn, condition)


@contextmanager
def _only(model: Model, shown: Mapping[str, Sequence[Tensor]]) -> Generator[None]:
    """Inside, prompts read these vectors for the words."""
    before = dict(model.words)
    model.words.update(shown)
    try:
        yield
    finally:
        model.words.clear()
        model.words.update(before)


def _told(words: Sequence[_Words], origin: tuple[int, int], config: Config, seed: int) -> str:
    """The sentence for one example, chosen by its seed."""
    subject = words[origin[0]].subject
    chance = rng.generator(rng.derive(seed, "sentence"))
    templates = TEMPLATES[config.templates]
    template = templates[int(torch.randint(len(templates), (), generator=chance))]
    own = float(torch.rand((), generator=chance)) < config.image_words
    named = subject.word + (f" {_image_word(subject.word, origin[1])}" if own else "")
    caption = subject.shots[origin[1]].caption
    if config.captions and caption:
        return worded(caption, named, subject.word, subject.noun)
    return template.replace("{}", named)


def _image_word(word: str, index: int) -> str:
    return f"{word}~{index}~"


def check(model: Model, subjects: Sequence[Subject], config: Config) -> None:
    """Raise, before the work, PromptError for a model without words and for a subject without a word or a
    start; ConfigError for a rank that does not fit; and what `check_subjects` raises.
    """
    check_subjects(model, subjects)
    for subject in subjects:
        if not subject.word:
            raise PromptError("Textual Inversion learns a word.", "Give one: --word '<rex>'.")
        if not (config.initial or subject.noun):
            raise PromptError("A word has to start from something.", "Give a class noun, such as dog.")
    if config.pivotal:
        check_rank(find_layers(model, ATTENTION), config.rank)


def _words(model: Model, subjects: Sequence[Subject], config: Config) -> list[_Words]:
    """Start vectors of every subject's word, and of its pictures' words. Raises PromptError for a start
    without tokens.
    """
    made: list[_Words] = []
    for subject in subjects:
        initial = config.initial or subject.noun
        vectors = new_word(model, initial, vectors=config.vectors)
        images: list[tuple[nn.Parameter, ...]] = []
        if config.image_words:
            images = [new_word(model, initial, vectors=1) for _ in subject.shots]
        made.append(_Words(subject, vectors, tuple(images)))
    return made


def _vectors_at(step: int, config: Config) -> int:
    """How many vectors of a word take part, if it has so many: all, or one more after every `progressive`
    steps.
    """
    return 1 + step // config.progressive if config.progressive else MOST


def _pull(words: Sequence[_Words], start: dict[str, Tensor], config: Config) -> Tensor | float:
    """`regularisation` times the mean over vectors of the squared distance from the start."""
    if not config.regularisation:
        return 0.0
    parts = [(p - start[name]).square().sum(1) for w in words for name, p in w.parameters().items()]
    return config.regularisation * torch.cat(parts).mean()


@torch.no_grad()
def _held_out(model: Model, pictures: Gallery, words: Sequence[_Words], config: Config, count: int) -> Tensor:
    """The loss on fixed pictures of all sizes and subjects, noise, times and sentences: the same for the same
    vectors.
    """
    shown = pictures.spread(model, rng.derive(config.seed, "held out"), HELD_OUT)
    each = [_denoised(model, bucket, drawn, words, config, count) for bucket, drawn in shown]
    return torch.cat(each).mean()


def _tune(
    model: Model,
    pictures: Gallery,
    words: Sequence[_Words],
    config: Config,
    count: int,
    run: RunFolder | None,
) -> Loop[tuple[LowRankLayers, Fitted]]:
    """Low-rank tuning of the attention around `count` vectors of the words, which stay as they are."""
    with ExitStack() as stack:
        stack.enter_context(gradient_checkpointing(model, config.gradient_checkpointing))
        layers = stack.enter_context(
            low_rank(find_layers(model, ATTENTION), rank=config.rank, seed=config.seed)
        )
        for w in words:
            for parameter in w.parameters().values():
                parameter.requires_grad = False
        settings = config.replace(steps=config.pivotal, lr=config.pivotal_lr, weight_decay=0.0)

        def of(step: int, rows: Sequence[int]) -> Tensor:
            return loss(model, pictures, words, config, step, rows, count)

        place = None if run is None else RunFolder(run.path / "pivotal", keep=run.keep)
        done = yield from fit([Group(layers.named_parameters())], of, settings, stage="tuning", run=place)
    return layers, done


def _detached(vectors: Sequence[nn.Parameter], count: int) -> tuple[Tensor, ...]:
    return tuple(v[:count].detach().to("cpu", copy=True) for v in vectors)
