"""A thousand hostile recipes in picture files: each is a sentence or ignored, and none reaches anything."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from cli import scumble
from scumble.core.errors import ScumbleError
from scumble.core.events import finish
from scumble.core.files import sha256
from scumble.history.embed import read_recipe
from scumble.verbs import redo as redoing
from scumble.verbs.redo import plan, redo_to
from scumble.verbs.redo_verbs import VERBS
from scumble.verbs.vision import VisionConfig

COUNTS: Counter[str] = Counter()

NASTY = (
    "/etc/passwd",
    "../../secret",
    "~/.ssh/id_rsa",
    "file:///etc/passwd",
    "http://localhost/x",
    "\\\\host\\share",
    "CON",
    "-o/tmp/x",
    "$(id)",
    "`id`",
    "owner/model",
    "\x1b[2Jred",
    "a\nb",
    "<script>",
    "😀" * 50,
    "self",
    "cls",
    "__class__",
    "",
)
words = st.sampled_from(NASTY) | st.text(max_size=20)
hashes = st.sampled_from(["ab" * 32, "0" * 64, "ab" * 4]) | words
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | words,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=4),
    max_leaves=6,
)
known = st.sampled_from(sorted({name for verb in VERBS.values() for name in verb.config.model_fields}))
ingredients = st.fixed_dictionaries(
    {
        "role": st.sampled_from(["guide", "image", "mask", "patch", "weights", "model"]) | words,
        "name": words,
        "hash": hashes,
    },
    optional={"scale": values, "place": words, "_place": words},
)
recipes = st.fixed_dictionaries(
    {
        "command": st.sampled_from(sorted(VERBS)) | words,
        "settings": st.dictionaries(known | words, values, max_size=6),
    },
    optional={
        "format": st.just(1) | values,
        "seed": st.integers(0, 9) | values,
        "output": st.sampled_from(["grid", "mask"]) | values,
        "batch": st.tuples(st.integers(0, 9), st.integers(1, 9)).map(list) | values,
        "model": ingredients | values,
        "ingredients": st.lists(ingredients, max_size=4) | values,
        "machine": st.dictionaries(
            st.sampled_from(["threads", "device", "dtype", "low_memory", "compile"]),
            words | st.just("9" * 99),
            max_size=4,
        ),
        "surprise": values,
    },
)
chunks = recipes.map(json.dumps) | st.text(max_size=300) | st.just("[" * 4000)


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hostile") / "photo.png"
    Image.new("RGB", (12, 10), "red").save(path)
    return path


@pytest.fixture(autouse=True)
def _nothing_is_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    """No model loads but the toybox, and that is not worth loading here: it is one more sentence."""

    def load(name: Any, **options: Any) -> Any:
        assert name in ("toybox", "toybox-instruct") or (options["offline"] and name == "owner/model"), name
        assert options["trust_pickle"] is False
        assert options["compile"] is False
        raise redoing.ModelError("Not loaded.")

    def load_clip(config: VisionConfig) -> Any:
        return load(config.clip, offline=config.offline, trust_pickle=False, compile=False)

    monkeypatch.setattr("scumble.models.load.load", load)
    monkeypatch.setattr(VisionConfig, "load_clip", load_clip)
    monkeypatch.setenv("SCUMBLE_HISTORY", "off")


def outcome(path: Path, out: Path) -> str:
    """What becomes of a file."""
    try:
        finish(redo_to(path, out, overwrite=True, inputs=[str(path.with_name("photo.png"))]))
    except ScumbleError as problem:
        sentence = str(problem)
        assert sentence.isprintable(), sentence
        assert len(sentence) < 1000
        try:
            read_recipe(path)
        except ScumbleError:
            return "unreadable"
        return "refused"
    return "done"


@given(text=chunks)
@settings(max_examples=1000, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_thousand_hostile_chunks(text: str, photo: Path) -> None:
    path, info = photo.with_name("hostile.png"), PngInfo()
    info.add_itxt("scumble", text.encode(errors="replace").decode())
    Image.new("RGB", (4, 4)).save(path, pnginfo=info)
    COUNTS[outcome(path, photo.with_name("out.png"))] += 1


def test_all_of_them_were_tried() -> None:
    assert COUNTS.total() >= 1000
    assert COUNTS["unreadable"] > 100
    assert COUNTS["refused"] > 20


@given(
    values=st.dictionaries(
        st.sampled_from(["colours", "kernel"]) | words, values | st.integers(1, 99), max_size=3
    )
)
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_what_can_be_followed_is(values: dict[str, Any], photo: Path) -> None:
    """Recipes whose ingredients are there: the settings decide alone."""
    recipe = {
        "command": "strokes",
        "settings": values,
        "ingredients": [{"role": "image", "name": "../x", "hash": sha256(photo)}],
    }
    path, info = photo.with_name("strokes.png"), PngInfo()
    info.add_itxt("scumble", json.dumps(recipe))
    Image.new("RGB", (4, 4)).save(path, pnginfo=info)
    fits = all(name in ("colours", "kernel") for name in values) and all(
        type(value) is int and 1 <= value <= 255 for value in values.values()
    )
    found = outcome(path, photo.with_name("out.png"))
    assert found == "done" or not fits


def test_other_chunks_are_ignored(tmp_path: Path) -> None:
    info = PngInfo()
    info.add_text("parameters", "Steps: 20, Model: /etc/passwd")
    info.add_text("workflow", '{"nodes": []}')
    Image.new("RGB", (4, 4)).save(tmp_path / "x.png", pnginfo=info)
    assert (
        "holds no scumble recipe"
        in scumble("redo", str(tmp_path / "x.png"), "-o", str(tmp_path / "y.png")).sentence
    )


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_broken_exif_is_a_sentence(tmp_path: Path, suffix: str) -> None:
    for number, exif in enumerate(
        (b"Exif\0\0", b"Exif\0\0MM\0*\0\0\0\xff", b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\x69\x87" * 40)
    ):
        path = tmp_path / f"{number}{suffix}"
        Image.new("RGB", (8, 8)).save(path, exif=exif)
        with pytest.raises(ScumbleError, match=r"holds no scumble recipe|cannot be read"):
            plan(path)


def test_a_bomb_is_not_opened(tmp_path: Path) -> None:
    """A chunk that unpacks to more than is read."""
    info = PngInfo()
    info.add_itxt("scumble", " " * 3_000_000, zip=True)
    Image.new("RGB", (4, 4)).save(tmp_path / "bomb.png", pnginfo=info)
    with pytest.raises(ScumbleError, match="cannot be read as a picture"):
        plan(tmp_path / "bomb.png")
