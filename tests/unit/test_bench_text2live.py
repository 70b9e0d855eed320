"""The tables of Text2LIVE: what is asked is what is judged, and every figure can come out otherwise."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from cli import scumble
from scumble.bench import text2live, text2live_video
from scumble.bench.text2live import ABLATIONS, ASKED, FIRST, Settings, measure, settings_of, table, task
from scumble.core.events import finish
from scumble.core.images import read_image, to_unit
from scumble.models import toybox
from scumble.world.clips import BENCHMARK_CLIPS, render_clip
from scumble.world.instructions import changed_labels
from scumble.world.pairs import EditPictures


def test_each_kind_of_edit_asks_for_one_thing_that_was_not_so() -> None:
    for number, (kind, asked) in enumerate(ASKED.items()):
        edit = task(FIRST + number, number)
        assert edit.kind == kind
        assert asked in changed_labels(edit)
        texts = settings_of(edit, 0).texts
        assert texts.screen != texts.region
        assert edit.before.things[0].kind in texts.region


def test_a_change_is_counted_where_the_truth_has_none() -> None:
    before = torch.zeros(1, 3, 4, 4)
    mask = torch.zeros(1, 4, 4, dtype=torch.bool)
    mask[:, :2] = True
    truth = EditPictures(before, before, mask)
    picture = before[0].clone()
    picture[:, :2] = 1.0
    assert text2live._outside(picture, truth, 0) == 0
    assert text2live._pixels_outside(picture, truth, 0) == 0
    picture[:, 3] = 0.5
    assert text2live._outside(picture, truth, 0) == 255 * 0.25
    assert text2live._pixels_outside(picture, truth, 0) == 4
    everywhere = EditPictures(before, before, torch.ones_like(mask))
    assert text2live._outside(picture, everywhere, 0) is None


def test_the_judge_tells_the_truth_from_the_input() -> None:
    bench = text2live._Bench(Settings(count=1), toybox.judge(), Path())
    assert bench.recognised(bench.truth.before) == [False]
    assert bench.recognised(bench.truth.after) == [True]


def test_a_table_is_made_once_and_goes_on_with_more_scenes(tmp_path: Path) -> None:
    settings = Settings(count=1, ablated=1, steps=1)
    scores = finish(measure(tmp_path, settings))
    assert set(scores["ablations"]) == {"nothing", *ABLATIONS}
    assert scores["each"][0]["pixels outside"] == 0
    assert "| all | 1 |" in table(scores)
    first = tmp_path / "without a mask" / "0000.png"
    drawn = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("0000.png")}
    assert len(drawn) == 2 + len(ABLATIONS)
    again = finish(measure(tmp_path, settings.replace(count=2, ablated=0)))
    assert len(again["each"]) == 2
    assert {path: path.stat().st_mtime_ns for path in drawn} == drawn
    assert json.loads((tmp_path / "scores.json").read_text()) == again
    assert to_unit(read_image(first).image).shape == (1, 3, 128, 128)


def test_a_still_copy_of_a_clip_wobbles_as_the_clip_does_and_noise_more() -> None:
    clip = render_clip(BENCHMARK_CLIPS[0], size=32)
    frames = (clip.pixels * 255).round().to(torch.uint8)
    noise = torch.randint(0, 256, frames.shape, generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    assert text2live_video._wobble(frames, clip) < 0.1 < text2live_video._wobble(noise, clip)


class Known(torch.nn.Module):
    """An atlas whose opacity is a clip's own."""

    def __init__(self, masks: torch.Tensor) -> None:
        super().__init__()
        self.masks, self.scale = masks, torch.nn.Parameter(torch.ones(()))
        self.layout = SimpleNamespace(layers=2, pixel_centres=self.centres)

    def centres(self, height: int, width: int, device: torch.device) -> torch.Tensor:
        return torch.arange(height * width, device=device)[:, None]

    def opacity(self, frames: list[int], points: torch.Tensor) -> torch.Tensor:
        return self.masks[frames].flatten(1)[:, points[0, :, 0]][..., None].float()  # (1, P, 1)

    def uv(self, layer: int, frames: list[int], points: torch.Tensor) -> torch.Tensor:
        return points.expand(len(frames), -1, 2).float() + layer


def test_an_atlas_that_knows_what_is_in_front_overlaps_wholly() -> None:
    clip = render_clip(BENCHMARK_CLIPS[0], size=32)
    saved: Any = SimpleNamespace(atlas=Known(clip.masks[:, 0]))
    assert text2live_video._overlap(saved, clip) == 1.0
    saved.atlas.masks = clip.masks[:, 0].roll(8, -1)
    assert text2live_video._overlap(saved, clip) < 0.5


def test_the_prompt_of_a_clip_names_its_thing_in_another_colour() -> None:
    for clip in BENCHMARK_CLIPS:
        thing, words = clip.scene.things[0], text2live_video.prompt(clip).split()
        assert thing.kind.split()[0] in words
        assert thing.colour not in words


def test_minutes_without_a_video_are_refused(tmp_path: Path) -> None:
    outcome = scumble("bench", "edits", "--text2live", "--minutes", "1", "-o", str(tmp_path / "out"))
    assert outcome.status != 0
    assert "--video" in outcome.err
