"""Stroke paintings and composites, and their commands."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

import scumble as package
from cli import scumble
from scumble.core.errors import ImageError
from scumble.data.composite import composite
from scumble.data.strokes import stroke_painting


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    """Noise that is smooth enough to have shapes."""
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)


def colours(image: Image.Image) -> int:
    return len(image.getcolors(256) or [])


def test_at_256_pixels_it_is_what_the_paper_does() -> None:
    image = noise(256, 256)
    filtered = image.filter(ImageFilter.MedianFilter(23))
    expected = filtered.convert("P", palette=Image.Palette.ADAPTIVE, colors=6).convert("RGB")
    assert np.array_equal(np.asarray(stroke_painting(image)), np.asarray(expected))


@pytest.mark.parametrize("size", [(1, 1), (40, 128), (700, 300)])
def test_any_size_keeps_its_size(size: tuple[int, int]) -> None:
    painted = stroke_painting(noise(*size))
    assert painted.size == size
    assert 1 <= colours(painted) <= 6


def test_colours_and_kernel_count() -> None:
    image = noise(128, 128)
    assert colours(stroke_painting(image, colours=3)) == 3
    assert colours(stroke_painting(image, colours=30)) == 30
    fine, broad = (np.asarray(stroke_painting(image, colours=256, kernel=k), float) for k in (1, 61))
    source = np.asarray(image, float)
    assert np.abs(fine - source).mean() < np.abs(broad - source).mean() / 2


def test_strokes_of_a_file_and_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a.png", "b.jpg"):
        noise(40, 30).save(folder / name)
    one = scumble("strokes", str(folder / "a.png"), "--colours", "2", "-o", str(tmp_path / "one.png"))
    assert (one.status, one.out) == (0, f"{tmp_path / 'one.png'}\n")
    with Image.open(tmp_path / "one.png") as image:
        assert colours(image) == 2
    both = scumble("strokes", str(folder), "-o", str(tmp_path / "out"), "--json")
    assert [Path(p).name for p in both.json["pictures"]] == ["a.png", "b.png"]
    assert scumble("strokes", str(folder), "-o", str(tmp_path / "out")).status == 2
    assert (
        "colours cannot be 0"
        in scumble("strokes", str(folder), "--colours", "0", "-o", str(tmp_path / "x")).sentence
    )
    assert np.array_equal(
        np.asarray(package.strokes(folder / "a.png", colours=2)),
        np.asarray(stroke_painting(noise(40, 30), colours=2)),
    )


def patch() -> Image.Image:
    """4 x 2, left half red, right half transparent (green underneath)."""
    image = Image.new("RGBA", (4, 2), (0, 255, 0, 0))
    image.paste((255, 0, 0, 255), (0, 0, 2, 2))
    return image


def test_a_patch_goes_where_its_centre_is_told() -> None:
    picture, mask = composite(Image.new("RGB", (10, 8)), patch(), at=(5, 4))
    red = np.argwhere(np.asarray(picture)[..., 0] == 255)
    assert red.tolist() == [[3, 3], [3, 4], [4, 3], [4, 4]]
    assert np.array_equal(np.asarray(mask) == 255, np.asarray(picture)[..., 0] == 255)
    assert np.asarray(picture)[..., 1].max() == 0


def test_scale_and_rotation() -> None:
    board, square = Image.new("RGB", (40, 40)), Image.new("RGB", (4, 2), "red")
    areas = {s: np.count_nonzero(composite(board, square, at=(20, 20), scale=s)[1]) for s in (1.0, 2.0, 5.0)}
    assert areas == {1.0: 8, 2.0: 32, 5.0: 200}
    _, turned = composite(board, patch(), at=(20, 20), rotate=90)
    assert turned.getbbox() == (19, 20, 21, 22)  # counter-clockwise: what was left is below


def test_what_sticks_out_is_cut_off_and_what_misses_is_refused() -> None:
    board = Image.new("RGB", (10, 8))
    _, mask = composite(board, Image.new("RGB", (4, 4), "red"), at=(0, 0))
    assert mask.getbbox() == (0, 0, 2, 2)
    with pytest.raises(ImageError, match=r"patch at 50,4 does not touch"):
        composite(board, patch(), at=(50, 4))
    with pytest.raises(ImageError, match=r"would have 400000 x 200000"):
        composite(board, patch(), at=(5, 4), scale=1e5)


def test_the_command_writes_picture_and_mask(tmp_path: Path) -> None:
    Image.new("RGB", (10, 8), "blue").save(tmp_path / "under.png")
    patch().save(tmp_path / "patch.png")
    given = (
        "composite",
        str(tmp_path / "under.png"),
        str(tmp_path / "patch.png"),
        "-o",
        str(tmp_path / "o.png"),
    )
    done = scumble(*given, "--at", "5,4", "--mask-out", str(tmp_path / "m.png"), "--json")
    assert done.json["pictures"] == [str(tmp_path / "o.png"), str(tmp_path / "m.png")]
    with Image.open(tmp_path / "m.png") as mask:
        assert (mask.mode, mask.getbbox()) == ("L", (3, 3, 5, 5))
    for at, said in ((None, "setting at is missing"), ("5", "at"), ("a,b", "at.0 cannot be 'a'")):
        options = () if at is None else ("--at", at)
        outcome = scumble(*given, *options, "--overwrite")
        assert outcome.status == 2
        assert said in outcome.sentence
