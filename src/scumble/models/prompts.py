r"""Prompts: text to embeddings, of any length, with weights, and with words that were learnt.

Length. The text encoder reads 75 tokens between its two markers. A longer prompt is cut after every 75th
token and at the word BREAK, each chunk is encoded by itself, and the chunks' embeddings follow one another
(as in the AUTOMATIC1111 web UI, without its search for a comma to cut at). The pooled embedding is the first
chunk's.

Weights. `(word)` is worth 1.1, `[word]` 1/1.1, `(word:1.3)` 1.3; they multiply when nested, up to 100; `\(`,
`\)`, `\[`, `\]` and `\\` are the characters themselves; a bracket left open reaches to the end. A token's
embedding is multiplied by its weight, then the chunk is scaled so that its mean is what it was (the same web
UI's default). Where that would change a chunk by more than a factor of two the mean is no measure of size, as
for an encoder whose output has mean zero, and it is left. A prompt without brackets that fits one chunk is
encoded exactly as diffusers does it.

Learnt words. `words` maps a word as it stands in the prompt (`<rex>`) to one tensor (n, D_i) for each text
encoder i. Each occurrence becomes n tokens, kept in one chunk, whose input embeddings are the rows of that
tensor: they are put in place of what the embedding table returned, so no row of the vocabulary is touched,
none is added, and gradients reach the tensor. `Model.words` is such a mapping and is used by every
`Model.prompt`; whoever attaches words adds and removes entries there. The longest word that matches wins; a
word that begins or ends with a letter or digit only matches where no letter or digit adjoins.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from scumble.core.errors import PromptError, WeightsError
from scumble.models.conditioning import Condition

__all__ = ["MAX_CHUNKS", "Span", "Words", "encode", "parse", "standing", "token_count"]

Words = Mapping[str, Sequence[Tensor]]

MAX_CHUNKS = 64
"""The longest prompt, in chunks of 75 tokens."""
MAX_WEIGHT = 100.0
"""The largest weight of a stretch, all its brackets multiplied; more than any picture survives."""
ROUNDING = 1e-5
"""Share of the mean magnitude below which a mean is taken to be zero."""

_CLOSING = {")": ("(", 1.1), "]": ("[", 1 / 1.1)}
_PIECE = re.compile(
    r"\\(?P<escaped>[()\[\]\\])|(?P<open>[(\[])|:\s*(?P<weight>[+-]?(?:\d+\.?\d*|\.\d+))\s*\)|(?P<close>[)\]])"
    r"|(?P<stop>\bBREAK\b)|(?P<text>[^\\()\[\]:B]+|.)",
    re.DOTALL,
)


@dataclass(slots=True)
class Span:
    """A stretch of a prompt with one weight; `text` None stands for BREAK."""

    text: str | None
    weight: float = 1.0


@dataclass(slots=True)
class _Chunk:
    """One row of token ids with the weight of each, and the learnt vectors that go at some of the places."""

    ids: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    vectors: list[tuple[int, Tensor]] = field(default_factory=list)  # (place, (D,))


def parse(prompt: str) -> list[Span]:
    """The stretches of a prompt in order, neighbours of the same weight joined.

    Unbalanced brackets are no error.
    """
    spans: list[Span] = []
    opened: list[tuple[str, int]] = []  # (bracket, how many spans came before it)

    def close(bracket: str, factor: float) -> bool:
        if not opened or opened[-1][0] != bracket:
            return False
        for span in spans[opened.pop()[1] :]:
            span.weight = _bounded(span.weight * _bounded(factor))
        return True

    for match in _PIECE.finditer(prompt):
        kind, text = match.lastgroup, match.group()
        if kind == "open":
            opened.append((text, len(spans)))
        elif kind == "stop":
            spans.append(Span(None))
        elif kind == "weight":
            if not close("(", float(match["weight"])):
                spans.append(Span(text))
        elif kind == "close":
            if not close(*_CLOSING[text]):
                spans.append(Span(text))
        else:
            spans.append(Span(match["escaped"] or text))
    for bracket, _ in reversed(opened.copy()):
        close(bracket, _CLOSING[")" if bracket == "(" else "]"][1])
    return _joined(spans)


def _bounded(weight: float) -> float:
    return min(max(weight, -MAX_WEIGHT), MAX_WEIGHT)


def encode(
    texts: Sequence[str],
    tokenizers: Sequence[Any],
    encoders: Sequence[Any],
    *,
    words: Words | None = None,
    penultimate: bool = False,
    device: str | torch.device = "cpu",
) -> Condition:
    """Encode B prompts: (B, L, sum of D_i), the encoders' embeddings side by side, and pooled if there is.

    `penultimate` takes the output of the last layer but one, without the final normalisation, as SDXL does;
    else it is the normalised last. Raises PromptError for a prompt that is too long or no text, WeightsError
    for learnt vectors of the wrong width.
    """
    if not texts:
        raise PromptError("No prompt was given.", "Give at least one; it may be empty.")
    for text in texts:
        if any("\ud800" <= letter <= "\udfff" for letter in text):
            raise PromptError("The prompt is not valid text.", "Its bytes are not UTF-8.")
    unique = list(dict.fromkeys(texts))
    rows = [unique.index(text) for text in texts]
    spans = [parse(text) for text in unique]
    chunked = [
        [_chunks(parsed, tokenizer, words or {}, which) for parsed in spans]
        for which, tokenizer in enumerate(tokenizers)
    ]  # encoder, prompt, chunk
    counts = [max(len(prompts[i]) for prompts in chunked) for i in range(len(unique))]
    embedded, pooled = [], None
    for tokenizer, encoder, prompts in zip(tokenizers, encoders, chunked, strict=True):
        padded = [
            chunk
            for prompt, count in zip(prompts, counts, strict=True)
            for chunk in prompt + [_Chunk()] * (count - len(prompt))
        ]
        hidden, projected = _encoded(padded, tokenizer, encoder, penultimate, device)
        embedded.append(hidden)  # (sum of counts, 77, D_i)
        pooled = projected if projected is not None else pooled
    return _assembled(torch.cat(embedded, dim=-1), pooled, counts, rows)


def token_count(text: str, tokenizer: Any, words: Words | None = None) -> int:
    """How many tokens a prompt has, markers left out, learnt words counting their vectors."""
    return sum(len(chunk.ids) for chunk in _chunks(parse(text), tokenizer, words or {}, 0))


def standing(prompt: str, words: Collection[str]) -> set[str]:
    """Those of `words` that would be read in the prompt, were they learnt."""
    texts = [span.text for span in parse(prompt) if span.text is not None]
    return {piece for text in texts for piece in _split(text, words)} & set(words)


def _joined(spans: list[Span]) -> list[Span]:
    result: list[Span] = []
    for span in spans:
        last = result[-1] if result else None
        if last and last.text is not None and span.text is not None and last.weight == span.weight:
            last.text += span.text
        else:
            result.append(span)
    return result


def _chunks(spans: list[Span], tokenizer: Any, words: Words, which: int) -> list[_Chunk]:
    """The chunks of one prompt for text encoder number `which`, without markers and padding; at least one."""
    room = tokenizer.model_max_length - 2
    chunks = [_Chunk()]
    for span in spans:
        if span.text is None:
            chunks.append(_Chunk())
            continue
        for piece in _split(span.text, words):
            if piece in words:
                _add_word(chunks, words[piece][which], span.weight, room)
            else:
                ids = tokenizer(piece, add_special_tokens=False, verbose=False).input_ids
                _add_tokens(chunks, ids, span.weight, room)
    if len(chunks) > MAX_CHUNKS:
        raise PromptError(
            f"The prompt is {len(chunks)} chunks of {room} tokens long, and the most is {MAX_CHUNKS}.",
            "Shorten it: what stands far back has little effect anyway.",
        )
    return chunks


def _split(text: str, words: Collection[str]) -> list[str]:
    """The text cut at every learnt word, the words being pieces of their own."""
    if not words:
        return [text]
    patterns = []
    for word in sorted(words, key=len, reverse=True):
        before = r"(?<!\w)" if word[0].isalnum() else ""
        after = r"(?!\w)" if word[-1].isalnum() else ""
        patterns.append(before + re.escape(word) + after)
    return [piece for piece in re.split(f"({'|'.join(patterns)})", text) if piece]


def _add_tokens(chunks: list[_Chunk], ids: list[int], weight: float, room: int) -> None:
    for token in ids:
        if len(chunks[-1].ids) == room:
            chunks.append(_Chunk())
        chunks[-1].ids.append(token)
        chunks[-1].weights.append(weight)


def _add_word(chunks: list[_Chunk], vectors: Tensor, weight: float, room: int) -> None:
    if len(vectors) > room:
        raise PromptError(f"A learnt word of {len(vectors)} vectors does not fit a chunk of {room} tokens.")
    if len(chunks[-1].ids) + len(vectors) > room:
        chunks.append(_Chunk())
    start = len(chunks[-1].ids)
    chunks[-1].vectors += [(start + i, vector) for i, vector in enumerate(vectors)]
    chunks[-1].ids += [0] * len(vectors)  # any token but a marker; its embedding is replaced
    chunks[-1].weights += [weight] * len(vectors)


def _encoded(
    chunks: list[_Chunk], tokenizer: Any, encoder: Any, penultimate: bool, device: str | torch.device
) -> tuple[Tensor, Tensor | None]:
    """Embeddings (R, 77, D) of R chunks, and their pooled projections (R, P) where the encoder has one."""
    length = tokenizer.model_max_length
    ids = torch.full((len(chunks), length), tokenizer.pad_token_id)  # (R, 77)
    weights = torch.ones(len(chunks), length)
    for row, chunk in enumerate(chunks):
        marked = [tokenizer.bos_token_id, *chunk.ids, tokenizer.eos_token_id]
        ids[row, : len(marked)] = torch.tensor(marked)
        weights[row, 1 : len(chunk.ids) + 1] = torch.tensor(chunk.weights)
    with _replaced(encoder, chunks):
        output = encoder(ids.to(device), output_hidden_states=penultimate)
    hidden = output.hidden_states[-2] if penultimate else output.last_hidden_state
    if any(weight != 1 for chunk in chunks for weight in chunk.weights):
        hidden = _weighted(hidden, weights.to(hidden))
    return hidden, getattr(output, "text_embeds", None)


@contextmanager
def _replaced(encoder: Any, chunks: list[_Chunk]) -> Iterator[None]:
    """Inside, the embedding table returns the learnt vectors at their places."""
    places = [(row, 1 + place, vector) for row, chunk in enumerate(chunks) for place, vector in chunk.vectors]
    if not places:
        yield
        return
    table = encoder.get_input_embeddings()
    width = table.weight.shape[1]
    for _, _, vector in places:
        if vector.shape != (width,):
            raise WeightsError(
                f"A learnt word has vectors {vector.shape[-1]} wide and the model's are {width} wide.",
                "It was learnt on another family of models.",
            )
    rows, columns = (torch.tensor([place[axis] for place in places]) for axis in (0, 1))
    vectors = torch.stack([vector for _, _, vector in places])  # (K, D)

    def hook(_module: Any, _arguments: Any, output: Tensor) -> Tensor:
        index = (rows.to(output.device), columns.to(output.device))
        return output.index_put(index, vectors.to(output))

    handle = table.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def _weighted(hidden: Tensor, weights: Tensor) -> Tensor:
    """`hidden` (R, 77, D) with each token multiplied by its weight (R, 77) and each chunk's mean restored.

    A mean that is no more than rounding is not restored. The restoring factor is a constant to gradients:
    that of a quotient of means near zero would drown all.
    """
    scaled = hidden * weights[..., None]
    before, after = (x.detach().mean(dim=(1, 2), keepdim=True) for x in (hidden, scaled))
    ratio = before / after
    noise = ROUNDING * hidden.detach().abs().mean(dim=(1, 2), keepdim=True)
    usable = (before.abs() > noise) & (ratio > 1 / 2) & (ratio < 2)  # False for NaN
    return scaled * torch.where(usable, ratio, torch.ones_like(ratio))


def _assembled(hidden: Tensor, pooled: Tensor | None, counts: list[int], rows: list[int]) -> Condition:
    """Chunks (sum of counts, 77, D) put one after another to prompts, and those repeated as `rows` says."""
    heads = [None] * len(counts) if pooled is None else [of_prompt[:1] for of_prompt in pooled.split(counts)]
    prompts = [
        Condition(chunks.flatten(0, 1)[None], head)  # (1, 77 n, D), (1, P)
        for chunks, head in zip(hidden.split(counts), heads, strict=True)
    ]
    return Condition.cat(prompts).select(rows)
