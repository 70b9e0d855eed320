"""What a fit keeps to go on from: parameters, the optimiser's state of each, averages, and what was seen.

A checkpoint is gone on from by the fit that wrote it alone: by the same parameters and the same settings, but
for those that change nothing of a step.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

import torch
from safetensors import safe_open
from torch import Tensor, nn

from scumble.core.errors import InputError
from scumble.core.runs import RunFolder

if TYPE_CHECKING:
    from scumble.training.fit import FitConfig

__all__ = ["Kept", "free_settings", "restore", "save", "settings_digest"]

ENTRIES = ("step", "digest", "held_out", "losses")
"""Of the metadata of every checkpoint."""
FREE = {"checkpoint_every", "keep", "micro_batch", "gradient_checkpointing"}
"""Settings that change rounding at most."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What a checkpoint says beside its tensors."""

    steps: int
    """That were taken."""
    digest: str
    """Of parameters and settings."""
    held_out: list[float]
    losses: list[float]


def free_settings(config: FitConfig) -> set[str]:
    """The settings that may differ when a run is gone on with. Steps count where the rate falls towards the
    last of them: a longer run is then another from its first step on.
    """
    return FREE | ({"steps"} if config.decay == "constant" else set[str]())


def settings_digest(parameters: Mapping[str, Tensor], config: FitConfig) -> str:
    """What a checkpoint must agree with to be gone on from."""
    shapes = {name: list(p.shape) for name, p in parameters.items()}
    settings = config.model_dump(mode="json", exclude=free_settings(config))
    return sha256(json.dumps([shapes, settings], sort_keys=True).encode()).hexdigest()


def save(
    run: RunFolder,
    kept: Kept,
    parameters: Mapping[str, nn.Parameter],
    optimiser: torch.optim.Optimizer,
    averages: Sequence[Tensor],
) -> None:
    """Write a checkpoint. Raises DiskFullError."""
    tensors: dict[str, Tensor] = {}
    for i, (name, parameter) in enumerate(parameters.items()):
        tensors[f"{name}/value"] = parameter.detach().contiguous()
        for key, value in optimiser.state[parameter].items():
            tensors[f"{name}/{key}"] = torch.as_tensor(value).contiguous()
        if averages:
            tensors[f"{name}/average"] = averages[i]
    seen = {"held_out": json.dumps(kept.held_out), "losses": json.dumps(kept.losses)}
    run.write_checkpoint(kept.steps, tensors, {"digest": kept.digest, "step": str(kept.steps)} | seen)


def restore(
    run: RunFolder,
    wanted: Kept,
    parameters: Mapping[str, nn.Parameter],
    optimiser: torch.optim.Optimizer,
    averages: Sequence[Tensor],
) -> tuple[Kept | None, list[str]]:
    """Put the newest whole checkpoint into parameters, optimiser and averages; what it says, or None where
    there is none; and a sentence for each that is damaged.

    Raises InputError where it is of other settings than `wanted`, or has more steps.
    """
    path, complaints = run.latest_checkpoint(ENTRIES)
    if path is None:
        return None, complaints
    with safe_open(path, "pt") as file:
        told = file.metadata()
        found = Kept(
            int(told["step"]), told["digest"], json.loads(told["held_out"]), json.loads(told["losses"])
        )
        _check(run, found, wanted)
        kinds: dict[str, list[str]] = {}
        for key in file.keys():  # noqa: SIM118
            name, kind = key.rsplit("/", 1)
            kinds.setdefault(name, []).append(kind)
        with torch.no_grad():
            for i, (name, parameter) in enumerate(parameters.items()):
                parameter.copy_(file.get_tensor(f"{name}/value"))
                optimiser.state[parameter] = {
                    kind: file.get_tensor(f"{name}/{kind}").to(parameter.device)
                    for kind in kinds[name]
                    if kind not in ("value", "average")
                }
                if averages:
                    averages[i].copy_(file.get_tensor(f"{name}/average"))
    return found, complaints


def _check(run: RunFolder, found: Kept, wanted: Kept) -> None:
    problem = ""
    if found.digest != wanted.digest:
        problem = f"{run.path} holds a run with other settings."
    elif found.steps > wanted.steps:
        problem = f"{run.path} holds a run that is {found.steps} steps long, more than {wanted.steps}."
    if problem:
        raise InputError(problem, "Give another output, or remove that folder.")
