"""Videos in and out of files: times, sound, sizes, and what cannot be used."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image

from scumble.core.errors import ImageError, InputError
from scumble.core.events import finish
from scumble.data.video import VIDEO_SUFFIXES, check_output, read_video, resize_frames, write_video
from videos import moving_square, timed, video_file


def packets(path: Path, kind: str) -> list[bytes]:
    """What a stream holds, packet by packet."""
    with av.open(str(path)) as container:
        streams: Any = container.streams
        stream = next(iter(getattr(streams, kind)))
        return [bytes(packet) for packet in container.demux(stream) if packet.size]


def test_lossless_is_lossless_and_keeps_every_time(tmp_path: Path) -> None:
    frames = moving_square(6, 31, 41)
    uneven = timed(frames, [0, 0.1, 0.3, 0.35, 0.6, 1.0])
    path = finish(write_video(tmp_path / "v.mkv", uneven, list(frames), metadata={"scumble": "{}"}))
    again = read_video(path)
    assert torch.equal(again.frames, frames)
    assert [float(t) for t in again.times] == pytest.approx([0, 0.1, 0.3, 0.35, 0.6, 1.0], abs=2e-3)
    assert "v.mkv has a variable frame rate, 2.5 to 20 frames a second" in again.note
    assert not again.has_sound
    with av.open(str(path)) as container:
        assert {k.lower(): v for k, v in container.metadata.items()}["scumble"] == "{}"


def test_animated_png_needs_no_pyav(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even a frame like the one before it, of which Pillow would make one that stays longer."""
    monkeypatch.setattr("scumble.data.video.pyav", lambda: pytest.fail("PyAV is asked for"))
    frames = moving_square(5, 31, 41)
    frames[3] = frames[2]
    uneven = timed(frames, [0, 0.1, 0.3, 0.35, 0.6])
    path = finish(write_video(tmp_path / "v.apng", uneven, list(frames), metadata={"scumble": "{}"}))
    again = read_video(path)
    assert torch.equal(again.frames, frames)
    assert again.times == uneven.times
    assert not again.has_sound
    part = read_video(path, first=1, count=3)
    assert torch.equal(part.frames, frames[1:4])
    assert part.times[:2] == (0, Fraction(1, 5))
    with Image.open(path) as animation:
        assert animation.info["scumble"] == "{}"


def test_animated_pngs_that_cannot_be_used(tmp_path: Path) -> None:
    frames = moving_square(3, 32, 48)
    whole = finish(write_video(tmp_path / "v.apng", timed(frames), list(frames))).read_bytes()
    (tmp_path / "cut.apng").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.apng").write_text("no animation at all")
    for name in ("cut.apng", "text.apng"):
        with pytest.raises(ImageError, match="Is it a whole animated PNG"):
            read_video(tmp_path / name)
    Image.new("RGB", (8, 8)).save(tmp_path / "one.apng", format="PNG")
    with pytest.raises(ImageError, match="one frame only"):
        read_video(tmp_path / "one.apng")
    sound = replace(timed(frames), source=tmp_path / "v.mp4", has_sound=True)
    with pytest.raises(InputError, match="cannot hold sound"):
        finish(write_video(tmp_path / "sound.apng", sound, list(frames)))


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".webm"])
def test_small_files_are_near_and_may_have_odd_sides(tmp_path: Path, suffix: str) -> None:
    frames = moving_square(4, 35, 47)
    path = finish(write_video(tmp_path / f"v{suffix}", timed(frames), list(frames), metadata={"note": "x"}))
    again = read_video(path)
    assert again.frames.shape == (4, 3, 36, 48)
    assert (again.frames[:, :, :35, :47].float() - frames.float()).abs().mean() < 12
    assert [float(t) for t in again.times] == pytest.approx([0, 0.1, 0.2, 0.3], abs=2e-3)
    assert again.note == ""
    assert again.rate == pytest.approx(10, rel=0.05)


def test_sound_comes_out_as_it_went_in(tmp_path: Path) -> None:
    source = read_video(video_file(tmp_path / "in.mp4", moving_square(12, 32, 48), sound=True))
    assert source.has_sound
    sound = packets(tmp_path / "in.mp4", "audio")
    assert len(sound) > 10
    for name in ("out.mp4", "out.mkv"):
        written = finish(write_video(tmp_path / name, source, list(255 - source.frames)))
        assert packets(written, "audio") == sound
        again = read_video(written)
        assert again.has_sound
        assert again.times == pytest.approx(source.times, abs=2e-3)
    with pytest.raises(InputError, match=r"\.webm file cannot hold sound of the kind aac"):
        finish(write_video(tmp_path / "out.webm", source, list(source.frames)))
    assert not (tmp_path / "out.webm").exists()
    with pytest.raises(InputError, match="cannot hold sound of the kind aac"):
        check_output(tmp_path / "out.webm", source)
    check_output(tmp_path / "out.mov", source)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mp4", "out.mkv", "out.mp4"]


def test_with_a_part_of_a_video_goes_that_part_of_its_sound(tmp_path: Path) -> None:
    """Frames 5 to 8 of ten a second: sound from half a second to nine tenths, in packets of 64 ms."""
    path = video_file(tmp_path / "in.mp4", moving_square(12, 32, 48), sound=True)
    part = read_video(path, first=5, count=4)
    assert (part.has_sound, part.start, part.end) == (True, Fraction(1, 2), Fraction(9, 10))
    written = finish(write_video(tmp_path / "out.mkv", part, list(part.frames)))
    whole, found = packets(path, "audio"), packets(written, "audio")
    assert 5 <= len(found) <= 7
    begin = whole.index(found[0])
    assert whole[begin : begin + len(found)] == found
    with av.open(str(path)) as before, av.open(str(written)) as after:
        starts: list[float] = []
        for container in (before, after):
            streams: Any = container.streams
            sound = [p for p in container.demux(streams.audio[0]) if p.size]
            starts.append(float(sound[begin if container is before else 0].pts * sound[0].time_base))
    assert starts[1] == pytest.approx(starts[0] - 0.5, abs=2e-3)
    assert packets(
        finish(write_video(tmp_path / "all.mkv", read_video(path), list(read_video(path).frames))), "audio"
    ) == whole  # fmt: skip


def test_a_part_of_a_video(tmp_path: Path) -> None:
    frames = moving_square(6)
    path = video_file(tmp_path / "v.mkv", frames)
    part = read_video(path, first=2, count=3)
    assert torch.equal(part.frames, frames[2:5])
    assert part.times[0] == 0


def test_turned_video_is_read_upright(tmp_path: Path) -> None:
    frames = moving_square(3, 32, 48)
    plain = video_file(tmp_path / "plain.mp4", frames)
    content = bytearray(plain.read_bytes())
    flat = b"".join(n.to_bytes(4, "big") for n in (0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000))
    turned = b"".join(
        (n % 2**32).to_bytes(4, "big") for n in (0, 0x10000, 0, -0x10000, 0, 0, 0, 0, 0x40000000)
    )
    place = content.rindex(flat)  # the matrix of the track, after that of the whole file
    content[place : place + 36] = turned
    (tmp_path / "turned.mp4").write_bytes(content)
    upright = read_video(tmp_path / "turned.mp4").frames
    assert torch.equal(upright, read_video(plain).frames.rot90(-1, (2, 3)))  # a quarter turn to the right


def test_what_cannot_be_used_is_one_sentence(tmp_path: Path) -> None:
    frames = moving_square(3, 32, 48)
    one = tmp_path / "one.mkv"
    finish(write_video(one, timed(frames), list(frames)))
    (tmp_path / "text.mp4").write_text("no video at all")
    whole = video_file(tmp_path / "whole.mp4", frames).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    cases = {"none.mp4": "does not exist", "text.mp4": "cannot be used as a video", "cut.mp4": "whole video"}
    for name, sentence in cases.items():
        with pytest.raises(ImageError, match=sentence):
            read_video(tmp_path / name)
    with pytest.raises(ImageError, match="one frame only"):
        read_video(one, first=2)
    with pytest.raises(ImageError, match="no frame only"):
        read_video(one, first=9)
    with pytest.raises(InputError, match="no suffix of a video"):
        finish(write_video(tmp_path / "v.gif", timed(frames), list(frames)))
    assert {".mp4", ".mkv", ".webm"} <= set(VIDEO_SUFFIXES)


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        tone: Any = container.add_stream("aac", rate=16_000)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        silence.sample_rate = 16_000
        container.mux(tone.encode(silence))
        container.mux(tone.encode(None))
    with pytest.raises(ImageError, match="no video stream"):
        read_video(path)


def test_frames_of_changing_size(tmp_path: Path) -> None:
    """MJPEG is a stream of pictures that each say their size."""
    path = tmp_path / "changing.mjpeg"
    content = b""
    for height, width in ((32, 48), (32, 48), (48, 64)):
        codec: Any = av.CodecContext.create("mjpeg", "w")
        codec.width, codec.height, codec.pix_fmt, codec.time_base = width, height, "yuvj420p", Fraction(1, 10)
        array = np.ascontiguousarray(moving_square(1, height, width)[0].permute(1, 2, 0).numpy())
        picture = av.VideoFrame.from_ndarray(array, format="rgb24").reformat(format="yuvj420p")
        content += b"".join(bytes(p) for p in [*codec.encode(picture), *codec.encode(None)])
    path.write_bytes(content)
    with pytest.raises(ImageError, match="change their size: 48 x 32, and 64 x 48 at frame 2"):
        read_video(path)


def test_frames_are_made_smaller_never_larger() -> None:
    frames = moving_square(2, 32, 48)
    assert resize_frames(frames, 16).shape == (2, 3, 16, 24)
    assert torch.equal(resize_frames(frames, 64), frames)


@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
def test_the_same_frames_are_the_same_file(tmp_path: Path, suffix: str) -> None:
    """Memory of many sizes in between: what an encoder reads beyond its own differs from time to time."""
    frames = moving_square(3, 48, 64)
    made: set[bytes] = set()
    for i in range(100):
        held = [bytes(10_000 * (i % 7) + 1) for _ in range(i % 5)]
        path = finish(write_video(tmp_path / f"{i}{suffix}", timed(frames), list(frames)))
        made.add(read_video(path).frames.numpy().tobytes())
        del held
    assert len(made) == 1
