"""What to do when memory runs out: recognise it, and say so plainly."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import torch

from scumble.core.errors import OutOfMemoryError

__all__ = ["is_out_of_memory", "memory_for", "too_little"]

_SAID = (
    "can't allocate memory",  # the CPU's allocator
    "not enough memory",  # the same on Windows
    "MPS backend out of memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
)
"""What an error of torch says that has no type of its own."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that memory ran out, on an accelerator or on the CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _SAID)


def too_little(what: str) -> OutOfMemoryError:
    """The error that says that there is too little memory for `what`."""
    return OutOfMemoryError(
        f"There is not enough memory for {what}.",
        "Try smaller pictures, --dtype bfloat16, --low-memory or --device cpu.",
    )


@contextmanager
def memory_for(what: str) -> Generator[None]:
    """Inside, running out of memory is an OutOfMemoryError about `what`."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise too_little(what) from error
