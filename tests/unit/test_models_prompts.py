"""Prompts: weights, length, and learnt words."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

import tiny
from scumble.core.errors import InputError, PromptError, WeightsError
from scumble.models.conditioning import Condition
from scumble.models.load import load
from scumble.models.model import Model
from scumble.models.prompts import MAX_CHUNKS, parse
from scumble.models.tokenizer import clip_tokenizer


@pytest.fixture(scope="module")
def sd1() -> Model:
    return load(tiny.shared("sd1"))


@pytest.fixture(scope="module")
def sdxl() -> Model:
    return load(tiny.shared("sdxl"))


PARSED = [
    ("a cat", [("a cat", 1.0)]),
    ("", []),
    ("a (cat)", [("a ", 1.0), ("cat", 1.1)]),
    ("a ((cat)) sat", [("a ", 1.0), ("cat", 1.21), (" sat", 1.0)]),
    ("[cat]", [("cat", 1 / 1.1)]),
    ("(cat:1.3)", [("cat", 1.3)]),
    ("(cat: 0.5 ) dog", [("cat", 0.5), (" dog", 1.0)]),
    ("(cat:-1)", [("cat", -1.0)]),
    ("(a (cat:2) b:3)", [("a ", 3.0), ("cat", 6.0), (" b", 3.0)]),
    ("([cat])", [("cat", 1.0)]),
    (r"a \(cat\) \[b\] \\ c", [(r"a (cat) [b] \ c", 1.0)]),
    (r"\d :) x", [(r"\d :) x", 1.0)]),
    ("time 10:30", [("time 10:30", 1.0)]),
    ("(10:30 cat)", [("10:30 cat", 1.1)]),
    ("(cat:x)", [("cat:x", 1.1)]),
    ("a (cat", [("a ", 1.0), ("cat", 1.1)]),
    ("((a [b", [("a ", 1.21), ("b", 1.1)]),
    ("cat) dog]", [("cat) dog]", 1.0)]),
    ("a BREAK b", [("a ", 1.0), (None, 1.0), (" b", 1.0)]),
    ("BREAKFAST", [("BREAKFAST", 1.0)]),
]


@pytest.mark.parametrize(("prompt", "spans"), PARSED)
def test_parse(prompt: str, spans: list[tuple[str | None, float]]) -> None:
    found = parse(prompt)
    assert [span.text for span in found] == [text for text, _ in spans]
    assert [span.weight for span in found if span.text] == pytest.approx([w for text, w in spans if text])


@given(st.text(alphabet="ab:()[]\\1. BREAK", max_size=40))
def test_parse_takes_anything_and_keeps_the_letters(prompt: str) -> None:
    assert "".join(s.text or "BREAK" for s in parse(prompt)).count("a") == prompt.count("a")


@pytest.mark.parametrize(
    ("prompt", "weight"),
    [
        (f"(cat:{'9' * 400})", 100.0),
        ("(" * 3000 + "cat", 100.0),
        ("((cat:1000):-1000)", -100.0),
        ("((((cat:100):100):100):0.5)", 50.0),
        ("[" * 3000 + "cat", 0.0),
    ],
    ids=["digits", "brackets", "negative", "nested", "less"],
)
def test_weights_have_a_bound(sd1: Model, prompt: str, weight: float) -> None:
    [span] = parse(prompt)
    assert span.weight == pytest.approx(weight)
    assert sd1.prompt([prompt]).embeddings.isfinite().all()


def test_a_prompt_that_is_no_text_is_one_sentence(sd1: Model) -> None:
    """As Python gives bytes on the command line that are not UTF-8."""
    with pytest.raises(PromptError, match="not valid text"):
        sd1.prompt([b"a caf\xe9".decode(errors="surrogateescape")])


def test_a_weight_multiplies_the_embedding_and_keeps_the_mean(sd1: Model) -> None:
    # make the mean of the embeddings mean something, as it does in published encoders
    layer = sd1.text_encoders[0].final_layer_norm
    before = layer.bias.detach().clone()
    try:
        layer.bias.data.add_(0.5)
        plain = sd1.prompt(["a red cat"]).embeddings
        weighted = sd1.prompt(["a (red:1.5) cat"]).embeddings
    finally:
        layer.bias.data.copy_(before)
    factor = torch.ones(77)
    factor[2] = 1.5
    raw = plain * factor[:, None]
    assert_close(weighted, raw * (plain.mean() / raw.mean()))
    assert_close(weighted.mean(), plain.mean())
    assert 0.9 < plain.mean() / raw.mean() < 1


def test_without_a_mean_to_keep_a_weight_only_multiplies(sd1: Model) -> None:
    # a fresh LayerNorm's output has mean zero, and a ratio of two zeros says nothing
    plain = sd1.prompt(["a red cat"]).embeddings
    factor = torch.ones(77)
    factor[2] = 1.5
    assert plain.mean().abs() < 1e-6
    assert_close(sd1.prompt(["a (red:1.5) cat"]).embeddings, plain * factor[:, None])


def test_a_weight_of_one_changes_no_bit(sd1: Model, sdxl: Model) -> None:
    for model in (sd1, sdxl):
        assert model.prompt(["a (red:1) cat"]).embeddings.equal(model.prompt(["a red cat"]).embeddings)


def test_a_row_depends_on_its_own_prompt_only(sdxl: Model) -> None:
    texts = ["a cat", "a (dog:2) " * 60, "", "a cat"]
    together = sdxl.prompt(texts)
    assert together.embeddings.shape[:2] == (4, 2 * 77)
    assert together.mask is not None
    for row, text in enumerate(texts):
        alone = sdxl.prompt([text])
        length = alone.embeddings.shape[1]
        assert_close(together.embeddings[row, :length], alone.embeddings[0])
        assert together.mask[row].sum() == length
        assert alone.pooled is not None
        assert together.pooled is not None
        assert_close(together.pooled[row], alone.pooled[0])


def test_a_long_prompt_is_its_chunks_one_after_another(sd1: Model, sdxl: Model) -> None:
    words = ["red", "cat", "dog"] * 60  # one token each
    for model in (sd1, sdxl):
        whole = model.prompt([" ".join(words)]).embeddings
        chunks = [model.prompt([" ".join(words[start : start + 75])]).embeddings for start in (0, 75, 150)]
        assert whole.shape[1] == 3 * 77
        assert_close(whole, torch.cat(chunks, dim=1))
        broken = model.prompt(["red BREAK cat"]).embeddings
        assert_close(broken, torch.cat([model.prompt([text]).embeddings for text in ("red", "cat")], dim=1))


def test_prompts_of_different_length_act_as_they_do_alone(sd1: Model) -> None:
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    level = sd1.schedule.levels(torch.tensor(300.0))
    short, long = sd1.prompt(["a cat"]), sd1.prompt(["a dog " * 50])
    with torch.inference_mode():
        together = sd1.branches([short, long])(x, level, (0, 1))
        alone = [sd1.branches([condition])(x, level, (0,))[0] for condition in (short, long)]
    for one, other in zip(together, alone, strict=True):
        assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_ten_thousand_characters_work_and_far_more_are_one_sentence(sd1: Model) -> None:
    text = ("a photo of a red cat on the grass, " * 300)[:10_000]
    embeddings = sd1.prompt([text]).embeddings
    assert 77 < embeddings.shape[1] <= MAX_CHUNKS * 77
    with pytest.raises(PromptError, match=rf"the most is {MAX_CHUNKS}") as caught:
        sd1.prompt([text * 4])
    assert caught.value.exit_status == 2
    with pytest.raises(PromptError, match="No prompt"):
        sd1.prompt([])


def learnt(model: Model, count: int, seed: int = 0) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    widths = [encoder.config.hidden_size for encoder in model.text_encoders]
    return tuple(torch.randn(count, width, generator=generator).requires_grad_() for width in widths)


def test_a_learnt_word_is_its_vectors(sdxl: Model) -> None:
    """A word that holds the rows of known tokens acts as those tokens, in every encoder."""
    ids = sdxl.tokenizers[0]("red cat", add_special_tokens=False).input_ids
    rows = tuple(encoder.get_input_embeddings().weight[ids].clone() for encoder in sdxl.text_encoders)
    plain = sdxl.prompt(["a red cat on grass"])
    sdxl.words["<rex>"] = rows
    try:
        for text in ("a <rex> on grass", "a<rex>on grass"):
            found = sdxl.prompt([text])
            assert_close(found.embeddings, plain.embeddings)
            assert_close(found.pooled, plain.pooled)
    finally:
        del sdxl.words["<rex>"]
    assert not torch.allclose(sdxl.prompt(["a <rex> on grass"]).embeddings, plain.embeddings, atol=0.1)


def test_gradients_reach_the_vectors_and_nothing_else(sdxl: Model) -> None:
    vectors = learnt(sdxl, 3)
    tables = [encoder.get_input_embeddings().weight for encoder in sdxl.text_encoders]
    before = [table.clone() for table in tables]
    sdxl.words["<rex>"] = vectors
    try:
        condition = sdxl.prompt(["photo of <rex>", "a dog", "(<rex>:1.2) and <rex>"])
    finally:
        sdxl.words.clear()
    condition.embeddings.square().sum().backward()
    for vector in vectors:
        assert vector.grad is not None
        assert (vector.grad.abs().sum(dim=1) > 0).all()
    assert all(table.grad is None for table in tables)
    assert all(table.equal(old) for table, old in zip(tables, before, strict=True))
    assert not any(encoder.get_input_embeddings()._forward_hooks for encoder in sdxl.text_encoders)


def test_which_word_matches(sd1: Model) -> None:
    short, long = learnt(sd1, 1, 1), learnt(sd1, 2, 2)
    sd1.words.update({"rex": short, "rex-two": long})
    try:
        assert not sd1.prompt(["trex rexx"]).embeddings.requires_grad
        sd1.prompt(["a rex-two."]).embeddings.sum().backward()
    finally:
        sd1.words.clear()
    assert short[0].grad is None
    assert long[0].grad is not None


def test_a_word_stays_in_one_chunk(sd1: Model) -> None:
    filler = " ".join(["cat"] * 74)
    sd1.words["<rex>"] = learnt(sd1, 3)
    try:
        embeddings = sd1.prompt([f"{filler} <rex>"]).embeddings
        alone = sd1.prompt(["<rex>"]).embeddings
    finally:
        sd1.words.clear()
    assert embeddings.shape[1] == 2 * 77
    assert_close(embeddings[:, 77:], alone)


def test_vectors_of_another_family_are_refused(sd1: Model) -> None:
    for vectors, error in ((torch.zeros(1, 7), WeightsError), (torch.zeros(80, 32), PromptError)):
        sd1.words["<rex>"] = (vectors,)
        try:
            with pytest.raises(error, match="A learnt word"):
                sd1.prompt(["<rex>"])
        finally:
            sd1.words.clear()


def test_condition_rows(sdxl: Model, sd1: Model) -> None:
    condition = sdxl.prompt(["a cat", "a dog"])
    picked = condition.select([1, 0, 1])
    assert picked.embeddings.equal(condition.embeddings[[1, 0, 1]])
    assert len(condition.select([0]).expand(5)) == 5
    with pytest.raises(InputError, match="2 prompts cannot be spread over 3 pictures"):
        condition.expand(3)
    with pytest.raises(InputError, match="cannot be joined"):
        Condition.cat([condition, Condition(condition.embeddings)])
    sizes = torch.arange(6.0)[None]
    resized = condition.sized(sizes)
    assert resized.added is not None
    assert resized.added.equal(sizes.expand(2, 6))
    assert sd1.prompt(["a"]).sized(sizes).added is None
    assert condition.to("cpu", torch.bfloat16).embeddings.dtype == torch.bfloat16


def test_the_vocabulary_in_the_package_is_clips() -> None:
    tokenizer = clip_tokenizer()
    assert len(tokenizer) == 49408
    # ids given in the documentation of CLIP's tokenizer and of diffusers
    assert tokenizer("a photo of a cat").input_ids == [49406, 320, 1125, 539, 320, 2368, 49407]
    assert tokenizer("an astronaut").input_ids == [49406, 550, 18376, 49407]
    assert tokenizer.pad_token_id == 49407
    assert clip_tokenizer(pad="!").pad_token_id == 0
