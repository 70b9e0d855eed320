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

_PLACES = frozenset(
    word
    for words in (
        "on in at under over above below near behind beside from for by before during through out",
        "into onto up down around along while and",
    )
    for word in words.split()
)
"""Words that say where a thing is, or begin something else: what is said of it ends there."""
_SAID = frozenset(("with", "without", "of", "wearing", "that", "which", "who"))
"""Words that go on about the thing that was named just before."""
_PARTICIPLES = frozenset(
    word
    for words in ("made capped covered filled topped painted dressed seen", "giving sitting standing lying")
    for word in words.split()
)
"""Likewise, with the word after them: "made of", "giving off"."""
_AFTER_PARTICIPLES = _PLACES | _SAID | {"off"}
_ARTICLES = ("a", "an", "the", "some", "two", "three")
_ART = "painting|drawing|sketch|watercolou?r|cartoon|comic|blueprint|illustration|engraving|mosaic|rendering"
_MEDIA = re.compile(
    rf"^(?:an? |the )?(?:[\w-]+ ){{0,3}}?(?:photo|photograph|picture|image|art|{_ART}) (?:of|showing) ",
    re.IGNORECASE,
)
"""A prompt that names a picture before what is in it."""
_ARTS = re.compile(rf"\b(?:art|{_ART})\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Texts:
    """What an edit is told."""

    prompt: str
    """T: the whole result."""
    screen: str
    """T_screen: the layer alone."""
    region: str
    """T_ROI: what is edited, as it is in the input."""
    whole: bool = False
    """Whether the edit is of the picture as a whole, such as one of style."""


def filled_in(prompt: str, screen: str | None = None, region: str | None = None) -> Texts:
    """The texts of an edit; what was not given is taken from the prompt.

    The layer is the thing that the prompt begins with and what is said of it, but not where it is ("a golden
    cat with a hat on a sofa": a golden cat with a hat), and the region is the thing alone (a cat). A prompt
    that begins with a kind of art ("a watercolour of a cat on a sofa") is of the whole picture: the layer is
    all of it, the region a photo of the same, unless a region is named that is no picture. Raises PromptError
    for a prompt without words.
    """
    if not re.search(r"\w", prompt):
        raise PromptError("The prompt is empty.", "Say what the result shows: --prompt 'a golden cat'.")
    prompt = prompt.strip()
    medium = _MEDIA.match(prompt)
    if medium and _ARTS.search(medium[0]) and (region is None or _MEDIA.match(region)):
        told = prompt.rstrip(".!")
        return Texts(prompt, screen or told, region or f"a photo of {told[medium.end() :]}", whole=True)
    words = prompt[medium.end() if medium else 0 :].rstrip(".!").split()
    said, thing = _phrases(words)
    article = next((w for w in thing[:1] if w.lower() in _ARTICLES), "")
    if article.lower() in ("a", "an"):
        article = "an" if thing[-1][:1].lower() in "aeiou" else "a"
    return Texts(prompt, screen or " ".join(said), region or f"{article} {thing[-1]}".strip())


def _phrases(words: list[str]) -> tuple[list[str], list[str]]:
    """The words that a prompt begins with: of a thing and what is said of it, and of the thing alone."""
    said, thing = len(words), len(words)
    for i, word in enumerate(words):
        plain = word.lower().strip(",;")
        after = words[i + 1].lower() if i + 1 < len(words) else ""
        participle = plain in _PARTICIPLES and after in _AFTER_PARTICIPLES
        if i and (participle or plain in _SAID):
            thing = min(thing, i)
        elif i and plain in _PLACES and words[i - 1].lower() not in _PARTICIPLES:
            said = i
            break
        if word.endswith((",", ";")):
            said = i + 1
            break
    kept = [*words[: said - 1], words[said - 1].rstrip(",;")]
    return kept, kept[:thing]
