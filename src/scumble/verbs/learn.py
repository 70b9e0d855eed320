"""Learning a subject: from folders of pictures to one weights file."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from PIL.Image import Image

from scumble.adapters.weights import Weights
from scumble.core.config import Config
from scumble.core.errors import ConfigError, InputError
from scumble.core.events import Loop, Progress, finish
from scumble.core.files import sha256
from scumble.core.images import from_unit
from scumble.core.runs import RunFolder
from scumble.data.subjects import Subject, read_subject
from scumble.data.templates import TEMPLATES
from scumble.methods import custom_diffusion, dreambooth, textual_inversion
from scumble.models.model import Model
from scumble.sampling import estimate
from scumble.sampling.estimate import Cost, Estimate
from scumble.sampling.guided import default_guidance
from scumble.sampling.image_to_image import grid
from scumble.sampling.text_to_image import SamplerOptions, Task, text_to_image
from scumble.sampling.upscaling import no_words, upscaling
from scumble.training.examples import precision
from scumble.training.fit import FitConfig, Fitted, check_optimiser
from scumble.training.processes import is_main_process, processes
from scumble.verbs.learn_inputs import (
    kept,
    note_finished,
    open_run,
    read_inputs,
    run_folder,
    same_inputs,
    same_settings,
    warnings,
)
from scumble.verbs.lineage import remember_learnt
from scumble.verbs.load import RANDOM_MODEL, ModelConfig

__all__ = [
    "METHODS",
    "Learnt",
    "Method",
    "called",
    "config_for",
    "estimate_learn",
    "for_learning",
    "learn",
    "learn_to",
    "read_inputs",
    "run_folder",
]

PREVIEW_STEPS = 15
"""Denoising steps of a preview."""
PASSES = 3
"""A step costs about three forward passes: one forward, and backward twice as much."""


class Method(Protocol):
    """What a module of `scumble.methods` that learns has."""

    PRESETS: dict[str, Any]

    def check(self, model: Model, subjects: Sequence[Subject], config: Any) -> None: ...

    def learn(
        self, model: Model, subjects: Sequence[Subject], config: Any, *, run: RunFolder | None = None
    ) -> Loop[tuple[Weights, Fitted]]: ...


METHODS: dict[str, Method] = {
    "textual-inversion": cast("Method", textual_inversion),
    "dreambooth": cast("Method", dreambooth),
    "custom-diffusion": cast("Method", custom_diffusion),
}
"""The methods that learn, by the names that the command line has for them."""


@dataclass(frozen=True, slots=True)
class Learnt:
    """What came of learning."""

    path: Path
    sha256: str
    bytes: int
    steps: int
    note: str = ""
    """What the person should know, in sentences."""
    words: list[str] = field(default_factory=list[str])
    use: str = ""
    """How the first subject is spoken of in a prompt."""
    prompt: str = ""
    """A prompt to begin with."""
    before: str = ""
    """What was said before the work, of the pictures and of the consent of people."""


def config_for(method: str, model: str, preset: str | None, file: Path | None, **given: Any) -> FitConfig:
    """Settings of `method`: a preset's (toybox's own for the toybox, `default` elsewhere), under those of the
    TOML `file`, under those given that are not None.
    """
    if method not in METHODS:
        raise ConfigError(f"There is no method {method!r}.", f"Choose one of {', '.join(METHODS)}.")
    presets = METHODS[method].PRESETS
    name = preset or ("toybox" if model == "toybox" else "default")
    if name not in presets:
        raise ConfigError(f"There is no preset {name!r}.", f"Choose one of {', '.join(presets)}.")
    base: Config = presets[name]
    chosen = {key: value for key, value in given.items() if value is not None}
    written = type(base).from_toml(file).model_dump(exclude_unset=True) if file else {}
    return cast("FitConfig", base.replace(**(written | chosen)))


def learn(
    method: str,
    *subjects: tuple[Path | str, str, str],
    model: str = "toybox",
    upscaler: str | None = None,
    preset: str | None = None,
    **given: Any,
) -> Weights:
    """Learn subjects, each (folder, word, class noun), by `method`; settings are those of the method.

    `custom-diffusion` learns a concept from captions alone where word and noun are empty; `dreambooth` tunes
    the model `upscaler` too, if one is given.

    >>> weights = scumble.learn("textual-inversion", ("photos/rex", "<rex>", "dog"))
    >>> weights.save("rex.safetensors")
    """
    config = config_for(method, model, preset, None, **given)
    read = [read_subject(*subject) for subject in subjects]
    on = for_learning(ModelConfig(model=model))
    larger = _upscaler(method, upscaler, config, on)
    weights, _ = finish(METHODS[method].learn(on.load(), read, config))
    if larger is not None:
        weights, _ = finish(_tuned(weights, larger, read, config))
    return weights


def learn_to(
    method: str,
    subjects: Sequence[tuple[Path, str, str]],
    config: FitConfig,
    on: ModelConfig,
    out: Path,
    *,
    upscaler: str | None = None,
    overwrite: bool = False,
    preview_every: int = 0,
) -> Loop[Learnt]:
    """Learn and write the weights to `out`, from the newest checkpoint of the run in `run_folder(out)`; from
    the first step where that run is finished and `out` is to be overwritten.

    What DreamBooth teaches the model `upscaler`, if one is given, goes into the same file. All input is read
    and every name checked before the work. After every `preview_every` steps the model draws the first
    subject, for the record and into the run's folder. Raises InputError where `out` is there already.
    """
    read = read_inputs(subjects, out, overwrite=overwrite)
    if before := " ".join(warnings(read)):
        yield Progress(stage="reading", step=1, total=1, note=before)
    larger = _upscaler(method, upscaler, config, on)
    model = for_learning(on).load()
    notes = [RANDOM_MODEL] if model.is_random else []
    _check(method, model, read, config)
    run = open_run(out, overwrite=overwrite, keep=config.keep)
    use, prompt = _spoken(method, read[0], config)
    with _alone(run):
        about = same_inputs(run, method, read, model, config)
        same_settings(run, config)
        if kept(run.path):
            yield Progress(stage="reading", step=1, total=1, note=f"Going on from {run.path}.")
        learning = METHODS[method].learn(model, read, config, run=run)
        weights, fitted = yield from _watched(learning, model, config, prompt, preview_every, run)
        notes += fitted.notes
        if larger is not None:
            large_run = RunFolder(run.path / "upscaler", keep=config.keep)
            same_inputs(large_run, method, read, larger, config)
            weights, more = yield from _tuned(weights, larger, read, config, large_run)
            notes += more.notes
    if "regularization" in about:  # whose name alone says little, and whose place is nobody's business
        weights = replace(weights, training={**weights.training, "regularization": about["regularization"]})
    if is_main_process():
        weights.save(out)
        remember_learnt(out, method, subjects, read, config, on, model)
        note_finished(run, out)
    processes().wait_for_everyone()
    if fitted.stopped_early:
        notes.append(f"Stopped after {fitted.steps} steps: the held-out loss fell no more.")
    note, words = " ".join(notes), list(weights.words)
    return Learnt(out, sha256(out), out.stat().st_size, fitted.steps, note, words, use, prompt, before)


def _check(method: str, model: Model, subjects: Sequence[Subject], config: FitConfig) -> None:
    """Raise, before the work, what the method's own `check` raises, InputError for a size that the model
    cannot draw, and MissingExtraError for an optimiser that is not there.
    """
    METHODS[method].check(model, subjects, config)
    model.latent_shape(_side(model, config), _side(model, config))
    check_optimiser(config)


def _side(model: Model, config: FitConfig) -> int:
    """Of the pictures that are learnt from."""
    return getattr(config, "size", None) or model.default_size


def called(method: str, word: str, noun: str) -> str:
    """How a prompt calls what `method` has learnt: by its word and its noun; by its word alone where that
    stands for the noun, as one of Textual Inversion does.
    """
    return word if method == textual_inversion.METHOD else f"{word} {noun}".strip()


def _spoken(method: str, subject: Subject, config: FitConfig) -> tuple[str, str]:
    """How the subject is spoken of, and a prompt."""
    use = called(method, subject.word, subject.noun)
    if isinstance(config, textual_inversion.Config):
        return use, TEMPLATES[config.templates][0].replace("{}", use)
    if subject.word:
        return use, f"a photo of a {use}"
    told = next((shot.caption for shot in subject.shots if shot.caption), "")
    return told, told


@contextmanager
def _alone(run: RunFolder) -> Generator[None]:
    """Inside, no other run has the folder, and an interruption says how to go on."""
    try:
        with run.alone() if is_main_process() else nullcontext():
            yield
    except KeyboardInterrupt as stop:
        kept = run.latest_checkpoint()[0]
        state = "no state yet" if kept is None else f"the state after step {int(kept.stem)}"
        stop.add_note(f"{run.path} keeps {state}: the same command goes on from there.")
        raise


def _watched(
    loop: Loop[tuple[Weights, Fitted]],
    model: Model,
    config: FitConfig,
    prompt: str,
    every: int,
    run: RunFolder,
) -> Loop[tuple[Weights, Fitted]]:
    """`loop` itself; after every `every` steps its record has a preview, if that is not 0. What is learnt is
    in the model while the loop waits, and a preview changes nothing of it.
    """
    try:
        while True:
            try:
                event = next(loop)
            except StopIteration as stop:
                return stop.value
            if every and event.stage == "learning" and event.step % every == 0 and is_main_process():
                event = replace(event, preview=_preview(model, config, prompt))
                run.write_preview(event.step, cast("Image", event.preview))
            yield event
    finally:
        loop.close()


def _preview(model: Model, config: FitConfig, prompt: str) -> Image:
    side = _side(model, config)
    side = max(grid(model), side - side % grid(model))
    options = SamplerOptions(steps=PREVIEW_STEPS, guidance=default_guidance(model))
    task = Task(prompt=prompt, seeds=[config.seed], height=side, width=side, options=options)
    with precision(model):
        [picture] = finish(text_to_image(model, task))
    return from_unit(picture[None])[0]


def _upscaler(method: str, name: str | None, config: FitConfig, on: ModelConfig) -> Model | None:
    """The upscaler that is tuned too, loaded before the work. Raises InputError for a method without such a
    stage and for another kind of model.
    """
    if name is None:
        return None
    if not isinstance(config, dreambooth.Config):
        raise InputError(f"{method} has no super-resolution stage.", "Leave --upscaler out.")
    model = for_learning(on.replace(model=name, revision=None)).load()
    dreambooth.check_upscaler(model, config)
    return model if config.upscaler_steps else None


def _tuned(
    weights: Weights,
    upscaler: Model,
    subjects: Sequence[Subject],
    config: FitConfig,
    run: RunFolder | None = None,
) -> Loop[tuple[Weights, Fitted]]:
    """`weights` with what the upscaler learns of the same subjects."""
    assert isinstance(config, dreambooth.Config)
    part, fitted = yield from dreambooth.learn_upscaler(upscaler, subjects, config, run=run)
    return replace(weights, upscaler=part), fitted


def for_learning(on: ModelConfig) -> ModelConfig:
    """The same with a dtype to learn in where it was left open: bfloat16 on an accelerator, whose default
    float16 overflows in gradients. Of several processes each has a device of its own.
    """
    together = processes()
    if together.num_processes > 1 and on.device == "auto":
        on = on.replace(device=str(together.device))
    kind = on.device.partition(":")[0]  # a process of several has "cpu:0"
    cpu = kind == "cpu" or (kind == "auto" and not torch.accelerator.is_available())
    return on.replace(dtype="float32" if cpu else "bfloat16") if on.dtype == "auto" else on


def estimate_learn(
    config: FitConfig,
    on: ModelConfig,
    *,
    method: str = dreambooth.METHOD,
    upscaler: str | None = None,
    subjects: Sequence[Subject] = (),
) -> Estimate:
    """What learning will need, with the super-resolution stage where the model `upscaler` is tuned too, by
    tracing one pass of each denoiser without running it. Raises InputError as `learn_to` does; of `subjects`,
    if there are any.
    """
    larger = _upscaler(method, upscaler, config, on)
    model = for_learning(on).load()
    if subjects:
        _check(method, model, subjects, config)
    side = _side(model, config)
    count = config.batch * (2 if getattr(config, "prior_weight", 0.0) else 1)
    shape, time = model.latent_shape(side, side), torch.zeros((), device=model.device)
    condition = model.prompt([""], size=(side, side))

    def call() -> None:
        model.predict(torch.zeros(count, *shape, device=model.device), time, condition)

    forward = estimate.trace(call)
    models, costs = [model], [_learning(forward, config.steps)]
    nouns = {subject.noun for subject in subjects if subject.noun} or {""}
    costs.append(_class_pictures(forward, count, config, len(nouns)))
    if larger is not None:
        assert isinstance(config, dreambooth.Config)
        more = _large_pass(larger, config.batch)
        costs.append(_learning(more, config.upscaler_steps))
        models.append(larger)  # and the first stays where it is
    return estimate.needs(models, costs, config.model_dump(mode="json", exclude_none=True))


def _learning(forward: Cost, steps: int) -> Cost:
    """Of `steps` steps, whose forward pass is known."""
    return Cost(PASSES * forward.flops * steps, PASSES * forward.peak_bytes)


def _class_pictures(forward: Cost, count: int, config: FitConfig, nouns: int) -> Cost:
    """Of drawing those that go along, for so many class nouns, where they are not kept from before; `forward`
    is the cost of a pass over `count` pictures.
    """
    if not isinstance(config, dreambooth.Config | custom_diffusion.Config):
        return Cost(0, 0)
    if not config.prior_weight or getattr(config, "regularization", ""):
        return Cost(0, 0)
    passes = 2 * config.prior_steps * config.prior_count * nouns  # twice, for guidance
    return Cost(passes * forward.flops // count, 0)


def _large_pass(model: Model, count: int) -> Cost:
    """Of one pass of an upscaler's denoiser over `count` pictures of its own size."""
    shape, time = (
        model.latent_shape(model.default_size, model.default_size),
        torch.zeros((), device=model.device),
    )
    x = torch.zeros(count, shape[0] + upscaling(model).channels, *shape[1:], device=model.device)
    labels = torch.zeros(count, dtype=torch.long, device=model.device)
    condition = model.prompt([""]) if model.text_encoders else no_words(model)
    return estimate.trace(lambda: model.predict(x, time, condition, labels))
