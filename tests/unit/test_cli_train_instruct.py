"""`scumble train instruct-pix2pix` as a stranger types it, right and wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cli import Outcome, scumble
from pairs import folder
from scumble.core.errors import ConfigError
from scumble.models import toybox
from scumble.models.load import load
from scumble.verbs.train_instruct import settings_for
from tiny import shared


def run(data: Path, out: Path, *more: Any, model: str = "sd1") -> Outcome:
    on = ("--model", str(shared(model)), "--steps", "2", "--batch", "2")
    return scumble("train", "instruct-pix2pix", str(data), *on, *map(str, more), "-o", str(out))


def test_pairs_give_a_folder_that_edits(tmp_path: Path) -> None:
    data, out = folder(tmp_path / "data", 20), tmp_path / "editor"
    config = tmp_path / "settings.toml"
    config.write_text("validation = 2\nvalidation_steps = 1\ncheckpoint_every = 1\n")
    looks = ("--validate-every", 1, "--clip", toybox.clip(), "--config", config)
    outcome = run(data, out, *looks, "--json")
    assert outcome.status == 0
    facts = outcome.json
    assert (facts["path"], facts["steps"], facts["pairs"]) == (str(out), 2, 20)
    index = json.loads((out / "model_index.json").read_text())
    assert index["_class_name"] == "StableDiffusionInstructPix2PixPipeline"
    assert index["scheduler"][1] == "EulerAncestralDiscreteScheduler"
    assert load(out).condition_channels == 4
    curve = [json.loads(line) for line in (tmp_path / "editor.run" / "steps.jsonl").read_text().splitlines()]
    looked = [row for row in curve if "clip_direction" in row]
    assert [row["step"] for row in looked] == [1, 2]
    assert -1 <= facts["clip_direction"] == looked[-1]["clip_direction"] <= 1
    assert facts["clip_image"] == looked[-1]["clip_image"] <= 1
    assert len(list((tmp_path / "editor.run" / "previews").iterdir())) == 2


def test_it_goes_on_where_it_stopped_and_with_nothing_else(tmp_path: Path) -> None:
    data, out = folder(tmp_path / "data"), tmp_path / "sd1.5-editor"
    assert run(data, out).status == 0
    assert "sd1.5-editor exists already" in run(data, out).sentence
    out.rename(tmp_path / "first")
    again = run(data, out)
    assert again.status == 0
    assert f"Going on from {tmp_path / 'sd1.5-editor.run'}" in again.err
    stem = "unet/diffusion_pytorch_model.safetensors"
    assert (out / stem).read_bytes() == (tmp_path / "first" / stem).read_bytes()
    out.rename(tmp_path / "second")
    other = run(folder(tmp_path / "other", 3), out)
    assert "holds a run that learns from something else" in other.sentence
    assert not out.exists()
    picture = next(data.glob("*.png"))
    picture.write_bytes(picture.read_bytes())  # as another one of the same name would have it
    assert "holds a run that learns from something else" in run(data, out).sentence


def test_a_dry_run_says_what_it_needs_and_writes_nothing(tmp_path: Path) -> None:
    data, out = folder(tmp_path / "data"), tmp_path / "editor"
    needs = run(data, out, "--dry-run", "--json").json
    assert needs["seconds"] > 0
    assert needs["settings"]["pairs"] == 4
    longer = run(data, out, "--dry-run", "--json", "--micro-batch", 1).json
    assert longer["memory_bytes"] < needs["memory_bytes"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]


def test_what_is_wrong_is_one_sentence(tmp_path: Path) -> None:
    data, out = folder(tmp_path / "data"), tmp_path / "editor"
    assert "is one file" in run(data, tmp_path / "editor.safetensors").sentence
    assert "There are no pairs in" in run(tmp_path, out).sentence
    (data / "1_out.png").unlink()
    outcome = run(data, out)
    assert outcome.status == 2
    assert "picture 1_out.png of line 2" in outcome.sentence
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]


def test_settings_fit_the_model() -> None:
    assert settings_for("toybox", None, None).weighting == "min_snr"
    assert settings_for("runwayml/sd", None, None, steps=7).steps == 7
    paper = settings_for("toybox", "paper", None)
    assert (paper.batch, paper.steps, paper.size, paper.drop) == (1024, 10_000, 256, 0.05)
    with pytest.raises(ConfigError, match="There is no preset 'x'"):
        settings_for("toybox", "x", None)
