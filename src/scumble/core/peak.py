"""The most memory that something took while it ran."""

from __future__ import annotations

import gc
import re
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

__all__ = ["Peak", "peak_memory"]

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(slots=True)
class Peak:
    """What was measured; filled in when the block ends."""

    bytes: int | None = None
    """None where the system keeps no peak that can be set back."""
    of: str = ""
    """What it is the peak of, in words."""


@contextmanager
def peak_memory(device: str = "cpu") -> Generator[Peak]:
    """Measure the most memory alive inside the block: of the accelerator where `device` is one, else of the
    whole process, its libraries included.

    Linux alone can set a process's peak back, by writing to `/proc/self/clear_refs`; elsewhere the peak since
    the start is given where it rose inside, which is the same number then, and nothing where it did not.
    """
    gc.collect()
    peak, gpu = Peak(), device.startswith("cuda")
    before = None
    if gpu:
        torch.cuda.reset_peak_memory_stats(device)
    elif not _set_back():
        before = _most_ever()
    yield peak
    if gpu:
        peak.bytes, peak.of = torch.cuda.max_memory_allocated(device), "the accelerator"
        return
    peak.of = "the process, its libraries included"
    now = _since_set_back() if before is None else _most_ever()
    peak.bytes = now if before is None or now > before else None


def _set_back() -> bool:
    try:
        _CLEAR.write_text("5")  # 5 sets the peak of resident memory back: proc(5)
    except OSError:
        return False
    return _STATUS.is_file()


def _since_set_back() -> int:
    found = re.search(r"VmHWM:\s+(\d+) kB", _STATUS.read_text())
    return int(found[1]) * 1024 if found else 0


def _most_ever() -> int:
    if sys.platform == "win32":
        return 0
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
