"""Folders of pairs, right and wrong: every mistake is one sentence with the name of what is at fault."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from pairs import folder, picture, row
from scumble.core.errors import ImageError, InputError
from scumble.core.images import to_unit
from scumble.data.pairs import covering, mirrors, pictures, read_pairs


def written(path: Path, *rows: object) -> Path:
    (path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return path


def test_rows_come_in_order_with_all_that_they_say(tmp_path: Path) -> None:
    pairs = read_pairs(folder(tmp_path / "data", 3))
    assert [pair.instruction for pair in pairs] == ["make it night", "a red cat", "move it to the left"]
    assert (pairs[1].input.name, pairs[1].edited.name) == ("1_in.png", "1_out.png")
    assert (pairs[1].input_caption, pairs[1].edited_caption) == ("a dog 1", "a cat 1")
    assert pairs[1].more == {"score": 0.5}
    assert pictures(pairs[0])[1].size == (64, 64)


def test_the_names_of_the_diffusers_script_are_read(tmp_path: Path) -> None:
    place = folder(tmp_path / "data", 1)
    names = {"input_image_file_name": "0_in.png", "edited_image_file_name": "0_out.png"}
    [pair] = read_pairs(written(place, names | {"edit_prompt": "make it night"}))
    assert (pair.input.name, pair.edited.name, pair.instruction) == ("0_in.png", "0_out.png", "make it night")


def test_what_is_wrong_is_named(tmp_path: Path) -> None:
    place = folder(tmp_path / "data", 2)
    (place / "1_out.png").unlink()
    with pytest.raises(InputError, match=r"picture 1_out\.png of line 2 .* is not there"):
        read_pairs(place)
    for change, sentence in (
        ({"instruction": " "}, "Line 1 .* has no instruction"),
        ({"edited": ""}, "Line 1 .* has no edited"),
        ({"input": 7}, "Line 1 .* has no input"),
        ({"input": "../0_in.png"}, r"names '\.\./0_in\.png', outside its folder"),
        ({"input": "/etc/passwd"}, "outside its folder"),
        ({"input": "C:\\x.png"}, "outside its folder"),
    ):
        with pytest.raises(InputError, match=sentence):
            read_pairs(written(place, row(0) | change))
    (place / "metadata.jsonl").write_text("[1]\n")
    with pytest.raises(InputError, match=r"Line 1 .* is no JSON object"):
        read_pairs(place)
    (place / "metadata.jsonl").write_text("\n")
    with pytest.raises(InputError, match="has no rows"):
        read_pairs(place)
    with pytest.raises(InputError, match="There are no pairs in"):
        read_pairs(tmp_path)


def test_a_pair_of_two_sizes_is_named(tmp_path: Path) -> None:
    place = folder(tmp_path / "data", 1)
    picture(5, 32, 64).save(place / "0_out.png")
    with pytest.raises(
        ImageError, match=r"0_in\.png and 0_out\.png are a pair of different sizes, 64 x 64 and"
    ):
        pictures(read_pairs(place)[0])


def test_both_pictures_are_cut_alike_and_nothing_is_stretched() -> None:
    wide = picture(1, 96, 64)
    cut = covering((wide, wide.copy()), 64, (0.5, 1.0))
    assert torch.equal(cut[0], cut[1])
    torch.testing.assert_close(cut[0], to_unit(wide)[0, :, :, 32:])
    half = covering((wide, wide), 32, (0.0, 0.0))
    assert half.shape == (2, 3, 32, 32)


@pytest.mark.parametrize(
    ("instruction", "may"),
    [
        ("make it night", True), ("Move it LEFT", False), ("the right-hand cat", False),
        ("the leftmost cat", False), ("a bright leftover", True),
    ],
)  # fmt: skip
def test_what_says_left_or_right_is_not_mirrored(instruction: str, may: bool) -> None:
    assert mirrors(instruction) == may
