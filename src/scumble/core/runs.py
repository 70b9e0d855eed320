"""The folder of a run: what was set, what happened at each step, previews, and checkpoints to go on from.

    RUN/config.toml         the settings
    RUN/steps.jsonl         one JSON object a step, in order of writing
    RUN/previews/           pictures, `000100.png` for step 100
    RUN/checkpoints/        `000100.safetensors` for step 100, the newest few

Everything but `steps.jsonl` is written whole or not at all; of that, a last line that a crash cut short is
not read.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from torch import Tensor

from scumble.core.errors import InputError
from scumble.core.files import atomic_write, explained
from scumble.core.images import save_image
from scumble.core.safetensor_files import safetensors_header, save_safetensors

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["RunFolder"]


class RunFolder:
    """A run's folder at `path`, made if it is not there. Opening an old one is how a run goes on."""

    def __init__(self, path: Path | str, *, keep: int = 2) -> None:
        """`keep` is how many checkpoints are kept. Raises InputError if `path` cannot be a folder."""
        if keep < 1:
            raise InputError(f"{keep} checkpoints cannot be kept.", "Keep at least one.")
        self.path = Path(path)
        self.keep = keep
        for folder in (self._previews, self._checkpoints):
            with explained(folder, "written"):
                folder.mkdir(parents=True, exist_ok=True)

    # Settings

    @property
    def config(self) -> Path:
        """Where the settings are, for `Config.from_toml`."""
        return self.path / "config.toml"

    def write_config(self, toml: str) -> None:
        """Write the settings, as `Config.to_toml` gives them."""
        atomic_write(self.config, toml.encode())

    # Steps

    def append_step(self, **values: float | str | bool | None) -> None:
        """Add one line to `steps.jsonl`, and hand it to the system at once. Raises DiskFullError."""
        line = json.dumps(values, ensure_ascii=False).encode() + b"\n"
        with explained(self._steps, "written"), self._steps.open("ab+") as file:
            if file.tell() and not self._ends_a_line():
                line = b"\n" + line  # what a crash cut short stays a line of its own
            file.write(line)
            file.flush()

    def steps(self) -> list[dict[str, Any]]:
        """All steps written so far. Lines that are not whole, as a crash leaves them, are passed over."""
        if not self._steps.exists():
            return []
        with explained(self._steps, "read"):
            lines = self._steps.read_bytes().splitlines()
        return [step for line in lines if (step := _parsed(line)) is not None]

    # Previews

    def write_preview(self, step: int, image: Image.Image) -> Path:
        """Save a picture of the work after `step` steps."""
        path = self._previews / f"{step:06d}.png"
        save_image(image, path)
        return path

    # Checkpoints

    def write_checkpoint(self, step: int, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Path:
        """Save the state after `step` steps and remove all but the newest `keep`, in this order.

        Raises DiskFullError, with the older checkpoints still there.
        """
        path = self._checkpoints / f"{step:06d}.safetensors"
        save_safetensors(path, tensors, metadata)
        for old in self._all_checkpoints()[self.keep :]:
            old.unlink()
        return path

    def latest_checkpoint(self) -> tuple[Path | None, list[str]]:
        """The newest checkpoint that is sound, or None; and a sentence for each newer one that is damaged."""
        complaints: list[str] = []
        for path in self._all_checkpoints():
            try:
                safetensors_header(path)
            except InputError as problem:
                complaints.append(problem.message)
            else:
                return path, complaints
        return None, complaints

    # Details

    @property
    def _steps(self) -> Path:
        return self.path / "steps.jsonl"

    @property
    def _previews(self) -> Path:
        return self.path / "previews"

    @property
    def _checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def _all_checkpoints(self) -> list[Path]:
        """Newest first; partial files, whose names begin with a dot, and strangers are left out."""
        found = [path for path in self._checkpoints.glob("*.safetensors") if path.stem.isdecimal()]
        return sorted(found, key=lambda path: int(path.stem), reverse=True)

    def _ends_a_line(self) -> bool:
        with self._steps.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read() == b"\n"


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        step = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return cast("dict[str, Any]", step) if isinstance(step, dict) else None
