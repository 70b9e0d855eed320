"""What is in a file of weights that another program wrote, and what such a file is to hold.

The kind of a file is decided by its first bytes. A pickle is read, by torch's restricted unpickler, and
written only where it was asked for. Nested dictionaries and lists are flattened, their keys joined by dots.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from scumble.adapters.changes import Change, Dense, LowRank
from scumble.adapters.weights import Weights, Word
from scumble.core.errors import ModelError, WeightsError
from scumble.core.files import atomic_write, safe_name
from scumble.core.safetensor_files import safetensors_header, save_safetensors
from scumble.models.tensors import file_kind

__all__ = [
    "PICKLES",
    "Content",
    "LowRankParts",
    "Parts",
    "file_names",
    "flattened",
    "metadata_json",
    "no_place",
    "read_content",
    "write_content",
]

PICKLES = (".bin", ".pt", ".ckpt", ".pth")
"""Suffixes that ask for a pickle when a file is written."""
MAX_DEPTH = 6


@dataclass(frozen=True, slots=True)
class Content:
    """A file's tensors by name, its metadata, and the texts that stood among the tensors of a pickle."""

    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])
    texts: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class Parts:
    """What was read: words, and changes by the name of the parameter."""

    words: Mapping[str, Word] = field(default_factory=dict[str, Word])
    changes: Mapping[str, Change] = field(default_factory=dict[str, Change])


@dataclass(slots=True)
class LowRankParts:
    """The tensors of one low-rank change as they turn up in a file."""

    tensors: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    """`down`, `up`, and perhaps `alpha` and `magnitude`."""

    def change(self, name: str, shape: torch.Size, alpha: float | None = None) -> LowRank:
        """The change of the parameter `name` of `shape`. Raises WeightsError if one half is missing."""
        if not {"down", "up"} <= self.tensors.keys():
            raise WeightsError(f"The file has only one half of the low-rank change of {name!r}.")
        down, up = self.tensors["down"].float(), self.tensors["up"].float()
        if "alpha" in self.tensors and self.tensors["alpha"].numel() == 1:
            alpha = float(self.tensors["alpha"])
        magnitude = self.tensors.get("magnitude")
        rank = len(down)
        if min(down.ndim, up.ndim) < 2 or not rank or down[0].numel() != shape[1:].numel():
            raise WeightsError(
                f"The low-rank change of {name!r} does not fit its shape {tuple(shape)} in this model.",
                "It was learnt on another model.",
            )
        return LowRank(
            down.reshape(rank, *shape[1:]),
            up.flatten(1),
            float(rank) if alpha is None else alpha,
            None if magnitude is None else magnitude.float().flatten(),
        )


def read_content(path: Path, *, trust_pickle: bool = False) -> Content:
    """Everything in a file. Raises WeightsError for a damaged one and for a pickle that is not trusted."""
    try:
        kind = file_kind(path)
    except ModelError as problem:
        raise WeightsError(problem.message, "Give learnt weights.") from None
    if kind == "pickle":
        tensors, texts = _unpickled(path, trust_pickle)
        return Content(_finite(tensors, path), {}, texts)
    metadata = safetensors_header(path, error=WeightsError)["__metadata__"]
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            names = file.keys()
            tensors = {name: file.get_tensor(name) for name in names}
    except SafetensorError as problem:
        raise WeightsError(f"{path} cannot be read: {problem}.") from problem
    return Content(_finite(tensors, path), metadata)


def write_content(
    path: Path,
    content: Mapping[str, Any],
    *,
    metadata: Mapping[str, str] | None = None,
    pickled: bool = False,
) -> None:
    """Write nested tensors to `path`, whole or not at all: flattened to `.safetensors`, or as a pickle."""
    if not pickled:
        tensors = {name: value for name, value in flattened(content) if isinstance(value, Tensor)}
        save_safetensors(path, tensors, {"format": "pt", **(metadata or {})})
        return
    packed = BytesIO()
    torch.save(_plain(content), packed)
    atomic_write(path, packed.getvalue())


def flattened(content: Any, before: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """The leaves of nested dictionaries and lists with their joined keys."""
    if depth > MAX_DEPTH:
        raise WeightsError("The file is nested too deeply.")
    if isinstance(content, Mapping | nn.ParameterDict):
        pairs: Any = content.items()
    elif isinstance(content, list | tuple):
        pairs = enumerate(content)
    else:
        yield before, content
        return
    for key, value in pairs:
        yield from flattened(value, f"{before}.{key}" if before else str(key), depth + 1)


def file_names(words: Iterable[str]) -> dict[str, str]:
    """A stem for the file of each word, safe and each its own."""
    stems: dict[str, str] = {}
    for word in words:
        stem = safe_name(word)
        while stem in stems.values():
            stem += "-"
        stems[word] = stem
    return stems


def no_place(kind: str, weights: Weights, dense: Mapping[str, Change]) -> WeightsError:
    """The error that a file of `kind` cannot hold `dense`, some of the changes of `weights`. It names the one
    that no cut makes low-rank, if there is such, and a remedy that helps.
    """
    never = [name for name, change in dense.items() if not _can_be_cut(change)]
    share: Any = weights.config.get("compressed")
    if never:
        remedy = "No --compress makes it low-rank: use --to diffusers-model."
    elif isinstance(share, int | float):
        remedy = f"Take a smaller share with --compress than {share:g}, or use --to diffusers-model."
    else:
        remedy = "Cut it to low rank with --compress, such as 0.5, or use --to diffusers-model."
    name = next(iter(never or dense))
    return WeightsError(f"A file of {kind} has no place for a dense change of {name[:120]!r}.", remedy)


def _can_be_cut(change: Change) -> bool:
    """Whether one component takes less than the whole: of a matrix only, and of a tiny one not either."""
    return (
        isinstance(change, Dense)
        and change.delta.ndim == 2
        and sum(change.delta.shape) < change.delta.numel()
    )


def _finite(tensors: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise WeightsError(f"In {path} the tensor {name[:120]!r} holds NaN or infinity.")
    return tensors


def _plain(content: Any) -> Any:
    """Tensors that own their numbers, on the CPU, and nothing else that a pickle could carry along."""
    if isinstance(content, Tensor):
        return content.detach().cpu().contiguous().clone()
    if isinstance(content, Mapping):
        return {str(key): _plain(value) for key, value in content.items()}
    if isinstance(content, list):
        return [_plain(value) for value in content]
    return content


def _unpickled(path: Path, trusted: bool) -> tuple[dict[str, Tensor], dict[str, str]]:
    if not trusted:
        raise WeightsError(
            f"{path} is a pickle, and a pickle can run any program when it is opened.",
            "Use a .safetensors file, or pass --trust-pickle if you know who made this one.",
        )
    try:
        with torch.serialization.safe_globals([nn.ParameterDict, set]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, AttributeError, KeyError) as problem:
        first = (str(problem).strip().splitlines() or ["it is damaged"])[0]
        raise WeightsError(f"{path} cannot be read even as a trusted pickle: {first}.") from problem
    leaves = list(flattened(content))
    tensors = {name: value.detach() for name, value in leaves if isinstance(value, Tensor)}
    texts = {name: value for name, value in leaves if isinstance(value, str)}
    return tensors, texts


def metadata_json(content: Content, key: str) -> dict[str, Any]:
    """The JSON object under a key of the metadata; empty if there is none."""
    try:
        value = json.loads(content.metadata.get(key, "{}"))
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
