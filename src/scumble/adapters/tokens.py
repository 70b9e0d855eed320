"""New words: each its own tensor for each text encoder, beside the vocabulary and never in it.

A word lives in `Model.words`, where prompts look it up (`scumble.models.prompts`): it is matched as a whole,
takes as many places as it has vectors, and its vectors stand where the embedding table's rows would. So the
table needs no new row, none of its rows can drift, and an optimiser that is given a word's parameters trains
exactly these (Gal et al. 2022, section 3, where the same is said as "embedding of S*, everything else
frozen").
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256

import torch
from torch import Tensor, nn

from scumble.core.errors import InputError, PromptError, WeightsError
from scumble.models.model import Model

__all__ = [
    "MAX_WORD",
    "check_different",
    "check_new_word",
    "check_word",
    "identifier_of",
    "meant_twice",
    "new_word",
    "rare_word",
    "rare_words",
    "same_vectors",
    "token_ids",
    "words_attached",
]

MAX_WORD = 100
"""The longest word, in characters."""

RAREST = 0.85
"""Share of a vocabulary, the frequent tokens first, below which no rare token is looked for."""

LARGE_VOCABULARY = 10_000
"""Tokens from which on a vocabulary has enough rare ones for every word to find its own."""

_SYNTAX = "()[]\\:"
"""What means something in a prompt, and so cannot be in a word."""


def check_word(word: str) -> str:
    """The word itself, if it can be one. Raises WeightsError."""
    visible = word.isprintable() and not any(c.isspace() or c in _SYNTAX for c in word)
    if not 0 < len(word) <= MAX_WORD or not visible or word == "BREAK":
        raise WeightsError(
            f"{word[:40]!r} cannot be a word.",
            f"Take up to {MAX_WORD} visible characters, none of {_SYNTAX} and no space.",
        )
    return word


def check_new_word(model: Model, word: str) -> str:
    """The word itself, if it can be one and the model does not know it. Raises WeightsError, InputError."""
    if check_word(word) in model.words or len(token_ids(model, word)[0]) == 1:
        raise InputError(f"{word!r} is a word that the model knows already.", "Take one like <rex>.")
    return word


def rare_words(model: Model) -> list[str]:
    """The rare tokens of the model's first tokenizer, the rarest first: words of 3 letters or fewer that it
    knows as one token, among the last tokens of its vocabulary, which are the rarest in what it was built
    from (Ruiz et al. 2022, section 4.1).
    """
    vocabulary: dict[str, int] = model.tokenizers[0].get_vocab()
    first = int(RAREST * len(vocabulary))
    found = [
        text.removesuffix("</w>")
        for text, number in sorted(vocabulary.items(), key=lambda item: -item[1])
        if number >= first and text.endswith("</w>") and 1 < len(text) - 4 <= 3
    ]
    return [t for t in found if t.isascii() and t.isalpha()]


def rare_word(model: Model, index: int = 0) -> str:
    """The `index`-th of `rare_words`. Raises PromptError where there are not so many."""
    found = rare_words(model)
    if index >= len(found):
        raise PromptError(f"{model.name} has only {len(found)} rare tokens.", "Name others to start from.")
    return found[index]


def identifier_of(model: Model, word: str, taken: Collection[str] = ()) -> str:
    """The rare token that `word` is to mean, none of those `taken` in the same run.

    In a large vocabulary the word's own letters choose it, so that subjects learnt apart mean different
    tokens. Few tokens of a small one are rare and mean nothing; there the rarest that is free is taken.
    Raises PromptError where none is left.
    """
    found = [text for text in rare_words(model) if text not in taken]
    if not found:
        raise PromptError(f"{model.name} has too few rare tokens.", "Learn fewer subjects in one run.")
    if len(model.tokenizers[0].get_vocab()) < LARGE_VOCABULARY:
        return found[0]
    return found[int.from_bytes(sha256(word.encode()).digest()[:8], "big") % len(found)]


def token_ids(model: Model, text: str) -> list[list[int]]:
    """The tokens of `text` for each text encoder, without markers."""
    return [t(text, add_special_tokens=False, verbose=False).input_ids for t in model.tokenizers]


def new_word(
    model: Model, initial: str | Sequence[Tensor], *, vectors: int | None = None
) -> tuple[nn.Parameter, ...]:
    """The parameters (n, D_i) of a new word, one for each text encoder i, float32 on the model's device.

    They start as the embeddings of the text `initial`: one vector for each of its tokens, or `vectors` of
    them. More vectors than tokens begin the text again; fewer share it out evenly, each vector the mean of
    its share. Tensors (n, D_i) are taken as they are. Raises PromptError for a text without tokens and
    WeightsError for wrong shapes.
    """
    tables = [encoder.get_input_embeddings().weight for encoder in model.text_encoders]
    if not isinstance(initial, str):
        return _from_tensors(initial, tables)
    tokens = token_ids(model, initial)
    if not tokens or not all(tokens):
        raise PromptError(
            f"{initial!r} has no tokens to start a word from.", "Give an ordinary word, such as dog."
        )
    count = vectors or max(map(len, tokens))
    if not 1 <= count <= 75:
        raise PromptError(f"A word cannot have {count} vectors.", "From 1 to 75 fit a prompt.")
    return tuple(
        nn.Parameter(_spread(table.detach()[torch.tensor(ids, device=table.device)].float(), count))
        for table, ids in zip(tables, tokens, strict=True)
    )


@contextmanager
def words_attached(model: Model, words: Mapping[str, Sequence[Tensor]]) -> Generator[Model]:
    """Inside, prompts know `words`; gradients reach their tensors. Leaving takes them away again.

    A word that is there already must have the same vectors: raises WeightsError if not, and for a word that
    does not fit the model's text encoders.
    """
    for word, vectors in words.items():
        _check_fit(model, check_word(word), vectors)
    before = dict(model.words)
    model.words.update(words)
    try:
        yield model
    finally:
        model.words.clear()
        model.words.update(before)


def _check_fit(model: Model, word: str, vectors: Sequence[Tensor]) -> None:
    widths = [encoder.get_input_embeddings().weight.shape[1] for encoder in model.text_encoders]
    given = [v.shape[-1] for v in vectors]
    if given != widths:
        raise WeightsError(
            f"The word {word!r} is {_sizes(given)} wide, and {model.name} reads words {_sizes(widths)} wide.",
            "It was learnt on another family of models.",
        )
    there = model.words.get(word)
    if there is not None and not same_vectors(there, vectors):
        raise meant_twice(word)


def same_vectors(a: Sequence[Tensor], b: Sequence[Tensor]) -> bool:
    """Whether two words are the same, bit for bit, for every text encoder."""
    return len(a) == len(b) and all(
        x.shape == y.shape and torch.equal(x, y.to(x.device)) for x, y in zip(a, b, strict=True)
    )


def meant_twice(word: str) -> WeightsError:
    """The error that one word would have two meanings."""
    return WeightsError(
        f"The word {word!r} is there twice with different vectors, and a prompt could mean only one of them.",
        "Learn or convert one of the two under another word.",
    )


def check_different(words: Mapping[str, Sequence[Tensor]]) -> None:
    """Raise WeightsError where two words have the same vectors, so that no prompt could tell them apart."""
    texts = list(words)
    for i, one in enumerate(texts):
        for other in texts[:i]:
            if same_vectors(words[one], words[other]):
                raise WeightsError(
                    f"{other} and {one} have the same vectors, so the model cannot tell them apart.",
                    "Learn one of them again, for DreamBooth with another `identifier`, or both in one run.",
                )


def _sizes(widths: Sequence[int]) -> str:
    return " and ".join(map(str, widths)) or "0"


def _from_tensors(tensors: Sequence[Tensor], tables: Sequence[Tensor]) -> tuple[nn.Parameter, ...]:
    if [(t.ndim, t.shape[-1]) for t in tensors] != [(2, table.shape[1]) for table in tables]:
        shapes = ", ".join(str(tuple(t.shape)) for t in tensors)
        raise WeightsError(f"A word cannot start from tensors of shapes {shapes} on this model.")
    device = tables[0].device
    return tuple(nn.Parameter(t.detach().to(device, torch.float32, copy=True)) for t in tensors)


def _spread(rows: Tensor, count: int) -> Tensor:
    """(T, D) to (count, D): begun again if there are too few, means of even shares if too many."""
    if len(rows) <= count:
        return rows[torch.arange(count, device=rows.device) % len(rows)]
    return torch.stack([share.mean(dim=0) for share in rows.tensor_split(count)])
