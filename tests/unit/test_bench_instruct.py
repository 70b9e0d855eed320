"""What "done and preserved" means, tried on truth; the tables of editing by instruction on a tiny model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cli import scumble
from scumble.bench import instruct, speed
from scumble.bench.common import judged
from scumble.bench.instruct import Settings, measure
from scumble.bench.instruct_table import table
from scumble.bench.instruct_truth import Truth, chains, edits, rendered, whole
from scumble.bench.plot import plot
from scumble.core.errors import InputError, ModelError
from scumble.core.events import finish
from scumble.core.images import read_image
from scumble.metrics.pixels import mse, mse_where
from scumble.metrics.toy_edits import Outcome, asked, outcome, readings, redrawn, shared, wanted
from scumble.models import toybox
from scumble.world.instructions import EDIT_KINDS, GLOBAL_KINDS, Edit, every_edit
from scumble.world.sampling import PROFILES, sample_scene
from scumble.world.splits import is_held_out
from scumble.world.words import describe
from tiny import shared as tiny

FEW = 16


# What is asked


def one_of_each() -> dict[str, Edit]:
    found: dict[str, Edit] = {}
    for seed in range(60):
        for edit in every_edit(sample_scene(seed)):
            found.setdefault(edit.kind, edit)
    return found


def test_every_kind_of_edit_asks_for_something_that_was_not_so_and_keeps_the_rest() -> None:
    kinds = one_of_each()
    assert set(kinds) == set(EDIT_KINDS)
    for edit in kinds.values():
        told, same, before = asked(edit), shared(edit), wanted(edit.before)
        assert told, edit.kind
        assert same, edit.kind
        assert not set(told) & set(same)
        assert any(before.get(name) != answer for name, answer in told.items())
        assert all(before[name] == answer for name, answer in same.items())


def test_what_each_kind_asks_for() -> None:
    kinds = one_of_each()
    names = {kind: set(asked(edit)) for kind, edit in kinds.items()}
    assert all(names[kind] == {kind} for kind in GLOBAL_KINDS)
    assert names["kind"] == {"kinds"}
    assert names["add thing"] == {"kinds", "relation", "colour 1"}
    assert names["remove thing"] == {"kinds", "relation"}
    for kind, question in (("colour", "colour"), ("size", "size"), ("add effect", "effect")):
        [name] = names[kind]
        assert name.split()[0] == question


def test_what_cannot_be_seen_is_not_asked() -> None:
    scene = sample_scene(1, profile=PROFILES["photo"])
    assert "time" not in wanted(replace(scene, place="green screen", time="day"))
    assert "colour 0" not in wanted(replace(scene, style="blueprint"))
    assert wanted(scene)["colour 0"] == describe(scene)["colour"]


# On truth


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> Truth:
    """At the size that the judge was trained at; from the seeds for trying."""
    folder = tmp_path_factory.mktemp("truth")
    todo = edits(FEW, instruct.TRYING, "photo")
    return finish(rendered(folder, todo, size=128, redraws=2))


def told(truth: Truth, pictures: Tensor, *, picked: Tensor | None = None) -> Outcome:
    judge = toybox.judge()
    verdicts = [judged(judge, x) for x in (truth.before, truth.after, pictures)]
    read = readings(truth.edits, verdicts[:1], verdicts[1:2])
    errors = [mse_where(x, truth.after, truth.changing) for x in (pictures, truth.before)]
    kept = mse_where(pictures, truth.after, truth.same), truth.redraw_error
    found = outcome(truth.edits, read, verdicts[2], kept_error=kept, changed_error=(errors[0], errors[1]))
    sure = torch.tensor([reading.is_readable for reading in read])
    assert sure.sum() >= FEW // 3, "the judge can read too few of them to tell anything"
    return Outcome(found.done & sure, found.as_seen, found.in_pixels, found.done_in_pixels)


def test_the_truth_is_right_wherever_the_judge_can_read_it(truth: Truth) -> None:
    best = told(truth, truth.after)
    assert bool(best.right_in_pixels.all())
    assert bool(best.preserved.all())
    assert bool((best.right == best.done).all())
    assert best.right.sum() >= FEW // 3


def test_an_untouched_a_strange_and_a_redrawn_picture_score_nothing(truth: Truth) -> None:
    untouched = told(truth, truth.before)
    assert not bool((untouched.done | untouched.done_in_pixels).any())
    for pictures in (truth.after.roll(1, 0), torch.rand(truth.after.shape)):
        strange = told(truth, pictures)
        assert not bool((strange.right | strange.right_in_pixels).any())
    redrawn_ones = told(truth, truth.redraw)
    assert redrawn_ones.done.sum() >= FEW // 4, "it shows what was asked for"
    assert (redrawn_ones.right | redrawn_ones.right_in_pixels).sum() <= 1, "but is another picture"


def test_a_mask_of_the_truth_is_right_in_its_part(truth: Truth) -> None:
    """The true change pasted into the picture before is the truth; spoilt elsewhere it is not preserved."""
    local = ~truth.changing.flatten(1).all(1)
    pasted = torch.where(truth.changing[:, None], truth.after, truth.before)
    assert bool(told(truth, pasted).right_in_pixels.all())
    spoilt = torch.where(truth.same[:, None], truth.before.roll(3, 0), truth.after)
    assert not bool(told(truth, spoilt).in_pixels[local].any())


def test_errors_are_those_of_the_pixels_named() -> None:
    one, other = torch.rand(2, 3, 4, 4), torch.rand(2, 3, 4, 4)
    everywhere, nowhere = torch.ones(2, 4, 4, dtype=torch.bool), torch.zeros(2, 4, 4, dtype=torch.bool)
    torch.testing.assert_close(mse_where(one, other, everywhere), mse(one, other))
    assert bool(mse_where(one, other, nowhere).isnan().all())
    left = everywhere.clone()
    left[..., 2:] = False
    torch.testing.assert_close(mse_where(one, other, left), mse(one[..., :2], other[..., :2]))


def test_scenes_are_unseen_and_chains_hang_together() -> None:
    for edit in edits(5, 10**6, "photo"):
        assert is_held_out(edit.before)
        assert edit.before.seed >= 10**6
    for chain in chains(3, 10**6, "photo", 4):
        assert [a.after for a in chain[:-1]] == [b.before for b in chain[1:]]
        assert len({edit.kind for edit in chain}) == 4
        assert set(asked(whole(chain)))
    edit = edits(1, 10**6, "photo")[0]
    others = redrawn(edit, 3)
    assert len({other.seed for other in others} | {edit.after.seed}) == 4
    assert {replace(other, seed=edit.after.seed) for other in others} == {edit.after}


# The tables


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Settings, dict[str, Any]]:
    given = {"model": str(tiny("ip2p")), "painter": str(tiny("sd1")), "count": 3, "curve": 2, "chains": 2}
    settings = Settings.of({**given, "steps": 1, "first": instruct.TRYING})
    out = tmp_path_factory.mktemp("instruct") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(instruct, "IMAGE_SCALES", (1.0, 2.2))
        patch.setattr(instruct, "T0S", (0.4, 0.8))
        patch.setattr(instruct, "PAINT_STEPS", 1)
        return out, settings, finish(measure(out, settings))


def test_every_table_is_made(run: tuple[Path, Settings, dict[str, Any]]) -> None:
    out, _, scores = run
    assert json.loads((out / "scores.json").read_text()) == scores
    assert (out / "table.md").read_text() == table(scores) + "\n"
    assert set(scores["rows"]) == {
        *("truth", "truth, decoded", "untouched", "untouched, decoded", "another picture", "drawn anew"),
        "edited",
    }
    rows = scores["rows"]
    assert rows["truth"]["right in pixels"] == 1.0
    assert rows["truth"]["psnr"] == rows["untouched"]["outside, dB"] == 59.0
    assert rows["untouched, decoded"]["below the round trip, dB"] == 0.0
    assert rows["untouched"]["likeness"] == pytest.approx(1.0, abs=1e-4)
    assert rows["untouched"]["direction"] == 0.0
    assert rows["untouched"]["done in pixels"] == 0.0
    assert rows["edited"]["right in pixels"] == 0.0  # a model that knows nothing
    assert list(scores["curve"]["image scale"]) == ["1", "2.2"]
    assert list(scores["curve"]["t0"]) == ["0.4", "0.8"]
    assert set(scores["chains"]) == set(rows)
    assert sum(found["edited"]["edits"] for found in scores["by kind"].values()) == 3
    for name in ("curve.png", "sheet.png", "chains.png"):
        assert read_image(out / name).image.width > 300
    assert len(list(out.glob("chain ?/*.png"))) == 4 * 2


def test_a_run_goes_on_where_it_was(
    run: tuple[Path, Settings, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, settings, scores = run
    monkeypatch.setattr(instruct, "IMAGE_SCALES", (1.0, 2.2))
    monkeypatch.setattr(instruct, "T0S", (0.4, 0.8))
    (out / "edited" / "0001.png").unlink()
    edited: list[int] = []

    def counting(model: Any, requests: Any, seeds: Any, *rest: Any, **more: Any) -> Any:
        edited.extend(seeds)
        return edit(model, requests, seeds, *rest, **more)

    edit = instruct.instruct_pix2pix.edit
    monkeypatch.setattr(instruct.instruct_pix2pix, "edit", counting)
    monkeypatch.setattr(instruct.sdedit, "edit", None)  # all of it is there
    again = finish(measure(out, settings))
    assert edited == [0, 1, 2]  # the batch that had a hole
    assert {**again, "machine": None} == {**scores, "machine": None}
    with pytest.raises(InputError, match="holds a run with other settings"):
        finish(measure(out, settings.replace(steps=2)))


def test_a_model_that_cannot_edit_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    settings = Settings.of({"model": str(tiny("sd1")), "painter": str(tiny("sd1")), "count": 2})
    with pytest.raises(ModelError, match="cannot be told what to edit"):
        finish(measure(tmp_path / "out", settings))
    assert not (tmp_path / "out").exists()
    outcome = scumble("bench", "edits", "--instruct", "-o", str(tmp_path / "x"), "--model", str(tiny("sd1")))
    assert (outcome.status, "cannot be told what to edit" in outcome.sentence) == (2, True)


def test_curves_of_one_point_and_of_equal_points_can_be_drawn() -> None:
    sheet = plot({"a": [(0.0, 1.0, "x")], "b": [(0.0, 1.0, ""), (0.0, 1.0, "")]}, across="x", up="y")
    assert len(sheet.getcolors(10**6) or ()) > 3


def test_edits_are_timed_beside_the_pipeline(tmp_path: Path) -> None:
    scores = finish(
        speed.measure(
            tmp_path / "out",
            speed.Settings(model=str(tiny("ip2p")), repeats=1, steps=2, instruct=True),
        )
    )
    assert list(scores["races"]) == [
        "an edit, 2 steps of ancestral Euler",
        "an edit, both at their defaults",
        "with `--auto`, beside three of our edits",
    ]
    for row in scores["races"].values():
        assert row["ratio"] > 0
        assert row["cpu ratio"] > 0
    assert scores["races"]["an edit, both at their defaults"]["cpu ratio"] < 1, "a quarter of the steps"
    refused = scumble("bench", "speed", "--instruct", "--model", str(tiny("sd1")), "-o", str(tmp_path / "x"))
    assert (refused.status, "cannot be told what to edit" in refused.sentence) == (2, True)
