"""Tensors out of files that somebody else made: `.safetensors` always, pickles only on request.

The kind of a file is decided by its first bytes and never by its name.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from scumble.core.errors import ModelError
from scumble.core.files import explained, read_bytes
from scumble.core.safetensor_files import safetensors_header

__all__ = ["file_kind", "read_json", "read_keys", "read_tensors"]

_MAX_JSON = 64_000_000
_PICKLE_STARTS = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


def file_kind(path: Path) -> Literal["safetensors", "pickle"]:
    """What a file of tensors is, by its content. Raises ModelError if it is neither."""
    with explained(path, "read", ModelError), path.open("rb") as file:
        start = file.read(9)
    if not start:
        raise ModelError(f"{path} is empty (0 bytes).", "Download or make the file again.")
    if start.startswith(_PICKLE_STARTS):
        return "pickle"
    if start[8:9] == b"{":
        return "safetensors"
    raise ModelError(
        f"{path} is not a model: it is neither a .safetensors file nor a PyTorch checkpoint.",
        "Give a .safetensors checkpoint, a diffusers folder or a hub id.",
    )


def read_keys(path: Path, *, trust_pickle: bool = False) -> dict[str, tuple[int, ...]]:
    """The name and shape of every tensor in the file; for `.safetensors` only its header is read."""
    if file_kind(path) == "safetensors":
        header = safetensors_header(path, error=ModelError)
        return {name: tuple(entry["shape"]) for name, entry in header.items() if name != "__metadata__"}
    return {name: tuple(tensor.shape) for name, tensor in _unpickled(path, trust_pickle).items()}


def read_tensors(
    path: Path, names: Iterable[str] | None = None, *, trust_pickle: bool = False
) -> dict[str, Tensor]:
    """The named tensors (or all) on the CPU, in the dtype of the file and mapped from it rather than copied.

    Raises ModelError for a damaged file, a missing name, and a pickle that was not asked to be trusted.
    """
    if file_kind(path) == "pickle":
        state = _unpickled(path, trust_pickle)
        return dict(state) if names is None else {name: state[name] for name in names}
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return {name: file.get_tensor(name) for name in (file.keys() if names is None else names)}
    except SafetensorError as problem:
        raise ModelError(
            f"{path} is not a sound .safetensors file: {problem}.", "Download or make the file again."
        ) from problem


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises ModelError if there is none."""
    try:
        content = json.loads(read_bytes(path, max_bytes=_MAX_JSON, error=ModelError))
    except (ValueError, RecursionError) as problem:
        raise ModelError(f"{path} is not valid JSON: {problem}.") from problem
    if not isinstance(content, dict):
        raise ModelError(f"{path} holds no JSON object.")
    return content


def _unpickled(path: Path, trusted: bool) -> Mapping[str, Tensor]:
    """The state dict in a pickle. Even when trusted, only torch's restricted unpickler ever reads it."""
    if not trusted:
        raise ModelError(
            f"{path} is a pickle, and a pickle can run any program when it is opened.",
            "Use a .safetensors file, or pass --trust-pickle if you know who made this one.",
        )
    try:
        with path.open("rb") as file:
            zipped = file.read(4) == _PICKLE_STARTS[0]  # else as PyTorch wrote before 1.6, which no map fits
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as problem:
        first = str(problem).strip().splitlines()[0]
        raise ModelError(f"{path} cannot be read even as a trusted pickle: {first}.") from problem
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state, dict):
        raise ModelError(f"{path} holds no dictionary of tensors.")
    return {name: value for name, value in state.items() if isinstance(value, Tensor)}
