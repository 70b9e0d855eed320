"""Things that are slow to make, such as a loaded model, kept for the next who asks, where somebody said so.

    with keeping(2) as shelf:
        model = kept(("model", "toybox"), load)     # loads
        model = kept(("model", "toybox"), load)     # the same one

Outside `keeping` everything is made anew. What is kept belongs to the thread that said so.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Generator, Hashable
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

__all__ = ["Shelf", "keeping", "kept"]

Thing = TypeVar("Thing")


class Shelf:
    """At most `most` things; the one that nobody has asked for longest makes room."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._things: OrderedDict[Hashable, Any] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], Thing]) -> Thing:
        """What is kept under `key`, made if there is nothing. Room is made before: two never stand where one
        is allowed."""
        if key in self._things:
            self._things.move_to_end(key)
            return self._things[key]
        while len(self._things) >= self._most:
            self._things.popitem(last=False)
        self._things[key] = made = make()
        return made

    def clear(self) -> None:
        """Let go of everything."""
        self._things.clear()


_shelf: ContextVar[Shelf | None] = ContextVar("shelf", default=None)


@contextmanager
def keeping(most: int) -> Generator[Shelf]:
    """Inside, in this thread, `kept` keeps up to `most` things."""
    shelf = Shelf(most)
    before = _shelf.set(shelf)
    try:
        yield shelf
    finally:
        _shelf.reset(before)


def kept(key: Hashable, make: Callable[[], Thing]) -> Thing:
    """`make()`, or what it gave the last time `key` was asked for inside the same `keeping`."""
    shelf = _shelf.get()
    return make() if shelf is None else shelf.get(key, make)
