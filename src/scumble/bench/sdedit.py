"""SDEdit measured on scenes whose truth is known (Meng et al. 2021, section 4, figures 4 and 5, in a world of
toys): strokes to pictures over t0, the search for t0 against the best one, and edits of a part.

All scenes are combinations that training never shows. Realism is KID on the features of the toy world's
judge, to fresh renders; it does not compare with published figures, which are on Inception's features.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import torch
from PIL import Image
from pydantic import Field
from torch import Tensor
from torch.nn.functional import max_pool2d

from scumble.bench.common import as_saved, claim, judged, kept, percent, written
from scumble.core.config import Config
from scumble.core.events import Loop, Progress, finish
from scumble.core.images import from_unit, grid, save_image, to_model, to_unit
from scumble.data.paintings import Painting, painting
from scumble.data.strokes import stroke_painting
from scumble.methods import sdedit
from scumble.metrics.kid import kid
from scumble.metrics.l2 import l2
from scumble.models import toybox
from scumble.models.judge import Judge
from scumble.models.load import load
from scumble.models.model import Model
from scumble.world.render import render
from scumble.world.sampling import PROFILES, dice, pick, sample_scene
from scumble.world.scene import COLOURS, WEARERS, Scene
from scumble.world.splits import EVALUATION_SEEDS
from scumble.world.words import caption

__all__ = ["ASKED", "T0S", "Settings", "measure", "table"]

T0S = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
ASKED = ("kind", "colour", "place")
"""What a picture made from strokes has to show to be right; it is clean where the judge knows its world."""
NEAR = 0.1
"""How far from the best t0 the search may end."""
FRESH_SEED = 2 * EVALUATION_SEEDS
EDIT_SEED = EVALUATION_SEEDS + 500_000
SHEET = 8


class Settings(Config):
    """How much is measured, and with which edits."""

    count: Annotated[int, Field(ge=2)] = 200
    """Scenes painted over from strokes at each t0."""
    edits: Annotated[int, Field(ge=1)] = 60
    """Scenes with a colour brushed over a thing, and as many with sunglasses sketched onto an animal."""
    fresh: Annotated[int, Field(ge=2)] = 1000
    """Renders that realism is measured against."""
    steps: Annotated[int, Field(ge=1, le=1000)] = 12
    """Denoising steps of an edit."""
    sampler: str = "dpmpp_2m"
    """How each step is taken."""
    edit_t0: Annotated[float, Field(gt=0, le=1)] = 0.6
    """t0 of the edits of a part."""


@dataclass(frozen=True)
class _Bench:
    settings: Settings
    model: Model
    judge: Judge
    out: Path

    @property
    def config(self) -> sdedit.Config:
        return sdedit.Config(steps=self.settings.steps, sampler=self.settings.sampler)

    @cached_property
    def scenes(self) -> list[Scene]:
        """Photos of one thing."""
        seeds = range(EVALUATION_SEEDS, EVALUATION_SEEDS + self.settings.count)
        return [sample_scene(seed, profile=PROFILES["photo"], split="held_out") for seed in seeds]

    @cached_property
    def renders(self) -> Tensor:
        """What the strokes are of: (N, 3, H, W) in [0, 1]."""
        return as_saved(render(self.scenes).pixels)

    @cached_property
    def strokes(self) -> list[Painting]:
        guides = [to_unit(stroke_painting(picture)) for picture in from_unit(self.renders)]
        return [painting(g, prompt=caption(s)) for g, s in zip(guides, self.scenes, strict=True)]


def measure(out: Path, settings: Settings) -> Loop[dict[str, Any]]:
    """Measure SDEdit on the toybox into the folder `out`: pictures, `scores.json`, `table.md`, `sheet.png`.

    A run that was stopped goes on where it was. Raises InputError where `out` holds another run.
    """
    start = time.perf_counter()
    model = load("toybox")
    claim(out, {"settings": settings.model_dump(mode="json"), "weights": model.hash})
    bench = _Bench(settings, model, toybox.judge(), out)
    fresh = yield from _fresh(bench)
    rows, drawn = yield from _over_t0(bench, fresh)
    scores: dict[str, Any] = {
        "settings": settings.model_dump(mode="json"),
        "renders": _row(bench, bench.renders, fresh),
        "strokes": _row(bench, torch.cat([p.guide for p in bench.strokes]), fresh),
        "over t0": rows,
        "words alone": _row(bench, (yield from _from_words(bench)), fresh),
        "auto": (yield from _searched(bench, drawn)),
        "colour edit": (yield from _edited(bench, "colour", _brushed)),
        "sunglasses": (yield from _edited(bench, "sunglasses", _sketched)),
    }
    return written(out, scores, table, begun=start)


def table(scores: dict[str, Any]) -> str:
    """The scores as Markdown."""
    asked = " | ".join(ASKED)
    rows = [f"| t0 | L2 to the strokes | KID | {asked} | clean and right |", "|---|---|---|---|---|---|---|"]
    ends = {name: scores[name] for name in ("renders", "strokes", "words alone")}
    for name, row in {**ends, **scores["over t0"]}.items():
        shares = " | ".join(percent(row[question]) for question in (*ASKED, "right"))
        rows.append(f"| {name} | {row['l2']:.1f} | {row['kid']:.2f} ± {row['kid spread']:.2f} | {shares} |")
    auto = scores["auto"]
    rows += [
        "",
        f"`auto` ends within {NEAR} of the best t0 in {percent(auto['near'])} of the {auto['scenes']} scenes"
        f" that come out right at some t0 (goal 80 %).",
        "",
        "| edit of a part | right | of | pixels outside changed |",
        "|---|---|---|---|",
    ]
    for name in ("colour edit", "sunglasses"):
        row = scores[name]
        rows.append(f"| {name} | {percent(row['right'])} | {row['scenes']} | {row['changed outside']} |")
    return "\n".join(rows)


def _fresh(bench: _Bench) -> Loop[Tensor]:
    """Features (M, F) of fresh renders of the same kind of scene."""
    parts: list[Tensor] = []
    for first in range(0, bench.settings.fresh, 20):
        seeds = range(FRESH_SEED + first, FRESH_SEED + min(first + 20, bench.settings.fresh))
        scenes = [sample_scene(seed, profile=PROFILES["photo"]) for seed in seeds]
        parts.append(_features(bench.judge, render(scenes).pixels))
        yield Progress(stage="rendering", step=seeds.stop - FRESH_SEED, total=bench.settings.fresh)
    return torch.cat(parts)


@torch.inference_mode()
def _features(judge: Judge, pixels: Tensor) -> Tensor:
    return torch.cat([judge.features(to_model(part)) for part in as_saved(pixels).split(64)])


def _painted(
    bench: _Bench, jobs: Sequence[Painting], chosen: Sequence[int], config: sdedit.Config
) -> list[Image.Image]:
    """One edit of each of the chosen jobs, its number for its seed."""
    batch = [jobs[i] for i in chosen]
    edited = finish(sdedit.edit(bench.model, batch, chosen, config, batch_size=len(batch)))
    return from_unit(torch.stack(edited))


def _over_t0(bench: _Bench, fresh: Tensor) -> Loop[tuple[dict[str, Any], list[Tensor]]]:
    """A row of figures and the pictures (N, 3, H, W) for each t0."""
    rows: dict[str, Any] = {}
    drawn: list[Tensor] = []
    for t0 in T0S:
        config = bench.config.replace(t0=t0)

        def draw(batch: Sequence[int], config: sdedit.Config = config) -> list[Image.Image]:
            return _painted(bench, bench.strokes, batch, config)

        pictures = yield from kept(bench.out / f"t0 {t0}", len(bench.strokes), draw, f"painting, t0 {t0}")
        rows[str(t0)] = _row(bench, pictures, fresh)
        drawn.append(pictures)
    guides = [p.guide for p in bench.strokes[:SHEET]]
    columns = [torch.cat(guides), *(pictures[:SHEET] for pictures in drawn)]
    cells = from_unit(torch.stack(columns, dim=1).flatten(0, 1))
    save_image(grid(cells, columns=len(columns)), bench.out / "sheet.png")
    return rows, drawn


def _from_words(bench: _Bench) -> Loop[Tensor]:
    """(N, 3, H, W) drawn from the scenes' captions and a plain grey sheet at t0 1: what the model reaches by
    itself.
    """
    sheets = [painting(torch.full_like(p.guide, 0.5), prompt=p.prompt) for p in bench.strokes]
    config = bench.config.replace(t0=1.0)

    def draw(batch: Sequence[int]) -> list[Image.Image]:
        return _painted(bench, sheets, batch, config)

    return (yield from kept(bench.out / "words alone", len(sheets), draw, "painting from words"))


def _row(bench: _Bench, pictures: Tensor, fresh: Tensor) -> dict[str, float]:
    """Faithfulness, realism and what the judge says of one set of pictures."""
    distance = kid(_features(bench.judge, pictures), fresh)
    answers = judged(bench.judge, pictures).scores(bench.scenes)
    shares = {name: sum(filter(None, answers[name])) / len(bench.scenes) for name in ASKED}
    return {
        "l2": float(l2(pictures, torch.cat([p.guide for p in bench.strokes])).mean()),
        "kid": distance.mean,
        "kid spread": distance.spread,
        "right": float(_right(bench, pictures).float().mean()),
        **shares,
    }


def _right(bench: _Bench, pictures: Tensor) -> Tensor:
    """(N,) whether each is clean and right to the judge."""
    verdict = judged(bench.judge, pictures)
    answers = verdict.scores(bench.scenes)
    asked = torch.tensor([[bool(answer) for answer in answers[name]] for name in ASKED])
    return asked.all(0) & (verdict.known > 0)


def _searched(bench: _Bench, drawn: list[Tensor]) -> Loop[dict[str, Any]]:
    """How near the search, which knows no judge, comes to the least t0 that gives a right picture."""
    right = torch.stack([_right(bench, pictures) for pictures in drawn])  # (T, N)
    reached = [i for i in range(right.shape[1]) if bool(right[:, i].any())]
    found: list[dict[str, float]] = []
    for done, i in enumerate(reached, 1):
        best = T0S[int(right[:, i].int().argmax())]
        t0 = finish(sdedit.find_t0(bench.model, bench.strokes[i], i, bench.config))
        found.append({"scene": i, "best": best, "found": t0})
        yield Progress(stage="searching t0", step=done, total=len(reached))
    near = [abs(row["found"] - row["best"]) <= NEAR + 1e-9 for row in found]
    return {"scenes": len(found), "near": sum(near) / max(1, len(near)), "each": found}


@dataclass(frozen=True, slots=True)
class _Part:
    """A picture to be edited in a part, and what it has to show afterwards."""

    job: Painting
    wanted: Scene
    questions: tuple[str, ...]


def _edited(bench: _Bench, name: str, make: Callable[[int], _Part]) -> Loop[dict[str, Any]]:
    parts = [make(EDIT_SEED + i) for i in range(bench.settings.edits)]
    config = bench.config.replace(t0=bench.settings.edit_t0)

    def draw(batch: Sequence[int]) -> list[Image.Image]:
        return _painted(bench, [part.job for part in parts], batch, config)

    pictures = yield from kept(bench.out / name, len(parts), draw, name)
    answers = judged(bench.judge, pictures).scores([part.wanted for part in parts])
    right = [all(answers[question][i] for question in part.questions) for i, part in enumerate(parts)]
    originals = torch.cat([part.job.original for part in parts])
    outside = torch.cat([part.job.mask for part in parts]) == 0
    changed = int(((pictures != as_saved(originals)) & outside).any(1).sum())
    rows = [(p.job.original, p.job.guide, pictures[i : i + 1]) for i, p in enumerate(parts[:SHEET])]
    cells = from_unit(torch.cat([picture for row in rows for picture in row]))
    save_image(grid(cells, columns=6), bench.out / f"{name}.png")
    return {"scenes": len(parts), "right": sum(right) / len(parts), "changed outside": changed}


def _brushed(seed: int) -> _Part:
    """Another colour brushed over a thing, its shading still showing through."""
    scene = sample_scene(seed, profile=PROFILES["photo"])
    thing = replace(scene.things[0], material="matte", effect=None, accessory=None)
    colour = pick(dice(seed, "brush"), [name for name in COLOURS if name != thing.colour])
    scene = replace(scene, things=(thing,), view="front")
    wanted = replace(scene, things=(replace(thing, colour=colour),))
    drawn = render([scene])
    original, where = as_saved(drawn.pixels), (drawn.masks[:, :1] > 0.5).float()
    paint = torch.tensor(COLOURS[colour]).reshape(1, 3, 1, 1)
    guide = torch.where(where > 0, 0.3 * original + 0.7 * paint, original)
    job = painting(guide, original=original, mask=where, prompt=caption(wanted))
    return _Part(job, wanted, ("kind", "colour"))


def _sketched(seed: int) -> _Part:
    """Two dark discs and a bar over the eyes of an animal."""
    rng = dice(seed, "sunglasses")
    scene = sample_scene(seed, profile=PROFILES["photo"])
    kind = pick(rng, sorted(WEARERS))
    thing = replace(scene.things[0], kind=kind, material="matte", effect=None, accessory=None, size="large")
    scene = replace(scene, things=(thing,), view="front")
    wanted = replace(scene, things=(replace(thing, accessory="sunglasses", accessory_colour="black"),))
    original = as_saved(render([scene]).pixels)
    sketch = _glasses(scene)
    guide = torch.where(sketch > 0, torch.full_like(original, 0.07), original)
    around = max_pool2d(sketch[None, None], 9, 1, 4)
    job = painting(guide, original=original, mask=around, prompt=caption(wanted))
    return _Part(job, wanted, ("kind", "accessory"))


def _glasses(scene: Scene) -> Tensor:
    """(H, W) 1 where coarse sunglasses are drawn: where those of the renderer would be, found on a white twin
    of the thing by what turns dark.
    """
    thing = replace(
        scene.things[0], colour="white", look=replace(scene.things[0].look, second_colour="white")
    )
    worn = replace(thing, accessory="sunglasses", accessory_colour="black")
    bare, dressed = (render([replace(scene, things=(t,))]).pixels[0].mean(0) for t in (thing, worn))
    rows, columns = torch.where(bare - dressed > 0.3)
    top, bottom = int(rows.min()), int(rows.max()) + 1
    left, right = int(columns.min()), int(columns.max()) + 1
    y, x = torch.meshgrid(*(torch.arange(side) + 0.5 for side in bare.shape), indexing="ij")
    radius, middle = min((right - left) / 4.2, (bottom - top) / 1.8), (top + bottom) / 2
    discs = [
        (x - centre).square() + (y - middle).square() < radius**2
        for centre in (left + radius, right - radius)
    ]
    bar = ((y - middle).abs() < 1.5) & (x > left) & (x < right)
    return (discs[0] | discs[1] | bar).float()
