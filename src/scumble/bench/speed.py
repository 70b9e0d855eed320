"""How long pictures and edits take, as a ratio to the pipelines of diffusers on the same model, measured in
one run.

Both sides draw the same thing in turn, so that whatever else the machine does falls on both. The middle of
the ratios is given with the least and the largest, and that of the processor's seconds, which hardly depend
on what else it does. Where each side goes by its own defaults, the ratio is that of their steps, and so what
their pictures are worth is measured too, on the toybox.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from math import ceil
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import torch
from PIL import Image
from pydantic import Field

from scumble.bench.common import claim, machine, rounded, write_json
from scumble.bench.speed_quality import Maker, Scores, instructed, painted
from scumble.core import rng
from scumble.core.config import Config
from scumble.core.events import Loop, Progress, finish
from scumble.core.files import atomic_write
from scumble.core.images import from_unit, to_unit
from scumble.data.paintings import painting
from scumble.data.strokes import stroke_painting
from scumble.methods import instruct_pix2pix, sdedit
from scumble.methods.instruct_pix2pix import Request
from scumble.models import toybox
from scumble.models.clip import load_clip
from scumble.models.load import load
from scumble.models.model import Model
from scumble.sampling.guided import default_guidance
from scumble.sampling.text_to_image import SamplerOptions, Task, text_to_image
from scumble.world.instructions import instruct
from scumble.world.render import render
from scumble.world.sampling import PROFILES, sample_scene
from scumble.world.words import caption

__all__ = ["Settings", "measure", "table"]

SEED = 5
STRENGTH = 0.8
"""What the image-to-image pipeline takes for t0 unless told otherwise."""
DEFAULT_STEPS = 50
"""And its steps, of which it takes this share of t0."""


Races = dict[str, tuple[Callable[[], Any], Callable[[], Any]]]
"""Name -> our side and theirs."""


class Settings(Config):
    """What is timed."""

    model: str = "toybox"
    """The toybox or a folder of the Stable Diffusion 1 or 2 family."""
    repeats: Annotated[int, Field(ge=1)] = 9
    """How often each side is timed, after one time for warming up."""
    steps: Annotated[int, Field(ge=2)] = 20
    """Denoising steps where both sides take as many."""
    instruct: bool = False
    """Edits by instruction instead; `model` is then one that edits."""
    scored: Annotated[int, Field(ge=0)] = 60
    """Scenes on which pictures of both sides at their defaults are scored, on the toybox; 0 does without."""


def measure(out: Path, settings: Settings) -> Loop[dict[str, Any]]:
    """Time both sides and write `scores.json` and `table.md` into the folder `out`."""
    model = load(settings.model)
    known = {"toybox": toybox.folder, "toybox-instruct": toybox.editing}
    folder = known[settings.model]() if settings.model in known else Path(settings.model)
    claim(out, {"settings": settings.model_dump(mode="json"), "weights": model.hash})
    races = (_instructions if settings.instruct else _races)(model, folder, settings.steps)
    rows: dict[str, Any] = {}
    for name, (ours, theirs) in races.items():
        rows[name] = yield from _race(name, ours, theirs, settings.repeats)
    quality: Scores = {}
    if settings.scored > 1 and settings.model in known:
        measure_them, sides = (_instructors if settings.instruct else _painters)(model, folder)
        quality = yield from measure_them(out / "scored", sides, settings.scored)
    found = {"settings": settings.model_dump(mode="json"), "races": rows, "quality": quality}
    scores = rounded(found | {"machine": machine()})
    write_json(out / "scores.json", scores)
    atomic_write(out / "table.md", (table(scores) + "\n").encode())
    return scores


def table(scores: dict[str, Any]) -> str:
    """The ratios as Markdown."""
    rows = [
        "| | ours, s | diffusers, s | ratio | from ... to | of CPU seconds |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in scores["races"].items():
        spread = f"{row['least']:.2f} ... {row['most']:.2f}"
        times = f"{row['ours']:.2f} | {row['theirs']:.2f} | {row['ratio']:.2f}"
        rows.append(f"| {name} | {times} | {spread} | {row['cpu ratio']:.2f} |")
    if quality := scores["quality"]:
        heads = next(iter(quality.values()))
        rows += ["", f"| at their defaults | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
        rows += [f"| {side} | {' | '.join(map(str, row.values()))} |" for side, row in quality.items()]
    return "\n".join(rows)


def _race(
    name: str, ours: Callable[[], Any], theirs: Callable[[], Any], repeats: int
) -> Loop[dict[str, float]]:
    """Seconds of both in turn, and their ratios; the first time does not count."""
    times: list[tuple[tuple[float, float], tuple[float, float]]] = []
    for i in range(repeats + 1):
        # The one that goes first changes, in case that matters.
        order = (ours, theirs) if i % 2 else (theirs, ours)
        spent = {work: _seconds(work) for work in order}
        times.append((spent[ours], spent[theirs]))
        yield Progress(stage=name, step=i + 1, total=repeats + 1)
    ratios, on_cpu = ([mine[k] / other[k] for mine, other in times[1:]] for k in (0, 1))
    return {
        "ours": median(mine for (mine, _), _ in times[1:]),
        "theirs": median(other for _, (other, _) in times[1:]),
        "ratio": median(ratios),
        "cpu ratio": median(on_cpu),
        "least": min(ratios),
        "most": max(ratios),
    }


def _seconds(work: Callable[[], Any]) -> tuple[float, float]:
    """By the clock, and of the processor, all threads together."""
    start, spent = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - start, time.process_time() - spent


def _races(model: Model, folder: Path, steps: int) -> Races:
    """What is raced: our side and theirs, each with the same model, prompt, size and guidance."""
    scene = sample_scene(SEED, profile=PROFILES["photo"])
    prompt, side, guidance = caption(scene), model.default_size, default_guidance(model)
    [picture] = from_unit(render([scene], size=side).pixels)
    guide = stroke_painting(picture)
    draw = _pipeline("StableDiffusionPipeline", folder, guidance)
    edit = _pipeline("StableDiffusionImg2ImgPipeline", folder, guidance)
    own = _pipeline("StableDiffusionImg2ImgPipeline", folder, guidance, own=True)
    options = SamplerOptions(steps=steps, guidance=guidance)
    task = Task(prompt=prompt, seeds=[SEED], height=side, width=side, options=options)
    job = painting(to_unit(guide), prompt=prompt)

    def paint(config: sdedit.Config) -> Callable[[], Any]:
        return lambda: finish(sdedit.edit(model, [job], [SEED], config.replace(guidance=guidance)))

    whole = ceil(steps / STRENGTH)
    return {
        f"a picture, {steps} steps": (
            lambda: finish(text_to_image(model, task)),
            lambda: draw(prompt, num_inference_steps=steps, height=side, width=side),
        ),
        f"an edit, {steps} steps": (
            paint(sdedit.Config(t0=STRENGTH, steps=steps)),
            lambda: edit(prompt, image=guide, strength=STRENGTH, num_inference_steps=whole),
        ),
        f"an edit from t0 {STRENGTH}, else both at their defaults": (
            paint(sdedit.Config(t0=STRENGTH)),
            lambda: own(prompt, image=guide, strength=STRENGTH, num_inference_steps=DEFAULT_STEPS),
        ),
    }


def _instructions(model: Model, folder: Path, steps: int) -> Races:
    """Edits by instruction, and our search for the scales beside three plain edits of ours."""
    instruct_pix2pix.refuse_other_models(model)
    scene = sample_scene(SEED, profile=PROFILES["photo"])
    edit, side = instruct(scene, SEED), model.default_size
    request = Request(picture=to_unit(from_unit(render([scene], size=side).pixels)), instruction=edit.text)
    clip = load_clip(toybox.clip())
    usual = instruct_pix2pix.Config()
    scale, guidance = instruct_pix2pix.scales(model, usual)
    theirs = _pipeline("StableDiffusionInstructPix2PixPipeline", folder, guidance, own=True)
    [picture] = from_unit(request.picture)

    def ours(config: instruct_pix2pix.Config) -> Any:
        return finish(instruct_pix2pix.edit(model, [request], [SEED], config))

    def searched() -> Any:
        found = finish(instruct_pix2pix.find_scales(model, request, SEED, usual, clip))
        return ours(usual.replace(image_scale=found[0], text_scale=found[1]))

    same = usual.replace(steps=steps, sampler="euler_ancestral")
    return {
        f"an edit, {steps} steps of ancestral Euler": (
            lambda: ours(same),
            lambda: theirs(edit.text, image=picture, image_guidance_scale=scale, num_inference_steps=steps),
        ),
        "an edit, both at their defaults": (lambda: ours(usual), lambda: theirs(edit.text, image=picture)),
        "with `--auto`, beside three of our edits": (searched, lambda: [ours(usual) for _ in range(3)]),
    }


def _painters(model: Model, folder: Path) -> tuple[Callable[..., Loop[Scores]], dict[str, Maker]]:
    """Both sides at their defaults, but from the same t0, and how their paintings are scored."""
    config = sdedit.Config(t0=STRENGTH, guidance=default_guidance(model))
    pipeline = _pipeline("StableDiffusionImg2ImgPipeline", folder, default_guidance(model), own=True)

    def ours(guide: Image.Image, prompt: str, seed: int) -> Image.Image:
        made = finish(sdedit.edit(model, [painting(to_unit(guide), prompt=prompt)], [seed], config))
        return from_unit(torch.stack(made))[0]

    def theirs(guide: Image.Image, prompt: str, seed: int) -> Image.Image:
        return pipeline(prompt, seed=seed, image=guide, strength=STRENGTH).images[0]

    return painted, {"ours": ours, "diffusers": theirs}


def _instructors(model: Model, folder: Path) -> tuple[Callable[..., Loop[Scores]], dict[str, Maker]]:
    """Both sides at their defaults, but with the model's own text scale, and how their edits are scored."""
    config = instruct_pix2pix.Config()
    _, guidance = instruct_pix2pix.scales(model, config)
    pipeline = _pipeline("StableDiffusionInstructPix2PixPipeline", folder, guidance, own=True)

    def ours(picture: Image.Image, instruction: str, seed: int) -> Image.Image:
        request = Request(picture=to_unit(picture), instruction=instruction)
        return from_unit(torch.stack(finish(instruct_pix2pix.edit(model, [request], [seed], config))))[0]

    def theirs(picture: Image.Image, instruction: str, seed: int) -> Image.Image:
        return pipeline(instruction, seed=seed, image=picture).images[0]

    return instructed, {"ours": ours, "diffusers": theirs}


def _pipeline(kind: str, folder: Path, guidance: float, *, own: bool = False) -> Callable[..., Any]:
    """The pipeline with DPM++ 2M, or with its `own` scheduler."""
    import transformers

    transformers.logging.set_verbosity_error()  # loading a pipeline speaks of what is not needed here
    transformers.logging.disable_progress_bar()
    import diffusers
    from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler

    diffusers.utils.logging.disable_progress_bar()
    pipeline = getattr(diffusers, kind).from_pretrained(folder, safety_checker=None)
    if not own:
        pipeline.scheduler = DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)

    @torch.inference_mode()
    def call(prompt: str, *, seed: int = SEED, **given: Any) -> Any:
        return pipeline(prompt, guidance_scale=guidance, generator=rng.generator(seed), **given)

    return call
