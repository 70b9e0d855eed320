"""A full-size model with random weights: made, loaded, drawn with, saved as one file, loaded again.

Random weights cost exactly what trained ones do, so this shows that the path holds and what it needs, without
a download. Each phase runs in a process of its own, so that its peak memory is its own.
"""

from __future__ import annotations

import multiprocessing
import platform
import resource
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

from scumble.core.events import Loop, Progress

__all__ = ["KINDS", "Phase", "full_size", "table"]

KINDS = ("sd1", "sd2", "sdxl")
SEED = 7
STEPS = 2


@dataclass(frozen=True, slots=True)
class Phase:
    """What one phase took."""

    name: str
    seconds: float
    cpu_seconds: float
    """Of all threads together: hardly changed by what else the machine does."""
    peak_bytes: int
    """Most memory that the process held, its libraries included."""
    result: str = ""


def full_size(kind: str, folder: Path, *, dtype: str = "float32", guidance: float = 7.5) -> Loop[list[Phase]]:
    """Run every phase for `kind` inside `folder` (which needs three times the model's size of free disk).

    The last two phases draw the same picture from the diffusers folder and from the single file; both results
    are its SHA-256, and they are equal.
    """
    work: list[tuple[str, Callable[..., str], tuple[Any, ...]]] = [
        ("make and save a folder", _make, (kind, folder / "model", dtype)),
        ("save as one file", _convert, (folder / "model", folder / "model.safetensors", dtype)),
        ("load the folder, draw 2 steps", _draw, (folder / "model", dtype, guidance)),
        ("load the file, draw 2 steps", _draw, (folder / "model.safetensors", dtype, guidance)),
    ]
    phases: list[Phase] = []
    for name, task, arguments in work:
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=spawn) as pool:
            phases.append(pool.submit(_measured, name, task, arguments).result())
        yield Progress(stage=kind, step=len(phases), total=len(work))
    return phases


def table(phases: list[Phase]) -> str:
    """The phases as a Markdown table, with the machine and the versions under it."""
    rows = [
        f"| {p.name} | {p.seconds:.0f} | {p.cpu_seconds:.0f} | {p.peak_bytes / 2**30:.1f} | {p.result[:12]} |"
        for p in phases
    ]
    libraries = ", ".join(f"{name} {version(name)}" for name in ("torch", "diffusers", "transformers"))
    return "\n".join(
        [
            "| phase | seconds | CPU seconds | peak memory, GiB | picture |",
            "|---|---|---|---|---|",
            *rows,
            "",
            f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, {libraries}.",
        ]
    )


def _measured(name: str, task: Callable[..., str], arguments: tuple[Any, ...]) -> Phase:
    start = time.perf_counter()
    result = task(*arguments)
    seconds = time.perf_counter() - start
    unit = 1 if sys.platform == "darwin" else 1024
    used = resource.getrusage(resource.RUSAGE_SELF)
    return Phase(name, seconds, used.ru_utime + used.ru_stime, used.ru_maxrss * unit, result)


def _make(kind: str, folder: Path, dtype: str) -> str:
    from scumble.models.configs import Published, random_model
    from scumble.models.load import DTYPES
    from scumble.models.save import save_folder

    save_folder(random_model(cast(Published, kind), "full", dtype=DTYPES[dtype]), folder)
    return ""


def _convert(folder: Path, file: Path, dtype: str) -> str:
    from scumble.models.load import DType, load
    from scumble.models.save import save_single_file

    save_single_file(load(folder, dtype=cast(DType, dtype)), file)
    return ""


def _draw(model: Path, dtype: str, guidance: float) -> str:
    from hashlib import sha256

    from scumble.verbs.generate import generate

    settings = {"model": str(model), "dtype": dtype, "guidance": guidance, "steps": STEPS, "seed": SEED}
    [picture] = generate("a photo of a cat", device="cpu", **settings)
    return sha256(picture.image.tobytes()).hexdigest()
