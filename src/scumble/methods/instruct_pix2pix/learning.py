"""Learning to edit: section 3.2 and equation 2 of Brooks et al. 2022, from pairs of pictures with
instructions.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from typing import Annotated, Any, Literal

import torch
from PIL import Image
from pydantic import Field
from torch import Tensor, nn

from scumble.adapters.changes import parameters_of
from scumble.adapters.conv_in import widen
from scumble.adapters.lora import ATTENTION, find_layers, low_rank
from scumble.core import rng
from scumble.core.errors import InputError, PromptError
from scumble.core.events import Loop, Progress, finish
from scumble.core.images import from_unit, grid, to_model
from scumble.core.runs import RunFolder
from scumble.data.pairs import Pair, covering, pictures
from scumble.diffusion import parameterisation
from scumble.diffusion.parameterisation import Weighting
from scumble.methods.instruct_pix2pix.editing import Config, Request, edit
from scumble.metrics.clip_edit import direction, likeness
from scumble.models.clip import Clip
from scumble.models.conditioning import Condition
from scumble.models.model import Model
from scumble.training.examples import PromptCache, gradient_checkpointing, precision
from scumble.training.fit import Average, FitConfig, Fitted, Group, fit
from scumble.training.pairs import PairLatents, View, draw, encoded, is_main_process

__all__ = ["LEARNING", "Learning", "Told", "held_out", "learn", "loss"]

HELD_SHARE = 10
"""At most one pair in so many is held out."""
MOST_TEXTS = 20_000
"""Encoded instructions that are kept."""
_ANCESTRAL = (
    "num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "prediction_type",
    "timestep_spacing", "steps_offset", "rescale_betas_zero_snr",
)  # fmt: skip
"""What a scheduler's config says of the noise, and diffusers' ancestral Euler scheduler understands."""


class Learning(FitConfig):
    """How a model learns to edit."""

    steps: Annotated[int, Field(ge=1, le=10_000_000)] = 10_000
    """Optimiser steps."""
    batch: Annotated[int, Field(ge=1, le=65_536)] = 32
    """Pairs in a step."""
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Decay of the averaged weights, which are what is handed on; 0 takes the last weights."""
    train: Literal["all", "low-rank"] = "all"
    """What of the denoiser learns beside its first convolution: all, or low-rank changes that are merged."""
    rank: Annotated[int, Field(ge=1, le=1024)] = 16
    """Rank of low-rank changes."""
    alpha: Annotated[float, Field(gt=0)] | None = None
    """Their scale times the rank; none takes the rank."""
    targets: tuple[str, ...] = ATTENTION
    """Layers with low-rank changes, by patterns of their names."""
    drop: Annotated[float, Field(ge=0, le=1 / 3)] = 0.05
    """Share of examples without the words; as many are without the picture, and as many without either."""
    weighting: Weighting = "none"
    """Weight of each time in the loss: none, min_snr, debiased."""
    size: Annotated[int, Field(ge=32, le=4096)] | None = None
    """Pixels, as the side of a square; none takes the model's own size."""
    crops: Annotated[int, Field(ge=1, le=64)] = 1
    """Cuts of each pair: the middle, then such at places of chance, of both pictures alike."""
    mirror: bool = True
    """Show pairs mirrored too, unless the instruction says left or right."""
    validate_every: Annotated[int, Field(ge=0)] = 500
    """Steps between two looks at edits of held-out pictures; 0 never looks."""
    validation: Annotated[int, Field(ge=1, le=64)] = 8
    """How many pairs are held out to look at; fewer where there are few pairs."""
    validation_steps: Annotated[int, Field(ge=1, le=1000)] = 20
    """Denoising steps of each look."""
    text_scale: Annotated[float, Field(ge=0, le=100)] = 7.5
    """s_T that the model is to be used with, the paper's; one that edits already keeps its own."""


LEARNING: dict[str, Learning] = {
    "default": Learning(),
    # The paper's: 256 pixels, 8 GPUs with 32 pairs each and 4 such steps added up, 10,000 times.
    "paper": Learning(batch=1024, micro_batch=32, lr=1e-4, size=256, ema=0.9999),
    "low-rank": Learning(train="low-rank"),
    "toybox": Learning(
        steps=4000, batch=32, lr=5e-4, warmup=100, decay="linear", weighting="min_snr", text_scale=4.0
    ),
}
"""Settings of learning, by purpose."""


class Told:
    """Instructions as a frozen text encoder reads them, each encoded once; None for none at all."""

    def __init__(self, model: Model, size: tuple[int, int]) -> None:
        self._model, self._size, self._nothing = model, size, model.empty(size=size)
        self._cache, self._texts = PromptCache(model, size), set[str]()

    def __call__(self, texts: Sequence[str | None]) -> Condition:
        """The condition of each, in order."""
        if len(self._texts) > MOST_TEXTS:  # they would fill an accelerator's memory
            self._cache, self._texts = PromptCache(self._model, self._size), set[str]()
        self._texts.update(text for text in texts if text is not None)
        return Condition.cat([self._nothing if t is None else self._cache([t]) for t in texts])


def loss(
    editor: Model,
    latents: PairLatents,
    instructions: Sequence[str],
    config: Learning,
    step: int,
    rows: Sequence[int],
    told: Told,
) -> Tensor:
    """Equation 2 for the examples `rows` of a step: ||eps - eps_theta(z_t, t, E(c_I), c_T)||^2, (B,).

    One draw r an example says what is left out, p being `config.drop`: the words for r < p, both for r < 2 p,
    the picture for r < 3 p (section 3.2.1). Without a picture the denoiser sees zeros in its place.
    """
    shown, p = draw(editor, latents, config.seed, step, rows), config.drop
    r = shown.chance
    texts = [None if float(r[i]) < 2 * p else instructions[pair] for i, pair in enumerate(shown.pairs)]
    seen = ((r < p) | (r >= 3 * p)).float().to(shown.before.device, non_blocking=True)  # (B,)
    level = editor.schedule.levels(shown.t)
    z = torch.cat([level.mix(shown.x0, shown.eps), shown.before * seen[:, None, None, None]], dim=1)
    predicted = editor.predict(z, shown.t, told(texts))
    return parameterisation.loss(
        predicted, shown.x0, shown.eps, level, editor.prediction, weighting=config.weighting
    )


def learn(
    model: Model,
    pairs: Sequence[Pair],
    config: Learning,
    *,
    run: RunFolder | None = None,
    clip: Clip | None = None,
) -> Loop[tuple[Model, Fitted]]:
    """An editing model from `model`, which stays as it is; goes on from the newest checkpoint in `run`.

    From a text-to-image model it starts with zeros for the new channels, from an editing model with that.
    Edits of held-out pairs go to `run` as pictures and, with `clip`, as scores. Raises PromptError for a
    model without words, InputError for one in float16, ImageError for pairs that cannot be read, NumericError
    where the loss is no number.
    """
    _check(model)
    kept, held = held_out(pairs, config)
    side = config.size or model.default_size
    view = View(side=side, crops=config.crops, mirror=config.mirror)
    folder = None if run is None else run.path / "latents"
    latents = yield from encoded(model, kept, view, seed=config.seed, folder=folder)
    editor, told = _editor(model, config), Told(model, (side, side))
    instructions = [pair.instruction for pair in kept]
    with gradient_checkpointing(editor, config.gradient_checkpointing), _trained(editor, config) as groups:

        def of(step: int, rows: Sequence[int]) -> Tensor:
            with precision(model):
                return loss(editor, latents, instructions, config, step, rows, told)

        def look(step: int) -> Loop[None]:
            if held and run is not None and _is_due(step, config):
                with average.shown(), precision(model):
                    sheet = _look(editor, held, config, step, run, clip)
                yield Progress(stage="looking", step=step, total=config.steps, preview=sheet)

        average = Average()
        done = yield from _followed(fit(groups, of, config, run=run, average=average), look)
    if config.validate_every and not held:
        done.notes.append(f"{len(pairs)} pairs are too few to hold some out and look at their edits.")
    return editor, done


def _followed(fitting: Loop[Fitted], look: Callable[[int], Loop[None]]) -> Loop[Fitted]:
    """The fit, with a look after each step."""
    while True:
        try:
            event = next(fitting)
        except StopIteration as stop:
            return stop.value
        yield event
        yield from look(event.step)


def held_out(pairs: Sequence[Pair], config: Learning) -> tuple[list[Pair], list[Pair]]:
    """The pairs to learn from and those to look at: no caption before, nor picture, is in both."""
    wanted = min(config.validation, len(pairs) // HELD_SHARE) if config.validate_every else 0
    groups: dict[str, list[Pair]] = {}
    for pair in pairs:
        groups.setdefault(pair.input_caption or pair.input.name, []).append(pair)
    held: set[str] = set()
    for name in sorted(groups, key=lambda name: rng.derive(config.seed, "held out", name)):
        if sum(len(groups[group]) for group in held) < wanted and len(held) + 1 < len(groups):
            held.add(name)
    kept = [pair for name, group in groups.items() if name not in held for pair in group]
    return kept, [pair for name in sorted(held) for pair in groups[name]][:wanted]


# Details


def _check(model: Model) -> None:
    if not model.text_encoders:
        raise PromptError(f"{model.name} is a model without words.", "Choose one that reads prompts.")
    if model.dtype == torch.float16:
        raise InputError("Learning in float16 overflows.", "Take --dtype bfloat16 or float32.")


def _editor(model: Model, config: Learning) -> Model:
    """An editing model with a denoiser of its own, whose scheduler is the one that such models are saved
    with; the other networks are shared.
    """
    denoiser: Any = deepcopy(model.denoiser)
    if config.train == "all":
        denoiser = denoiser.float()  # masters: at rates like 1e-4 half precision loses most steps
    if not model.condition_channels:
        widen(denoiser, model.latent_channels)
    known = {key: value for key, value in model.checkpoint.scheduler.items() if key in _ANCESTRAL}
    scheduler = {"_class_name": "EulerAncestralDiscreteScheduler", **known}
    # What draws well by a caption says nothing about instructions.
    guidance = model.checkpoint.guidance if model.condition_channels else config.text_scale
    return replace(
        model,
        name=f"{model.name}-instruct",
        denoiser=denoiser,
        dtype=torch.float32,
        checkpoint=replace(model.checkpoint, scheduler=scheduler, guidance=guidance),
        condition_channels=model.condition_channels or model.latent_channels,
        words=dict(model.words),
    )


@contextmanager
def _trained(editor: Model, config: Learning) -> Generator[list[Group]]:
    """Inside, what `config` names learns; afterwards the editor has it for good, frozen, in float32."""
    denoiser: Any = editor.denoiser
    if config.train == "all":
        named: dict[str, nn.Parameter] = {f"unet.{n}": p for n, p in denoiser.named_parameters()}
        yield [Group(_learning(named))]
    else:
        denoiser.conv_in.float()
        first = {f"unet.conv_in.{name}": p for name, p in denoiser.conv_in.named_parameters()}
        layers = find_layers(editor, config.targets)
        with low_rank(layers, rank=config.rank, alpha=config.alpha, seed=config.seed) as learning:
            yield [Group(learning.named_parameters()), Group(_learning(first))]
            changes = learning.changes()
        denoiser.float()
        parameters = parameters_of(editor)
        with torch.no_grad():
            for name, change in changes.items():
                parameters[name].add_(change.against(parameters[name]))
    denoiser.requires_grad_(False)


def _learning(parameters: dict[str, nn.Parameter]) -> dict[str, nn.Parameter]:
    for parameter in parameters.values():
        parameter.requires_grad = True
    return parameters


def _is_due(step: int, config: Learning) -> bool:
    wanted = config.validate_every > 0 and is_main_process()
    return wanted and (step % config.validate_every == 0 or step == config.steps)


def _look(
    editor: Model, held: Sequence[Pair], config: Learning, step: int, run: RunFolder, clip: Clip | None
) -> Image.Image:
    """Edit the held-out pictures; into `run` go a sheet (before, edited, wanted), which is returned, and the
    scores in CLIP.
    """
    side = config.size or editor.default_size
    both = [covering(pictures(pair), side, (0.5, 0.5)) for pair in held]  # (2, 3, side, side) each
    requests = [
        Request(picture=images[:1], instruction=pair.instruction)
        for images, pair in zip(both, held, strict=True)
    ]
    seeds = [rng.derive(config.seed, "look", i) for i in range(len(held))]
    edited = torch.stack(finish(edit(editor, requests, seeds, Config(steps=config.validation_steps))))
    rows = torch.stack([torch.stack([b[0], e, b[1]]) for b, e in zip(both, edited, strict=True)])
    sheet = grid(from_unit(rows.flatten(0, 1)), columns=3)
    run.write_preview(step, sheet)
    if clip is None:
        return sheet
    before, after = to_model(rows[:, 0]), to_model(edited)
    told = [(p.input_caption, p.edited_caption) if p.edited_caption else ("", p.instruction) for p in held]
    went = direction(clip, before, after, [t[0] for t in told], [t[1] for t in told])
    kept = likeness(clip, before, after)
    run.append_step(step=step, clip_direction=float(went.mean()), clip_image=float(kept.mean()))
    return sheet
