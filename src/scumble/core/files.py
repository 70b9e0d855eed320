"""Files written whole or not at all, names that are safe to write to, and hashes of what was read.

A file is written beside its final name, flushed to the disk and then renamed over it, so whoever looks sees
the old file or the new one, never a part of one. Every `OSError` becomes one sentence with the path in it.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import unicodedata
from collections.abc import Callable, Generator
from contextlib import contextmanager
from hashlib import file_digest
from pathlib import Path
from secrets import token_hex
from typing import BinaryIO, Literal

from scumble.core.errors import DiskFullError, InputError, ScumbleError

__all__ = [
    "atomic_folder",
    "atomic_path",
    "atomic_write",
    "check_writable",
    "explained",
    "is_there",
    "read_bytes",
    "safe_name",
    "sha256",
    "unique_path",
]

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_PARTIAL = ".partial"
"""What the name of a file that is being written has in it."""
_RESERVED = {"con", "prn", "aux", "nul"} | {f"{port}{i}" for port in ("com", "lpt") for i in range(10)}


@contextmanager
def explained(
    path: Path, doing: Literal["read", "written"], error: type[InputError] = InputError
) -> Generator[None]:
    """Turn any `OSError` raised inside into one sentence about `path`, or about the file that the error
    names.

    A full disk or quota becomes DiskFullError; everything else becomes `error`.
    """
    if "\0" in str(path):
        raise error(f"{str(path)!r} is not a file name.")
    try:
        yield
    except OSError as problem:
        raise _translated(problem, path, doing, error) from problem


@contextmanager
def atomic_path(path: Path | str) -> Generator[Path]:
    """Give a temporary path beside `path` to write to; move it to `path` if the block ends well.

    Missing parent folders are made. If the block raises, the temporary file is removed and `path` is as it
    was. The temporary name keeps the suffix, since many writers choose the format by it.
    """
    path = Path(path)
    with explained(path, "written"):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.parent / f".{token_hex(6)}{_PARTIAL}{path.suffix}"
        try:
            yield temporary
            _flush(temporary)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        _flush_folder(path.parent)


def atomic_write(path: Path | str, content: bytes | Callable[[BinaryIO], object]) -> None:
    """Write `content`, or what `content(file)` writes into the open file, to `path`: whole or not at all.

    Raises DiskFullError when the disk is full and InputError when the place cannot be written to.
    """
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        if callable(content):
            content(file)
        else:
            file.write(content)


@contextmanager
def atomic_folder(path: Path | str) -> Generator[Path]:
    """Give a temporary folder beside `path` to fill; rename it to `path` if the block ends well.

    Raises InputError when `path` exists and is not an empty folder: a folder of results is never written
    over.
    """
    path = Path(path)
    with explained(path, "written"):
        if path.exists() and not (path.is_dir() and not any(path.iterdir())):
            raise InputError(f"{path} already exists.", "Choose another name or remove it first.")
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.parent / f".{token_hex(6)}{_PARTIAL}"
        temporary.mkdir()
        try:
            yield temporary
            for file in filter(Path.is_file, temporary.rglob("*")):
                _flush(file)
            temporary.replace(path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        _flush_folder(path.parent)


def check_writable(path: Path | str) -> None:
    """Raise InputError, before the work for it, if a file cannot be written to `path` for its name or place.

    The folders that are there are tried with an empty file; those that are not yet are not made.
    """
    path = Path(path)
    with explained(path, "written"):
        path.is_symlink()  # raises for a name that is too long
        above = path.absolute().parents or [path]  # the root has nothing above it
        place = next(folder for folder in above if folder.exists() or folder.is_symlink())
        if not place.is_dir():
            raise NotADirectoryError
        trial = place / f".{token_hex(6)}{_PARTIAL}"
        try:
            trial.touch(exist_ok=False)
        except FileNotFoundError:
            raise InputError(f"{path} cannot be written: its folder cannot be made.") from None
        finally:
            trial.unlink(missing_ok=True)


def is_there(path: Path | str) -> bool:
    """Whether there is something at `path`; for text that no file can have as its name there is not."""
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        return False


def read_bytes(path: Path | str, *, max_bytes: int, error: type[InputError] = InputError) -> bytes:
    """The whole of a file of at most `max_bytes` bytes; a longer one raises `error` without being read."""
    path = Path(path)
    with explained(path, "read", error), path.open("rb") as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise error(f"{path} is longer than {max_bytes:,} bytes, the most that is read of such a file.")
    return content


def sha256(path: Path | str) -> str:
    """The SHA-256 of a file's bytes in hexadecimal, read as a stream."""
    path = Path(path)
    with explained(path, "read"), path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def unique_path(path: Path | str) -> Path:
    """`path` if nothing is there, else the first free one of `name-2.ext`, `name-3.ext` and so on."""
    path = candidate = Path(path)
    count = 1
    while candidate.exists() or candidate.is_symlink():
        count += 1
        candidate = path.with_name(f"{path.stem}-{count}{path.suffix}")
    return candidate


def safe_name(text: str, *, fallback: str = "untitled", max_length: int = 80) -> str:
    """A file name, without suffix, made from text that somebody else wrote (`'<../rex>'` gives `rex`).

    Letters and digits of any script, `_` and `-` stay; every run of anything else becomes one `-`. The result
    has no separator, no leading dot, is at most `max_length` bytes in UTF-8 and is not a name reserved on
    Windows. Two texts can give one name: follow with `unique_path` where that matters.
    """
    name = re.sub(r"[^\w-]+", "-", unicodedata.normalize("NFKC", text)).strip("-")
    name = name.encode(errors="ignore")[:max_length].decode(errors="ignore").strip("-")
    if not name or name.lower() in _RESERVED:
        return f"{fallback}-{name}" if name else fallback
    return name


def _translated(
    problem: OSError, path: Path, doing: Literal["read", "written"], error: type[InputError]
) -> ScumbleError:
    if problem.errno in _DISK_FULL:
        return DiskFullError(
            f"The disk is full: {path} was not {doing}.", "Free some space or choose a place on another disk."
        )
    if isinstance(problem, IsADirectoryError):
        return error(f"{path} is a folder, not a file.")
    if isinstance(problem, (FileExistsError, NotADirectoryError)):
        return error(f"{path} cannot be {doing}: a file stands where one of its folders should be.")
    if problem.filename and _PARTIAL not in str(problem.filename):
        path = Path(str(problem.filename))
    if isinstance(problem, FileNotFoundError):
        return error(f"{path} does not exist.")
    return error(f"{path} cannot be {doing}: {problem.strerror or problem}.")


def _flush(path: Path) -> None:
    """Make sure that the bytes of `path` are on the disk before its name is."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _flush_folder(path: Path) -> None:
    """Put a rename itself on the disk, where the system can open folders (Windows cannot)."""
    if os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
