"""Several learnt weights made into one file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scumble.adapters import merge as merging
from scumble.adapters.weights import Weights
from scumble.core.errors import ConfigError, InputError
from scumble.core.files import read_bytes, sha256
from scumble.data.templates import common_captions
from scumble.models.model import Model
from scumble.verbs.lineage import remember_merged
from scumble.verbs.load import RANDOM_MODEL, ModelConfig, scaled_weights
from scumble.verbs.outputs import check_free

__all__ = ["HOW", "Merged", "merge", "merge_to"]

HOW = ("auto", "closed-form", "sum")
MAX_CAPTIONS = 10_000_000
"""The longest file of captions read, in bytes."""


@dataclass(frozen=True, slots=True)
class Merged:
    """What was written."""

    path: Path
    sha256: str
    bytes: int
    how: str
    words: list[str]
    note: str = ""


def merge_to(
    files: Sequence[str],
    on: ModelConfig,
    out: Path,
    *,
    how: str = "auto",
    captions: Path | None = None,
    ridge: float = merging.RIDGE,
    overwrite: bool = False,
) -> Merged:
    """Merge weights, each a file or FILE:SCALE, and write them to `out`; see `merge`."""
    if out.suffix != ".safetensors":
        raise InputError(f"{out} does not end in .safetensors.", "Give a name like both.safetensors.")
    check_free([out], overwrite=overwrite)
    model = on.load()
    merged, given = _merged(model, files, how, captions, ridge)
    merged.save(out)
    note = RANDOM_MODEL if model.is_random else ""
    done = str(merged.config.get("how", "closed-form"))
    remember_merged(out, given, {"how": done, "ridge": ridge}, on, model)
    return Merged(out, sha256(out), out.stat().st_size, done, list(merged.words), note)


def merge(
    *files: str | Path,
    model: str = "toybox",
    how: str = "auto",
    captions: Path | None = None,
    ridge: float = merging.RIDGE,
) -> Weights:
    """Weights of several subjects as one. `how` is `closed-form` (Custom Diffusion's, section 3.3), `sum`, or
    `auto`: the closed form where there is one. `captions` is a text file of sentences, one a line, that shall
    keep their meaning; without it two hundred ordinary ones are taken.

    >>> both = scumble.merge("rex.safetensors", "tom.safetensors")
    >>> both.save("both.safetensors")
    """
    return _merged(ModelConfig(model=model).load(), files, how, captions, ridge)[0]


def _merged(
    model: Model, files: Sequence[str | Path], how: str, captions: Path | None, ridge: float
) -> tuple[Weights, list[tuple[Path, float]]]:
    """The weights, and the files that they are of with their scales."""
    if how not in HOW:
        raise ConfigError(f"There is no way to merge {how!r}.", f"Choose one of {', '.join(HOW)}.")
    if len(files) < 2:
        raise InputError("There is nothing to merge.", "Give two files or more.")
    read = [scaled_weights(str(file)) for file in files]
    given = [(weights, scale) for _, weights, scale in read]
    places = [(path, scale) for path, _, scale in read]
    if how == "sum" or (how == "auto" and not merging.can_merge([weights for weights, _ in given])):
        return merging.compose(model, given), places
    return merging.merge(model, given, _captions(captions), ridge=ridge), places


def _captions(file: Path | None) -> list[str]:
    if file is None:
        return common_captions()
    lines = read_bytes(file, max_bytes=MAX_CAPTIONS).decode(errors="replace").splitlines()
    found = [line.strip() for line in lines if line.strip()]
    if not found:
        raise InputError(f"{file} holds no captions.", "Write one a line.")
    return found
