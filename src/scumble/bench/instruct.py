"""InstructPix2Pix measured on scenes whose truth is known (Brooks et al. 2022, section 4, in a toy world).

Scenes are combinations that training never shows, of seeds kept for evaluation. Whether an edit is done and
the rest preserved is defined in `scumble.metrics.toy_edits`; beside the editor stand rows for the true
picture after the edit and for its round trip through the autoencoder, which no editor of this model can beat,
and for the untouched picture, another one, and one of the right description drawn anew, which have to fail.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import torch
from PIL import Image
from pydantic import Field
from torch import Tensor

from scumble.bench.common import claim, kept, written
from scumble.bench.instruct_case import Case, known
from scumble.bench.instruct_table import table
from scumble.bench.instruct_truth import Truth, chains, edits, whole
from scumble.bench.plot import plot
from scumble.core.config import Config
from scumble.core.events import Loop, finish
from scumble.core.images import from_unit, save_image, to_model
from scumble.data.paintings import painting
from scumble.methods import instruct_pix2pix, sdedit
from scumble.methods.instruct_pix2pix import Request
from scumble.metrics.clip_edit import direction, likeness
from scumble.metrics.features import Features
from scumble.metrics.pixels import mse_where
from scumble.metrics.psnr import psnr
from scumble.metrics.similarity import paired_similarity
from scumble.metrics.toy_edits import Outcome, Reading
from scumble.models import toybox
from scumble.models.clip import Clip, load_clip
from scumble.models.judge import Judge
from scumble.models.load import load
from scumble.models.model import Model
from scumble.verbs.sheet import labelled
from scumble.world.instructions import EDIT_KINDS, is_local
from scumble.world.splits import EVALUATION_SEEDS
from scumble.world.words import caption

__all__ = ["IMAGE_SCALES", "T0S", "TRYING", "Settings", "measure", "table"]

IMAGE_SCALES = (1.0, 1.2, 1.4, 1.6, 1.8, 2.0, 2.2)
"""Those of the paper's figure 8."""
T0S = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Of SDEdit, which is told the caption after the edit."""
PAINT_STEPS = 12
TRYING = 900_000
"""The first seed of scenes to tune on, in place of those that are measured."""
CHAIN_SEEDS, CHAIN = 400_000, 4
"""Chains begin so many seeds later, and have so many instructions each."""
SHEET = 8


class Settings(Config):
    """How much is measured, and with which settings of the editor."""

    model: str = "toybox-instruct"
    """The editing model."""
    painter: str = "toybox"
    """The model that SDEdit paints with."""
    count: Annotated[int, Field(ge=2)] = 500
    """Scenes with an instruction each."""
    curve: Annotated[int, Field(ge=0)] = 100
    """How many of these are also edited with every image scale, and painted at every t0; 0 draws no curve."""
    chains: Annotated[int, Field(ge=0)] = 100
    """Scenes with four instructions, one after the other."""
    profile: str = "photo"
    """Which scenes: photo, core, full."""
    first: Annotated[int, Field(ge=0)] = EVALUATION_SEEDS
    """Their first seed; TRYING is for tuning."""
    steps: Annotated[int, Field(ge=1, le=1000)] = 25
    """Denoising steps of an edit."""
    image_scale: Annotated[float, Field(ge=0, le=100)] = instruct_pix2pix.Config().image_scale
    """s_I, but on the curve."""
    text_scale: Annotated[float, Field(ge=0, le=100)] | None = None
    """s_T; none takes what the makers of the model recommend."""


@dataclass(frozen=True)
class _Bench:
    settings: Settings
    model: Model
    judge: Judge
    clip: Clip
    out: Path

    @property
    def config(self) -> instruct_pix2pix.Config:
        names = ("steps", "image_scale", "text_scale")
        return instruct_pix2pix.Config.of({name: getattr(self.settings, name) for name in names})

    @cached_property
    def features(self) -> tuple[Features, Features]:
        """By which pictures are compared, with their names."""
        return Features("clip", self.clip.image_features), Features("judge", self.judge.features)


def measure(out: Path, settings: Settings) -> Loop[dict[str, Any]]:
    """Measure an editor into the folder `out`: pictures, `scores.json`, `table.md`, `sheet.png`, `curve.png`.

    A run that was stopped goes on where it was. Raises ModelError for a model that cannot edit, InputError
    where `out` holds another run.
    """
    start = time.perf_counter()
    model, painter = load(settings.model), load(settings.painter)
    instruct_pix2pix.refuse_other_models(model)
    claim(out, {"settings": settings.model_dump(mode="json"), "weights": [model.hash, painter.hash]})
    bench = _Bench(settings, model, toybox.judge(), load_clip(toybox.clip()), out)
    todo = edits(settings.count, settings.first, settings.profile)
    case = yield from known(out / "truth", todo, model, bench.judge)
    edited = yield from _edited(bench, "edited", case.truth.before, [e.text for e in todo], bench.config)
    references = _references(case)
    scores: dict[str, Any] = {
        "settings": settings.model_dump(mode="json"),
        "rows": {name: _row(bench, case, x) for name, x in {**references, "edited": edited}.items()},
        "by kind": _by_kind(bench, case, {"truth, decoded": case.ideal, "edited": edited}),
        "curve": (yield from _curve(bench, painter, case.first(settings.curve))) if settings.curve else {},
        "chains": (yield from _chains(bench)) if settings.chains else {},
    }
    _sheet(out / "sheet.png", case.truth, edited)
    return written(out, scores, table, begun=start)


# Pictures


def _references(case: Case) -> dict[str, Tensor]:
    """What every measure is tried on before an editor is: the best that can be, and what has to fail."""
    truth = case.truth
    return {
        "truth": truth.after,
        "truth, decoded": case.ideal,
        "untouched": truth.before,
        "untouched, decoded": case.trip,
        "another picture": truth.after.roll(1, 0),
        "drawn anew": truth.redraw,
    }


def _edited(
    bench: _Bench, name: str, before: Tensor, texts: Sequence[str], config: instruct_pix2pix.Config
) -> Loop[Tensor]:
    """(N, 3, H, W) in [0, 1]: each picture as its instruction has it, its number for its seed."""

    def draw(batch: Sequence[int]) -> list[Image.Image]:
        requests = [Request(picture=before[i : i + 1], instruction=texts[i]) for i in batch]
        made = finish(instruct_pix2pix.edit(bench.model, requests, batch, config, batch_size=len(batch)))
        return from_unit(torch.stack(made))

    return (yield from kept(bench.out / name, len(texts), draw, f"editing, {name}"))


def _painted(bench: _Bench, painter: Model, case: Case, t0: float) -> Loop[Tensor]:
    """The same by SDEdit, from the caption of the picture after."""
    truth, config = case.truth, sdedit.Config(t0=t0, steps=PAINT_STEPS)
    jobs = [
        painting(pixels[None], prompt=caption(edit.after))
        for pixels, edit in zip(truth.before, truth.edits, strict=True)
    ]

    def draw(batch: Sequence[int]) -> list[Image.Image]:
        made = finish(sdedit.edit(painter, [jobs[i] for i in batch], batch, config, batch_size=len(batch)))
        return from_unit(torch.stack(made))

    return (yield from kept(bench.out / f"painted t0 {t0:g}", len(jobs), draw, f"painting, t0 {t0:g}"))


# Figures


def _row(bench: _Bench, case: Case, pictures: Tensor) -> dict[str, Any]:
    """All figures of one set of pictures."""
    everything = torch.ones(len(pictures), dtype=torch.bool)
    return {
        **_shares(case.outcome(bench.judge, pictures), case.told, everything),
        **_distances(bench, case, pictures),
    }


def _shares(found: Outcome, told: Sequence[Reading], among: Tensor) -> dict[str, Any]:
    """Shares of the edits `among` (N,): to the judge, of those that it can read, and in pixels, of all."""
    readable = torch.tensor([reading.is_readable for reading in told]) & among
    judge = {"done": found.done, "preserved": found.preserved, "right": found.right}
    measured = {
        "done in pixels": found.done_in_pixels,
        "preserved in pixels": found.in_pixels,
        "right in pixels": found.right_in_pixels,
    }
    return {
        "edits": int(among.sum()),
        "readable": int(readable.sum()),
        **{name: _share(values, readable) for name, values in judge.items()},
        **{name: _share(values, among) for name, values in measured.items()},
    }


def _share(values: Tensor, among: Tensor) -> float | None:
    """The mean of `values` (N,) among some (N,) bool; None of none."""
    return float(values[among].float().mean()) if bool(among.any()) else None


@torch.inference_mode()
def _distances(bench: _Bench, case: Case, pictures: Tensor) -> dict[str, Any]:
    """To the true picture after: PSNR, and one less the cosine of features. Outside the mask of a local edit:
    error in dB, and how far that is below the autoencoder's own round trip. In CLIP: the paper's two axes.
    """
    truth = case.truth
    same = [paired_similarity(*(_unit(of(x)) for x in (pictures, truth.after))) for of in bench.features]
    local = torch.tensor([is_local(edit) for edit in truth.edits]) & truth.same.flatten(1).any(1)
    outside, floor = (_decibels(mse_where(x, truth.before, truth.same)) for x in (pictures, case.trip))
    pixels = to_model(truth.before), to_model(pictures)
    words = [caption(e.before) for e in truth.edits], [caption(e.after) for e in truth.edits]
    return {
        # 8 bits are at most half a step off: 59 dB, so that equal pictures have a mean too
        "psnr": float(psnr(pictures, truth.after).clamp(max=59.0).mean()),
        **{f"{of.name} distance": 1 - float(s.mean()) for of, s in zip(bench.features, same, strict=True)},
        "outside, dB": _share(outside, local),
        "below the round trip, dB": _share(floor - outside, local),
        "direction": float(direction(bench.clip, *pixels, *words).mean()),
        "likeness": float(likeness(bench.clip, *pixels).mean()),
    }


def _decibels(error: Tensor) -> Tensor:
    return (-10 * error.log10()).clamp(max=59.0)


def _unit(features: Tensor) -> Tensor:
    return torch.nn.functional.normalize(features.float(), dim=-1)


def _by_kind(bench: _Bench, case: Case, pictures: Mapping[str, Tensor]) -> dict[str, Any]:
    found = {name: case.outcome(bench.judge, x) for name, x in pictures.items()}
    kinds = [edit.kind for edit in case.truth.edits]
    table: dict[str, Any] = {}
    for kind in (kind for kind in EDIT_KINDS if kind in kinds):
        among = torch.tensor([other == kind for other in kinds])
        table[kind] = {name: _shares(one, case.told, among) for name, one in found.items()}
    return table


def _curve(bench: _Bench, painter: Model, case: Case) -> Loop[dict[str, Any]]:
    """CLIP direction against image similarity, over the image scale and, for SDEdit, over t0."""
    found: dict[str, Any] = {"image scale": {}, "t0": {}}
    truth = case.truth
    for scale in IMAGE_SCALES:
        config, name = bench.config.replace(image_scale=scale), f"image scale {scale:g}"
        pictures = yield from _edited(bench, name, truth.before, [e.text for e in truth.edits], config)
        found["image scale"][f"{scale:g}"] = _row(bench, case, pictures)
    for t0 in T0S:
        pictures = yield from _painted(bench, painter, case, t0)
        found["t0"][f"{t0:g}"] = _row(bench, case, pictures)
    found["truth"] = _row(bench, case, truth.after)
    curves = {
        f"{name} ({over})": [(row["direction"], row["likeness"], at) for at, row in found[over].items()]
        for name, over in (("InstructPix2Pix", "image scale"), ("SDEdit", "t0"))
    }
    curves["the true picture"] = [(found["truth"]["direction"], found["truth"]["likeness"], "")]
    drawn = plot(curves, across="CLIP direction", up="CLIP image similarity")
    save_image(drawn, bench.out / "curve.png")
    return found


def _chains(bench: _Bench) -> Loop[dict[str, Any]]:
    """Four instructions, each to what came of the last, scored in the end as one edit."""
    settings = bench.settings
    rows = chains(settings.chains, settings.first + CHAIN_SEEDS, settings.profile, CHAIN)
    edits_of_all = [whole(chain) for chain in rows]
    case = yield from known(bench.out / "truth of chains", edits_of_all, bench.model, bench.judge)
    pictures = case.truth.before
    for number in range(CHAIN):
        texts = [chain[number].text for chain in rows]
        pictures = yield from _edited(bench, f"chain {number + 1}", pictures, texts, bench.config)
    sets = {**_references(case), "edited": pictures}
    _sheet(bench.out / "chains.png", case.truth, pictures)
    return {name: _row(bench, case, x) for name, x in sets.items()}


def _sheet(path: Path, truth: Truth, edited: Tensor) -> None:
    """The first few: before, what the editor made of it, and what it should be."""
    count = min(SHEET, len(edited))
    rows = [from_unit(torch.stack([truth.before[i], edited[i], truth.after[i]])) for i in range(count)]
    said = [edit.text for edit in truth.edits[:count]]
    save_image(labelled(rows, columns=["before", "edited", "true"], rows=said), path)
