"""What of `--with` does nothing is said: a scale of words, and words that stand in no prompt."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from cli import Outcome, scumble
from learnt import learnt, tiny_model
from scumble.adapters.weights import Outline, Word, outline
from scumble.models.prompts import standing
from scumble.verbs.load import weights_notes
from tiny import shared


@pytest.fixture
def word(tmp_path: Path) -> Path:
    return words(tmp_path / "ti.safetensors", "<mog>")


def words(path: Path, *texts: str) -> Path:
    """A file that holds words only."""
    whole = learnt(tiny_model())
    vectors = whole.words["<rex>"].vectors
    there = {text: Word(tuple(v + i for v in vectors), "cat") for i, text in enumerate(texts)}
    replace(whole, words=there, changes={}).save(path)
    return path


def network(path: Path, *texts: str, **more: Any) -> Path:
    """A file that changes the network too."""
    whole = learnt(tiny_model())
    there = {text: Word(tuple(torch.full_like(v, i + 1) for v in whole.words["<rex>"].vectors))
             for i, text in enumerate(texts)}  # fmt: skip
    replace(whole, words=there, **more).save(path)
    return path


def generate(prompt: str, given: object, out: Path, *more: str) -> Outcome:
    where = ("--model", str(shared("sd1")), "--device", "cpu", "-o", str(out), "--overwrite")
    return scumble("generate", prompt, "--with", str(given), "--steps", "1", *where, *more)


def test_words_take_no_scale(word: Path, tmp_path: Path) -> None:
    done = generate("a photo of a <mog>", f"{word}:0.5", tmp_path / "a.png", "--json")
    assert done.status == 0
    assert (
        done.err.count("Words take no scale: ti.safetensors holds nothing else, and 0.5 does nothing.") == 1
    )
    assert [Path(row["path"]).name for row in json.loads(done.out)["pictures"]] == ["a.png"]
    for given in (word, f"{word}:1", f"{word}:0"):
        assert "scale" not in generate("a photo of a <mog>", given, tmp_path / "a.png").err
    assert weights_notes([f"{network(tmp_path / 'n.safetensors', '<mog>')}:0.5"], ["<mog>"]) == []


@pytest.mark.parametrize(
    ("prompt", "ending"),
    [("a cat", ""), ("a <MOG>", " Did you mean <mog>?"), ("a (<Mog>:1.2)", " Did you mean <mog>?")],
)
def test_a_word_that_does_not_stand_in_the_prompt_is_named(
    word: Path, tmp_path: Path, prompt: str, ending: str
) -> None:
    done = generate(prompt, word, tmp_path / "a.png", "--count", "2", "--json")
    said = f"<mog> of ti.safetensors does not stand in the prompt.{ending}"
    assert next(line.strip() for line in done.err.splitlines() if "<mog>" in line).endswith(said)
    assert done.err.count("does not stand") == 1
    assert len(json.loads(done.out)["pictures"]) == 3


def test_a_word_that_stands_anywhere_is_fine(word: Path) -> None:
    for prompts in (["a <mog>"], ["", "no <mog>"], ["(a <mog>:1.3)"], ["make it night", "make it a <mog>"]):
        assert weights_notes([str(word)], prompts) == []
    assert weights_notes([f"{word}:0"], [""]) == []


def test_a_network_speaks_up_only_where_none_of_its_words_is_there(tmp_path: Path) -> None:
    file = network(tmp_path / "db.safetensors", "<rex>", "<mog>")
    assert weights_notes([str(file)], ["a <rex> dog"]) == []
    [note] = weights_notes([str(file)], ["a dog"])
    assert note == "<rex>, <mog> of db.safetensors do not stand in the prompt."
    of_words = words(tmp_path / "two.safetensors", "<rex>", "<mog>")
    [note] = weights_notes([str(of_words)], ["a <rex> dog"])
    assert note == "<mog> of two.safetensors does not stand in the prompt."
    many = words(tmp_path / "many.safetensors", *(f"<w{i}>" for i in range(5)))
    assert weights_notes([str(many)], [""])[0].startswith(
        "<w0>, <w1>, <w2> and 2 more of many.safetensors do"
    )


def test_edits_say_it_too(word: Path, tmp_path: Path) -> None:
    picture = tmp_path / "in.png"
    Image.new("RGB", (64, 64), (200, 30, 30)).save(picture)
    given = ("--with", str(word), "--device", "cpu", "--steps", "2")
    painted = scumble("edit", "sdedit", str(picture), *given, "--model", str(shared("sd1")),
                      "-o", str(tmp_path / "o.png"))  # fmt: skip
    assert "<mog> of ti.safetensors does not stand in the prompt." in painted.err
    replace(learnt(tiny_model("ip2p"), word="<mog>"), changes={}).save(word)
    for instructions, count in ((("make it night",), 1), (("make it night", "add a <mog>"), 0)):
        done = scumble("edit", "instruct", str(picture), *instructions, *given, "--overwrite",
                       "--model", str(shared("ip2p")), "-o", str(tmp_path / "i.png"))  # fmt: skip
        assert done.status == 0
        assert done.err.count("does not stand in the prompt") == count


def test_what_a_file_holds_is_known_without_its_tensors(word: Path, tmp_path: Path) -> None:
    beside = replace(learnt(tiny_model()), words={})
    file = network(tmp_path / "db.safetensors", "<rex>", upscaler=beside)
    assert outline(word) == Outline(("<mog>",), changes=False)
    assert outline(file) == Outline(("<rex>",), changes=True, upscaler=Outline((), changes=True))
    assert weights_notes([str(file)], [""], upscales=True) == []
    assert len(weights_notes([str(file)], [""])) == 1


def test_words_stand_as_prompts_read_them() -> None:
    known = ["<rex>", "sks", "<rex>s"]
    assert standing("a [<rex>] and (a sks:1.3)", known) == {"<rex>", "sks"}
    assert standing("asks <rex>s BREAK", known) == {"<rex>s"}
