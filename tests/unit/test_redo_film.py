"""A video is made again frame by frame, from its number or its file; its recipe is no more trusted."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image

from cli import Outcome, scumble
from scumble.core.errors import InputError
from scumble.core.images import read_image
from scumble.data.video import read_video
from scumble.history.embed import read_recipe
from scumble.history.store import Store
from scumble.verbs.redo import plan, redo
from tiny_clip import shared_clip
from videos import moving_square, square_masks, video_file


def run(*argv: Any) -> Outcome:
    outcome = scumble(*map(str, argv))
    assert outcome.status == 0, outcome.err
    return outcome


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a video, its atlas, and the foreground painted red."""
    folder = tmp_path_factory.mktemp("film")
    video_file(folder / "in.mp4", moving_square(3, 48, 64))
    Image.fromarray((square_masks(1, 48, 64)[0, 0] * 255).byte().numpy()).save(folder / "mask.png")
    atlas = ("--mask", folder / "mask.png", "--steps", 5, "--seed", 1, "-o", folder / "in.atlas")
    run("atlas", folder / "in.mp4", *atlas)
    sheet = read_image(folder / "in-foreground.png").image
    Image.new("RGB", sheet.size, (255, 0, 0)).save(folder / "painted.png")
    return folder


@pytest.fixture
def place(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, with a history of its own."""
    monkeypatch.setenv("SCUMBLE_DATA", str(tmp_path / "data"))
    return Path(shutil.copytree(made, tmp_path / "place"))


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_a_painted_video_is_made_again(place: Path, suffix: str) -> None:
    out, new = place / f"out{suffix}", place / f"new{suffix}"
    painted = ("--atlas", place / "in.atlas", "--painted", place / "painted.png")
    run("edit", "text2live", place / "in.mp4", *painted, "-o", out)
    assert run("redo", out, "-o", new, "--json").json["same"] is True
    assert torch.equal(read_video(out).frames, read_video(new).frames)
    assert read_recipe(new) == read_recipe(out)
    with Store.opened() as store:
        entries = store.newest()
        assert [entry.place.name for entry in entries] == [
            "new-layer.png",
            new.name,
            "out-layer.png",
            out.name,
        ]
        assert all(entry.thumbnail[8:12] == b"WEBP" for entry in entries)
    assert run("redo", 1, "-o", place / f"third{suffix}", "--json").json["same"] is True
    assert "no suffix of a video" in scumble("redo", "1", "-o", str(place / "x.png")).sentence
    with pytest.raises(InputError, match="`scumble redo` writes videos"):
        redo(out)


def test_the_layer_has_its_recipe_and_is_made_again_alone(place: Path) -> None:
    painted = ("--atlas", place / "in.atlas", "--painted", place / "painted.png")
    run("edit", "text2live", place / "in.mp4", *painted, "-o", place / "out.mp4")
    layer = place / "out-layer.png"
    recipe = read_recipe(layer)
    assert recipe == read_recipe(place / "out.mp4").model_copy(update={"output": "layer"})
    before = sorted(place.iterdir())
    assert run("redo", layer, "-o", place / "new.png", "--json").json["same"] is True
    assert sorted(place.iterdir()) == sorted([*before, place / "new.png"])  # and no video
    assert read_recipe(place / "new.png") == recipe
    with Image.open(layer) as image:
        assert np.array_equal(np.asarray(redo(layer)), np.asarray(image))
    again = ("--atlas", place / "in.atlas", "--painted", layer)
    run("edit", "text2live", place / "in.mp4", *again, "-o", place / "second.mp4")
    shown = run("history", "show", place / "second.mp4", "--json").json
    assert str(layer) in [row["path"] for row in shown["ancestors"]]
    refused = scumble("redo", str(layer), "-o", str(place / "new.jpg"))
    assert "JPEG file cannot hold a picture of mode RGBA" in refused.sentence


def test_a_learnt_layer_says_that_it_is_made_by_ai(place: Path) -> None:
    small = place / "small.toml"
    small.write_text(f"channels = 4\nviews = 2\nrelevancy_looks = 1\nclip = '{shared_clip()}'\n")
    told = ("--prompt", "a red square", "--config", small, "--steps", 2, "--seed", 3)
    run("edit", "text2live", place / "in.mp4", "--atlas", place / "in.atlas", *told, "-o", place / "out.mp4")
    layer = place / "out-layer.png"
    with Image.open(layer) as image:
        assert "compositeWithTrainedAlgorithmicMedia" in image.info["XML:com.adobe.xmp"]
    assert run("redo", layer, "-o", place / "new.png", "--json").json["same"] is True
    bare = ("--no-recipe", "-o", place / "bare.mp4")
    run("edit", "text2live", place / "in.mp4", "--atlas", place / "in.atlas", *told, *bare)
    with Image.open(place / "bare-layer.png") as image:
        assert "compositeWithTrainedAlgorithmicMedia" in image.info["XML:com.adobe.xmp"]
        assert "scumble" not in image.info


def test_a_video_goes_into_a_folder_as_a_picture_does(place: Path) -> None:
    painted = ("--atlas", place / "in.atlas", "--painted", place / "painted.png")
    run("edit", "text2live", place / "in.mp4", *painted, "-o", place / "out.mkv")
    (place / "there").mkdir()
    for folder in ("there", "new"):
        done = run("redo", place / "out.mkv", "-o", place / folder, "--json").json
        assert (done["path"], done["same"]) == (str(place / folder / "again.mkv"), True)


def test_a_video_is_made_anew_from_another_step(place: Path) -> None:
    run("strokes", place / "painted.png", "-o", place / "sheet.png")
    painted = ("--atlas", place / "in.atlas", "--painted", place / "sheet.png")
    run("edit", "text2live", place / "in.mp4", *painted, "-o", place / "out.mkv")
    run("strokes", place / "out-layer.png", "-o", place / "end.png")
    number = run("history", "show", place / "sheet.png", "--json").json["number"]
    run("history", "branch", place / "out.mkv", "--at", number, "-o", place / "new")
    assert sorted(p.name for p in (place / "new").iterdir()) == [
        "1-sheet.png",
        "2-out-layer.png",
        "2-out.mkv",
    ]
    with Store.opened() as store:
        assert [e.place.parent for e in store.newest(3)] == [place / "new"] * 3
    run("history", "branch", place / "end.png", "--at", number, "-o", place / "newer")
    assert sorted(p.name for p in (place / "newer").iterdir()) == [
        "1-sheet.png",
        "2-out-layer.png",
        "3-end.png",
    ]


def test_what_is_missing_is_named_and_what_is_no_video_is_a_sentence(place: Path) -> None:
    painted = ("--atlas", place / "in.atlas", "--painted", place / "painted.png")
    run("edit", "text2live", place / "in.mp4", *painted, "-o", place / "out.mp4")
    (place / "in.atlas").unlink()
    with pytest.raises(InputError, match=r"cannot be found: in\.atlas \(atlas\)"):
        plan(place / "out.mp4")
    (place / "bad.mp4").write_bytes(b"no video at all")
    with pytest.raises(InputError, match="cannot be read"):
        plan(place / "bad.mp4")
    with pytest.raises(InputError, match="holds no scumble recipe"):
        plan(place / "in.mp4")


def test_a_hostile_recipe_in_a_video(place: Path) -> None:
    for text in ('{"command": "edit text2live"', "[" * 5000, "\x1b[2J" * 50):
        with av.open(str(place / "bad.mkv"), "w") as container:
            container.metadata["scumble"] = text
            stream = container.add_stream("ffv1", rate=5)
            stream.width = stream.height = 16
            for _ in range(2):
                container.mux(stream.encode(av.VideoFrame(16, 16, "yuv420p")))
            container.mux(stream.encode(None))
        with pytest.raises(InputError, match="cannot be used"):
            plan(place / "bad.mkv")
