"""The loops behind the studio's verbs: each takes a task and gives a loop that returns what was written."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Self, cast

from pydantic import Field, model_validator

from scumble.adapters.merge import RIDGE
from scumble.core.config import Config
from scumble.core.errors import ConfigError
from scumble.core.events import Loop, Progress
from scumble.core.files import safe_name
from scumble.studio.settings import Settings
from scumble.training.fit import FitConfig
from scumble.verbs import compare as comparing
from scumble.verbs import composite as composites
from scumble.verbs import edit_instruct as instruct
from scumble.verbs import edit_sdedit as sdedit
from scumble.verbs import edit_text2live as text2live
from scumble.verbs import strokes as painted
from scumble.verbs import upscale as upscaling
from scumble.verbs.compare_task import CompareConfig
from scumble.verbs.compare_task import Task as Comparison
from scumble.verbs.generate import PREVIEW_EVERY, GenerateConfig, draw_to
from scumble.verbs.learn import learn_to, run_folder
from scumble.verbs.load import ModelConfig, scaled_weights
from scumble.verbs.merge import merge_to
from scumble.verbs.outputs import Saved
from scumble.verbs.redo import redo_to

__all__ = [
    "Done",
    "Larger",
    "Learning",
    "LearningLarger",
    "MergeConfig",
    "Other",
    "Task",
    "compare",
    "composite",
    "edit_instruct",
    "edit_sdedit",
    "edit_text2live",
    "generate",
    "learn",
    "merge",
    "redo",
    "strokes",
    "upscale",
]

LAYER_PREVIEW_EVERY = 10
"""Steps from one preview to the next of an edit by a layer, whose steps are quick."""
LEARNING_PREVIEW_EVERY = 100
"""The same of learning, where a preview takes as long as a few steps."""


class Other(Config):
    """A further subject."""

    images: tuple[str, ...]
    """Its pictures."""
    word: str
    """Its own word."""
    noun: str = ""
    """What it is a kind of."""


class Learning(Config):
    """What is learnt."""

    word: str = ""
    """The word that will stand for it in prompts, such as <rex>."""
    noun: str = ""
    """What it is a kind of, such as dog."""
    preset: str | None = None
    """Settings to start from."""
    described: tuple[str, ...] = ()
    """A caption for each picture, in their order, where they show what words can tell."""
    others: tuple[Other, ...] = ()
    """Further subjects to learn together with this one, each with its photos, its word and its noun."""


class Larger(Config):
    """Pictures made larger as they are drawn."""

    upscale: bool = False
    """Make the pictures larger with the studio's upscaler."""


class LearningLarger(Learning):
    """What is learnt, by the upscaler too."""

    upscale: bool = False
    """Teach the studio's upscaler the subject too; the weights then serve both."""


class MergeConfig(Config):
    """How several learnt files are made into one."""

    how: Literal["auto", "closed-form", "sum"] = "auto"
    """closed-form keeps what each word means, where only keys and values were learnt; sum adds all up; auto
    takes the first where it can."""
    ridge: Annotated[float, Field(ge=0, le=1)] = RIDGE
    """How much the closed form gives way where words are much alike."""
    weights: tuple[str, ...]
    """What is made into one, each with its strength."""

    @model_validator(mode="after")
    def _several(self) -> Self:
        if len(self.weights) < 2:
            raise ConfigError(f"weights has {len(self.weights)} of them: two or more can be merged.")
        return self


@dataclass(frozen=True, slots=True)
class Task:
    """What is to be done, with everything found."""

    method: str
    config: Config
    inputs: Mapping[str, list[Path]]
    folder: Path
    """Where results go; not there yet."""
    settings: Settings
    extra: Config | None = None
    """Settings that the verb has besides those of `config`."""

    def one(self, name: str) -> Path:
        """The only file of an input."""
        return self.inputs[name][0]

    def maybe(self, name: str) -> Path | None:
        """The file of an input that may be left out."""
        return next(iter(self.inputs[name]), None)


@dataclass(frozen=True, slots=True)
class Done:
    """What came of it."""

    paths: list[Path]
    note: str = ""
    facts: Mapping[Path, Mapping[str, Any]] = field(default_factory=dict[Path, Mapping[str, Any]])
    """What a page is told of a file besides: `use`, how a learnt subject is spoken of; `label`; `row`, what a
    method took and came to in a comparison."""


def _done(saved: Saved) -> Done:
    return Done([Path(str(row["path"])) for row in saved.files], saved.note)


def generate(task: Task) -> Loop[Done]:
    config = cast("GenerateConfig", task.config)
    return _done((yield from draw_to(config, task.folder, preview_every=PREVIEW_EVERY)))


def edit_instruct(task: Task) -> Loop[Done]:
    config, image = cast("instruct.InstructConfig", task.config), task.one("image")
    saved = yield from instruct.edit_to(
        config, image, task.folder, mask=task.maybe("mask"), preview_every=PREVIEW_EVERY
    )
    return _done(saved)


def edit_sdedit(task: Task) -> Loop[Done]:
    config, guide = cast("sdedit.SdeditConfig", task.config), task.one("guide")
    saved = yield from sdedit.edit_to(
        config, guide, task.folder, original=task.maybe("original"), mask=task.maybe("mask"),
        preview_every=PREVIEW_EVERY,
    )  # fmt: skip
    return _done(saved)


def edit_text2live(task: Task) -> Loop[Done]:
    config = cast("text2live.Text2liveConfig", task.config)
    job = text2live.Job.of(config, task.one("image"), task.folder, mask=task.maybe("mask"))
    notes = job.notes
    done = _done((yield from text2live.edit_to(job, preview_every=LAYER_PREVIEW_EVERY)))
    return Done(done.paths, " ".join([*notes, done.note]).strip())


def strokes(task: Task) -> Loop[Done]:
    config = cast("painted.StrokesConfig", task.config)
    return Done((yield from painted.strokes_to(config, task.one("image"), task.folder)))


def composite(task: Task) -> Loop[Done]:
    config = cast("composites.CompositeConfig", task.config)
    paths = composites.composite_to(
        config, task.one("image"), task.one("patch"), task.folder / "picture.png",
        mask_out=task.folder / "mask.png",
    )  # fmt: skip
    yield Progress(stage="pasting", step=1, total=1)
    return Done(paths)


def upscale(task: Task) -> Loop[Done]:
    config = cast("upscaling.UpscaleConfig", task.config)
    return _done((yield from upscaling.upscale_to(config, task.one("image"), task.folder)))


def compare(task: Task) -> Loop[Done]:
    """Each method's picture, and what it learnt, with its row of the table. The photos' copies, and the page,
    which shows what was given, are not among these: they go when the job ends."""
    photos = _copied(task.inputs["photos"], task.folder / "photos") if task.inputs["photos"] else None
    given = {role: task.maybe(role) for role in ("image", "guide", "mask")} | {"subject": photos}
    asked = Comparison.of(cast("CompareConfig", task.config), **given)
    done = yield from comparing.compare_to(asked, task.folder / "comparison")
    facts: dict[Path, dict[str, Any]] = {}
    for row in done.facts["rows"]:
        if row["picture"]:
            picture = done.page.parent / row["picture"]
            shown = {name: row[name] for name in ("seconds", "peak_memory_bytes", "scores", "notes")}
            facts[picture] = {"label": row["method"], "row": shown}
            facts |= {path: {"label": row["method"]} for path in picture.parent.glob("*.safetensors")}
    failed = [f"{row['method']}: {row['failed']}" for row in done.facts["rows"] if row["failed"]]
    left_out = [f"{name}: {why}" for name, why in done.facts["left out"].items()]
    return Done(list(facts), " ".join([*failed, *left_out, done.note]).strip(), facts)


def learn(task: Task) -> Loop[Done]:
    """Learning goes on from its last checkpoint where the same was begun before and cancelled."""
    told, where = cast("Learning", task.extra), task.settings
    subjects = [(_subject(task, told), told.word, told.noun)]
    for number, other in enumerate(told.others, 1):
        files = [Path(file) for file in other.images]
        subjects.append((_copied(files, _given(task) / str(number)), other.word, other.noun))
    out = task.folder / f"{_named([word for _, word, _ in subjects], 'concept')}.safetensors"
    upscaler = where.enlarger if getattr(told, "upscale", False) else None
    try:
        learnt = yield from learn_to(
            task.method,
            subjects,
            cast("FitConfig", task.config),
            _on(where),
            out,
            upscaler=upscaler,
            preview_every=LEARNING_PREVIEW_EVERY,
        )
    finally:  # cancelled too: they are copied again where it goes on
        shutil.rmtree(_given(task), ignore_errors=True)
    shutil.rmtree(run_folder(out), ignore_errors=True)
    note = f"{learnt.before} {learnt.note}".strip()
    return Done([learnt.path], note, {learnt.path: {"use": learnt.use}})


def merge(task: Task) -> Loop[Done]:
    config = cast("MergeConfig", task.config)
    words = [word for text in config.weights for word in scaled_weights(text)[1].words]
    out = task.folder / f"{_named(words, 'merged')}.safetensors"
    yield Progress(stage="merging", step=0, total=1)
    merged = merge_to(config.weights, _on(task.settings), out, how=config.how, ridge=config.ridge)
    yield Progress(stage="merging", step=1, total=1)
    return Done([merged.path], merged.note, {merged.path: {"use": " and ".join(merged.words)}})


def _named(words: Sequence[str], fallback: str) -> str:
    """A name for a file that knows `words`."""
    bare = [name for word in words if (name := safe_name(word, fallback=""))]
    return safe_name("-".join(bare), fallback=fallback)


def _on(where: Settings) -> ModelConfig:
    """The model that draws, where it is to compute."""
    return ModelConfig(model=where.model, device=where.device, dtype=where.dtype, low_memory=where.low_memory)


def _subject(task: Task, told: Learning) -> Path:
    """A folder with the pictures, in their order, and their captions."""
    folder = _copied(task.inputs["images"], _given(task) / "0")
    for number, text in enumerate(told.described):
        (folder / f"{number:02d}.txt").write_text(text)
    return folder


def _given(task: Task) -> Path:
    """Where copies of what is learnt from lie, a folder for each subject."""
    return task.folder / "subject"


def _copied(files: Sequence[Path], folder: Path) -> Path:
    """The new folder `folder` with copies of pictures, in their order."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for number, file in enumerate(files):
        shutil.copyfile(file, folder / f"{number:02d}{file.suffix}")
    return folder


def redo(what: Path, folder: Path, inputs: list[str], changes: Mapping[str, str], model: str) -> Loop[Done]:
    """Make a result of the studio again, from the files of its own session alone."""
    out = folder / what.name
    texts = [f"{name}={value}" for name, value in changes.items()]
    done = yield from redo_to(what, out, inputs=inputs, changes=texts, model=model)
    same = {True: "The pixels are the same as before.", False: "", None: ""}[done.same]
    return Done([Path(str(done.file["path"]))], " ".join([same, done.note]).strip())
