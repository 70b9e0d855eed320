"""Edits in words: a caption, an instruction and the caption after it (Brooks et al. 2022, section 3.1.1).

Whoever wrote a triple, a grammar, a language model or a stranger's file, it is text that nobody has checked:
a `Sieve` lets through what is whole, changes something and is new, and counts the rest by reason.
"""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any, cast

from scumble.core import rng
from scumble.core.errors import InputError
from scumble.core.events import Loop, Progress
from scumble.core.files import atomic_path, explained
from scumble.world.instructions import instruct
from scumble.world.instructions import triple as in_words
from scumble.world.sampling import PROFILES, sample_scene
from scumble.world.splits import EVALUATION_SEEDS

__all__ = ["MAX_LINE", "MAX_TEXT", "Sieve", "Triple", "cleaned", "grammar", "read_triples", "write_triples"]

MAX_TEXT = 1000
"""Characters that a caption or an instruction may have."""
MAX_LINE = 65536
"""Bytes that a line of a file of triples may have."""
_NAMES = (("input_caption", "caption", "input"), ("instruction", "edit"), ("edited_caption", "output"))
"""What files call the three: ours, and those of the released data sets."""
_UNUSABLE = ("Cc", "Cs", "Co", "Cn")
"""Unicode categories that no caption has: control, lone surrogate, private, unassigned."""


@dataclass(frozen=True, slots=True)
class Triple:
    """An edit in words."""

    input_caption: str
    instruction: str
    edited_caption: str
    kind: str = ""
    """What sort of instruction it is, where the source knows."""

    @property
    def id(self) -> str:
        """16 hexadecimal digits that depend on the three texts alone."""
        texts = [self.input_caption, self.instruction, self.edited_caption]
        return blake2b(json.dumps(texts).encode(), digest_size=8, person=b"scumble triple").hexdigest()


def cleaned(text: object) -> str | None:
    """`text` in one line, or None if it is no text, empty, too long, or holds control characters."""
    if not isinstance(text, str) or len(text) > 4 * MAX_TEXT:
        return None
    line = " ".join(unicodedata.normalize("NFC", text).split())
    if not 0 < len(line) <= MAX_TEXT or any(unicodedata.category(c) in _UNUSABLE for c in line):
        return None
    return line


@dataclass(slots=True)
class Sieve:
    """Lets good triples through, and counts: `taken`, and of these `malformed`, `unchanged`, `duplicate` and
    `kept`.
    """

    counts: Counter[str] = field(default_factory=Counter[str])
    _seen: set[str] = field(default_factory=set[str])

    def take(self, caption: object, instruction: object, edited: object, kind: str = "") -> Triple | None:
        """The triple, or None where it is dropped.

        Captions that differ in case, spaces and punctuation only are unchanged.
        """
        self.counts["taken"] += 1
        before, asked, after = cleaned(caption), cleaned(instruction), cleaned(edited)
        if before is None or asked is None or after is None:
            return self._dropped("malformed")
        letters = [_letters(text) for text in (before, asked, after)]
        if letters[0] == letters[2]:
            return self._dropped("unchanged")
        key = blake2b("\n".join(letters).encode(), digest_size=16).hexdigest()
        if key in self._seen:
            return self._dropped("duplicate")
        self._seen.add(key)
        self.counts["kept"] += 1
        return Triple(before, asked, after, kind)

    def _dropped(self, reason: str) -> None:
        self.counts[reason] += 1


def _letters(text: str) -> str:
    return "".join(c for c in text.casefold() if c.isalnum())


def grammar(sieve: Sieve, count: int, *, seed: int = 0, profile: str = "full") -> Loop[list[Triple]]:
    """`count` triples of the toy world, of scenes that training may see.

    Fewer, where three scenes for each bring no more that are new. Raises InputError for an unknown profile.
    """
    if profile not in PROFILES:
        raise InputError(f"There is no profile {profile!r}.", f"Profiles: {', '.join(PROFILES)}.")
    found: list[Triple] = []
    for i in range(3 * count):
        if len(found) == count:
            break
        chance = rng.derive(seed, "triple", i)
        scene = sample_scene(chance % EVALUATION_SEEDS, profile=PROFILES[profile])
        edit = instruct(scene, chance)
        if (triple := sieve.take(*in_words(edit, chance), kind=edit.kind)) is not None:
            found.append(triple)
            if len(found) % 100 == 0 or len(found) == count:
                yield Progress(stage="writing", step=len(found), total=count)
    return found


def read_triples(path: Path, sieve: Sieve, *, most: int | None = None) -> list[Triple]:
    """The good triples of a JSONL file, `most` at most. Broken lines are counted as malformed.

    Raises InputError where the file cannot be read or not one line is good.
    """
    found: list[Triple] = []
    for row in _rows(path):
        if most is not None and len(found) == most:
            break
        values = [next((row[name] for name in names if name in row), None) for names in _NAMES]
        kind = cleaned(row.get("kind")) or ""
        if (triple := sieve.take(*values, kind=kind)) is not None:
            found.append(triple)
    if not found:
        raise InputError(
            f"{path} holds no usable triple: {sieve.counts['taken']} lines, all dropped.",
            'A line is {"input_caption": ..., "instruction": ..., "edited_caption": ...}.',
        )
    return found


def write_triples(path: Path, triples: list[Triple]) -> None:
    """Write triples as JSONL, whole or not at all."""
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for triple in triples:
            row = {key: value for key, value in asdict(triple).items() if value}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _rows(path: Path) -> Iterator[Mapping[str, Any]]:
    """One mapping a line, empty for a line that is none; blank lines are passed over."""
    with explained(path, "read"), path.open("rb") as file:
        while line := file.readline(MAX_LINE + 1):
            whole = len(line) <= MAX_LINE
            while not line.endswith(b"\n") and (rest := file.readline(MAX_LINE)):
                line = rest
            if whole and not line.strip():
                continue
            yield _parsed(line) if whole else {}


def _parsed(line: bytes) -> Mapping[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return cast("Mapping[str, Any]", row) if isinstance(row, dict) else {}
