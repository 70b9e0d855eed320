"""Training an editing model: from a folder of pairs to a diffusers folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from scumble.core.errors import ConfigError, InputError
from scumble.core.events import Loop, finish
from scumble.core.files import atomic_write
from scumble.core.runs import RunFolder
from scumble.data.pairs import Pair, read_pairs
from scumble.methods import instruct_pix2pix
from scumble.methods.instruct_pix2pix import Learning
from scumble.models.model import Model
from scumble.models.save import save_folder
from scumble.sampling import estimate
from scumble.sampling.estimate import Cost, Estimate
from scumble.training.pairs import is_main_process
from scumble.verbs.edit_instruct import clip_for
from scumble.verbs.learn import PASSES, for_learning
from scumble.verbs.load import RANDOM_MODEL, ModelConfig
from scumble.verbs.outputs import check_new

__all__ = ["Trained", "estimate_train", "run_folder", "settings_for", "train_instruct", "train_to"]


@dataclass(frozen=True, slots=True)
class Trained:
    """What came of training."""

    path: Path
    """The diffusers folder."""
    steps: int
    pairs: int
    run: Path
    """Where losses, pictures and scores on the way are."""
    scores: dict[str, float]
    """Of the last look at held-out pairs, if there was one."""
    note: str = ""
    """What the person should know, in sentences."""


def settings_for(model: str, preset: str | None, file: Path | None, **given: Any) -> Learning:
    """A preset's settings (toybox's own for the toybox, `default` elsewhere), under those of the TOML `file`,
    under those given that are not None.
    """
    presets = instruct_pix2pix.LEARNING
    name = preset or ("toybox" if model in ("toybox", "toybox-instruct") else "default")
    if name not in presets:
        raise ConfigError(f"There is no preset {name!r}.", f"Choose one of {', '.join(presets)}.")
    chosen = {key: value for key, value in given.items() if value is not None}
    written = Learning.from_toml(file).model_dump(exclude_unset=True) if file else {}
    return presets[name].replace(**(written | chosen))


def train_instruct(
    data: Path | str, out: Path | str, *, model: str = "toybox", preset: str | None = None, **given: Any
) -> Trained:
    """Train an editing model on the pairs in `data` and write it to the folder `out`; settings are those of
    `scumble.methods.instruct_pix2pix.Learning`.

    >>> scumble.train_instruct("pairs", "editor", model="toybox", steps=1000)
    """
    config = settings_for(model, preset, None, **given)
    return finish(train_to(Path(data), config, ModelConfig(model=model), Path(out)))


def train_to(
    data: Path, config: Learning, on: ModelConfig, out: Path, *, clip: str | None = None
) -> Loop[Trained]:
    """Train and write the model to `out`, going on from the newest checkpoint of the run in
    `run_folder(out)`.

    All rows are read and every name checked before the work. `clip` judges edits on the way; without one the
    toybox's own does for the toybox, and for other models none. Raises InputError where `out` is there.
    """
    if out.suffix in (".safetensors", ".ckpt"):
        raise InputError(f"{out} is one file.", "Give a folder: the model is written in diffusers layout.")
    check_new(out)
    pairs = read_pairs(data)
    model = for_learning(on).load()
    notes = [RANDOM_MODEL] if model.is_random else []
    run = RunFolder(run_folder(out), keep=config.keep)
    _same_inputs(run, pairs, model)
    run.write_config(config.to_toml())
    judged = config.validate_every and (clip or on.model.startswith("toybox"))
    judge = clip_for(clip, on.model, model) if judged else None
    editor, fitted = yield from instruct_pix2pix.learn(model, pairs, config, run=run, clip=judge)
    if is_main_process():
        save_folder(editor, out)
        atomic_write(run.path / "README.txt", f"The training of {out.name}: safe to remove.\n".encode())
    looks = [step for step in run.steps() if "clip_direction" in step]
    scores = {name: looks[-1][name] for name in ("clip_direction", "clip_image")} if looks else {}
    return Trained(out, fitted.steps, len(pairs), run.path, scores, " ".join(notes + fitted.notes))


def run_folder(out: Path) -> Path:
    """Where the run that makes the folder `out` keeps its settings, losses, latents and checkpoints."""
    return out.with_name(f"{out.name}.run")


def _same_inputs(run: RunFolder, pairs: Sequence[Pair], model: Model) -> None:
    """Note what a run learns from, and on what. Raises InputError if it has begun with something else."""
    rows = [
        [*map(_state, (p.input, p.edited)), p.instruction, p.input_caption, p.edited_caption] for p in pairs
    ]
    about = {
        "model": model.hash,
        "pairs": len(pairs),
        "rows": sha256(json.dumps(rows).encode()).hexdigest(),
    }
    if run.begun_with() not in (None, about):
        raise InputError(
            f"{run.path} holds a run that learns from something else.",
            "Give another output, or remove that folder.",
        )
    if is_main_process():
        run.write_inputs(about)


def _state(picture: Path) -> tuple[str, int, int]:
    """What tells that a file is still the same, without reading it: the caches of latents go by it, too."""
    state = picture.stat()
    return picture.name, state.st_size, state.st_mtime_ns


def estimate_train(data: Path, config: Learning, on: ModelConfig) -> Estimate:
    """What training will need, by tracing one pass of the denoiser and one encoding without running them."""
    pairs = read_pairs(data)
    model = for_learning(on).load()
    side = config.size or model.default_size
    shape, time = model.latent_shape(side, side), torch.zeros((), device=model.device)
    condition, channels = model.prompt([""], size=(side, side)), shape[0] + model.condition_channels
    count = min(config.batch, config.micro_batch or config.batch)
    views = config.crops * (2 if config.mirror else 1)

    def call() -> None:
        model.predict(torch.zeros(count, channels, *shape[1:], device=model.device), time, condition)

    step = estimate.trace(call)
    encoding = estimate.trace(lambda: model.encode(torch.zeros(2, 3, side, side, device=model.device)))
    flops = PASSES * step.flops * config.steps * config.batch // count + encoding.flops * views * len(pairs)
    numbers = sum(parameter.numel() for parameter in model.denoiser.parameters())
    learning = 4 * numbers * (5 if config.ema else 4) if config.train == "all" else 0  # value to average
    latents = 3 * 2 * len(pairs) * views * shape[0] * shape[1] * shape[2]  # of 2 bytes a number
    cost = Cost(flops, learning + latents + PASSES * step.peak_bytes)
    settings = config.model_dump(mode="json", exclude_none=True) | {"pairs": len(pairs)}
    return estimate.needs([model], [cost], settings)
