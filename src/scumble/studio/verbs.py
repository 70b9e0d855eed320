"""What can be asked of the studio: each verb's form, and the loop that does it, both from `scumble.verbs`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, cast

from scumble.adapters.tokens import check_word
from scumble.core.config import Config
from scumble.core.errors import ConfigError, InputError, ModelError, ScumbleError
from scumble.core.events import Loop
from scumble.history.recipe import Recipe
from scumble.methods import (
    custom_diffusion,
    dreambooth,
    instruct_pix2pix,
    sdedit,
    text2live,
    textual_inversion,
)
from scumble.models import load as models
from scumble.models import toybox
from scumble.models.assemble import default_size
from scumble.studio import work
from scumble.studio.files import IMAGE, WEIGHTS
from scumble.studio.forms import fields_of, is_offered
from scumble.studio.limits import check_job, check_texts, checked
from scumble.studio.settings import Settings
from scumble.studio.work import Done, Larger, Learning, LearningLarger, MergeConfig, Task
from scumble.verbs.compare_task import METHODS, CompareConfig
from scumble.verbs.composite import CompositeConfig
from scumble.verbs.edit_instruct import InstructConfig
from scumble.verbs.edit_sdedit import SdeditConfig
from scumble.verbs.edit_text2live import Text2liveConfig
from scumble.verbs.find import MODELS
from scumble.verbs.generate import GenerateConfig
from scumble.verbs.learn import config_for
from scumble.verbs.load import ModelConfig
from scumble.verbs.strokes import StrokesConfig
from scumble.verbs.upscale import UpscaleConfig
from scumble.verbs.vision import VisionConfig

__all__ = ["VERBS", "Input", "Verb", "check_again", "form", "missing", "prepare", "size_of"]

Find = Callable[[object, str], Path]
"""The file with an id, of a kind. Raises Refused."""
MOST_PICTURES = 50
STRONGEST = 10.0
"""Of the scale of learnt weights, either way."""
ALONE = ("count", "batch")
"""Settings of a run that one picture of it, made again, has no use for."""


@dataclass(frozen=True, slots=True)
class Input:
    """A picture, or pictures, that a verb works on."""

    name: str
    help: str
    type: str = "image"
    """`image`, `mask` or `images`."""
    required: bool = False


@dataclass(frozen=True, slots=True)
class Verb:
    """One thing that can be asked for."""

    name: str
    title: str
    sentence: str
    config: type[Config]
    run: Callable[[Task], Loop[Done]]
    inputs: tuple[Input, ...] = ()
    plain: tuple[str, ...] = ()
    """Settings that everybody sees, in their order."""
    presets: Iterable[str] = ()
    choices: Mapping[str, Iterable[str]] = field(default_factory=dict[str, Iterable[str]])
    extra: type[Config] | None = None
    """Settings besides those of `config`."""
    method: str = ""
    """Of those that learn, the name that `scumble.verbs.learn` has for it."""


PHOTOS = Input("photos", "A few photos of a subject, for the methods that learn.", "images")
PICTURE = Input("image", "The picture to edit.", required=True)
MASK = Input("mask", "White where something may change; none is everywhere.", "mask")
PICTURES = Input("images", "A few pictures of the subject; 3 to 5 are good.", "images", required=True)
SUBJECT = ("word", "noun", "others", "preset", "steps")

VERBS: dict[str, Verb] = {
    verb.name: verb
    for verb in (
        Verb(
            "generate", "Generate", "Draw a picture from words.", GenerateConfig, work.generate, extra=Larger,
            plain=(
                "prompt", "weights", "count", "seed", "steps", "guidance", "negative", "width", "height",
                "upscale",
            ),
        ),
        Verb(
            "edit-instruct", "Edit by instruction", "Say what to change, and it is changed.",
            InstructConfig, work.edit_instruct, (PICTURE, MASK),
            plain=("instructions", "image_scale", "text_scale", "count", "seed", "steps", "weights"),
            presets=instruct_pix2pix.PRESETS,
        ),
        Verb(
            "edit-sdedit", "Edit by painting", "Paint roughly what you want, and it becomes natural.",
            SdeditConfig, work.edit_sdedit,
            (
                Input("guide", "The painting: the picture with strokes on it.", required=True),
                Input("original", "The picture under the strokes, where these are transparent or masked."),
                MASK,
            ),
            plain=("prompt", "t0", "count", "seed", "steps", "guidance", "weights"),
            presets=sdedit.PRESETS, choices={"spacing": (*sdedit.SPACINGS, sdedit.SDE)},
        ),
        Verb(
            "edit-text2live", "Edit by a layer", "A layer of colour and opacity is laid over the picture.",
            Text2liveConfig, work.edit_text2live, (PICTURE, MASK),
            plain=("prompt", "region", "screen", "seed", "steps"), presets=("auto", *text2live.PRESETS),
        ),
        Verb(
            "learn-textual-inversion", "Learn a word", "Find the word that stands for a subject or a style.",
            textual_inversion.Config, work.learn, (PICTURES,), SUBJECT,
            textual_inversion.PRESETS, extra=Learning, method="textual-inversion",
        ),
        Verb(
            "learn-dreambooth", "Learn a subject", "Teach the model a subject by changing the model.",
            dreambooth.Config, work.learn, (PICTURES,), SUBJECT, dreambooth.PRESETS,
            extra=LearningLarger, method="dreambooth",
        ),
        Verb(
            "learn-custom-diffusion", "Learn a concept", "Teach the model a concept in its attention alone.",
            custom_diffusion.Config, work.learn, (PICTURES,), SUBJECT,
            custom_diffusion.PRESETS, extra=Learning, method="custom-diffusion",
        ),
        Verb(
            "merge", "Merge what was learnt", "Make one file of several, for prompts that have them all.",
            MergeConfig, work.merge, plain=("weights", "how"),
        ),
        Verb(
            "strokes", "Strokes from a picture", "Paint over a picture with a broad brush and few colours.",
            StrokesConfig, work.strokes, (Input("image", "The picture to paint over.", required=True),),
            plain=("colours", "kernel"),
        ),
        Verb(
            "composite", "Paste a cut-out", "Lay a cut-out over a picture, and get the mask of it.",
            CompositeConfig, work.composite,
            (
                Input("image", "The picture that is pasted on.", required=True),
                Input("patch", "The cut-out, transparent around it.", required=True),
            ),
            plain=("at", "scale", "rotate"),
        ),
        Verb(
            "upscale", "Make larger", "Make a picture larger, with the details that it lacks.",
            UpscaleConfig, work.upscale, (Input("image", "The small picture.", required=True),),
            plain=("prompt", "noise_level", "seed", "steps", "weights"),
        ),
        Verb(
            "compare", "Compare methods", "One task, several methods side by side, timed and scored.",
            CompareConfig, work.compare,
            (
                Input("image", "The picture to edit."),
                Input("guide", "Strokes: a painting, or the picture painted over."),
                MASK,
                PHOTOS,
            ),
            plain=("prompt", "instruction", "before", "word", "noun", "methods", "seed", "t0"),
            choices={"methods": METHODS},
        ),
    )
}  # fmt: skip
"""By the names that requests have for them."""


# What can be done


def missing(verb: Verb, settings: Settings) -> str:
    """Why a studio with these settings cannot do this, in sentences; empty where it can."""
    needs = {
        InstructConfig: (settings.editor, "--instruct-model"),
        UpscaleConfig: (settings.enlarger, "--upscaler"),
    }
    model, option = needs.get(verb.config, (settings.model, ""))
    toys = {"toybox-instruct": toybox.editing, "toybox-upscaler": toybox.upscaling}
    try:
        name = _there(model, option)
        if name in toys and not Path(name).exists():
            toys[name]()
    except ModelError as problem:
        return f"{problem.message} Start the studio with {option}."
    except InputError as problem:
        return str(problem)
    return ""


def size_of(model: str) -> list[int] | None:
    """Width and height in pixels of what the model draws best; None where that is not known yet."""
    try:
        return [_side(model)] * 2
    except ScumbleError:  # a hub's model that was not fetched yet, for one
        return None


@cache
def _side(model: str) -> int:
    return default_size(models.find(model, offline=True))


def _drawn_at(settings: Settings) -> int | None:
    size = size_of(settings.model)
    return None if size is None else size[0]


# Forms


def form(verb: Verb, settings: Settings) -> dict[str, Any]:
    """The form of a verb, for a studio with these settings."""
    choices = dict(verb.choices) | ({"preset": verb.presets} if verb.presets else {})
    defaults: dict[str, Any] = {}
    if verb.method:
        defaults = dict(config_for(verb.method, settings.model, None, None))
    fields = [
        {
            "name": one.name, "label": one.name.capitalize(), "help": one.help, "type": one.type,
            "default": [] if one.type == "images" else None, "min": None, "max": None, "step": None,
            "choices": None, "unit": None, "advanced": False, "required": one.required,
        }
        for one in verb.inputs
    ]  # fmt: skip
    if verb.extra is not None:
        preset = {"preset": "toybox" if settings.model == "toybox" else "default"}
        more = fields_of(verb.extra, plain=verb.plain, defaults=preset, choices=choices)
        fields += [f for f in more if f["name"] != "upscale" or not missing(VERBS["upscale"], settings)]
    fields += fields_of(verb.config, plain=verb.plain, defaults=defaults, choices=choices)
    return {"verb": verb.name, "title": verb.title, "sentence": verb.sentence, "fields": fields}


# What was asked


def prepare(verb: Verb, asked: Mapping[str, Any], settings: Settings, find: Find, folder: Path) -> Task:
    """The task that a request stands for, every setting checked. Raises ConfigError, InputError, Refused."""
    asked = {name: value for name, value in asked.items() if value is not None}
    for name in asked:
        if name in verb.config.model_fields and not is_offered(verb.config, name):
            raise ConfigError(f"{name} is chosen when the studio starts.", "Leave it out.")
    inputs = {one.name: _input(one, asked.pop(one.name, None), find) for one in verb.inputs}
    check_texts(asked, settings.text)
    if "weights" in asked:
        asked["weights"] = _weights(asked["weights"], find)
    if verb.method and "others" in asked:
        asked["others"] = _others(asked["others"], find)
    extra = None
    if verb.extra is not None:
        extra = verb.extra.of({name: asked.pop(name) for name in verb.extra.model_fields if name in asked})
    if isinstance(extra, Learning):
        _check_learning(extra, len(inputs["images"]))
    config = _config(verb, asked, extra, settings)
    task = Task(verb.method, config, inputs, folder, settings, extra)
    check_job(task, _drawn_at(settings))
    return task


def check_again(
    recipe: Recipe, changes: Mapping[str, Any], inputs: Mapping[str, list[Path]], settings: Settings
) -> dict[str, str]:
    """Whether a result may be made again with `changes`, by the rules of `prepare`; returns them as
    `scumble redo --set` has them. `inputs` are the files that went in, by their roles.

    Raises ConfigError.
    """
    verb = VERBS.get(recipe.command.replace(" ", "-"))
    if verb is None:
        raise InputError("What this command made cannot be made again here.", "Use its settings in a form.")
    known = verb.config.model_fields
    for name in changes:
        if name in known and (name == "weights" or not is_offered(verb.config, name)):
            raise ConfigError(f"{name} cannot be changed here.", "Use the settings in a form.")
        if name in ALONE and recipe.output != "grid":
            raise ConfigError(f"{name} cannot be changed here: one picture is made again.")
    check_texts(changes, settings.text)
    before: dict[str, Any] = recipe.settings | ({"seed": recipe.seed} if "seed" in known else {})
    if recipe.batch is not None and "count" in known and not changes:
        before |= {"count": recipe.batch[1], "batch": recipe.batch[1]}
    config = checked(verb.config, {**before, **changes})
    larger = Larger(upscale=any(one.role in MODELS for one in recipe.ingredients))
    check_job(Task("", config, inputs, Path(), settings, larger), _drawn_at(settings))
    return {
        name: value if known[name].annotation is str else json.dumps(value) for name, value in changes.items()
    }


def _config(verb: Verb, asked: dict[str, Any], extra: Config | None, settings: Settings) -> Config:
    ours: dict[str, Any] = {"device": settings.device}
    if getattr(extra, "upscale", False):
        if why := missing(VERBS["upscale"], settings):
            raise InputError(why)
        ours |= {"upscaler": settings.enlarger}
    if isinstance(extra, Learning):
        return config_for(verb.method, settings.model, extra.preset, None, **asked)
    if verb.config is CompareConfig:
        ours |= {"model": settings.model, "editor": settings.editor, "dtype": settings.dtype}
        ours |= {} if settings.clip == "toybox" else {"clip": settings.clip}
    elif issubclass(verb.config, ModelConfig):
        model = settings.model
        if verb.config is InstructConfig:
            model = _there(settings.editor, "--instruct-model")
        elif verb.config is UpscaleConfig:
            model = _there(settings.enlarger, "--upscaler")
        ours |= {"model": model, "dtype": settings.dtype, "low_memory": settings.low_memory}
    elif issubclass(verb.config, VisionConfig):
        ours |= {"clip": settings.clip}
    else:
        ours = {}
    return checked(verb.config, asked | ours)


def _there(model: str | None, option: str) -> str:
    if model is None:
        raise InputError("There is no model here that can do this.", f"Start the studio with {option}.")
    return model


def _input(one: Input, value: object, find: Find) -> list[Path]:
    """Files of one input. Raises InputError where it is lacking, Refused for an id that is not there."""
    if value is None or value == []:
        if one.required:
            raise ConfigError(f"{one.name} is missing.", one.help)
        return []
    if one.type != "images":
        value = [value]
    if not isinstance(value, list):
        raise ConfigError(f"{one.name} is no list of pictures.")
    ids = cast("list[object]", value)
    if len(ids) > MOST_PICTURES:
        raise ConfigError(f"{one.name} has {len(ids)} pictures, and {MOST_PICTURES} are the most.")
    return [find(name, IMAGE) for name in ids]


def _weights(value: object, find: Find) -> tuple[str, ...]:
    """FILE:SCALE of each. Raises ConfigError."""
    wrong = ConfigError("weights is no list of {id, scale}.")
    if not isinstance(value, list) or len(cast("list[Any]", value)) > MOST_PICTURES:
        raise wrong
    found: list[str] = []
    for one in cast("list[Any]", value):
        if not isinstance(one, dict) or not {"id"} <= cast("dict[str, Any]", one).keys() <= {"id", "scale"}:
            raise wrong
        scale: Any = one.get("scale", 1.0)
        number = isinstance(scale, int | float) and not isinstance(scale, bool)
        if not number or not -STRONGEST <= scale <= STRONGEST:
            raise ConfigError(
                f"weights cannot have the scale {str(scale)[:20]!r}.",
                f"Give a number from {-STRONGEST:g} to {STRONGEST:g}.",
            )
        found.append(f"{find(one['id'], WEIGHTS)}:{float(scale)!r}")
    return tuple(found)


def _others(value: object, find: Find) -> list[dict[str, Any]]:
    """Further subjects, with files for ids. Raises ConfigError."""
    wrong = ConfigError("others is no list of {images, word, noun}.")
    if not isinstance(value, list):
        raise wrong
    found: list[dict[str, Any]] = []
    for one in cast("list[Any]", value):
        if not isinstance(one, dict):
            raise wrong
        subject = cast("dict[str, Any]", one)
        if not (files := _input(PHOTOS, subject.get("images"), find)):
            raise ConfigError("others has a subject without pictures.", "Give it a few, or take it away.")
        found.append({**subject, "images": [str(file) for file in files]})
    return found


def _check_learning(learning: Learning, pictures: int) -> None:
    words = [learning.word, *(one.word for one in learning.others)]
    for word in words[1:]:
        if not word or words.count(word) > 1:
            raise ConfigError(f"others has the word {word[:40]!r}.", "Give each subject a word of its own.")
        check_word(word)
    if pictures + sum(len(one.images) for one in learning.others) > MOST_PICTURES:
        raise ConfigError(f"others brings the pictures to more than {MOST_PICTURES}, which are the most.")
    if learning.word:
        check_word(learning.word)
    elif not learning.described:
        raise ConfigError("word is missing.", "Give a word such as <rex>, or a caption for each picture.")
    if learning.described and len(learning.described) != pictures:
        raise ConfigError(
            f"described has {len(learning.described)} captions for {pictures} pictures.", "Give one for each."
        )
