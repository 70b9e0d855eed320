"""The texts of an edit, the sentences they are put into, and what they are where a person said less."""

from __future__ import annotations

import re
from dataclasses import dataclass

from scumble.core.errors import PromptError

__all__ = ["SCREENS", "TEMPLATES", "Texts", "filled_in"]

TEMPLATES = (
    "{}.",
    "{}",
    "a {}.",
    "the {}.",
    "{}!",
    "photo of {}.",
    "a photo of {}.",
    "a sharp photo of {}.",
    "a picture of {}.",
    "picture of the {}.",
    "an image of {}.",
    "a detailed image of {}.",
    "here is {}.",
    "this is {}.",
)
"""As many as the paper takes."""
SCREENS = ("{} over a green screen.", "{} in front of a green screen.")

_ENDS = frozenset(
    word
    for words in (
        "on in at under over above below near behind beside with without from of for by before during",
        "through out into onto up down around along and while wearing that which who",
    )
    for word in words.split()
)
"""Words that end the noun phrase a prompt begins with."""
_ARTICLES = ("a", "an", "the", "some", "two", "three")
_MEDIA = re.compile(
    r"^(an? |the )?([\w-]+ ){0,2}"
    r"(photo|photograph|picture|image|painting|drawing|sketch|render|rendering|watercolou?r) of ",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Texts:
    """What an edit is told."""

    prompt: str
    """T: the whole result."""
    screen: str
    """T_screen: the layer alone."""
    region: str
    """T_ROI: what is edited, as it is in the input."""


def filled_in(prompt: str, screen: str | None = None, region: str | None = None) -> Texts:
    """The texts of an edit; what was not given is taken from the prompt.

    The layer is the thing that the prompt begins with ("a golden cat on a sofa": a golden cat), and the
    region is that thing without what is said of it (a cat). Raises PromptError for a prompt without words.
    """
    if not re.search(r"\w", prompt):
        raise PromptError("The prompt is empty.", "Say what the result shows: --prompt 'a golden cat'.")
    words = _MEDIA.sub("", prompt.strip()).rstrip(".!").split()
    ends = [i for i, word in enumerate(words) if i and word.lower().strip(",") in _ENDS]
    ends += [i + 1 for i, word in enumerate(words) if word.endswith((",", ";"))]
    phrase = words[: min(ends, default=len(words))] or words
    phrase[-1] = phrase[-1].rstrip(",;")
    head = phrase[-1]
    article = next((w for w in phrase[:1] if w.lower() in _ARTICLES), "")
    if article.lower() in ("a", "an"):
        article = "an" if head[:1].lower() in "aeiou" else "a"
    return Texts(prompt.strip(), screen or " ".join(phrase), region or f"{article} {head}".strip())
