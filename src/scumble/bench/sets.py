"""Published sets of subjects and of edits, read from a person's own copy in the layout that they come in.

| set | layout | from |
|---|---|---|
| dreambench | `prompts_and_classes.txt`, `SUBJECT/*.jpg` | google/dreambooth on GitHub |
| customconcept101 | `dataset.json`, `prompts`, `benchmark_dataset` | adobe-research/custom-diffusion |
| instructpix2pix | `seeds.json`, `NAME/prompt.json`, `NAME/SEED_0.jpg` | instruct-pix2pix.eecs.berkeley.edu |
| magicbrush | `edit_sessions.json`, `images/ID/`, captions | osu-nlp-group.github.io/MagicBrush |

Nothing is fetched, and no file outside the given folder is opened, whatever the set's own files say.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import floor
from pathlib import Path, PurePosixPath
from typing import Any

import torch

from scumble.core import rng
from scumble.core.errors import InputError
from scumble.core.files import read_bytes
from scumble.core.images import SUFFIXES

__all__ = ["EDITS", "SUBJECTS", "EditCase", "SubjectCase", "read_edits", "read_subjects"]

MAX_TEXT = 256_000_000
"""The longest list read, in bytes: the 450 000 prompts of InstructPix2Pix are a tenth of it."""
LIVE = ("cat", "dog")
"""Classes of DreamBench that are animals, which have prompts of their own."""


@dataclass(frozen=True, slots=True)
class SubjectCase:
    """A subject to learn, and what to draw of it."""

    name: str
    folder: Path
    """With its pictures and nothing else."""
    noun: str
    prompts: tuple[str, ...]
    """Each with `{}` for the subject."""

    @property
    def pictures(self) -> list[Path]:
        return sorted(p for p in self.folder.iterdir() if p.suffix.lower() in SUFFIXES)


@dataclass(frozen=True, slots=True)
class EditCase:
    """A picture, what to do to it, and what should come of it."""

    name: str
    image: Path
    instruction: str
    before: str
    """Caption of the picture; empty where the set has none."""
    after: str
    """Caption of the result."""
    target: Path | None = None
    """What a person made of it, where the set has that."""
    mask: Path | None = None
    follows: str = ""
    """The edit whose result this one goes on from, in a session of several."""
    is_last: bool = True
    """Whether it ends its session."""


def read_subjects(name: str, path: Path) -> list[SubjectCase]:
    """The subjects of the set `name` in the folder `path`. Raises InputError with what is missing."""
    cases = SUBJECTS[name](_folder(path))
    for case in cases:
        if not case.folder.is_dir() or not case.pictures:
            raise InputError(f"There are no pictures of {case.name} in {case.folder}.", "Get the set again.")
        if not case.prompts:
            raise InputError(f"There are no prompts for {case.name} in {path}.", "Get the set again.")
    return cases


def read_edits(name: str, path: Path) -> list[EditCase]:
    """The edits of the set `name` in the folder `path`. Raises InputError with what is missing."""
    cases = EDITS[name](_folder(path))
    for case in cases:
        for file in filter(None, (case.image, case.target)):
            if not file.is_file():
                raise InputError(f"There is no {file.relative_to(path)} in {path}.", "Get the set again.")
    return cases


def _dreambench(path: Path) -> list[SubjectCase]:
    """30 subjects of 15 classes, 25 prompts for objects and 25 for animals."""
    path = path / "dataset" if (path / "dataset").is_dir() else path
    text = _text(path / "prompts_and_classes.txt")
    classes = re.findall(r"^(\w+),([\w ]+)$", text, re.MULTILINE)[1:]  # under their heading
    objects, _, animals = text.partition("Live Subject")
    prompts = [re.findall(r"^'(.*)'\.format\(", part, re.MULTILINE) for part in (objects, animals)]
    if not classes or not all(prompts):
        raise InputError(f"{path / 'prompts_and_classes.txt'} has another layout.", "Get the set again.")
    ready = [tuple(prompt.replace("{0} {1}", "{}") for prompt in part) for part in prompts]
    return [SubjectCase(name, _inside(path, name), noun, ready[noun in LIVE]) for name, noun in classes]


def _customconcept101(path: Path) -> list[SubjectCase]:
    """101 concepts of one subject each, 20 prompts a kind of concept."""
    rows = _json(path / "dataset.json", list)
    cases: list[SubjectCase] = []
    for row in rows:
        folder, file, noun = (
            _field(row, key, path / "dataset.json")
            for key in ("instance_data_dir", "prompt_filename", "class_prompt")
        )
        name = PurePosixPath(folder).name
        prompts = _text(_inside(path / "prompts", PurePosixPath(file).name)).splitlines()
        ready = tuple(prompt.strip() for prompt in prompts if "{}" in prompt)
        cases.append(SubjectCase(name, _inside(path / "benchmark_dataset", name), noun, ready))
    return cases


def _instructpix2pix(path: Path) -> list[EditCase]:
    """The last twentieth of the prompts, which training leaves out, in the order of the released evaluation:
    shuffled by seed 0. Of each prompt the first pair.
    """
    rows = _json(path / "seeds.json", list)
    kept = rows[floor(0.95 * len(rows)) :]
    order = torch.randperm(len(kept), generator=rng.generator(0)).tolist()
    cases: list[EditCase] = []
    for row in (kept[i] for i in order):
        if not isinstance(row, list) or len(row) != 2 or not isinstance(row[1], list) or not row[1]:
            raise InputError(f"{path / 'seeds.json'} has a row without seeds.", "Get the set again.")
        folder, seed = _inside(path, str(row[0])), str(row[1][0])
        about = _json(folder / "prompt.json", dict)
        edit, before, after = (
            _field(about, key, folder / "prompt.json") for key in ("edit", "input", "output")
        )
        cases.append(EditCase(folder.name, _inside(folder, f"{seed}_0.jpg"), edit, before, after))
    return cases


def _magicbrush(path: Path) -> list[EditCase]:
    """Sessions of one to three edits with masks and what people made of them."""
    sessions = _json(path / "edit_sessions.json", dict)
    captions = _captions(path)
    cases: list[EditCase] = []
    for session, turns in sessions.items():
        folder, before = _inside(path / "images", str(session)), ""
        for number, turn in enumerate(turns, 1):
            image, mask, target, instruction = (
                _field(turn, key, path / "edit_sessions.json")
                for key in ("input", "mask", "output", "instruction")
            )
            told = captions.get(str(session), {})
            cases.append(
                EditCase(
                    name=f"{folder.name}-{number}",
                    image=_inside(folder, image),
                    instruction=instruction,
                    before=str(told.get(image, "")),
                    after=str(told.get(target, "")),
                    target=_inside(folder, target),
                    mask=_inside(folder, mask),
                    follows=before,
                    is_last=number == len(turns),
                )
            )
            before = cases[-1].name
    return cases


def _captions(path: Path) -> Mapping[str, Mapping[str, str]]:
    """Session -> picture -> caption. The local captions, if they are there: they tell of what was edited."""
    for name in ("local_captions.json", "global_descriptions.json"):
        if (path / name).is_file():
            return _json(path / name, dict)
    raise InputError(f"There is no local_captions.json in {path}.", "It comes with the test split.")


SUBJECTS = {"dreambench": _dreambench, "customconcept101": _customconcept101}
"""Sets of subjects to learn."""
EDITS = {"instructpix2pix": _instructpix2pix, "magicbrush": _magicbrush}
"""Sets of edits."""


# Details


def _folder(path: Path) -> Path:
    if not path.is_dir():
        raise InputError(f"There is no folder {path}.", "Give the folder of your copy of the set.")
    return path


def _text(path: Path) -> str:
    try:
        return read_bytes(path, max_bytes=MAX_TEXT).decode()
    except UnicodeDecodeError as problem:
        raise InputError(f"{path} is not text.", "Get the set again.") from problem


def _json(path: Path, kind: type) -> Any:
    try:
        content = json.loads(_text(path))
    except (ValueError, RecursionError) as problem:
        raise InputError(f"{path} is not valid JSON.", "Get the set again.") from problem
    if not isinstance(content, kind) or not content:
        raise InputError(f"{path} has another layout.", "Get the set again.")
    return content


def _field(row: Any, key: str, path: Path) -> str:
    if not isinstance(row, dict) or not isinstance(row.get(key), str):
        raise InputError(f"{path} has a row without {key!r}.", "Get the set again.")
    return row[key]


def _inside(folder: Path, name: str) -> Path:
    """`folder / name`. Raises InputError for a name that leads elsewhere."""
    if not name or PurePosixPath(name).name != name or "\\" in name or name in (".", ".."):
        raise InputError(f"{name[:80]!r} is no name of a file in {folder}.", "Do not use this copy.")
    return folder / name
