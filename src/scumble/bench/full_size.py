"""A full-size model with random weights: made, loaded, drawn with, saved as one file, loaded again.

Random weights cost exactly what trained ones do, so this shows that the path holds and what it needs, without
a download. Each phase runs in a process of its own, so that its peak memory is its own. Models that draw also
paint over a picture (SDEdit); `ip2p`, which edits by instruction, edits it.
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
from typing import TYPE_CHECKING, Any, cast

from scumble.core.errors import ScumbleError
from scumble.core.events import Loop, Progress

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["KINDS", "Phase", "full_size", "table"]

KINDS = ("sd1", "sd2", "sdxl", "ip2p")
EDITORS = ("ip2p",)
"""Those that edit and do not draw."""
SEED = 7
STEPS = 2
SIDES = (300, 451)
"""Height and width of the picture that is edited unless a photograph is given: on no model's grid."""


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


def full_size(
    kind: str, folder: Path, *, dtype: str = "float32", guidance: float = 7.5, photo: Path | None = None
) -> Loop[list[Phase]]:
    """Run every phase for `kind` inside `folder` (which needs three times the model's size of free disk).

    The phases that draw, or edit, from the diffusers folder and from the single file give the same picture;
    both results are its SHA-256, and they are equal. `photo` is edited instead of a render.
    """
    model, file = folder / "model", folder / "model.safetensors"
    photo = _readable(photo) if photo else _picture(folder / "picture.png")
    work: list[tuple[str, Callable[..., str], tuple[Any, ...]]] = [
        ("make and save a folder", _make, (kind, "full", model, dtype)),
        ("save as one file", _convert, (model, file, dtype)),
    ]
    if kind in EDITORS:
        instructed = (dtype, photo)
        work += [
            ("load the folder, edit by instruction, 2 steps", _instruct, (model, *instructed)),
            ("load the file, edit by instruction, 2 steps", _instruct, (file, *instructed)),
        ]
    else:
        work += [
            ("load the folder, draw 2 steps", _draw, (model, dtype, guidance)),
            ("load the file, draw 2 steps", _draw, (file, dtype, guidance)),
            ("load the folder, paint over a picture, 2 steps", _paint, (model, dtype, guidance, photo)),
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


def _make(kind: str, size: str, folder: Path, dtype: str) -> str:
    from scumble.models.configs import Published, random_model
    from scumble.models.load import DTYPES
    from scumble.models.save import save_folder

    save_folder(random_model(cast(Published, kind), cast(Any, size), dtype=DTYPES[dtype]), folder)
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


def _paint(model: Path, dtype: str, guidance: float, photo: Path) -> str:
    from scumble.core.images import read_image
    from scumble.data.strokes import stroke_painting
    from scumble.verbs.edit_sdedit import edit_sdedit

    settings = {"model": str(model), "dtype": dtype, "guidance": guidance, "steps": STEPS, "seed": SEED}
    guide = stroke_painting(read_image(photo).image)
    [picture] = edit_sdedit(guide, prompt="a photo of a cat", device="cpu", **settings)
    return _same_size(picture.image, photo)


def _instruct(model: Path, dtype: str, photo: Path) -> str:
    from scumble.verbs.edit_instruct import edit_instruct

    settings = {"model": str(model), "dtype": dtype, "steps": STEPS, "seed": SEED}
    [picture] = edit_instruct(photo, "make it night", device="cpu", **settings)
    return _same_size(picture.image, photo)


def _same_size(image: Image.Image, photo: Path) -> str:
    """The picture's SHA-256. Raises ScumbleError where it has not the photograph's size."""
    from hashlib import sha256

    from scumble.core.images import read_image

    wanted = read_image(photo).image.size
    if image.size != wanted:
        raise ScumbleError(f"The edit of a picture of {wanted} has {image.size} pixels.")
    return sha256(image.tobytes()).hexdigest()


def _readable(photo: Path) -> Path:
    """The same. Raises ImageError where it is no picture, before the work instead of after it."""
    from scumble.core.images import read_image

    read_image(photo)
    return photo


def _picture(path: Path) -> Path:
    """A render of `SIDES` in `path`; returns it."""
    from scumble.core.images import from_unit, save_image
    from scumble.world.render import render
    from scumble.world.sampling import PROFILES, sample_scene

    side = max(SIDES)
    [image] = from_unit(render([sample_scene(SEED, profile=PROFILES["photo"])], size=side).pixels)
    height, width = SIDES
    save_image(image.crop((0, side - height, width, side)), path)
    return path
