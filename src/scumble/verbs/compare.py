"""One task, several methods side by side: each timed, its memory measured, its picture scored.

The folder of a comparison:

    index.html          one page that needs nothing else
    compare.json        the same as data
    task.json           what is compared, so that a run is not mixed up with another
    METHOD/             the picture with its recipe, what the method took, and what it learnt

A run that was stopped goes on with the methods that are not done; scores are taken of all pictures at the
end, when nothing of a method is in memory any more.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scumble.core.errors import InputError, ScumbleError
from scumble.core.events import Loop, Progress, finish
from scumble.core.files import atomic_write, check_writable, sha256
from scumble.core.peak import peak_memory
from scumble.history.recipe import library_versions
from scumble.verbs.compare_page import page
from scumble.verbs.compare_runs import ESTIMATES, RUNS, Run
from scumble.verbs.compare_scores import AXES, Scorer
from scumble.verbs.compare_task import METHODS, CompareConfig, Task, why_not
from scumble.verbs.load import RANDOM_MODEL, chosen_device
from scumble.verbs.outputs import check_new, save_pictures

__all__ = ["Comparison", "compare", "compare_to", "estimate_compare", "table"]

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Comparison:
    """What was written."""

    page: Path
    facts: dict[str, Any]
    """What `compare.json` holds."""
    note: str = ""
    """What the person should know, in sentences."""


def compare(
    image: Path | str | None = None,
    *,
    out: Path | str,
    guide: Path | str | None = None,
    mask: Path | str | None = None,
    subject: Path | str | None = None,
    **settings: Any,
) -> Comparison:
    """Compare the methods that can do a task and write the folder `out`; settings are those of
    `CompareConfig`.

    >>> found = scumble.compare("cat.png", instruction="make it night", prompt="a cat at night", out="night")
    >>> print(found.page)
    """
    task = Task.of(CompareConfig.of(settings), image=image, guide=guide, mask=mask, subject=subject)
    return finish(compare_to(task, Path(out)))


def compare_to(task: Task, out: Path, *, with_recipe: bool = True) -> Loop[Comparison]:
    """Compare and write the folder `out`.

    Raises InputError, before any work, where no method can do the task or where `out` holds another
    comparison; ScumbleError where none of the methods came to a picture.
    """
    chosen, left_out = _chosen(task)
    check_writable(out / "task.json")
    _claim(out, task)
    rows: list[dict[str, Any]] = []
    for done, method in enumerate(chosen, 1):
        rows.append((yield from _done(Run(task, method, out / method), with_recipe)))
        yield Progress(stage="methods", step=done, total=len(chosen))
    scorer = Scorer(task)
    pictures = {row["method"]: out / row["picture"] for row in rows if row["picture"]}
    if not pictures:
        raise ScumbleError("None of the methods came to a picture.", rows[0]["failed"])
    scores = yield from scorer.scored(pictures)
    facts = {
        "format": FORMAT,
        **task.facts(),
        "rows": [{**row, "scores": scores.get(row["method"], [])} for row in rows],
        "left out": left_out,
        "truth": scorer.truth.why if task.config.is_toybox else "",
        "machine": library_versions(str(scorer.model.device), _threads()),
        "model": {"name": task.config.model, "hash": scorer.model.hash},
    }
    atomic_write(out / "compare.json", (json.dumps(facts, indent=2) + "\n").encode())
    atomic_write(out / "index.html", page(facts, task, out).encode())
    note = RANDOM_MODEL if scorer.model.is_random else ""
    return Comparison(out / "index.html", facts, note)


def _threads() -> int:
    import torch

    return torch.get_num_threads()


def _chosen(task: Task) -> tuple[list[str], dict[str, str]]:
    """The methods that do the task, and for the others a sentence why not. Raises InputError."""
    asked = task.config.methods or METHODS
    reasons = {name: why_not(name, task) for name in METHODS}
    left_out = {
        name: why or "It was not asked for." for name, why in reasons.items() if why or name not in asked
    }
    chosen = [name for name in METHODS if name not in left_out]
    if not chosen:
        said = " ".join(f"{name}: {reasons[name]}" for name in asked if reasons[name])
        raise InputError("None of the methods can do this.", said)
    return chosen, left_out


def _claim(out: Path, task: Task) -> None:
    """Note what the folder is for. Raises InputError where it is for something else."""
    place, about = out / "task.json", task.facts()
    if place.is_file():
        if json.loads(place.read_bytes()) != json.loads(json.dumps(about)):
            raise InputError(f"{out} holds another comparison.", "Give another folder with -o.")
        return
    check_new(out)
    atomic_write(place, (json.dumps(about, indent=2) + "\n").encode())


def _done(run: Run, with_recipe: bool) -> Loop[dict[str, Any]]:
    """What a method came to, from its folder if that is there and whole."""
    place = run.folder / "row.json"
    if place.is_file() and run.picture.is_file():
        row = json.loads(place.read_bytes())
        if row.get("sha256") == sha256(run.picture):
            return row
    row = yield from _worked(run, with_recipe)
    if row["picture"]:
        atomic_write(place, (json.dumps(row, indent=2) + "\n").encode())
    return row


def _worked(run: Run, with_recipe: bool) -> Loop[dict[str, Any]]:
    """Let a method work. What it cannot do is a sentence in its row; the others go on."""
    failed, settings = "", dict[str, Any]()
    with peak_memory(chosen_device(run.task.config.device)) as peak:
        try:
            picture = yield from RUNS[run.method](run)
        except ScumbleError as problem:
            failed = str(problem)
        else:
            settings = picture.recipe.settings
            save_pictures([picture], [run.picture], with_recipe=with_recipe, edited=run.task.base is not None)
            run.notes += ["The model's safety checker withheld it; it is black."] if picture.withheld else []
    return {
        "method": run.method,
        "picture": None if failed else f"{run.method}/{run.picture.name}",
        "sha256": None if failed else sha256(run.picture),
        "failed": failed,
        "seconds": {part: round(spent, 3) for part, spent in run.seconds.items()},
        "peak_memory_bytes": peak.bytes,
        "peak_memory_of": peak.of,
        "settings": settings,
        "commands": run.commands,
        "notes": run.notes,
    }


def estimate_compare(task: Task, out: Path) -> dict[str, Any]:
    """What `compare_to` would do and need, without doing it."""
    chosen, left_out = _chosen(task)
    rows: list[dict[str, Any]] = []
    for method in chosen:
        try:
            needs = ESTIMATES[method](Run(task, method, out / method))
        except ScumbleError as problem:
            left_out[method] = str(problem)
        else:
            rows.append({"method": method, "seconds": needs.seconds, "memory_bytes": needs.memory_bytes})
    return {
        "rows": rows,
        "left out": left_out,
        "seconds": sum(row["seconds"] for row in rows),
        "memory_bytes": max((row["memory_bytes"] for row in rows), default=0),
    }


def table(facts: dict[str, Any]) -> str:
    """The first figure of each kind for every method, as text."""
    rows = [row for row in facts["rows"] if row["picture"]]
    kinds = [axis for axis in AXES if any(s["axis"] == axis for row in rows for s in row["scores"])]
    lines = [f"{'method':20} {'seconds':>8} {'memory':>8}  " + "  ".join(f"{k:>14}" for k in kinds)]
    for row in rows:
        memory = row["peak_memory_bytes"]
        shown = "" if memory is None else f"{memory / 2**30:.2f} G"
        cells = [_first(row["scores"], kind) for kind in kinds]
        spent = sum(row["seconds"].values())
        lines.append(f"{row['method']:20} {spent:>8.1f} {shown:>8}  " + "  ".join(f"{c:>14}" for c in cells))
    lines += [f"{row['method']}: {row['failed']}" for row in facts["rows"] if row["failed"]]
    lines += [f"{name} left out: {why}" for name, why in facts["left out"].items()]
    return "\n".join(lines)


def _first(scores: Sequence[dict[str, Any]], axis: str) -> str:
    for score in scores:
        if score["axis"] == axis and score["value"] is not None:
            return f"{score['value']:.3f} {'up' if score['better'] == 'higher' else 'down'}"
    return ""
