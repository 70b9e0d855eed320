"""Which parameters of a model learn: parts of the denoiser as they are, or low-rank changes beside its
layers; and the text encoders in the same way, all but their vocabulary, where they have a learning rate.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Protocol

from torch import nn

from scumble.adapters.changes import Change
from scumble.adapters.dense import DenseLayers, dense, find_parameters
from scumble.adapters.lora import TEXT_ATTENTION, LowRankLayers, check_rank, find_layers, low_rank
from scumble.models.model import Model
from scumble.training.examples import gradient_checkpointing
from scumble.training.fit import Group

__all__ = ["Settings", "Trained", "check_parts", "trained"]

TEXT = ("text_encoder*.encoder.*", "text_encoder*.final_layer_norm.*")
"""Parameters of the text encoders, all but the vocabulary."""


class Settings(Protocol):
    """The settings of what learns."""

    @property
    def seed(self) -> int: ...
    @property
    def rank(self) -> int: ...
    @property
    def alpha(self) -> float | None: ...
    @property
    def dora(self) -> bool: ...
    @property
    def targets(self) -> tuple[str, ...]: ...
    @property
    def text_lr(self) -> float: ...
    @property
    def gradient_checkpointing(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Trained:
    """What learns of the denoiser and of the text encoders."""

    denoiser: DenseLayers | LowRankLayers
    text: DenseLayers | LowRankLayers | None

    def groups(self, text_lr: float) -> list[Group]:
        """For the fit: the text encoders' rate is their own."""
        parameters: Mapping[str, nn.Parameter] = self.denoiser.named_parameters()
        text = [] if self.text is None else [Group(self.text.named_parameters(), text_lr)]
        return [Group(parameters), *text]

    def changes(self) -> dict[str, Change]:
        """What was learnt so far, for `Weights`."""
        parts = [self.denoiser] if self.text is None else [self.denoiser, self.text]
        return {name: change for part in parts for name, change in part.changes().items()}


def check_parts(model: Model, config: Settings, patterns: Sequence[str]) -> None:
    """Raise ConfigError, as `trained` does but without making anything, for a name that nothing has and a
    rank that does not fit.
    """
    for parameters, layers in _parts(config, patterns):
        if patterns:
            find_parameters(model, parameters)
        else:
            check_rank(find_layers(model, layers), config.rank)


@contextmanager
def trained(model: Model, config: Settings, patterns: Sequence[str]) -> Generator[Trained]:
    """Inside, the denoiser's parameters `patterns` learn, or low-rank changes of the layers `config.targets`
    where there are none; afterwards the model is as it was.
    """
    with ExitStack() as stack:

        def part(parameters: Sequence[str], layers: Sequence[str]) -> DenseLayers | LowRankLayers:
            if patterns:
                return stack.enter_context(dense(model, parameters))
            learning = low_rank(
                find_layers(model, layers),
                rank=config.rank,
                alpha=config.alpha,
                dora=config.dora,
                seed=config.seed,
            )
            return stack.enter_context(learning)

        denoiser, *text = [part(*names) for names in _parts(config, patterns)]
        stack.enter_context(gradient_checkpointing(model, config.gradient_checkpointing))
        yield Trained(denoiser, text[0] if text else None)


def _parts(config: Settings, patterns: Sequence[str]) -> list[tuple[Sequence[str], Sequence[str]]]:
    """Of the denoiser, and of the text encoders if they learn: parameters, and layers for low rank."""
    return [(patterns, config.targets), *([(TEXT, TEXT_ATTENTION)] if config.text_lr else [])]
