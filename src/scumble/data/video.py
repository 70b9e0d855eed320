"""Videos in and out of files, by PyAV: frames with the time of each, and sound that is passed on unchanged.
Animated PNG is read and written by Pillow, for short clips where there is no PyAV.

Frames are (F, 3, H, W) uint8 sRGB, upright. Each frame keeps its own time, so a variable frame rate comes out
as it went in.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image, ImageSequence
from PIL.PngImagePlugin import PngInfo
from torch import Tensor
from torch.nn.functional import interpolate

from scumble.core.decoding import DECODER_ERRORS, MAX_PIXELS
from scumble.core.errors import ImageError, InputError, MissingExtraError, ScumbleError
from scumble.core.events import Loop, Progress
from scumble.core.files import atomic_path, explained

if TYPE_CHECKING:
    from types import ModuleType

__all__ = [
    "ANIMATION",
    "MAX_BYTES",
    "VIDEO_SUFFIXES",
    "Video",
    "check_output",
    "pyav",
    "read_video",
    "resize_frames",
    "write_video",
]

MAX_BYTES = 8 * 2**30
"""The most memory that frames read from one file may take."""

ANIMATION = ".apng"
"""Suffix of animated PNG: lossless, without sound, times in thousandths of a second."""
VIDEO_SUFFIXES = (".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ANIMATION)
"""Suffixes of files that are read as videos; ANIMATION and those in `_CODECS` can be written."""

_X264 = {"crf": "16", "mbtree": "0"}
"""Options of H.264. With its macroblock tree x264 now and then gives other bytes for the same frames, and
what is made again has to be the same."""
_CODECS: dict[str, tuple[tuple[str, ...], str, dict[str, str]]] = {
    ".mp4": (("libx264", "libopenh264", "mpeg4"), "yuv420p", _X264),
    ".mov": (("libx264", "libopenh264", "mpeg4"), "yuv420p", _X264),
    ".webm": (("libvpx-vp9", "libvpx"), "yuv420p", {"crf": "20", "b": "0"}),
    ".mkv": (("ffv1",), "bgr0", {}),
}
"""Suffix -> encoders, the first that is there being taken; pixel format; options. FFV1 loses nothing."""

_FORMATS = {".mp4": "mp4", ".mov": "mov", ".webm": "webm", ".mkv": "matroska"}
"""FFmpeg's names for them."""

_TICKS = 90_000
"""Ticks a second of the times written; of no common frame rate does one need rounding by a visible part."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Video:
    """The frames of a file."""

    frames: Tensor
    """(F, 3, H, W) uint8."""
    times: tuple[Fraction, ...]
    """Seconds at which each frame is shown, rising from 0."""
    name: str = "video"
    source: Path | None = None
    """The file, of which the sound is."""
    has_sound: bool = False
    start: Fraction = Fraction(0)
    """Second of the file at which the first frame is shown, where frames before it were left out."""
    end: Fraction | None = None
    """Second of the file at which the first frame after the last is shown, where such were left out."""

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return self.frames.shape[2], self.frames.shape[3]

    @property
    def gaps(self) -> list[Fraction]:
        """Seconds from each frame to the next."""
        return [b - a for a, b in zip(self.times, self.times[1:], strict=False)]

    @property
    def rate(self) -> float:
        """Frames a second: of the gap that stands in the middle."""
        return float(1 / median(self.gaps))

    @property
    def note(self) -> str:
        """A sentence on a variable frame rate, or nothing."""
        shortest, longest = min(self.gaps), max(self.gaps)
        if longest <= shortest * Fraction(3, 2):
            return ""
        rates = f"{float(1 / longest):.3g} to {float(1 / shortest):.3g} frames a second"
        return f"{self.name} has a variable frame rate, {rates}: every frame keeps its own time."


def pyav() -> Any:
    """PyAV. Raises MissingExtraError where it is not installed."""
    try:
        import av
    except ImportError as problem:
        raise MissingExtraError("PyAV is not installed.", "pip install 'scumble[video]'") from problem
    module: ModuleType = av
    return module


def read_video(path: Path | str, *, first: int = 0, count: int | None = None) -> Video:
    """The frames of the first video stream, from number `first`, at most `count`.

    Raises ImageError, in one sentence, for a file that is no video, has no video stream, one frame only,
    frames of changing size, or more frames than fit MAX_BYTES.
    """
    path = Path(path)
    with explained(path, "read", ImageError), path.open("rb"):
        pass
    pictures, times, end, has_sound = _read(path, first, count)
    if len(pictures) < 2:
        raise ImageError(
            f"{path} has {'one frame' if pictures else 'no frame'} only, and an atlas needs two or more.",
            "A single picture is edited as an image: scumble edit text2live IMAGE.",
        )
    frames = torch.as_tensor(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()
    return Video(
        frames=frames,
        times=tuple(time - times[0] for time in times),
        name=path.name,
        source=path,
        has_sound=has_sound,
        start=times[0] if first else Fraction(0),
        end=end,
    )


def check_output(path: Path | str, video: Video) -> None:
    """Raises InputError, before any work, where `write_video` could not write `video` to `path`: for another
    suffix, or sound that such a file cannot hold."""
    path = Path(path)
    suffix, source = path.suffix.lower(), video.source if video.has_sound else None
    if suffix not in (*_CODECS, ANIMATION):
        raise InputError(
            f"{path} has no suffix of a video.", f"Use one of {', '.join(_CODECS)}, {ANIMATION}."
        )
    if source is not None and suffix == ANIMATION:
        raise InputError(f"A {ANIMATION} file cannot hold sound.", "Write .mkv instead.")
    if source is not None:
        with _one_sentence(source), pyav().open(BytesIO(), "w", format=_FORMATS[suffix]) as container:
            _sound_like(container, source, path)


def write_video(
    path: Path | str, video: Video, frames: Iterable[Tensor], *, metadata: Mapping[str, str] | None = None
) -> Loop[Path]:
    """Write `frames`, each (3, H, W) uint8, at the times of `video` and with the sound of its file.

    `.mkv` (FFV1) and `.apng` are lossless; `.mp4`, `.mov` and `.webm` are small. Whole or not at all. A side
    that is odd, which the small ones cannot hold, is continued by its last row or column. With a part of a
    video goes that part of its sound. Raises InputError as `check_output`.
    """
    path = Path(path)
    check_output(path, video)
    source = video.source if video.has_sound else None
    if path.suffix.lower() == ANIMATION:
        return (yield from _animate(path, video, frames, metadata or {}))
    with atomic_path(path) as temporary, _one_sentence(path):
        options = {"movflags": "use_metadata_tags"} if path.suffix.lower() in (".mp4", ".mov") else {}
        with pyav().open(str(temporary), "w", options=options) as container:
            container.metadata.update(metadata or {})
            stream = _stream(container, path.suffix.lower(), video)
            sound = None if source is None else _sound_like(container, source, path)
            written = 0
            for written, (frame, time) in enumerate(zip(frames, video.times, strict=True), 1):
                container.mux(stream.encode(_encodable(frame, time, stream.pix_fmt)))
                yield Progress(stage="writing", step=written, total=len(video.times))
            container.mux(stream.encode(None))
            if source is not None:
                _copy_sound(container, video, source, sound)
    return path


def resize_frames(frames: Tensor, short_side: int) -> Tensor:
    """Frames (F, 3, H, W) uint8 whose shorter side is `short_side`; as they are where that is no smaller."""
    height, width = frames.shape[2:]
    if min(height, width) <= short_side:
        return frames
    factor = short_side / min(height, width)
    size = (round(height * factor), round(width * factor))
    resized = [
        interpolate(frame[None].float(), size=size, mode="bicubic", antialias=True).clamp(0, 255).round()
        for frame in frames
    ]
    return torch.cat(resized).to(torch.uint8)


# Reading


_Frames = tuple[list[Any], tuple[Fraction, ...], Fraction | None]
"""Frames (H, W, 3) uint8, the time of each in the file, and that of the next one, if it was left out."""


def _read(
    path: Path, first: int, count: int | None
) -> tuple[list[Any], tuple[Fraction, ...], Fraction | None, bool]:
    """The frames of a file, and whether there is sound."""
    if path.suffix.lower() == ANIMATION:
        return (*_animation(path, first, count), None, False)
    with _one_sentence(path), pyav().open(str(path)) as container:
        if not container.streams.video:
            raise ImageError(f"{path} has no video stream.", "Give a file with moving pictures in it.")
        return (*_decoded(container, path, first, count), bool(container.streams.audio))


def _animation(path: Path, first: int, count: int | None) -> tuple[list[Any], tuple[Fraction, ...]]:
    """The frames of an animated PNG, transparent ones over white."""
    pictures: list[Any] = []
    times, now = list[Fraction](), Fraction(0)
    last = None if count is None else first + count
    try:
        with Image.open(path, formats=("PNG",)) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ImageError(f"{path} has {image.width} x {image.height} pixels, too many for a video.")
            for number, frame in enumerate(ImageSequence.Iterator(image)):
                if number == last:
                    break
                if number >= first:
                    cover = frame.convert("RGBA")
                    ground = Image.new("RGBA", cover.size, "white")
                    pictures.append(np.asarray(Image.alpha_composite(ground, cover).convert("RGB")))
                    times.append(now)
                    _check_memory(path, len(pictures), pictures[-1])
                now += Fraction(float(frame.info.get("duration") or 40)).limit_denominator(1000) / 1000
    except DECODER_ERRORS as problem:
        raise ImageError(f"{path} cannot be used as a video.", "Is it a whole animated PNG?") from problem
    return pictures, tuple(times)


def _decoded(container: Any, path: Path, first: int, count: int | None) -> _Frames:
    pictures: list[Any] = []
    times: list[Fraction] = []
    stream = container.streams.video[0]
    stream.thread_type = "AUTO"
    fallback = Fraction(1) / Fraction(stream.average_rate or 25)
    for number, frame in enumerate(container.decode(stream)):
        if number < first:
            continue
        time = fallback * number if frame.pts is None else Fraction(frame.pts) * Fraction(frame.time_base)
        if count is not None and len(pictures) == count:
            return pictures, tuple(times), time
        picture = _upright(frame.to_ndarray(format="rgb24"), getattr(frame, "rotation", 0))
        if pictures and picture.shape != pictures[0].shape:
            sizes = ["{1} x {0}".format(*p.shape) for p in (pictures[0], picture)]
            raise ImageError(
                f"The frames of {path} change their size: {sizes[0]}, and {sizes[1]} at frame {number}.",
                "Make them one size first: ffmpeg -i VIDEO -vf scale=W:H OUT.",
            )
        _check_memory(path, len(pictures) + 1, picture)
        pictures.append(picture)
        times.append(max(time, times[-1] + fallback / 100) if times else time)
    return pictures, tuple(times), None


def _check_memory(path: Path, frames: int, picture: Any) -> None:
    """Raises ImageError where so many frames like `picture` are too much."""
    if frames * picture.size > MAX_BYTES:
        raise ImageError(
            f"{path} has more than {frames - 1} frames of {picture.shape[1]} x {picture.shape[0]} pixels, "
            "which do not fit in memory.",
            "Take a part of it with --first and --count.",
        )


def _upright(picture: Any, rotation: int) -> Any:
    """Turned by the angle that the file says, counter-clockwise in degrees."""
    return np.ascontiguousarray(np.rot90(picture, (rotation // 90) % 4))


@contextmanager
def _one_sentence(path: Path) -> Generator[None]:
    """FFmpeg's errors as one sentence about `path`."""
    failure = pyav().error.FFmpegError
    try:
        yield
    except ScumbleError:
        raise
    except failure as problem:
        if isinstance(problem, OSError) and problem.errno in (28, 122):
            raise  # a full disk, which the writing of files explains
        reason = str(problem.strerror or problem).rstrip(".")
        raise ImageError(
            f"{path} cannot be used as a video: {reason}.", "Is it a whole video file?"
        ) from problem


# Writing


def _animate(path: Path, video: Video, frames: Iterable[Tensor], metadata: Mapping[str, str]) -> Loop[Path]:
    """The same as an animated PNG."""
    notes = PngInfo()
    for name, text in metadata.items():
        notes.add_itxt(name, text)
    pictures: list[Image.Image] = []
    for frame, _ in zip(frames, video.times, strict=True):
        pictures.append(Image.fromarray(np.ascontiguousarray(frame.permute(1, 2, 0).cpu().numpy())))
        yield Progress(stage="writing", step=len(pictures), total=len(video.times))
    gaps = [*video.gaps, video.gaps[-1]]
    with atomic_path(path) as temporary:
        pictures[0].save(
            temporary,
            format="PNG",
            save_all=True,
            append_images=pictures[1:],
            duration=[round(gap * 1000) for gap in gaps],
            blend=[number % 2 for number in range(len(pictures))],  # or Pillow makes one of two alike
            loop=0,
            pnginfo=notes,
        )
    return path


def _stream(container: Any, suffix: str, video: Video) -> Any:
    """A video stream by the first encoder that this build of FFmpeg has."""
    encoders, pixels, options = _CODECS[suffix]
    available = pyav().codecs_available
    encoder = next((name for name in encoders if name in available), None)
    if encoder is None:
        raise InputError(f"This build of FFmpeg cannot write {suffix}.", "Write .mkv instead.")
    stream = container.add_stream(encoder, rate=Fraction(video.rate).limit_denominator(1001))
    height, width = video.size
    even = pixels == "yuv420p"
    stream.width, stream.height = (width + width % 2, height + height % 2) if even else (width, height)
    stream.pix_fmt = pixels
    stream.codec_context.time_base = Fraction(1, _TICKS)
    stream.options = options
    return stream


def _encodable(frame: Tensor, time: Fraction, pixels: str) -> Any:
    array = frame.permute(1, 2, 0).cpu().numpy()
    if pixels == "yuv420p":
        array = np.pad(array, ((0, array.shape[0] % 2), (0, array.shape[1] % 2), (0, 0)), mode="edge")
    encodable = pyav().VideoFrame.from_ndarray(np.ascontiguousarray(array), format="rgb24")
    encodable.time_base = Fraction(1, _TICKS)
    encodable.pts = round(time * _TICKS)
    return encodable


def _sound_like(container: Any, source: Path, path: Path) -> Any:
    """A stream for the sound of `source`, before anything is written."""
    with pyav().open(str(source)) as original:
        stream = original.streams.audio[0]
        name = stream.codec_context.name
        if name not in container.supported_codecs and stream.codec.name not in container.supported_codecs:
            raise InputError(
                f"A {path.suffix} file cannot hold sound of the kind {name}.", "Write .mkv instead."
            )
        return container.add_stream_from_template(stream)


def _copy_sound(container: Any, video: Video, source: Path, stream: Any) -> None:
    """The sound of `source`, packet by packet, as it is; of a part of it, the packets that begin there."""
    with pyav().open(str(source)) as original:
        for packet in original.demux(original.streams.audio[0]):
            if packet.dts is None:
                continue
            base = Fraction(packet.time_base)
            time, shift = packet.dts * base, round(video.start / base)
            if video.end is not None and time >= video.end:
                break
            if shift and time < video.start:
                continue
            if shift:
                packet.pts = (packet.dts if packet.pts is None else packet.pts) - shift
                packet.dts -= shift
            packet.stream = stream
            container.mux(packet)
