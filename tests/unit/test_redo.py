"""Every kind of output is made again to the bit from the file alone, and what is missing is named."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cli import Outcome, scumble
from learnt import learnt
from scumble.core.errors import ConfigError, InputError
from scumble.core.events import finish
from scumble.history.embed import read_recipe, save_options
from scumble.history.recipe import Recipe
from scumble.history.store import Store
from scumble.models.load import load
from scumble.verbs import redo as redoing
from scumble.verbs.find import Found
from scumble.verbs.generate import GenerateConfig
from scumble.verbs.redo import Redone, plan, redo_to
from scumble.verbs.redo_verbs import VERBS
from tiny import make, shared
from tiny_clip import shared_clip
from upscalers import shared_latent_upscaler


@pytest.fixture(autouse=True)
def _own_history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCUMBLE_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("SCUMBLE_HISTORY", raising=False)


def picture(path: Path, seed: int = 0, *, mode: str = "RGB", size: tuple[int, int] = (40, 30)) -> Path:
    shape = (size[1], size[0], {"RGB": 3, "RGBA": 4}[mode])
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8), mode).save(path)
    return path


def mask(path: Path) -> Path:
    image = Image.new("L", (40, 30))
    image.paste(255, (0, 0, 20, 30))
    image.save(path)
    return path


def run(*argv: Any) -> Outcome:
    outcome = scumble(*map(str, argv))
    assert outcome.status == 0, outcome.err
    return outcome


def pixels(path: Path) -> np.ndarray[Any, Any]:
    with Image.open(path) as image:
        return np.asarray(image)


def again(what: Path | int, out: Path, **options: Any) -> Redone:
    return finish(redo_to(what, out, **options))


def same(one: Path, other: Path) -> bool:
    return one.read_bytes() != b"" and np.array_equal(pixels(one), pixels(other))


TINY = ("--model", shared("sd1"), "--steps", "2", "--seed", "5")


def made(tmp_path: Path) -> dict[str, Path]:
    """An output of every kind that there is."""
    guide, original = picture(tmp_path / "guide.png"), picture(tmp_path / "original.png", 1)
    omega, patch = mask(tmp_path / "mask.png"), picture(tmp_path / "patch.png", 2, mode="RGBA", size=(12, 8))
    out = tmp_path / "made"
    run("generate", "a red cat", *TINY, "-o", out / "one.png")
    run("generate", "a cat", *TINY, "--count", 5, "--batch", 3, "-o", out / "several.png")
    run("generate", "a cat", *TINY, "--sampler", "euler_ancestral", "-o", out / "lossless.webp")
    edit = ("edit", "sdedit", guide, *TINY)
    run(*edit, "--prompt", "a dog", "-o", out / "edit.png")
    run(*edit, "--original", original, "--mask", omega, "--feather", 2, "-o", out / "masked.png")
    run(*edit, "--count", 3, "--sampler", "reverse_sde", "-o", out / "edits.png")
    run(*edit, "--t0", "sweep", "-o", out / "sweep.png")
    run(*edit, "--steps", 12, "--t0", "auto", "-o", out / "auto.png")
    tell = ("edit", "instruct", original, "make it red", "--model", shared("ip2p"), "--steps", 2)
    run(*tell, "--seed", 5, "--count", 2, "--mask", omega, "-o", out / "told.png")
    small = tmp_path / "small.toml"
    small.write_text(
        f"channels = 4\nviews = 2\nrelevancy_looks = 1\nclip = {json.dumps(str(shared_clip()))}\n"
    )
    layer = ("edit", "text2live", original, "--prompt", "a red cat", "--config", small)
    run(*layer, "--steps", 2, "--seed", 3, "-o", out / "layered.png")
    larger = ("--steps", 2, "--seed", 5, "--prompt", "a cat", "-o", out / "larger.png")
    run("upscale", original, "--model", shared("upscaler"), *larger)
    upscaler = ("--upscaler", shared_latent_upscaler())
    run("generate", "a cat", *TINY, *upscaler, "-o", out / "drawn-larger.png")
    run("strokes", original, "--colours", 3, "-o", out / "strokes.png")
    paste = ("--at", "20,15", "--rotate", 30, "--mask-out", out / "pasted-mask.png")
    run("composite", original, patch, *paste, "-o", out / "pasted.png")
    return {path.stem: path for path in sorted(out.iterdir())}


def test_every_kind_of_output_is_made_again_to_the_bit(tmp_path: Path) -> None:
    outputs = made(tmp_path)
    assert len(outputs) == 28
    assert {read_recipe(path).command for path in outputs.values()} == set(VERBS) - {
        "edit text2live of a video"
    }
    assert {read_recipe(path).output for path in outputs.values()} == {
        None,
        "grid",
        "mask",
        "layer",
        "opacity",
        "green",
    }
    for name, path in outputs.items():
        new = tmp_path / "new" / path.name
        done = again(path, new)
        assert (done.same, done.note) == (True, ""), name
        assert same(path, new), name
        before, after = read_recipe(path), read_recipe(new)
        assert after == before, name


def test_a_picture_of_a_batch_is_drawn_in_the_same_company(tmp_path: Path) -> None:
    run("generate", "a cat", *TINY, "--count", 5, "--batch", 3, "-o", tmp_path / "s.png")
    assert [read_recipe(tmp_path / f"s-{seed}.png").batch for seed in range(5, 10)] == [(5, 3)] * 3 + [
        (8, 2)
    ] * 2
    assert read_recipe(tmp_path / "s.png").settings["count"] == 5


def test_a_grid_is_made_again_a_batch_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("generate", "a cat", *TINY, "--count", 5, "--batch", 2, "-o", tmp_path / "s.png")
    verb, asked = VERBS["generate"], list[range]()

    def again(config: Any, *rest: Any) -> Any:
        asked.append(config.seeds)
        return (yield from verb.again(config, *rest))

    monkeypatch.setitem(VERBS, "generate", replace(verb, again=again))
    events = list(redo_to(tmp_path / "s.png", tmp_path / "new.png"))
    assert same(tmp_path / "s.png", tmp_path / "new.png")
    assert asked == [range(5, 7), range(7, 9), range(9, 10)]
    drawn = [(event.step, event.total) for event in events if event.stage == "drawing"]
    assert drawn == [(2, 10), (4, 10), (6, 10), (8, 10), (9, 10), (10, 10)]
    assert read_recipe(tmp_path / "new.png") == read_recipe(tmp_path / "s.png")


def test_weights_are_found_and_attached(tmp_path: Path) -> None:
    learnt(load(shared("sd1"))).save(tmp_path / "rex.safetensors")
    with_rex = ("--with", f"{tmp_path / 'rex.safetensors'}:0.5")
    run("generate", "a <rex> dog", *TINY, *with_rex, "-o", tmp_path / "rex.png")
    run("generate", "a <rex> dog", *TINY, "--with", tmp_path / "rex.safetensors", "-o", tmp_path / "more.png")
    assert again(tmp_path / "rex.png", tmp_path / "new.png").same
    assert not same(tmp_path / "rex.png", tmp_path / "more.png")
    (tmp_path / "rex.safetensors").rename(tmp_path / "moved.safetensors")
    with pytest.raises(InputError, match=r"cannot be found: rex\.safetensors \(weights\)"):
        plan(tmp_path / "rex.png")
    given = [str(tmp_path / "moved.safetensors")]
    assert again(tmp_path / "rex.png", tmp_path / "newer.png", inputs=given).same


def masked(tmp_path: Path) -> Path:
    """An edit that three files went into."""
    guide, original = picture(tmp_path / "guide.png"), picture(tmp_path / "original.png", 1)
    sources = ("--original", original, "--mask", mask(tmp_path / "mask.png"))
    run("edit", "sdedit", guide, *TINY, *sources, "-o", tmp_path / "out.png")
    return tmp_path / "out.png"


def test_without_a_history_files_are_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCUMBLE_HISTORY", "off")
    path = masked(tmp_path)
    assert not (tmp_path / "data").exists()
    with pytest.raises(
        InputError, match=r"2 files .*: original\.png \(original\), mask\.png \(mask\)\. Give"
    ):
        plan(path, inputs=[str(tmp_path / "guide.png")])
    inputs = [str(tmp_path / f"{name}.png") for name in ("mask", "guide", "original")]
    with pytest.raises(InputError, match="not known where the model sd1 is"):
        plan(path, inputs=inputs)
    assert again(path, tmp_path / "new.png", inputs=inputs, model=str(shared("sd1"))).same
    with pytest.raises(InputError, match="no history to look up 1"):
        plan(1)


def test_a_file_that_is_another_is_named(tmp_path: Path) -> None:
    path = masked(tmp_path)
    other = str(picture(tmp_path / "elsewhere" / "guide.png", 9))
    with pytest.raises(
        InputError, match=r"is not the guide\.png \(guide\) that went in: its content is diff"
    ):
        plan(path, inputs=[other])
    with pytest.raises(InputError, match=r"none of the files that went in\. Wanted: guide\.png \(guide\)"):
        plan(path, inputs=[str(picture(tmp_path / "stranger.png", 8))])
    with pytest.raises(InputError, match="role 'patch' is missing"):
        plan(path, inputs=[f"patch={other}"])
    with pytest.raises(InputError, match="does not exist"):
        plan(path, inputs=["nowhere.png"])
    done = again(path, tmp_path / "new.png", inputs=[f"guide={other}"])
    assert done.same is None
    assert done.note == "It was made with guide.png for guide.png (guide)."
    assert not same(path, tmp_path / "new.png")
    picture(tmp_path / "guide.png", 9)  # the place in the history holds something else now
    with pytest.raises(InputError, match=r"cannot be found: guide\.png \(guide\)"):
        plan(path)


def test_a_file_that_lies_here_and_is_forgotten_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo, guide = picture(tmp_path / "photo.png"), tmp_path / "my guide.png"
    run("strokes", photo, "-o", guide)
    painted = run("strokes", guide, "-o", tmp_path / "end.png")
    assert painted.status == 0
    run("history", "prune", "--keep", 0)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"give it with --input 'my guide\.png'"):
        plan(tmp_path / "end.png")
    picture(guide, 9)
    with pytest.raises(InputError, match="Give each with --input FILE"):
        plan(tmp_path / "end.png")


def test_a_missing_file_that_scumble_made_can_be_made_first(tmp_path: Path) -> None:
    photo, guide = picture(tmp_path / "photo.png"), tmp_path / "my guide.png"
    run("strokes", photo, "-o", guide)
    run("edit", "sdedit", guide, *TINY, "-o", tmp_path / "out.png")
    content = guide.read_bytes()
    guide.unlink()
    with pytest.raises(InputError, match=r"`scumble redo 1 -o 'my guide\.png'`"):
        plan(tmp_path / "out.png")
    assert again(1, guide).same is None  # the file to compare with is gone
    assert guide.read_bytes() == content
    assert again(tmp_path / "out.png", tmp_path / "new.png").same


def test_another_model_is_refused_unless_asked_for(tmp_path: Path) -> None:
    run("generate", "a cat", *TINY, "-o", tmp_path / "one.png")
    other = str(make("sd1", tmp_path / "other", seed=1))
    with pytest.raises(InputError, match=r"other is not the model that made it: its hash is \w{12}, not"):
        again(tmp_path / "one.png", tmp_path / "new.png", model=other)
    done = again(tmp_path / "one.png", tmp_path / "new.png", model=other, anyway=True)
    assert done.same is False
    assert "pixels are not the same" in done.note


def test_settings_can_be_changed(tmp_path: Path) -> None:
    run("generate", "a cat", *TINY, "--count", 2, "-o", tmp_path / "s.png")
    asked = ("--set", "steps=3", "--set", "prompt=a dog", "--set", "seed=9", "--set", "guidance=null")
    outcome = run("redo", tmp_path / "s-6.png", *asked, "-o", tmp_path / "new.png", "--json")
    recipe = read_recipe(tmp_path / "new.png")
    assert (recipe.seed, recipe.settings["steps"], recipe.settings["prompt"]) == (9, 3, "a dog")
    assert outcome.json["same"] is None
    run(
        "generate", "a dog", "--model", shared("sd1"), "--steps", 3, "--seed", 9, "-o", tmp_path / "plain.png"
    )
    assert same(tmp_path / "new.png", tmp_path / "plain.png")
    wider = again(tmp_path / "s.png", tmp_path / "grid.png", changes=["count=3"])
    assert wider.file["seed"] == 5
    assert pixels(tmp_path / "grid.png").shape[0] > pixels(tmp_path / "s.png").shape[0]


def test_a_change_is_of_the_type_of_its_setting(tmp_path: Path) -> None:
    run("generate", "5", *TINY, "-o", tmp_path / "one.png")
    changes = ["guidance=.5", "eta=1", "prompt=6", "guidance_interval=[0, 1]", "width=64"]
    config = plan(tmp_path / "one.png", changes=changes).config
    assert isinstance(config, GenerateConfig)
    assert (config.guidance, config.eta, config.prompt, config.width) == (0.5, 1.0, "6", 64)
    assert config.guidance_interval == (0.0, 1.0)
    with pytest.raises(ConfigError, match="steps cannot be True: it should be a valid integer"):
        plan(tmp_path / "one.png", changes=["steps=true"])


def test_a_change_that_cannot_be_is_a_sentence(tmp_path: Path) -> None:
    run("generate", "a cat", *TINY, "-o", tmp_path / "one.png")
    for change, said in (
        ("stepz=3", "no setting 'stepz'"),
        ("steps=many", "steps cannot be 'many'"),
        ("steps", "'steps' is no setting"),
        ("count=3", "count cannot be set"),
        ("model=other", "model cannot be set"),
        ("trust_pickle=true", "trust_pickle cannot be set"),
        ("self=1", "no setting 'self'"),
    ):
        with pytest.raises(ConfigError, match=said):
            plan(tmp_path / "one.png", changes=[change])


def test_the_command_compares_and_overwrites_nothing(tmp_path: Path) -> None:
    run("generate", "a cat", *TINY, "-o", tmp_path / "one.png")
    outcome = run("redo", tmp_path / "one.png", "-o", tmp_path / "new.png")
    assert outcome.out == f"{tmp_path / 'new.png'}: the same pixels\n"
    refused = scumble("redo", str(tmp_path / "one.png"), "-o", str(tmp_path / "new.png"))
    assert (refused.status, "exists already" in refused.sentence) == (2, True)
    shown = run("redo", tmp_path / "one.png", "-o", tmp_path / "x.png", "--dry-run", "--json").json
    assert shown["command"] == "generate"
    assert shown["settings"]["steps"] == 2
    assert not (tmp_path / "x.png").exists()
    by_number = run("redo", "1", "-o", tmp_path / "third.png", "--json").json
    assert by_number["same"] is True
    jpeg = run("redo", "1", "-o", tmp_path / "third.jpg", "--json").json
    assert jpeg["same"] is None


def test_a_format_that_cannot_hold_it_is_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wide = picture(tmp_path / "wide.png", size=(16_400, 2))
    run("strokes", wide, "--colours", 2, "-o", tmp_path / "painted.png")
    very_wide = picture(tmp_path / "very-wide.png", size=(65_536, 1))
    run("strokes", very_wide, "--colours", 2, "-o", tmp_path / "very-painted.png")

    def worked(*_: Any) -> Any:
        raise AssertionError("It worked.")

    monkeypatch.setattr(redoing, "_made", worked)
    with pytest.raises(InputError, match=r"A WEBP file holds 16,383 pixels a side, and this is 16400 x 2\."):
        again(tmp_path / "painted.png", tmp_path / "new.webp")
    with pytest.raises(InputError, match="A WEBP file holds 16,383 pixels"):
        again(1, tmp_path / "new.webp")
    with pytest.raises(InputError, match="A JPEG file holds 65,500 pixels"):
        again(tmp_path / "very-painted.png", tmp_path / "new.jpg")
    with pytest.raises(AssertionError, match="It worked"):
        again(tmp_path / "painted.png", tmp_path / "new.jpg")


def test_a_transparent_picture_is_refused_as_a_jpeg_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = Recipe(command="strokes", settings={}, ingredients=(), output="layer")
    Image.new("RGBA", (4, 4)).save(tmp_path / "layer.png", **save_options(".png", recipe))
    planned = redoing.Plan(
        recipe, VERBS["strokes"], VERBS["strokes"].config(), Found(), original=tmp_path / "layer.png"
    )
    with pytest.raises(InputError, match="JPEG file cannot hold a picture of mode RGBA"):
        finish(redoing.carried_out(planned, tmp_path / "new.jpg"))


def test_a_name_that_is_too_long_is_a_sentence(tmp_path: Path) -> None:
    run("strokes", picture(tmp_path / "photo.png"), "-o", tmp_path / "s.png")
    long = tmp_path / ("x" * 300)
    for words in (
        ("-o", long),
        ("-o", tmp_path / "n.png", "--input", long),
        ("-o", tmp_path / "n.png", "--input", f"image={long}"),
    ):
        refused = scumble("redo", str(tmp_path / "s.png"), *map(str, words))
        assert (refused.status, "File name too long" in refused.sentence) == (2, True)


def test_threads_are_as_before_and_given_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    monkeypatch.setattr(redoing.torch, "set_num_threads", seen.append)
    monkeypatch.setattr(redoing.os, "cpu_count", lambda: 4)
    for text, wanted in (("3", 3), ("5", 1), ("0", 1), ("-3", 1), ("9" * 80, 1)):
        recipe = Recipe(command="x", settings={}, machine={"threads": text})
        with redoing._threads(recipe):
            pass
        assert seen == [wanted, 1], text
        seen.clear()


def forged(path: Path, **changes: Any) -> Path:
    """A picture with a recipe that somebody wrote by hand."""
    model = {"role": "model", "name": "toybox", "hash": "ab" * 16}
    text = {"command": "generate", "settings": {"prompt": "a cat"}, "seed": 1, "model": model} | changes
    recipe = Recipe.model_construct()
    object.__setattr__(recipe, "to_json", lambda: json.dumps(text))
    object.__setattr__(recipe, "model", None)
    Image.new("RGB", (4, 4)).save(path, **save_options(".png", recipe))
    return path


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"settings": {"prompt": "a", "model": "/etc"}}, "setting 'model'"),
        ({"settings": {"prompt": "a", "trust_pickle": True}}, "setting 'trust_pickle'"),
        ({"settings": {"prompt": "a", "weights": ["/etc/passwd"]}}, "setting 'weights'"),
        ({"settings": {"prompt": "a", "self": 1}}, "setting 'self'"),
        ({"settings": {"prompt": "a", "\x1b[2J": 1}}, r"setting ' \[2J'"),
        ({"settings": {"prompt": "a", "steps": -1}}, "steps cannot be -1"),
        ({"command": "rm -rf /"}, "command 'rm -rf /'"),
        ({"model": None}, "names no model"),
        ({"batch": [5, 2]}, "seed 1 is not in its own batch"),
        ({"batch": [0, 10**6]}, "cannot be used"),
        (
            {"model": {"role": "model", "name": "/etc", "hash": "ab" * 16}},
            "not known where the model /etc is",
        ),
        (
            {"model": {"role": "model", "name": "../x", "hash": "ab" * 16}},
            r"not known where the model \.\./x",
        ),
        ({"ingredients": [{"role": "image", "name": "/etc/passwd", "hash": "ab" * 16}]}, "no use for its"),
        (
            {"ingredients": [{"role": "weights", "name": "/etc/passwd", "hash": "ab" * 16}]},
            r"cannot be found: /etc/passwd \(weights\)",
        ),
        (
            {"command": "strokes", "settings": {}, "model": None},
            "lacks its ingredient 'image'",
        ),
        ({"command": "edit sdedit", "settings": {"preset": []}}, "lacks its ingredient 'guide'"),
    ],
)
def test_a_recipe_cannot_reach_out(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        plan(forged(tmp_path / "x.png", **changes))


def test_the_hub_is_asked_only_when_told_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[bool] = []

    def download(name: str, *, offline: bool, **_: Any) -> Path:
        calls.append(offline)
        if offline:
            raise redoing.ModelError(f"The model {name} is not on this machine and the hub was not asked.")
        return shared("sd1")

    monkeypatch.setattr("scumble.models.load.download", download)
    model = {"role": "model", "name": "owner/model", "hash": load(shared("sd1")).hash}
    path = forged(tmp_path / "x.png", model=model, settings={"prompt": "a cat", "steps": 1})
    with pytest.raises(InputError, match="was not asked"):
        again(path, tmp_path / "new.png")
    assert calls == [True]
    again(path, tmp_path / "new.png", download=True)
    assert calls == [True, False]
    (tmp_path / "owner" / "model").mkdir(parents=True)  # what lies here is nothing that a recipe may choose
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="not known where the model owner/model is"):
        plan(path)


def test_what_was_made_again_stands_in_the_history(tmp_path: Path) -> None:
    run("generate", "a cat", *TINY, "-o", tmp_path / "one.png")
    again(tmp_path / "one.png", tmp_path / "new.png")
    with Store.opened() as store:
        assert [entry.place.name for entry in store.newest()] == ["new.png", "one.png"]
