"""Long work as a generator: it yields small `Progress` records and returns its result.

The command line draws a bar from the records, the studio streams them, a test takes three and stops:

    loop = text_to_image(...)            # Loop[Tensor]
    pictures = finish(loop)              # or: pictures = yield from loop, inside another loop
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["Loop", "Progress", "finish"]

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What a loop says after each step."""

    stage: str
    """What is being done, in a word or two for people: "drawing", "learning"."""
    step: int
    """Steps of this stage that are finished, 1 ... total."""
    total: int
    """Steps that this stage has."""
    loss: float | None = None
    """The last loss that was read back, for loops that have one."""
    preview: Image.Image | None = None
    """A small picture of the work so far, where one was asked for."""
    note: str = ""
    """What a person should know before it goes on, in sentences."""


Loop = Generator[Progress, None, Result]
"""A generator of `Progress` records that returns a result."""


def finish(loop: Loop[Result]) -> Result:
    """Run a loop to its end and return its result."""
    while True:
        try:
            next(loop)
        except StopIteration as stop:
            return stop.value
