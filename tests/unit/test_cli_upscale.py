"""`scumble upscale`, `generate --upscale` and `learn dreambooth --upscaler` as a stranger types them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import tiny
from cli import Outcome, scumble
from scumble.adapters.weights import Weights
from scumble.core import images
from scumble.history.embed import read_recipe
from scumble.models import toybox
from scumble.models.load import load
from scumble.verbs import generate as generating
from scumble.verbs import upscale as upscaling
from scumble.verbs.enlarging import enlarger
from scumble.verbs.generate import generate
from scumble.verbs.load import ModelConfig
from upscalers import latent_upscaler, shared_latent_upscaler

X4 = str(tiny.shared("upscaler"))
FEW = ("--steps", "2", "--seed", "5")


@pytest.fixture(autouse=True)
def _own_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCUMBLE_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("SCUMBLE_CACHE", str(tmp_path / "cache"))


def picture(path: Path, seed: int = 0, size: tuple[int, int] = (20, 12)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (size[1], size[0], 3)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)).save(path)
    return path


def upscale(*given: Any, model: str = X4) -> Outcome:
    return scumble("upscale", *map(str, given), "--model", model, *FEW)


def pixels(path: Path) -> np.ndarray[Any, Any]:
    with Image.open(path) as image:
        return np.asarray(image)


def test_a_picture_is_made_larger_with_its_recipe(tmp_path: Path) -> None:
    small, out = picture(tmp_path / "small.png"), tmp_path / "large.png"
    outcome = upscale(small, "-o", out, "--prompt", "a red cat", "--noise-level", 30)
    assert (outcome.status, outcome.out) == (0, f"{out}\n")
    assert pixels(out).shape == (48, 80, 3)
    recipe = read_recipe(out)
    assert recipe.command == "upscale"
    assert (recipe.settings["noise_level"], recipe.settings["prompt"]) == (30, "a red cat")
    assert [i.role for i in recipe.ingredients] == ["image"]
    assert upscale(small, "-o", out).sentence.startswith(f"{out} exists already")


def test_every_option_has_an_effect(tmp_path: Path) -> None:
    small, plain = picture(tmp_path / "small.png"), tmp_path / "plain.png"
    given = (small, "--prompt", "a red cat", "--negative", "night", "--noise-level", "30")
    assert upscale(*given, "-o", plain).status == 0
    for number, more in enumerate(
        (
            ("--prompt", "a blue mug"),
            ("--noise-level", "200"),
            ("--sampler", "euler_ancestral"),
            ("--tile", "32"),
            ("--seed", "6"),
        )
    ):
        other = tmp_path / f"{number}.png"
        outcome = scumble("upscale", *map(str, given), "--model", X4, *FEW, *more, "-o", str(other))
        assert outcome.status == 0
        assert not np.array_equal(pixels(plain), pixels(other)), more


def test_a_folder_goes_where_a_file_goes(tmp_path: Path) -> None:
    for number in (1, 2):
        picture(tmp_path / "in" / f"{number}.png", number, (16, 16))
    outcome = upscale(tmp_path / "in", "-o", tmp_path / "out", model=str(shared_latent_upscaler()))
    assert outcome.status == 0
    assert {p.name: pixels(p).shape for p in (tmp_path / "out").iterdir()} == {
        "1.png": (32, 32, 3),
        "2.png": (32, 32, 3),
    }


def test_a_dry_run_says_what_it_needs(tmp_path: Path) -> None:
    small = picture(tmp_path / "small.png", size=(64, 64))
    outcome = upscale(small, "-o", tmp_path / "x.png", "--dry-run", "--json")
    assert outcome.json["seconds"] > 0
    assert outcome.json["settings"]["noise_level"] == 20
    assert not (tmp_path / "x.png").exists()


def test_what_cannot_be_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = picture(tmp_path / "small.png")
    out = ("-o", tmp_path / "x.png")
    sd1 = str(tiny.shared("sd1"))
    assert "is no upscaler" in upscale(small, *out, model=sd1).sentence
    assert "no noise level 900" in upscale(small, *out, "--noise-level", 900).sentence
    assert "no sampler 'best'" in upscale(small, *out, "--sampler", "best").sentence
    for draw in (("generate", "a cat"), ("edit", "sdedit", str(small))):
        refused = scumble(*draw, "--model", X4, "--seed", "1", "-o", str(tmp_path / "y.png"))
        assert (refused.status, "is an upscaler" in refused.sentence) == (2, True)
    edit = ("edit", "instruct", str(small), "make it red")
    assert scumble(*edit, "--model", X4, "-o", str(tmp_path / "y.png")).status == 2
    weights = Weights(method="dreambooth", family="sd1", base_hash=load(sd1).hash)
    weights.save(tmp_path / "rex.safetensors")
    refused = upscale(small, *out, "--with", tmp_path / "rex.safetensors")
    assert "learnt without the super-resolution stage" in refused.sentence
    monkeypatch.setattr(toybox, "folder", lambda: tmp_path)
    refused = scumble("upscale", str(small), "-o", str(tmp_path / "x.png"))
    assert refused.sentence.startswith("This toybox has no weights for toybox-upscaler yet.")
    assert not (tmp_path / "x.png").exists()


def test_generate_makes_its_pictures_larger(tmp_path: Path) -> None:
    draw = ("generate", "a red cat", "--model", str(tiny.shared("sd1")), *FEW)
    larger = ("--upscaler", str(shared_latent_upscaler()))
    one, plain = tmp_path / "one.png", tmp_path / "plain.png"
    assert scumble(*draw, *larger, "-o", str(one)).status == 0
    assert scumble(*draw, "-o", str(plain)).status == 0
    assert (pixels(one).shape, pixels(plain).shape) == ((128, 128, 3), (64, 64, 3))
    recipe = read_recipe(one)
    assert [(i.role, i.name) for i in recipe.ingredients] == [("upscaler", "latent-upscaler")]
    assert recipe.ingredients[0].hash == load(shared_latent_upscaler()).hash
    assert "upscaler" not in recipe.settings
    several = scumble(*draw, *larger, "--count", "2", "-o", str(tmp_path / "all"), "--json")
    assert [Path(row["path"]).name for row in several.json["pictures"]] == ["5.png", "6.png", "grid.png"]
    np.testing.assert_allclose(pixels(tmp_path / "all" / "5.png"), pixels(one), atol=2)
    needs = scumble(*draw, *larger, "-o", str(tmp_path / "n.png"), "--dry-run", "--json").json
    alone = scumble(*draw, "-o", str(tmp_path / "n.png"), "--dry-run", "--json").json
    assert needs["memory_bytes"] > alone["memory_bytes"]


def test_a_result_too_long_for_its_file_is_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(images._LONGEST, "WEBP", 100)
    monkeypatch.setattr(generating, "draw_batch", None)  # no work is done
    monkeypatch.setattr(upscaling, "enlarge", None)
    out = str(tmp_path / "large.webp")
    larger = ("--model", str(tiny.shared("sd1")), "--upscaler", str(shared_latent_upscaler()), *FEW)
    for more in ((), ("--dry-run",)):
        refused = scumble("generate", "a cat", *larger, "-o", out, *more)
        assert refused.status == 2
        assert (
            refused.sentence == "A WEBP file holds 100 pixels a side, and this is 128 x 128. Save it as PNG."
        )
    refused = upscale(picture(tmp_path / "small.png", size=(40, 12)), "-o", out)
    assert (refused.status, "this is 160 x 48" in refused.sentence) == (2, True)
    assert not (tmp_path / "large.webp").exists()


def test_another_upscaler_under_the_same_name_is_noticed(tmp_path: Path) -> None:
    place, out = latent_upscaler(tmp_path / "up"), tmp_path / "one.png"
    draw = ("generate", "a cat", "--model", str(tiny.shared("sd1")), "--upscaler", str(place), *FEW)
    assert scumble(*draw, "-o", str(out)).status == 0
    assert scumble("redo", str(out), "-o", str(tmp_path / "again.png")).status == 0
    assert np.array_equal(pixels(out), pixels(tmp_path / "again.png"))
    file = place / "unet" / "diffusion_pytorch_model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    refused = scumble("redo", str(out), "-o", str(tmp_path / "other.png"))
    assert (refused.status, "is not the upscaler that made it" in refused.sentence) == (2, True)


def test_a_subject_is_learnt_by_both_and_used_by_both(tmp_path: Path) -> None:
    for number in range(2):
        picture(tmp_path / "rex" / f"{number}.png", number, (64, 64))
    file, sd1 = tmp_path / "rex.safetensors", str(tiny.shared("sd1"))
    small = tmp_path / "small.toml"
    small.write_text('prior_weight = 0.0\nidentifier = "cat"\nrank = 2\nlr = 0.05\nsize = 64\n')
    learn = ("learn", "dreambooth", str(tmp_path / "rex"), "--word", "<rex>", "--noun", "dog", "--steps", "2")
    upscaler = ("--upscaler", X4, "--upscaler-steps", "3")
    outcome = scumble(*learn, "--model", sd1, "--config", str(small), *upscaler, "-o", str(file))
    assert outcome.status == 0, outcome.err
    weights = Weights.load(file)
    assert weights.upscaler is not None
    assert weights.upscaler.changes
    shown, plain, tuned = picture(tmp_path / "s.png"), tmp_path / "plain.png", tmp_path / "tuned.png"
    assert upscale(shown, "-o", plain, "--prompt", "a <rex> dog", "--noise-level", "0").status == 0
    assert upscale(shown, "-o", tuned, "--prompt", "a <rex> dog", "--with", file).status == 0
    assert read_recipe(tuned).settings["noise_level"] == 0  # what it was tuned with
    assert not np.array_equal(pixels(plain), pixels(tuned))
    both = tmp_path / "both.png"
    draw = ("generate", "a <rex> dog", "--model", sd1, *FEW, "--with", str(file), "--upscaler", X4)
    assert scumble(*draw, "-o", str(both)).status == 0
    assert [i.role for i in read_recipe(both).ingredients] == ["weights", "upscaler"]


def test_words_that_the_upscaler_does_not_know_are_left_out(tmp_path: Path) -> None:
    base = load(tiny.shared("sd1"))
    from learnt import learnt

    learnt(base).save(tmp_path / "rex.safetensors")
    where = ModelConfig(model=X4, weights=(str(tmp_path / "rex.safetensors"),))
    with enlarger(where, "a <rex> dog on grass", "a <rex>", None) as found:
        assert found.task.prompt == "a dog on grass"
        assert found.task.negative == "a "


def test_upscaler_and_noise_level_have_an_effect() -> None:
    settings = {"model": str(tiny.shared("sd1")), "steps": 2, "seed": 5}
    [plain] = generate("a red cat", **settings)
    larger = [
        np.asarray(
            generate("a red cat", **settings, upscaler=str(shared_latent_upscaler()), noise_level=level)[
                0
            ].image
        )
        for level in (1, 60)
    ]
    assert larger[0].shape[0] == 2 * plain.image.height
    assert not np.array_equal(*larger)
