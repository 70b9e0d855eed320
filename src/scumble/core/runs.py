"""The folder of a run: what was set, what happened at each step, previews, and checkpoints to go on from.

    RUN/config.toml         the settings
    RUN/inputs.json         what it learns from
    RUN/steps.jsonl         one JSON object a step, in order of writing
    RUN/previews/           pictures, `000100.png` for step 100
    RUN/checkpoints/        `000100.safetensors` for step 100, the newest few
    RUN/lock                held by the process that works here

Everything but `steps.jsonl` is written whole or not at all; of that, a last line that a crash cut short is
not read. A checkpoint has a checksum of all that is in it, which is looked at before it is gone on from.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from zlib import crc32

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from torch import Tensor

from scumble.core.errors import InputError
from scumble.core.files import atomic_write, explained
from scumble.core.images import save_image
from scumble.core.safetensor_files import safetensors_header, save_safetensors

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["RunFolder"]

NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
"""How a file system says that it has no locks."""
CHECKSUM = "checksum"
"""The entry of a checkpoint's metadata that all the rest of it is checked by."""


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

    @contextmanager
    def alone(self) -> Generator[None]:
        """Inside, no other process works here. Raises InputError where one does. The system releases what a
        killed process held; a file system without locks is taken on trust.
        """
        lock = FileLock(self.path / "lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise InputError(
                f"Another process works in {self.path}.", "Wait for it, or give another output."
            ) from None
        except OSError as problem:
            if problem.errno not in NO_LOCKS:
                with explained(self.path, "written"):
                    raise
        try:
            yield
        finally:
            lock.release()

    # Settings

    @property
    def config(self) -> Path:
        """Where the settings are, for `Config.from_toml`."""
        return self.path / "config.toml"

    def write_config(self, toml: str) -> None:
        """Write the settings, as `Config.to_toml` gives them."""
        atomic_write(self.config, toml.encode())

    # Inputs

    def begun_with(self) -> dict[str, Any] | None:
        """What the run that has a checkpoint here began with; None where there is no such run. Raises
        InputError where that cannot be read.
        """
        if not self._inputs.is_file() or self.latest_checkpoint()[0] is None:
            return None
        with explained(self._inputs, "read"):
            about = _parsed(self._inputs.read_bytes())
        if about is None:
            raise InputError(f"{self._inputs} is damaged.", f"Remove {self.path}, and the run begins anew.")
        return about

    def write_inputs(self, about: Mapping[str, Any]) -> None:
        """Write down what the run learns from."""
        atomic_write(self._inputs, json.dumps(about, ensure_ascii=False).encode())

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
        sums = ((name, _checksum(tensor)) for name, tensor in tensors.items())
        save_safetensors(path, tensors, {**metadata, CHECKSUM: _of_all(sums, metadata)})
        for old in self._all_checkpoints()[self.keep :]:
            old.unlink()
        return path

    def latest_checkpoint(self, needs: Iterable[str] = ()) -> tuple[Path | None, list[str]]:
        """The newest checkpoint that is whole, read to its last byte, or None; and a sentence for each newer
        one that is damaged, or whose metadata lacks one of the entries `needs`.
        """
        complaints: list[str] = []
        for path in self._all_checkpoints():
            try:
                _check_whole(path, needs)
            except InputError as problem:
                complaints.append(problem.message)
            else:
                return path, complaints
        return None, complaints

    def clear(self) -> None:
        """Remove all that a run writes here, to begin anew; what else is in the folder stays."""
        with explained(self.path, "written"):
            for path in self._all_checkpoints():
                path.unlink()
            shutil.rmtree(self._previews, ignore_errors=True)
            self._previews.mkdir(parents=True, exist_ok=True)
            for file in (self._steps, self._inputs, self.config):
                file.unlink(missing_ok=True)

    # Details

    @property
    def _inputs(self) -> Path:
        return self.path / "inputs.json"

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


def _checksum(tensor: Tensor) -> int:
    """Of a tensor's kind, shape and bytes: one wrong byte gives another sum, and gigabytes take seconds."""
    flat = tensor.detach().to("cpu").contiguous().reshape(-1)
    about = crc32(f"{tensor.dtype} {list(tensor.shape)}".encode())
    return crc32(flat.view(torch.uint8).numpy().data, about)


def _of_all(sums: Iterable[tuple[str, int]], metadata: Mapping[str, str]) -> str:
    """One for tensors, by their names, and metadata."""
    text = json.dumps([sorted(sums), sorted(metadata.items())])
    return f"{crc32(text.encode()):08x}"


def _check_whole(path: Path, needs: Iterable[str]) -> None:
    """Raises InputError for a checkpoint that is not what was written."""
    header = safetensors_header(path)
    metadata: dict[str, str] = header.pop("__metadata__")
    told = metadata.pop(CHECKSUM, None)
    if missing := [name for name in needs if name not in metadata] or ([] if told else [CHECKSUM]):
        raise InputError(f"{path} is no checkpoint that can be gone on from: it has no {missing[0]}.")
    try:
        with cast("Any", safe_open(path, "pt")) as file:
            found = _of_all(((name, _checksum(file.get_tensor(name))) for name in header), metadata)
    except SafetensorError as problem:
        raise InputError(f"{path} cannot be read: {problem}.") from problem
    if found != told:
        raise InputError(f"{path} is damaged: its checksum is not that of what is in it.")
