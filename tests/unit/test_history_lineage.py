"""What is learnt stands in the history too: weights, merges and atlases, between what they came from and what
was made with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cli import Outcome, scumble
from scumble.core.errors import InputError
from scumble.history.recipe import Ingredient, Recipe
from scumble.history.store import Store
from scumble.verbs.lineage import MOST, how_again
from scumble.verbs.redo import plan
from tiny import shared
from videos import moving_square, square_masks, video_file


@pytest.fixture(autouse=True)
def _own_history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCUMBLE_DATA", str(tmp_path / "data"))


def run(*argv: Any) -> Outcome:
    outcome = scumble(*map(str, argv))
    assert outcome.status == 0, outcome.err
    return outcome


def photos(folder: Path, count: int = 2) -> Path:
    folder.mkdir()
    for seed in range(count):
        pixels = np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{seed}.png")
    return folder


TINY = ("--model", shared("sd1"))


def learnt(folder: Path, word: str, out: Path, noun: str = "dog") -> Path:
    short = ("--steps", 1, "--batch", 1, "--size", 64, "--seed", 3)
    run("learn", "textual-inversion", folder, "--word", word, "--noun", noun, *TINY, *short, "-o", out)
    return out


def test_learnt_weights_stand_between_photos_and_pictures(tmp_path: Path) -> None:
    pets = photos(tmp_path / "pets")
    run("strokes", pets / "0.png", "-o", pets / "painted.png")
    rex = learnt(pets, "<rex>", tmp_path / "rex.safetensors")
    run("generate", "a <rex>", *TINY, "--steps", 1, "--with", rex, "-o", tmp_path / "picture.png")
    about = run("history", "show", rex, "--json").json
    assert about["command"] == "learn textual-inversion"
    assert about["recipe"]["settings"]["subjects"] == ["pets:<rex>:dog"]
    assert about["recipe"]["settings"]["steps"] == 1
    names = [i["name"] for i in about["recipe"]["ingredients"]]
    assert names == ["0.png", "1.png", "painted.png"]
    assert [row["path"] for row in about["ancestors"]] == [str(pets / "painted.png")]
    assert [row["path"] for row in about["children"]] == [str(tmp_path / "picture.png")]
    made_from = run("history", "show", tmp_path / "picture.png", "--json").json["ancestors"]
    assert [(row["depth"], row["number"]) for row in made_from] == [(1, 2), (2, 1)]
    assert "subjects: ['pets:<rex>:dog']" in run("history", "show", rex).out
    assert "rex.safetensors" in run("history").out
    run("history", "thumbnails", "-o", tmp_path / "sheet.png")


def test_learnt_weights_are_not_made_again_but_how_is_said(tmp_path: Path) -> None:
    pets = photos(tmp_path / "pets")
    run("strokes", pets / "0.png", "-o", pets / "painted.png")
    rex = learnt(pets, "<rex>", tmp_path / "rex.safetensors")
    run("generate", "a <rex>", *TINY, "--steps", 1, "--with", rex, "-o", tmp_path / "picture.png")
    again = "scumble learn textual-inversion --subject 'pets:<rex>:dog' -o OUT"
    said = f"What comes of 'learn textual-inversion' is not made again by redo. Make it again with: {again}"
    for what in ("2", rex):
        assert scumble("redo", str(what), "-o", str(tmp_path / "new.png")).sentence == said
    for at in ("1", "2"):
        asked = ("--at", at, "-o", str(tmp_path / "new"))
        assert scumble("history", "branch", str(tmp_path / "picture.png"), *asked).sentence == said
    assert not (tmp_path / "new").exists()
    rex.unlink()
    with pytest.raises(InputError, match=r"`scumble learn textual-inversion .* -o rex\.safetensors`"):
        plan(tmp_path / "picture.png")


def test_a_merge_knows_what_it_is_of(tmp_path: Path) -> None:
    pets = photos(tmp_path / "pets")
    for name, noun in (("rex", "dog"), ("tom", "cat")):
        learnt(pets, f"<{name}>", tmp_path / f"{name}.safetensors", noun)
    both = tmp_path / "both.safetensors"
    run("merge", tmp_path / "rex.safetensors", f"{tmp_path / 'tom.safetensors'}:0.5", *TINY, "-o", both)
    about = run("history", "show", both, "--json").json
    assert about["command"] == "merge"
    assert sorted(row["number"] for row in about["ancestors"]) == [1, 2]
    refused = scumble("redo", str(both), "-o", str(tmp_path / "new.png"))
    assert refused.sentence.endswith("scumble merge rex.safetensors tom.safetensors:0.5 -o OUT")


def test_an_atlas_stands_between_a_video_and_its_edits(tmp_path: Path) -> None:
    video_file(tmp_path / "in.mp4", moving_square(3, 48, 64))
    Image.fromarray((square_masks(1, 48, 64)[0, 0] * 255).byte().numpy()).save(tmp_path / "mask.png")
    fit = ("--mask", tmp_path / "mask.png", "--steps", 5, "--seed", 1)
    run("atlas", tmp_path / "in.mp4", *fit, "-o", tmp_path / "in.atlas")
    run("strokes", tmp_path / "in-foreground.png", "-o", tmp_path / "painted.png")
    painted = ("--atlas", tmp_path / "in.atlas", "--painted", tmp_path / "painted.png")
    run("edit", "text2live", tmp_path / "in.mp4", *painted, "-o", tmp_path / "out.mp4")
    shown = run("history", "show", tmp_path / "out.mp4", "--json").json
    names = {Path(row["path"]).name for row in shown["ancestors"]}
    assert names == {"in.atlas", "painted.png", "in-foreground.png"}
    about = run("history", "show", tmp_path / "in.atlas", "--json").json
    assert {i["role"]: i["name"] for i in about["recipe"]["ingredients"]} == {
        "video": "in.mp4",
        "mask": "mask.png",
    }
    assert (about["recipe"]["seed"], about["recipe"]["settings"]["steps"]) == (1, 5)
    for what in (
        tmp_path / "in.atlas",
        run("history", "show", tmp_path / "in-foreground.png", "--json").json["number"],
    ):
        refused = scumble("redo", str(what), "-o", str(tmp_path / "new.png"))
        assert refused.sentence.endswith("Make it again with: scumble atlas in.mp4 --mask mask.png -o OUT")


def test_a_missing_photo_or_a_history_that_is_off_breaks_no_learning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pets = photos(tmp_path / "pets")
    with monkeypatch.context() as patch:
        patch.setattr("scumble.verbs.lineage.sha256", sha_of_nothing)
        learnt(pets, "<rex>", tmp_path / "rex.safetensors")
    monkeypatch.setenv("SCUMBLE_HISTORY", "off")
    learnt(pets, "<tom>", tmp_path / "tom.safetensors")
    monkeypatch.delenv("SCUMBLE_HISTORY")
    assert (tmp_path / "tom.safetensors").is_file()
    with Store.opened() as store:
        assert store.count == 0


def sha_of_nothing(path: Path) -> str:
    raise InputError(f"{path} does not exist.")


def test_very_many_photos_stay_a_recipe_that_can_be_read(tmp_path: Path) -> None:
    pets = photos(tmp_path / "pets", MOST + 3)
    about = run("history", "show", learnt(pets, "<rex>", tmp_path / "rex.safetensors"), "--json").json
    assert len(about["recipe"]["ingredients"]) == MOST


@pytest.mark.parametrize("subjects", ["x", 3, [1, None], [["a"]], ["\x1b[2J" * 99] * 99])
def test_a_strangers_recipe_of_learning_is_harmless(subjects: Any) -> None:
    many = tuple(Ingredient(role="weights", name="'" * 200, hash="ab" * 16, scale=1e300) for _ in range(50))
    recipe = Recipe(command="learn \x1b[2J", settings={"subjects": subjects}, ingredients=many)
    text = how_again(recipe)
    assert text.startswith("scumble learn ")
    assert text.isprintable()
