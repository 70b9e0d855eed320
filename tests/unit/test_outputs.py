"""Where results go is asked before the work: what is there already, and where nothing can be written."""

from __future__ import annotations

from pathlib import Path

import pytest

from scumble.core.errors import InputError
from scumble.core.files import check_writable
from scumble.verbs.outputs import check_free, check_new


def test_files_that_are_there_are_refused_unless_overwritten(tmp_path: Path) -> None:
    (tmp_path / "there.png").touch()
    (tmp_path / "folder.png").mkdir()
    free, there, folder = (tmp_path / f"{name}.png" for name in ("free", "there", "folder"))
    check_free([free], overwrite=False)
    check_free([free, there], overwrite=True)
    with pytest.raises(InputError, match="exists already"):
        check_free([free, there], overwrite=False)
    with pytest.raises(InputError, match="is a folder, not a file"):
        check_free([folder], overwrite=True)
    with pytest.raises(InputError, match="a file stands where one of its folders should be"):
        check_free([there / "below.png"], overwrite=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.png", "there.png"]


def test_a_new_folder_is_one_that_is_not_there_or_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    check_new(tmp_path / "new" / "below")
    check_new(tmp_path / "empty")
    monkeypatch.chdir(tmp_path / "empty")
    check_new(Path())
    check_writable(Path())
    for taken in (tmp_path, tmp_path / "file"):
        with pytest.raises(InputError, match="exists already"):
            check_new(taken)
    with pytest.raises(InputError, match="a file stands where one of its folders should be"):
        check_new(tmp_path / "file" / "below")
    assert not (tmp_path / "new").exists()
