"""Experiments on Text2LIVE: edits of toy scenes by a layer, no true mask given; and its losses left out."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from scumble.bench.claims.lab import Lab
from scumble.bench.claims.learners import Experiment, Found
from scumble.bench.common import judged
from scumble.core.events import Loop
from scumble.core.images import from_unit, read_image, save_image, to_unit
from scumble.data.video import read_video
from scumble.metrics.pixels import l1
from scumble.metrics.similarity import paired_similarity
from scumble.metrics.ssim import ssim
from scumble.verbs import demo_clip, edit_text2live
from scumble.verbs.edit_video import VideoEditConfig, VideoJob, edit_video_to
from scumble.world.instructions import Edit, changed_labels, instruct
from scumble.world.pairs import change_mask
from scumble.world.sampling import PROFILES, sample_scene
from scumble.world.splits import EVALUATION_SEEDS
from scumble.world.words import caption

__all__ = ["EXPERIMENTS"]

SEED = EVALUATION_SEEDS + 800_000
KINDS = ("material", "colour", "add effect")
PARTS = ("picture", "green")
CLIP_PROMPT = "a red rocket on the beach"


@dataclass(frozen=True, slots=True)
class _Layer:
    """One edit with what came of it, (1, 3, H, W) each in [0, 1]."""

    edit: Edit
    before: Tensor
    after: Tensor
    green: Tensor
    """The layer alone, over green."""
    screen: str
    """What the layer alone should show."""

    @property
    def elsewhere(self) -> float:
        """Mean change where the edit gives no reason for one, in 255ths."""
        stay = ~change_mask(self.edit.before, self.edit.after, self.before.shape[-1])
        if not bool(stay.any()):
            return 0.0
        rows = (pixels[0][:, stay][None, None] for pixels in (self.after, self.before))
        return 255 * float(l1(*rows))


def _layers(lab: Lab, name: str = "whole", **changes: Any) -> Loop[list[_Layer]]:
    """The edits by layers learnt with the preset, and `changes` to its weights of losses."""
    made: list[_Layer] = []
    for i in range(lab.settings.layer_scenes):
        scene = sample_scene(SEED + i, profile=PROFILES["photo"], split="held_out")
        edit = instruct(scene, SEED + i, kinds=KINDS[i % 3 :] + KINDS[: i % 3], split=None)
        given: dict[str, Any] = {"prompt": caption(edit.after), "seed": lab.settings.seed + i, **changes}
        if lab.settings.layer_steps:
            given["steps"] = lab.settings.layer_steps
        config = edit_text2live.Text2liveConfig.of(given)
        before = lab.rendered([edit.before])
        files = {part: lab.out / "layers" / name / f"{i:03d}-{part}.png" for part in PARTS}
        if not all(file.is_file() for file in files.values()):
            clip, known = config.load_clip()
            work = edit_text2live.prepare(from_unit(before)[0])
            [done] = yield from edit_text2live.paint([config], clip, known, work)
            save_image(done.image, files["picture"])
            save_image(done.green.image, files["green"])
        after, green = (to_unit(read_image(files[part]).image) for part in PARTS)
        made.append(_Layer(edit, before, after, green, config.texts.screen))
    return made


def _done(lab: Lab, layers: list[_Layer], *, before: bool = False) -> float:
    """Share of the edits that the judge finds done, or finds in the pictures as they were."""
    pixels = torch.cat([layer.before if before else layer.after for layer in layers])
    answers = judged(lab.judge, pixels).scores([layer.edit.after for layer in layers])
    return fmean(
        all(answers[name][i] is not False for name in changed_labels(layer.edit) if name in answers)
        for i, layer in enumerate(layers)
    )


def _recognised(lab: Lab) -> Loop[Found]:
    layers = yield from _layers(lab)
    done, untouched = _done(lab, layers), _done(lab, layers, before=True)
    return {"figure": done - untouched, "done": done, "untouched": untouched}


def _local(lab: Lab) -> Loop[Found]:
    layers = yield from _layers(lab)
    return {"figure": fmean(layer.elsewhere for layer in layers)}


@torch.inference_mode()
def _shown(lab: Lab, layers: list[_Layer]) -> float:
    """How like its text the layer alone is, over green."""
    told = lab.clip.text_features(
        [f"a photo of {layer.screen} in front of a green screen" for layer in layers]
    )
    return float(paired_similarity(lab.seen(torch.cat([layer.green for layer in layers])), told).mean())


def _screen(lab: Lab) -> Loop[Found]:
    whole, without = (yield from _layers(lab)), (yield from _layers(lab, "no green screen", green=0.0))
    shown = {"with": _shown(lab, whole), "without": _shown(lab, without)}
    found = {"done with": _done(lab, whole), "done without": _done(lab, without)}
    return {"figure": shown["with"] - shown["without"], **shown, **found}


def _bootstrapping(lab: Lab) -> Loop[Found]:
    whole = yield from _layers(lab)
    without = yield from _layers(lab, "no bootstrapping", bootstrapping=0.0)
    change = {name: fmean(r.elsewhere for r in row) for name, row in (("with", whole), ("without", without))}
    found = {"done with": _done(lab, whole), "done without": _done(lab, without)}
    return {"figure": change["without"] / max(change["with"], 0.05), **change, **found}


def _structure(lab: Lab) -> Loop[Found]:
    whole, without = (yield from _layers(lab)), (yield from _layers(lab, "no structure", structure=0.0))
    alike = {
        name: fmean(float(ssim(r.after, r.before)) for r in row)
        for name, row in (("with", whole), ("without", without))
    }
    found = {"done with": _done(lab, whole), "done without": _done(lab, without)}
    return {"figure": alike["with"] - alike["without"], **alike, **found}


def _video(lab: Lab) -> Loop[Found]:
    """The clip of the package, edited through the atlas of the package."""
    video, atlas = demo_clip.unpack(lab.out / "clip")
    edited = lab.out / "clip" / "edited.apng"
    given: dict[str, Any] = {"prompt": CLIP_PROMPT, "seed": lab.settings.seed}
    if lab.settings.layer_steps:
        given["steps"] = lab.settings.layer_steps
    if not edited.is_file():
        config = VideoEditConfig.of(given)
        yield from edit_video_to(VideoJob.of(config, video, edited, atlas=atlas))
    before, after = (read_video(place).frames.float() / 255 for place in (video, edited))
    wobble = {"before": demo_clip.wobble(before), "after": demo_clip.wobble(after)}
    return {"figure": wobble["after"] / wobble["before"], **wobble}


EXPERIMENTS: dict[str, Experiment] = {
    "text2live/recognised": _recognised,
    "text2live/local": _local,
    "text2live/screen": _screen,
    "text2live/bootstrapping": _bootstrapping,
    "text2live/structure": _structure,
    "text2live/video": _video,
}
"""Claim -> its experiment."""
