"""`scumble edit text2live` and `scumble atlas` as a stranger types them, right and wrong."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image

import scumble as package
from cli import Outcome, scumble
from scumble.cli.edit_text2live import VIDEOS
from scumble.core.events import finish
from scumble.core.images import read_image
from scumble.data.video import VIDEO_SUFFIXES, read_video, write_video
from scumble.history.embed import read_recipe
from scumble.history.recipe import Recipe
from scumble.models.atlas import Atlas, Layout
from scumble.models.atlas_file import finished, save_atlas
from scumble.verbs.edit_text2live import Text2liveConfig, again
from scumble.verbs.edit_video import VideoEditConfig
from tiny_clip import shared_clip
from videos import SQUARE, STEP, moving_square, square_masks, timed, video_file

FRAMES = 4


def settings(folder: Path, **more: Any) -> Path:
    """A TOML file with settings that take no time."""
    values = {"channels": 4, "views": 2, "relevancy_looks": 1, "clip": str(shared_clip()), **more}
    path = folder / "settings.toml"
    path.write_text("\n".join(f"{name} = {json.dumps(value)}" for name, value in values.items()))
    return path


def picture(path: Path, size: tuple[int, int] = (44, 36), *, seed: int = 0) -> Path:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def run(image: Path, out: Path, *more: Any, steps: int = 2) -> Outcome:
    given = ("--config", settings(image.parent), "--steps", steps, "--seed", 3, "-o", out, *more)
    return scumble("edit", "text2live", str(image), *map(str, given))


def array(path: Path) -> np.ndarray[Any, Any]:
    with Image.open(path) as image:
        return np.asarray(image).astype(int)


# Pictures


def test_a_picture_with_its_layer_and_recipe(tmp_path: Path) -> None:
    image, out = picture(tmp_path / "in.png"), tmp_path / "out.png"
    outcome = run(image, out, "--prompt", "a red cat", "--previews", tmp_path / "now.png")
    assert outcome.status == 0, outcome.err
    parts = [out, *(tmp_path / f"out-{part}.png" for part in ("layer", "opacity", "green"))]
    assert outcome.out.split() == [str(path) for path in parts]
    with Image.open(parts[1]) as layer, Image.open(image) as under:
        assert layer.mode == "RGBA"
        assert layer.size == under.size
    given, result, layer, opacity = array(image), *(array(path) for path in parts[:3])
    alpha = layer[..., 3:]
    assert np.abs(result - (alpha * layer[..., :3] + (255 - alpha) * given) / 255).max() <= 0.5 + 1e-9
    assert (opacity == alpha).all()
    recipe = read_recipe(out)
    assert (recipe.command, recipe.seed) == ("edit text2live", 3)
    expected = {"prompt": "a red cat", "screen": "a red cat", "region": "a cat", "steps": 2, "channels": 4}
    assert expected.items() <= recipe.settings.items()
    assert read_recipe(parts[1]).output == "layer"
    assert "compositeWithTrainedAlgorithmicMedia" in out.read_bytes().decode("latin-1")
    config = Text2liveConfig.of({**recipe.settings, "clip": str(shared_clip()), "seed": recipe.seed})
    redone = finish(again(config, None, {"image": image}))
    assert [p.recipe.output for p in redone] == [None, "layer", "opacity", "green"]
    assert (np.asarray(redone[0].image) == result).all()


def test_black_of_a_mask_stays_to_the_bit_and_nothing_is_looked_for(tmp_path: Path) -> None:
    image, out, mask = picture(tmp_path / "in.png"), tmp_path / "out.webp", tmp_path / "mask.png"
    half = Image.new("L", (44, 36))
    half.paste(255, (0, 0, 22, 36))
    half.save(mask)
    outcome = run(image, out, "--prompt", "a red cat", "--mask", mask)
    assert outcome.status == 0, outcome.err
    assert (array(out)[:, 22:] == array(image)[:, 22:]).all()
    assert (array(out)[:, :22] != array(image)[:, :22]).any()
    assert "finds nothing" not in outcome.err
    assert {i.role for i in read_recipe(out).ingredients} == {"image", "mask"}


def test_several_prompts_and_a_folder(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in "ab":
        picture(tmp_path / "in" / f"{name}.png", seed=ord(name))
    outcome = run(
        tmp_path / "in", tmp_path / "out", "--prompt", "a red cat", "--prompt", "a blue cat", "--json"
    )
    assert outcome.status == 0, outcome.err
    names = [Path(row["path"]).name for row in outcome.json["pictures"]]
    assert names[:5] == ["a-1.png", "a-1-layer.png", "a-1-opacity.png", "a-1-green.png", "a-2.png"]
    assert len(names) == 16
    assert read_recipe(tmp_path / "out" / "b-2.png").settings["earlier"] == ["a red cat"]
    assert (array(tmp_path / "out" / "b-1.png") != array(tmp_path / "out" / "b-2.png")).any()


def test_nothing_to_find_is_said_before_the_work(tmp_path: Path) -> None:
    flat = tmp_path / "flat.png"
    Image.new("RGB", (40, 40), (120, 120, 120)).save(flat)
    outcome = run(flat, tmp_path / "out.png", "--prompt", "a red cat")
    assert outcome.status == 0
    assert "CLIP finds nothing in flat.png that is 'a cat'" in outcome.err
    assert "--region" in outcome.err


def test_in_python() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (36, 44, 3), dtype=np.uint8))
    values: dict[str, Any] = {"clip": str(shared_clip()), "steps": 1, "channels": 4, "views": 1, "seed": 1}
    one, other = package.edit_text2live(image, ["a red cat", "a dog"], **values)
    assert one.image.size == other.layer.image.size == (44, 36)
    assert one.green.image.mode == "RGB"


def test_presets_and_dry_run(tmp_path: Path) -> None:
    assert Text2liveConfig(prompt="x").size == 128
    assert Text2liveConfig(prompt="x", clip="there").size == 256
    assert Text2liveConfig(prompt="x", preset="paper").views == 16
    assert VideoEditConfig().structure == 3
    assert VideoEditConfig(preset="paper").steps == 3000
    assert VideoEditConfig(clip="there").templates == Text2liveConfig(prompt="x", clip="there").templates
    image = picture(tmp_path / "in.png")
    outcome = run(image, tmp_path / "out.png", "--prompt", "a red cat", "--dry-run")
    assert outcome.status == 0, outcome.err
    assert outcome.out.startswith("about ")
    assert not (tmp_path / "out.png").exists()
    given = ("--prompt", "a red cat", "--dry-run", "--json")
    both = run(image, tmp_path / "out.png", "--prompt", "a blue cat", *given)
    assert both.json["settings"]["earlier"] == ["a blue cat"]  # so that both are estimated
    missing = run(image, tmp_path / "out.png", *given, "--mask", tmp_path / "none.png")
    assert "none.png does not exist" in missing.sentence
    outcome = run(image, tmp_path / "out.jpg", "--prompt", "a red cat", steps=1)
    assert "JPEG changes every pixel" in outcome.err
    assert (tmp_path / "out-layer.png").exists()


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (("--prompt", "..."), "The prompt is empty"),
        ((), "The setting prompt is missing"),
        (("--prompt", "a cat", "--prompt", "a dog", "--region", "a cat"), "belong to one prompt"),
        (("--prompt", "a cat", "--preset", "none"), "There is no preset 'none'"),
        (("--prompt", "a cat", "--preset", "toybox-video"), "There is no preset 'toybox-video'"),
        (("--prompt", "a cat", "--atlas", "x"), "is a picture, and atlases are of videos"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(tmp_path: Path, more: Sequence[str], sentence: str) -> None:
    outcome = run(picture(tmp_path / "in.png"), tmp_path / "out.png", *more)
    assert outcome.status == 2
    assert sentence in outcome.sentence
    assert not (tmp_path / "out.png").exists()


def test_bad_files(tmp_path: Path) -> None:
    image, small, mask = picture(tmp_path / "in.png"), tmp_path / "small.png", tmp_path / "mask.png"
    picture(small, (40, 12))
    Image.new("L", (10, 10), 255).save(mask)
    outcome = run(image, tmp_path / "out.png", "--prompt", "a cat", "--mask", mask)
    assert outcome.sentence.startswith("The mask has 10 x 10 pixels and the picture 44 x 36")
    Image.new("L", (44, 36)).save(mask)
    assert "black everywhere" in run(image, tmp_path / "o.png", "--prompt", "a cat", "--mask", mask).sentence
    assert "too small" in run(small, tmp_path / "out.png", "--prompt", "a cat").sentence
    (tmp_path / "out-green.png").write_bytes(b"x")
    assert "out-green.png exists already" in run(image, tmp_path / "out.png", "--prompt", "a cat").sentence


# Videos


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an mp4 that has sound, the first frame's mask, and the atlas."""
    folder = tmp_path_factory.mktemp("video")
    video_file(folder / "in.mp4", moving_square(FRAMES, 64, 80), sound=True)
    mask = (square_masks(1, 64, 80)[0, 0] * 255).byte().numpy()
    Image.fromarray(mask).save(folder / "mask.png")
    given = ("--mask", folder / "mask.png", "--steps", 60, "--seed", 1, "--json", "-o", folder / "in.atlas")
    outcome = scumble("atlas", str(folder / "in.mp4"), *map(str, given))
    assert outcome.status == 0, outcome.err
    assert outcome.json["psnr"] > 20
    assert [Path(p).name for p in outcome.json["sheets"]] == ["in-foreground.png", "in-background.png"]
    return folder


def packets(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        streams: Any = container.streams
        return [bytes(packet) for packet in container.demux(streams.audio[0]) if packet.size]


def edited(place: Path, out: Path, *more: Any) -> Outcome:
    atlas = ("--atlas", place / "in.atlas", "-o", out)
    return scumble("edit", "text2live", str(place / "in.mp4"), *map(str, (*atlas, *more)))


def test_a_painted_atlas_gives_a_video_with_its_sound(place: Path, tmp_path: Path) -> None:
    """Red over all of the foreground's picture: the square is red in every frame, the ground as it was."""
    sheet = read_image(place / "in-foreground.png").image
    Image.new("RGB", sheet.size, (255, 0, 0)).save(tmp_path / "painted.png")
    out = tmp_path / "out.mp4"
    outcome = edited(place, out, "--painted", tmp_path / "painted.png")
    assert outcome.status == 0, outcome.err
    assert packets(out) == packets(place / "in.mp4")
    before, after = read_video(place / "in.mp4"), read_video(out)
    assert after.times == pytest.approx(before.times, abs=2e-3)
    for t in range(FRAMES):
        inside = after.frames[t, :, 13:19, 9 + STEP * t : 3 + SQUARE + STEP * t].float().mean((1, 2))
        assert inside[0] > 180
        assert inside[1:].max() < 90
    far = (slice(None), slice(None), slice(40, None))
    assert (after.frames[far].float() - before.frames[far].float()).abs().mean() < 6  # coding alone
    with av.open(str(out)) as container:
        recipe = Recipe.from_json(container.metadata["scumble"])
    assert recipe.command == "edit text2live"
    assert {i.role for i in recipe.ingredients} == {"video", "atlas", "painted"}
    assert (tmp_path / "out-layer.png").exists()


def test_a_prompt_edits_a_video_and_clear_pixels_are_its_own(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.mkv"
    given = ("--config", settings(tmp_path, size=48), "--prompt", "a red cat", "--steps", 3, "--seed", 1)
    video = finish(
        write_video(tmp_path / "in.mkv", read_video(place / "in.mp4"), moving_square(FRAMES, 64, 80))
    )
    atlas = ("--atlas", place / "in.atlas", "-o", out, "--json")
    outcome = scumble("edit", "text2live", str(video), *map(str, (*atlas, *given)))
    assert outcome.status == 0, outcome.err
    assert "another file" in outcome.err
    after = read_video(out).frames
    exact = moving_square(FRAMES, 64, 80)
    changed = (after != exact).any(1)
    assert bool(changed.any())
    assert not bool(changed[:, 45:].any())  # the ground, which is not the layer's, to the bit
    first = out.read_bytes()
    assert scumble(
        "edit", "text2live", str(video), *map(str, (*atlas, *given, "--overwrite"))
    ).status == 0  # fmt: skip
    assert torch.equal(read_video(out).frames, after)
    assert len(first) == len(out.read_bytes())


def test_any_other_edit_of_the_atlas(place: Path, tmp_path: Path) -> None:
    def inverted(sheet: Image.Image) -> Image.Image:
        return Image.fromarray(255 - np.asarray(sheet))

    out = package.edit_video(
        place / "in.mp4", tmp_path / "out.mkv", atlas=place / "in.atlas", by=inverted, layer="background"
    )
    before, after = read_video(place / "in.mp4").frames, read_video(out).frames
    ground = (slice(None), slice(None), slice(40, None))
    assert (after[ground].float() - (255 - before[ground].float())).abs().mean() < 25


def test_videos_that_cannot_be_edited(place: Path, tmp_path: Path) -> None:
    out, prompt = tmp_path / "out.mp4", ("--prompt", "a red cat", "--clip", shared_clip())
    assert edited(place, out, *prompt, "--dry-run").out.startswith("nothing stands in its way")
    outcome = scumble("edit", "text2live", str(place / "in.mp4"), *map(str, prompt), "-o", str(out))
    assert "needs an atlas" in outcome.sentence
    assert "scumble atlas" in outcome.sentence
    Image.new("RGB", (9, 9)).save(tmp_path / "wrong.png")
    Image.new("L", (9, 9), 255).save(tmp_path / "mask.png")
    Image.new("L", read_image(place / "in-foreground.png").image.size).save(tmp_path / "black.png")
    for more, sentence in (
        ((*prompt, "--layer", "sky"), "no layer 'sky'"),
        ((*prompt, "--prompt", "a blue cat"), "takes one prompt at a time"),
        ((*prompt, "--mask", tmp_path / "black.png"), "black everywhere"),
        ((), "by a prompt or by a painted atlas"),
        (("--painted", tmp_path / "wrong.png"), "painted atlas has 9 x 9 pixels"),
        (("--painted", place / "in-foreground.png"), "Nothing is painted"),
        ((*prompt, "--mask", tmp_path / "mask.png"), "mask has 9 x 9 pixels"),
    ):
        outcome = edited(place, out, *more)
        assert outcome.status == 2
        assert sentence in outcome.sentence
    short = video_file(tmp_path / "short.mp4", moving_square(3, 64, 80))
    atlas = ("--atlas", str(place / "in.atlas"), "-o", str(out))
    outcome = scumble("edit", "text2live", str(short), *map(str, prompt), *atlas)
    assert "another video" in outcome.sentence
    assert not out.exists()


def test_where_a_video_cannot_be_written_is_said_before_the_work(place: Path, tmp_path: Path) -> None:
    prompt = ("--prompt", "a red cat", "--config", settings(tmp_path), "--steps", 1)
    (tmp_path / "there-layer.png").write_bytes(b"x")
    for name, sentence in (
        ("out.gif", "has no suffix of a video"),
        ("out.webm", "cannot hold sound of the kind aac"),
        ("out.apng", "cannot hold sound"),
        ("there.mp4", "there-layer.png exists already"),
    ):
        outcome = edited(place, tmp_path / name, *prompt)
        assert outcome.status == 2
        assert sentence in outcome.sentence
        assert "painting" not in outcome.err
        assert not (tmp_path / name).exists()


def test_every_kind_of_video_is_taken_for_one(tmp_path: Path) -> None:
    assert set(VIDEOS) == set(VIDEO_SUFFIXES)
    path = finish(write_video(tmp_path / "in.apng", timed(frames := moving_square(3)), list(frames)))
    outcome = scumble("edit", "text2live", str(path), "--prompt", "a cat", "-o", str(tmp_path / "out.mp4"))
    assert "in.apng needs an atlas" in outcome.sentence


def test_nothing_to_find_in_an_atlas_is_said_before_the_work(place: Path, tmp_path: Path) -> None:
    """An atlas that was never fitted is grey everywhere."""
    grey = Atlas(Layout(frames=FRAMES, height=64, width=80))
    save_atlas(tmp_path / "grey.atlas", finished(grey, [0.8, 0.8], {}))
    given = ("--prompt", "a red cat", "--config", settings(tmp_path), "--layer", "background", "--dry-run")
    atlas = ("--atlas", tmp_path / "grey.atlas", "-o", tmp_path / "out.mp4")
    outcome = scumble("edit", "text2live", str(place / "in.mp4"), *map(str, (*given, *atlas)))
    assert outcome.status == 0, outcome.err
    assert "CLIP finds nothing in the background of" in outcome.err
    assert "'a cat'" in outcome.err


def test_videos_that_cannot_have_an_atlas(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.atlas"
    Image.new("L", (9, 9), 255).save(tmp_path / "mask.png")
    for video, more, sentence in (
        (place / "in.mp4", ("--box", "1,1,9,9", "--first", FRAMES - 1), "one frame only"),
        (place / "in.mp4", (), "what moves in front"),
        (place / "in.mp4", ("--box", "1,1,9,9", "--mask", place / "mask.png"), "Masks and a box are two"),
        (place / "in.mp4", ("--box", "1,1,9"), "is no box"),
        (
            place / "in.mp4",
            ("--box", "1,1,900,9", "--size", 32),
            "1,1,900,9 does not lie in a frame of 80 x 64",
        ),
        (place / "in.mp4", ("--mask", tmp_path / "mask.png"), "has 9 x 9 pixels, and the video 80 x 64"),
        (place / "in.mp4", ("--flow", tmp_path, "--mask", place / "mask.png"), "holds 0 files of flow"),
        (place / "mask.png", ("--mask", place / "mask.png"), "one frame only"),
    ):
        outcome = scumble("atlas", str(video), "-o", str(out), *map(str, more))
        assert (outcome.status, out.exists()) == (2, False), outcome.err
        assert sentence in outcome.sentence


def test_a_variable_frame_rate_is_kept_and_said(place: Path, tmp_path: Path) -> None:
    frames = moving_square(3, 64, 80)
    video = finish(write_video(tmp_path / "v.mkv", timed(frames, [0, 0.1, 0.5]), list(frames)))
    given = ("--box", "3,6,24,26", "--steps", 2, "--size", 32, "-o", tmp_path / "v.atlas")
    outcome = scumble("atlas", str(video), *map(str, given))
    assert outcome.status == 0, outcome.err
    assert "variable frame rate" in outcome.err
    sheet = read_image(tmp_path / "v-background.png").image
    Image.new("RGB", sheet.size, (0, 0, 255)).save(tmp_path / "blue.png")
    given = ("--atlas", tmp_path / "v.atlas", "--painted", tmp_path / "blue.png", "--layer", "background")
    outcome = scumble("edit", "text2live", str(video), *map(str, given), "-o", str(tmp_path / "o.mkv"))
    assert outcome.status == 0, outcome.err
    assert [float(t) for t in read_video(tmp_path / "o.mkv").times] == pytest.approx([0, 0.1, 0.5], abs=2e-3)
