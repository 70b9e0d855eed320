"""Asking a language model for edits: the form of question and answer, and asking until all have answered.

The form is that of Brooks et al. 2022 (released code): a question is the caption and a mark; an answer is the
instruction, a second mark, the edited caption and an end mark. A model tuned on the form (`language_model`)
or shown examples of it (`remote_model`) answers in it most of the time; what does not fit is asked for again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, cast

from pydantic import Field

from scumble.core.config import Config
from scumble.core.events import Loop, Progress
from scumble.core.files import explained
from scumble.datagen.triples import Sieve, Triple

__all__ = [
    "END",
    "QUESTION_END",
    "SEPARATOR",
    "Answer",
    "Ask",
    "Sampling",
    "answer",
    "ask_all",
    "parse",
    "question",
]

QUESTION_END = "\n##\n"
SEPARATOR = "\n%%\n"
END = "\nEND"


class Sampling(Config):
    """How a language model is sampled; the defaults are the paper's code's."""

    temperature: Annotated[float, Field(ge=0, le=10)] = 0.7
    """0 takes the likeliest token each time."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the probability that tokens are drawn from (Holtzman et al. 2020)."""
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] = 0.1
    """Taken off a token's logit for each time that it has been said."""
    max_tokens: Annotated[int, Field(ge=1, le=4096)] = 256
    """The longest answer."""
    tries: Annotated[int, Field(ge=1, le=100)] = 3
    """How often a caption is asked about before it is given up."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: the text before the end mark, or None and why there is none."""

    text: str | None
    reason: str = "malformed"


Ask = Callable[[Sequence[str], int], list[Answer]]
"""(captions, attempt 0, 1, ...) -> an answer for each."""


def question(caption: str) -> str:
    """What a model is to continue."""
    return caption + QUESTION_END


def answer(triple: Triple) -> str:
    """What it is to say."""
    return f"{triple.instruction}{SEPARATOR}{triple.edited_caption}{END}"


def parse(text: str) -> tuple[str, str] | None:
    """Instruction and edited caption of an answer without its end mark; None if it has another form."""
    parts = text.split(END, maxsplit=1)[0].strip().split(SEPARATOR.strip()) if len(text) <= 10_000 else []
    lines = [part.strip() for part in parts]
    return (lines[0], lines[1]) if len(lines) == 2 and all(lines) and "\n" not in "".join(lines) else None


def ask_all(
    captions: Sequence[str], ask: Ask, sieve: Sieve, *, journal: Path, tries: int, at_once: int
) -> Loop[list[Triple]]:
    """Ask about every caption, `at_once` together, those without a good answer again, `tries` times in all.

    Each answer goes into `journal` at once. A stopped run that is taken up again asks again only the group
    it was stopped in, so a model that is a function of captions and attempt gives the same triples.
    """
    known = {(row["attempt"], row["caption"]): row for row in _journalled(journal)}
    good: dict[str, tuple[str, str]] = {}
    captions = list(dict.fromkeys(captions))
    pending, reasons = captions, dict.fromkeys(captions, "malformed")
    for attempt in range(tries):
        sieve.counts["asked again"] += len(pending) if attempt else 0
        for start in range(0, len(pending), at_once):
            group = pending[start : start + at_once]
            if not all((attempt, caption) in known for caption in group):
                rows = _asked(group, ask, attempt)
                _append(journal, rows)
                known |= {(attempt, row["caption"]): row for row in rows}
            for caption in group:
                row = known[attempt, caption]
                if isinstance(row["text"], str) and (parts := parse(row["text"])) is not None:
                    good[caption] = parts
                reasons[caption] = "malformed" if row["text"] is not None else str(row["reason"])
            yield Progress(stage="asking", step=len(good), total=len(captions))
        pending = [caption for caption in pending if caption not in good]
    yield Progress(stage="asking", step=len(captions), total=len(captions))
    for caption in pending:
        sieve.counts["taken"] += 1
        sieve.counts[reasons[caption]] += 1
    taken = [sieve.take(caption, *good[caption]) for caption in captions if caption in good]
    return [triple for triple in taken if triple is not None]


def _asked(group: Sequence[str], ask: Ask, attempt: int) -> list[dict[str, Any]]:
    answers = ask(group, attempt)
    return [
        {"attempt": attempt, "caption": caption, "text": given.text, "reason": given.reason}
        for caption, given in zip(group, answers, strict=True)
    ]


def _append(journal: Path, rows: Sequence[dict[str, Any]]) -> None:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    with explained(journal, "written"):
        journal.parent.mkdir(parents=True, exist_ok=True)
        with journal.open("ab") as file:
            file.write(b"\n" + text.encode())  # whatever a crash cut short stays a line of its own


def _journalled(journal: Path) -> Iterator[dict[str, Any]]:
    """The whole lines of the journal; those that a crash cut short are passed over."""
    if not journal.exists():
        return
    with explained(journal, "read"), journal.open("rb") as file:
        for line in file:
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if isinstance(row, dict) and {"attempt", "caption", "text", "reason"} <= row.keys():
                yield cast("dict[str, Any]", row)
