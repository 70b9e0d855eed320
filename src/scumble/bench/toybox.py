"""The toybox measured against the truth: its judge, autoencoder and CLIP on renders, and what it draws.

All scenes, but those of the look-alikes, are combinations of thing, colour, place and style that no training
picture shows, with seeds kept for evaluation. One picture a prompt, with the number of the prompt for its
seed: nothing is chosen. Pictures are kept in the folder of the run, so a run that was stopped goes on.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import torch
from PIL import Image
from pydantic import Field
from torch import Tensor

from scumble.bench.common import BATCH, as_saved, claim, judged, kept, one_of, written
from scumble.core import rng
from scumble.core.config import Config
from scumble.core.events import Loop, Progress
from scumble.core.images import from_model, from_unit, grid, save_image, to_model
from scumble.diffusion.samplers import SAMPLERS
from scumble.diffusion.spacing import levels_for
from scumble.metrics import toy_world
from scumble.metrics.psnr import psnr
from scumble.models import toybox
from scumble.models.clip import Clip, load_clip
from scumble.models.judge import Judge
from scumble.models.load import load
from scumble.models.model import Model
from scumble.sampling.guided import default_guidance, guided
from scumble.sampling.image_to_image import decode, encode
from scumble.sampling.text_to_image import SamplerOptions, sample_latents
from scumble.world.render import render
from scumble.world.sampling import PROFILES, sample_look, sample_scene
from scumble.world.sampling import dice as chance
from scumble.world.scene import STYLES, Scene
from scumble.world.splits import EVALUATION_SEEDS
from scumble.world.words import caption, swapped

__all__ = ["GOALS", "Settings", "measure", "table"]

SHEET = 64
TRIPLES = 200
GOALS: dict[str, float] = {
    "autoencoder/psnr": 30.0,
    "autoencoder/psnr of the worst style": 27.0,
    "clip/retrieval": 0.9,
    "clip/told apart": 0.95,
    "judge/kind, front or side": 0.99,
    "judge/kind, back or above": 0.96,
    "renders/place": 0.99,
    "renders/time": 0.99,
    "renders/style": 0.99,
    "renders/colour": 0.97,
    "renders/accessory": 0.97,
    "judge/same thing": 0.98,
    "judge/none of these": 0.95,
    "drawn/kind": 0.95,
    "drawn/colour": 0.9,
    "drawn/place": 0.95,
    "drawn/time": 0.95,
    "drawn/style": 0.9,
    "drawn/accessory": 0.85,
    "drawn/both": 0.75,
}
"""What the full recipe is meant to reach, set before it was trained."""


class Settings(Config):
    """What is drawn and how."""

    count: Annotated[int, Field(ge=2)] = 500
    """Scenes, each rendered and drawn once."""
    steps: Annotated[int, Field(ge=1, le=1000)] = 25
    """Denoising steps."""
    sampler: str = "dpmpp_2m"
    """How each step is taken."""
    guidance: Annotated[float, Field(ge=0, le=100)] | None = None
    """Guidance scale; none takes the default of the model."""
    profile: str = "full"
    """Which scenes; a name in `scumble.world.sampling.PROFILES`."""
    first_seed: Annotated[int, Field(ge=0)] = EVALUATION_SEEDS
    """Seed of the first scene."""


@dataclass(slots=True)
class _Bench:
    settings: Settings
    model: Model
    judge: Judge
    clip: Clip
    out: Path
    scenes: list[Scene] = field(init=False)
    captions: list[str] = field(init=False)

    def __post_init__(self) -> None:
        s = self.settings
        seeds = range(s.first_seed, s.first_seed + s.count)
        self.scenes = [sample_scene(n, profile=PROFILES[s.profile], split="held_out") for n in seeds]
        self.captions = [caption(scene) for scene in self.scenes]

    @property
    def guidance(self) -> float:
        chosen = self.settings.guidance
        return default_guidance(self.model) if chosen is None else chosen


def measure(out: Path, settings: Settings) -> Loop[dict[str, Any]]:
    """Measure the toybox that ships: draw `settings.count` pictures into `out/drawn`, and write
    `scores.json`, `table.md` and the contact sheet `sheet.png` of the first 64.

    Raises InputError where `out` holds a run with other settings or other weights.
    """
    start = time.perf_counter()
    one_of("sampler", settings.sampler, SAMPLERS)
    one_of("profile", settings.profile, PROFILES)
    model = load("toybox")
    claim(out, {"settings": settings.model_dump(mode="json"), "weights": model.hash})
    bench = _Bench(settings, model, toybox.judge(), load_clip(toybox.clip()), out)
    pixels = yield from _rendered(bench)
    through = yield from _round_trips(bench, pixels)
    drawn = yield from _drawn(bench)
    scores: dict[str, Any] = {
        "settings": settings.model_dump(mode="json") | {"guidance": bench.guidance},
        "autoencoder": _fidelity(bench, pixels, through),
        "clip": _clip_scores(bench, pixels),
        "judge": _judge_scores(bench, pixels),
        "pictures": {"all": len(bench.scenes), "one thing, photo": sum(map(_is_simple, bench.scenes))},
    }
    for name, pictures in (("renders", pixels), ("round trips", through), ("drawn", drawn)):
        scores[name] = _verdicts(bench, pictures)
        yield Progress(stage="judging", step=len(scores) - 5, total=3)
    scores["drawn"]["retrieval"] = toy_world.retrieval(bench.clip, to_model(drawn), bench.captions)
    save_image(grid(from_unit(drawn[:SHEET]), columns=8), out / "sheet.png")
    return written(out, scores, table, begun=start)


def table(scores: dict[str, Any]) -> str:
    """The scores as Markdown: first what has a goal, then what the judge says of renders and of what is
    drawn.
    """
    rows = ["| measure | figure | goal | reached |", "|---|---|---|---|"]
    for name, goal in GOALS.items():
        group, measured = name.split("/")
        value = scores[group].get(measured)
        if value is not None:
            reached = "yes" if value >= goal else "no"
            rows.append(f"| {_words(group, measured)} | {_shown(value)} | {_shown(goal)} | {reached} |")
    rows += ["", "| the judge finds | renders | after the autoencoder | drawn | drawn: one thing, photo |"]
    rows.append("|---|---|---|---|---|")
    columns = [scores[name] for name in ("renders", "round trips", "drawn")]
    columns.append(scores["drawn"]["one thing, photo"])
    for question in (name for name, value in scores["renders"].items() if isinstance(value, float)):
        cells = [_shown(column[question]) if question in column else "" for column in columns]
        rows.append(f"| {question} | {' | '.join(cells)} |")
    return "\n".join(rows)


def _rendered(bench: _Bench) -> Loop[Tensor]:
    """(N, 3, H, W) in [0, 1], as 8-bit values."""
    parts: list[Tensor] = []
    for first in range(0, len(bench.scenes), BATCH):
        parts.append(render(bench.scenes[first : first + BATCH]).pixels)
        yield Progress(stage="rendering", step=first + len(parts[-1]), total=len(bench.scenes))
    return as_saved(torch.cat(parts))


def _round_trips(bench: _Bench, pixels: Tensor) -> Loop[Tensor]:
    """The pictures through the autoencoder and back, as 8-bit values."""
    parts: list[Tensor] = []
    for part in pixels.split(BATCH):
        with torch.inference_mode():
            parts.append(decode(bench.model, encode(bench.model, part), (part.shape[-2], part.shape[-1])))
        done = sum(len(p) for p in parts)
        yield Progress(stage="round trips", step=done, total=len(pixels))
    return as_saved(torch.cat(parts))


def _drawn(bench: _Bench) -> Loop[Tensor]:
    """One picture a caption."""

    def draw(batch: Sequence[int]) -> list[Image.Image]:
        return _draw(bench, batch)

    return (yield from kept(bench.out / "drawn", len(bench.captions), draw, "drawing"))


@torch.inference_mode()
def _draw(bench: _Bench, batch: Sequence[int]) -> list[Image.Image]:
    model, settings = bench.model, bench.settings
    options = SamplerOptions(
        sampler=settings.sampler,
        steps=settings.steps,
        guidance=bench.guidance,
    )
    side = model.default_size
    prompts = [bench.captions[i] for i in batch]
    denoise = guided(model, prompts, size=(side, side), scale=options.guidance)
    levels = levels_for(model.schedule, options.steps, options.spacing)
    generators = rng.generators(batch)
    x = rng.randn(model.latent_shape(side, side), generators) * levels[0].spread
    for step in sample_latents(denoise, x, levels, generators, options):
        x = step.x
    return from_unit(decode(model, x, (side, side)))


def _fidelity(bench: _Bench, pixels: Tensor, through: Tensor) -> dict[str, Any]:
    values = psnr(through, pixels)
    styles = [scene.style for scene in bench.scenes]
    by_style = {
        style: float(values[torch.tensor([s == style for s in styles])].mean())
        for style in STYLES
        if style in styles
    }
    worst = min(by_style.values())
    return {"psnr": float(values.mean()), "psnr of the worst style": worst, "by style": by_style}


@torch.inference_mode()
def _clip_scores(bench: _Bench, pixels: Tensor) -> dict[str, float]:
    x, others = to_model(pixels), [caption(swapped(scene, scene.seed)) for scene in bench.scenes]
    return {
        "retrieval": toy_world.retrieval(bench.clip, x, bench.captions),
        "told apart": toy_world.prefers(bench.clip, x, bench.captions, others),
    }


@torch.inference_mode()
def _judge_scores(bench: _Bench, pixels: Tensor) -> dict[str, float]:
    """Whether it tells a thing from a look-alike, knows what it does not know, and where it looks from."""
    seeds = range(bench.settings.first_seed, bench.settings.first_seed + min(TRIPLES, len(pixels)))
    twins = render([scene for seed in seeds for scene in _triple(seed)]).pixels
    spoilt = from_model(toy_world.spoilt(to_model(pixels), torch.Generator().manual_seed(0)))
    known, unknown = (judged(bench.judge, x).known for x in (pixels, spoilt))
    kind = {"kind": judged(bench.judge, pixels).scores(bench.scenes)["kind"]}
    facing = [scene.view in ("front", "side") for scene in bench.scenes]
    return {
        "same thing": toy_world.tells_same(judged(bench.judge, twins).identity),
        "none of these": toy_world.auroc(known, unknown),
        "kind, front or side": toy_world.share(kind, facing).get("kind", 0.0),
        "kind, back or above": toy_world.share(kind, [not f for f in facing]).get("kind", 0.0),
    }


def _triple(seed: int) -> tuple[Scene, Scene, Scene]:
    """A thing, the same one elsewhere, and there again one of its kind and colour with another look."""
    base = sample_scene(seed, profile=PROFILES["photo"])
    other = sample_scene(seed + EVALUATION_SEEDS, profile=PROFILES["photo"])
    thing = base.things[0]
    alike = replace(thing, look=sample_look(chance(seed, "look-alike"), thing.colour))
    return base, replace(other, things=(thing,)), replace(other, things=(alike,))


def _verdicts(bench: _Bench, pixels: Tensor) -> dict[str, Any]:
    answers = toy_world.right(judged(bench.judge, pixels), bench.scenes)
    simple = [_is_simple(scene) for scene in bench.scenes]
    return {**toy_world.share(answers), "one thing, photo": toy_world.share(answers, simple)}


def _is_simple(scene: Scene) -> bool:
    return len(scene.things) == 1 and scene.style == "photo"


def _words(group: str, measured: str) -> str:
    return f"{group}: {measured}"


def _shown(value: float) -> str:
    """Decibels as they are, shares in percent."""
    return f"{value:.1f} dB" if value > 1 else f"{100 * value:.1f} %"
