"""Learning a subject: from folders of pictures to one weights file."""

from __future__ import annotations

import json
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from hashlib import sha256 as bytes_sha256
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from PIL.Image import Image

from scumble.adapters.weights import Weights
from scumble.core.config import Config
from scumble.core.errors import ConfigError, InputError
from scumble.core.events import Loop, Progress, finish
from scumble.core.files import atomic_write, sha256
from scumble.core.images import from_unit
from scumble.core.runs import RunFolder
from scumble.data.subjects import Shot, Subject, read_subject
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
from scumble.training.fit import FitConfig, Fitted
from scumble.training.processes import is_main_process, processes
from scumble.verbs.load import RANDOM_MODEL, ModelConfig
from scumble.verbs.outputs import check_free

__all__ = [
    "METHODS",
    "Learnt",
    "Method",
    "config_for",
    "estimate_learn",
    "for_learning",
    "learn",
    "learn_to",
    "read_inputs",
    "run_folder",
]

PEOPLE = {
    "person", "persons", "people", "human", "man", "men", "woman", "women", "boy", "boys", "girl", "girls",
    "child", "children", "kid", "kids", "baby", "babies", "face", "faces", "portrait", "portraits", "selfie",
}  # fmt: skip
CONSENT = "You are learning a person: do so with their consent, and say that pictures made of them are made."
PREVIEW_STEPS = 15
"""Denoising steps of a preview."""
PASSES = 3
"""A step costs about three forward passes: one forward, and backward twice as much."""


class Method(Protocol):
    """What a module of `scumble.methods` that learns has."""

    PRESETS: dict[str, Any]

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
    """Learn and write the weights to `out`, from the newest checkpoint of the run in `run_folder(out)`.

    What DreamBooth teaches the model `upscaler`, if one is given, goes into the same file. All input is read
    and every name checked before the work. After every `preview_every` steps the model draws the first
    subject, for the record and into the run's folder. Raises InputError where `out` is there already.
    """
    read = read_inputs(subjects, out, overwrite=overwrite)
    if before := " ".join(_warnings(read)):
        yield Progress(stage="reading", step=1, total=1, note=before)
    larger = _upscaler(method, upscaler, config, on)
    model = for_learning(on).load()
    notes = [RANDOM_MODEL] if model.is_random else []
    run = RunFolder(run_folder(out))
    _same_inputs(run, method, read, model, config)
    run.write_config(config.to_toml())
    use, prompt = _spoken(read[0], config)
    with _resumable(run):
        learning = METHODS[method].learn(model, read, config, run=run)
        weights, fitted = yield from _watched(learning, model, config, prompt, preview_every, run)
        notes += fitted.notes
        if larger is not None:
            large_run = RunFolder(run.path / "upscaler")
            _same_inputs(large_run, method, read, larger, config)
            weights, more = yield from _tuned(weights, larger, read, config, large_run)
            notes += more.notes
    if is_main_process():
        weights.save(out)
        atomic_write(run.path / "README.txt", f"The learning of {out.name}: safe to remove.\n".encode())
    processes().wait_for_everyone()
    if fitted.stopped_early:
        notes.append(f"Stopped after {fitted.steps} steps: the held-out loss fell no more.")
    note, words = " ".join(notes), list(weights.words)
    return Learnt(out, sha256(out), out.stat().st_size, fitted.steps, note, words, use, prompt, before)


def read_inputs(
    subjects: Sequence[tuple[Path, str, str]], out: Path, *, overwrite: bool = False
) -> list[Subject]:
    """The subjects, where they can be learnt into `out`. Raises InputError and ImageError where not."""
    if out.suffix != ".safetensors":
        raise InputError(f"{out} does not end in .safetensors.", "Give a name like rex.safetensors.")
    check_free([out], overwrite=overwrite)
    if not subjects:
        raise InputError("There is nothing to learn.", "Give a folder of pictures.")
    return [read_subject(*subject) for subject in subjects]


def _warnings(subjects: Sequence[Subject]) -> list[str]:
    """What a person should know before the work: of the pictures, and of people in them."""
    notes = [note for subject in subjects for note in subject.notes]
    told = [[s.noun] if s.noun else [shot.caption or "" for shot in s.shots] for s in subjects]
    people = any(PEOPLE & set(text.lower().split()) for texts in told for text in texts)
    return list(dict.fromkeys(notes)) + ([CONSENT] if people else [])


def _spoken(subject: Subject, config: FitConfig) -> tuple[str, str]:
    """How the subject is spoken of, and a prompt: a word of Textual Inversion stands for its noun."""
    if isinstance(config, textual_inversion.Config):
        return subject.word, TEMPLATES[config.templates][0].replace("{}", subject.word)
    if subject.word:
        return subject.name, f"a photo of a {subject.name}"
    told = next((shot.caption for shot in subject.shots if shot.caption), "")
    return told, told


@contextmanager
def _resumable(run: RunFolder) -> Generator[None]:
    """Inside, an interruption says how to go on."""
    try:
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
    side = getattr(config, "size", None) or model.default_size
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
    upscaling(model)
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


def _same_inputs(
    run: RunFolder, method: str, subjects: Sequence[Subject], model: Model, config: FitConfig
) -> None:
    """Note what a run learns, and on what. Raises InputError if it has begun with something else."""
    about = {
        "method": method,
        "model": model.hash,
        "subjects": [
            [s.word, s.noun, [[shot.name, shot.caption, _digest(shot)] for shot in s.shots]] for s in subjects
        ],
    }
    if beside := getattr(config, "regularization", ""):
        about["regularization"] = _listing(Path(beside))
    place = run.path / "inputs.json"
    if place.is_file() and run.latest_checkpoint()[0] and json.loads(place.read_bytes()) != about:
        raise InputError(
            f"{run.path} holds a run that learns something else.",
            "Give another output, or remove that folder.",
        )
    atomic_write(place, json.dumps(about, ensure_ascii=False).encode())


def _listing(place: Path) -> str:
    """A digest of the names and sizes of all files of a folder, or of the file."""
    files = sorted(file for file in place.rglob("*") if file.is_file()) or [place]
    told = [f"{file.relative_to(place)} {file.stat().st_size}" for file in files if file.is_file()]
    return bytes_sha256("\n".join(told).encode()).hexdigest()


def _digest(shot: Shot) -> str:
    mask = b"" if shot.mask is None else shot.mask.numpy().tobytes()
    return bytes_sha256(shot.image.tobytes() + mask).hexdigest()


def run_folder(out: Path) -> Path:
    """Where the run that makes `out` keeps its settings, losses and checkpoints."""
    return out.with_suffix(".run")


def estimate_learn(
    config: FitConfig,
    on: ModelConfig,
    *,
    method: str = dreambooth.METHOD,
    upscaler: str | None = None,
) -> Estimate:
    """What learning will need, with the super-resolution stage where the model `upscaler` is tuned too, by
    tracing one pass of each denoiser without running it. Raises InputError as `learn_to` does.
    """
    larger = _upscaler(method, upscaler, config, on)
    model = for_learning(on).load()
    side = getattr(config, "size", None) or model.default_size
    count = config.batch * (2 if getattr(config, "prior_weight", 0.0) else 1)
    shape, time = model.latent_shape(side, side), torch.zeros((), device=model.device)
    condition = model.prompt([""], size=(side, side))

    def call() -> None:
        model.predict(torch.zeros(count, *shape, device=model.device), time, condition)

    models, costs = [model], [_learning(estimate.trace(call), config.steps)]
    if larger is not None:
        assert isinstance(config, dreambooth.Config)
        more = _large_pass(larger, config.batch)
        costs.append(_learning(more, config.upscaler_steps))
        models.append(larger)  # and the first stays where it is
    return estimate.needs(models, costs, config.model_dump(mode="json", exclude_none=True))


def _learning(forward: Cost, steps: int) -> Cost:
    """Of `steps` steps, whose forward pass is known."""
    return Cost(PASSES * forward.flops * steps, PASSES * forward.peak_bytes)


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
