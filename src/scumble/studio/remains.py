"""What jobs leave on the disk beside their results: what is worth keeping of it, and how the rest goes.

Of a job that ended early, the pictures that it had finished are kept. Copies of what was sent, and pages that
show it, go with the job that made them: what a person removes is then removed.

Learning that was cancelled, or that failed, goes on where it stopped when the same is asked for again: so its
folder has a name that follows from the request. It can be asked for again as long as the pictures are there.
When one of them is removed, what was learnt of it goes too.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Iterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

from scumble.core.errors import ScumbleError
from scumble.core.images import read_image
from scumble.studio.database import Database
from scumble.studio.files import ID, Files

__all__ = ["finished", "forget_runs", "ids_in", "learning_name", "sweep", "tidy", "tidy_all", "unfinished"]

RUN = ".run"
"""How the name of a folder ends that learning can go on from."""
GIVEN = ("subject", "photos")
"""Folders of a job with copies of what went into it."""
UNFINISHED = 2
"""Cancelled learnings of a session that can be gone on with, at most."""


def finished(files: Files, session: str, job: str) -> list[Path]:
    """Pictures in a job's folder that are whole and not kept yet, as when it ended early."""
    known, folder = {stored.place for stored in files.of_job(job)}, files.job_folder(session, job)
    return [
        path
        for path in sorted(folder.rglob("*.png"))
        if not path.name.startswith(".")
        and not any(part in GIVEN or part.endswith(RUN) for part in path.relative_to(folder).parts)
        and files.place(path) not in known
        and _is_whole(path)
    ]


def _is_whole(path: Path) -> bool:
    try:
        read_image(path, background=None)
    except ScumbleError:
        return False
    return True


def tidy(files: Files, session: str, job: str) -> None:
    """Remove what a job has left beside its results."""
    _tidy(files, files.job_folder(session, job), {stored.place for stored in files.of_job(job)})


def tidy_all(files: Files, database: Database) -> None:
    """Remove whatever no record speaks of, as a killed server leaves it, but for learning that can be gone on
    with. Sessions without a record are left alone: where another database took its place, all would go."""
    kept, learning = {place for (place,) in database.rows("SELECT place FROM file")}, unfinished(database)
    for (session,) in database.rows("SELECT id FROM session"):
        for folder in (files.folder / session).glob("*"):
            _tidy(files, folder, kept, spare=folder.name in learning)


def _tidy(files: Files, folder: Path, kept: Collection[str], *, spare: bool = False) -> None:
    """Remove all files below `folder` but those with a place in `kept` and, where told to `spare` them, those
    of runs; then folders that are empty."""
    for path in sorted(folder.rglob("*"), reverse=True):  # what lies in a folder before the folder
        if spare and any(part.endswith(RUN) for part in path.relative_to(folder).parts):
            continue
        with suppress(OSError):
            if path.is_dir() and not path.is_symlink():
                path.rmdir()
            elif files.place(path) not in kept:
                path.unlink()
    with suppress(OSError):
        folder.rmdir()


# Learning


def learning_name(verb: str, settings: dict[str, Any]) -> str:
    """Of the folder that a request for learning works in: the same for the same request."""
    return sha256(json.dumps([verb, settings], sort_keys=True).encode()).hexdigest()[:32]


def unfinished(database: Database) -> set[str]:
    """Folders of all learning that has not ended, and of that which can still be gone on with."""
    there = {name for (name,) in database.rows("SELECT id FROM file")}
    query = "SELECT id, verb, settings, state FROM job WHERE verb LIKE 'learn-%' AND state != 'done'"
    names: set[str] = set()
    for job, verb, text, state in database.rows(query):
        settings = json.loads(text)
        if state in ("waiting", "running"):
            names |= {job, learning_name(verb, settings)}
        elif set(ids_in(settings)) <= there:
            names.add(learning_name(verb, settings))
    return names


def sweep(files: Files, session: str, keep: str) -> None:
    """Remove what cancelled learning left to go on from, but for the newest and the folder `keep`."""
    runs = sorted((files.folder / session).glob(f"*/*{RUN}"), key=lambda run: run.stat().st_mtime)
    for run in runs[:-UNFINISHED]:
        if run.parent.name != keep:
            _remove(run)


def forget_runs(files: Files, database: Database, session: str) -> None:
    """Remove what learning has left that cannot be gone on with any more."""
    learning = unfinished(database)
    for run in (files.folder / session).glob(f"*/*{RUN}"):
        if run.parent.name not in learning:
            _remove(run)


def _remove(run: Path) -> None:
    shutil.rmtree(run, ignore_errors=True)
    with suppress(OSError):  # where something has been learnt in it before
        run.parent.rmdir()


def ids_in(value: object) -> Iterator[str]:
    """Every id of a file in the settings of a job."""
    if isinstance(value, str):
        if ID.fullmatch(value):
            yield value
    elif isinstance(value, dict | list):
        inner = cast("dict[str, object]", value).values() if isinstance(value, dict) else value
        for one in cast("list[object]", inner):
            yield from ids_in(one)
