"""Another way from a point of the history, where what came of it was used several times or lies elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cli import Outcome, scumble
from scumble.core.errors import InputError
from scumble.core.events import finish
from scumble.core.files import sha256
from scumble.history.embed import read_recipe
from scumble.history.store import Store
from scumble.verbs.branch import branch_to
from tiny import shared


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a photo, a patch, and a history of its own."""
    monkeypatch.setenv("SCUMBLE_DATA", str(tmp_path / "data"))
    for seed, (name, size) in enumerate({"photo": (80, 60), "patch": (20, 16), "other": (20, 16)}.items()):
        pixels = np.random.default_rng(seed).integers(0, 256, (*reversed(size), 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    return tmp_path


def run(*argv: Any) -> Outcome:
    outcome = scumble(*map(str, argv))
    assert outcome.status == 0, outcome.err
    return outcome


def used(path: Path) -> dict[str, str]:
    """Role -> hash of what went into a picture."""
    return {i.role: i.hash for i in read_recipe(path).ingredients}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


MOVED = ("--set", "at=[40,40]")


def test_an_ancestor_that_is_there_by_two_ways(here: Path) -> None:
    run("composite", here / "photo.png", here / "patch.png", "--at", "20,20", "-o", here / "a.png")
    run("strokes", here / "a.png", "--colours", 3, "-o", here / "s.png")
    run("composite", here / "a.png", here / "s.png", "--at", "30,30", "-o", here / "end.png")
    run("history", "branch", here / "end.png", "--at", 1, *MOVED, "-o", here / "new")
    assert names(here / "new") == ["1-a.png", "2-s.png", "3-end.png"]
    a, s = here / "new" / "1-a.png", here / "new" / "2-s.png"
    assert used(s) == {"image": sha256(a)}
    assert used(here / "new" / "3-end.png") == {"image": sha256(a), "patch": sha256(s)}
    with Store.opened() as store:
        end, *_ = store.newest(1)
        assert [e.place for e in store.parents(end)] == [a, s]
        assert store.places(sha256(a)) == [a]


def test_a_picture_that_stands_in_two_roles(here: Path) -> None:
    run("composite", here / "photo.png", here / "patch.png", "--at", "20,20", "-o", here / "a.png")
    run("composite", here / "a.png", here / "a.png", "--at", "30,30", "-o", here / "end.png")
    run("history", "branch", here / "end.png", "--at", 1, *MOVED, "-o", here / "new")
    assert set(used(here / "new" / "2-end.png").values()) == {sha256(here / "new" / "1-a.png")}


def test_the_mask_goes_with_its_picture(here: Path) -> None:
    paste = ("--at", "20,20", "--mask-out", here / "mask.png")
    run("composite", here / "photo.png", here / "patch.png", *paste, "-o", here / "a.png")
    paint = ("--mask", here / "mask.png", "--model", shared("sd1"), "--steps", 2, "--seed", 5)
    run("edit", "sdedit", here / "a.png", *paint, "-o", here / "end.png")
    run("history", "branch", here / "end.png", "--at", 1, *MOVED, "-o", here / "new")
    assert names(here / "new") == ["1-a.png", "2-mask.png", "3-end.png"]
    a, mask = here / "new" / "1-a.png", here / "new" / "2-mask.png"
    assert used(here / "new" / "3-end.png") == {"guide": sha256(a), "mask": sha256(mask)}
    with Image.open(mask) as new, Image.open(here / "mask.png") as old:
        assert np.argwhere(np.asarray(new)).mean(0).round() == pytest.approx([40, 40], abs=1)
        assert np.argwhere(np.asarray(old)).mean(0).round() == pytest.approx([20, 20], abs=1)
    given = ("--input", f"patch={here / 'other.png'}", "-o", here / "newer")
    run("history", "branch", here / "end.png", "--at", 1, *given)
    for name in ("1-a.png", "2-mask.png"):
        assert used(here / "newer" / name)["patch"] == sha256(here / "other.png")


@pytest.fixture
def chain(here: Path) -> Path:
    """Two pastes, whose second patch is somewhere else by now."""
    run("composite", here / "photo.png", here / "patch.png", "--at", "20,20", "-o", here / "a.png")
    run("composite", here / "a.png", here / "other.png", "--at", "30,30", "-o", here / "end.png")
    (here / "other.png").rename(here / "moved.png")
    return here


def test_what_is_missing_later_is_missed_before_anything_is_made(chain: Path) -> None:
    before = names(chain)
    asked = ("history", "branch", str(chain / "end.png"), "--at", "1", *MOVED, "-o", str(chain / "new" / "x"))
    for _ in range(2):
        refused = scumble(*asked)
        assert refused.status == 2
        assert refused.sentence == (
            "A file that went in cannot be found: other.png (patch). Give each with --input FILE."
        )
        assert names(chain) == before
    with Store.opened() as store:
        assert store.count == 2
    run(*asked, "--input", chain / "moved.png")
    assert used(chain / "new" / "x" / "2-end.png")["patch"] == sha256(chain / "moved.png")


def test_a_file_goes_to_the_step_that_it_went_into(chain: Path) -> None:
    given = ("--input", f"patch={chain / 'moved.png'}", "-o", chain / "new")
    said = run("history", "branch", chain / "end.png", "--at", 1, *MOVED, *given).err
    assert "It was made with" not in said
    assert used(chain / "new" / "1-a.png")["patch"] == sha256(chain / "patch.png")
    assert used(chain / "new" / "2-end.png")["patch"] == sha256(chain / "moved.png")


def test_another_file_goes_to_the_first_step_and_that_is_said(chain: Path) -> None:
    Image.new("RGB", (8, 8), "red").save(chain / "red.png")
    given = [f"patch={chain / 'red.png'}", str(chain / "moved.png")]
    steps = finish(branch_to(chain / "end.png", 1, chain / "new", inputs=given))
    assert [step.note for step in steps] == ["1-a.png: It was made with red.png for patch.png (patch).", ""]
    assert used(chain / "new" / "1-a.png")["patch"] == sha256(chain / "red.png")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "{}/red.png",
            r"red\.png is none of the files .* Wanted: photo\.png \(image\), patch\.png \(patch\), o",
        ),
        ("mask={}/red.png", r"No step is given a file with the role 'mask'\. There is: image, patch\."),
        ("{}/nowhere.png", "does not exist"),
    ],
)
def test_a_file_that_no_step_has_a_use_for(chain: Path, text: str, said: str) -> None:
    Image.new("RGB", (8, 8), "red").save(chain / "red.png")
    with pytest.raises(InputError, match=said):
        finish(branch_to(chain / "end.png", 1, chain / "new", inputs=[text.format(chain)]))
    assert not (chain / "new").exists()


def test_a_step_that_fails_leaves_nothing(chain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = names(chain)
    loop = branch_to(chain / "end.png", 1, chain / "new", inputs=[str(chain / "moved.png")])
    next(loop)  # in the midst of it
    next(loop)
    loop.close()
    assert names(chain) == before
    with Store.opened() as store:
        assert store.count == 2
    finish(branch_to(chain / "end.png", 1, chain / "new", inputs=[str(chain / "moved.png")]))
    assert names(chain / "new") == ["1-a.png", "2-end.png"]
