"""`scumble generate` as a stranger types it, right and wrong."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import tiny
from cli import scumble
from scumble.core import images
from scumble.core.errors import InputError
from scumble.history.embed import read_recipe
from scumble.models.model import Model
from scumble.verbs import generate
from scumble.verbs.load import ModelConfig
from scumble.verbs.outputs import sheet
from tiny import make


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("models") / "tiny"
    make("sd1", path)
    return str(path)


def draw(model: str, out: Path, *more: str) -> Any:
    return scumble(
        "generate", "a red cat", "--model", model, "--steps", "2", "--seed", "5", "-o", str(out), *more
    )


def opened(path: Path) -> Image.Image:
    """The picture, decoded, with its file closed again."""
    with Image.open(path) as image:
        image.load()
        return image


def test_one_picture_with_its_recipe(model: str, tmp_path: Path) -> None:
    out = tmp_path / "cat.png"
    outcome = draw(model, out)
    assert outcome.status == 0
    assert outcome.out == f"{out}\n"
    assert opened(out).size == (64, 64)
    recipe = read_recipe(out)
    assert (recipe.seed, recipe.settings["prompt"], recipe.settings["steps"]) == (5, "a red cat", 2)
    assert recipe.model.name == "tiny"


def test_several_pictures_and_a_grid(model: str, tmp_path: Path) -> None:
    outcome = draw(model, tmp_path / "cats.png", "--count", "3", "--json")
    names = [Path(row["path"]).name for row in outcome.json["pictures"]]
    assert names == ["cats-5.png", "cats-6.png", "cats-7.png", "cats.png"]
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(names)
    assert opened(tmp_path / "cats.png").width > 64


def test_a_grid_of_very_many_pictures_shows_them_smaller(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that neither the grid nor what is kept for it grows with their number."""
    kept: list[int] = []

    def seen(pictures: Any) -> Any:
        kept.extend(p.image.width * p.image.height for p in pictures)
        return sheet(pictures)

    monkeypatch.setattr(images, "SHEET_PIXELS", 3000)
    monkeypatch.setattr(generate, "sheet", seen)
    grid = tmp_path / "cats.png"
    assert draw(model, grid, "--count", "5").status == 0
    assert len(kept) == 5
    assert sum(kept) <= opened(grid).width * opened(grid).height <= 3000
    assert opened(tmp_path / "cats-5.png").size == (64, 64)
    again = scumble("redo", str(grid), "-o", str(tmp_path / "again.png"))
    assert again.out.endswith(": the same pixels\n")


def test_the_same_seed_gives_the_same_bytes(model: str, tmp_path: Path) -> None:
    one = draw(model, tmp_path / "a", "--count", "2", "--batch", "1", "--json").json
    two = draw(model, tmp_path / "b", "--count", "2", "--batch", "1", "--json").json
    assert [r["sha256"] for r in one["pictures"]] == [r["sha256"] for r in two["pictures"]]


def test_settings_come_from_a_file_and_options_win(model: str, tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text('negative = "fog"\nsteps = 3\nwidth = 32\nheight = 32\n')
    out = tmp_path / "cat.png"
    assert draw(model, out, "--config", str(tmp_path / "s.toml")).status == 0
    settings = read_recipe(out).settings
    assert (settings["negative"], settings["steps"], settings["width"]) == ("fog", 2, 32)


def test_dry_run_draws_nothing(model: str, tmp_path: Path) -> None:
    outcome = draw(model, tmp_path / "cat.png", "--dry-run", "--json")
    assert outcome.status == 0
    assert outcome.json["seconds"] > 0
    assert outcome.json["memory_bytes"] > 1_000_000
    assert outcome.json["settings"]["seed"] == 5
    assert not (tmp_path / "cat.png").exists()


def test_dry_run_finds_what_would_stop_the_run(model: str, tmp_path: Path) -> None:
    out = tmp_path / "cat.png"
    missing = draw(model, out, "--with", str(tmp_path / "none.safetensors"), "--dry-run")
    assert (missing.status, "none.safetensors" in missing.sentence) == (2, True)
    editing = draw(str(tiny.shared("ip2p")), out, "--dry-run")
    assert (editing.status, "editing model" in editing.sentence) == (2, True)
    make("sd1", tmp_path / "short")
    schedule = tmp_path / "short" / "scheduler" / "scheduler_config.json"
    schedule.write_text(json.dumps({**json.loads(schedule.read_text()), "num_train_timesteps": 20}))
    few = draw(str(tmp_path / "short"), out, "--dry-run", "--steps", "25")
    assert (few.status, "25 steps do not fit. This model has 20" in few.sentence) == (2, True)
    out.write_text("precious")
    taken = draw(model, out, "--dry-run")
    assert (taken.status, "exists already" in taken.sentence) == (2, True)
    assert out.read_text() == "precious"


def test_no_name_in_a_sentence_steers_the_terminal(model: str, tmp_path: Path) -> None:
    outcome = draw(model, tmp_path / "cat.png", "--with", "\x1b[2Jnone.safetensors")
    assert (outcome.status, "none.safetensors" in outcome.sentence) == (2, True)
    assert "\x1b" not in outcome.err


def test_the_model_is_hashed_for_a_recipe_only(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(_: Model) -> str:
        raise AssertionError

    monkeypatch.setattr(Model, "hash", property(never))
    assert draw(model, tmp_path / "cat.png", "--no-recipe").status == 0
    assert draw(model, tmp_path / "dog.png", "--dry-run").status == 0
    with pytest.raises(AssertionError):
        draw(model, tmp_path / "dog.png")


def test_where_nothing_can_be_written_is_found_before_the_work(model: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "dir.png" / "5.png").mkdir(parents=True)
    places = {
        tmp_path / "file" / "cat.png": "a file stands where",
        tmp_path / f"{'a' * 300}.png": "too long",
        tmp_path / "dir.png" / "5.png" / "x.jpeg" / ("b" * 251 + ".png"): "",
        Path("/proc/nothing/cat.png"): "its folder cannot be made",
    }
    for place, reason in places.items():
        outcome = draw("no model at all", place, "--overwrite")
        assert outcome.status == 2
        assert (reason or "no model at all") in outcome.sentence
    outcome = draw("no model at all", tmp_path / "dir.png", "--overwrite")
    assert (outcome.status, "5.png is a folder" in outcome.sentence) == (2, True)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["5.png", "dir.png", "file"]


def test_a_suffix_alone_is_no_name(model: str, tmp_path: Path) -> None:
    outcome = draw(model, tmp_path / ".png")
    assert (outcome.status, "no name before its suffix" in outcome.sentence) == (2, True)
    assert not any(tmp_path.iterdir())


def test_inspect_tells_how_a_picture_was_made(model: str, tmp_path: Path) -> None:
    out = tmp_path / "cat.png"
    draw(model, out)
    facts = scumble("inspect", str(out), "--json").json
    assert (facts["command"], facts["seed"], facts["settings"]["steps"]) == ("generate", 5, 2)
    assert facts["from"]["model"].startswith("tiny (")
    assert "  prompt: a red cat\n" in scumble("inspect", str(out)).out
    draw(model, tmp_path / "bare.png", "--no-recipe")
    assert "holds no scumble recipe" in scumble("inspect", str(tmp_path / "bare.png")).sentence


def test_a_folder_that_is_there_may_have_any_name(model: str, tmp_path: Path) -> None:
    (tmp_path / "res.v3").mkdir()
    assert draw(model, tmp_path / "res.v3").status == 0
    assert [path.name for path in (tmp_path / "res.v3").iterdir()] == ["5.png"]


def test_previews_are_written_while_it_draws(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Path] = []
    save = images.save_image
    monkeypatch.setattr(images, "save_image", lambda image, path: (seen.append(path), save(image, path)))
    place = tmp_path / "so far.png"
    assert draw(model, tmp_path / "cat.png", "--steps", "7", "--preview", str(place)).status == 0
    assert seen == [place] * 2
    assert opened(place).size == (8, 8)
    assert draw(model, tmp_path / "dog.png", "--preview", str(tmp_path / "x.txt")).status == 2
    same = draw(model, tmp_path / "dog.png", "--preview", str(tmp_path / "dog.png"))
    assert (same.status, "own file" in same.sentence) == (2, True)
    assert not (tmp_path / "dog.png").exists()


def test_the_safety_checker_can_be_declined(model: str, tmp_path: Path) -> None:
    settings: dict[str, Any] = {}

    def load(self: ModelConfig) -> Any:
        settings.update(self)
        raise InputError("Enough.")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ModelConfig, "load", load)
        draw(model, tmp_path / "cat.png")
        assert settings["safety_checker"] is True
        draw(model, tmp_path / "cat.png", "--no-safety-checker")
        assert settings["safety_checker"] is False


def test_no_recipe_is_left_out(model: str, tmp_path: Path) -> None:
    out = tmp_path / "cat.png"
    assert draw(model, out, "--no-recipe").status == 0
    assert "scumble" not in opened(out).info
    assert "a red cat" not in out.read_bytes().decode("latin-1")


def test_long_prompt_and_weights_are_drawn(model: str, tmp_path: Path) -> None:
    out = tmp_path / "long.png"
    prompt = "a (red:1.3) cat, [blue] ball, " * 20
    assert scumble("generate", prompt, "--model", model, "--steps", "1", "-o", str(out)).status == 0


def broken_models(tmp_path: Path) -> dict[str, Path]:
    files = {name: tmp_path / f"{name}.safetensors" for name in ("zero", "text", "cut", "huge", "alien")}
    files["zero"].write_bytes(b"")
    files["text"].write_text("this is no model")
    files["cut"].write_bytes((1000).to_bytes(8, "little") + b'{"a":')
    files["huge"].write_bytes((2**62).to_bytes(8, "little") + b"{}")
    header = json.dumps({"some.weight": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    files["alien"].write_bytes(len(header).to_bytes(8, "little") + header + b"\0\0\0\0")
    files["folder"] = tmp_path / "empty folder"
    files["folder"].mkdir()
    files["missing"] = tmp_path / "nowhere"
    return files


def test_what_is_no_model_is_one_sentence(tmp_path: Path) -> None:
    models = broken_models(tmp_path)
    assert len(models) == 7
    for name, path in models.items():
        out = tmp_path / "out" / "cat.png"
        outcome = scumble("generate", "a cat", "--model", str(path), "-o", str(out))
        assert outcome.status == 2, name
        assert path.name in outcome.sentence, name
        assert "Traceback" not in outcome.err
        assert not out.parent.exists(), name


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--steps", "0"], "steps cannot be 0"),
        (["--steps", "2000"], "steps cannot be 2000"),
        (["--seed", "-1"], "seed cannot be -1"),
        (["--sampler", "eulr"], "no sampler 'eulr'"),
        (["--count", "0"], "count cannot be 0"),
        (["--width", "30000"], "width cannot be 30000"),
        (["--width", "63"], "cannot make a picture of 63 x 64"),
        (["--device", "tpu"], "tpu"),
        (["--dtype", "int4"], "dtype cannot be 'int4'"),
        (["--guidance", "nan"], "guidance cannot be nan"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_settings_that_cannot_be_are_named(
    model: str, tmp_path: Path, options: list[str], named: str
) -> None:
    outcome = draw(model, tmp_path / "cat.png", *options)
    assert outcome.status == 2
    assert named in outcome.sentence
    assert not any(tmp_path.iterdir())


def test_misspelled_setting_in_a_file_gets_the_nearest_name(model: str, tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text("stepz = 3\n")
    outcome = draw(model, tmp_path / "cat.png", "--config", str(tmp_path / "s.toml"))
    assert (outcome.status, outcome.sentence) == (2, "There is no setting 'stepz'. Did you mean 'steps'?")


def test_a_prompt_of_ten_thousand_characters_is_drawn_if_its_tokens_fit(model: str, tmp_path: Path) -> None:
    """2500 words are 34 chunks; ten thousand letters that are no word are 134, and 64 are the most."""
    out = tmp_path / "cat.png"
    assert scumble("generate", "cat " * 2500, "--model", model, "--steps", "1", "-o", str(out)).status == 0
    assert read_recipe(out).settings["prompt"] == "cat " * 2500
    for place in (("x" * 10_000,), ("a cat", "--negative", "x" * 10_000)):
        for dry in ((), ("--dry-run",)):
            outcome = scumble("generate", *place, *dry, "--model", model, "-o", str(tmp_path / "no.png"))
            assert outcome.status == 2
            assert "134 chunks of 75 tokens long, and the most is 64" in outcome.sentence
    assert [path.name for path in tmp_path.iterdir()] == ["cat.png"]


def test_nothing_is_overwritten_unless_asked(model: str, tmp_path: Path) -> None:
    out = tmp_path / "cat.png"
    out.write_text("precious")
    assert draw(model, out).status == 2
    assert out.read_text() == "precious"
    assert draw(model, out, "--overwrite").status == 0
    assert opened(out).size == (64, 64)


def test_full_disk_leaves_nothing_half_written(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    outcome = draw(model, tmp_path / "cat.png")
    assert outcome.status == 1
    assert "full" in outcome.sentence
    assert not any(tmp_path.iterdir())
