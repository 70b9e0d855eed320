"""Words beside the vocabulary: only they learn, and no row of any table is touched."""

from __future__ import annotations

import pytest
import torch

from learnt import digests, noise, tiny_model
from scumble.adapters import tokens
from scumble.adapters.tokens import (
    check_different,
    check_word,
    identifier_of,
    new_word,
    token_ids,
    words_attached,
)
from scumble.core.errors import PromptError, WeightsError


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_only_the_words_get_gradients_and_no_row_moves(family: str) -> None:
    model = tiny_model(family)
    before = digests(model)
    rex, tom = new_word(model, "dog", vectors=3), new_word(model, "red cat")
    with words_attached(model, {"<rex>": rex, "tom": tom}):
        condition = model.prompt(["a <rex> and tom", "tom"])
        # Not a sum or a sum of squares: the last normalisation keeps both the same whatever the words are.
        (condition.embeddings * noise(*condition.embeddings.shape)).sum().backward()
        optimiser = torch.optim.AdamW([*rex, *tom], lr=0.1)
        optimiser.step()
    assert len(rex) == len(tom) == (2 if family == "sdxl" else 1)
    for parameter in (*rex, *tom):
        assert parameter.grad is not None
        assert (parameter.grad.abs().sum(dim=1) > 0).all()
    for module in model.parts().values():
        assert all(parameter.grad is None for parameter in module.parameters())
    assert digests(model) == before
    assert model.words == {}


def test_a_word_that_is_not_in_the_prompt_gets_no_gradient() -> None:
    model = tiny_model()
    rex, tom = new_word(model, "dog"), new_word(model, "cat")
    with words_attached(model, {"<rex>": rex, "<tom>": tom}):
        model.prompt(["a <rex>"]).embeddings.sum().backward()
    assert rex[0].grad is not None
    assert tom[0].grad is None


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
@pytest.mark.parametrize("text", ["dog", "red dog"])
def test_a_word_that_starts_as_others_reads_as_those(family: str, text: str) -> None:
    model = tiny_model(family)
    plain = model.prompt([f"a {text} on grass"]).embeddings
    with words_attached(model, {"sks": new_word(model, text)}):
        assert torch.equal(model.prompt(["a sks on grass"]).embeddings, plain)


@pytest.mark.parametrize("prompt", ["asksb", "sksb", "asks", "a sks1 dog", "Sks", "sk s"])
def test_inside_other_words_a_word_is_not_seen(prompt: str) -> None:
    model = tiny_model()
    plain = model.prompt([prompt]).embeddings
    with words_attached(model, {"sks": new_word(model, "cat")}):
        assert torch.equal(model.prompt([prompt]).embeddings, plain)


@pytest.mark.parametrize(
    "prompt", ["sks", "a sks dog", "a dog, sks.", "(sks:1.2)", "sks-like", "the sks's hat"]
)
def test_between_other_signs_a_word_is_seen(prompt: str) -> None:
    model = tiny_model()
    plain = model.prompt([prompt]).embeddings
    with words_attached(model, {"sks": new_word(model, "cat")}):
        assert not torch.equal(model.prompt([prompt]).embeddings, plain)


def test_more_vectors_begin_again_and_fewer_share() -> None:
    model = tiny_model()
    [table] = [encoder.get_input_embeddings().weight for encoder in model.text_encoders]
    [ids] = token_ids(model, "red cat on grass")
    rows = table[ids]
    assert len(ids) == 4
    assert torch.equal(new_word(model, "red cat on grass")[0], rows)
    assert torch.equal(new_word(model, "red cat", vectors=5)[0], rows[[0, 1, 0, 1, 0]])
    torch.testing.assert_close(new_word(model, "red cat on grass", vectors=1)[0][0], rows.mean(dim=0))
    halves = torch.stack([rows[:2].mean(dim=0), rows[2:].mean(dim=0)])
    torch.testing.assert_close(new_word(model, "red cat on grass", vectors=2)[0].detach(), halves)


def test_words_are_float32_and_their_own_in_half_precision() -> None:
    model = tiny_model(dtype="bfloat16")
    [word] = new_word(model, "dog")
    assert word.dtype == torch.float32
    assert word.requires_grad
    with torch.no_grad():
        word.zero_()
    [again] = new_word(model, [torch.ones(2, word.shape[1])])
    assert again.shape == (2, word.shape[1])
    assert new_word(model, "dog")[0].abs().sum() > 0


def test_what_cannot_be_a_word_is_a_sentence() -> None:
    model = tiny_model()
    for text in ("", "a b", "a\nb", "(rex)", "a:b", "x" * 101, "BREAK", "\x1b[31m"):
        with pytest.raises(WeightsError, match="cannot be a word"):
            check_word(text)
    assert check_word("<rex>") == "<rex>"
    with pytest.raises(PromptError, match="has no tokens"):
        new_word(model, " ")
    with pytest.raises(PromptError, match="cannot have 76 vectors"):
        new_word(model, "dog", vectors=76)
    with pytest.raises(WeightsError, match="cannot start from tensors of shapes"):
        new_word(model, [torch.ones(2, 3)])
    with pytest.raises(WeightsError, match="is 3 wide"), words_attached(model, {"w": [torch.ones(1, 3)]}):
        pytest.fail("must be refused")


def test_in_a_large_vocabulary_subjects_learnt_apart_have_tokens_of_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = tiny_model()
    pool = [a + b + c for a in "abcd" for b in "efgh" for c in "ijkl"]
    monkeypatch.setattr(tokens, "rare_words", lambda _: pool)
    words = [f"<{name}>" for name in ("rex", "tom", "mog", "ida")]
    assert {identifier_of(model, word) for word in words} == {pool[0]}  # few tokens: the rarest
    monkeypatch.setattr(tokens, "LARGE_VOCABULARY", 1)
    assert len({identifier_of(model, word) for word in words}) == len(words)
    assert identifier_of(model, "<rex>") == identifier_of(model, "<rex>")
    everything_but_one = set(pool) - {"aei"}
    assert identifier_of(model, "<rex>", everything_but_one) == "aei"
    with pytest.raises(PromptError, match="too few rare tokens"):
        identifier_of(model, "<rex>", pool)


def test_two_words_for_one_token_are_refused() -> None:
    one, other = torch.ones(1, 4), torch.ones(1, 4)
    with pytest.raises(WeightsError, match="<rex> and <tom> have the same vectors") as refused:
        check_different({"<rex>": (one,), "<tom>": (other,)})
    assert "another `identifier`" in str(refused.value)
    check_different({"<rex>": (one,), "<tom>": (other + 1e-6,)})
