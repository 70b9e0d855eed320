"""`scumble convert` and `inspect`: what they refuse with which remedy, and what they tell of a file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from cli import scumble
from learnt import noise
from scumble.adapters.changes import Change, Dense, LowRank, parameters_of
from scumble.adapters.weights import Weights, Word
from scumble.datagen import faiss_index
from scumble.datagen.retrieval import Captions, write_index
from scumble.models.load import load
from scumble.models.model import Model
from scumble.models.save import save_single_file
from tiny import shared

KEY = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_k.weight"
CONV = "unet.conv_in.weight"
MODEL = ("--model", str(shared("sd1")))


@pytest.fixture(scope="module")
def model() -> Model:
    return load(shared("sd1"))


def saved(model: Model, path: Path, *names: str, word: str = "<rex>") -> Path:
    """Weights with a word, and dense changes of the parameters `names`."""
    named = parameters_of(model)
    changes: dict[str, Change] = {n: Dense(noise(*named[n].shape, seed=i)) for i, n in enumerate(names)}
    words = {word: Word((noise(1, 32),), "dog")}
    Weights(method="dreambooth", family="sd1", base_hash=model.hash, words=words, changes=changes).save(path)
    return path


def refused(*argv: str | Path) -> str:
    done = scumble(*map(str, argv), *(MODEL if argv[0] == "convert" else ()))
    assert done.status == 2, done.err
    return done.sentence


def test_a_whole_model_is_not_read_as_learnt_weights(model: Model, tmp_path: Path) -> None:
    file = saved(model, tmp_path / "rex.safetensors", KEY)
    whole, out = tmp_path / "whole", tmp_path / "back.safetensors"
    assert scumble("convert", str(file), "--to", "diffusers-model", "-o", str(whole), *MODEL).status == 0
    sentence = refused("convert", whole, "--to", "scumble", "-o", out)
    assert f"{whole} is a whole model" in sentence
    assert f"Use it with --model {whole}, and convert a word's file in it alone." in sentence
    assert not out.exists()
    word = whole / "learned_embeds.safetensors"
    assert scumble("convert", str(word), "--to", "scumble", "-o", str(out), *MODEL).status == 0
    assert list(Weights.load(out).words) == ["<rex>"]


def test_the_single_file_of_a_model_is_one(model: Model, tmp_path: Path) -> None:
    file = tmp_path / "one.safetensors"
    save_single_file(model, file)
    sentence = refused("convert", file, "--to", "scumble", "-o", tmp_path / "out.safetensors")
    assert f"Use it with --model {file}." in sentence
    assert "is a whole model" in refused("inspect", file)  # one of no published size, and no delta either


def test_the_remedy_for_a_dense_change_helps(model: Model, tmp_path: Path) -> None:
    matrix = saved(model, tmp_path / "matrix.safetensors", KEY)
    whole = saved(model, tmp_path / "whole.safetensors", KEY, CONV)

    def told(file: Path, to: str, *more: str) -> str:
        return refused("convert", file, "--to", to, "-o", tmp_path / "out", *more)

    for to in ("kohya", "diffusers"):
        assert f"dense change of {KEY!r}. Cut it to low rank with --compress" in told(matrix, to)
        assert "Take a smaller share with --compress than 1," in told(matrix, to, "--compress", "1")
        done = scumble(
            "convert", str(matrix), "--to", to, "--compress", "0.3", "-o", str(tmp_path / to), *MODEL
        )
        assert done.status == 0, done.err
        for more in ((), ("--compress", "0.3")):
            sentence = told(whole, to, *more)
            assert f"dense change of {CONV!r}. No --compress makes it low-rank" in sentence
            assert "--to diffusers-model" in sentence
    done = scumble("convert", str(whole), "--to", "diffusers-model", "-o", str(tmp_path / "model"), *MODEL)
    assert done.status == 0, done.err


def test_a_folder_that_convert_wrote_is_inspected(model: Model, tmp_path: Path) -> None:
    file = saved(model, tmp_path / "rex.safetensors", KEY)
    for to in ("kohya", "diffusers"):
        out = tmp_path / to
        argv = ("--to", to, "--compress", "0.3", "-o", str(out))
        assert scumble("convert", str(file), *argv, *MODEL).status == 0
        facts = scumble("inspect", str(out), "--json").json
        assert facts["kind"] == "a folder of learnt weights"
        words = ("rex", "a1111") if to == "kohya" else ("learned_embeds", "diffusers")
        low = "lora" if to == "kohya" else "pytorch_lora_weights"
        assert facts["files"] == {
            f"{low}.safetensors": f"weights in the format of {to}",
            f"{words[0]}.safetensors": f"weights in the format of {words[1]}",
        }
        assert facts["bytes"] == sum(p.stat().st_size for p in out.iterdir())
    ours = tmp_path / "ours"
    saved(model, ours / "rex.safetensors")
    save_file({"nonsense": torch.zeros(2, 2, 2)}, ours / "x.safetensors")
    assert scumble("inspect", str(ours), "--json").json["files"] == {
        "rex.safetensors": "weights of scumble",
        "x.safetensors": "nothing known",
    }
    (ours / "rex.safetensors").unlink()
    assert "no model_index.json" in refused("inspect", ours)


@pytest.mark.parametrize("exact", [True, False])
def test_an_index_of_captions_is_called_one(
    tmp_path: Path, exact: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, folder = tmp_path / "dogs.safetensors", tmp_path / "dogs"
    features = torch.eye(3, 8)
    monkeypatch.setattr(faiss_index, "to_bytes", lambda _: torch.arange(9, dtype=torch.uint8))
    index = features if exact else object()
    texts = ("a dog", "a hog", "a log")
    write_index(Captions(index, texts, tuple(folder / f"{i}.png" for i in range(3))), file)  # pyright: ignore[reportArgumentType]
    facts = scumble("inspect", str(file), "--json").json
    assert facts["kind"] == "an index of 3 captions"
    assert (facts["folder"], facts["search"]) == (str(folder), "exact" if exact else "FAISS")
    sentence = refused("convert", file, "--to", "scumble", "-o", tmp_path / "out.safetensors")
    assert "is an index of captions, and no learnt weights" in sentence


@pytest.mark.parametrize(
    ("name", "tensor", "known"),
    [
        ("<rex>", torch.zeros(2, 32), True),
        ("rex", torch.zeros(32), True),
        ("rex", torch.zeros(2, 32, dtype=torch.uint8), False),
        ("rex", torch.zeros(2, 32, 1), False),
        ("conv_in.weight", torch.zeros(2, 32), False),
        ("two words", torch.zeros(2, 32), False),
    ],
)
def test_a_single_tensor_is_a_word_only_where_it_can_be(
    tmp_path: Path, name: str, tensor: torch.Tensor, known: bool
) -> None:
    save_file({name: tensor}, tmp_path / "x.safetensors")
    done = scumble("inspect", str(tmp_path / "x.safetensors"), "--json")
    if known:
        assert done.json["kind"] == "weights in the format of diffusers"
    else:
        assert "holds no learnt weights of a known kind" in done.sentence


def test_a_place_has_the_name_of_what_is_written(model: Model, tmp_path: Path) -> None:
    file = saved(model, tmp_path / "rex.safetensors")

    def told(to: str, out: str) -> str:
        sentence = refused("convert", file, "--to", to, "-o", tmp_path / out)
        assert not (tmp_path / out).exists()
        return sentence

    assert "ends in .safetensors, and a whole model is a folder" in told("diffusers-model", "x.safetensors")
    assert "ends in .txt, and weights do not" in told("a1111", "x.txt")
    assert "does not end in .safetensors" in told("scumble", "x.bin")
    for name in ("rex-1.5", "plain"):
        done = scumble("convert", str(file), "--to", "a1111", "-o", str(tmp_path / name), *MODEL)
        assert done.status == 0, done.err
        assert [p.name for p in (tmp_path / name).iterdir()] == ["rex.safetensors"]


def test_what_is_there_is_kept_and_the_remedy_is_true(model: Model, tmp_path: Path) -> None:
    file, taken = saved(model, tmp_path / "rex.safetensors"), tmp_path / "taken.safetensors"
    taken.write_bytes(b"x")
    assert "or say --overwrite" in refused("convert", file, "--to", "a1111", "-o", taken)
    argv = ("convert", str(file), "--to", "a1111", "--overwrite", *MODEL)
    assert scumble(*argv, "-o", str(taken)).status == 0
    for name in ("empty", "empty.safetensors"):
        (tmp_path / name).mkdir()
        assert scumble(*argv, "-o", str(tmp_path / name)).status == 0
        assert [p.name for p in (tmp_path / name).iterdir()] == ["rex.safetensors"]
        for to in ("a1111", "diffusers-model", "scumble"):
            if to == "scumble" and name == "empty":
                continue
            sentence = refused("convert", file, "--to", to, "--overwrite", "-o", tmp_path / name)
            assert ("is a folder" if to == "scumble" else "exists already") in sentence
            assert "--overwrite" not in sentence


def test_a_word_that_the_model_knows_is_no_new_name(model: Model, tmp_path: Path) -> None:
    file, out = saved(model, tmp_path / "rex.safetensors"), tmp_path / "out.safetensors"
    known = "dog"
    assert f"{known}</w>" in model.tokenizers[0].get_vocab()
    sentence = refused("convert", file, "--to", "scumble", "--word", known, "-o", out)
    assert f"{known!r} is a word that the model knows already" in sentence
    assert "cannot be a word" in refused("convert", file, "--to", "scumble", "--word", "a b", "-o", out)
    assert not out.exists()


def test_a_word_that_is_called_after_its_file_is_told(model: Model, tmp_path: Path) -> None:
    file = saved(model, tmp_path / "ours.safetensors")
    theirs, number = tmp_path / "tom.safetensors", iter(range(9))
    assert scumble("convert", str(file), "--to", "a1111", "-o", str(theirs), *MODEL).status == 0

    def said(source: Path, *more: str) -> str:
        out = str(tmp_path / f"out{next(number)}.safetensors")
        done = scumble("convert", str(source), "--to", "scumble", "-o", out, *more, *MODEL)
        assert done.status == 0, done.err
        return done.err

    assert "The word is called 'tom', after its file; --word names another." in said(theirs)
    assert "called" not in said(theirs, "--word", "<tom>")
    assert "called" not in said(file)
    both = tmp_path / "both"
    both.mkdir()
    for i, name in enumerate(("ann", "bob")):
        save_file({"emb_params": noise(1, 32, seed=i)}, both / f"{name}.safetensors")
    assert "The words are called 'ann', 'bob', after their files" in said(both)


def test_a_share_of_nothing_is_refused(model: Model, tmp_path: Path) -> None:
    words = saved(model, tmp_path / "words.safetensors")
    conv = saved(model, tmp_path / "conv.safetensors", CONV)
    low = tmp_path / "low.safetensors"
    change = LowRank(noise(2, 32), noise(32, 2), 1.0)
    Weights(method="x", family="sd1", base_hash=model.hash, words={}, changes={KEY: change}).save(low)
    for file in (words, conv, low):
        argv = ("--to", "scumble", "--compress", "0.5", "-o", tmp_path / "out.safetensors")
        sentence = refused("convert", file, *argv)
        assert f"{file} holds no dense change of a matrix" in sentence
        assert "Leave out --compress" in sentence
