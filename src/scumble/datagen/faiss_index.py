"""Vectors in an index of FAISS (Johnson et al. 2017), which finds near ones among millions without looking at
all of them. Needs the extra `retrieval`.

Letters: M vectors, Q queries, E their width.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scumble.core.errors import InputError, MissingExtraError

__all__ = ["Index", "build", "check_there", "cosines", "from_bytes", "to_bytes"]

LISTS = 10_000
"""Vectors from which they are sorted into lists, of which the nearest few are looked into: inexact then."""
SHARE = 8
"""One list in so many is looked into."""


class Index(Protocol):
    """What is used of an index of FAISS."""

    d: int
    """Width of the vectors."""
    ntotal: int
    """Number of the vectors."""

    def search(self, x: NDArray[np.float32], k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Products (Q, k) with the `k` nearest of each query and their rows, -1 where there are fewer."""
        ...


def check_there() -> None:
    """Raise MissingExtraError without FAISS, before long work that needs it."""
    _faiss()


def build(vectors: Tensor) -> Index:
    """An index of `vectors` (M, E), of length one. Raises MissingExtraError."""
    faiss, width = _faiss(), vectors.shape[1]
    index = faiss.IndexFlatIP(width)
    if len(vectors) >= LISTS:
        lists = int(len(vectors) ** 0.5)
        index = faiss.IndexIVFFlat(index, width, lists, faiss.METRIC_INNER_PRODUCT)
        index.nprobe = max(1, lists // SHARE)
        index.train(vectors.numpy())
    index.add(vectors.numpy())
    return index


def cosines(index: Index, wanted: Tensor, count: int) -> Tensor:
    """The cosine (M,) of each vector with the nearest of `wanted` (Q, E); minus one for those that are not
    among the `count` nearest of any, or were passed by.
    """
    found, rows = map(torch.from_numpy, index.search(wanted.numpy(), min(count, index.ntotal)))
    there = rows >= 0
    best = torch.full((index.ntotal,), -1.0)
    return best.scatter_reduce(0, rows[there], found[there], "amax")


def to_bytes(index: Index) -> Tensor:
    """The index as bytes, (B,) uint8."""
    return torch.from_numpy(_faiss().serialize_index(index))


def from_bytes(content: Tensor) -> Index:
    """What `to_bytes` made bytes of. Raises InputError for other bytes, and MissingExtraError."""
    faiss = _faiss()
    try:
        return faiss.deserialize_index(content.numpy())
    except (AssertionError, MemoryError, RuntimeError, TypeError):
        raise InputError("These bytes are no index of FAISS.", "Make the index anew.") from None


def _faiss() -> Any:
    try:
        return import_module("faiss")
    except ImportError:
        raise MissingExtraError("This needs FAISS.", "pip install 'scumble[retrieval]'") from None
