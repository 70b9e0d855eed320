"""How much may be asked for in one job. A form and a redo pass through the same checks.

A setting alone is bounded by its own range and by `forms.CAPS`; together they are bounded by work and by what
is held at once. Work is counted in steps of a picture of SIDE x SIDE pixels: a larger picture counts as often
as it is larger, a smaller one as one, and a step of learning as PASSES. That is no forecast of a time, which
is the machine's, but it grows as the time does, whatever the settings are that make it long.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

from PIL import Image

from scumble.core.config import Config
from scumble.core.errors import ConfigError, InputError
from scumble.methods import custom_diffusion, dreambooth, textual_inversion
from scumble.studio.forms import CAPS
from scumble.studio.work import Task
from scumble.training.fit import FitConfig
from scumble.verbs.compare_runs import Run
from scumble.verbs.compare_task import METHODS, CompareConfig, why_not
from scumble.verbs.compare_task import Task as Comparison
from scumble.verbs.drawing import SeriesConfig
from scumble.verbs.edit_instruct import InstructConfig
from scumble.verbs.edit_sdedit import SdeditConfig
from scumble.verbs.edit_text2live import Text2liveConfig
from scumble.verbs.generate import GenerateConfig
from scumble.verbs.upscale import UpscaleConfig

__all__ = ["check_job", "check_texts", "checked", "work_of"]

Kind = TypeVar("Kind", bound=Config)

SIDE = 512
STEPS = 1000
"""Steps of what draws, at most: no schedule has more."""
LONGEST = 100
"""Entries of one list, at most."""
TOGETHER = 2**25
"""Pixels of the pictures that are made, or learnt from, at once, at most: 8 of 2048 x 2048."""
LAYER = 2**28
"""Pixels of a layer times its channels, at most: 1 GiB for each of the generator's stages."""
PASSES = 3
"""A step costs about three forward passes where something learns: one forward, and backward twice as much."""
ENLARGED = 16
"""Pixels of a result for each of the small picture."""
ENLARGING = 20
"""Steps of an upscaler that a picture passes through as it is drawn."""
SEARCHES = {"none": 1, "auto": 3, "sweep": 28}
"""Edits that a search is, at most."""
VIEWS, CHANNELS = 16, 128
"""Views of a layer's step that cost as much as a step, and channels of a layer of SIDE that do."""
HELD_OUT = 16
"""Examples in a look at the held-out loss."""


def checked(kind: type[Kind], values: Mapping[str, Any]) -> Kind:
    """Settings made of what a stranger wrote. Raises ConfigError, whatever it was: the settings' own checks
    are written for what people type."""
    if not isinstance(preset := values.get("preset", ""), str):
        raise ConfigError(f"preset cannot be {str(preset)[:40]}: it is a name.")
    try:
        return kind.of(values)
    except (TypeError, ValueError, LookupError, ArithmeticError, RecursionError) as problem:
        raise ConfigError(f"The settings cannot be used: {type(problem).__name__}.") from problem


def check_texts(value: object, most: int, name: str = "") -> None:
    """Raises ConfigError for a text of more than `most` characters and for a list of more than LONGEST."""
    if isinstance(value, str) and len(value) > most:
        raise ConfigError(f"{name or 'A setting'} has {len(value):,} characters, and {most:,} are the most.")
    if isinstance(value, Mapping):
        for key, inner in cast("Mapping[str, object]", value).items():
            check_texts(inner, most, name or key[:60])
    elif isinstance(value, Sequence) and not isinstance(value, str):
        entries = cast("Sequence[object]", value)
        if len(entries) > LONGEST:
            raise ConfigError(f"{name or 'A list'} has {len(entries)} entries, and {LONGEST} are the most.")
        for inner in entries:
            check_texts(inner, most, name)


def check_job(task: Task, side: int | None) -> None:
    """Raises ConfigError for a task that is too much for one job; `side` is what the model draws best.

    The settings are looked at as they were understood, not as they were written: "4096" is a number too.
    """
    config = task.config
    for name, most in CAPS.items():
        value = getattr(config, name, None)
        if isinstance(value, int | float) and value > most:
            raise ConfigError(f"{name} cannot be {value}: {most} is the most here.")
    steps = getattr(config, "steps", None) or 0
    if not isinstance(config, FitConfig) and steps > STEPS:
        raise ConfigError(f"steps cannot be {steps}: {STEPS} is the most here.")
    _check_together(task, side or SIDE)
    work = work_of(config, task, side or SIDE)
    if work > task.settings.work:
        mine = steps and not isinstance(config, CompareConfig)  # whose methods have their own
        asked = f"steps cannot be {steps}: this" if mine else "This"
        raise ConfigError(
            f"{asked} is the work of {work:,.0f} steps on a picture of {SIDE} x {SIDE} pixels, and "
            f"{task.settings.work:,} are the most in one job.",
            "Take fewer steps, fewer or smaller pictures, or several jobs.",
        )


def _check_together(task: Task, side: int) -> None:
    """Raises ConfigError where a step would hold more at once than a machine may have, and be killed for."""
    config = task.config
    if isinstance(config, SeriesConfig):
        _check_batch("batch", min(config.batch, config.count), _pixels_of(config, task, side))
    elif isinstance(config, FitConfig):
        size = getattr(config, "size", None) or side
        name = "micro_batch" if config.micro_batch else "batch"
        _check_batch(name, min(config.micro_batch or config.batch, config.batch), size**2)
    elif isinstance(config, Text2liveConfig):
        most = int(LAYER // max(1.0, _layer(config, task)))
        if config.channels > most:
            raise ConfigError(
                f"channels cannot be {config.channels}: {most} is the most at this size.",
                "Take a smaller size.",
            )


def _check_batch(name: str, count: int, pixels: int) -> None:
    most = max(1, TOGETHER // pixels)
    if count > most:
        raise ConfigError(f"{name} cannot be {count}: {most} is the most at this size.")


# Work


def work_of(config: Config, task: Task, side: int) -> float:
    """Steps of a picture of SIDE x SIDE that a job takes; 0 of one that takes none.

    `side` is that of the pictures that the model draws where the settings leave it open.
    """
    if isinstance(config, FitConfig):
        return _learning(config, task, side)
    if isinstance(config, Text2liveConfig):
        return _layering(config, task)
    if isinstance(config, CompareConfig):
        return _comparing(config, task, side)
    if isinstance(config, SeriesConfig):
        return _drawing(config, task, side)
    return 0.0


def _drawing(config: SeriesConfig, task: Task, side: int) -> float:
    """Of all pictures; windows of an upscaler that share much are many."""
    pixels = _pixels_of(config, task, side)
    if isinstance(config, GenerateConfig):
        larger = ENLARGING * _share(ENLARGED * pixels) if getattr(task.extra, "upscale", False) else 0
        return config.count * (config.steps * _share(pixels) + larger)
    if isinstance(config, InstructConfig):
        count = 1 if config.search == "sweep" else config.count
        edits = count * len(config.instructions) * SEARCHES[config.search]
        return edits * config.steps * _share(pixels)
    if isinstance(config, SdeditConfig):
        return config.count * config.repeats * SEARCHES[config.search] * config.steps * _share(pixels)
    assert isinstance(config, UpscaleConfig)
    again = 1.0
    if config.tile is not None:
        shared = config.tile // 4 if config.overlap is None else config.overlap
        again = (config.tile / max(1, config.tile - shared)) ** 2
    return config.count * config.steps * again * _share(ENLARGED * pixels)


def _layering(config: Text2liveConfig, task: Task) -> float:
    """A step is one of the generator, whose cost is the square of its width, and views shown to CLIP."""
    generator = _layer(config, task) / SIDE**2 * (config.channels / CHANNELS) ** 2
    return PASSES * (generator + config.views / VIEWS) * config.steps * (1 + len(config.earlier))


def _learning(config: FitConfig, task: Task, side: int) -> float:
    """With whatever goes before and after it."""
    share = _share((getattr(config, "size", None) or side) ** 2)
    examples, more = config.steps * config.batch, 0
    if isinstance(config, textual_inversion.Config):
        examples += config.pivotal * config.batch
        more = HELD_OUT * (config.steps // config.stop_every + 1) if config.stop_after else 0
    if isinstance(config, dreambooth.Config | custom_diffusion.Config) and config.prior_weight:
        examples += config.steps * config.batch
        more = config.prior_count * config.prior_steps
    if isinstance(config, custom_diffusion.Config) and config.augment:
        others = getattr(task.extra, "others", ())
        more += config.views * sum(map(len, (task.inputs["images"], *(one.images for one in others))))
    if isinstance(config, dreambooth.Config) and getattr(task.extra, "upscale", False):
        examples += config.upscaler_steps * config.batch
    return (PASSES * examples + more) * share


def _comparing(config: CompareConfig, task: Task, side: int) -> float:
    """Of each method that would take part."""
    files = {role: task.maybe(role) for role in ("image", "guide", "mask")}
    subject = task.inputs["photos"][0].parent if task.inputs["photos"] else None
    asked = Comparison(config, **files, subject=subject)
    chosen = [name for name in config.methods or METHODS if not why_not(name, asked)]
    return sum(_of_method(Run(asked, name, task.folder), task, side) for name in chosen)


def _of_method(run: Run, task: Task, side: int) -> float:
    given = {"image": task.inputs["image"], "guide": task.inputs["guide"] or task.inputs["image"]}
    given["images"] = task.inputs["photos"]
    part = Task("", task.config, given, task.folder, task.settings)
    if run.method == "instruct":
        return work_of(run.instructing(), part, side)
    if run.method == "text2live":
        return work_of(run.layering(), part, side)
    drawn = run.painting("") if given["guide"] else run.generating()
    learnt = 0.0 if run.method == "sdedit" else work_of(run.learning(), part, side)
    return learnt + work_of(drawn, part, side)


# Sizes


def _pixels_of(config: SeriesConfig, task: Task, side: int) -> int:
    """Of what is drawn: of a picture that went in, if one did; of the small one where it is made larger."""
    if isinstance(config, GenerateConfig):
        return (config.width or side) * (config.height or side)
    for role in ("guide", "image"):
        if (place := next(iter(task.inputs.get(role, [])), None)) is not None:
            width, height = _size(place)
            return width * height
    return side**2


def _layer(config: Text2liveConfig, task: Task) -> float:
    """Pixels that a layer is learnt at: of the picture, made as small as its shorter side is asked for."""
    width, height = _size(task.one("image")) if task.inputs.get("image") else (config.size, config.size)
    return width * height * min(1.0, config.size / min(width, height)) ** 2


def _size(place: Path) -> tuple[int, int]:
    """Of a picture that the studio keeps. Raises InputError where it is no picture any more."""
    try:
        with Image.open(place) as picture:
            return picture.size
    except (OSError, ValueError):
        raise InputError(f"{place.name} cannot be read.", "Send it again.") from None


def _share(pixels: float) -> float:
    return max(1.0, pixels / SIDE**2)
