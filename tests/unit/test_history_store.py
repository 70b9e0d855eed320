"""The history: lineage by content, two processes at once, room made, no picture touched, no edit broken."""

from __future__ import annotations

import errno
import logging
import os
import sqlite3
import subprocess
import sys
from hashlib import sha256
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from cli import scumble
from scumble.core.errors import InputError
from scumble.core.places import data_folder
from scumble.history import store as module
from scumble.history.recipe import Ingredient, Recipe
from scumble.history.store import Made, Store, is_off, recalled, remember, thumbnail


@pytest.fixture(autouse=True)
def _own_history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCUMBLE_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("SCUMBLE_HISTORY", raising=False)
    module._note.cache_clear()


def made(path: Path, *sources: Path, number: int = 0, role: str = "guide") -> Made:
    """A file as a verb leaves it behind, from others."""
    image = Image.effect_noise((200, 100), 40 + number).convert("RGB")
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    ingredients = tuple(Ingredient.of(role, source, hashed(source)) for source in sources)
    recipe = Recipe(command="edit sdedit", settings={"prompt": f"number {number}"}, ingredients=ingredients)
    return Made(path, hashed(path), recipe, image)


def hashed(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()


def family(tmp_path: Path) -> list[int]:
    """photo -> strokes -> edit -> two more, one of them again from the photo."""
    photo = tmp_path / "photo.png"
    Image.new("RGB", (9, 9), "red").save(photo)
    strokes, edit, third, fourth = (
        tmp_path / f"{name}.png" for name in ("strokes", "edit", "third", "fourth")
    )
    with Store.opened() as store:
        return [
            store.add([made(strokes, photo, number=1)])[0],
            store.add([made(edit, strokes, number=2)])[0],
            store.add([made(third, edit, number=3)])[0],
            store.add([made(fourth, edit, photo, number=4)])[0],
        ]


def test_what_came_from_what(tmp_path: Path) -> None:
    first, second, third, fourth = family(tmp_path)
    with Store.opened() as store:
        edit = store.entry(second)
        assert [e.number for e in store.parents(edit)] == [first]
        assert [e.number for e in store.children(edit)] == [third, fourth]
        assert [e.number for e in store.parents(store.entry(fourth))] == [second]
        assert edit.recipe.settings == {"prompt": "number 2"}
        assert edit.place == tmp_path / "edit.png"
        assert store.places(hashed(tmp_path / "photo.png")) == [tmp_path / "photo.png"]
        with pytest.raises(InputError, match="no entry 99"):
            store.entry(99)


def test_lineage_follows_content_and_not_names(tmp_path: Path) -> None:
    _, second, *_ = family(tmp_path)
    (tmp_path / "edit.png").rename(tmp_path / "moved.png")
    with Store.opened() as store:
        [fifth] = store.add([made(tmp_path / "fifth.png", tmp_path / "moved.png", number=5)])
        assert [e.number for e in store.parents(store.entry(fifth))] == [second]
        assert not store.entry(second).is_there
        assert len(store.places(hashed(tmp_path / "moved.png"))) == 2


def test_the_same_again_is_a_row_of_its_own(tmp_path: Path) -> None:
    one = made(tmp_path / "one.png")
    with Store.opened() as store:
        assert store.add([one]) == [1]
        assert store.add([one]) == [2]
        assert [e.number for e in store.made(one.hash)] == [2, 1]


def test_thumbnails_are_small_and_hold_no_more_than_pixels(tmp_path: Path) -> None:
    image = Image.effect_noise((3000, 1000), 80).convert("RGB")
    image.info["secret"] = "x"
    small = thumbnail(image)
    assert len(small) < 12_000
    with Image.open(BytesIO(small)) as shown:
        assert (shown.size, shown.format) == ((128, 43), "WEBP")
        assert "secret" not in shown.info
    assert thumbnail(Image.new("L", (3, 2000)))[8:12] == b"WEBP"


def test_two_processes_write_at_once(tmp_path: Path) -> None:
    """Both start with no file at all, so they meet in making it too."""
    code = """
import sys
from pathlib import Path
from PIL import Image
from scumble.history.recipe import Recipe
from scumble.history import store as module
from scumble.history.store import Made, Store
module.PATIENCE = 60  # a busy machine may let one of them wait
image = Image.new("RGB", (64, 64), "red")
for number in range(60):
    with Store.opened() as store:
        recipe = Recipe(command=sys.argv[1], settings={"number": number})
        store.add([Made(Path(f"{sys.argv[1]}-{number}.png"), f"{number:064x}", recipe, image)])
"""
    both = [
        subprocess.Popen([sys.executable, "-W", "error", "-c", code, name], cwd=tmp_path) for name in "ab"
    ]
    assert [process.wait(120) for process in both] == [0, 0]
    with Store.opened() as store:
        entries = store.newest(1000)
        assert len({entry.number for entry in entries}) == store.count == 120
        for name in "ab":
            numbers = [e.recipe.settings["number"] for e in entries if e.recipe.command == name]
            assert numbers == list(range(59, -1, -1))
    with sqlite3.connect(tmp_path / "data" / "history.sqlite3") as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    database.close()


def test_prune_forgets_rows_and_touches_no_file(tmp_path: Path) -> None:
    family(tmp_path)
    (tmp_path / "third.png").unlink()
    with Store.opened() as store:
        assert store.prune(gone=True) == 1
        assert store.prune(keep=2) == 1
        assert [e.place.name for e in store.newest()] == ["fourth.png", "edit.png"]
        assert store.places(hashed(tmp_path / "strokes.png")) == [tmp_path / "strokes.png"]  # edit's source
        assert store.prune(older_than=store.newest()[0].made) == 1
        assert store.places(hashed(tmp_path / "strokes.png")) == []
    assert sorted(p.name for p in tmp_path.glob("*.png")) == [
        "edit.png",
        "fourth.png",
        "photo.png",
        "strokes.png",
    ]


def test_over_the_limit_the_oldest_make_room(tmp_path: Path) -> None:
    one, limit = made(tmp_path / "one.png"), 300_000
    with Store.opened(limit=limit) as store:
        for _ in range(8):
            store.add([one] * 10)
            assert store.size <= limit
        kept = [e.number for e in store.newest(1000)]
        assert kept == list(range(80, 80 - len(kept), -1))
        assert 10 < len(kept) < 80
    with Store.opened(limit=0) as store:
        store.add([one])
        assert store.count == 1  # the newest stays, however small the limit


def test_the_limit_and_off_come_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for text, expected in (("", 512 * 10**6), ("7", 7 * 10**6), ("nonsense", 512 * 10**6)):
        monkeypatch.setenv("SCUMBLE_HISTORY", text)
        assert (module._limit(), is_off()) == (expected, False)
    for text in ("off", " OFF ", "0", "no", "false"):
        monkeypatch.setenv("SCUMBLE_HISTORY", text)
        assert is_off()
    remember([made(tmp_path / "one.png")])
    assert not (tmp_path / "data").exists()


def test_the_folder_is_the_platforms(monkeypatch: pytest.MonkeyPatch) -> None:
    assert data_folder() == Path(os.environ["SCUMBLE_DATA"])
    monkeypatch.delenv("SCUMBLE_DATA")
    monkeypatch.setenv("XDG_DATA_HOME", "/xdg")
    monkeypatch.setenv("LOCALAPPDATA", "/local")
    monkeypatch.setattr(Path, "home", lambda: Path("/home/me"))
    places = {"linux": "/xdg/scumble", "darwin": "/home/me/Library/Application Support/scumble"}
    for platform, place in (places | {"win32": "/local/scumble"}).items():
        monkeypatch.setattr("sys.platform", platform)
        assert data_folder() == Path(place)
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.delenv("XDG_DATA_HOME")
    assert data_folder() == Path("/home/me/.local/share/scumble")


@pytest.mark.skipif(os.name == "nt", reason="modes are POSIX's")
def test_nobody_else_may_read_it(tmp_path: Path) -> None:
    with Store.opened() as store:
        store.add([made(tmp_path / "one.png")])
        modes = {p.name: p.stat().st_mode & 0o777 for p in (tmp_path / "data").iterdir()}
    assert modes.pop("history.sqlite3") == 0o600
    assert set(modes.values()) <= {0o600}
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("trouble", ["read-only", "a file stands there", "locked", "not a database", "newer"])
def test_a_history_that_cannot_be_written_breaks_no_edit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, trouble: str
) -> None:
    file = tmp_path / "data" / "history.sqlite3"
    holder = None
    said = {"read-only": "Read-only", "a file stands there": "file stands", "locked": "locked"}.get(
        trouble, trouble
    )
    if trouble == "read-only":
        opened = os.open

        def refused(path: Path, *rest: int) -> int:
            if Path(path) == file:
                raise OSError(errno.EROFS, "Read-only file system", str(file))
            return opened(path, *rest)

        monkeypatch.setattr(module.os, "open", refused)
    elif trouble == "a file stands there":
        (tmp_path / "data").write_text("")
    elif trouble == "locked":
        with Store.opened():
            pass
        monkeypatch.setattr(module, "PATIENCE", 0.05)
        holder = sqlite3.connect(file, isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
    else:
        with Store.opened():
            pass
        with sqlite3.connect(file) as database:
            database.execute("PRAGMA user_version = 7")
        database.close()
        if trouble == "not a database":
            file.write_bytes(b"no database " * 1000)
            for side in (tmp_path / "data").glob("*-*"):
                side.unlink()
    Image.new("RGB", (40, 30), "red").save(tmp_path / "photo.png")
    with caplog.at_level(logging.WARNING, "scumble.history"):
        for number in range(2):
            out = tmp_path / f"strokes{number}.png"
            assert scumble("strokes", str(tmp_path / "photo.png"), "-o", str(out)).status == 0
            assert out.exists()
    [note] = caplog.messages  # once, not for each picture
    assert "The history was not kept, the pictures were" in note
    assert said in note
    if holder is not None:
        holder.close()


def test_looking_up_in_no_history_makes_none(tmp_path: Path) -> None:
    with recalled() as history:
        assert history is None
    assert not (tmp_path / "data").exists()


def test_strokes_record_themselves_unless_told_not_to(tmp_path: Path) -> None:
    Image.new("RGB", (40, 30), "red").save(tmp_path / "photo.png")
    scumble("strokes", str(tmp_path / "photo.png"), "-o", str(tmp_path / "a.png"))
    scumble("strokes", str(tmp_path / "photo.png"), "-o", str(tmp_path / "b.png"), "--no-recipe")
    with Store.opened() as store:
        [entry] = store.newest()
    assert (entry.place, entry.hash) == (tmp_path / "a.png", hashed(tmp_path / "a.png"))
    assert entry.recipe.ingredients[0].hash == hashed(tmp_path / "photo.png")
