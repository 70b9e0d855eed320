"""Which token of an edited caption is which of the caption before it, by the longest common runs of tokens.

Letters: L places of the encoded prompt: a start mark, up to 75 tokens, an end mark and padding, and again for
each further chunk.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import Any

import torch
from torch import Tensor

from scumble.datagen.attention_sharing import Alignment

__all__ = ["align", "aligned_tokens"]

CHUNK = 75
"""Tokens of a chunk between its two marks."""


def align(tokenizer: Any, pairs: Sequence[tuple[str, str]], length: int) -> Alignment:
    """The alignment of n pairs of captions, each encoded to `length` places."""
    tokens = [
        [tokenizer(text, add_special_tokens=False, verbose=False).input_ids for text in pair]
        for pair in pairs
    ]
    rows = [aligned_tokens(first, second, length) for first, second in tokens]
    return Alignment(torch.stack([moved for moved, _ in rows]), torch.stack([own for _, own in rows]))


def aligned_tokens(first: Sequence[int], second: Sequence[int], length: int) -> tuple[Tensor, Tensor]:
    """`moved` (L, L) and `own` (L,) of `Alignment`, for the token ids of one pair.

    A token that both have gets the attention it had; words that replace others share theirs evenly, so that
    what looked at the old ones looks at the new; words that were added keep their own. Marks and padding
    correspond in order.
    """
    moved, own = torch.zeros(length, length), torch.zeros(length)
    here, there = _places(first, length), _places(second, length)
    matcher = SequenceMatcher(None, list(first), list(second), autojunk=False)
    for kind, i0, i1, j0, j1 in matcher.get_opcodes():
        old, new = here[i0:i1], there[j0:j1]
        if kind == "equal":
            moved[old, new] = 1.0
        elif kind == "replace":
            moved[old[:, None], new[None, :]] = 1.0 / len(new)
        elif kind == "insert":
            own[new] = 1.0
    others, free = (_rest(places, length) for places in (here, there))
    ranks = torch.arange(len(free)).clamp(max=len(others) - 1)
    moved[others[ranks], free] = 1.0
    return moved, own


def _places(tokens: Sequence[int], length: int) -> Tensor:
    """Where the tokens stand in the encoded prompt."""
    index = torch.arange(len(tokens))
    places = index // CHUNK * (CHUNK + 2) + 1 + index % CHUNK
    return places[places < length]


def _rest(places: Tensor, length: int) -> Tensor:
    free = torch.ones(length, dtype=torch.bool)
    free[places] = False
    return free.nonzero().flatten()
