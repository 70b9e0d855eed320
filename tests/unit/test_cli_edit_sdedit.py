"""`scumble edit sdedit` as a stranger types it, right and wrong."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file

from cli import Outcome, scumble
from learnt import learnt, tiny_model
from lpips_files import torchvision_like
from scumble.history.embed import read_recipe
from tiny import shared


def picture(path: Path, *, seed: int = 0, size: tuple[int, int] = (40, 30), mode: str = "RGB") -> Path:
    """A picture of noise in `path`; returns it."""
    shape = (size[1], size[0], {"L": 1, "RGB": 3, "RGBA": 4}[mode])
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(pixels.squeeze()).save(path)
    return path


def mask(path: Path, size: tuple[int, int] = (40, 30)) -> Path:
    """White on the left half."""
    image = Image.new("L", size)
    image.paste(255, (0, 0, size[0] // 2, size[1]))
    image.save(path)
    return path


def run(guide: Path, out: Path, *more: Any) -> Outcome:
    model = ("--model", str(shared("sd1")), "--steps", "2", "--seed", "5")
    return scumble("edit", "sdedit", str(guide), *model, "-o", str(out), *map(str, more))


def pixels(path: Path) -> np.ndarray[Any, Any]:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def test_one_painting_with_its_recipe(tmp_path: Path) -> None:
    guide, out = picture(tmp_path / "guide.png"), tmp_path / "out.png"
    outcome = run(guide, out, "--prompt", "a red cat", "--t0", "0.4")
    assert (outcome.status, outcome.out) == (0, f"{out}\n")
    assert pixels(out).shape == (30, 40, 3)
    recipe = read_recipe(out)
    assert (recipe.command, recipe.seed) == ("edit sdedit", 5)
    assert {"prompt": "a red cat", "t0": 0.4, "steps": 2}.items() <= recipe.settings.items()
    [made_of] = recipe.ingredients
    digest = sha256(guide.read_bytes()).hexdigest()
    assert (made_of.role, made_of.name, made_of.hash) == ("guide", "guide.png", digest)
    assert "compositeWithTrainedAlgorithmicMedia" in out.read_bytes().decode("latin-1")


def test_what_the_mask_keeps_is_the_originals_to_the_bit(tmp_path: Path) -> None:
    guide, original = picture(tmp_path / "guide.png"), picture(tmp_path / "original.png", seed=1)
    out = tmp_path / "out.png"
    options = ("--original", original, "--mask", mask(tmp_path / "mask.png"), "--repeats", 2, "--feather", 3)
    outcome = run(guide, out, *options)
    assert outcome.status == 0
    assert "JPEG" not in outcome.err
    assert (pixels(out)[:, 20:] == pixels(original)[:, 20:]).all()
    assert (pixels(out)[:, :20] != pixels(guide)[:, :20]).any()
    assert {i.role for i in read_recipe(out).ingredients} == {"guide", "original", "mask"}


def test_a_learnt_word_changes_what_the_mask_frees_and_nothing_else(tmp_path: Path) -> None:
    model = tiny_model()
    word = tmp_path / "rex.safetensors"
    replace(learnt(model), changes={}).save(word)  # a word alone, as Textual Inversion learns it
    guide, omega = picture(tmp_path / "guide.png"), mask(tmp_path / "mask.png")
    found: dict[str, np.ndarray[Any, Any]] = {}
    for name, options in (("with", ("--with", word)), ("without", ())):
        out = tmp_path / f"{name}.png"
        outcome = run(guide, out, "--mask", omega, "--prompt", "a <rex> on grass", "--guidance", 3, *options)
        assert outcome.status == 0, outcome.err
        found[name] = pixels(out)
        assert (found[name] != pixels(guide))[:, 20:].sum() == 0
        assert (found[name] != pixels(guide))[:, :20].any()
    assert (found["with"] != found["without"])[:, :20].any()
    [made_of] = [i for i in read_recipe(tmp_path / "with.png").ingredients if i.name == "rex.safetensors"]
    assert made_of.hash == sha256(word.read_bytes()).hexdigest()


def test_t0_zero_gives_the_painting_back(tmp_path: Path) -> None:
    guide, out = picture(tmp_path / "guide.png"), tmp_path / "out.png"
    assert run(guide, out, "--t0", "0").status == 0
    assert (pixels(out) == pixels(guide)).all()


def test_without_a_mask_what_was_painted_may_change(tmp_path: Path) -> None:
    original = picture(tmp_path / "original.png")
    with Image.open(original) as image:
        image.paste((255, 0, 0), (3, 4, 20, 20))
        image.save(tmp_path / "guide.png")
    assert run(tmp_path / "guide.png", tmp_path / "out.png", "--original", original).status == 0
    changed = (pixels(tmp_path / "out.png") != pixels(original)).any(2)
    assert changed[4:20, 3:20].any()
    changed[4:20, 3:20] = False
    assert not changed.any()


def test_a_transparent_painting_lies_over_the_original(tmp_path: Path) -> None:
    original = picture(tmp_path / "original.png")
    layer = Image.new("RGBA", (40, 30))
    layer.paste((255, 0, 0, 255), (3, 4, 20, 20))
    layer.save(tmp_path / "guide.png")
    options = ("--original", original, "--t0", "0")
    assert run(tmp_path / "guide.png", tmp_path / "out.png", *options).status == 0
    out = pixels(tmp_path / "out.png")
    assert (out[4:20, 3:20] == (255, 0, 0)).all()
    assert (out[:, 20:] == pixels(original)[:, 20:]).all()
    alone = run(tmp_path / "guide.png", tmp_path / "alone.png")
    assert alone.status == 2
    assert "guide.png has transparent pixels" in alone.sentence


def test_a_jpeg_under_a_mask_warns(tmp_path: Path) -> None:
    guide, omega = picture(tmp_path / "guide.png"), mask(tmp_path / "mask.png")
    outcome = run(guide, tmp_path / "out.jpg", "--mask", omega)
    assert outcome.status == 0
    assert "JPEG changes every pixel" in outcome.err


def test_a_folder_gives_a_folder(tmp_path: Path) -> None:
    guides, masks = tmp_path / "guides", tmp_path / "masks"
    guides.mkdir()
    masks.mkdir()
    for name, size in (("a", (40, 30)), ("b", (16, 24))):
        picture(guides / f"{name}.png", size=size)
        mask(masks / f"{name}.png", size)
    (guides / "notes.txt").write_text("not a picture")
    outcome = run(guides, tmp_path / "out", "--mask", masks, "--json")
    assert [Path(row["path"]).name for row in outcome.json["pictures"]] == ["a.png", "b.png"]
    assert pixels(tmp_path / "out" / "b.png").shape == (24, 16, 3)
    several = run(guides, tmp_path / "more", "--count", 2, "--json")
    names = [Path(row["path"]).name for row in several.json["pictures"]]
    assert names == ["a-5.png", "a-6.png", "a.png", "b-5.png", "b-6.png", "b.png"]


@pytest.mark.parametrize("kind", ["grey", "16 bit", "one pixel"])
def test_unusual_files_are_painted(tmp_path: Path, kind: str) -> None:
    guide = tmp_path / "guide.png"
    if kind == "grey":
        picture(guide, mode="L")
    elif kind == "16 bit":
        Image.fromarray(np.arange(1200, dtype=np.uint16).reshape(30, 40) * 54).save(guide)
    else:
        picture(guide, size=(1, 1))
    assert run(guide, tmp_path / "out.png").status == 0
    assert pixels(tmp_path / "out.png").shape == pixels(guide).shape


def wrong(tmp_path: Path) -> dict[str, tuple[list[Any], str]]:
    """Options that cannot be, and what the sentence says."""
    guide, small = picture(tmp_path / "g.png"), picture(tmp_path / "small.png", size=(20, 20))
    black = tmp_path / "black.png"
    Image.new("L", (40, 30)).save(black)
    return {
        "mask of another size": (["--mask", small], "guide has 40 x 30 pixels and the mask 20 x 20"),
        "original of another size": (["--original", small], "and the original 20 x 20"),
        "empty mask": (["--mask", black], "mask is black everywhere"),
        "nothing painted": (["--original", guide], "guide is equal to the original"),
        "t0 above": (["--t0", "1.5"], "t0 cannot be 1.5"),
        "t0 below": (["--t0", "-0.1"], "t0 cannot be -0.1"),
        "t0 a word": (["--t0", "much"], "t0 cannot be 'much'"),
        "t0 nan": (["--t0", "nan"], "t0 cannot be nan"),
        "sampler": (["--sampler", "eulr"], "sampler cannot be 'eulr': choose one of"),
        "preset": (["--preset", "storkes"], "no preset 'storkes'"),
        "repeats": (["--repeats", "0"], "repeats cannot be 0"),
        "missing mask": (["--mask", tmp_path / "no.png"], "no.png does not exist"),
    }


def test_what_cannot_be_is_one_sentence(tmp_path: Path) -> None:
    cases = wrong(tmp_path)
    assert len(cases) == 12
    for name, (options, sentence) in cases.items():
        outcome = run(tmp_path / "g.png", tmp_path / "out" / "o.png", *options)
        assert outcome.status == 2, name
        assert sentence in outcome.sentence, name
        assert not (tmp_path / "out").exists(), name


def test_no_picture_at_all(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "no picture in" in run(tmp_path / "empty", tmp_path / "out").sentence
    (tmp_path / "text.png").write_text("not a picture")
    assert run(tmp_path / "text.png", tmp_path / "out").status == 2
    picture(tmp_path / "empty" / "a.png")
    picture(tmp_path / "empty" / "a.jpg")
    assert "a.jpg and a.png would give one file" in run(tmp_path / "empty", tmp_path / "out").sentence
    (tmp_path / "empty" / "a.jpg").rename(tmp_path / "empty" / "b.jpg")
    assert "there are several pictures" in run(tmp_path / "empty", tmp_path / "out.png").sentence


def test_nothing_is_overwritten_unless_asked(tmp_path: Path) -> None:
    guide, out = picture(tmp_path / "guide.png"), tmp_path / "out.png"
    out.write_text("precious")
    assert run(guide, out).status == 2
    assert out.read_text() == "precious"
    assert run(guide, out, "--overwrite").status == 0


def test_a_preset_lies_under_what_was_given(tmp_path: Path) -> None:
    guide = picture(tmp_path / "guide.png")
    outcome = run(guide, tmp_path / "o.png", "--preset", "compositing", "--t0", "0.2", "--dry-run", "--json")
    assert outcome.json["seconds"] > 0
    settings = outcome.json["settings"]
    assert (settings["t0"], settings["steps"], settings["sampler"]) == (0.2, 2, "reverse_sde")
    assert not (tmp_path / "o.png").exists()


def test_auto_says_what_it_found_and_is_the_plain_edit_there(tmp_path: Path) -> None:
    guide, auto, plain = picture(tmp_path / "g.png"), tmp_path / "auto.png", tmp_path / "plain.png"
    outcome = run(guide, auto, "--t0", "auto", "--steps", "4")
    assert outcome.status == 0
    t0 = read_recipe(auto).settings["t0"]
    assert f"For g.png t0 {t0:.2f} was found" in outcome.err
    assert run(guide, plain, "--t0", str(t0), "--steps", "4").status == 0
    assert (pixels(auto) == pixels(plain)).all()
    assert read_recipe(auto).settings == read_recipe(plain).settings


def test_sweep_is_one_strip(tmp_path: Path) -> None:
    guide, out = picture(tmp_path / "g.png"), tmp_path / "strip.png"
    outcome = run(guide, out, "--t0", "sweep", "--count", "3")
    assert (outcome.status, outcome.out) == (0, f"{out}\n")
    sheet = pixels(out)
    assert sheet.shape[1] > 11 * 40
    assert (sheet[8:38, 20:60] == pixels(guide)).all()  # t0 0 is the guide, in the first cell
    assert read_recipe(out).settings["search"] == "sweep"


def test_sweep_draws_lpips_where_its_weights_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    guide, plain, more = tmp_path / "g.png", tmp_path / "plain.png", tmp_path / "more.png"
    picture(guide, size=(48, 40))
    assert run(guide, plain, "--t0", "sweep").status == 0
    monkeypatch.setenv("SCUMBLE_DATA", str(tmp_path))
    (tmp_path / "lpips").mkdir()
    outcome = run(guide, more, "--t0", "sweep")
    assert outcome.status == 2
    assert "does not hold the heads of LPIPS" in outcome.err
    for file, state in zip(("classifier", "heads"), torchvision_like("alex"), strict=True):
        save_file(state, tmp_path / "lpips" / f"{file}.safetensors")
    assert run(guide, more, "--t0", "sweep").status == 0
    before, after = pixels(plain), pixels(more)
    assert after.shape[0] == before.shape[0] + 16  # one more line of text
    assert not (after[: before.shape[0]] == before).all()
