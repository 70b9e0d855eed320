"""The tables of SDEdit, and the races, each in a few steps on a few scenes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cli import scumble
from scumble.bench import sdedit, speed
from scumble.bench.sdedit import T0S, Settings, measure
from scumble.bench.speed_quality import instructed, painted
from scumble.core.events import finish
from tiny import shared as tiny

SMALL = Settings(count=2, edits=2, fresh=4, steps=3)


@pytest.fixture(scope="module")
def scores(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("bench")
    return out, finish(measure(out, SMALL))


def test_its_rows_say_what_their_pictures_are(scores: tuple[Path, dict[str, Any]]) -> None:
    _, found = scores
    rows = found["rows"]
    assert list(rows) == ["renders", "strokes", "words alone", *map(str, T0S), "auto"]
    assert rows["strokes"]["l2"] == 0
    assert rows["strokes"]["realism"] == 0
    assert rows["words alone"]["realism"] == 1
    far = [rows[str(t0)]["l2"] for t0 in T0S]
    assert far[0] < far[-1]


def test_the_search_is_held_against_one_t0_for_all(scores: tuple[Path, dict[str, Any]]) -> None:
    auto = scores[1]["auto"]
    assert len(auto["found"]) == SMALL.count
    assert set(auto["near, the same for all"]) == set(map(str, T0S))
    assert auto["scenes"] == len(auto["best"])


def test_edits_of_a_part_stand_beside_what_was_there_before(scores: tuple[Path, dict[str, Any]]) -> None:
    for name in ("colour edit", "sunglasses"):
        row = scores[1][name]
        assert list(row["right"]) == list(sdedit.PARTS)
        assert row["changed outside"] == 0


def test_a_run_goes_on_and_writes_what_it_shows(scores: tuple[Path, dict[str, Any]]) -> None:
    out, found = scores
    again = finish(measure(out, SMALL))
    assert again["rows"] == found["rows"]
    assert (out / "table.md").read_text().strip() == sdedit.table(found).strip()
    assert (out / "curve.png").is_file()
    assert (out / "sheet.png").is_file()


def test_options_of_other_tables_are_refused(tmp_path: Path) -> None:
    wrong = scumble("bench", "edits", "--sdedit", "--trying", "-o", str(tmp_path))
    assert (wrong.status, wrong.sentence) == (2, "--trying is nothing for --sdedit. Leave it out.")
    wrong = scumble("bench", "edits", "--sdedit", "--instruct", "-o", str(tmp_path))
    assert wrong.status == 2
    assert "2 tables are too many" in wrong.sentence


def test_races_on_a_small_model(tmp_path: Path) -> None:
    settings = speed.Settings(model=str(tiny("sd1")), repeats=1, steps=2)
    found = finish(speed.measure(tmp_path, settings))
    assert len(found["races"]) == 3
    assert all(row["ratio"] > 0 for row in found["races"].values())
    assert found["quality"] == {}  # no truth is known of what a random model draws
    assert len((tmp_path / "table.md").read_text().splitlines()) == 5


def test_what_both_sides_made_is_scored(tmp_path: Path) -> None:
    rows = finish(painted(tmp_path / "a", {"untouched": lambda guide, _words, _seed: guide}, 2))
    assert rows["untouched"]["L2 to the strokes"] == "0.000 ± 0.000"
    rows = finish(instructed(tmp_path / "b", {"untouched": lambda picture, _words, _seed: picture}, 2))
    assert rows["untouched"]["CLIP image similarity"] == "1.000 ± 0.000"
    assert str(rows["untouched"]["CLIP direction"]).startswith(("0.000", "-0.000"))
