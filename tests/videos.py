"""Small videos for the tests: a bright square that moves over a patterned ground, and files of them."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from scumble.core.events import finish
from scumble.data.video import Video, write_video

__all__ = ["SQUARE", "STEP", "moving_square", "square_masks", "timed", "video_file"]

SQUARE = 12
"""Side of the square, in pixels."""
STEP = 2
"""Pixels that it moves to the right from frame to frame."""


def moving_square(frames: int = 5, height: int = 32, width: int = 40, seed: int = 0) -> Tensor:
    """(F, 3, H, W) uint8: a smooth ground at rest, and on it a square with a pattern of its own."""
    generator = torch.Generator().manual_seed(seed)
    ground = _pattern(generator, height, width) * 0.5
    square = _pattern(generator, SQUARE, SQUARE) * 0.3 + 0.7
    video = ground.repeat(frames, 1, 1, 1)
    for t in range(frames):
        video[t, :, 10 : 10 + SQUARE, 6 + STEP * t : 6 + STEP * t + SQUARE] = square
    return (video * 255).round().to(torch.uint8)


def square_masks(frames: int = 5, height: int = 32, width: int = 40) -> Tensor:
    """(F, 1, H, W) in [0, 1]: where the square is."""
    masks = torch.zeros(frames, 1, height, width)
    for t in range(frames):
        masks[t, :, 10 : 10 + SQUARE, 6 + STEP * t : 6 + STEP * t + SQUARE] = 1
    return masks


def timed(frames: Tensor, times: Sequence[float] | None = None) -> Video:
    """A video in memory, 10 frames a second unless said otherwise."""
    given = times or [t / 10 for t in range(len(frames))]
    return Video(frames=frames, times=tuple(Fraction(t).limit_denominator(1000) for t in given))


def video_file(path: Path, frames: Tensor, *, sound: bool = False) -> Path:
    """A file of `frames`, 10 a second; with a tone, AAC, if wanted."""
    if not sound:
        return finish(write_video(path, timed(frames), list(frames)))
    with av.open(str(path), "w") as container:
        pictures: Any = container.add_stream("mpeg4", rate=10)
        pictures.width, pictures.height, pictures.pix_fmt = frames.shape[3], frames.shape[2], "yuv420p"
        tone: Any = container.add_stream("aac", rate=16_000)
        for frame in frames:
            array = np.ascontiguousarray(frame.permute(1, 2, 0).numpy())
            container.mux(pictures.encode(av.VideoFrame.from_ndarray(array, format="rgb24")))
        container.mux(pictures.encode(None))
        length = int(16_000 * len(frames) / 10) // 1024
        for block in range(length):
            wave = np.sin(np.arange(block * 1024, (block + 1) * 1024) * 0.2).astype(np.float32)
            packet = av.AudioFrame.from_ndarray(wave[None], format="fltp", layout="mono")
            packet.sample_rate, packet.pts, packet.time_base = 16_000, block * 1024, Fraction(1, 16_000)
            container.mux(tone.encode(packet))
        container.mux(tone.encode(None))
    return path


def _pattern(generator: torch.Generator, height: int, width: int) -> Tensor:
    """(3, H, W) in [0, 1], smooth over some four pixels."""
    coarse = torch.rand(1, 3, height // 4 + 2, width // 4 + 2, generator=generator)
    return interpolate(coarse, size=(height, width), mode="bicubic", align_corners=True)[0].clamp(0, 1)
