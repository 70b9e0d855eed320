"""The queue: one worker, since models do not like two, and what pages are told of each job.

A job is a loop of `scumble.verbs`. The worker takes its steps one by one and looks between them whether it
was cancelled; a loop that is closed puts the model back as it was. What a job has done stands in the database
when it ends; jobs that wait stand there from the start, so that a server that was killed goes on with them.
"""

from __future__ import annotations

import json
import logging
import time
from base64 import b64encode
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from secrets import token_hex
from threading import Condition, Thread
from typing import Any

from PIL import Image

from scumble.core.errors import InputError, ScumbleError
from scumble.core.events import Loop, Progress
from scumble.core.keep import keeping
from scumble.core.memory import is_out_of_memory, too_little
from scumble.studio.database import Database
from scumble.studio.files import ID, Files
from scumble.studio.problems import Refused, not_found
from scumble.studio.remains import finished, forget_runs, ids_in, tidy, tidy_all
from scumble.studio.settings import Settings
from scumble.studio.work import Done

__all__ = ["ENDED", "Job", "Jobs", "Start"]

log = logging.getLogger("scumble.studio")

WAITING, RUNNING, DONE, FAILED, CANCELLED = "waiting", "running", "done", "failed", "cancelled"
ENDED = (DONE, FAILED, CANCELLED)
MODELS = 3
"""Models that are kept loaded, at most: one that draws, one that edits, one CLIP."""
REMEMBERED = 200
"""Ended jobs of a session that are listed though nothing came of them, at most."""
FORGET = (
    "DELETE FROM job WHERE session = ? AND state IN ('done', 'failed', 'cancelled') AND number < ("
    "SELECT number FROM job WHERE session = ? ORDER BY number DESC LIMIT 1 OFFSET ?) "
    "AND id NOT IN (SELECT job FROM file WHERE job IS NOT NULL)"
)
PREVIEW = 128
"""Longest side of a preview, in pixels."""
STOPPED = InputError("The studio was stopped while this ran.", "Start it again: its settings are kept.")
UNFORESEEN = ScumbleError("Something went wrong that nobody foresaw.", "The studio's log says what it was.")


@dataclass(slots=True, kw_only=True, eq=False)
class Job:
    """One job, as far as a page is told of it. Only the worker changes one that runs."""

    id: str
    session: str
    verb: str
    settings: dict[str, Any]
    created: float
    state: str = WAITING
    step: int = 0
    steps: int = 0
    note: str = ""
    preview: str | None = None
    seconds: float = 0.0
    began: float | None = None
    stage: str = ""
    stage_began: float = 0.0
    looked: float = 0.0
    """When the loop last said something."""
    error: str = ""
    remedy: str = ""
    cancelling: bool = False
    version: int = 0
    """Counts changes."""

    def show(self, event: Progress) -> None:
        """Take over what a loop says of itself."""
        if event.stage != self.stage:
            self.stage, self.stage_began = event.stage, self.looked
        self.looked = time.monotonic()
        self.step, self.steps = event.step, event.total
        loss = "" if event.loss is None or event.loss != event.loss else f", loss {event.loss:.4f}"
        self.note = "stopping" if self.cancelling else f"{event.stage}{loss}"
        if event.preview is not None:
            self.preview = _data_url(event.preview)
        self.version += 1

    @property
    def passed(self) -> float:
        """Seconds of work so far."""
        began = self.began  # which the worker may take away at any moment
        return self.seconds if began is None else time.monotonic() - began

    @property
    def left(self) -> float | None:
        """Seconds that this stage will take, if it goes on as it did."""
        if self.state != RUNNING or not self.step:
            return None
        return (time.monotonic() - self.stage_began) / self.step * max(0, self.steps - self.step)


Start = Callable[[Job], Loop[Done]]
"""Gives the loop of a job. May raise what its loop may."""


class Jobs:
    """All jobs of all sessions."""

    def __init__(self, database: Database, files: Files, settings: Settings, start: Start) -> None:
        self._database, self._files, self._settings, self._start_loop = database, files, settings, start
        self._changed = Condition()
        self._queue: deque[Job] = deque()
        self._live: dict[str, Job] = {}
        self._closing = False
        self._worker: Thread | None = None
        self._recover()

    # The worker's life

    def start(self) -> None:
        """Begin to work."""
        self._worker = Thread(target=self._work, name="studio-worker", daemon=True)
        self._worker.start()

    def stop(self, patience: float = 20.0) -> None:
        """End the running job after its present step, keep the waiting ones, and wait for that."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._worker is not None:
            self._worker.join(patience)

    def close_soon(self) -> None:
        """Let streams and the running job end at their next look. Safe in a signal handler."""
        self._closing = True

    @property
    def closing(self) -> bool:
        """Whether the studio is about to end."""
        return self._closing

    # Asking

    def add(self, session: str, verb: str, settings: dict[str, Any]) -> Job:
        """Put a job at the end of the queue. Raises Refused where the queue is full."""
        with self._changed:
            mine = sum(job.session == session for job in self._queue)
            if mine >= self._settings.session_waiting:
                raise Refused(429, f"You have {mine} jobs waiting, the most there may be.", "Wait for one.")
            if len(self._queue) >= self._settings.waiting:
                raise Refused(429, f"There are {len(self._queue)} jobs waiting.", "Try again a little later.")
            job = Job(id=token_hex(16), session=session, verb=verb, settings=settings, created=time.time())
            self._database.write(
                f"INSERT INTO job ({COLUMNS}) VALUES ({', '.join('?' * len(COLUMNS.split(', ')))})",
                *_values(job),
            )
            self._live[job.id] = job
            self._queue.append(job)
            self._changed.notify_all()
        self._database.write(FORGET, session, session, REMEMBERED)
        return job

    def get(self, session: str, name: str) -> Job:
        """The job with the id `name` of this session. Raises Refused, in one way whatever the reason."""
        if not ID.fullmatch(name):
            raise not_found("This job")
        live = self._live.get(name)
        if live is not None and live.session == session:
            return live
        row = self._database.row(f"SELECT {COLUMNS} FROM job WHERE id = ? AND session = ?", name, session)
        if row is None:
            raise not_found("This job")
        return _job(row)

    def newest(self, session: str, limit: int = 50) -> list[Job]:
        """Jobs of a session, newest first."""
        query = f"SELECT {COLUMNS} FROM job WHERE session = ? ORDER BY number DESC LIMIT ?"
        live = dict(self._live)  # before the rows: what ends in between has its end in it
        stored = [_job(row) for row in self._database.rows(query, session, limit)]
        return [live.get(job.id, job) for job in stored]

    def cancel(self, job: Job) -> None:
        """Take a job out of the queue, or stop it after its present step. Raises Refused if it has ended."""
        with self._changed:
            if job in self._queue:
                self._queue.remove(job)
                self._end(job, CANCELLED)
            elif job.state == RUNNING:
                job.cancelling = True
                job.note = "stopping"
                job.version += 1
            elif job.state != CANCELLED:
                raise Refused(409, "This job has ended already.", "What it made is in the history.")

    def shown(self, job: Job) -> dict[str, Any]:
        """What a page is told of a job."""
        with self._changed:
            place = next((n for n, other in enumerate(self._queue, 1) if other is job), None)
        left = job.left
        return {
            "id": job.id, "verb": job.verb, "state": job.state, "place": place,
            "step": job.step, "steps": job.steps, "seconds": round(job.passed, 1),
            "left": None if left is None else round(left, 1), "note": job.note, "preview": job.preview,
            "results": [stored.shown() for stored in self._files.of_job(job.id)],
            "error": job.error or None, "remedy": job.remedy or None,
            "settings": job.settings, "created": job.created,
        }  # fmt: skip

    # Working

    def _work(self) -> None:
        with keeping(MODELS) as shelf:
            while (job := self._next()) is not None:
                try:
                    broken = self._do(job)
                    self.forget_learning(job.session)
                except Exception as problem:  # its end cannot be written down, say on a full disk
                    log.error("The job %s was not recorded.", job.id, exc_info=problem)
                    job.state, broken = FAILED, True
                    job.error, job.remedy = UNFORESEEN.message, UNFORESEEN.remedy
                    self._live.pop(job.id, None)
                if broken:
                    shelf.clear()  # a model that something went wrong in is not trusted any more

    def _next(self) -> Job | None:
        with self._changed:
            while not self._queue and not self._closing:
                self._changed.wait()
            if self._closing:
                return None
            job = self._queue.popleft()
            job.state, job.began, job.note = RUNNING, time.monotonic(), "beginning"
            job.looked = job.began
            job.version += 1
            for other in self._queue:
                other.version += 1  # each has moved up
        return job

    def _do(self, job: Job) -> bool:
        """Run a job to its end, whatever that is; returns whether something broke on the way."""
        done = None
        self._database.write("UPDATE job SET state = ? WHERE id = ?", RUNNING, job.id)
        try:
            done = self._followed(job)
            if done is not None:
                self._keep(job, done.paths, done.facts)
                tidy(self._files, job.session, job.id)
                job.note = done.note
                self._finish(job, DONE)
            else:
                self._salvage(job)
                if self._closing and not job.cancelling:
                    raise STOPPED
                self._finish(job, CANCELLED)
        except Exception as problem:
            if done is None:
                self._salvage(job)
            self._finish(job, FAILED, _explained(problem, job))
            return not isinstance(problem, InputError | Refused)
        return False

    def _followed(self, job: Job) -> Done | None:
        """What the loop of a job returns; None where it was cancelled."""
        loop = self._start_loop(job)
        try:
            while not (job.cancelling or self._closing):
                try:
                    job.show(next(loop))
                except StopIteration as stop:
                    return stop.value
        finally:
            loop.close()
        return None

    def _keep(
        self, job: Job, paths: Sequence[Path], facts: Mapping[Path, Mapping[str, Any]] | None = None
    ) -> None:
        self._files.add_results(job.session, job.id, paths, list(ids_in(job.settings)), facts or {})

    def _salvage(self, job: Job) -> None:
        """Keep the pictures that a job had finished when it ended early, and nothing else of it."""
        self._keep(job, finished(self._files, job.session, job.id))
        tidy(self._files, job.session, job.id)

    def forget_learning(self, session: str) -> None:
        """Let go of cancelled learning whose pictures have been removed."""
        forget_runs(self._files, self._database, session)

    def _finish(self, job: Job, state: str, problem: ScumbleError | None = None) -> None:
        if problem is not None:
            job.note = ""
            job.error = self._files.without_paths(problem.message)
            job.remedy = self._files.without_paths(problem.remedy)
        with self._changed:
            self._end(job, state)

    def _end(self, job: Job, state: str) -> None:
        """Write down how a job ended, and only then say so: whoever finds it no more here finds it there."""
        job.seconds, job.began, job.preview = round(job.passed, 2), None, None
        job.note = "" if state == CANCELLED else job.note
        self._database.write(
            "UPDATE job SET state = ?, seconds = ?, step = ?, steps = ?, note = ?, error = ?, remedy = ? "
            "WHERE id = ?",
            state, job.seconds, job.step, job.steps, job.note, job.error, job.remedy, job.id,
        )  # fmt: skip
        job.state = state
        job.version += 1
        self._live.pop(job.id, None)

    def _recover(self) -> None:
        """Queue what waited when the studio last ended; what ran then has failed, as it may be what ended
        it, and what it had finished is kept."""
        query = f"SELECT {COLUMNS} FROM job WHERE state = ? ORDER BY number"
        for row in self._database.rows(query, RUNNING):
            job = _job(row)
            try:
                self._salvage(job)
            except (OSError, ScumbleError) as problem:  # the studio starts all the same
                log.error("What the job %s had finished was not kept.", job.id, exc_info=problem)
            self._finish(job, FAILED, STOPPED)
        tidy_all(self._files, self._database)
        for row in self._database.rows(query, WAITING):
            job = _job(row)
            self._queue.append(job)
            self._live[job.id] = job


COLUMNS = "id, session, verb, settings, created, state, step, steps, note, seconds, error, remedy"


def _values(job: Job) -> list[Any]:
    names = COLUMNS.split(", ")
    return [json.dumps(job.settings) if name == "settings" else getattr(job, name) for name in names]


def _job(row: tuple[Any, ...]) -> Job:
    values = dict(zip(COLUMNS.split(", "), row, strict=True))
    return Job(**(values | {"settings": json.loads(values["settings"])}))


def _explained(problem: Exception, job: Job) -> ScumbleError:
    """One sentence for the person; what nobody foresaw goes to the log."""
    if isinstance(problem, ScumbleError):
        return problem
    if is_out_of_memory(problem):
        return too_little("this")
    if isinstance(problem, Refused):
        return InputError(problem.error, problem.remedy)
    log.error("The job %s (%s) failed.", job.id, job.verb, exc_info=problem)
    return UNFORESEEN


def _data_url(picture: Image.Image) -> str:
    small = picture.convert("RGB")
    small.thumbnail((PREVIEW, PREVIEW))
    file = BytesIO()
    small.save(file, "WEBP", quality=80)
    return "data:image/webp;base64," + b64encode(file.getvalue()).decode()
