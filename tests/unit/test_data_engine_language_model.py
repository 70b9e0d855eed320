"""A language model that is made, tuned on the grammar and asked for edits, all here and in seconds."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from cli import scumble
from scumble.core import rng
from scumble.core.errors import InputError, ModelError
from scumble.core.events import finish
from scumble.datagen.completions import Sampling, answer, parse, question
from scumble.datagen.language_model import LanguageModel, TuneConfig, _Draw, load_language_model, tune
from scumble.datagen.triples import Sieve, Triple, read_triples, write_triples
from scumble.world.instructions import instruct, triple
from scumble.world.sampling import PROFILES, sample_scene


def edits(first: int, count: int) -> list[Triple]:
    """Edits of the time of day, of scenes with one thing."""
    found: dict[str, Triple] = {}
    for seed in range(first, first + 20 * count):
        if len(found) == count:
            break
        scene = sample_scene(seed, profile=PROFILES["photo"])
        if scene.place != "green screen":
            one = Triple(*triple(instruct(scene, seed, kinds=["time"]), None), "time")
            found.setdefault(one.id, one)
    return list(found.values())


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random GPT-2 with a byte-pair tokenizer trained on the grammar."""
    folder = tmp_path_factory.mktemp("gpt2")
    words = Tokenizer(models.BPE())
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    texts = [question(t.input_caption) + answer(t) for t in edits(0, 150)]
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=["<|end|>"], show_progress=False)
    words.train_from_iterator(texts, trainer)
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<|end|>").save_pretrained(folder)
    config = GPT2Config(
        vocab_size=words.get_vocab_size(),
        n_positions=128,
        n_embd=64,
        n_layer=2,
        n_head=4,
        bos_token_id=0,
        eos_token_id=0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def tuned(start: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same after `scumble data language-model`."""
    place = tmp_path_factory.mktemp("tuned")
    write_triples(place / "edits.jsonl", edits(0, 150))
    with (place / "edits.jsonl").open("a") as file:
        file.write("a broken line\n")
    out = place / "model"
    said = scumble(
        "data", "language-model", str(place / "edits.jsonl"), "--from", str(start), "-o", str(out),
        "--steps", "250", "--lr", "3e-3", "--batch", "8", "--device", "cpu", "--json",
    )  # fmt: skip
    assert said.status == 0, said.err
    losses = said.json["losses"]
    assert losses[-1] < 0.35 * losses[0]
    assert "1 lines of edits.jsonl were dropped" in said.err
    return out


def test_a_tuned_model_writes_edits_for_captions(tuned: Path, tmp_path: Path) -> None:
    captions = [t.input_caption for t in edits(5000, 24)]
    (tmp_path / "captions.txt").write_text("\n".join([*captions, "", captions[0]]))
    out = tmp_path / "edits.jsonl"
    command = (
        "data", "instructions", "--language-model", str(tuned), "--captions", str(tmp_path / "captions.txt"),
        "--text-only", "-o", str(out), "--device", "cpu", "--json",
    )  # fmt: skip
    said = scumble(*command)
    assert said.status == 0, said.err
    found = read_triples(out, Sieve())
    assert len(found) == said.json["pairs"] >= 12, "half of the captions at least"
    assert {t.input_caption for t in found} <= set(captions)
    counts = said.json["text"]
    dropped = sum(counts.get(reason, 0) for reason in ("malformed", "unchanged", "duplicate", "too long"))
    assert counts["taken"] == 24 == counts["kept"] + dropped
    # what was answered is not asked again
    [journal] = out.with_name("edits.jsonl.run").glob("answers-*.jsonl")
    answered = journal.read_bytes()
    before = out.read_bytes()
    out.unlink()
    assert scumble(*command).status == 0
    assert (out.read_bytes(), journal.read_bytes()) == (before, answered)


def test_an_answer_depends_on_seed_caption_and_attempt(tuned: Path) -> None:
    model = load_language_model(tuned, Sampling(temperature=1.0, max_tokens=60))
    captions = [t.input_caption for t in edits(7000, 4)]
    first = model(captions, 0)
    assert model(captions, 0) == first
    assert model(captions, 1) != first
    assert replace(model, seed=1)(captions, 0) != first
    likeliest = replace(model, sampling=Sampling(temperature=0, max_tokens=60))
    assert likeliest(captions, 0) == likeliest(captions, 1)
    assert all(parse(a.text) for a in first if a.text is not None)


def test_an_answer_without_an_end_or_room_is_none(start: Path) -> None:
    model = load_language_model(start, Sampling(max_tokens=5))
    short, long = model(["a cat", "a cat " * 200], 0)
    assert (short.text, short.reason) == (None, "malformed")
    assert (long.text, long.reason) == (None, "too long")


def drawn(logits: list[float], sampling: Sampling, said: list[int] | None = None) -> torch.Tensor:
    """4000 draws, each from a generator of its own."""
    rows = 4000
    scores = torch.tensor([logits]).repeat(rows, 1)
    before = torch.tensor([[0, *(said or [])]]).repeat(rows, 1)
    return _Draw(sampling, rng.generators(range(rows)), 1)(before, scores).argmax(1)


@pytest.mark.parametrize("field", ["temperature", "top_p", "frequency_penalty"])
def test_the_draw_is_from_the_distribution(field: str) -> None:
    logits = [0.0, 1.0, 2.0]
    plain = {"temperature": 1.0, "top_p": 1.0, "frequency_penalty": 0.0}
    changed = {"temperature": 0.5, "top_p": 0.7, "frequency_penalty": 1.5}
    expected = torch.tensor(logits).softmax(0)
    if field == "temperature":
        expected = (torch.tensor(logits) / 0.5).softmax(0)
    elif field == "top_p":  # 0.665 alone is not 0.7, with 0.245 it is more
        expected = torch.tensor([0.0, *torch.tensor(logits[1:]).softmax(0)])
    else:  # token 2 was said twice: 2 - 3
        expected = torch.tensor([0.0, 1.0, -1.0]).softmax(0)
    found = drawn(logits, Sampling.of(plain | {field: changed[field]}), [2, 2])
    shares = torch.bincount(found, minlength=3) / len(found)
    torch.testing.assert_close(shares, expected, rtol=0, atol=0.03)  # 4 standard errors
    assert (shares - torch.tensor(logits).softmax(0)).abs().max() > 0.05


def test_examples_that_are_too_long_are_left_out(start: Path) -> None:
    model = load_language_model(start, Sampling())
    with pytest.raises(InputError, match="No triple has at most 3 tokens"):
        finish(tune(model, edits(0, 2), TuneConfig(steps=1, max_length=3)))


def test_what_is_no_language_model_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no language model"):
        load_language_model(tmp_path / "missing", Sampling())
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    with pytest.raises(ModelError, match="no causal language model"):
        load_language_model(tmp_path, Sampling())


def test_only_the_answer_is_learnt(start: Path) -> None:
    """The loss of one example is the mean over the answer's tokens of what the network gives them."""
    model: LanguageModel = load_language_model(start, Sampling())
    [one] = edits(0, 1)
    loop = tune(model, [one], TuneConfig(steps=1, batch=1, lr=0.0))
    before = model.network.state_dict()["transformer.wte.weight"].clone()
    fitted = finish(loop)
    asked = model.tokenizer(question(one.input_caption), add_special_tokens=False).input_ids
    told = [*model.tokenizer(answer(one), add_special_tokens=False).input_ids, model.tokenizer.eos_token_id]
    logits = model.network(torch.tensor([asked + told])).logits[0, len(asked) - 1 : -1].log_softmax(-1)
    wanted = -logits[torch.arange(len(told)), torch.tensor(told)].mean()
    assert fitted.losses == [pytest.approx(float(wanted), rel=1e-4)]
    assert torch.equal(before, model.network.state_dict()["transformer.wte.weight"])
    assert not any(p.requires_grad for p in model.network.parameters())
