"""What to do when memory runs out: work in smaller batches, and say so plainly at the end."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from scumble.core.events import Loop
from scumble.core.memory import is_out_of_memory, too_little

__all__ = ["in_batches", "is_out_of_memory"]

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_batches(
    items: Sequence[Item], work: Callable[[Sequence[Item], int], Loop[list[Result]]], batch_size: int
) -> Loop[list[Result]]:
    """Run `work(batch, done)` over `items`, halving the batch whenever memory runs out.

    `done` is the number of items finished before. Since each image has its own seed, smaller batches give the
    same pictures to rounding. Raises OutOfMemoryError when a single item does not fit.
    """
    results: list[Result] = []
    while len(results) < len(items):
        batch = items[len(results) : len(results) + batch_size]
        try:
            results += yield from work(batch, len(results))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            failed = True
        else:
            failed = False
        if failed:
            # Outside the handler, so that the traceback no longer holds the tensors that have to go.
            if batch_size == 1:
                raise too_little("even one picture")
            batch_size = max(1, min(batch_size, len(batch)) // 2)
            _release()
    return results


def _release() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
