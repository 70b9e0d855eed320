"""Learnt weights: new words and changes to a model's parameters, as a value and as one `.safetensors` file.

The file's metadata has an entry `scumble`, a JSON object with what `_Header` lists. Its tensors are
`word.I.E`, the vectors (n, D) of the header's word number I for text encoder number E, and
`change.PARAMETER.KIND` with KIND one of `delta` (dense), `a`, `b` and `magnitude` (low rank). What was learnt
on an upscaler along with it has a header of its own in the first, `upscaler`, and the same names after
`upscaler.`. A file is a stranger's: everything in it is checked against everything else and every text is
bounded, and nothing in it is ever executed.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from scumble.adapters.changes import Change, Dense, LowRank
from scumble.adapters.tokens import check_word
from scumble.core.errors import WeightsError
from scumble.core.safetensor_files import safetensors_header, save_safetensors

__all__ = ["FORMAT", "MAX_TEXT", "Outline", "Weights", "Word", "outline"]

FORMAT = 1
"""Version of the format. A file of another is refused by number."""

MAX_TEXT = 100
"""Characters of a word, a class noun, the name of a method or a setting."""
MAX_HEADER = 16_000_000
MAX_JSON = 4_000_000
UPSCALER = "upscaler."


@dataclass(frozen=True, slots=True, eq=False)
class Word:
    """A learnt word: `vectors`, one (n, D_i) for each text encoder i, n the same for all; its class noun."""

    vectors: tuple[Tensor, ...]
    noun: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class Weights:
    """What learning gives.

    `method` and `config` say how it was learnt, `family` and `base_hash` on what (`Model.family`,
    `Model.hash`). `words` are by the word as it stands in a prompt, `changes` by the name of the parameter as
    `scumble.adapters.changes.parameters_of` gives it. `config` and `training` hold what JSON can. `upscaler`
    is what the super-resolution stage learnt on a model of its own. Raises WeightsError for words and changes
    that do not fit together.
    """

    method: str
    family: str
    base_hash: str
    words: Mapping[str, Word] = field(default_factory=dict[str, Word])
    changes: Mapping[str, Change] = field(default_factory=dict[str, Change])
    config: Mapping[str, Any] = field(default_factory=dict[str, Any])
    training: Mapping[str, Any] = field(default_factory=dict[str, Any])
    upscaler: Weights | None = None

    def __post_init__(self) -> None:
        if self.upscaler is not None and self.upscaler.upscaler is not None:
            raise WeightsError("What was learnt on an upscaler has no upscaler of its own.")
        for text, word in self.words.items():
            check_word(text)
            _check_vectors(text, word.vectors)
        for name, change in self.changes.items():
            if isinstance(change, LowRank):
                shape = torch.Size((len(change.b), *change.a.shape[1:]))
                if not len(change.a) or not change.fits(shape):
                    raise WeightsError(f"The tensors of the low-rank change of {name!r} do not fit together.")

    def save(self, path: Path | str) -> None:
        """Write the file, whole or not at all. Raises DiskFullError, and WeightsError for what no file may
        hold: NaN, infinity, numbers without fractions, texts that are too long.
        """
        tensors = self._tensors()
        for name, tensor in tensors.items():
            if problem := _unsound(name, tensor):
                raise WeightsError(f"{path} was not written: {problem}.")
        try:
            header = self._header()
        except ValidationError as problem:
            raise WeightsError(f"{path} was not written: {_first(problem)}.") from None
        save_safetensors(path, tensors, {"format": "pt", "scumble": header.model_dump_json()})

    def _tensors(self) -> dict[str, Tensor]:
        """By the names that they have in a file."""
        tensors = {
            f"word.{i}.{e}": vectors
            for i, word in enumerate(self.words.values())
            for e, vectors in enumerate(word.vectors)
        }
        for name, change in self.changes.items():
            tensors |= {f"change.{name}.{kind}": tensor for kind, tensor in change.tensors().items()}
        if self.upscaler is not None:
            tensors |= {UPSCALER + name: tensor for name, tensor in self.upscaler._tensors().items()}
        return tensors

    def _header(self) -> _Header:
        return _Header(
            method=self.method,
            family=self.family,
            base_hash=self.base_hash,
            words=tuple(
                _WordEntry(
                    word=text, vectors=len(word.vectors[0]), encoders=len(word.vectors), noun=word.noun
                )
                for text, word in self.words.items()
            ),
            changes={name: _entry(change) for name, change in self.changes.items()},
            config=dict(self.config),
            training=dict(self.training),
            upscaler=None if self.upscaler is None else self.upscaler._header(),
        )

    @classmethod
    def load(cls, path: Path | str) -> Weights:
        """Read a file, tensors on the CPU. Raises WeightsError, naming what is wrong, for anything but a
        whole one.
        """
        path = Path(path)
        shapes = safetensors_header(path, MAX_HEADER, error=WeightsError)
        header = _read_header(path, shapes.pop("__metadata__"))
        _check_names(path, header.tensor_names(), shapes.keys())
        try:
            with safe_open(path, framework="pt", device="cpu") as file:
                tensors = {name: file.get_tensor(name) for name in shapes}
        except SafetensorError as problem:
            raise WeightsError(f"{path} cannot be read: {problem}.") from problem
        for name, tensor in tensors.items():
            if problem := _unsound(name, tensor):
                raise WeightsError(f"In {path} {problem}.")
        return cls._read(path, header, tensors)

    @classmethod
    def _read(cls, path: Path, header: _Header, tensors: Mapping[str, Tensor]) -> Weights:
        """What `header` describes, from tensors without a prefix."""
        words: dict[str, Word] = {}
        for i, entry in enumerate(header.words):
            vectors = tuple(tensors[f"word.{i}.{e}"] for e in range(entry.encoders))
            if any(v.ndim != 2 or len(v) != entry.vectors for v in vectors) or entry.word in words:
                raise WeightsError(
                    f"In {path} the word {entry.word!r} does not have the vectors it should have."
                )
            words[entry.word] = Word(vectors, entry.noun)
        return cls(
            method=header.method,
            family=header.family,
            base_hash=header.base_hash,
            words=words,
            changes={name: _change(tensors, name, entry) for name, entry in header.changes.items()},
            config=header.config,
            training=header.training,
            upscaler=None
            if header.upscaler is None
            else cls._read(path, header.upscaler, _after(UPSCALER, tensors)),
        )


@dataclass(frozen=True, slots=True)
class Outline:
    """What a file of weights says that it holds."""

    words: tuple[str, ...]
    changes: bool
    """Whether it changes the networks, and does not only teach words."""
    upscaler: Outline | None = None


def outline(path: Path | str) -> Outline:
    """What a file holds, without reading its tensors. Raises WeightsError as `Weights.load` does."""
    path = Path(path)
    metadata = safetensors_header(path, MAX_HEADER, error=WeightsError)["__metadata__"]
    return _read_header(path, metadata).outline()


def _unsound(name: str, tensor: Tensor) -> str:
    """What is wrong with a tensor; empty where nothing is."""
    if tensor.is_floating_point() and bool(tensor.isfinite().all()):
        return ""
    return f"the tensor {name!r} holds NaN, infinity or no fractions at all"


def _first(problem: ValidationError) -> str:
    """Where a header is wrong first, and how."""
    first = problem.errors(include_url=False)[0]
    where = ".".join(map(str, first["loc"]))[:80] or "its JSON"
    return f"{where}: {first['msg'][:120]}"


def _after(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those whose names begin with `prefix`, by what follows it."""
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


Text = Annotated[str, Field(max_length=MAX_TEXT)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _WordEntry(_Part):
    word: Text
    vectors: Annotated[int, Field(ge=1, le=75)]
    encoders: Annotated[int, Field(ge=1, le=2)]
    noun: Text = ""


class _ChangeEntry(_Part):
    kind: Literal["dense", "low-rank"]
    alpha: Annotated[float, Field(allow_inf_nan=False)] | None = None
    magnitude: bool = False

    def kinds(self) -> tuple[str, ...]:
        """Which tensors the file has for it."""
        if self.kind == "dense":
            return ("delta",)
        return ("a", "b", "magnitude") if self.magnitude else ("a", "b")


class _Header(_Part):
    """The JSON in the file."""

    format: Literal[1] = FORMAT
    method: Text
    family: Text
    base_hash: Annotated[str, Field(pattern=r"^([0-9a-f]{8,64})?$")]
    words: Annotated[tuple[_WordEntry, ...], Field(max_length=1000)] = ()
    changes: Annotated[
        dict[Annotated[str, Field(max_length=300)], _ChangeEntry], Field(max_length=20_000)
    ] = {}
    config: dict[Text, Any] = {}
    training: dict[Text, Any] = {}
    upscaler: _Header | None = None

    def outline(self) -> Outline:
        """What a person would ask first."""
        beside = self.upscaler.outline() if self.upscaler else None
        return Outline(tuple(entry.word for entry in self.words), bool(self.changes), beside)

    def tensor_names(self) -> set[str]:
        """The names of all tensors that the file must have, and may have."""
        words = {f"word.{i}.{e}" for i, entry in enumerate(self.words) for e in range(entry.encoders)}
        names = words | {f"change.{n}.{kind}" for n, entry in self.changes.items() for kind in entry.kinds()}
        beside = self.upscaler.tensor_names() if self.upscaler else set[str]()
        return names | {UPSCALER + name for name in beside}


def _entry(change: Change) -> _ChangeEntry:
    if isinstance(change, Dense):
        return _ChangeEntry(kind="dense")
    return _ChangeEntry(kind="low-rank", alpha=change.alpha, magnitude=change.magnitude is not None)


def _change(tensors: Mapping[str, Tensor], name: str, entry: _ChangeEntry) -> Change:
    found = {kind: tensors[f"change.{name}.{kind}"] for kind in entry.kinds()}
    if entry.kind == "dense":
        return Dense(found["delta"])
    alpha = float(len(found["a"])) if entry.alpha is None else entry.alpha
    return LowRank(found["a"], found["b"], alpha, found.get("magnitude"))


def _read_header(path: Path, metadata: Mapping[str, str]) -> _Header:
    text = metadata.get("scumble")
    if text is None:
        raise WeightsError(
            f"{path} was not written by scumble.", "`scumble convert` reads what others write."
        )
    if len(text) > MAX_JSON:
        raise WeightsError(f"{path} has a description of {len(text):,} characters, over {MAX_JSON:,}.")
    try:
        return _Header.model_validate_json(text)
    except ValidationError as problem:
        first = problem.errors(include_url=False)[0]
        if first["loc"] == ("format",):
            raise WeightsError(
                f"{path} is of format {str(first['input'])[:20]!r}, and this version reads format {FORMAT}.",
                "Use the version of scumble that it was made with, or a newer one.",
            ) from None
        raise WeightsError(f"{path} is not sound: {_first(problem)}.") from None


def _check_names(path: Path, expected: set[str], found: AbstractSet[str]) -> None:
    for names, problem in ((expected - found, "lacks"), (found - expected, "should not have")):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise WeightsError(f"{path} {problem} the tensor {min(names)[:120]!r}{more}.", "Get it again.")


def _check_vectors(text: str, vectors: tuple[Tensor, ...]) -> None:
    if (
        not vectors
        or any(v.ndim != 2 or not v.numel() for v in vectors)
        or len({len(v) for v in vectors}) != 1
    ):
        shapes = ", ".join(str(tuple(v.shape)) for v in vectors) or "none"
        raise WeightsError(f"The word {text!r} needs as many vectors for each text encoder; it has {shapes}.")
