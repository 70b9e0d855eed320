"""SDEdit measured on scenes whose truth is known (Meng et al. 2021, section 4, figures 4 and 5, in a world of
toys): strokes to pictures over t0, the search for t0 against the best one, and edits of a part.

All scenes are combinations that training never shows. Realism is KID on the features of the toy world's
judge, to fresh renders; it does not compare with published figures, which are on Inception's features. The
realism of one picture, which `--t0 auto` goes by and which needs no renders, is measured beside it, so that
the one can be held against the other.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import torch
from PIL import Image
from pydantic import Field
from torch import Tensor

from scumble.bench.common import as_saved, claim, judged, kept, percent, write_json, written
from scumble.bench.plot import plot
from scumble.bench.sdedit_parts import Part, brushed, sketched
from scumble.core.config import Config
from scumble.core.events import Loop, Progress, finish
from scumble.core.images import from_unit, grid, save_image, to_model, to_unit
from scumble.data.paintings import Painting, painting
from scumble.data.strokes import stroke_painting
from scumble.methods import sdedit
from scumble.metrics.kid import kid
from scumble.metrics.l2 import l2
from scumble.metrics.pixels import mse_where
from scumble.metrics.realism import picture_residual, realism
from scumble.models import toybox
from scumble.models.judge import Judge
from scumble.models.load import load
from scumble.models.model import Model
from scumble.world.render import render
from scumble.world.sampling import PROFILES, sample_scene
from scumble.world.scene import Scene
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
PARTS = ("the original", "the guide", "the edit", "the true picture")
"""Of an edit of a part: what the judge is asked about."""


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
    edit_t0: Annotated[float, Field(gt=0, le=1)] = 0.35
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
    over_t0 = yield from _over_t0(bench)
    found = yield from _searched(bench)
    sets = {
        "renders": bench.renders,
        "strokes": torch.cat([p.guide for p in bench.strokes]),
        "words alone": (yield from _from_words(bench)),
        **{str(t0): pictures for t0, pictures in over_t0.items()},
        "auto": (yield from _at(bench, found)),
    }
    rows = yield from _rows(bench, sets, fresh)
    _draw_curve(rows, out / "curve.png")
    scores: dict[str, Any] = {
        "settings": settings.model_dump(mode="json"),
        "rows": rows,
        "realism against KID": _rank_correlation(rows),
        "auto": _near(bench, found, over_t0),
        "colour edit": (yield from _edited(bench, "colour edit", brushed)),
        "sunglasses": (yield from _edited(bench, "sunglasses", sketched)),
    }
    return written(out, scores, table, begun=start)


def table(scores: dict[str, Any]) -> str:
    """The scores as Markdown."""
    asked = " | ".join(ASKED)
    rows = [
        f"| t0 | L2 to the strokes | KID | realism of one picture | {asked} | clean and right |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, row in scores["rows"].items():
        shares = " | ".join(percent(row[question]) for question in (*ASKED, "right"))
        natural = f"{row['kid']:.2f} ± {row['kid spread']:.2f} | {row['realism']:.2f}"
        rows.append(f"| {name} | {row['l2']:.1f} | {natural} | {shares} |")
    auto = scores["auto"]
    same = ", ".join(f"{t0}: {percent(share)}" for t0, share in auto["near, the same for all"].items())
    rows += [
        "",
        f"Over t0, the realism of one picture and KID have a rank correlation of "
        f"{scores['realism against KID']:.2f}.",
        "",
        f"`auto` ends within {NEAR} of the best t0 in {percent(auto['near'])} of the {auto['scenes']} scenes"
        f" that come out right at some t0 (goal 80 %). The same t0 for all scenes does in ({same}).",
        "",
        f"| edit of a part | {' | '.join(PARTS)} | nearer to the true picture than the guide | scenes "
        "| pixels outside changed |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in ("colour edit", "sunglasses"):
        row = scores[name]
        shares = " | ".join(percent(share) for share in (*row["right"].values(), row["nearer"]))
        rows.append(f"| {name}, right | {shares} | {row['scenes']} | {row['changed outside']} |")
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


def _over_t0(bench: _Bench) -> Loop[dict[float, Tensor]]:
    """The pictures (N, 3, H, W) for each t0."""
    drawn: dict[float, Tensor] = {}
    for t0 in T0S:
        config = bench.config.replace(t0=t0)

        def draw(batch: Sequence[int], config: sdedit.Config = config) -> list[Image.Image]:
            return _painted(bench, bench.strokes, batch, config)

        drawn[t0] = yield from kept(bench.out / f"t0 {t0}", len(bench.strokes), draw, f"painting, t0 {t0}")
    guides = [p.guide for p in bench.strokes[:SHEET]]
    columns = [torch.cat(guides), *(pictures[:SHEET] for pictures in drawn.values())]
    cells = from_unit(torch.stack(columns, dim=1).flatten(0, 1))
    save_image(grid(cells, columns=len(columns)), bench.out / "sheet.png")
    return drawn


def _from_words(bench: _Bench) -> Loop[Tensor]:
    """(N, 3, H, W) drawn from the scenes' captions and a plain grey sheet at t0 1: what the model reaches by
    itself.
    """
    sheets = [painting(torch.full_like(p.guide, 0.5), prompt=p.prompt) for p in bench.strokes]
    config = bench.config.replace(t0=1.0)

    def draw(batch: Sequence[int]) -> list[Image.Image]:
        return _painted(bench, sheets, batch, config)

    return (yield from kept(bench.out / "words alone", len(sheets), draw, "painting from words"))


def _rows(bench: _Bench, sets: dict[str, Tensor], fresh: Tensor) -> Loop[dict[str, dict[str, float]]]:
    """Faithfulness, realism and what the judge says of each set of pictures."""
    left: dict[str, Tensor] = {}
    for name, pictures in sets.items():
        prompts = [p.prompt for p in bench.strokes]
        residuals = [
            picture_residual(bench.model, picture[None], prompt=prompt, seed=i)
            for i, (picture, prompt) in enumerate(zip(pictures, prompts, strict=True))
        ]
        left[name] = torch.cat(residuals)  # (N,)
        yield Progress(stage="realism", step=len(left), total=len(sets))
    rows: dict[str, dict[str, float]] = {}
    for name, pictures in sets.items():
        distance = kid(_features(bench.judge, pictures), fresh)
        answers = judged(bench.judge, pictures).scores(bench.scenes)
        natural = realism(left[name], left["strokes"], left["words alone"])
        rows[name] = {
            "l2": float(l2(pictures, sets["strokes"]).mean()),
            "kid": distance.mean,
            "kid spread": distance.spread,
            "realism": float(natural.mean()),
            "right": float(_right(bench, pictures).float().mean()),
            **{name: sum(filter(None, answers[name])) / len(bench.scenes) for name in ASKED},
        }
    return rows


def _rank_correlation(rows: dict[str, dict[str, float]]) -> float:
    """Of the mean realism of single pictures with minus KID, over t0 (Spearman)."""
    measures = torch.tensor([[rows[str(t0)]["realism"], -rows[str(t0)]["kid"]] for t0 in T0S])
    ranks = measures.argsort(0).argsort(0).double()  # (T, 2)
    return float(torch.corrcoef(ranks.T)[0, 1])


def _draw_curve(rows: dict[str, dict[str, float]], path: Path) -> None:
    """The trade-off of the paper's figure 3, over t0."""
    points = {name: (row["l2"], row["kid"], name) for name, row in rows.items()}
    curves = {
        "t0": [points[str(t0)] for t0 in T0S],
        "the strokes": [points["strokes"]],
        "words alone": [points["words alone"]],
        "auto": [points["auto"]],
    }
    save_image(plot(curves, across="L2 to the strokes: faithful to free", up="KID: natural is low"), path)


def _right(bench: _Bench, pictures: Tensor) -> Tensor:
    """(N,) whether each is clean and right to the judge."""
    verdict = judged(bench.judge, pictures)
    answers = verdict.scores(bench.scenes)
    asked = torch.tensor([[bool(answer) for answer in answers[name]] for name in ASKED])
    return asked.all(0) & (verdict.known > 0)


def _searched(bench: _Bench) -> Loop[list[float]]:
    """The t0 that the search, which knows no judge, finds for each scene."""
    place = bench.out / "found.json"
    found: list[float] = json.loads(place.read_bytes()) if place.is_file() else []
    for i in range(len(found), len(bench.strokes)):
        found.append(finish(sdedit.find_t0(bench.model, bench.strokes[i], i, bench.config)))
        write_json(place, found)
        yield Progress(stage="searching t0", step=i + 1, total=len(bench.strokes))
    return found


def _at(bench: _Bench, t0s: Sequence[float]) -> Loop[Tensor]:
    """(N, 3, H, W) painted from the strokes, each at its own t0."""

    def draw(batch: Sequence[int]) -> list[Image.Image]:
        each = (_painted(bench, bench.strokes, [i], bench.config.replace(t0=t0s[i])) for i in batch)
        return [picture for one in each for picture in one]

    return (yield from kept(bench.out / "t0 auto", len(t0s), draw, "painting, t0 auto"))


def _near(bench: _Bench, found: Sequence[float], drawn: dict[float, Tensor]) -> dict[str, Any]:
    """How often the search, and how often one t0 for all, comes near the least t0 with a right picture."""
    right = torch.stack([_right(bench, drawn[t0]) for t0 in T0S])  # (T, N)
    reached = [i for i in range(right.shape[1]) if bool(right[:, i].any())]
    best = {i: T0S[int(right[:, i].int().argmax())] for i in reached}

    def near(t0s: Sequence[float]) -> float:
        return sum(abs(t0s[i] - best[i]) <= NEAR + 1e-9 for i in reached) / max(1, len(reached))

    return {
        "scenes": len(reached),
        "near": near(found),
        "near, the same for all": {str(t0): near([t0] * len(found)) for t0 in T0S},
        "found": list(found),
        "best": best,
    }


def _edited(bench: _Bench, name: str, make: Callable[[int], Part]) -> Loop[dict[str, Any]]:
    parts = [make(EDIT_SEED + i) for i in range(bench.settings.edits)]
    config = bench.config.replace(t0=bench.settings.edit_t0)

    def draw(batch: Sequence[int]) -> list[Image.Image]:
        return _painted(bench, [part.job for part in parts], batch, config)

    pictures = yield from kept(bench.out / name, len(parts), draw, name)
    originals, guides, masks = (
        torch.cat([getattr(part.job, name) for part in parts]) for name in ("original", "guide", "mask")
    )
    truth = as_saved(render([part.wanted for part in parts]).pixels)
    sets = dict(zip(PARTS, (originals, guides, pictures, truth), strict=True))
    far, near = (mse_where(shown, truth, masks[:, 0] > 0) for shown in (guides, pictures))
    changed = int(((pictures != as_saved(originals)) & (masks == 0)).any(1).sum())
    columns = torch.stack([originals, guides, pictures], dim=1)[:SHEET]
    save_image(grid(from_unit(columns.flatten(0, 1)), columns=6), bench.out / f"{name}.png")
    return {
        "scenes": len(parts),
        "right": {shown: _share_right(bench, parts, pixels) for shown, pixels in sets.items()},
        "nearer": float((near < far).float().mean()),
        "changed outside": changed,
    }


def _share_right(bench: _Bench, parts: Sequence[Part], pictures: Tensor) -> float:
    """Of the pictures, in how many the judge sees all that was wanted, and knows its world."""
    verdict = judged(bench.judge, pictures)
    answers = verdict.scores([part.wanted for part in parts])
    asked = [all(answers[question][i] for question in part.questions) for i, part in enumerate(parts)]
    return float((torch.tensor(asked) & (verdict.known > 0)).float().mean())
