"""Work cut into shards that can be done in any order, by any number of workers, after any number of kills.

A shard is named by its content: what goes in and every setting that matters. Doing it writes one folder of
that name, whole or not at all, so what is there is done and need not be looked into. A worker computes on one
thread, since the sum of a batch on several threads is rounded in another order: that, a batch that is the
same whoever does it, and a seed for every sample make the bytes the same each time.
"""

from __future__ import annotations

import json
import traceback
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import blake2b
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch

from scumble.core.errors import InputError, ScumbleError
from scumble.core.events import Loop, Progress, finish
from scumble.core.files import atomic_folder, atomic_write, explained

__all__ = [
    "ROWS",
    "Counts",
    "Prepare",
    "Shard",
    "Work",
    "commit",
    "counted",
    "cut",
    "one_thread",
    "run_shards",
]

ROWS = "rows.jsonl"
"""In the folder of a shard: one JSON object a sample. Files that it names are beside it."""
COUNTS = "counts.json"

Counts = Counter[str]


@dataclass(frozen=True, slots=True)
class Shard:
    """A piece of work: its name, what goes in, and how much that is."""

    name: str
    items: tuple[Any, ...]
    weight: int = 1


Work = Callable[[Shard, Path], Loop[Counts]]
"""Does a shard: writes `ROWS` and other files into a folder, and counts."""
Prepare = Callable[[int], Work]
"""Makes the work of the worker of a number, models loaded. It is sent to other processes, so it has to be a
value that pickles: an instance of a class at the top of a module."""


def cut(
    items: Sequence[Any],
    size: int,
    *,
    key: Callable[[Any], object],
    settings: Mapping[str, Any],
    weight: int = 1,
) -> list[Shard]:
    """Shards of `size` items each, in order, the last one shorter; each item counts `weight`.

    `key(item)` and `settings` are JSON; all that a result depends on has to be in them.
    """
    shards: list[Shard] = []
    for start in range(0, len(items), size):
        part = tuple(items[start : start + size])
        content = json.dumps([settings, [key(item) for item in part]], sort_keys=True)
        name = blake2b(content.encode(), digest_size=12, person=b"scumble shard").hexdigest()
        shards.append(Shard(name, part, weight * len(part)))
    return shards


def run_shards(shards: Sequence[Shard], folder: Path, prepare: Prepare, *, workers: int = 1) -> Loop[Counts]:
    """Do those shards that are not in `folder` yet; the counts of all, added up.

    Several workers are processes of their own. When one fails or dies, or the loop is closed, all end at
    once, and what they have committed stays. Raises whatever a worker raised.
    """
    with explained(folder, "written"):
        folder.mkdir(parents=True, exist_ok=True)
    left = [shard for shard in shards if not (folder / shard.name).is_dir()]
    total = sum(shard.weight for shard in shards)
    done = total - sum(shard.weight for shard in left)
    if done:
        yield Progress(stage="drawing", step=done, total=total)
    if left:
        run = _alone(left, folder, prepare) if workers == 1 else _together(left, folder, prepare, workers)
        for more in run:
            done += more
            yield Progress(stage="drawing", step=done, total=total)
    return counted(shards, folder)


def counted(shards: Sequence[Shard], folder: Path) -> Counts:
    """The counts of finished shards, added up."""
    total: Counts = Counter()
    for shard in shards:
        path = folder / shard.name / COUNTS
        with explained(path, "read"):
            total.update(json.loads(path.read_text()))
    return total


def commit(shard: Shard, folder: Path, work: Work) -> Loop[Counts]:
    """Do one shard. Somebody else may do it at the same time: both write the same, and one of them first."""
    try:
        with atomic_folder(folder / shard.name) as temporary:
            counts = yield from work(shard, temporary)
            atomic_write(temporary / COUNTS, json.dumps(dict(sorted(counts.items()))).encode())
            return counts
    except InputError:
        if not (folder / shard.name / COUNTS).is_file():
            raise
        return counted([shard], folder)


@contextmanager
def one_thread() -> Generator[None]:
    """Inside, this process computes on one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _alone(shards: Sequence[Shard], folder: Path, prepare: Prepare) -> Generator[int]:
    """Do the shards in this process; yields how much more is done."""
    with one_thread():
        work = prepare(0)
        for shard in shards:
            before = 0
            loop = commit(shard, folder, work)
            for event in loop:
                yield event.step - before
                before = event.step
            yield shard.weight - before


# Several processes


def _together(shards: Sequence[Shard], folder: Path, prepare: Prepare, workers: int) -> Generator[int]:
    """Do the shards in processes that ask for the next one when they are free; yields how much more is
    done.
    """
    context = get_context("spawn")
    waiting, busy = list(reversed(shards)), dict[Connection, Shard]()
    processes: list[Any] = []
    try:
        for number in range(min(workers, len(shards))):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, number, prepare, folder), daemon=True)
            process.start()
            theirs.close()  # so that the pipe ends with the worker
            processes.append(process)
            busy[ours] = waiting.pop()
            _send(ours, busy[ours])
        while busy:
            for ready in wait(list(busy)):
                connection: Any = ready
                shard = busy.pop(connection)
                _take_report(connection)
                yield shard.weight
                if waiting:
                    busy[connection] = waiting.pop()
                    _send(connection, busy[connection])
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()


def _send(connection: Connection, shard: Shard) -> None:
    with suppress(BrokenPipeError):  # a dead worker is noticed where its report is read
        connection.send(shard)


def _take_report(connection: Connection) -> None:
    """Raises what the worker raised, and ScumbleError if it is no more."""
    try:
        problem = connection.recv()
    except (EOFError, OSError) as gone:
        raise ScumbleError(
            "A worker was killed, perhaps because memory ran out.",
            "The same command goes on with what is done; try fewer workers or a smaller batch.",
        ) from gone
    if problem is not None:
        raise problem


def _serve(connection: Connection, number: int, prepare: Prepare, folder: Path) -> None:
    """A worker: does the shards that come, and reports None, or what went wrong. Ends with its parent."""
    torch.set_num_threads(1)
    work: Work | None = None
    with suppress(KeyboardInterrupt, EOFError, BrokenPipeError):
        while True:
            shard: Shard = connection.recv()
            problem: Exception | None = None
            try:
                work = prepare(number) if work is None else work
                finish(commit(shard, folder, work))
            except ScumbleError as said:
                problem = said
            except Exception:
                problem = RuntimeError(traceback.format_exc())  # any other may not pickle
            connection.send(problem)
