"""The demo's chapters of Text2LIVE: a layer over a picture, and one over a clip through its atlas."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import max_pool2d

from scumble.core.events import Loop, Progress
from scumble.data.video import read_video
from scumble.verbs import demo_clip
from scumble.verbs.demo_chapter import SEED, Chapter, Check, Row, Score, Shown, Work, read, rendered
from scumble.verbs.demo_editing import SCENES
from scumble.verbs.edit_text2live import PARTS, Text2liveConfig, paint, prepare
from scumble.verbs.edit_video import VideoEditConfig, VideoJob, edit_video_to
from scumble.world.render import render
from scumble.world.words import caption

__all__ = ["clip", "layer"]

SCENE = SCENES[3]
PROMPT = "a blue castle in the desert"
CLIP_PROMPT = "a red rocket on the beach"
ROUNDING = 1
"""Levels of 255 by which Pillow's own arithmetic may differ from ours."""
NEARER = 0.01
"""The least gain in CLIP's likeness of result and words."""
ELSEWHERE, ELSEWHERE_IN_CLIP = 10.0, 1.0
"""Levels of 255 by which what lies off the thing may change on average: on a picture the layer has no mask,
on a clip the atlas keeps it on what moves in front.
"""
WOBBLE = 1.2
"""Warp error of the edited clip over that of the clip as it was, at most."""
RIM = 3
"""Pixels around the thing that count as its own."""


def layer(work: Work) -> Loop[Chapter]:
    """A layer learnt on one picture."""
    [original] = rendered([SCENE])
    before = work.save(original, "layer/photo.png")
    config = Text2liveConfig.of({"prompt": PROMPT, "seed": SEED, **_steps(work.amount.layer_steps)})
    found, known = config.load_clip()
    with work.timed("learning"):
        [edited] = yield from paint([config], found, known, prepare(work.out / before.file))
    names = ("result.png", *(f"result-{part}.png" for part in PARTS))
    shown = [work.save(p, f"layer/{n}", edited=True) for p, n in zip(edited.all, names, strict=True)]
    was, now = read(work.out / before.file), read(work.out / shown[0].file)
    texts = ("before", "after", "the layer", "its opacity", "over green")
    told = work.likeness(now, PROMPT) - work.likeness(was, PROMPT)
    outside = render([SCENE]).masks[0, 0] <= 0.5
    moved = 255 * float((now - was).abs().mean(1)[0][outside].mean())
    return Chapter(
        name="layer",
        title="By a layer",
        method="text2live",
        text="Text2LIVE: a small network learns, on this picture alone and by CLIP alone, a layer of colour "
        "and opacity. It lies over the picture, in any program.",
        rows=(
            Row(
                text=PROMPT,
                pictures=tuple(
                    one.replace(text=text) for one, text in zip((before, *shown), texts, strict=True)
                ),
            ),
        ),
        scores=_scores(told, moved),
        checks=(
            Check(
                claim="The layer, laid over the picture by Pillow, is the result (levels of difference)",
                figure=_difference(work, before, *shown[:2]),
                limit=ROUNDING,
                at_most=True,
            ),
            *_checks("picture", told, moved, ELSEWHERE),
        ),
        commands=(
            work.command(
                *("edit", "text2live", work.out / before.file, "--prompt", PROMPT, "--seed", SEED),
                *(
                    word
                    for name, value in _steps(work.amount.layer_steps).items()
                    for word in (f"--{name}", value)
                ),
                *("-o", work.out / "layer/again.png"),
            ),
        ),
    )


def _scores(told: float, moved: float) -> tuple[Score, ...]:
    return (
        Score(name="nearer to the words", value=told, what="gain in CLIP's likeness of pictures and words"),
        Score(name="elsewhere", value=moved, what="mean change off the thing, in 255ths; less is better"),
    )


def _checks(what: str, told: float, moved: float, elsewhere: float) -> tuple[Check, ...]:
    return (
        Check(claim=f"The result is nearer to the words than the {what} was", figure=told, limit=NEARER),
        Check(
            claim=f"The rest of the {what} stays (mean change, in 255ths)",
            figure=moved,
            limit=elsewhere,
            at_most=True,
        ),
    )


def _steps(steps: int | None) -> dict[str, int]:
    return {} if steps is None else {"steps": steps}


def _difference(work: Work, before: Shown, result: Shown, layer: Shown) -> float:
    """The largest difference, in levels, of the result from what Pillow makes of picture and layer."""
    with Image.open(work.out / before.file) as ground, Image.open(work.out / layer.file) as over:
        laid = Image.alpha_composite(ground.convert("RGBA"), over.convert("RGBA")).convert("RGB")
    with Image.open(work.out / result.file) as picture:
        apart = np.asarray(laid, np.int16) - np.asarray(picture.convert("RGB"), np.int16)
    return float(np.abs(apart).max())


def clip(work: Work) -> Loop[Chapter]:
    """A clip, edited once in its atlas."""
    video, atlas = demo_clip.unpack(work.out / "clip")
    steps = work.amount.clip_steps
    config = VideoEditConfig.of({"prompt": CLIP_PROMPT, "seed": SEED, "steps": steps})
    out = work.out / "clip/edited.apng"
    job = VideoJob.of(config, video, out, atlas=atlas, overwrite=True)
    with work.timed("learning"):
        yield from edit_video_to(job)
    before, after = (read_video(place).frames.float() / 255 for place in (video, out))
    _, where = demo_clip.truth()
    yield Progress(stage="looking", step=1, total=1)
    wobble = [demo_clip.wobble(frames) for frames in (before, after)]
    off = ~max_pool2d(where[:, None].float(), 2 * RIM + 1, stride=1, padding=RIM)[:, 0].bool()
    moved = 255 * float((after - before).abs().mean(1)[off].mean())
    told = _likenesses(work, after) - _likenesses(work, before)
    shown = (
        Shown(file="clip/clip.apng", text="the clip"),
        Shown(file="clip/edited.apng", text="edited"),
        Shown(file="clip/edited-layer.png", text="the layer, in the atlas"),
    )
    return Chapter(
        name="clip",
        title="A clip, by one layer",
        method="text2live",
        text="An atlas unrolls the clip into one picture of what moves in front and one of what lies "
        "behind. The layer is learnt on the atlas and mapped back, so it moves with the thing.",
        rows=(Row(text=f"{CLIP_PROMPT} (it was: {caption(demo_clip.CLIP.scene)})", pictures=shown),),
        scores=(
            Score(
                name="warp error", value=wobble[1], what=f"change along the motion; {wobble[0]:.4f} before"
            ),
            *_scores(told, moved),
        ),
        checks=(
            Check(
                claim="The edit moves with the thing (warp error over that of the clip as it was)",
                figure=wobble[1] / wobble[0],
                limit=WOBBLE,
                at_most=True,
            ),
            *_checks("clip", told, moved, ELSEWHERE_IN_CLIP),
        ),
        commands=(
            work.command(
                *("edit", "text2live", video, "--atlas", atlas, "--prompt", CLIP_PROMPT),
                *("--steps", steps, "--seed", SEED, "-o", work.out / "clip/again.apng"),
            ),
        ),
    )


def _likenesses(work: Work, frames: torch.Tensor) -> float:
    """Mean over every fifth frame."""
    some = frames[::5]
    return sum(work.likeness(frame[None], CLIP_PROMPT) for frame in some) / len(some)
