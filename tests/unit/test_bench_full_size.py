"""`scumble bench full-size` with small models in place of the full ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli import scumble
from scumble.bench import full_size
from scumble.core.errors import ScumbleError
from scumble.core.images import read_image


@pytest.mark.parametrize("kind", ["sd1", "ip2p"])
def test_phases_of_a_kind(kind: str, tmp_path: Path) -> None:
    folder, file = tmp_path / "model", tmp_path / "model.safetensors"
    photo = full_size._picture(tmp_path / "photo.png")
    assert read_image(photo).image.size == (451, 300)
    full_size._make(kind, "tiny", folder, "float32")
    full_size._convert(folder, file, "float32")  # which tells its family by full sizes: not loaded here
    assert file.is_file()
    if kind in full_size.EDITORS:
        pictures = [full_size._instruct(folder, "float32", photo) for _ in range(2)]
    else:
        pictures = [full_size._draw(folder, "float32", scale) for scale in (7.5, 7.5, 3.0)]
        pictures.append(full_size._paint(folder, "float32", 7.5, photo))
    assert pictures[0] == pictures[1]
    assert len(set(pictures)) == len(pictures) - 1


def test_an_edit_of_another_size_is_a_failure(tmp_path: Path) -> None:
    photo = full_size._picture(tmp_path / "photo.png")
    with pytest.raises(ScumbleError, match=r"The edit of a picture of \(451, 300\) has \(300, 300\) pixels"):
        full_size._same_size(read_image(photo).image.crop((0, 0, 300, 300)), photo)


def test_what_is_no_picture_is_told_before_the_work(tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    photo.write_bytes(b"no picture")
    outcome = scumble("bench", "full-size", "sd1", "--work", str(tmp_path / "new"), "--photo", str(photo))
    assert outcome.status == 2
    assert "photo.png" in outcome.err
    assert not list((tmp_path / "new").iterdir())
