"""The same video again: what `edit text2live` writes besides pictures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from scumble.core.errors import InputError
from scumble.core.events import Loop
from scumble.data.video import VIDEO_SUFFIXES, read_video
from scumble.verbs.edit_video import VideoEditConfig, VideoJob, edit_video_to
from scumble.verbs.outputs import Saved

__all__ = ["check_suffix", "film", "frames_of", "same_frames"]


def film(config: VideoEditConfig, files: Mapping[str, Path], out: Path, *, overwrite: bool) -> Loop[Saved]:
    """Edit a video as a recipe says, into `out`; see `scumble.verbs.redo`."""
    job = VideoJob.of(
        config,
        files["video"],
        out,
        atlas=files["atlas"],
        mask=files.get("mask"),
        painted=files.get("painted"),
        overwrite=overwrite,
    )
    return (yield from edit_video_to(job))


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
