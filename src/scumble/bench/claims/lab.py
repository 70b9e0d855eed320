"""What the experiments share: models, subjects with their photos, what was learnt and drawn, and the scales
on which pictures are measured. Everything made is kept in the run's folder under a name that says what it is,
so experiments share it, and a run that was stopped goes on.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

import torch
from PIL import Image
from pydantic import Field
from torch import Tensor

from scumble.bench.common import as_saved, judged, kept, write_json
from scumble.core.config import Config
from scumble.core.events import Loop, finish
from scumble.core.images import from_unit, save_image, to_model
from scumble.metrics.similarity import subject_similarity
from scumble.metrics.toy_world import right, share
from scumble.models import toybox
from scumble.models.clip import Clip, load_clip
from scumble.models.judge import Judge
from scumble.models.model import Model
from scumble.sampling.image_to_image import decode, encode
from scumble.verbs.generate import GenerateConfig, draw
from scumble.verbs.learn import config_for, learn_to, run_folder
from scumble.verbs.load import ModelConfig
from scumble.world.render import render
from scumble.world.scene import Scene
from scumble.world.subjects import SUBJECTS, Subject, SubjectPrompt, lookalike

__all__ = ["QUICK", "WORD", "Lab", "Settings"]

WORD = "<subject>"
RAYS = 2
"""Rays along each side of a pixel of a render."""


class Settings(Config):
    """How much is measured."""

    model: str = "toybox"
    """The model that draws and learns."""
    editor: str = "toybox-instruct"
    """The model that edits by instruction."""
    upscaler: str = "toybox-upscaler"
    """The model that makes pictures larger."""
    subjects: Annotated[int, Field(ge=1, le=16)] = 4
    """Subjects that are learnt, of both halves where there are several."""
    prompts: Annotated[int, Field(ge=1, le=20)] = 20
    """Prompts drawn of each."""
    class_pictures: Annotated[int, Field(ge=2)] = 48
    """Pictures of a class, and of one prompt where they are compared among themselves."""
    learning_steps: Annotated[int, Field(ge=1)] | None = None
    """Steps of learning; none takes the preset's."""
    prior_count: Annotated[int, Field(ge=1)] | None = None
    """Class pictures that learning uses; none takes the preset's."""
    scenes: Annotated[int, Field(ge=2)] = 100
    """Held-out scenes that are edited or painted over."""
    layer_scenes: Annotated[int, Field(ge=1)] = 6
    """Scenes that layers are learnt on."""
    layer_steps: Annotated[int, Field(ge=1)] | None = None
    """Steps of a layer; none takes the preset's."""
    fresh: Annotated[int, Field(ge=2)] = 500
    """Renders that realism is measured against."""
    steps: Annotated[int, Field(ge=1, le=1000)] = 25
    """Denoising steps of a picture."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of everything."""


QUICK = Settings(
    subjects=1,
    prompts=8,
    class_pictures=16,
    learning_steps=120,
    prior_count=32,
    scenes=20,
    layer_scenes=1,
    layer_steps=120,
    fresh=200,
    steps=15,
)
"""Enough to see which way each claim points, within half an hour on two cores."""


@dataclass
class Lab:
    """One run of experiments in the folder `out`."""

    settings: Settings
    out: Path
    _known: dict[str, Tensor] = field(default_factory=dict[str, Tensor])

    # Models

    @cached_property
    def on(self) -> ModelConfig:
        return ModelConfig(model=self.settings.model)

    @cached_property
    def model(self) -> Model:
        return self.on.load()

    @cached_property
    def judge(self) -> Judge:
        return toybox.judge()

    @cached_property
    def clip(self) -> Clip:
        return load_clip(toybox.clip())

    # Subjects

    @property
    def subjects(self) -> list[Subject]:
        """So many of the benchmark's, evenly from both halves."""
        count = self.settings.subjects
        return [SUBJECTS[i * len(SUBJECTS) // count] for i in range(count)]

    def prompts(self, subject: Subject) -> list[SubjectPrompt]:
        """So many of its prompts, of every kind."""
        return [subject.prompts[i * 20 // self.settings.prompts] for i in range(self.settings.prompts)]

    def photos(self, subject: Subject, count: int | None = None) -> Path:
        """A folder with the photos of a subject, or with the first so many."""
        folder = self.out / "photos" / (subject.name if count is None else f"{subject.name}-{count}")
        self.write(folder, subject.scenes[:count])
        return folder

    def write(self, folder: Path, scenes: Sequence[Scene], captions: Sequence[str] = ()) -> None:
        """Render scenes into a folder, with their captions if there are any, unless that is done."""
        if (folder / "done").is_file():
            return
        folder.mkdir(parents=True, exist_ok=True)
        for i, picture in enumerate(from_unit(self.rendered(scenes))):
            save_image(picture, folder / f"{i:03d}.png")
            if captions:
                (folder / f"{i:03d}.txt").write_text(captions[i])
        (folder / "done").touch()

    def rendered(self, scenes: Sequence[Scene]) -> Tensor:
        """(N, 3, H, W) in [0, 1], as files have them."""
        return as_saved(render(scenes, size=self.model.default_size, supersample=RAYS).pixels)

    # Learning and drawing

    def learnt(
        self,
        name: str,
        method: str,
        subjects: Sequence[tuple[Path, str, str]],
        **changes: Any,
    ) -> Loop[Path]:
        """Weights learnt from `subjects`, (folder, word, noun) each, with the preset of the model and
        `changes`; beside them how long each stage took.
        """
        place = self.out / "weights" / f"{name}.safetensors"
        if place.is_file():
            return place
        settings = {"steps": self.settings.learning_steps, "seed": self.settings.seed}
        if method != "textual-inversion":
            settings["prior_count"] = self.settings.prior_count
        config = config_for(method, self.settings.model, None, None, **(settings | changes))
        seconds: dict[str, float] = {}
        loop, before = learn_to(method, subjects, config, self.on, place), time.perf_counter()
        while True:
            try:
                event = next(loop)
            except StopIteration:
                break
            now = time.perf_counter()
            seconds[event.stage] = seconds.get(event.stage, 0.0) + now - before
            yield event
            before = time.perf_counter()  # what the one who watches did with the event is not ours
        write_json(place.with_suffix(".json"), {"steps": config.steps, "seconds": seconds})
        shutil.rmtree(run_folder(place), ignore_errors=True)
        return place

    def subject(self, method: str, subject: Subject) -> Loop[Path]:
        """A subject learnt by the method's preset."""
        photos = (self.photos(subject), WORD, subject.noun)
        return (yield from self.learnt(f"{method}-{subject.name}", method, [photos]))

    def seconds(self, weights: Path, stage: str = "learning") -> float:
        """How long that stage of learning took."""
        return float(json.loads(weights.with_suffix(".json").read_bytes())["seconds"].get(stage, 0.0))

    def drawn(self, name: str, prompts: Sequence[str], weights: Path | None = None) -> Loop[Tensor]:
        """One picture a prompt, its number for its seed: (N, 3, H, W) in [0, 1]."""

        def draw_them(batch: Sequence[int]) -> list[Image.Image]:
            pictures: list[Image.Image] = []
            for i in batch:
                config = GenerateConfig.of(
                    {
                        "prompt": prompts[i],
                        "seed": self.settings.seed + i,
                        "steps": self.settings.steps,
                        "model": self.settings.model,
                        "weights": (str(weights),) if weights else (),
                    }
                )
                pictures.append(finish(draw(config, self.model, config.task(self.model)))[0].image)
            return pictures

        return (yield from kept(self.out / "pictures" / name, len(prompts), draw_them, "drawing"))

    # Scales

    @torch.inference_mode()
    def identity(self, pixels: Tensor) -> Tensor:
        """(N, E) features of the judge that tell one thing from its likes."""
        return judged(self.judge, pixels).identity

    @torch.inference_mode()
    def features(self, pixels: Tensor) -> Tensor:
        """(N, F) features of the judge, for distances of sets."""
        return torch.cat([self.judge.features(to_model(part)) for part in pixels.split(64)])

    @torch.inference_mode()
    def seen(self, pixels: Tensor) -> Tensor:
        """(N, E) CLIP features."""
        return torch.cat([self.clip.image_features(to_model(part)) for part in pixels.split(32)])

    def fidelity(self, subject: Subject, pixels: Tensor) -> float:
        """Likeness with the subject's photos, in the scale of the run's subjects: 0 is that of look-alikes, 1
        that of their own renders through the autoencoder, both in the scenes that their prompts ask for.

        The ends are means over all subjects. Of some the judge finds look-alikes as like as the subject
        itself, and a scale of their own would have no length.
        """
        floor, ceiling = self.ends
        return (self.likeness(subject, pixels) - floor) / max(ceiling - floor, 1e-3)

    def likeness(self, subject: Subject, pixels: Tensor) -> float:
        """Mean cosine of the identity features of pictures with those of the subject's photos."""
        return subject_similarity(self.identity(pixels), self.known(subject))

    def known(self, subject: Subject) -> Tensor:
        """Identity features of its photos."""
        if subject.name not in self._known:
            self._known[subject.name] = self.identity(self.rendered(subject.scenes))
        return self._known[subject.name]

    @cached_property
    def ends(self) -> tuple[float, float]:
        """Likeness of look-alikes, and of renders through the autoencoder: means over the subjects."""
        pairs = [self._ends(subject) for subject in self.subjects]
        return fmean(floor for floor, _ in pairs), fmean(ceiling for _, ceiling in pairs)

    def _ends(self, subject: Subject) -> tuple[float, float]:
        scenes = [prompt.scene for prompt in self.prompts(subject)]
        others = [_with(scene, lookalike(subject, scene.seed)) for scene in scenes]
        own = self.rendered(scenes)
        with torch.inference_mode():
            size = (own.shape[-2], own.shape[-1])
            through = as_saved(decode(self.model, encode(self.model, own), size))
        return self.likeness(subject, self.rendered(others)), self.likeness(subject, through)

    def obeyed(self, prompts: Sequence[SubjectPrompt], pixels: Tensor) -> float:
        """The mean share of what each prompt asks for that the judge sees."""
        answers = right(judged(self.judge, pixels), [prompt.scene for prompt in prompts])
        shares: list[float] = []
        for i, prompt in enumerate(prompts):
            given = share({name: [answers[name][i]] for name in prompt.expected if name in answers})
            shares += [fmean(given.values())] if given else []
        return fmean(shares) if shares else 0.0


def _with(scene: Scene, thing: Any) -> Scene:
    """The scene with another thing in it that wears and is made of what the first does."""
    first = scene.things[0]
    return replace(scene, things=(replace(first, look=thing.look), *scene.things[1:]))
