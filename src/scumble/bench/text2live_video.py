"""Atlases and Text2LIVE on clips whose truth is known: how well a video comes back from its atlas, how well
the atlas knows what moves in front, and whether an edit holds still on it (Bar-Tal et al. 2022, 2204.02491,
section 4; Kasten et al. 2021, 2109.11418).

An atlas is given the first frame's mask and DIS flow, as a person would.
"""

from __future__ import annotations

import json
import time
from collections.abc import Generator
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from safetensors.torch import load_file, save_file
from torch import Tensor

from scumble.bench.common import claim, machine, rounded, write_json
from scumble.core.config import Config
from scumble.core.events import Loop, Progress
from scumble.core.files import atomic_path, atomic_write
from scumble.core.images import from_unit, grid, save_image, to_uint8
from scumble.data.video import Video, read_video, write_video
from scumble.metrics.warp import warp_error
from scumble.models.atlas_file import SavedAtlas, load_atlas, save_atlas
from scumble.models.atlas_fit import Fit
from scumble.models.atlas_sheets import surveyed
from scumble.verbs.atlas import AtlasVideoConfig, AtlasWork, faithfulness, make_atlas, read_footage
from scumble.verbs.edit_video import VideoEditConfig, VideoJob, edit_video_to
from scumble.world.clips import BENCHMARK_CLIPS, Clip, ClipRendering, render_clip
from scumble.world.phrases import PLACE_PHRASES
from scumble.world.scene import COLOURS
from scumble.world.words import with_article

__all__ = ["Settings", "measure", "prompt", "table"]

SIDE = 128
"""Pixels of each side of a frame."""
GAP = Fraction(1, 12)
"""Seconds from frame to frame."""
PSNR, IOU, WOBBLE = 32.0, 0.9, 1.2
"""Reconstruction in dB and overlap to be reached; warp error of the edited clip over the input's, at most."""
POINTS = 1000
"""Places a step of the faithful form, a tenth of the paper's."""
LOOK = 30.0
"""Seconds between two savings of the faithful form, which is looked at then."""
STRIP = 6


class Settings(Config):
    """How much is measured."""

    count: Annotated[int, Field(ge=1, le=len(BENCHMARK_CLIPS))] = len(BENCHMARK_CLIPS)
    """Clips."""
    steps: Annotated[int, Field(ge=1)] | None = None
    """Steps of an edit; none takes the preset's."""
    atlas_steps: Annotated[int, Field(ge=1)] | None = None
    """Steps of an atlas; none takes the form's."""
    minutes: Annotated[float, Field(ge=0)] = 0.0
    """How long the faithful form is fitted to the first clip, in all; 0 leaves it out."""


def prompt(clip: Clip) -> str:
    """What a clip is to show: its thing in another colour."""
    scene = clip.scene
    thing, names = scene.things[0], list(COLOURS)
    other = names[(names.index(thing.colour) + len(names) // 2) % len(names)]
    return f"{with_article(f'{other} {thing.kind}')} {PLACE_PHRASES[scene.place][0]}"


def measure(out: Path, settings: Settings) -> Loop[dict[str, Any]]:
    """Measure atlases and edits of clips into the folder `out`: videos, atlases, `scores.json`, `table.md`,
    `strip.png`. A run that was stopped goes on where it was, also with more clips or minutes."""
    claim(out, settings.model_dump(mode="json", exclude={"count", "minutes"}))
    rows: list[dict[str, Any]] = []
    strips: list[Tensor] = []
    for number, clip in enumerate(BENCHMARK_CLIPS[: settings.count]):
        place = out / f"{number}.json"
        if not place.exists():
            write_json(place, (yield from _of_clip(out, number, clip, settings)))
        rows.append(json.loads(place.read_text()))
        strips += [_shown(out / f"{number}.mkv"), _shown(out / f"{number}-edited.mkv")]
    scores: dict[str, Any] = {"clips": rows, "mean": _mean(rows)}
    if settings.minutes:
        scores["forms"] = yield from _forms(out, settings)
    scores = rounded(scores | {"machine": machine(), "settings": settings.model_dump(mode="json")})
    save_image(grid(from_unit(torch.cat(strips)), columns=STRIP), out / "strip.png")
    write_json(out / "scores.json", scores)
    atomic_write(out / "table.md", (table(scores) + "\n").encode())
    return scores


def table(scores: dict[str, Any]) -> str:
    """The scores as Markdown."""
    rows = [
        "| clip | PSNR, dB | opacity IoU | warp error, input | edited | ratio | atlas, s | edit, s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in [*scores["clips"], {"clip": "mean", **scores["mean"]}]:
        parts = [row["clip"], f"{row['psnr']:.1f}", f"{row['iou']:.3f}"]
        parts += [f"{row['input']:.4f}", f"{row['edited']:.4f}", f"{row['ratio']:.2f}"]
        rows.append("| " + " | ".join([*parts, f"{row['atlas s']:.0f}", f"{row['edit s']:.0f}"]) + " |")
    rows += ["", f"Goals: {PSNR:g} dB, IoU {IOU}, ratio at most {WOBBLE}."]
    if "forms" in scores:
        found = scores["forms"]
        reached = "not at all" if found["fast s"] is None else f"after {found['fast s']:.0f} s"
        rows += [
            f"Faithful, {POINTS} places a step: {found['faithful psnr']:.1f} dB after"
            f" {found['faithful s']:.0f} s and {found['faithful step']} steps.",
            f"Fast has as many {reached} (goal: a tenth of that time).",
        ]
    return "\n".join(rows)


def _of_clip(out: Path, number: int, clip: Clip, settings: Settings) -> Loop[dict[str, Any]]:
    """One clip written, unrolled, edited and compared with the truth."""
    out.mkdir(parents=True, exist_ok=True)
    truth = render_clip(clip, size=SIDE)
    video, atlas, edited = (out / f"{number}{end}" for end in (".mkv", ".atlas", "-edited.mkv"))
    yield from _written(video, truth)
    clock = time.perf_counter()
    config, work = yield from _footage(out, number, truth, settings)
    save_atlas(atlas, (yield from make_atlas(config, work)))
    unrolled = time.perf_counter() - clock
    clock = time.perf_counter()
    given = {"prompt": prompt(clip), "seed": number} | ({"steps": settings.steps} if settings.steps else {})
    job = VideoJob.of(VideoEditConfig.of(given), video, edited, atlas=atlas, overwrite=True)
    yield from edit_video_to(job, with_recipe=False)
    took = time.perf_counter() - clock
    before, after = (float(_wobble(read_video(path).frames, truth)) for path in (video, edited))
    saved = load_atlas(atlas)
    return rounded(
        {
            "clip": f"{clip.scene.things[0].kind}, {clip.kind}",
            "prompt": prompt(clip),
            "psnr": float(saved.about["psnr"]),
            "iou": _overlap(saved, truth),
            "input": before,
            "edited": after,
            "ratio": after / before,
            "atlas s": unrolled,
            "edit s": took,
        }
    )


def _written(path: Path, truth: ClipRendering) -> Loop[Path]:
    frames = to_uint8(truth.pixels)
    times = tuple(GAP * number for number in range(len(frames)))
    return (yield from write_video(path, Video(frames=frames, times=times), frames))


def _footage(
    out: Path, number: int, truth: ClipRendering, settings: Settings
) -> Loop[tuple[AtlasVideoConfig, AtlasWork]]:
    """The clip as it was written, its first frame's mask, and flow that is found."""
    mask = out / f"{number}-mask.png"
    save_image(from_unit(truth.masks[:1, :1].float().expand(-1, 3, -1, -1))[0], mask)
    chosen = {} if settings.atlas_steps is None else {"steps": settings.atlas_steps}
    config = AtlasVideoConfig.of({"seed": number, **chosen})
    return config, (yield from read_footage(config, out / f"{number}.mkv", masks=[mask]))


def _overlap(saved: SavedAtlas, truth: ClipRendering) -> float:
    """Intersection over union of what the atlas and what the truth has in front, over all frames."""
    size = (truth.pixels.shape[2], truth.pixels.shape[3])
    with torch.inference_mode():
        found = [surveyed(saved.atlas, i, size)[0][:, 0].view(size) > 0.5 for i in range(len(truth.masks))]
    ours, true = torch.stack(found), truth.masks[:, 0]
    return float((ours & true).sum() / (ours | true).sum().clamp(min=1))


def _wobble(frames: Tensor, truth: ClipRendering) -> Tensor:
    return warp_error(frames.float() / 255, truth.forward.offset, truth.forward.visible).mean()


def _shown(path: Path) -> Tensor:
    """(STRIP, 3, H, W): frames of a video at equal distances."""
    frames = read_video(path).frames
    return frames[torch.linspace(0, len(frames) - 1, STRIP).round().long()].float() / 255


def _mean(rows: list[dict[str, Any]]) -> dict[str, float]:
    names = [name for name, value in rows[0].items() if isinstance(value, float | int)]
    return {name: sum(row[name] for row in rows) / len(rows) for name in names}


# The two forms


def _forms(out: Path, settings: Settings) -> Loop[dict[str, Any]]:
    """How far the faithful form comes on the first clip in the time given, and when the fast one is there."""
    config, work = yield from _footage(out, 0, render_clip(BENCHMARK_CLIPS[0], size=SIDE), settings)
    faithful = AtlasVideoConfig.of({"form": "faithful", "points": POINTS, "seed": 0})
    fit = Fit(work.footage, faithful.method(), form="faithful", seed=0)
    place, spent = out / "faithful.safetensors", 0.0
    if place.exists():
        kept = load_file(place)
        spent = float(kept.pop("seconds"))
        fit.load_state(kept)
    for seconds in _looks(fit):
        spent += seconds
        with atomic_path(place) as temporary:
            save_file(fit.state() | {"seconds": torch.tensor(spent)}, temporary)
        yield Progress(stage="fitting the faithful form", step=fit.step, total=fit.config.steps)
        if spent >= settings.minutes * 60:
            break
    reached = faithfulness(fit.atlas, work.footage.frames)
    quick = Fit(work.footage, config.method(), form="fast", seed=0)
    taken, there = 0.0, None
    for seconds in _looks(quick, every=2.0):
        taken += seconds
        if faithfulness(quick.atlas, work.footage.frames) >= reached:
            there = taken
            break
    return {"faithful psnr": reached, "faithful step": fit.step, "faithful s": spent, "fast s": there}


def _looks(fit: Fit, every: float = LOOK) -> Generator[float]:
    """Go on fitting, and give the seconds since the last look; what is done at a look is not counted."""
    clock = time.perf_counter()
    for _ in fit.run():
        took = time.perf_counter() - clock
        if took >= every:
            yield took
            clock = time.perf_counter()
    yield time.perf_counter() - clock
