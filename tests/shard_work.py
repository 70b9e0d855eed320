"""Work for shards that takes no time and no models, and that goes wrong in its several ways.

Worker processes import it, so it imports little.
"""

from __future__ import annotations

import errno
import os
import signal
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from scumble.core.events import Loop, Progress
from scumble.datagen.shards import ROWS, Counts, Shard, Work

__all__ = ["Broken", "Died", "Full", "Written"]


@dataclass(frozen=True)
class Written:
    """Writes its items."""

    def __call__(self, _worker: int) -> Work:
        return self.work

    def work(self, shard: Shard, folder: Path) -> Loop[Counts]:
        (folder / ROWS).write_text("".join(f'{{"item": {item}}}\n' for item in shard.items))
        yield Progress(stage="drawing", step=len(shard.items), total=len(shard.items))
        return Counter(done=len(shard.items))


@dataclass(frozen=True)
class Broken(Written):
    """Has a mistake in it."""

    def work(self, shard: Shard, folder: Path) -> Loop[Counts]:
        yield Progress(stage="drawing", step=1 // 0, total=1)
        return Counter()


@dataclass(frozen=True)
class Full(Written):
    """Runs out of disk."""

    def work(self, shard: Shard, folder: Path) -> Loop[Counts]:
        (folder / ROWS).write_text("half")
        yield Progress(stage="drawing", step=0, total=1)
        raise OSError(errno.ENOSPC, "No space left on device")


@dataclass(frozen=True)
class Died(Written):
    """Is killed."""

    def work(self, shard: Shard, folder: Path) -> Loop[Counts]:
        yield Progress(stage="drawing", step=0, total=1)
        os.kill(os.getpid(), signal.SIGKILL)
        return Counter()
