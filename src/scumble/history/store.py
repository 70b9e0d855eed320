"""The history of one user: what was made, from what, with what settings, and what it looks like.

One SQLite file in the user's data folder, in write-ahead mode, which any number of processes may use at once:

| table | holds |
|---|---|
| output | one row for each file that was written: when, where, its hash, its recipe, a thumbnail |
| source | what each output was made from: role, name, hash |
| place | where content of a hash was seen lying |

Lineage is by content: an output came from another if the hash of that one is among its sources, wherever the
files lie by now. Rows are added and, by `prune` or over the size limit, removed; none is ever changed.
Pictures themselves are never touched.

`SCUMBLE_HISTORY=off` keeps none; a number in it is the limit in megabytes.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar

from PIL import Image

from scumble.core.errors import InputError, ScumbleError
from scumble.core.files import explained, sha256
from scumble.core.places import data_folder
from scumble.history.recipe import Recipe

__all__ = ["LIMIT", "Entry", "Made", "Store", "is_off", "recalled", "remember", "thumbnail"]

log = logging.getLogger("scumble.history")

Result = TypeVar("Result")

NAME = "history.sqlite3"
VERSION = 1
"""Of the tables; a file with a later one is left alone."""
LIMIT = 512
"""Size at which the oldest entries make room, in megabytes, unless SCUMBLE_HISTORY says another."""
PATIENCE = 5.0
"""Seconds to wait for another process that is writing."""
SIDE = 128
"""Longest side of a thumbnail, in pixels."""
LARGEST = 2**63 - 1
"""The largest number that SQLite holds; what a person asks for may be larger."""

SCHEMA = """
CREATE TABLE output (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    made REAL NOT NULL, place TEXT NOT NULL, hash TEXT NOT NULL, command TEXT NOT NULL,
    recipe TEXT NOT NULL, thumbnail BLOB NOT NULL
);
CREATE INDEX output_hash ON output (hash);
CREATE TABLE source (
    output INTEGER NOT NULL REFERENCES output (id) ON DELETE CASCADE,
    role TEXT NOT NULL, name TEXT NOT NULL, hash TEXT NOT NULL
);
CREATE INDEX source_output ON source (output);
CREATE INDEX source_hash ON source (hash);
CREATE TABLE place (hash TEXT NOT NULL, place TEXT NOT NULL, PRIMARY KEY (hash, place)) WITHOUT ROWID;
"""


class Made(NamedTuple):
    """An output that was just written."""

    path: Path
    hash: str
    """SHA-256 of the file."""
    recipe: Recipe
    image: Image.Image | None
    """What it looks like; None of what cannot be seen."""

    @property
    def row(self) -> dict[str, str | int]:
        """Path, seed and SHA-256, for programs."""
        return {"path": str(self.path), "seed": self.recipe.seed, "sha256": self.hash}


@dataclass(frozen=True, slots=True)
class Entry:
    """One output in the history."""

    number: int
    """Its number; numbers are not used twice."""
    made: float
    """When, in seconds since 1970."""
    place: Path
    """Where it was written."""
    hash: str
    """SHA-256 of the file."""
    recipe: Recipe
    thumbnail: bytes
    """A small WebP picture; empty if there is none."""

    @property
    def is_there(self) -> bool:
        """Whether a file still lies where it was written."""
        return self.place.is_file()


def is_off() -> bool:
    """Whether the user wants no history."""
    return os.environ.get("SCUMBLE_HISTORY", "").strip().lower() in ("off", "no", "false", "0")


@contextmanager
def recalled() -> Generator[Store | None]:
    """The user's history to look things up in; None where there is none, or it is off or cannot be read."""
    if is_off() or not (data_folder() / NAME).is_file():
        yield None
        return
    with ExitStack() as stack:
        try:
            store = stack.enter_context(Store.opened())
        except ScumbleError as problem:
            _note(f"The history was not looked at: {problem}")
            store = None
        yield store


def remember(made: Iterable[Made]) -> None:
    """Add outputs to the history, unless that is off.

    Never fails: pictures are worth more than their history. What goes wrong is logged, each reason once.
    """
    if is_off():
        return
    try:
        with Store.opened() as store:
            store.add(made)
    except (sqlite3.Error, OSError, ScumbleError, ValueError) as problem:
        _note(f"The history was not kept, the pictures were: {problem}")


@cache
def _note(text: str) -> None:
    log.warning(text)


def thumbnail(image: Image.Image) -> bytes:
    """`image` at most SIDE pixels long, as a WebP file of a few kilobytes."""
    small = image.convert("RGB")
    small.thumbnail((SIDE, SIDE))
    small.info.clear()
    file = BytesIO()
    small.save(file, "WEBP", quality=70)
    return file.getvalue()


class Store:
    """An open history. Every method is one transaction."""

    def __init__(self, connection: sqlite3.Connection, limit: int) -> None:
        self._database = connection
        self._limit = limit

    @classmethod
    @contextmanager
    def opened(cls, path: Path | None = None, *, limit: int | None = None) -> Generator[Self]:
        """The history in the file `path`, the user's own if not given, made if it is not there.

        `limit` is its greatest size in bytes. Raises InputError where it cannot be used.
        """
        path = path or data_folder() / NAME
        with explained(path, "written"):
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            # Prompts and places are nobody else's: the files that SQLite adds take over this mode.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        try:
            with closing(sqlite3.connect(path, timeout=PATIENCE, isolation_level=None)) as connection:
                _prepare(connection)
                yield cls(connection, _limit() if limit is None else limit)
        except sqlite3.Error as problem:
            raise InputError(
                f"The history in {path} cannot be used: {problem}.",
                "SCUMBLE_HISTORY=off goes without it; moving the file away starts a new one.",
            ) from problem

    # Writing

    def add(self, made: Iterable[Made]) -> list[int]:
        """Add outputs; returns their numbers. Over the limit, the oldest entries make room."""
        rows = [
            (time.time(), str(path.absolute()), digest, recipe, b"" if image is None else thumbnail(image))
            for path, digest, recipe, image in made
        ]
        with self._writing():
            numbers = [self._add(*row) for row in rows]
            self._make_room()
        return numbers

    def _add(self, made: float, place: str, digest: str, recipe: Recipe, small: bytes) -> int:
        sources = [*([recipe.model] if recipe.model else []), *recipe.ingredients]
        number = self._database.execute(
            "INSERT INTO output (made, place, hash, command, recipe, thumbnail) VALUES (?, ?, ?, ?, ?, ?)",
            (made, place, digest, recipe.command, recipe.to_json(), small),
        ).lastrowid
        assert number is not None
        self._database.executemany(
            "INSERT INTO source VALUES (?, ?, ?, ?)", [(number, s.role, s.name, s.hash) for s in sources]
        )
        places = [(digest, place), *((s.hash, s.place) for s in sources if s.place)]
        self._database.executemany("INSERT OR IGNORE INTO place VALUES (?, ?)", places)
        return number

    def prune(
        self,
        *,
        keep: int | None = None,
        older_than: float | None = None,
        gone: bool = False,
        only_count: bool = False,
    ) -> int:
        """Forget all but the newest `keep` entries, those made before `older_than` (seconds since 1970), and
        with `gone` those whose file is not there any more; returns how many. Files are not touched, and with
        `only_count` nothing is.
        """
        with self._writing(keep=not only_count):
            before = self.count
            if keep is not None:
                newest = "SELECT id FROM output ORDER BY id DESC LIMIT ?"
                self._database.execute(
                    f"DELETE FROM output WHERE id NOT IN ({newest})", (min(keep, LARGEST),)
                )
            if older_than is not None:
                self._database.execute("DELETE FROM output WHERE made < ?", (older_than,))
            if gone:
                rows = self._database.execute("SELECT id, place FROM output").fetchall()
                lost = [(number,) for number, place in rows if not Path(place).is_file()]
                self._database.executemany("DELETE FROM output WHERE id = ?", lost)
            self._sweep()
            forgotten = before - self.count
        self._database.execute("PRAGMA incremental_vacuum").fetchall()
        return forgotten

    def _make_room(self) -> None:
        """Forget the oldest entries until the file is a tenth under its limit; the newest stays."""
        if self.size <= self._limit:
            return
        while self.size > 0.9 * self._limit and (count := self.count) > 1:
            oldest = "SELECT id FROM output ORDER BY id LIMIT ?"
            self._database.execute(f"DELETE FROM output WHERE id IN ({oldest})", (max(1, count // 10),))
            self._sweep()

    def _sweep(self) -> None:
        """Drop places of what no entry speaks of."""
        known = "SELECT hash FROM output UNION SELECT hash FROM source"
        self._database.execute(f"DELETE FROM place WHERE hash NOT IN ({known})")

    @contextmanager
    def _writing(self, *, keep: bool = True) -> Generator[None]:
        """One transaction, undone after an error and where what it did is not to be kept."""
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT" if keep else "ROLLBACK")

    # Reading

    @property
    def size(self) -> int:
        """Bytes that the entries take."""
        pages, free, page = (
            self._database.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "freelist_count", "page_size")
        )
        return (pages - free) * page

    def newest(self, count: int = 20) -> list[Entry]:
        """The newest `count` entries, newest first."""
        return self._entries("ORDER BY id DESC LIMIT ?", min(count, LARGEST))

    def entry(self, number: int) -> Entry:
        """The entry of that number. Raises InputError."""
        found = self._entries("WHERE id = ?", number) if number <= LARGEST else []
        if not found:
            raise InputError(f"The history has no entry {number}.", "`scumble history` lists what it has.")
        return found[0]

    def made(self, digest: str) -> list[Entry]:
        """Entries whose file had the hash `digest`, newest first."""
        return self._entries("WHERE hash = ? ORDER BY id DESC", digest)

    def of_file(self, path: Path) -> Entry | None:
        """The entry of that file's content: the one written to that very place if there is one, else one
        whose file is still there, else the newest.
        """

        def nearness(entry: Entry) -> tuple[bool, bool, int]:
            there = entry.is_there
            return there and entry.place.samefile(path), there, entry.number

        return max(self.made(sha256(path)), key=nearness, default=None)

    def parents(self, entry: Entry) -> list[Entry]:
        """An earlier entry for each file that `entry` was made from, where the history has one: of several
        with that content the newest of that name, or the newest.
        """
        found = list[Entry]()
        for ingredient in entry.recipe.ingredients:
            earlier = [e for e in self.made(ingredient.hash) if e.number < entry.number]
            named = [e for e in earlier if e.place.name == ingredient.name]
            found += (named or earlier)[:1]
        return found

    def children(self, entry: Entry) -> list[Entry]:
        """What was made from `entry`, oldest first."""
        with_it = "SELECT output FROM source WHERE hash = ?"
        return self._entries(f"WHERE id IN ({with_it}) ORDER BY id", entry.hash)

    def places(self, digest: str) -> list[Path]:
        """Where this user's runs saw content of that hash; it may have moved or changed since."""
        rows = self._database.execute("SELECT place FROM place WHERE hash = ? ORDER BY place", (digest,))
        return [Path(place) for (place,) in rows.fetchall()]

    @property
    def count(self) -> int:
        """How many entries there are."""
        return self._database.execute("SELECT count(*) FROM output").fetchone()[0]

    def _entries(self, which: str, *values: Any) -> list[Entry]:
        columns = "SELECT id, made, place, hash, recipe, thumbnail FROM output"
        return [
            Entry(number, made, Path(place), digest, Recipe.from_json(recipe), small)
            for number, made, place, digest, recipe, small in self._database.execute(
                f"{columns} {which}", values
            ).fetchall()
        ]


def _limit() -> int:
    """Bytes."""
    text = os.environ.get("SCUMBLE_HISTORY", "").strip()
    return (int(text) if text.isdecimal() else LIMIT) * 10**6


def _prepare(connection: sqlite3.Connection) -> None:
    """Set up a connection, and the tables where there are none."""
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA foreign_keys = ON")
    version = _patiently(lambda: connection.execute("PRAGMA user_version").fetchone()[0])
    if version == 0:
        # Both stay in the file; only its first user has to change it.
        for pragma in ("auto_vacuum = INCREMENTAL", "journal_mode = WAL"):
            _patiently(lambda pragma=pragma: connection.execute(f"PRAGMA {pragma}").fetchall())
        _patiently(lambda: connection.execute("BEGIN IMMEDIATE"))
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:  # otherwise another process was faster
            for statement in SCHEMA.split(";"):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
    if version > VERSION:
        raise sqlite3.DatabaseError(f"it was made by a newer scumble (format {version})")


def _patiently(work: Callable[[], Result]) -> Result:
    """`work()`, again and again while another process holds the file: a change of the journal's mode, and the
    last one's closing, make others wait that do not wait by themselves."""
    last = time.monotonic() + PATIENCE
    while True:
        try:
            return work()
        except sqlite3.OperationalError as problem:
            if "locked" not in str(problem) or time.monotonic() > last:
                raise
        time.sleep(0.02)
