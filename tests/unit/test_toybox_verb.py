"""`scumble toybox render`: pictures of the toy world with some attributes fixed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scumble.core.errors import InputError
from scumble.core.events import finish
from scumble.verbs.toybox import render_world


def test_values_take_turns_over_the_pictures(tmp_path: Path) -> None:
    wishes = ["kind=snowman", "colour=red,blue"]
    folder = finish(render_world(tmp_path / "out", count=3, seed=5, size=32, wishes=wishes))
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    things = [row["scene"]["things"][0] for row in rows]
    assert [thing["kind"] for thing in things] == ["snowman"] * 3
    assert [thing["colour"] for thing in things] == ["red", "blue", "red"]
    assert all((folder / row["file_name"]).is_file() for row in rows)


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ("hue=red", "Scenes have no 'hue'"),
        ("colour=mauve", "no colour 'mauve'"),
        ("colour=red,", "no colour ''"),
        ("kind", "no kind ''"),
    ],
)
def test_a_wish_that_cannot_be_met_leaves_nothing_behind(wish: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        finish(render_world(tmp_path / "out", count=1, seed=0, size=32, wishes=[wish]))
    assert not list(tmp_path.iterdir())
