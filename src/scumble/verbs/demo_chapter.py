"""What a chapter of the demo is made of, and what chapters share: the folder, the models, the judge."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from shlex import join
from typing import Annotated

import torch
from PIL import Image
from pydantic import ConfigDict, Field
from torch import Tensor

from scumble.core.config import Config
from scumble.core.events import Loop
from scumble.core.images import from_unit, read_image, save_image, to_model, to_unit
from scumble.metrics.similarity import paired_similarity
from scumble.models import toybox
from scumble.models.clip import Clip, load_clip
from scumble.models.judge import Judge, Verdict
from scumble.models.model import Model
from scumble.verbs.generate import GenerateConfig, draw
from scumble.verbs.load import ModelConfig
from scumble.verbs.outputs import Picture, save_pictures
from scumble.world.render import render
from scumble.world.scene import Scene

__all__ = [
    "QUICK",
    "WHOLE",
    "Amount",
    "Chapter",
    "Check",
    "Row",
    "Score",
    "Shown",
    "Work",
    "read",
    "rendered",
]

SAMPLER = "euler_ancestral"
"""Its fresh noise corrects earlier errors (Karras et al. 2022), of which a small model makes many."""
SEED = 1
"""Of every picture: none is chosen."""


class Amount(Config):
    """How much the demo does."""

    prompts: Annotated[int, Field(ge=1)] = 16
    """Pictures drawn from words."""
    steps: Annotated[int, Field(ge=1)] = 40
    """Denoising steps of each."""
    guides: Annotated[int, Field(ge=1)] = 4
    """Strokes that are made pictures."""
    instructions: Annotated[int, Field(ge=1)] = 4
    """Edits by instruction."""
    learns: bool = True
    """Whether a subject is learnt, and layers, which takes minutes."""
    learning_steps: Annotated[int, Field(ge=1)] | None = None
    """Optimiser steps of each learner; none takes the preset's."""
    prior_count: Annotated[int, Field(ge=1)] | None = None
    """Class pictures that learning uses; none takes the preset's."""
    takes: Annotated[int, Field(ge=1)] = 2
    """Pictures of each prompt of a learnt subject."""
    layer_steps: Annotated[int, Field(ge=1)] | None = None
    """Steps of a layer; none takes the preset's."""
    clip_steps: Annotated[int, Field(ge=1)] = 80
    """Steps of the layer of a clip."""


WHOLE = Amount()
QUICK = Amount(prompts=8, guides=2, instructions=2, learns=False)


class Shown(Config):
    """A picture in the page."""

    file: str
    """Beside the page."""
    text: str = ""
    """What stands below it."""


class Row(Config):
    """Pictures that belong together."""

    text: str
    """What they show."""
    pictures: tuple[Shown, ...]
    """From left to right."""


class Score(Config):
    """A figure; no number where nothing could be measured."""

    model_config = ConfigDict(allow_inf_nan=True)

    name: str
    """What it is called."""
    value: float
    """The figure."""
    what: str
    """What it says, and which way is better."""


class Check(Config):
    """Something that has to be so, or the demo is not right."""

    model_config = ConfigDict(allow_inf_nan=True)

    claim: str
    """In a sentence, without its point."""
    figure: float
    """What was found."""
    limit: float
    """What it has to reach, or with `at_most` must not pass."""
    at_most: bool = False
    """Whether less is right."""

    @property
    def holds(self) -> bool:
        """Whether it is so; a figure that is no number never is."""
        return self.figure <= self.limit if self.at_most else self.figure >= self.limit

    @property
    def found(self) -> str:
        """The figure beside its limit."""
        return f"{self.figure:.3g}, {'at most' if self.at_most else 'at least'} {self.limit:g}"


class Chapter(Config):
    """One part of the demo, done or left out."""

    name: str
    """Of its folder."""
    title: str
    """Its heading."""
    method: str = ""
    """Which of the six, by the name that the command line has for it."""
    text: str = ""
    """What is done, in a sentence or two."""
    rows: tuple[Row, ...] = ()
    """Its pictures."""
    seconds: dict[str, float] = Field(default_factory=dict[str, float])
    """What took how long."""
    scores: tuple[Score, ...] = ()
    """What the judge says, and other figures."""
    checks: tuple[Check, ...] = ()
    """What has to be so."""
    commands: tuple[str, ...] = ()
    """Commands that do the same, in the demo's folder."""
    left_out: str = ""
    """Why there is nothing, in a sentence."""

    @property
    def problems(self) -> list[str]:
        """Its checks that do not hold, a sentence each."""
        return [f"{self.title}: {c.claim}? No: {c.found}." for c in self.checks if not c.holds]


@dataclass
class Work:
    """What all chapters work with."""

    out: Path
    amount: Amount
    seconds: dict[str, float] = field(default_factory=dict[str, float])
    """Of the chapter at work."""

    @cached_property
    def model(self) -> Model:
        return ModelConfig().load()

    @cached_property
    def judge(self) -> Judge:
        return toybox.judge()

    @cached_property
    def clip(self) -> Clip:
        return load_clip(toybox.clip())

    @contextmanager
    def timed(self, part: str) -> Generator[None]:
        start = time.perf_counter()
        yield
        self.seconds[part] = self.seconds.get(part, 0.0) + time.perf_counter() - start

    def place(self, name: str) -> Path:
        """A file in the demo's folder; its own folder is made."""
        place = self.out / name
        place.parent.mkdir(parents=True, exist_ok=True)
        return place

    def command(self, *words: str | float | Path) -> str:
        """A command line, quoted, with files as they are named from the demo's folder."""
        named = (w.relative_to(self.out) if isinstance(w, Path) else w for w in words)
        return join(["scumble", *map(str, named)])

    def save(self, picture: Picture | Image.Image, name: str, *, edited: bool = False) -> Shown:
        """Write a picture to the file `name`, with its recipe if it has one."""
        place = self.place(name)
        if isinstance(picture, Picture):
            save_pictures([picture], [place], edited=edited)
        else:
            save_image(picture, place)
        return Shown(file=name)

    def drawn(self, prompt: str, name: str, *weights: Path, seed: int = SEED) -> Loop[Shown]:
        """Draw `prompt` with what was learnt, and write it to the file `name`."""
        config = GenerateConfig(
            prompt=prompt,
            seed=seed,
            sampler=SAMPLER,
            steps=self.amount.steps,
            weights=tuple(str(w) for w in weights),
        )
        with self.timed("drawing"):
            [picture] = yield from draw(config, self.model, config.task(self.model))
        return self.save(picture, name)

    def drawing(self, prompt: str, name: str, *weights: Path, seed: int = SEED) -> str:
        """The command that does what `drawn` does."""
        learnt = [word for path in weights for word in ("--with", path)]
        how = ["--seed", seed, "--sampler", SAMPLER, "--steps", self.amount.steps]
        return self.command("generate", prompt, *learnt, *how, "-o", self.out / name)

    @torch.inference_mode()
    def judged(self, pixels: Tensor) -> Verdict:
        """The judge on pictures (B, 3, H, W) in [0, 1]."""
        return self.judge(to_model(pixels))

    @torch.inference_mode()
    def likeness(self, pixels: Tensor, text: str) -> float:
        """CLIP's likeness of a picture (1, 3, H, W) in [0, 1] and a text, in [-1, 1]."""
        seen, told = self.clip.image_features(to_model(pixels)), self.clip.text_features([text])
        return float(paired_similarity(seen, told))

    def pixels(self, shown: Sequence[Shown]) -> Tensor:
        """Pictures as their files have them: (B, 3, H, W) in [0, 1]."""
        return torch.cat([read(self.out / one.file) for one in shown])


def read(place: Path) -> Tensor:
    """(1, 3, H, W) in [0, 1]."""
    return to_unit(read_image(place).image)


def rendered(scenes: Sequence[Scene]) -> list[Image.Image]:
    """The true pictures of scenes."""
    return from_unit(render(scenes).pixels)
