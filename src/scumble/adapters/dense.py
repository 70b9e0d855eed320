"""Parameters that learn in place, with a way back: float32 copies inside, the tensors of before outside. What
they were waits on the CPU: on a GPU it would cost as much memory as their gradients do.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from scumble.adapters.changes import Dense, parameters_of
from scumble.core.errors import ConfigError, WeightsError
from scumble.models.model import Model

__all__ = ["DenseLayers", "dense", "find_parameters"]


def find_parameters(model: Model, patterns: Sequence[str]) -> dict[str, nn.Parameter]:
    """The parameters whose name, as in weights files, matches one of `patterns` (`*`, `?`, `[...]`).

    Raises ConfigError for a pattern that matches nothing.
    """
    named = parameters_of(model)
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in named):
            raise ConfigError(
                f"No parameter of {model.name} is called {pattern!r}.",
                f"One of them is {next(iter(named), None)!r}.",
            )
    return {name: p for name, p in named.items() if any(fnmatchcase(name, pattern) for pattern in patterns)}


class DenseLayers:
    """Parameters while they learn, and what they were."""

    def __init__(self, parameters: Mapping[str, nn.Parameter]) -> None:
        self._parameters = dict(parameters)
        self._before: dict[str, Tensor] = {name: p.data.to("cpu") for name, p in parameters.items()}

    def named_parameters(self) -> dict[str, nn.Parameter]:
        """What is trained, float32, by its name in weights files."""
        return self._parameters

    def before(self, name: str) -> Tensor:
        """What the parameter `name` was, in its own dtype, on the CPU."""
        return self._before[name]

    def changes(self, dtype: torch.dtype = torch.float32) -> dict[str, Dense]:
        """What was learnt so far, for `Weights`: differences on the CPU, kept in `dtype`."""
        return {
            name: Dense((p.detach().to("cpu") - self._before[name].float()).to(dtype))
            for name, p in self._parameters.items()
        }

    def load(self, changes: Mapping[str, Dense]) -> None:
        """Go on from `changes`, which must be of exactly these parameters. Raises WeightsError."""
        if set(changes) != set(self._parameters):
            raise WeightsError("Dense changes can only go on with the parameters that they have.")
        with torch.no_grad():
            for name, change in changes.items():
                before = self._before[name].float()
                self._parameters[name].copy_(before + change.against(before))


@contextmanager
def dense(model: Model, patterns: Sequence[str]) -> Generator[DenseLayers]:
    """Inside, the parameters that match are float32 copies with gradients; leaving puts the tensors of before
    back, frozen. Networks in half precision then need autocast.
    """
    parameters = find_parameters(model, patterns)
    if not parameters:
        raise ConfigError("No parameter was named to be trained.")
    layers = DenseLayers(parameters)
    try:
        for parameter in parameters.values():
            parameter.data = parameter.data.to(torch.float32, copy=True)
            parameter.requires_grad = True
        yield layers
    finally:
        for name, parameter in parameters.items():
            parameter.requires_grad = False
            parameter.grad = None
            parameter.data = layers.before(name).to(parameter.device)
