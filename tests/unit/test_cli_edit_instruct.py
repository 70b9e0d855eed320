"""`scumble edit instruct` as a stranger types it, right and wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cli import Outcome, scumble
from learnt import learnt, tiny_model
from pairs import picture
from scumble.adapters.weights import Weights
from scumble.core.errors import ModelError
from scumble.history.embed import read_recipe
from scumble.models import toybox
from scumble.verbs.redo import plan
from tiny import shared

SIZE = (72, 40)


def shown(path: Path, seed: int = 0, size: tuple[int, int] = SIZE) -> Path:
    picture(seed, *size).save(path)
    return path


def run(image: Path, out: Path, *more: Any, model: str = "ip2p") -> Outcome:
    on = ("--model", str(shared(model)), "--steps", "2", "--seed", "5")
    return scumble("edit", "instruct", str(image), *map(str, more), *on, "-o", str(out))


def pixels(path: Path) -> np.ndarray[Any, Any]:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def test_one_edit_with_its_recipe(tmp_path: Path) -> None:
    image, out = shown(tmp_path / "a.png"), tmp_path / "out.png"
    outcome = run(image, out, "make it night", "--image-scale", 1.2)
    assert (outcome.status, outcome.out) == (0, f"{out}\n")
    assert pixels(out).shape == (40, 72, 3)
    recipe = read_recipe(out)
    assert (recipe.command, recipe.seed) == ("edit instruct", 5)
    wanted = {"instructions": ["make it night"], "image_scale": 1.2, "text_scale": 7.5, "steps": 2}
    assert wanted.items() <= recipe.settings.items()
    assert [i.role for i in recipe.ingredients] == ["image"]
    assert "compositeWithTrainedAlgorithmicMedia" in out.read_bytes().decode("latin-1")


def test_a_chain_is_one_edit_after_the_other(tmp_path: Path) -> None:
    image = shown(tmp_path / "a.png")
    chain, first, second = (tmp_path / f"{name}.png" for name in ("chain", "first", "second"))
    assert run(image, chain, "make it night", "a red cat").status == 0
    assert run(image, first, "make it night").status == 0
    assert run(first, second, "a red cat").status == 0
    assert (pixels(chain) == pixels(second)).all()
    assert (pixels(first) != pixels(second)).any()
    assert read_recipe(chain).settings["instructions"] == ["make it night", "a red cat"]


def test_what_the_mask_keeps_stays_to_the_bit_through_a_chain(tmp_path: Path) -> None:
    image, mask, out = shown(tmp_path / "a.png"), tmp_path / "mask.png", tmp_path / "out.png"
    left = Image.new("L", SIZE)
    left.paste(255, (0, 0, 30, 40))
    left.save(mask)
    assert run(image, out, "make it night", "a red cat", "--mask", mask, "--feather", 2).status == 0
    assert (pixels(out)[:, 30:] == pixels(image)[:, 30:]).all()
    assert (pixels(out)[:, :30] != pixels(image)[:, :30]).any()
    assert {i.role for i in read_recipe(out).ingredients} == {"image", "mask"}
    warned = run(image, tmp_path / "out.jpg", "make it night", "--mask", mask)
    assert "JPEG changes every pixel" in warned.err


def test_a_folder_gives_a_folder(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    shown(images / "a.png")
    shown(images / "b.png", 1, (33, 20))
    outcome = run(images, tmp_path / "out", "make it night", "--json")
    assert [Path(row["path"]).name for row in outcome.json["pictures"]] == ["a.png", "b.png"]
    assert pixels(tmp_path / "out" / "b.png").shape == (20, 33, 3)


def test_several_of_one_picture_have_seeds_of_their_own(tmp_path: Path) -> None:
    image, out = shown(tmp_path / "a.png"), tmp_path / "out.png"
    outcome = run(image, out, "make it night", "--count", 2, "--json")
    assert [row["seed"] for row in outcome.json["pictures"]] == [5, 6, 5]
    assert (pixels(tmp_path / "out-5.png") != pixels(tmp_path / "out-6.png")).any()


def test_sweep_is_one_labelled_sheet(tmp_path: Path) -> None:
    image, out = shown(tmp_path / "a.png"), tmp_path / "sheet.png"
    outcome = run(image, out, "make it night", "--sweep", "--count", 3)
    assert (outcome.status, outcome.out) == (0, f"{out}\n")
    sheet = pixels(out)
    assert sheet.shape[1] > 7 * 72
    assert sheet.shape[0] > 4 * 40
    assert read_recipe(out).settings["search"] == "sweep"


def test_auto_says_what_it_found_and_is_the_plain_edit_there(tmp_path: Path) -> None:
    image, auto, plain = shown(tmp_path / "a.png"), tmp_path / "auto.png", tmp_path / "plain.png"
    captions = ("--before", "a dog", "--after", "a dog at night", "--clip", toybox.clip())
    outcome = run(image, auto, "make it night", "--auto", *captions)
    assert outcome.status == 0
    found = read_recipe(auto).settings
    assert f"image scale {found['image_scale']:g} and the text scale {found['text_scale']:g}" in outcome.err
    options = ("--image-scale", found["image_scale"], "--text-scale", found["text_scale"])
    assert run(image, plain, "make it night", *options).status == 0
    assert (pixels(auto) == pixels(plain)).all()
    assert found == read_recipe(plain).settings


def test_a_dry_run_says_what_it_needs_and_writes_nothing(tmp_path: Path) -> None:
    image, out = shown(tmp_path / "a.png"), tmp_path / "o.png"
    preset = ("--preset", "paper", "--text-scale", "3", "--dry-run", "--json")
    outcome = scumble(
        "edit", "instruct", str(image), "x", *preset, "--model", str(shared("ip2p")), "-o", str(out)
    )
    assert outcome.json["seconds"] > 0
    assert outcome.json["memory_bytes"] > 100_000
    settings = outcome.json["settings"]
    assert (settings["steps"], settings["sampler"], settings["text_scale"]) == (100, "euler_ancestral", 3)
    assert not out.exists()


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (("",), "The instruction is empty"),
        (("x", "--image-scale", "-1"), "image_scale cannot be -1"),
        (("x", "--text-scale", "-0.5"), "text_scale cannot be -0.5"),
        (("x", "y", "--auto"), "auto looks at one instruction, and there are 2"),
        (("x", "--auto", "--sweep"), "--auto and --sweep exclude each other"),
        (("x", "--before", "a dog"), "One of the captions before and after is missing"),
        (("x", "--clip", "nowhere"), "Captions and a CLIP are for the search alone. Give --auto too."),
        (("x", "--preset", "slow"), "There is no preset 'slow'"),
    ],
)
def test_what_is_wrong_is_one_sentence(tmp_path: Path, more: tuple[str, ...], sentence: str) -> None:
    outcome = run(shown(tmp_path / "a.png"), tmp_path / "o.png", *more)
    assert outcome.status == 2
    assert sentence in outcome.sentence
    assert not (tmp_path / "o.png").exists()


def test_a_model_without_channels_for_the_picture_is_refused(tmp_path: Path) -> None:
    outcome = run(shown(tmp_path / "a.png"), tmp_path / "o.png", "make it night", model="sd1")
    assert outcome.status == 2
    assert "sd1 cannot be told what to edit: its denoiser has no channels for the picture" in outcome.sentence
    dry = run(tmp_path / "a.png", tmp_path / "o.png", "make it night", "--dry-run", model="sd1")
    assert dry.status == 2


def test_without_its_weights_toybox_instruct_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none() -> Path:
        raise ModelError("This toybox has no weights for toybox-instruct yet.")

    monkeypatch.setattr(toybox, "editing", none)
    image = shown(tmp_path / "a.png")
    outcome = scumble("edit", "instruct", str(image), "make it night", "-o", str(tmp_path / "o.png"))
    assert (outcome.status, outcome.sentence) == (2, "This toybox has no weights for toybox-instruct yet.")


def test_nothing_is_overwritten_unless_asked(tmp_path: Path) -> None:
    image, out = shown(tmp_path / "a.png"), tmp_path / "out.png"
    out.write_text("precious")
    assert run(image, out, "make it night").status == 2
    assert out.read_text() == "precious"
    assert run(image, out, "make it night", "--overwrite").status == 0


def test_a_learnt_word_changes_the_edit(tmp_path: Path) -> None:
    image, words = shown(tmp_path / "a.png"), tmp_path / "rex.safetensors"
    whole = learnt(tiny_model("ip2p"), word="<rex>")
    Weights(method="test", family="sd1", base_hash=whole.base_hash, words=whole.words).save(words)
    instruction = "replace the cat with <rex> dog"
    assert run(image, tmp_path / "plain.png", instruction).status == 0
    assert run(image, tmp_path / "rex.png", instruction, "--with", words).status == 0
    assert (pixels(tmp_path / "plain.png") != pixels(tmp_path / "rex.png")).any()
    assert [i.role for i in read_recipe(tmp_path / "rex.png").ingredients] == ["image", "weights"]


def test_redo_knows_the_command(tmp_path: Path) -> None:
    image, out = shown(tmp_path / "a.png"), tmp_path / "out.png"
    assert run(image, out, "make it night", "a red cat").status == 0
    again = plan(out, inputs=[str(image)], model=str(shared("ip2p")))
    assert again.config.model_dump()["instructions"] == ("make it night", "a red cat")
    assert again.found.files == {"image": image}
