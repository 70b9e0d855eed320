"""Experiments on InstructPix2Pix and SDEdit."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from statistics import fmean
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from scumble.bench.claims.lab import Lab
from scumble.bench.claims.learners import Experiment, Found
from scumble.bench.common import judged, kept
from scumble.bench.instruct_case import known
from scumble.core.events import Loop, finish
from scumble.core.images import from_unit, to_model, to_unit
from scumble.data.paintings import Painting, painting
from scumble.data.strokes import stroke_painting
from scumble.methods import instruct_pix2pix, sdedit
from scumble.methods.instruct_pix2pix import Request
from scumble.metrics.clip_edit import direction, likeness
from scumble.metrics.kid import kid
from scumble.metrics.l2 import l2
from scumble.models.model import Model
from scumble.verbs.generate import GenerateConfig, draw
from scumble.verbs.load import ModelConfig
from scumble.world.instructions import Edit, instruct
from scumble.world.render import render
from scumble.world.sampling import PROFILES, dice, pick, sample_scene
from scumble.world.scene import COLOURS, Scene
from scumble.world.splits import EVALUATION_SEEDS
from scumble.world.words import caption

__all__ = ["EXPERIMENTS"]

IMAGE_SCALES = (1.0, 1.2, 1.4, 1.6, 1.8, 2.0, 2.2)
"""Those of the paper's figure 8."""
T0S = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
PAINT_STEPS = 12
FRESH_SEED = 2 * EVALUATION_SEEDS
EDIT_SEED = EVALUATION_SEEDS + 300_000
ASKED = ("kind", "colour", "place")
GRID = 50
"""Points at which two curves are compared."""


# InstructPix2Pix


def _edits(lab: Lab) -> list[Edit]:
    """Instructions for held-out scenes."""
    scenes = [
        sample_scene(EDIT_SEED + i, profile=PROFILES["photo"], split="held_out")
        for i in range(lab.settings.scenes)
    ]
    return [instruct(scene, EDIT_SEED + i, split=None) for i, scene in enumerate(scenes)]


def _editor(lab: Lab) -> Model:
    """Raises ModelError where the toybox that edits is not there."""
    model = ModelConfig(model=lab.settings.editor).load()
    instruct_pix2pix.refuse_other_models(model)
    return model


def _followed(lab: Lab, model: Model, name: str, **changes: Any) -> Loop[Tensor]:
    """What becomes of the pictures: (N, 3, H, W)."""
    edits = _edits(lab)
    before = lab.rendered([edit.before for edit in edits])
    config = instruct_pix2pix.Config.of({"steps": lab.settings.steps, **changes})

    def draw_them(batch: Sequence[int]) -> list[Image.Image]:
        requests = [Request(picture=before[i : i + 1], instruction=edits[i].text) for i in batch]
        edited = finish(instruct_pix2pix.edit(model, requests, list(batch), config, batch_size=8))
        return from_unit(torch.stack(edited))

    return (yield from kept(lab.out / "pictures" / f"instruct-{name}", len(edits), draw_them, "editing"))


@torch.inference_mode()
def _moved(lab: Lab, after: Tensor) -> tuple[float, float]:
    """(CLIP direction, CLIP image similarity), means over the edits."""
    edits = _edits(lab)
    pixels = to_model(lab.rendered([edit.before for edit in edits])), to_model(after)
    told = [caption(edit.before) for edit in edits], [caption(edit.after) for edit in edits]
    return float(direction(lab.clip, *pixels, *told).mean()), float(likeness(lab.clip, *pixels).mean())


def _follows(lab: Lab) -> Loop[Found]:
    """Done and preserved on the same picture, so that an untouched or a spoilt one scores nothing."""
    model = _editor(lab)
    after = yield from _followed(lab, model, "usual")
    case = yield from known(lab.out / "truth of edits", _edits(lab), model, lab.judge)
    found = case.outcome(lab.judge, after)
    readable = torch.tensor([reading.is_readable for reading in case.told])
    shares = {"figure": found.right, "done": found.done, "preserved": found.preserved}
    return {name: float(values[readable].float().mean()) for name, values in shares.items()}


def _beats_sdedit(lab: Lab) -> Loop[Found]:
    """Figure 8: the curve over the image scale above that of SDEdit over t0."""
    model, edits = _editor(lab), _edits(lab)
    mine: list[tuple[float, float]] = []
    for scale in IMAGE_SCALES:
        mine.append(_moved(lab, (yield from _followed(lab, model, f"image {scale}", image_scale=scale))))
    before = lab.rendered([edit.before for edit in edits])
    jobs = [painting(p[None], prompt=caption(e.after)) for p, e in zip(before, edits, strict=True)]
    other: list[tuple[float, float]] = []
    for t0 in T0S:
        other.append(_moved(lab, (yield from _painted(lab, jobs, f"told {t0}", t0=t0))))
    gap = _gap(mine, other)
    rows = {f"image scale {s:g}": row[1] for s, row in zip(IMAGE_SCALES, mine, strict=True)}
    return {"figure": gap, **rows, **{f"t0 {t0:g}": row[1] for t0, row in zip(T0S, other, strict=True)}}


def _gap(mine: Sequence[tuple[float, float]], other: Sequence[tuple[float, float]]) -> float:
    """The mean height of one curve over another, both of (x, y), where both are; -1 where nowhere."""
    first, last = max(min(mine)[0], min(other)[0]), min(max(mine)[0], max(other)[0])
    if last <= first:
        return -1.0
    points = [first + (last - first) * i / GRID for i in range(GRID + 1)]
    return fmean(_at(mine, x) - _at(other, x) for x in points)


def _at(curve: Sequence[tuple[float, float]], x: float) -> float:
    """The curve at x between its points, which need not be in order."""
    row = sorted(curve)
    for (x0, y0), (x1, y1) in pairwise(row):
        if x0 <= x <= x1:
            return y0 + (y1 - y0) * (x - x0) / (x1 - x0) if x1 > x0 else max(y0, y1)
    return row[-1][1]


def _image_scale(lab: Lab) -> Loop[Found]:
    model, found = _editor(lab), dict[str, float]()
    for scale in (IMAGE_SCALES[0], IMAGE_SCALES[-1]):
        after = yield from _followed(lab, model, f"image {scale}", image_scale=scale)
        found[f"{scale:g}"] = _moved(lab, after)[1]
    least, most = found.values()
    return {"figure": most - least, **found}


def _text_scale(lab: Lab) -> Loop[Found]:
    model, found = _editor(lab), dict[str, float]()
    _, usual = instruct_pix2pix.scales(model, instruct_pix2pix.Config())
    for share in (0.5, 1.5):
        after = yield from _followed(lab, model, f"text {share}", text_scale=share * usual)
        found[f"{share:g} of the usual"] = _moved(lab, after)[0]
    least, most = found.values()
    return {"figure": most - least, **found}


def _seconds(lab: Lab) -> Loop[Found]:
    """Both once to warm up, then the less of three."""
    model, [edit] = _editor(lab), _edits(lab)[:1]
    before = lab.rendered([edit.before])
    config = instruct_pix2pix.Config(steps=lab.settings.steps)
    request = Request(picture=before, instruction=edit.text)

    def editing() -> object:
        return finish(instruct_pix2pix.edit(model, [request], [0], config))

    def drawing() -> object:
        told = {"prompt": caption(edit.after), "seed": 0, "steps": lab.settings.steps}
        asked = GenerateConfig.of({**told, "model": lab.settings.model})
        return finish(draw(asked, lab.model, asked.task(lab.model)))

    spent = {"an edit": _least(editing), "a picture": _least(drawing)}
    yield from ()
    return {"figure": spent["an edit"] / spent["a picture"], **spent}


def _least(work: Any) -> float:
    times: list[float] = []
    for _ in range(4):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times[1:])


# SDEdit


def _scenes(lab: Lab) -> list[Scene]:
    seeds = range(EVALUATION_SEEDS, EVALUATION_SEEDS + lab.settings.scenes)
    return [sample_scene(seed, profile=PROFILES["photo"], split="held_out") for seed in seeds]


def _stroked(lab: Lab, colours: int = 6) -> list[Painting]:
    scenes = _scenes(lab)
    guides = [to_unit(stroke_painting(p, colours=colours)) for p in from_unit(lab.rendered(scenes))]
    return [painting(g, prompt=caption(s)) for g, s in zip(guides, scenes, strict=True)]


def _painted(lab: Lab, jobs: Sequence[Painting], name: str, *, t0: float) -> Loop[Tensor]:
    config = sdedit.Config(t0=t0, steps=PAINT_STEPS)

    def draw_them(batch: Sequence[int]) -> list[Image.Image]:
        chosen = [jobs[i] for i in batch]
        edited = finish(sdedit.edit(lab.model, chosen, list(batch), config, batch_size=8))
        return from_unit(torch.stack(edited))

    return (yield from kept(lab.out / "pictures" / f"sdedit-{name}", len(jobs), draw_them, "painting"))


def _over_t0(lab: Lab) -> Loop[dict[float, Tensor]]:
    jobs = _stroked(lab)
    drawn: dict[float, Tensor] = {}
    for t0 in T0S:
        drawn[t0] = yield from _painted(lab, jobs, f"strokes {t0}", t0=t0)
    return drawn


def _fresh(lab: Lab) -> Tensor:
    """Features of fresh renders of the same kind of scene."""
    parts: list[Tensor] = []
    for first in range(0, lab.settings.fresh, 20):
        seeds = range(FRESH_SEED + first, FRESH_SEED + min(first + 20, lab.settings.fresh))
        scenes = [sample_scene(seed, profile=PROFILES["photo"]) for seed in seeds]
        parts.append(lab.features(lab.rendered(scenes)))
    return torch.cat(parts)


def _faithfulness(lab: Lab) -> Loop[Found]:
    drawn, guides = (yield from _over_t0(lab)), torch.cat([job.guide for job in _stroked(lab)])
    row = [float(l2(pictures, guides).mean()) for pictures in drawn.values()]
    rising = fmean(later > before for before, later in pairwise(row))
    return {"figure": rising, **{f"t0 {t0:g}": value for t0, value in zip(T0S, row, strict=True)}}


def _realism(lab: Lab) -> Loop[Found]:
    drawn, fresh = (yield from _over_t0(lab)), _fresh(lab)
    found = {f"t0 {t0:g}": kid(lab.features(pictures), fresh).mean for t0, pictures in drawn.items()}
    strokes = kid(lab.features(torch.cat([job.guide for job in _stroked(lab)])), fresh).mean
    return {"figure": min(found.values()) / max(strokes, 1e-9), "strokes": strokes, **found}


def _sweet_spot(lab: Lab) -> Loop[Found]:
    drawn, scenes = (yield from _over_t0(lab)), _scenes(lab)
    shares: dict[float, float] = {}
    for t0, pictures in drawn.items():
        verdict = judged(lab.judge, pictures)
        answers = verdict.scores(scenes)
        clean = (verdict.known > 0).tolist()
        shares[t0] = fmean(clean[i] and all(answers[n][i] for n in ASKED) for i in range(len(scenes)))
    best = max(shares, key=lambda t0: shares[t0])
    return {"figure": best, **{f"right at {t0:g}": share for t0, share in shares.items()}}


def _colours(lab: Lab) -> Loop[Found]:
    fresh, found = _fresh(lab), dict[str, float]()
    for count in (3, 6, 30):
        jobs = _stroked(lab, count)
        drawn = yield from _painted(lab, jobs, f"colours {count}", t0=0.5)
        found[f"{count} colours"] = kid(lab.features(drawn), fresh).mean
    return {"figure": found["3 colours"] / max(found["30 colours"], 1e-9), **found}


def _brushed(lab: Lab) -> tuple[list[Painting], list[Scene]]:
    """Another colour brushed over a thing, its shading still showing through; and what it should be then."""
    jobs: list[Painting] = []
    wanted: list[Scene] = []
    for i in range(lab.settings.scenes):
        seed = EVALUATION_SEEDS + 500_000 + i
        scene = sample_scene(seed, profile=PROFILES["photo"])
        thing = replace(scene.things[0], material="matte", effect=None, accessory=None)
        colour = pick(dice(seed, "brush"), [name for name in COLOURS if name != thing.colour])
        scene = replace(scene, things=(thing,), view="front")
        seen = render([scene], size=lab.model.default_size)
        original, where = lab.rendered([scene]), (seen.masks[:, :1] > 0.5).float()
        paint = torch.tensor(COLOURS[colour]).reshape(1, 3, 1, 1)
        guide = torch.where(where > 0, 0.3 * original + 0.7 * paint, original)
        wanted.append(replace(scene, things=(replace(thing, colour=colour),)))
        jobs.append(painting(guide, original=original, mask=where, prompt=caption(wanted[-1])))
    return jobs, wanted


def _stroke_edit(lab: Lab) -> Loop[Found]:
    jobs, wanted = _brushed(lab)
    drawn = yield from _painted(lab, jobs, "brushed", t0=0.6)
    answers = judged(lab.judge, drawn).scores(wanted)
    right = [bool(answers["kind"][i] and answers["colour"][i]) for i in range(len(wanted))]
    return {"figure": fmean(right), "colour": fmean(map(bool, answers["colour"]))}


def _outside(lab: Lab) -> Loop[Found]:
    jobs, _ = _brushed(lab)
    drawn = yield from _painted(lab, jobs, "brushed", t0=0.6)
    before = torch.cat([job.original for job in jobs])
    stay = torch.cat([job.mask for job in jobs]) == 0
    touched = ((drawn - before).abs().amax(1, keepdim=True) > 0.5 / 255) & stay
    return {"figure": float(touched.sum()), "pixels": float(stay.sum())}


EXPERIMENTS: dict[str, Experiment] = {
    "instruct-pix2pix/follows": _follows,
    "instruct-pix2pix/beats-sdedit": _beats_sdedit,
    "instruct-pix2pix/image-scale": _image_scale,
    "instruct-pix2pix/text-scale": _text_scale,
    "instruct-pix2pix/seconds": _seconds,
    "sdedit/faithfulness": _faithfulness,
    "sdedit/realism": _realism,
    "sdedit/sweet-spot": _sweet_spot,
    "sdedit/colours": _colours,
    "sdedit/stroke-edit": _stroke_edit,
    "sdedit/outside": _outside,
}
"""Claim -> its experiment."""
