"""The weights in the package: whole, within their limits, and a model that plain diffusers draws with."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from recipes.toybox.pack import LARGEST_FILE, LARGEST_TOTAL
from recipes.toybox.scales import TOYBOX_VERSION
from transformers import CLIPModel, CLIPTokenizer

from scumble.core.errors import ModelError
from scumble.models import toybox
from scumble.models.load import load
from scumble.sampling.guided import default_guidance
from scumble.verbs.toybox import unpack_model


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def folder(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SCUMBLE_CACHE", str(cache))
    return toybox.folder()


def test_sizes_are_within_limits() -> None:
    sizes = [path.stat().st_size for path in toybox.packed().rglob("*") if path.is_file()]
    assert len(sizes) >= 12
    assert max(sizes) <= LARGEST_FILE
    assert sum(sizes) <= LARGEST_TOTAL


def test_manifest_names_every_file_and_the_version() -> None:
    manifest = json.loads((toybox.packed() / toybox.MANIFEST).read_text())
    present = {p.relative_to(toybox.packed()).as_posix() for p in toybox.packed().rglob("*") if p.is_file()}
    assert present == {*manifest["files"], toybox.MANIFEST, "README.md"}
    assert manifest["version"] == TOYBOX_VERSION


def test_plain_diffusers_draws_the_same_picture_twice(folder: Path) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    drawn = [
        pipeline(
            "a photo of a red car on the beach by day",
            num_inference_steps=4,
            generator=torch.Generator().manual_seed(0),
            output_type="np",
        ).images[0]
        for _ in range(2)
    ]
    assert drawn[0].shape == (128, 128, 3)
    assert np.array_equal(*drawn)
    assert drawn[0].std() > 0.05


def test_unpacked_it_recommends_the_same_guidance(folder: Path, tmp_path: Path) -> None:
    unpacked = unpack_model(tmp_path / "unpacked")
    assert default_guidance(load(unpacked)) == default_guidance(load("toybox")) == toybox.GUIDANCE == 6.0
    editing = default_guidance(load(unpacked / toybox.EDITING))
    assert editing == default_guidance(load("toybox-instruct")) == toybox.EDITING_GUIDANCE == 4.0


@torch.no_grad()
def test_clip_knows_red_from_blue(folder: Path) -> None:
    clip = CLIPModel.from_pretrained(toybox.clip()).eval()
    words = CLIPTokenizer.from_pretrained(toybox.clip())
    assert toybox.clip().parent == folder
    colours = {"red": (0.83, 0.10, 0.09), "blue": (0.12, 0.28, 0.82)}
    pictures = torch.ones(2, 3, 128, 128)
    for picture, colour in zip(pictures, colours.values(), strict=True):
        picture[:, 40:90, 40:90] = torch.tensor(colour)[:, None, None] * 2 - 1
    texts = words([f"a {name} cube in the studio" for name in colours], padding=True, return_tensors="pt")
    scores = clip(input_ids=texts.input_ids, pixel_values=pictures).logits_per_image
    assert scores[0, 0] - scores[0, 1] > scores[1, 0] - scores[1, 1]


def test_judge_answers(folder: Path) -> None:
    (label,) = toybox.judge()(torch.zeros(1, 3, 128, 128)).labels()
    assert {"kind", "colour", "place", "time", "style", "count"} <= set(label)


@pytest.mark.parametrize("part", ["editing", "upscaling"])
def test_missing_weights_say_which_option_gives_others(
    part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toybox, "folder", lambda: tmp_path)
    with pytest.raises(ModelError, match="no weights for toybox-") as refused:
        getattr(toybox, part)()
    assert "--model" in refused.value.remedy
