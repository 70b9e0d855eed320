"""The same video again: what `edit text2live` writes besides pictures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from scumble.core.errors import InputError
from scumble.core.events import Loop
from scumble.data.video import VIDEO_SUFFIXES, read_video
from scumble.history.store import Made
from scumble.verbs.edit_video import VideoEditConfig, VideoJob, filmed, layer_of
from scumble.verbs.outputs import Picture

__all__ = ["again", "check_suffix", "film", "frames_of", "same_frames"]


def film(
    config: VideoEditConfig, files: Mapping[str, Path], out: Path, *, overwrite: bool
) -> Loop[tuple[list[Made], str]]:
    """Edit a video as a recipe says, into `out`; see `scumble.verbs.redo`.

    Returns what the history shall remember, the video first, and what the person should know.
    """
    job = _job(config, files, out, overwrite=overwrite)
    return (yield from filmed(job)), " ".join(job.notes)


def again(config: VideoEditConfig, _: object, files: Mapping[str, Path]) -> Loop[list[Picture]]:
    """The layer that goes beside a video, as a recipe says."""
    return [(yield from layer_of(_job(config, files, None)))]


def _job(
    config: VideoEditConfig, files: Mapping[str, Path], out: Path | None, *, overwrite: bool = False
) -> VideoJob:
    return VideoJob.of(
        config,
        files["video"],
        out,
        atlas=files["atlas"],
        mask=files.get("mask"),
        painted=files.get("painted"),
        overwrite=overwrite,
    )


def frames_of(video: Path) -> torch.Tensor:
    """(F, 3, H, W) uint8."""
    return read_video(video).frames


def same_frames(before: torch.Tensor, out: Path) -> bool:
    """Whether the video `out` has these frames, bit for bit."""
    return torch.equal(before, frames_of(out))


def check_suffix(out: Path) -> None:
    """Raises InputError where `out` is no name of a video."""
    if out.suffix.lower() not in VIDEO_SUFFIXES:
        raise InputError(f"{out} has no suffix of a video, and a video is made again.", "Use .mp4 or .mkv.")
