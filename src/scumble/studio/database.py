"""The studio's own records: sessions, files and jobs, in one SQLite file in its folder.

One process at a time may use a folder: SQLite's lock is held for as long as the server lives, and the system
lets go of it when the process is killed. What was committed is there again after that.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from threading import RLock
from typing import Any

from scumble.core.errors import InputError
from scumble.core.files import explained

__all__ = ["Database"]

VERSION = 1
SCHEMA = """
CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE session (
    id TEXT PRIMARY KEY, token TEXT NOT NULL UNIQUE, member INTEGER NOT NULL, seen REAL NOT NULL
);
CREATE TABLE file (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, session TEXT NOT NULL,
    kind TEXT NOT NULL, name TEXT NOT NULL, label TEXT NOT NULL, place TEXT NOT NULL,
    width INTEGER, height INTEGER, frames INTEGER, bytes INTEGER NOT NULL, hash TEXT NOT NULL,
    recipe TEXT, facts TEXT NOT NULL, thumbnail BLOB NOT NULL, job TEXT, listed INTEGER NOT NULL,
    created REAL NOT NULL
);
CREATE INDEX file_session ON file (session, number);
CREATE INDEX file_job ON file (job);
CREATE TABLE source (
    file INTEGER NOT NULL REFERENCES file (number) ON DELETE CASCADE, parent TEXT NOT NULL
);
CREATE INDEX source_file ON source (file);
CREATE INDEX source_parent ON source (parent);
CREATE TABLE job (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, session TEXT NOT NULL,
    verb TEXT NOT NULL, settings TEXT NOT NULL, state TEXT NOT NULL, created REAL NOT NULL,
    seconds REAL NOT NULL, step INTEGER NOT NULL, steps INTEGER NOT NULL,
    note TEXT NOT NULL, error TEXT NOT NULL, remedy TEXT NOT NULL
);
CREATE INDEX job_session ON job (session, number);
"""


class Database:
    """An open database, for any number of threads."""

    def __init__(self, folder: Path) -> None:
        """Open the one in `folder`, made if it is not there. Raises InputError where another has it."""
        path = folder / "studio.sqlite3"
        with explained(path, "written"):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            # What people draw is nobody else's: the files that SQLite adds take over this mode.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        self._lock = RLock()
        self._connection = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
        try:
            self._prepare()
        except sqlite3.Error as problem:
            self._connection.close()
            if "locked" in str(problem):
                raise InputError(
                    f"Another studio is using {folder}.", "Stop it, or give another place with --folder."
                ) from None
            raise InputError(
                f"The records in {path} cannot be used: {problem}.", "Give another place with --folder."
            ) from problem

    def _prepare(self) -> None:
        run = self._connection.execute
        run("PRAGMA locking_mode = EXCLUSIVE")
        run("PRAGMA journal_mode = WAL")
        run("PRAGMA synchronous = NORMAL")
        run("PRAGMA foreign_keys = ON")
        run("BEGIN IMMEDIATE")  # takes the lock, which is then kept
        version = run("PRAGMA user_version").fetchone()[0]
        if version == 0:
            for statement in SCHEMA.split(";"):
                run(statement)
            run(f"PRAGMA user_version = {VERSION}")
        run("COMMIT")
        if version > VERSION:
            raise sqlite3.DatabaseError(f"it was made by a newer scumble (format {version})")

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._connection.close()

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """What a query finds."""
        with self._lock:
            return self._connection.execute(query, values).fetchall()

    def row(self, query: str, *values: Any) -> tuple[Any, ...] | None:
        """The first row that a query finds, if any."""
        with self._lock:
            return self._connection.execute(query, values).fetchone()

    @contextmanager
    def writing(self) -> Generator[sqlite3.Connection]:
        """One transaction: all of it or, where the block raises, nothing."""
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def write(self, statement: str, *values: Any) -> None:
        """One statement as a transaction."""
        with self.writing() as connection:
            connection.execute(statement, values)
