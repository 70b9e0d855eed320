"""Recipes survive the trip through every file format, and a stranger's text does no harm."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from scumble.core.errors import InputError
from scumble.history.embed import MADE_BY_AI, PARTLY_BY_AI, read_recipe, save_options
from scumble.history.recipe import MAX_JSON, Ingredient, Recipe, library_versions, parameters_line

RECIPE = Recipe(
    command="generate",
    settings={
        "prompt": "a red cat, é 猫",
        "negative": "fog",
        "steps": 25,
        "sampler": "dpmpp_2m",
        "guidance": 4.0,
        "width": 128,
        "height": 96,
    },
    seed=7,
    model=Ingredient.of("model", "/home/somebody/toy,box", "ab" * 16),
    ingredients=(Ingredient.of("weights", Path("/secret/rex.safetensors"), "cd" * 16, scale=0.8),),
    machine=library_versions("cpu", 2),
)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".PNG"])
def test_recipe_comes_back_from_every_format(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"picture{suffix}"
    Image.new("RGB", (8, 8)).save(path, **save_options(suffix, RECIPE))
    assert read_recipe(path) == RECIPE


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
@pytest.mark.parametrize(("edited", "source"), [(False, MADE_BY_AI), (True, PARTLY_BY_AI)])
def test_mark_of_ai_is_written_even_without_a_recipe(
    tmp_path: Path, suffix: str, edited: bool, source: str
) -> None:
    path = tmp_path / f"picture{suffix}"
    Image.new("RGB", (8, 8)).save(path, **save_options(suffix, None, edited=edited))
    assert f'"{source}"'.encode() in path.read_bytes()
    with pytest.raises(InputError, match="holds no scumble recipe"):
        read_recipe(path)


def test_recipe_names_files_without_their_folders() -> None:
    assert "somebody" not in RECIPE.to_json()
    assert "secret" not in RECIPE.to_json()


def test_parameters_line_is_what_other_programs_read() -> None:
    assert parameters_line(RECIPE) == (
        "a red cat, é 猫\nNegative prompt: fog\n"
        "Steps: 25, Sampler: DPM++ 2M, CFG scale: 4.0, Seed: 7, Size: 128x96, "
        f'Model hash: ababababab, Model: "toy,box", Version: scumble {RECIPE.scumble}'
    )


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"format": 2}, "another version of scumble"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**63}, "seed"),
        ({"surprise": 1}, "surprise"),
        ({"model": {"role": "model", "name": "x", "hash": "../../etc"}}, "hash"),
    ],
)
def test_recipe_that_cannot_be_used_is_named(change: dict[str, object], named: str) -> None:
    with pytest.raises(InputError, match=named):
        Recipe.from_json(json.dumps({**json.loads(RECIPE.to_json()), **change}))


def test_recipe_over_the_cap_is_refused() -> None:
    with pytest.raises(InputError, match="over 262144"):
        Recipe.from_json("{" + " " * MAX_JSON + "}")


@given(text=st.text(max_size=200) | st.from_regex(r'\{"format": ?1.*', fullmatch=True))
@settings(max_examples=200, deadline=None)
def test_any_text_is_a_recipe_or_a_sentence(text: str) -> None:
    with pytest.raises(InputError, match="cannot be used"):
        Recipe.from_json(text)


def test_file_that_is_no_picture_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "notes.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\nnot really")
    with pytest.raises(InputError, match="cannot be read as a picture"):
        read_recipe(path)


def test_png_with_a_hostile_chunk_is_a_sentence(tmp_path: Path) -> None:
    info = PngInfo()
    info.add_itxt("scumble", "[" * 5000)
    Image.new("RGB", (4, 4)).save(tmp_path / "x.png", pnginfo=info)
    with pytest.raises(InputError, match="cannot be used"):
        read_recipe(tmp_path / "x.png")
