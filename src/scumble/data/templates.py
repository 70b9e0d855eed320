"""Sentences to put a learnt word into, so that it comes to mean the thing and not one sentence."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

__all__ = ["TEMPLATES", "Kind", "PlainWords", "Sentences", "common_captions", "meaning"]

Kind = Literal["object", "style", "plain"]


def _with_places(sentences: tuple[str, ...]) -> tuple[str, ...]:
    if any("{}" not in sentence for sentence in sentences):
        raise ValueError("each sentence needs {}, where word and noun go")
    return sentences


def meaning(words: str) -> str:
    """The first character of `words` that means something in a prompt; empty for ordinary words."""
    return next((c for c in words if c in SYNTAX), "")


def _plain(words: str) -> str:
    if found := meaning(words):
        raise ValueError(f"{found!r} means something in a prompt")
    return words


SYNTAX = "()[]:<>\\"
"""What means something in a prompt, or marks a learnt word."""

PlainWords = Annotated[str, AfterValidator(_plain)]
"""Ordinary words, in settings, none with a character of prompts."""

Sentences = Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(_with_places)]
"""Sentences of a person's own, in settings: one or more, each with `{}` where the word goes."""

TEMPLATES: dict[Kind, tuple[str, ...]] = {
    "object": (
        "a photo of a {}",
        "a picture of a {}",
        "a close-up photo of a {}",
        "a bright photo of a {}",
        "a dark photo of the {}",
        "a cropped photo of the {}",
        "a good photo of a {}",
        "a small {}",
        "the {} in a photo",
        "one {}",
        "my {}",
        "a clean picture of the {}",
    ),
    "style": (
        "a painting in the style of {}",
        "a picture in the style of {}",
        "a drawing in the style of {}",
        "a rendering in the style of {}",
        "a small painting in the style of {}",
        "a cropped painting in the style of {}",
        "a bright painting in the style of {}",
        "a dark painting in the style of {}",
        "a good picture in the style of {}",
        "a weird painting in the style of {}",
    ),
    "plain": ("{}",),
}
"""For things, for styles, and the word alone; `{}` is where the word goes."""


_THINGS = (
    "dog", "cat", "horse", "bird", "fish", "man", "woman", "child", "car", "boat", "train", "bicycle",
    "house", "bridge", "tree", "flower", "chair", "table", "lamp", "cup", "book", "clock", "hat", "ball",
    "cake",
)  # fmt: skip
_SAID = (
    "a photo of a {}",
    "a {} on the beach",
    "a {} in the snow at night",
    "a red {} on a table",
    "two people and a {} in a city",
    "a painting of a {}",
    "a {} in front of mountains",
    "a small {} in the grass, seen from above",
)


def common_captions() -> list[str]:
    """Two hundred ordinary captions, always the same: what a merge of subjects has to leave as it is."""
    return [said.replace("{}", thing) for said in _SAID for thing in _THINGS]
