"""What the command line shows: a bar while a loop runs, one line when something is wrong.

Progress goes to standard error, results to standard output, so that output can be piped.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from pathlib import Path

    from PIL.Image import Image

    from scumble.core.events import Loop
    from scumble.core.events import Progress as Event
    from scumble.sampling.estimate import Estimate
    from scumble.verbs.outputs import Saved

__all__ = ["duration", "follow", "give", "give_needs", "give_saved", "say", "size"]

Result = TypeVar("Result")


def follow(loop: Loop[Result], *, preview: Path | None = None) -> Result:
    """Run `loop` to its end with a progress bar, one row a stage, and return its result.

    The latest preview is written to the picture file `preview`, if that is given. Interrupted, it says what
    the loop had to say about that.
    """
    try:
        return _shown(loop, preview)
    except KeyboardInterrupt as stop:
        for note in getattr(stop, "__notes__", ()):
            say(note)
        raise


def _shown(loop: Loop[Result], preview: Path | None) -> Result:
    bars: _Bars | None = None
    try:
        while True:
            try:
                event = next(loop)
            except StopIteration as stop:
                return stop.value
            if event.note:
                say(event.note)
            if bars is None:  # only now: a loop that fails at once shows no bar
                bars = _Bars()
            bars.show(event)
            if preview is not None and event.preview is not None:
                _save(event.preview, preview)
    finally:
        if bars is not None:
            bars.close()


def _save(picture: Image, place: Path) -> None:
    from scumble.core.images import save_image

    save_image(picture, place)


class _Bars:
    """Progress bars on standard error, one a stage, with the time left."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        note, left = TextColumn("{task.fields[note]}"), TimeRemainingColumn(elapsed_when_finished=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), note, left)
        self._bars = Progress(*columns, console=Console(stderr=True))
        self._tasks: dict[str, Any] = {}
        self._bars.start()

    def show(self, event: Event) -> None:
        if event.stage not in self._tasks:
            self._tasks[event.stage] = self._bars.add_task(event.stage, note="")
        note = "" if event.loss is None else f"loss {event.loss:.4f}"
        self._bars.update(self._tasks[event.stage], completed=event.step, total=event.total, note=note)

    def close(self) -> None:
        self._bars.stop()


def say(text: str) -> None:
    """A line for a person, on standard error. Names in it may be a stranger's: none steers the terminal."""
    print("".join(c if c.isprintable() or c == "\n" else " " for c in text), file=sys.stderr)


def give(result: Mapping[str, Any], *, as_json: bool, text: str) -> None:
    """The result of a command, on standard output: JSON, or `text` for people."""
    print(json.dumps(result, ensure_ascii=False) if as_json else text)


def give_saved(done: Saved, *, as_json: bool, what: str = "pictures") -> None:
    """The files that a command wrote, a line each, and the note on them."""
    if done.note:
        say(done.note)
    give({what: done.files}, as_json=as_json, text="\n".join(str(row["path"]) for row in done.files))


def give_needs(needs: Estimate, *, as_json: bool) -> None:
    """What `--dry-run` tells: the time, the memory, the settings."""
    settings = ", ".join(f"{name} = {json.dumps(value)}" for name, value in needs.settings.items())
    text = f"about {duration(needs.seconds)} and {size(needs.memory_bytes)} of memory\n{settings}"
    give(needs.model_dump(mode="json"), as_json=as_json, text=text)


def duration(seconds: float) -> str:
    """Seconds as people say them: 0.8 s, 42 s, 3 min, 2 h."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def size(count: int) -> str:
    """Bytes as people say them, in binary units."""
    units = ("bytes", "KiB", "MiB", "GiB")
    step = min(len(units) - 1, max(0, (count.bit_length() - 1) // 10))
    return f"{count / 1024**step:.{0 if step < 2 else 1}f} {units[step]}"
