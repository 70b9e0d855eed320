"""The toy world for anyone to try things on: pictures with captions, subjects, clips; the model unpacked."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from scumble.core.errors import InputError
from scumble.core.events import Loop, Progress, finish
from scumble.core.files import atomic_folder
from scumble.world.splits import Split

__all__ = ["render_clips", "render_subjects", "render_world", "unpack_model"]

BATCH = 16
CLIP_GAP = Fraction(2, 25)
"""Seconds from frame to frame of a clip."""


def _images(pixels: Tensor) -> list[Image.Image]:
    """Pictures of `pixels` (B, 3, H, W) in [0, 1]."""
    array = (pixels.clamp(0, 1) * 255).round().permute(0, 2, 3, 1).cpu().numpy().astype(np.uint8)
    return [Image.fromarray(a) for a in array]


def render_world(
    out: Path,
    *,
    count: int,
    seed: int,
    size: int,
    profile: str = "full",
    split: Split = "train",
    wishes: Sequence[str] = (),
) -> Loop[Path]:
    """Render `count` scenes with seeds `seed`, `seed + 1`, ... to the folder `out`.

    Each of `wishes`, `NAME=VALUE` or `NAME=VALUE,VALUE,...`, fixes an attribute; of several values each next
    picture takes the next. Writes `NNNNNN.png` and `metadata.jsonl` with, for each picture, its file name,
    canonical caption, labels and the scene itself. Raises InputError if `out` is not empty, or `profile` or a
    wish is not known.
    """
    from scumble.world.render import render
    from scumble.world.sampling import PROFILES, sample_scene
    from scumble.world.wishes import fixed
    from scumble.world.words import caption, describe

    if profile not in PROFILES:
        raise InputError(f"There is no profile {profile!r}.", f"Profiles: {', '.join(PROFILES)}.")
    turns = _turns(wishes)
    with atomic_folder(out) as folder, (folder / "metadata.jsonl").open("w") as metadata:
        for start in range(0, count, BATCH):
            seeds = range(seed + start, seed + min(start + BATCH, count))
            scenes = [sample_scene(s, profile=PROFILES[profile], split=split) for s in seeds]
            scenes = [
                fixed(scene, {name: values[(s - seed) % len(values)] for name, values in turns.items()})
                for s, scene in zip(seeds, scenes, strict=True)
            ]
            pictures = _images(render(scenes, size=size).pixels)
            for s, scene, picture in zip(seeds, scenes, pictures, strict=True):
                name = f"{s:06d}.png"
                picture.save(folder / name)
                row = {
                    "file_name": name,
                    "text": caption(scene),
                    "labels": describe(scene),
                    "scene": asdict(scene),
                }
                metadata.write(json.dumps(row) + "\n")
            yield Progress(stage="rendering", step=min(start + BATCH, count), total=count)
    return out


def _turns(wishes: Sequence[str]) -> dict[str, list[str]]:
    """Attribute -> the values that take turns."""
    from scumble.world.wishes import OF_SCENE, OF_THING

    known, turns = {**OF_THING, **OF_SCENE}, dict[str, list[str]]()
    for wish in wishes:
        name, _, given = wish.partition("=")
        values = [value.strip() for value in given.split(",")]
        if name not in known:
            raise InputError(f"Scenes have no {name!r}.", f"Choose one of {', '.join(known)}.")
        for value in values:
            if value not in known[name]:
                raise InputError(f"There is no {name} {value!r}.", f"Choose one of {', '.join(known[name])}.")
        turns[name] = values
    return turns


def render_subjects(out: Path, *, size: int) -> Loop[Path]:
    """Render every benchmark subject to `out/NAME/`: five pictures, and `subject.json` with its name,
    its noun and its prompts.
    """
    from scumble.world.render import render
    from scumble.world.subjects import SUBJECTS

    with atomic_folder(out) as folder:
        for index, subject in enumerate(SUBJECTS):
            place = folder / subject.name
            place.mkdir()
            for number, picture in enumerate(_images(render(subject.scenes, size=size).pixels)):
                picture.save(place / f"{number}.png")
            about = {"name": subject.name, "noun": subject.noun, "prompts": [p.text for p in subject.prompts]}
            (place / "subject.json").write_text(json.dumps(about, indent=1))
            yield Progress(stage="rendering", step=index + 1, total=len(SUBJECTS))
    return out


def render_clips(out: Path, *, size: int) -> Loop[Path]:
    """Render every benchmark clip to `out/NAME/`, as `scumble atlas` reads it: `clip.apng`, a mask of the
    thing for each frame in `masks/`, the true flow in `flow/`; and `clip.json` with its caption and scene.
    """
    from scumble.core.images import from_unit, save_image, to_uint8
    from scumble.data.video import Video, write_video
    from scumble.world.clips import BENCHMARK_CLIPS, render_clip
    from scumble.world.words import caption

    with atomic_folder(out) as folder:
        for index, clip in enumerate(BENCHMARK_CLIPS):
            thing = clip.scene.things[0]
            place = folder / f"{thing.colour}-{thing.kind}-{clip.kind}"
            shown = render_clip(clip, size=size)
            frames = to_uint8(shown.pixels)
            times = tuple(CLIP_GAP * number for number in range(len(frames)))
            finish(write_video(place / "clip.apng", Video(frames=frames, times=times), list(frames)))
            for number, mask in enumerate(from_unit(shown.opacity[:, :1].expand(-1, 3, -1, -1))):
                save_image(mask, place / "masks" / f"{number:03d}.png")
            for way, flow in (("forward", shown.forward), ("backward", shown.backward)):
                (place / "flow" / way).mkdir(parents=True)
                for number, offset in enumerate(flow.offset.numpy()):  # (2, H, W)
                    np.save(place / "flow" / way / f"{number:03d}.npy", offset)
            about = {"kind": clip.kind, "text": caption(clip.scene), "scene": asdict(clip.scene)}
            (place / "clip.json").write_text(json.dumps(about, indent=1))
            yield Progress(stage="rendering", step=index + 1, total=len(BENCHMARK_CLIPS))
    return out


def unpack_model(out: Path) -> Path:
    """Write the toybox as a plain diffusers folder to `out`; other programs read it as SD 1.x."""
    from scumble.models.folder import GUIDANCE
    from scumble.models.toybox import EDITING, EDITING_GUIDANCE, folder
    from scumble.models.toybox import GUIDANCE as DRAWING_GUIDANCE

    with atomic_folder(out) as place:
        shutil.copytree(folder(), place, dirs_exist_ok=True)
        for index in place.rglob("model_index.json"):  # of the model itself and of the one that edits
            scale = EDITING_GUIDANCE if index.parent.name == EDITING else DRAWING_GUIDANCE
            index.write_text(json.dumps({**json.loads(index.read_text()), GUIDANCE: scale}, indent=2) + "\n")
    return out
