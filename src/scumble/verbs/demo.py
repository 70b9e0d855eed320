"""`scumble demo`: what the toybox can do, done before your eyes on one page that checks itself.

The folder of a demo:

    index.html          one page that needs nothing else
    demo.json           the same as data, and of what the demo is: model, version, amount
    CHAPTER/            the pictures with their recipes, what was learnt, and `chapter.json`

A demo that was stopped goes on with the chapters that are not done; one of another model, version or amount
begins anew. What has to be so is written down with its limit beside each chapter, before anything is drawn:
`check` raises where something is not.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from scumble.core.errors import ScumbleError
from scumble.core.events import Loop, Progress
from scumble.core.files import atomic_write
from scumble.core.version import VERSION
from scumble.history.recipe import library_versions
from scumble.verbs import demo_drawing, demo_editing, demo_layers
from scumble.verbs.demo_chapter import QUICK, WHOLE, Amount, Chapter, Work
from scumble.verbs.demo_page import page
from scumble.verbs.load import RANDOM_MODEL

__all__ = ["CHAPTERS", "DemoReport", "check", "demo"]

FORMAT = 1
CHAPTERS: dict[str, Callable[[Work], Loop[Chapter]]] = {
    "painted": demo_drawing.painted,
    "plain": demo_drawing.plain,
    **{name: partial(demo_drawing.learnt, method=name) for name in demo_drawing.LEARNERS},
    "instruct": demo_editing.instruct,
    "strokes": demo_editing.strokes,
    "layer": demo_layers.layer,
    "clip": demo_layers.clip,
    "redo": demo_editing.redo,
}
"""What is done, in this order."""
LEARNS = ("plain", *demo_drawing.LEARNERS, "layer", "clip")
"""What takes minutes, and is left out where `Amount.learns` is not."""
STOPPED = "What was done is kept: the same command goes on."


@dataclass(frozen=True, slots=True)
class DemoReport:
    """What the demo made and what it found."""

    page: Path
    pictures: int
    seconds: float
    left_out: tuple[str, ...]
    """A sentence for each chapter that is not there."""
    problems: tuple[str, ...]


def demo(
    out: Path, *, quick: bool = False, overwrite: bool = False, amount: Amount | None = None
) -> Loop[DemoReport]:
    """Do the demo in the folder `out` and write its page, `index.html`.

    `quick` leaves out all learning; `amount` says in full how much is done. `overwrite` begins anew.
    """
    work = Work(out, amount or (QUICK if quick else WHOLE))
    names = [name for name in CHAPTERS if work.amount.learns or name not in LEARNS]
    about = {
        "format": FORMAT,
        "scumble": VERSION,
        "model": work.model.hash,
        "amount": work.amount.model_dump(mode="json", exclude_none=True),
    }
    _claim(out, about, overwrite=overwrite)
    chapters: list[Chapter] = []
    try:
        for number, name in enumerate(names, 1):
            chapters.append((yield from _done(work, name)))
            yield Progress(stage="chapters", step=number, total=len(names))
    except KeyboardInterrupt as stop:
        stop.add_note(STOPPED)
        raise
    problems = [RANDOM_MODEL] if work.model.is_random else []
    problems += [problem for chapter in chapters for problem in chapter.problems]
    facts: dict[str, Any] = {
        **about,
        "seconds": sum(chapter.seconds.get("in all", 0.0) for chapter in chapters),
        "problems": problems,
        "quick": not work.amount.learns,
        "machine": library_versions(str(work.model.device), _threads()),
        "chapters": [chapter.model_dump(mode="json") for chapter in chapters],
    }
    atomic_write(out / "demo.json", (json.dumps(facts, indent=2) + "\n").encode())
    atomic_write(out / "index.html", page(facts, chapters, out).encode())
    pictures = sum(len(row.pictures) for chapter in chapters for row in chapter.rows)
    left_out = tuple(chapter.left_out for chapter in chapters if chapter.left_out)
    return DemoReport(out / "index.html", pictures, facts["seconds"], left_out, tuple(problems))


def check(report: DemoReport) -> None:
    """Raise ScumbleError if the demo found something wrong with its own results."""
    if report.problems:
        raise ScumbleError(f"The demo is not right. {' '.join(report.problems)}", f"See {report.page}.")


def _claim(out: Path, about: dict[str, Any], *, overwrite: bool) -> None:
    """Note what the folder is a demo of; what is there of another one is removed."""
    place = out / "demo.json"
    if place.is_file():
        try:
            before = json.loads(place.read_bytes())
            same = all(before.get(name) == value for name, value in about.items())
        except (ValueError, AttributeError):
            same = False
        if same and not overwrite:
            return
        for name in (*CHAPTERS, "subject"):
            shutil.rmtree(out / name, ignore_errors=True)
    atomic_write(place, (json.dumps(about, indent=2) + "\n").encode())


def _done(work: Work, name: str) -> Loop[Chapter]:
    """A chapter, from its folder if it was done before."""
    place = work.place(f"{name}/chapter.json")
    if place.is_file():
        return Chapter.of(json.loads(place.read_bytes()))
    work.seconds.clear()
    start = time.perf_counter()
    chapter = yield from _named(name, CHAPTERS[name](work))
    if not chapter.left_out:
        spent = max(time.perf_counter() - start, sum(work.seconds.values()))  # learning of an earlier go too
        chapter = chapter.replace(seconds={**work.seconds, "in all": spent})
        atomic_write(place, (chapter.model_dump_json(indent=2) + "\n").encode())
    return chapter


def _named(name: str, loop: Loop[Chapter]) -> Loop[Chapter]:
    """The same loop, whose stages say which chapter they are of."""
    while True:
        try:
            event = next(loop)
        except StopIteration as stop:
            return stop.value
        yield replace(event, stage=f"{name}: {event.stage}")


def _threads() -> int:
    import torch

    return torch.get_num_threads()
