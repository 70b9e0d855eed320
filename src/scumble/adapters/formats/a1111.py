"""Words as the AUTOMATIC1111 web UI keeps them, one file a word, the file's name being the word.

Safetensors: one tensor `emb_params` (n, D), or `clip_l` (n, 768) and `clip_g` (n, 1280) for SDXL; the
spelling `emp_params` is in circulation. Pickles (`.pt`): `string_to_param` with the tensor under `*`, and a
name. Only words have a place here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scumble.adapters.formats.content import Content, Parts, file_names
from scumble.adapters.weights import Weights, Word
from scumble.core.errors import WeightsError
from scumble.models.model import Model

__all__ = ["NAME", "claims", "read", "write", "written_words"]

NAME = "a1111"
SINGLE = ("emb_params", "emp_params")
BOTH = ("clip_l", "clip_g")


def claims(content: Content) -> bool:
    """Whether a file is of this format."""
    names = set(content.tensors)
    return bool(names & {*SINGLE, *BOTH}) or any(name.startswith("string_to_param.") for name in names)


def read(content: Content, _model: Model, word: str, path: Path) -> Parts:
    """The word of a file; `word` is what it shall be called, empty for its own name or the file's."""
    tensors = content.tensors
    if set(BOTH) <= tensors.keys():
        vectors = tuple(tensors[name].float() for name in BOTH)
    else:
        found = [name for name in tensors if name in SINGLE or name.startswith("string_to_param.")]
        if len(found) != 1:
            raise WeightsError(f"{path.name} should hold one word, and holds {len(found)}.")
        vectors = (tensors[found[0]].float(),)
    return Parts({word or content.texts.get("name", "") or path.stem: Word(vectors)})


def write(weights: Weights, _model: Model) -> dict[str, Mapping[str, Any]]:
    """The files, by name, of all words. Raises WeightsError for weights with changes."""
    if weights.changes:
        raise WeightsError(
            "An embedding of this format holds words only, and these weights change the model too.",
            "Use --to kohya for low-rank changes, which gives both.",
        )
    if not weights.words:
        raise WeightsError("These weights have no words.", "Use another format.")
    return written_words(weights)


def written_words(weights: Weights) -> dict[str, Mapping[str, Any]]:
    """A file for each word."""
    stems = file_names(weights.words)
    return {f"{stems[text]}.safetensors": _written(word) for text, word in weights.words.items()}


def _written(word: Word) -> dict[str, Any]:
    """The tensors of one word."""
    if len(word.vectors) == len(BOTH):
        return dict(zip(BOTH, word.vectors, strict=True))
    return {SINGLE[0]: word.vectors[0]}
