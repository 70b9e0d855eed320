from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scumble.core import files
from scumble.core.errors import DiskFullError, ImageError, InputError


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def half_then_full(file: BinaryIO) -> None:
    with file:
        file.write(b"half")
    full()


def listing(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_writes_bytes_and_callables(tmp_path: Path) -> None:
    files.atomic_write(tmp_path / "a" / "b.txt", b"one")
    assert (tmp_path / "a" / "b.txt").read_bytes() == b"one"
    files.atomic_write(tmp_path / "a" / "b.txt", lambda file: file.write(b"two"))
    assert (tmp_path / "a" / "b.txt").read_bytes() == b"two"
    assert listing(tmp_path / "a") == ["b.txt"]


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"")
    files.atomic_write(tmp_path / "atomic", b"")
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "atomic")]
    assert modes[0] == modes[1]


@pytest.mark.parametrize("old", [None, b"old"])
def test_disk_full_while_writing_leaves_what_was_there(tmp_path: Path, old: bytes | None) -> None:
    target = tmp_path / "out.bin"
    if old is not None:
        target.write_bytes(old)
    before = listing(tmp_path)
    with pytest.raises(DiskFullError, match=r"disk is full: .*out\.bin was not written"):
        files.atomic_write(target, half_then_full)
    assert listing(tmp_path) == before
    assert old is None or target.read_bytes() == old


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_disk_full_while_flushing_leaves_nothing(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fsync(_: int) -> None:
        raise OSError(number, "full")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(DiskFullError):
        files.atomic_write(tmp_path / "out.bin", b"content")
    assert listing(tmp_path) == []


def test_any_exception_leaves_nothing(tmp_path: Path) -> None:
    def interrupted(file: BinaryIO) -> None:
        file.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        files.atomic_write(tmp_path / "out.bin", interrupted)
    assert listing(tmp_path) == []


def test_the_temporary_path_keeps_the_suffix_and_the_folder(tmp_path: Path) -> None:
    with files.atomic_path(tmp_path / "film.mp4") as temporary:
        assert temporary.suffix == ".mp4"
        assert temporary.parent == tmp_path
        temporary.write_bytes(b"film")
    assert listing(tmp_path) == ["film.mp4"]


def test_a_place_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder" / "inside").mkdir(parents=True)
    with pytest.raises(InputError, match="a file stands where"):
        files.atomic_write(tmp_path / "file" / "x", b"")
    with pytest.raises(InputError, match=r"folder is a folder, not a file\."):
        files.atomic_write(tmp_path / "folder", b"")
    with pytest.raises(InputError, match="cannot be written: File name too long"):
        files.atomic_write(tmp_path / ("x" * 300), b"")
    with pytest.raises(InputError, match="not a file name"):
        files.atomic_write("a\0b", b"")
    assert listing(tmp_path) == ["file", "folder"]


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    with files.atomic_folder(tmp_path / "model") as temporary:
        (temporary / "unet").mkdir()
        (temporary / "unet" / "config.json").write_text("{}")
        assert not (tmp_path / "model").exists()
    assert (tmp_path / "model" / "unet" / "config.json").read_text() == "{}"
    with pytest.raises(DiskFullError), files.atomic_folder(tmp_path / "other") as temporary:
        half_then_full((temporary / "half").open("wb"))
    with pytest.raises(InputError, match="already exists"), files.atomic_folder(tmp_path / "model"):
        pytest.fail("the block of a refused folder must not run")
    assert listing(tmp_path) == ["model"]


def test_an_error_about_another_file_names_that_file(tmp_path: Path) -> None:
    with (
        pytest.raises(InputError, match=r"missing\.txt does not exist\."),
        files.atomic_path(tmp_path / "out.txt"),
    ):
        (tmp_path / "missing.txt").read_bytes()
    with (
        pytest.raises(InputError, match=r"out\.txt does not exist\."),
        files.atomic_path(tmp_path / "out.txt"),
    ):
        pass  # nothing was written to the temporary path
    assert listing(tmp_path) == []


def test_read_bytes_is_capped(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"12345")
    assert files.read_bytes(path, max_bytes=5) == b"12345"
    with pytest.raises(ImageError, match="longer than 4 bytes"):
        files.read_bytes(path, max_bytes=4, error=ImageError)
    with pytest.raises(ImageError, match=r"nothing does not exist\."):
        files.read_bytes(tmp_path / "nothing", max_bytes=4, error=ImageError)


def test_sha256_of_a_known_text(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, appendix B.1
    assert files.sha256(tmp_path / "abc") == expected


def test_unique_path_counts_up(tmp_path: Path) -> None:
    assert files.unique_path(tmp_path / "a.png") == tmp_path / "a.png"
    for expected in ("a.png", "a-2.png", "a-3.png"):
        found = files.unique_path(tmp_path / "a.png")
        assert found.name == expected
        found.touch()


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("<rex>", "rex"), ("../../etc/passwd", "etc-passwd"), ("a b\tc\n", "a-b-c"), ("", "untitled"),
        ("...", "untitled"), ("CON", "untitled-CON"), ("Kätzchen 7", "Kätzchen-7"), ("a\0b", "a-b"),
        ("C:\\x", "C-x"), (".hidden", "hidden"), ("x" * 200, "x" * 80),
    ],
)  # fmt: skip
def test_safe_name_examples(text: str, name: str) -> None:
    assert files.safe_name(text) == name


@given(st.text())
def test_safe_name_is_one_harmless_component(text: str) -> None:
    name = files.safe_name(text)
    assert name
    assert Path(name).name == name
    assert not name.startswith(".")
    assert len(name.encode()) <= 80
    assert name.isprintable()
    assert files.safe_name(name) == name
