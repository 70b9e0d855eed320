"""What is compared: a picture and what is wanted of it, and which of the six methods can do that."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from scumble.core.config import Config
from scumble.core.errors import ConfigError, InputError
from scumble.core.files import sha256
from scumble.core.images import read_image, read_mask
from scumble.verbs.inputs import Source, picture_files
from scumble.verbs.load import ModelConfig

__all__ = ["LEARNERS", "METHODS", "CompareConfig", "Task", "why_not"]

LEARNERS = ("textual-inversion", "dreambooth", "custom-diffusion")
METHODS = (*LEARNERS, "instruct", "sdedit", "text2live")
"""The six, by the names that `scumble learn` and `scumble edit` have for them."""
CLIP = "openai/clip-vit-base-patch32"
"""What measures, and leads Text2LIVE, on other models than the toybox: the CLIP of most of the papers."""


class CompareConfig(Config):
    """What `scumble compare` can be told."""

    instruction: str = ""
    """What to do to the picture, as a command: make it night."""
    prompt: str = ""
    """What the result shows, as a caption; with the subject's word in it, if a subject is given."""
    before: str = ""
    """What the picture shows now, as a caption: with it the direction of the change can be measured."""
    word: str = ""
    """The word for the subject, as it stands in the prompt."""
    noun: str = ""
    """What the subject is a kind of."""
    methods: tuple[str, ...] = ()
    """Which of the six; none takes all that apply."""
    model: str = "toybox"
    """The model that draws: toybox, a diffusers folder, a single file, a hub id."""
    editor: str | None = None
    """The editing model of InstructPix2Pix; none takes toybox-instruct with the toybox."""
    clip: str | None = None
    """The CLIP that measures and that leads Text2LIVE; none takes the one that fits the model."""
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 0
    """Of every picture and of all learning."""
    steps: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Denoising steps; none takes each method's own."""
    learning_steps: Annotated[int, Field(ge=1)] | None = None
    """Steps in which a subject is learnt; none takes each method's own."""
    prior_count: Annotated[int, Field(ge=1)] | None = None
    """Pictures of its kind that keep a subject's learning from forgetting; none takes each method's own."""
    layer_steps: Annotated[int, Field(ge=1)] | None = None
    """Steps of Text2LIVE; none takes its own."""
    t0: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Noise of SDEdit: 0 keeps the painting, 1 forgets it."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Precision of the networks."""

    @field_validator("methods")
    @classmethod
    def _known(cls, methods: tuple[str, ...]) -> tuple[str, ...]:
        for name in methods:
            if name not in METHODS:
                raise ConfigError(f"There is no method {name!r}.", f"Choose among {', '.join(METHODS)}.")
        return tuple(name for name in METHODS if name in methods)

    @model_validator(mode="after")
    def _check_before(self) -> Self:
        if self.before and not self.prompt:
            raise ConfigError("There is a caption of before and none of the result.", "Give the prompt too.")
        return self

    @property
    def plain_prompt(self) -> str:
        """The prompt with the class noun for the learnt word: for models, and a CLIP, that never met it."""
        if not self.word:
            return self.prompt
        named = rf"{re.escape(self.word)}(\s+{re.escape(self.noun)}\b)?"
        return re.sub(named, lambda _: self.noun, self.prompt)

    @property
    def on(self) -> ModelConfig:
        """The model that draws, and where."""
        return ModelConfig(model=self.model, device=self.device, dtype=self.dtype)

    @property
    def is_toybox(self) -> bool:
        """Whether the toybox draws, whose pictures its judge can read."""
        return self.model == "toybox"

    @property
    def ruler(self) -> str:
        """The CLIP that measures: toybox, a folder or a hub id."""
        return self.clip or ("toybox" if self.is_toybox else CLIP)

    def given(self, *names: str, **more: Any) -> dict[str, Any]:
        """Settings of a method: those of `names` that are set here, and `more` that is not None."""
        mine = {name: getattr(self, name) for name in (*names, "device")}
        return {name: value for name, value in (mine | more).items() if value is not None}


@dataclass(frozen=True, slots=True)
class Task:
    """The settings with the files that belong to them."""

    config: CompareConfig
    image: Path | None = None
    """The picture that is edited."""
    guide: Path | None = None
    """Strokes: a painting, or the picture painted over."""
    mask: Path | None = None
    """White may change."""
    subject: Path | None = None
    """A folder with a few photos of a subject."""

    @classmethod
    def of(cls, config: CompareConfig, **files: Path | str | None) -> Task:
        """Check what can be checked before the work. Raises InputError and ImageError."""
        task = cls(config, **{role: None if f is None else Path(f) for role, f in files.items()})
        for role in ("image", "guide", "mask"):
            if (place := getattr(task, role)) is not None:
                if place.is_dir():
                    raise InputError(f"{place} is a folder.", f"Compare on one picture: give one as {role}.")
                Source.of(place)
        if task.mask is not None and task.image is None and task.guide is None:
            raise InputError("There is a mask and no picture.", "Give the picture that it belongs to.")
        if task.mask is not None:
            for place in filter(None, (task.image, task.guide)):
                _check_mask(task.mask, place)
        task._check_subject()
        if not any((task.image, task.guide, task.subject)):
            raise InputError(
                "There is nothing to work on.", "Give a picture, strokes (--guide) or photos (--subject)."
            )
        return task

    def _check_subject(self) -> None:
        config = self.config
        if self.subject is None:
            if config.word or config.noun:
                raise InputError("A word is given and no subject.", "Give its photos with --subject.")
            return
        if not self.subject.is_dir():
            raise InputError(f"There is no folder {self.subject}.", "Give a folder with a few photos.")
        picture_files(self.subject)
        if not (config.word and config.noun):
            raise InputError("The subject has no word or no noun.", "Give both: --word '<rex>' --noun dog.")
        if config.word not in config.prompt:
            raise InputError(
                f"The prompt does not speak of {config.word}.",
                f"Say where it goes: --prompt 'a photo of a {config.word} {config.noun} on the beach'.",
            )

    @property
    def base(self) -> Path | None:
        """What SDEdit starts from: the strokes, or else the picture itself."""
        return self.guide or self.image

    def commands(self, *lines: list[str | Path]) -> list[str]:
        """Command lines, quoted."""
        from shlex import join

        return [join(["scumble", *map(str, line)]) for line in lines]

    def facts(self) -> dict[str, Any]:
        """What was given, with hashes for files, so that a run can be told from another."""
        files = {role: getattr(self, role) for role in ("image", "guide", "mask")}
        found: dict[str, Any] = {
            role: {"name": place.name, "sha256": sha256(place)} for role, place in files.items() if place
        }
        if self.subject is not None:
            photos = picture_files(self.subject)
            found["subject"] = {"name": self.subject.name, "photos": {p.name: sha256(p) for p in photos}}
        settings = self.config.model_dump(mode="json", exclude={"methods", "device"}, exclude_none=True)
        return {"files": found, "settings": settings}


def _check_mask(mask: Path, picture: Path) -> None:
    """Raises InputError for a mask of another size, and for one under which nothing may change."""
    white, size = read_mask(mask), read_image(picture).image.size
    if (theirs := (white.shape[-1], white.shape[-2])) != size:
        raise InputError(
            f"The mask has {theirs[0]} x {theirs[1]} pixels and {picture.name} {size[0]} x {size[1]}.",
            "Make them one size.",
        )
    if not white.any():
        raise InputError("The mask is black everywhere.", "Paint white what may change.")


def why_not(method: str, task: Task) -> str:
    """In a sentence, why `method` cannot do this task; empty where it can."""
    return _REASONS[method](task)


def _learner(task: Task) -> str:
    if task.subject is None:
        return "It learns a subject from photos, and none were given (--subject)."
    return ""


def _instruct(task: Task) -> str:
    config = task.config
    if task.image is None:
        return "It edits a picture, and none was given."
    if not config.instruction:
        return "It follows an instruction, and none was given (--instruction)."
    if config.editor is None and not config.is_toybox:
        return "It needs an editing model beside the one that draws, and none was named (--editor)."
    return ""


def _sdedit(task: Task) -> str:
    if task.base is None:
        return "It starts from strokes or from a picture, and neither was given."
    if task.guide is None and not task.config.prompt:
        return "It heads for strokes or for a prompt (--guide, --prompt), and neither was given."
    return ""


def _text2live(task: Task) -> str:
    if task.image is None:
        return "It lays a layer over a picture, and none was given."
    if not task.config.prompt:
        return "It heads for a caption of the result, and none was given (--prompt)."
    return ""


_REASONS: dict[str, Callable[[Task], str]] = {
    **dict.fromkeys(LEARNERS, _learner),
    "instruct": _instruct,
    "sdedit": _sdedit,
    "text2live": _text2live,
}
