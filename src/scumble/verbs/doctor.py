"""Is this installation sound? Each check says what it found and, where something is wrong, the remedy."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement

from scumble.core.errors import ScumbleError
from scumble.core.events import Loop, Progress
from scumble.core.files import sha256

__all__ = ["EXTRAS", "Check", "doctor", "is_broken"]

State = Literal["good", "note", "broken"]
EXTRAS = {
    "video": ("av", "cv2"),
    "studio": ("fastapi", "uvicorn"),
    "retrieval": ("faiss",),
    "scale": ("ray", "pyarrow", "webdataset", "datasets"),
}
"""Extras and the modules that come with them."""
DISK, MEMORY = 2 * 2**30, 2 * 2**30
"""Bytes free under which work is cramped: learning keeps checkpoints."""


@dataclass(frozen=True, slots=True)
class Check:
    """What one check found."""

    name: str
    state: State
    """good; note, where something is missing that not everybody needs; broken."""
    found: str
    remedy: str = ""


def doctor() -> Loop[list[Check]]:
    """Run every check; none of them raises."""
    found: list[Check] = []
    for done, (name, check) in enumerate(_CHECKS.items(), 1):
        try:
            found += check()
        except Exception as problem:  # whatever it is, it is a finding
            said = f"{type(problem).__name__}: {problem}" if str(problem) else type(problem).__name__
            remedy = problem.remedy if isinstance(problem, ScumbleError) else ""
            found.append(Check(name, "broken", said.splitlines()[0], remedy or "Install scumble again."))
        yield Progress(stage="checking", step=done, total=len(_CHECKS))
    return found


def is_broken(checks: list[Check]) -> bool:
    """Whether anything is."""
    return any(check.state == "broken" for check in checks)


def _python() -> Iterator[Check]:
    said = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    good = sys.version_info >= (3, 11)
    yield Check("python", "good" if good else "broken", said, "" if good else "Install Python 3.11 or later.")


def _packages() -> Iterator[Check]:
    """What the package requires, its extras left out."""
    wrong: list[str] = []
    shown: list[str] = []
    for text in requires("scumble") or []:
        wanted = Requirement(text)
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        try:
            there = version(wanted.name)
        except PackageNotFoundError:
            wrong.append(f"{wanted.name} is missing")
            continue
        shown.append(f"{wanted.name} {there}")
        if not wanted.specifier.contains(there, prereleases=True):
            wrong.append(f"{wanted.name} {there} is not {wanted.specifier}")
    if wrong:
        remedy = "Install again: pip install --upgrade scumble."
        yield Check("packages", "broken", "; ".join(wrong), remedy)
    else:
        yield Check("packages", "good", f"scumble {version('scumble')}, {', '.join(shown)}")


def _extras() -> Iterator[Check]:
    for extra, modules in EXTRAS.items():
        missing = [name for name in modules if find_spec(name) is None]
        remedy = f"If you want it: pip install 'scumble[{extra}]'." if missing else ""
        said = f"without {', '.join(missing)}" if missing else "there"
        yield Check(f"extra {extra}", "note" if missing else "good", said, remedy)


def _device() -> Iterator[Check]:
    import torch

    if torch.cuda.is_available():
        free, whole = torch.cuda.mem_get_info()
        said = f"{torch.cuda.get_device_name()}, {_size(free)} of {_size(whole)} free"
        yield Check("device", "good", said)
    elif torch.backends.mps.is_available():
        yield Check("device", "good", "Apple GPU (mps)")
    else:
        remedy = "With a GPU: install the torch build for it, see pytorch.org."
        yield Check("device", "note", "the CPU; full-size models take minutes a picture", remedy)


def _threads() -> Iterator[Check]:
    import torch

    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    used = torch.get_num_threads()
    said = f"{used} used, {allowed} processors"
    if used > allowed:
        yield Check(
            "threads", "note", said, f"More threads than processors slow it: OMP_NUM_THREADS={allowed}."
        )
    else:
        yield Check("threads", "good", said)


def _memory() -> Iterator[Check]:
    free = _free_memory()
    if free is None:
        yield Check("memory", "note", "this system does not say how much is free")
    elif free < MEMORY:
        yield Check("memory", "note", f"{_size(free)} free", "Close other programs, or use --low-memory.")
    else:
        yield Check("memory", "good", f"{_size(free)} free")


def _free_memory() -> int | None:
    place = Path("/proc/meminfo")
    if place.is_file():
        for line in place.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def _places() -> Iterator[Check]:
    """Folders that are written to: that they can be, and how much room there is."""
    from huggingface_hub.constants import HF_HUB_CACHE

    from scumble.core.places import cache_folder, data_folder

    places = {
        "cache": (cache_folder(), "SCUMBLE_CACHE"),
        "data": (data_folder(), "SCUMBLE_DATA"),
        "model cache": (Path(HF_HUB_CACHE), "HF_HOME"),
        "temporary files": (Path(tempfile.gettempdir()), "TMPDIR"),
    }
    for name, (place, variable) in places.items():
        there = next(folder for folder in (place, *place.parents) if folder.exists())
        if not os.access(there, os.W_OK) or not there.is_dir():
            yield Check(name, "broken", f"{place} cannot be written to", f"Set {variable} to another folder.")
            continue
        free = shutil.disk_usage(there).free
        said, models = f"{place}, {_size(free)} free", _models(place) if name == "model cache" else ""
        remedy = f"Free some, or set {variable} to a folder on another disk." if free < DISK else ""
        yield Check(name, "note" if free < DISK else "good", said + models, remedy)


def _models(place: Path) -> str:
    count = len(list(place.glob("models--*"))) if place.is_dir() else 0
    return f", {count} models" if count else ", no models yet"


def _toybox() -> Iterator[Check]:
    """Every file of the weights in the package against the hash that was published with it."""
    import json

    from scumble.models.toybox import MANIFEST, packed

    about = json.loads((packed() / MANIFEST).read_bytes())
    wrong = [
        name
        for name, digest in about["files"].items()
        if not (packed() / name).is_file() or sha256(packed() / name) != digest
    ]
    if wrong:
        remedy = "Install again: pip install --force-reinstall --no-deps scumble."
        yield Check("toybox weights", "broken", f"damaged or missing: {', '.join(wrong)}", remedy)
    else:
        yield Check(
            "toybox weights", "good", f"version {about['version']}, {len(about['files'])} files intact"
        )


def _history() -> Iterator[Check]:
    from scumble.history.store import is_off, recalled

    if is_off():
        yield Check("history", "good", "off, as SCUMBLE_HISTORY says")
        return
    with recalled() as store:
        said = "none yet" if store is None else f"{store.count} pictures, {_size(store.size)}"
    yield Check("history", "good", said)


def _drawing() -> Iterator[Check]:
    """A picture in two steps: the whole way from the words to the pixels."""
    from scumble.verbs.generate import generate

    [picture] = generate("a red cat on the beach", seed=1, steps=2)
    (low, high) = picture.image.convert("L").getextrema()
    assert isinstance(low, int)
    assert isinstance(high, int)
    if high - low < 16:  # what NaN, overflow and broken kernels draw
        remedy = "Try --device cpu; if that helps, the torch build does not fit the GPU."
        yield Check("drawing", "broken", "a picture of two steps came out blank", remedy)
    else:
        size = f"{picture.image.width} x {picture.image.height}"
        yield Check("drawing", "good", f"a picture of two steps, {size} pixels")


def _size(count: float) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"


_CHECKS: dict[str, Callable[[], Iterator[Check]]] = {
    "python": _python,
    "packages": _packages,
    "extras": _extras,
    "device": _device,
    "threads": _threads,
    "memory": _memory,
    "places": _places,
    "toybox weights": _toybox,
    "history": _history,
    "drawing": _drawing,
}
