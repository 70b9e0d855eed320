"""How each of the six does the task of a comparison: one function a method, each a loop to one picture."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scumble.core.events import Loop
from scumble.sampling.estimate import Estimate
from scumble.training.fit import FitConfig
from scumble.verbs import edit_instruct, edit_sdedit, edit_text2live
from scumble.verbs.compare_task import LEARNERS, Task
from scumble.verbs.generate import GenerateConfig, draw, estimate_generate
from scumble.verbs.learn import config_for, estimate_learn, learn_to, run_folder
from scumble.verbs.outputs import Picture

__all__ = ["ESTIMATES", "RUNS", "Run"]

TOYBOX_EDITOR = "toybox-instruct"


@dataclass(slots=True)
class Run:
    """One method at work on a task, in a folder of its own."""

    task: Task
    method: str
    folder: Path
    seconds: dict[str, float] = field(default_factory=dict[str, float])
    """Of each part of the work: loading, learning, drawing."""
    commands: list[str] = field(default_factory=list[str])
    """The same as command lines."""
    notes: list[str] = field(default_factory=list[str])

    @contextmanager
    def timed(self, part: str) -> Generator[None]:
        start = time.perf_counter()
        yield
        self.seconds[part] = self.seconds.get(part, 0.0) + time.perf_counter() - start

    @property
    def weights(self) -> Path:
        """Where a learner keeps what it learnt."""
        return self.folder / "weights.safetensors"

    @property
    def picture(self) -> Path:
        return self.folder / "picture.png"

    def learning(self) -> FitConfig:
        config = self.task.config
        mine = {"steps": config.learning_steps, "seed": config.seed}
        if self.method != "textual-inversion":  # which needs none
            mine["prior_count"] = config.prior_count
        return config_for(self.method, config.model, None, None, **mine)

    def generating(self, weights: tuple[str, ...] = ()) -> GenerateConfig:
        config = self.task.config
        return GenerateConfig.of(
            config.given("prompt", "model", "seed", "steps", "dtype", weights=tuple(weights) or None)
        )

    def painting(self, prompt: str, weights: tuple[str, ...] = ()) -> edit_sdedit.SdeditConfig:
        config = self.task.config
        mine = config.given("model", "seed", "steps", "dtype", "t0", weights=tuple(weights) or None)
        return edit_sdedit.SdeditConfig.of({**mine, "prompt": prompt})

    def instructing(self) -> edit_instruct.InstructConfig:
        config = self.task.config
        mine = config.given("seed", "steps", "dtype", model=config.editor or TOYBOX_EDITOR)
        return edit_instruct.InstructConfig.of({**mine, "instructions": (config.instruction,)})

    def layering(self) -> edit_text2live.Text2liveConfig:
        config = self.task.config
        mine = config.given("seed", clip=config.ruler, steps=config.layer_steps)
        return edit_text2live.Text2liveConfig.of({**mine, "prompt": config.plain_prompt})

    @property
    def common(self) -> list[str | Path]:
        config = self.task.config
        return [*_option("steps", config.steps), "--seed", str(config.seed)]


def _option(name: str, value: Any) -> list[str | Path]:
    """An option of a command line, left out where there is nothing to say."""
    return [] if value in (None, "") else [f"--{name}", value if isinstance(value, Path) else str(value)]


def _learner(run: Run) -> Loop[Picture]:
    """Learn the subject, then draw it, or paint it into the picture by SDEdit."""
    task, config = run.task, run.task.config
    assert task.subject is not None
    yield from _learnt(run)
    weights = (str(run.weights),)
    tell = ["--word", config.word, "--noun", config.noun, "--seed", str(config.seed)]
    steps, model = _option("steps", config.learning_steps), ["--model", config.model]
    learn = ["learn", run.method, task.subject, *tell, *steps, *model, "-o", run.weights]
    use: list[str | Path] = ["--with", run.weights, *model, *run.common, "-o", run.picture]
    if task.base is None:
        run.commands = task.commands(learn, ["generate", config.prompt, *use])
        drawing = run.generating(weights)
        with run.timed("loading"):
            model = drawing.load()
        with run.timed("drawing"):
            [picture] = yield from draw(drawing, model, drawing.task(model))
        return picture
    run.commands = task.commands(learn, ["edit", "sdedit", *_painted(run, config.prompt), *use])
    return (yield from _painting(run, run.painting(config.prompt, weights)))


def _learnt(run: Run) -> Loop[None]:
    """Learn, unless that is done already; a time in several goes is none."""
    task, config = run.task, run.task.config
    assert task.subject is not None
    if run.weights.is_file():
        run.notes.append("It was learnt in an earlier run, which was not timed to its end.")
        return
    if run_folder(run.weights).exists():
        run.notes.append("Its learning was stopped and taken up again, so the time is not all of it.")
    subject = (task.subject, config.word, config.noun)
    with run.timed("learning"):
        done = yield from learn_to(run.method, [subject], run.learning(), config.on, run.weights)
    run.notes += [note for note in (done.before, done.note) if note]


def _painted(run: Run, prompt: str) -> list[str | Path]:
    """The files and the prompt of `scumble edit sdedit`."""
    task = run.task
    original = task.image if task.guide else None
    assert task.base is not None
    words = _option("prompt", prompt)
    files = [*_option("original", original), *_option("mask", task.mask)]
    return [task.base, *files, *words, "--t0", str(task.config.t0)]


def _painting(run: Run, config: edit_sdedit.SdeditConfig) -> Loop[Picture]:
    task = run.task
    assert task.base is not None
    work = edit_sdedit.prepare(task.base, task.image if task.guide else None, task.mask, config.prompt)
    with run.timed("loading"):
        model = config.load()
    with run.timed("drawing"):
        [picture] = yield from edit_sdedit.repaint(config, model, work)
    return picture


def _sdedit(run: Run) -> Loop[Picture]:
    config, prompt = run.task.config, run.task.config.plain_prompt
    line = ["edit", "sdedit", *_painted(run, prompt), "--model", config.model, *run.common]
    run.commands = run.task.commands([*line, "-o", run.picture])
    return (yield from _painting(run, run.painting(prompt)))


def _instruct(run: Run) -> Loop[Picture]:
    task, config = run.task, run.instructing()
    assert task.image is not None
    line = ["edit", "instruct", task.image, task.config.instruction, *_option("mask", task.mask)]
    line += ["--model", config.model, *run.common, "-o", run.picture]
    run.commands = task.commands(line)
    work = edit_instruct.prepare(task.image, task.mask, config)
    with run.timed("loading"):
        model = config.load()
    with run.timed("drawing"):
        [picture] = yield from edit_instruct.follow(config, model, work)
    return picture


def _text2live(run: Run) -> Loop[Picture]:
    task, config = run.task, run.layering()
    assert task.image is not None
    line = ["edit", "text2live", task.image, "--prompt", config.prompt, *_option("mask", task.mask)]
    line += ["--clip", config.clip, "--seed", str(config.seed), *_option("steps", task.config.layer_steps)]
    run.commands = task.commands([*line, "-o", run.picture])
    work = edit_text2live.prepare(task.image, task.mask)
    with run.timed("loading"):
        clip, known = config.load_clip()
    with run.timed("learning"):
        [edited] = yield from edit_text2live.paint([config], clip, known, work)
    return edited.result


RUNS: dict[str, Callable[[Run], Loop[Picture]]] = {
    **dict.fromkeys(LEARNERS, _learner),
    "instruct": _instruct,
    "sdedit": _sdedit,
    "text2live": _text2live,
}
"""Method -> what makes its picture."""


# Estimates


def _estimate_learner(run: Run) -> Estimate:
    learning = estimate_learn(run.learning(), run.task.config.on)
    drawing = estimate_generate(run.generating()) if run.task.base is None else _estimate_painting(run)
    seconds, memory = learning.seconds + drawing.seconds, max(learning.memory_bytes, drawing.memory_bytes)
    return Estimate(seconds=seconds, memory_bytes=memory, settings=learning.settings)


def _estimate_painting(run: Run) -> Estimate:
    task = run.task
    assert task.base is not None
    original = task.image if task.guide else None
    return edit_sdedit.estimate_edit(
        run.painting(task.config.plain_prompt), task.base, original=original, mask=task.mask
    )


def _estimate_instruct(run: Run) -> Estimate:
    assert run.task.image is not None
    return edit_instruct.estimate_edit(run.instructing(), run.task.image, mask=run.task.mask)


def _estimate_text2live(run: Run) -> Estimate:
    assert run.task.image is not None
    return edit_text2live.estimate_edit(run.layering(), run.task.image)


ESTIMATES: dict[str, Callable[[Run], Estimate]] = {
    **dict.fromkeys(LEARNERS, _estimate_learner),
    "instruct": _estimate_instruct,
    "sdedit": _estimate_painting,
    "text2live": _estimate_text2live,
}
"""Method -> what its part will need."""
