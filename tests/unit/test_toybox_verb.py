"""`scumble toybox`: pictures of the toy world with some attributes fixed, and clips for an atlas."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from scumble.core.errors import InputError
from scumble.core.events import finish
from scumble.core.images import to_uint8
from scumble.data.flow import read_flow
from scumble.data.video import read_video
from scumble.verbs.toybox import render_clips, render_world
from scumble.world import clips


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


def test_clips_are_what_an_atlas_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = replace(clips.BENCHMARK_CLIPS[1], frames=3)
    monkeypatch.setattr(clips, "BENCHMARK_CLIPS", (clip,))
    [place] = finish(render_clips(tmp_path / "out", size=32)).iterdir()
    truth = clips.render_clip(clip, size=32)
    assert torch.equal(read_video(place / "clip.apng").frames, to_uint8(truth.pixels))
    flow = read_flow(place / "flow", 3, (32, 32))
    assert torch.equal(flow.forward, truth.forward.offset)
    assert torch.equal(flow.backward, truth.backward.offset)
    assert [path.name for path in sorted((place / "masks").iterdir())] == ["000.png", "001.png", "002.png"]
    assert json.loads((place / "clip.json").read_text())["kind"] == "move"
    assert place.name.endswith("-move")
