"""The training loop that all stages share: deterministic by seed, resumable to the bit, never writing half
a file.

A stage says what is trained, as one or more players (a network with the loss it lowers; a discriminator is
a second player), and the loop does the rest. A loss is a pure function of the weights and the step: all its
chance comes from generators seeded with the step, so a run that was stopped and taken up again equals one
that never stopped.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from recipes.toybox.muon import Muon
from recipes.toybox.scales import Fit, Scale
from scumble.core.errors import NumericError
from scumble.core.files import atomic_path
from scumble.core.rng import derive

CHECKPOINT_SECONDS = 120.0
PROGRESS_SECONDS = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Where and how one stage runs."""

    out: Path
    scale: Scale
    seed: int = 0
    minutes: float = math.inf
    """Stop, with a checkpoint, after this long."""
    steps: int | None = None
    """Instead of the scale's number of steps; taking a run up with another number moves the cool-down."""
    start: Path | None = None
    """A folder of landed weights to begin from instead of from chance."""
    pictures: int | None = None
    """Use this many pictures instead of the scale's number; what is not rendered yet is not waited for."""
    device: str = "cpu"
    threads: int = 1
    """Of a CPU run."""
    compile: bool = False
    """Compile networks where the scale does not ask for it: on a CPU it needs a C++ compiler and minutes."""

    def fit(self, fit: Fit) -> Fit:
        return fit if self.steps is None else replace(fit, steps=self.steps)

    def facts(self, name: str, fit: Fit) -> dict[str, float | int | str]:
        """How far a stage was trained, which may be less than it is meant to be, for the model card."""
        with safe_open(_checkpoint(self.out, name), "pt") as file:
            steps = int(file.metadata()["step"])
        return {"scale": self.scale.name, "steps": steps, "batch": fit.batch, "samples": steps * fit.batch}

    def generator(self, *purpose: str | int) -> torch.Generator:
        """A generator on the run's device, seeded with the run's seed and the purpose."""
        return torch.Generator(self.device).manual_seed(derive(self.seed, *purpose))

    def autocast(self) -> AbstractContextManager[object]:
        return torch.autocast(self.device, torch.bfloat16) if self.scale.autocast else nullcontext()

    def compiled(self, module: nn.Module) -> Callable[..., Tensor]:
        """The module, compiled where the scale or the run says so; parameters are shared with the module."""
        return torch.compile(module) if self.compile or self.scale.compile else module


@dataclass(slots=True, kw_only=True)
class Player:
    """A network and the loss it lowers; `averaged` asks for an exponential moving average of its weights."""

    network: nn.Module
    loss: Callable[[int], Tensor]
    """Of the step; a scalar."""
    averaged: bool = True
    betas: tuple[float, float] = (0.9, 0.99)


@dataclass(slots=True)
class _State:
    player: Player
    parameters: list[nn.Parameter]
    averages: list[Tensor]
    optimisers: list[torch.optim.Optimizer]

    def moments(self, parameter: nn.Parameter) -> dict[str, Tensor]:
        """What the optimiser of this weight remembers of it."""
        return next((o.state[parameter] for o in self.optimisers if parameter in o.state), {})


def train(name: str, players: list[Player], fit: Fit, run: Run) -> bool:
    """Train the players together; True when all steps are done, False when the time was up first.

    Ends with the averaged weights in the networks, in evaluation mode. Raises NumericError when a loss is
    not finite.
    """
    states = [_state(player, fit, run) for player in players]
    checkpoint = _checkpoint(run.out, name)
    step = _restore(checkpoint, states) if checkpoint.exists() else 0
    clock = _Clock(name, fit, run, step)
    losses: list[Tensor] = []
    while step < fit.steps and not clock.is_over():
        losses = [_advance(state, step, fit, run) for state in states]
        step += 1
        if clock.is_due_to_report():
            clock.report(step, _finite(name, step, losses))
        if clock.is_due_to_save():
            _finite(name, step, losses)
            _save(checkpoint, states, step)
    _finite(name, step, losses)
    _save(checkpoint, states, step)
    for state in states:
        _take_average(state)
    return step >= fit.steps


def learning_rate(step: int, fit: Fit) -> float:
    """Warm-up, plateau and a linear cool-down to zero."""
    left = (fit.steps - step) / max(1.0, fit.cooldown * fit.steps)
    return fit.lr * min(1.0, (step + 1) / max(1, fit.warmup), left)


def _state(player: Player, fit: Fit, run: Run) -> _State:
    player.network.train()
    parameters = [p for p in player.network.parameters() if p.requires_grad]
    matrices = [p for p in parameters if p.ndim > 1]
    others = [p for p in parameters if p.ndim <= 1]
    groups = [{"params": others, "weight_decay": 0.0}]
    optimisers: list[torch.optim.Optimizer] = []
    if fit.muon:
        optimisers.append(Muon(matrices, lr=fit.lr, weight_decay=fit.weight_decay))
    else:
        groups.append({"params": matrices, "weight_decay": fit.weight_decay})
    optimisers.append(torch.optim.AdamW(groups, lr=fit.lr, betas=player.betas, fused=run.device == "cuda"))
    averages = [p.detach().clone() for p in parameters] if player.averaged else []
    return _State(player, parameters, averages, optimisers)


def _advance(state: _State, step: int, fit: Fit, run: Run) -> Tensor:
    for group in chain.from_iterable(optimiser.param_groups for optimiser in state.optimisers):
        group["lr"] = learning_rate(step, fit)
    with run.autocast():
        loss = state.player.loss(step)
    for parameter in state.parameters:
        parameter.grad = None
    loss.backward()
    nn.utils.clip_grad_norm_(state.parameters, fit.clip)
    for optimiser in state.optimisers:
        optimiser.step()
    if state.averages:
        # A short memory at first, so that the average soon forgets the untrained weights.
        decay = min(fit.ema, (1 + step) / (10 + step))
        torch._foreach_lerp_(state.averages, [p.detach() for p in state.parameters], 1.0 - decay)
    return loss.detach()


def _finite(name: str, step: int, losses: list[Tensor]) -> list[float]:
    """The losses as numbers; raises NumericError where one is none, before anything of it is saved."""
    values = [float(loss) for loss in losses]
    if not all(map(math.isfinite, values)):
        raise NumericError(f"The loss of {name} is not finite at step {step}.")
    return values


def _take_average(state: _State) -> None:
    with torch.no_grad():
        for parameter, average in zip(state.parameters, state.averages, strict=False):
            parameter.copy_(average)
    state.player.network.eval()


def _checkpoint(out: Path, name: str) -> Path:
    return out / "checkpoints" / f"{name}.safetensors"


def _save(path: Path, states: list[_State], step: int) -> None:
    tensors: dict[str, Tensor] = {}
    for i, state in enumerate(states):
        moments = [state.moments(p) for p in state.parameters]
        for j, (parameter, moment) in enumerate(zip(state.parameters, moments, strict=True)):
            tensors[f"{i}.{j}.weight"] = parameter.detach().contiguous()
            tensors |= {f"{i}.{j}.{key}": value.contiguous() for key, value in moment.items()}
        tensors |= {f"{i}.{j}.average": average.contiguous() for j, average in enumerate(state.averages)}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata={"step": str(step)})


def _restore(path: Path, states: list[_State]) -> int:
    with safe_open(path, "pt") as file, torch.no_grad():
        names = set(file.keys())
        for i, state in enumerate(states):
            for j, parameter in enumerate(state.parameters):
                parameter.copy_(file.get_tensor(f"{i}.{j}.weight"))
                prefix = f"{i}.{j}."
                moments = {name.removeprefix(prefix) for name in names if name.startswith(prefix)}
                moments -= {"weight", "average"}
                if moments:
                    optimiser = next(o for o in state.optimisers if _holds(o, parameter))
                    # A fused optimiser counts its steps on the device, others on the CPU.
                    fused = optimiser.defaults.get("fused")
                    optimiser.state[parameter] = {
                        key: file.get_tensor(prefix + key).to(
                            "cpu" if key == "step" and not fused else parameter.device
                        )
                        for key in moments
                    }
            for j, average in enumerate(state.averages):
                average.copy_(file.get_tensor(f"{i}.{j}.average"))
        return int(file.metadata()["step"])


def _holds(optimiser: torch.optim.Optimizer, parameter: nn.Parameter) -> bool:
    return any(parameter is other for group in optimiser.param_groups for other in group["params"])


class _Clock:
    """Says when to report, to save and to stop; prints one line of progress at a time."""

    def __init__(self, name: str, fit: Fit, run: Run, step: int) -> None:
        self.name, self.fit, self.first = name, fit, step
        self.start = self.reported = self.saved = time.monotonic()
        self.end = self.start + 60.0 * run.minutes

    def is_over(self) -> bool:
        return time.monotonic() >= self.end

    def is_due_to_report(self) -> bool:
        return time.monotonic() - self.reported >= PROGRESS_SECONDS

    def is_due_to_save(self) -> bool:
        due = time.monotonic() - self.saved >= CHECKPOINT_SECONDS
        if due:
            self.saved = time.monotonic()
        return due

    def report(self, step: int, losses: list[float]) -> None:
        self.reported = time.monotonic()
        seconds = (self.reported - self.start) / (step - self.first)
        left = min((self.fit.steps - step) * seconds, self.end - self.reported) / 60.0
        shown = " ".join(f"{loss:.4f}" for loss in losses)
        cost = 1000.0 * seconds / self.fit.batch
        rate = learning_rate(step, self.fit)
        print(
            f"{self.name} {step}/{self.fit.steps}  loss {shown}  lr {rate:.1e}  "
            f"{cost:.1f} ms/sample  {left:.1f} min left",
            flush=True,
        )
