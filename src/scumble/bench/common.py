"""What the tables share: a folder that holds one run and takes it up again, the judge on many pictures, and
how figures are written.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import torch
from PIL import Image
from torch import Tensor

from scumble.core.errors import InputError
from scumble.core.events import Loop, Progress
from scumble.core.files import atomic_write
from scumble.core.images import read_image, save_image, to_model, to_uint8, to_unit
from scumble.models.judge import Judge, Verdict

__all__ = [
    "BATCH",
    "as_saved",
    "claim",
    "judged",
    "kept",
    "machine",
    "once",
    "one_of",
    "percent",
    "rounded",
    "write_json",
    "written",
]

Found = TypeVar("Found")

BATCH = 20
"""Pictures drawn at a time."""


def one_of(what: str, name: str, names: Iterable[str]) -> None:
    """Raises InputError where `name` is not among `names`."""
    if name not in names:
        raise InputError(f"There is no {what} {name!r}.", f"Choose one of {', '.join(names)}.")


def claim(out: Path, facts: dict[str, Any]) -> None:
    """Note in the folder `out` what is measured there, or see that it is the same as before.

    Raises InputError where it is not.
    """
    path = out / "settings.json"
    if not path.exists():
        write_json(path, facts)
    elif json.loads(path.read_text()) != json.loads(json.dumps(facts)):
        raise InputError(f"{out} holds a run with other settings or weights.", "Give another folder.")


def kept(
    folder: Path, total: int, draw: Callable[[Sequence[int]], Sequence[Image.Image]], stage: str
) -> Loop[Tensor]:
    """Pictures number 0 to `total` - 1, one PNG each in `folder`: (total, 3, H, W) in [0, 1].

    Batches that are there already are read again instead of drawn.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{i:04d}.png" for i in range(total)]
    for first in range(0, total, BATCH):
        batch = range(first, min(first + BATCH, total))
        if not all(files[i].exists() for i in batch):
            for i, image in zip(batch, draw(batch), strict=True):
                save_image(image, files[i])
        yield Progress(stage=stage, step=batch.stop, total=total)
    return to_unit([read_image(file).image for file in files])


@torch.inference_mode()
def judged(judge: Judge, pixels: Tensor) -> Verdict:
    """The verdict on any number of pictures (N, 3, H, W) in [0, 1]."""
    parts = [judge(to_model(part)) for part in pixels.split(64)]
    return Verdict(
        torch.cat([p.kinds for p in parts]),
        {name: torch.cat([p.things[name] for p in parts]) for name in parts[0].things},
        {name: torch.cat([p.pictures[name] for p in parts]) for name in parts[0].pictures},
        torch.cat([p.known for p in parts]),
        torch.cat([p.identity for p in parts]),
    )


def as_saved(pixels: Tensor) -> Tensor:
    """Pictures in [0, 1] as they are after saving: of 8 bits."""
    return to_uint8(pixels).float() / 255.0


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    libraries = {name: version(name) for name in ("torch", "diffusers", "transformers")}
    return {"processor": platform.machine(), "threads": torch.get_num_threads(), **libraries}


def written(
    out: Path,
    scores: dict[str, Any],
    table: Callable[[dict[str, Any]], str],
    *,
    begun: float | None = None,
) -> dict[str, Any]:
    """The scores of a run, with the machine added and rounded, as they are put into `scores.json` and, as
    `table` shows them, into `table.md` of the folder `out`.

    `begun` is when the run began by `time.perf_counter`; none leaves out how long it took.
    """
    took = {} if begun is None else {"seconds": round(time.perf_counter() - begun)}
    scores = rounded(scores | {"machine": machine() | took})
    write_json(out / "scores.json", scores)
    atomic_write(out / "table.md", (table(scores) + "\n").encode())
    return scores


def once(place: Path, work: Loop[Found]) -> Loop[Found]:
    """What `work` returns, plain enough for JSON and kept in the file `place`; read from there, and `work`
    not begun, where it is there already.
    """
    if not place.is_file():
        write_json(place, (yield from work))
    return json.loads(place.read_bytes())


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def rounded(scores: Any) -> Any:
    """The same with every float to four digits after the point."""
    if isinstance(scores, dict):
        return {name: rounded(value) for name, value in scores.items()}
    if isinstance(scores, list):
        return [rounded(value) for value in scores]
    return round(scores, 4) if isinstance(scores, float) else scores


def write_json(path: Path, content: Any) -> None:
    """Write indented JSON, whole or not at all."""
    atomic_write(path, (json.dumps(content, indent=2) + "\n").encode())
