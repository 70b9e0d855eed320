"""The loop that trains: any parameters, any loss, a generator of progress.

A loss is a pure function of the weights, the step and the numbers of the examples in it: all its chance comes
from generators seeded with these. So a run that was stopped and taken up again equals one that never stopped,
bit for bit, and how a batch is cut into micro-batches or spread over processes changes nothing but rounding.

Nothing in a step waits for the device: losses and lengths of gradients are added up there and read every
REPORT steps. What is not finite by then is not kept: it stops the fit, before a checkpoint or the result.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from typing import Annotated, Any, Literal

import torch
from accelerate import PartialState
from pydantic import Field
from torch import Tensor, nn

from scumble.core.config import Config
from scumble.core.errors import InputError, MissingExtraError, NumericError
from scumble.core.events import Loop, Progress
from scumble.core.runs import RunFolder
from scumble.training.checkpoints import Kept, restore, save, settings_digest
from scumble.training.processes import processes

__all__ = [
    "Average",
    "FitConfig",
    "Fitted",
    "Group",
    "HeldOut",
    "Loss",
    "check_optimiser",
    "fit",
    "learning_rate",
]

Loss = Callable[[int, Sequence[int]], Tensor]
"""Of the step and the numbers of the examples of a micro-batch: (B,), one loss an example. The batch's loss
is their mean."""

REPORT = 10
"""Steps between two looks at the loss."""
LOOKED_AT = 4096
"""Numbers of each parameter that are looked at to see whether anything was learnt."""


class FitConfig(Config):
    """How parameters are fitted."""

    steps: Annotated[int, Field(ge=1, le=10_000_000)] = 500
    """Optimiser steps."""
    batch: Annotated[int, Field(ge=1, le=4096)] = 4
    """Examples in a step."""
    micro_batch: Annotated[int, Field(ge=1)] | None = None
    """Examples run through the networks at once; none takes the whole batch. Less needs less memory."""
    lr: Annotated[float, Field(ge=0, le=10)] = 1e-4
    """Learning rate."""
    warmup: Annotated[int, Field(ge=0)] = 0
    """Steps over which the learning rate rises from zero."""
    decay: Literal["constant", "linear", "cosine"] = "constant"
    """How the learning rate falls towards the last step."""
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.01
    """AdamW's decoupled decay (Loshchilov and Hutter 2019)."""
    clip: Annotated[float, Field(ge=0)] = 1.0
    """Largest norm of the gradient of all that is trained; 0 leaves it alone."""
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Decay of an average of the weights, which is then what is handed on; 0 takes the last weights."""
    optimiser: Literal["adamw", "adamw8bit"] = "adamw"
    """adamw8bit keeps its state in 8 bits; it needs bitsandbytes."""
    gradient_checkpointing: bool = False
    """Compute activations twice instead of keeping them: slower, in much less memory."""
    checkpoint_every: Annotated[int, Field(ge=1)] = 100
    """Steps between two checkpoints."""
    keep: Annotated[int, Field(ge=1)] = 2
    """How many checkpoints are kept, the newest."""
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] = 0
    """Of all chance in the learning."""


@dataclass(frozen=True, slots=True)
class Group:
    """Parameters, float32, that share a learning rate and a weight decay."""

    parameters: Mapping[str, nn.Parameter]
    lr: float | None = None
    """None takes the config's."""
    weight_decay: float | None = None


@dataclass(frozen=True, slots=True)
class HeldOut:
    """When to stop early: as soon as a deterministic loss has not fallen for `patience` looks at it."""

    loss: Callable[[int], Tensor]
    """A scalar, the same for the same weights; of the step that was just taken."""
    every: int
    patience: int
    least: float = 1e-3
    """The share by which it has to fall below its best to count."""


@dataclass(slots=True)
class Fitted:
    """What a fit came to."""

    steps: int
    """Optimiser steps that were taken, earlier runs included."""
    losses: list[float] = field(default_factory=list[float])
    """Mean loss of every REPORT steps, earlier runs included."""
    held_out: list[float] = field(default_factory=list[float])
    stopped_early: bool = False
    moved: float = 0.0
    """Largest change since the fit began, earlier runs not included, of the first LOOKED_AT numbers of each
    parameter: a second copy of all of them would cost as much memory as the parameters do.
    """
    notes: list[str] = field(default_factory=list[str])
    """What a person should know, in sentences."""


@dataclass(slots=True)
class Average:
    """The averaged weights of a fit under way, for who wants to see between two steps what they do."""

    pairs: list[tuple[nn.Parameter, Tensor]] = field(default_factory=list[tuple[nn.Parameter, Tensor]])
    """Each parameter and its average; none where nothing is averaged."""

    @contextmanager
    def shown(self) -> Generator[None]:
        """Inside, the parameters hold the averages; afterwards their own values again, bit for bit."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for parameter, average in self.pairs:
            own = parameter.detach().clone()
            parameter.copy_(average)
            average.copy_(own)


def learning_rate(step: int, lr: float, config: FitConfig) -> float:
    """The learning rate of step 0, 1, ...: warm-up, then constant or falling to zero."""
    warm = min(1.0, (step + 1) / config.warmup) if config.warmup else 1.0
    left = 1.0 - step / config.steps
    fall = {"constant": 1.0, "linear": left, "cosine": 0.5 * (1 + math.cos(math.pi * (1 - left)))}
    return lr * warm * fall[config.decay]


def fit(
    groups: Sequence[Group],
    loss: Loss,
    config: FitConfig,
    *,
    stage: str = "learning",
    run: RunFolder | None = None,
    held_out: HeldOut | None = None,
    average: Average | None = None,
) -> Loop[Fitted]:
    """Lower `loss` by AdamW over the parameters of all groups, from the newest sound checkpoint in `run`.

    When it is done the parameters hold the result; `average` shows what they would hold on the way. Raises
    NumericError as soon as a loss or a gradient is seen not to be finite, the last checkpoint being from
    before it; InputError where `run` holds the checkpoint of another fit, or of one that is longer.
    """
    state = _State.of(groups, config)
    if average is not None:
        average.pairs = list(zip(state.parameters.values(), state.averages, strict=False))
    done = Fitted(steps=_taken_up(run, state, config))
    done.held_out, done.losses = state.held_out, state.losses
    done.stopped_early = _settled(state.held_out, held_out)
    before = [_first(p).clone() for p in state.parameters.values()]
    total = torch.zeros((), device=next(iter(state.parameters.values())).device)
    since, seen = 0, None
    while done.steps < config.steps and not done.stopped_early:
        total += _step(state, loss, done.steps, config)
        done.steps, since = done.steps + 1, since + 1
        last = done.steps == config.steps
        if since == REPORT or last or done.steps % config.checkpoint_every == 0:
            seen = _read(state, total, since, done.steps, run)
            done.losses.append(seen)
            total, since = torch.zeros_like(total), 0
            if run is not None and state.process.is_main_process:
                run.append_step(
                    step=done.steps, loss=seen, lr=learning_rate(done.steps - 1, config.lr, config)
                )
        if held_out is not None and done.steps % held_out.every == 0:
            state.held_out.append(float(held_out.loss(done.steps - 1)))
            if not math.isfinite(state.held_out[-1]):
                raise _no_number(f"The held-out loss was not a number after step {done.steps}", run)
            done.stopped_early = _settled(state.held_out, held_out)
        if last or done.stopped_early or (run is not None and done.steps % config.checkpoint_every == 0):
            if not _is_sound(state):
                raise _no_number(f"What is learnt was not a number after step {done.steps}", run)
            if run is not None and state.process.is_main_process:
                save(run, state.kept(done.steps, config), state.parameters, state.optimiser, state.averages)
        yield Progress(stage=stage, step=done.steps, total=config.steps, loss=seen)
    _take_average(state)
    done.moved = max(
        (float((_first(p) - b).abs().max()) for p, b in zip(state.parameters.values(), before, strict=True)),
        default=0.0,
    )
    if state.pulls is not None and done.moved == 0.0:
        done.notes.append("Nothing was learnt: no parameter has changed. Is the learning rate 0?")
    elif state.pulls is not None and float(state.pulls) == 0.0:  # what has changed is by decay alone
        done.notes.append("Nothing was learnt: the loss does not depend on what was to learn.")
    done.notes += state.complaints
    return done


def _first(parameter: nn.Parameter) -> Tensor:
    return parameter.detach().flatten()[:LOOKED_AT]


@dataclass(slots=True)
class _State:
    parameters: dict[str, nn.Parameter]
    optimiser: torch.optim.Optimizer
    averages: list[Tensor]
    process: PartialState
    held_out: list[float] = field(default_factory=list[float])
    losses: list[float] = field(default_factory=list[float])
    complaints: list[str] = field(default_factory=list[str])
    pulls: Tensor | None = None
    """Sum of the lengths of all gradients, on the device."""

    @classmethod
    def of(cls, groups: Sequence[Group], config: FitConfig) -> _State:
        parameters = {name: p for group in groups for name, p in group.parameters.items()}
        if len(parameters) != sum(len(group.parameters) for group in groups) or not parameters:
            raise InputError("A fit needs parameters, each in one group only.")
        if any(p.dtype != torch.float32 for p in parameters.values()):
            raise InputError("Only float32 parameters are trained: smaller steps vanish in half precision.")
        settings = [
            {
                "params": list(group.parameters.values()),
                "lr": config.lr if group.lr is None else group.lr,
                "initial_lr": config.lr if group.lr is None else group.lr,
                "weight_decay": config.weight_decay if group.weight_decay is None else group.weight_decay,
            }
            for group in groups
        ]
        averages = [p.detach().clone() for p in parameters.values()] if config.ema else []
        return cls(parameters, _optimiser(settings, config), averages, processes())

    def kept(self, steps: int, config: FitConfig) -> Kept:
        """What a checkpoint after `steps` steps says beside its tensors."""
        return Kept(steps, settings_digest(self.parameters, config), self.held_out, self.losses)


def _optimiser(settings: list[dict[str, Any]], config: FitConfig) -> torch.optim.Optimizer:
    if config.optimiser == "adamw":
        return torch.optim.AdamW(settings, lr=config.lr, fused=True)
    return _eight_bit()(settings, lr=config.lr)


def check_optimiser(config: FitConfig) -> None:
    """Raise MissingExtraError for an optimiser that is not there, before long work that needs it."""
    if config.optimiser == "adamw8bit":
        _eight_bit()


def _eight_bit() -> Any:
    try:
        return import_module("bitsandbytes").optim.AdamW8bit
    except ImportError:
        raise MissingExtraError("adamw8bit needs bitsandbytes.", "Install it, or take adamw.") from None


def _taken_up(run: RunFolder | None, state: _State, config: FitConfig) -> int:
    """Put the newest sound checkpoint into the state; the number of steps that it had taken."""
    if run is None:
        return 0
    wanted = state.kept(config.steps, config)
    found, complaints = restore(run, wanted, state.parameters, state.optimiser, state.averages)
    if complaints:
        what = "It was begun anew." if found is None else "An older checkpoint was taken."
        state.complaints.append(" ".join([*complaints, what]))
    if found is None:
        return 0
    state.held_out += found.held_out
    state.losses += found.losses
    return found.steps


def _step(state: _State, loss: Loss, step: int, config: FitConfig) -> Tensor:
    """One optimiser step; the loss of the batch, on the device."""
    for group in state.optimiser.param_groups:
        group["lr"] = learning_rate(step, group["initial_lr"], config)
    state.optimiser.zero_grad(set_to_none=True)
    process = state.process
    mine = range(process.process_index, config.batch, process.num_processes)
    size = config.micro_batch or config.batch
    total = torch.zeros((), device=next(iter(state.parameters.values())).device)
    for first in range(0, len(mine), size):
        part = loss(step, mine[first : first + size]).sum() / config.batch
        part.backward()
        total += part.detach()
    if process.num_processes > 1:
        _add_up(state, total)
    length = nn.utils.clip_grad_norm_(state.parameters.values(), config.clip or math.inf)
    state.pulls = length if state.pulls is None else state.pulls + length
    state.optimiser.step()
    if state.averages:
        decay = min(config.ema, (1 + step) / (10 + step))  # short at first, to forget the start
        for average, parameter in zip(state.averages, state.parameters.values(), strict=True):
            average.lerp_(parameter.detach(), 1.0 - decay)
    return total


def _add_up(state: _State, total: Tensor) -> None:
    """Add gradients and losses over the processes, each of which had a part of the batch."""
    for parameter in state.parameters.values():
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        torch.distributed.all_reduce(parameter.grad)
    torch.distributed.all_reduce(total)


def _read(state: _State, total: Tensor, count: int, step: int, run: RunFolder | None) -> float:
    """The mean loss of the last `count` steps, read together with the lengths of the gradients."""
    assert state.pulls is not None
    loss, pulls = torch.stack([total, state.pulls.to(total)]).tolist()
    for what, figure in (("The loss", loss), ("A gradient", pulls)):
        if not math.isfinite(figure):
            where = f"step {step}" if count == 1 else f"the {count} steps up to step {step}"
            raise _no_number(f"{what} was not a number in {where}", run)
    return loss / count


def _is_sound(state: _State) -> bool:
    """Whether gradients, parameters and what the optimiser keeps are finite, in one look at the device."""
    kept = [value for of in state.optimiser.state.values() for value in of.values()]
    tensors = [*state.parameters.values(), *(v for v in kept if isinstance(v, Tensor)), state.pulls]
    device = next(iter(state.parameters.values())).device
    finite = [t.detach().isfinite().all().to(device) for t in tensors if t is not None]
    return bool(torch.stack(finite).all())


def _no_number(what: str, run: RunFolder | None) -> NumericError:
    """`what` happened, and what is kept. A run has settings of its own: another rate begins anew."""
    kept = None if run is None else run.latest_checkpoint()[0]
    if run is None or kept is None:
        return NumericError(f"{what}.", "Take a smaller learning rate; in half precision, float32.")
    return NumericError(
        f"{what}; the state after step {int(kept.stem)} is kept in {run.path}.",
        "Remove that folder and take a smaller learning rate; in half precision, first go on in float32.",
    )


def _settled(losses: Sequence[float], held_out: HeldOut | None) -> bool:
    """Whether the last `patience` looks brought nothing."""
    if held_out is None or len(losses) <= held_out.patience:
        return False
    earlier, late = losses[: -held_out.patience], losses[-held_out.patience :]
    return min(late) > min(earlier) * (1 - held_out.least)


def _take_average(state: _State) -> None:
    with torch.no_grad():
        for parameter, average in zip(state.parameters.values(), state.averages, strict=False):
            parameter.copy_(average)
