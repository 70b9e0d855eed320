"""`scumble history`: listing, showing, pruning, a sheet of thumbnails, and another way from an ancestor."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cli import Outcome, scumble
from scumble.core.errors import InputError
from scumble.core.events import finish
from scumble.history.embed import read_recipe, save_options
from scumble.history.store import Store
from scumble.verbs.branch import branch_to
from scumble.verbs.history import described
from tiny import shared


@pytest.fixture
def chain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """photo -> strokes (1) -> painted (2) -> strokes again (3)."""
    monkeypatch.setenv("SCUMBLE_DATA", str(tmp_path / "data"))
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    run("strokes", tmp_path / "photo.png", "--colours", 4, "-o", tmp_path / "guide.png")
    paint = ("--model", shared("sd1"), "--steps", 2, "--seed", 5, "--prompt", "a cat")
    run("edit", "sdedit", tmp_path / "guide.png", *paint, "-o", tmp_path / "painted.png")
    run("strokes", tmp_path / "painted.png", "--colours", 3, "-o", tmp_path / "end.png")
    return tmp_path


def run(*argv: Any) -> Outcome:
    outcome = scumble(*map(str, argv))
    assert outcome.status == 0, outcome.err
    return outcome


def pixels(path: Path) -> np.ndarray[Any, Any]:
    with Image.open(path) as image:
        return np.asarray(image)


def test_an_empty_history_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCUMBLE_DATA", str(tmp_path / "data"))
    assert run("history").out == "The history is empty.\n"
    sheet = scumble("history", "thumbnails", "-o", str(tmp_path / "sheet.png"))
    assert (sheet.status, "history is empty" in sheet.sentence) == (2, True)


def test_list_show_thumbnails_and_prune(chain: Path) -> None:
    lines = run("history").out.splitlines()
    assert [line.split()[0] for line in lines] == ["3", "2", "1"]
    assert "a cat" in lines[1]
    assert len(run("history", "--count", 1, "--json").json["entries"]) == 1
    assert len(run("history", "--count", 10**20, "--json").json["entries"]) == 3
    assert run("history", "prune", "--keep", 10**20, "--json").json["forgotten"] == 0
    shown = run("history", "show", chain / "painted.png", "--json").json
    assert [row["number"] for row in shown["ancestors"]] == [1]
    assert [row["number"] for row in shown["children"]] == [3]
    assert shown["recipe"]["settings"]["prompt"] == "a cat"
    text = run("history", "show", 3).out
    assert f"made from:   2  {chain / 'painted.png'}" in text
    assert f"made from:     1  {chain / 'guide.png'}" in text
    run("history", "thumbnails", "-o", chain / "sheet.png")
    assert pixels(chain / "sheet.png").shape[0] >= 142
    (chain / "end.png").unlink()
    assert "(gone)" in run("history").out.splitlines()[0]
    assert run("history", "prune", "--gone", "--json").json["forgotten"] == 1
    counted = run("history", "prune", "--keep", 1, "--dry-run")
    assert counted.out.startswith("1 would be forgotten, 1 left")
    assert run("history", "prune", "--keep", 1, "--json").json["left"] == 1
    assert run("history", "prune", "--days", 0, "--json").json["left"] == 0
    assert sorted(p.name for p in chain.glob("*.png")) == [
        "guide.png",
        "painted.png",
        "photo.png",
        "sheet.png",
    ]
    assert "Nothing was said to forget" in scumble("history", "prune").sentence


def test_a_sheet_of_thumbnails_has_an_end(tmp_path: Path) -> None:
    asked = ("history", "thumbnails", "--count", "2201", "-o", str(tmp_path / "sheet.png"))
    refused = scumble(*asked)
    assert refused.status == 2
    assert refused.sentence == "2,201 thumbnails do not go onto one sheet. Ask for 2,200 at most."


def test_a_strangers_recipe_is_shown_and_steers_no_terminal(chain: Path) -> None:
    recipe = read_recipe(chain / "painted.png")
    hostile = recipe.model_copy(update={"settings": {"prompt": "\x1b[2J\x07red", "\x1b]0;x": 1}})
    Image.new("RGB", (4, 4)).save(chain / "strange.png", **save_options(".png", hostile))
    out = run("history", "show", chain / "strange.png").out
    assert out.replace("\n", "").isprintable()
    assert "red" in out
    assert described(chain / "strange.png")["ancestors"] == []


def test_branching_does_again_what_came_after(chain: Path) -> None:
    before = {path.name: path.read_bytes() for path in chain.glob("*.png")}
    outcome = run(
        "history", "branch", chain / "end.png", "--at", 1, "--set", "colours=2", "-o", chain / "new"
    )
    files = [chain / "new" / name for name in ("1-guide.png", "2-painted.png", "3-end.png")]
    assert outcome.out.split() == [str(file) for file in files]
    assert len(np.unique(pixels(files[0]).reshape(-1, 3), axis=0)) == 2
    assert read_recipe(files[0]).settings["colours"] == 2
    assert read_recipe(files[1]).settings == read_recipe(chain / "painted.png").settings
    assert read_recipe(files[2]).settings["colours"] == 3
    assert not np.array_equal(pixels(files[1]), pixels(chain / "painted.png"))
    assert before == {path.name: path.read_bytes() for path in chain.glob("*.png")}  # nothing overwritten
    with Store.opened() as store:
        new = store.newest(1)[0]
        [painted] = store.parents(new)
        assert [painted.place, store.parents(painted)[0].place] == [files[1], files[0]]


def test_a_branch_can_be_rehearsed(chain: Path) -> None:
    asked = ("history", "branch", chain / "end.png", "--at", 1, "-o", chain / "new")
    steps = run(*asked, "--dry-run", "--json").json["steps"]
    assert not (chain / "new").exists()
    done = [file["path"] for file in run(*asked, "--json").json["pictures"]]
    assert [step.partition(": ")[0] for step in steps] == done


def test_branching_without_a_change_gives_the_same(chain: Path) -> None:
    steps = finish(branch_to(3, 2, chain / "new"))
    assert steps[0].same is True
    assert np.array_equal(pixels(chain / "new" / "2-end.png"), pixels(chain / "end.png"))


def test_what_cannot_be_branched(chain: Path) -> None:
    with pytest.raises(InputError, match="Number 3 is no ancestor of number 2"):
        finish(branch_to(2, 3, chain / "new"))
    with pytest.raises(InputError, match="is not in the history"):
        finish(branch_to(chain / "photo.png", 1, chain / "new"))
    with pytest.raises(InputError, match="exists already"):
        finish(branch_to(3, 1, chain / "data"))
    assert not (chain / "new").exists()


def test_of_several_with_one_content_the_file_that_was_given(chain: Path) -> None:
    run("redo", chain / "guide.png", "-o", chain / "again.png")  # number 4, of the same bytes
    assert (chain / "again.png").read_bytes() == (chain / "guide.png").read_bytes()
    for name, number in (("guide.png", 1), ("again.png", 4)):
        shown = run("history", "show", chain / name, "--json").json
        assert (shown["number"], shown["path"]) == (number, str(chain / name))
    (chain / "again.png").rename(chain / "elsewhere.png")
    assert run("history", "show", chain / "elsewhere.png", "--json").json["number"] == 1  # 4 is gone
    (chain / "guide.png").unlink()
    assert run("history", "show", chain / "elsewhere.png", "--json").json["number"] == 4


def test_an_ancestor_has_the_name_that_went_in(chain: Path) -> None:
    run("redo", chain / "guide.png", "-o", chain / "again.png")
    run("strokes", chain / "guide.png", "-o", chain / "more.png")
    shown = run("history", "show", chain / "more.png", "--json").json
    assert [row["path"] for row in shown["ancestors"]] == [str(chain / "guide.png")]


@pytest.mark.parametrize(
    "text", ["1" * 5000, "1" * 300, "x" * 300, f"{'é' * 200}.png", f"folder/{'x' * 300}"]
)
@pytest.mark.parametrize("command", [("redo", "-o", "new.png"), ("history", "show")])
def test_what_is_no_name_and_no_number_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, command: tuple[str, ...]
) -> None:
    monkeypatch.setenv("SCUMBLE_DATA", str(tmp_path / "data"))
    refused = scumble(*command, text)
    assert refused.status == 2
    assert refused.sentence == f"{text[:39]}… is neither a file nor a number of the history."


def test_looking_at_the_history_loads_no_torch() -> None:
    code = """
import sys
from scumble.cli import history, redo
from scumble.verbs import history
assert not {"torch", "diffusers", "transformers", "numpy"} & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", code], check=True)
