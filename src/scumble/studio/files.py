"""Pictures and weights that the studio keeps: named by random ids, each one session's own.

    FOLDER/files/SESSION/ID/NAME.png     what was sent: pictures as PNG of exactly their pixels, weights
    FOLDER/files/SESSION/JOB/...         what a job made

A request names ids and nothing else: where a file lies is in the database, and it is opened only if it really
lies there. What was sent is decoded before it is kept, so that nothing of a stranger's bytes but the pixels
is ever served.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from secrets import token_hex
from threading import Lock
from typing import Any

from PIL import Image

from scumble.adapters.weights import Weights
from scumble.core.errors import InputError, ScumbleError
from scumble.core.files import read_bytes, safe_name, sha256
from scumble.core.images import read_image, save_image
from scumble.core.text import printable
from scumble.history.embed import read_recipe
from scumble.history.recipe import Recipe
from scumble.studio.database import Database
from scumble.studio.problems import Refused, not_found
from scumble.studio.settings import Settings

__all__ = ["ID", "IMAGE", "WEIGHTS", "Files", "Stored"]

ID = re.compile("[0-9a-f]{32}")
IMAGE, WEIGHTS = "image", "weights"
SIDE = 256
"""Longest side of a thumbnail, in pixels."""
PICTURES = ((0, b"\x89PNG\r\n\x1a\n"), (0, b"\xff\xd8\xff"), (8, b"WEBP"))
COLUMNS = (
    "id, session, kind, name, label, place, width, height, frames, bytes, hash, recipe, facts, job, created"
)


@dataclass(frozen=True, slots=True)
class Stored:
    """A file that is kept."""

    id: str
    session: str
    kind: str
    """`image` or `weights`."""
    name: str
    """For people; a stranger's text."""
    label: str
    """What it is of a job's results: `seed 7`, `grid`, `mask`."""
    place: str
    """Below the studio's folder."""
    width: int | None
    height: int | None
    frames: int | None
    bytes: int
    hash: str
    recipe: str | None
    """JSON, checked."""
    facts: str
    """JSON: of weights, their method and words."""
    job: str | None
    created: float

    def shown(self) -> dict[str, Any]:
        """What a page is told of it."""
        about = {"id": self.id, "name": self.name, "kind": self.kind, "label": self.label}
        size = {"width": self.width, "height": self.height, "frames": self.frames or 1}
        return about | size | {"row": json.loads(self.facts).get("row")}


@dataclass(frozen=True, slots=True)
class _New:
    """A file that lies in its place and is not in the database yet."""

    kind: str
    name: str
    path: Path
    image: Image.Image | None = None
    recipe: Recipe | None = None
    facts: Mapping[str, Any] = field(default_factory=dict[str, Any])


class Files:
    """All files of all sessions."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database, self._settings = database, settings
        self.folder = settings.folder / "files"
        self.incoming = settings.folder / "incoming"
        shutil.rmtree(self.incoming, ignore_errors=True)  # what a killed server had half received
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._one = Lock()

    # Asking

    def get(self, session: str, name: object, kind: str | None = None) -> Stored:
        """The file with the id `name` of this session. Raises Refused, in one way whatever the reason."""
        if not isinstance(name, str) or not ID.fullmatch(name):
            raise not_found("This file")
        row = self._database.row(f"SELECT {COLUMNS} FROM file WHERE id = ? AND session = ?", name, session)
        if row is None or (kind is not None and row[2] != kind):
            raise not_found("This file")
        return Stored(*row)

    def of_job(self, job: str) -> list[Stored]:
        """What a job made, in its order."""
        query = f"SELECT {COLUMNS} FROM file WHERE job = ? ORDER BY number"
        return [Stored(*row) for row in self._database.rows(query, job)]

    def all(self, session: str, kind: str | None = None) -> list[Stored]:
        """All files of a session, newest first."""
        query = f"SELECT {COLUMNS} FROM file WHERE session = ? AND kind = coalesce(?, kind)"
        return [Stored(*row) for row in self._database.rows(f"{query} ORDER BY number DESC", session, kind)]

    def listed(self, session: str, after: str | None, limit: int) -> list[Stored]:
        """Results of a session, newest first, those older than the one with the id `after`."""
        query = (
            f"SELECT {COLUMNS} FROM file WHERE session = ? AND listed AND number < coalesce("
            "(SELECT number FROM file WHERE id = ? AND session = ?), 9e18) ORDER BY number DESC LIMIT ?"
        )
        return [Stored(*row) for row in self._database.rows(query, session, after, session, limit)]

    def parents(self, stored: Stored) -> list[str]:
        """Ids of what it was made from, as far as it is still there."""
        query = (
            "SELECT p.id FROM source s JOIN file f ON s.file = f.number JOIN file p ON p.id = s.parent "
            "WHERE f.id = ? ORDER BY p.number"
        )
        return [name for (name,) in self._database.rows(query, stored.id)]

    def children(self, stored: Stored) -> list[str]:
        """Ids of the results that were made from it, oldest first."""
        query = (
            "SELECT DISTINCT f.id FROM source s JOIN file f ON s.file = f.number "
            "WHERE s.parent = ? AND f.listed ORDER BY f.number"
        )
        return [name for (name,) in self._database.rows(query, stored.id)]

    def thumbnail(self, stored: Stored) -> bytes:
        """A small WebP picture; empty for weights."""
        row = self._database.row("SELECT thumbnail FROM file WHERE id = ?", stored.id)
        return row[0] if row else b""

    def path(self, stored: Stored) -> Path:
        """Where it lies, if it does: neither a link nor anything outside is followed. Raises Refused."""
        root = Path(os.path.realpath(self._settings.folder))
        path = root / stored.place
        if not path.is_file() or Path(os.path.realpath(path)) != path:
            raise not_found("This file")
        return path

    # Keeping

    def check_room(self, session: str, more: int = 0) -> None:
        """Raises Refused where a session, or the studio, may keep nothing more."""
        count, size = self._sums("WHERE session = ?", session)
        full = "Remove some in the history first."
        if count >= self._settings.session_files:
            raise Refused(413, f"There are {count:,} files, the most that one session may keep.", full)
        if size + more > self._settings.session_bytes:
            raise Refused(413, f"The session's {self._settings.session_bytes:,} bytes are used up.", full)
        if self._sums("")[1] + more > self._settings.total_bytes:
            raise Refused(413, "The studio's disk space is used up.", "Ask whoever runs it, or remove some.")

    def take(self, session: str, sent: Path, name: str) -> Stored:
        """Keep what was sent in the file `sent`. Raises Refused, ImageError, WeightsError."""
        with self._one:  # one decoding at a time, whose memory is bounded
            try:
                new = self._checked(session, sent, printable(name, 100).strip())
            except ScumbleError as problem:
                raise type(problem)(self.without_paths(problem.message), problem.remedy) from problem
            return self._keep(session, new)

    def without_paths(self, text: str) -> str:
        """`text` with the base names of the studio's files instead of their paths."""
        root = re.escape(os.path.realpath(self._settings.folder))
        given = re.escape(str(self._settings.folder))
        shorter = re.sub(rf"(?:{root}|{given})/[^\s'\"]*?([^/\s'\"]+)(?=[\s'\":,]|$)", r"\1", text)
        return re.sub(r"[0-9a-f]{32}\.partial", "The file", shorter)

    def _checked(self, session: str, sent: Path, name: str) -> _New:
        """Look at what was sent, and lay it in its place in the studio's own form."""
        with sent.open("rb") as file:
            start = file.read(16)
        stem = safe_name(Path(name).stem, fallback="picture", max_length=60)
        place = self.folder / session / token_hex(16)
        if any(start[at:].startswith(mark) for at, mark in PICTURES):
            return _picture(sent, name or "picture", place / f"{stem}.png", self._settings)
        if start[8:9] == b"{":
            return _weights(sent, name or "weights", place / f"{stem}.safetensors")
        raise Refused(
            415, "This is neither a picture nor learnt weights.", "Send PNG, JPEG, WebP or .safetensors."
        )

    def add_results(
        self,
        session: str,
        job: str,
        paths: Sequence[Path],
        parents: Sequence[str],
        facts: Mapping[Path, Mapping[str, Any]],
    ) -> list[Stored]:
        """Keep files that a job has written below its `job_folder`, with what there is to say of each."""
        news = [_result(path, facts.get(path, {})) for path in paths]
        return [self._keep(session, new, job, parents) for new in news]

    def job_folder(self, session: str, job: str) -> Path:
        """Where a job writes."""
        return self.folder / session / job

    def place(self, path: Path) -> str:
        """Where a file lies below the studio's folder, as it is recorded."""
        real = Path(os.path.realpath(path.parent)) / path.name
        return os.path.relpath(real, os.path.realpath(self._settings.folder))

    def _keep(self, session: str, new: _New, job: str | None = None, parents: Sequence[str] = ()) -> Stored:
        main = new.recipe is not None and new.recipe.output is None
        size = (None, None) if new.image is None else new.image.size
        stored = Stored(
            id=token_hex(16), session=session, kind=new.kind, name=new.name, label=_label(new),
            place=self.place(new.path), width=size[0], height=size[1],
            frames=None, bytes=new.path.stat().st_size, hash=sha256(new.path),
            recipe=new.recipe.to_json() if new.recipe else None, facts=json.dumps(dict(new.facts)),
            job=job, created=time.time(),
        )  # fmt: skip
        values = [getattr(stored, name) for name in COLUMNS.split(", ")]
        small = b"" if new.image is None else _thumbnail(new.image)
        listed = int(job is not None and (main or new.kind == WEIGHTS))
        with self._database.writing() as connection:
            marks = ", ".join("?" * (len(values) + 2))
            number = connection.execute(
                f"INSERT INTO file ({COLUMNS}, thumbnail, listed) VALUES ({marks})", (*values, small, listed)
            ).lastrowid
            rows = [(number, parent) for parent in dict.fromkeys(parents)]
            connection.executemany("INSERT INTO source VALUES (?, ?)", rows)
        return stored

    def remove(self, stored: Stored) -> None:
        """Forget a file and take it from the disk."""
        try:
            path = self.path(stored)
        except Refused:
            path = None
        self._database.write("DELETE FROM file WHERE id = ?", stored.id)
        if path is not None:
            path.unlink(missing_ok=True)
            session = Path(os.path.realpath(self.folder)) / stored.session
            with suppress(OSError):  # the folder of an upload is empty then, that of a job may be
                for folder in path.parents:
                    if session not in folder.parents:
                        break
                    folder.rmdir()

    def _sums(self, which: str, *values: Any) -> tuple[int, int]:
        row = self._database.row(f"SELECT count(*), coalesce(sum(bytes), 0) FROM file {which}", *values)
        return row if row is not None else (0, 0)


def _picture(sent: Path, name: str, path: Path, settings: Settings) -> _New:
    content = read_bytes(sent, max_bytes=settings.upload_bytes)
    picture = read_image(content, background=None, max_pixels=settings.pixels)
    image = picture.image
    if picture.alpha is not None:
        image = image.copy()
        image.putalpha(picture.alpha)
    try:
        recipe = read_recipe(sent)
    except InputError:
        recipe = None
    save_image(image, path)
    return _New(IMAGE, name, path, image, recipe)


def _weights(sent: Path, name: str, path: Path) -> _New:
    facts = _facts(Weights.load(sent))  # every length, name and number in it is checked
    path.parent.mkdir(parents=True, mode=0o700)
    sent.replace(path)
    return _New(WEIGHTS, name, path, facts=facts)


def _result(path: Path, facts: Mapping[str, Any]) -> _New:
    """A file that a verb has written."""
    if path.suffix == ".safetensors":
        return _New(WEIGHTS, path.name, path, facts={**_facts(Weights.load(path)), **facts})
    picture = read_image(path, background=None)
    try:
        recipe = read_recipe(path)
    except InputError:
        recipe = None
    return _New(IMAGE, path.name, path, picture.image, recipe, facts)


def _facts(weights: Weights) -> dict[str, Any]:
    return {"method": weights.method, "words": list(weights.words), "family": weights.family}


def _label(new: _New) -> str:
    if new.recipe is None or "label" in new.facts:
        return str(new.facts.get("label", Path(new.name).stem))
    return new.recipe.output or f"seed {new.recipe.seed}"


def _thumbnail(image: Image.Image) -> bytes:
    small = image.convert("RGBA") if image.has_transparency_data else image.convert("RGB")
    small.thumbnail((SIDE, SIDE))
    small.info.clear()
    file = BytesIO()
    small.save(file, "WEBP", quality=80)
    return file.getvalue()
