"""Learnt weights put into a model, and taken out again without a trace.

While attached, each changed parameter holds a new tensor and its own is kept aside, not copied; leaving puts
that very tensor back. So it is exact to the bit in every dtype, costs memory for the changed parameters only,
and a step of the model costs what it did before. Sums are formed in float32 and rounded once to the dtype of
the parameter.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from scumble.adapters.changes import Change, Dense, parameters_of, refuse_unknown
from scumble.adapters.tokens import check_different, meant_twice, same_vectors, words_attached
from scumble.adapters.weights import Weights
from scumble.core.errors import WeightsError
from scumble.models.model import Model

__all__ = ["attach", "changed"]

Scaled = Weights | tuple[Weights, float]


@contextmanager
def attach(model: Model, *weights: Scaled, any_base: bool = False) -> Generator[Model]:
    """Inside, `model` has the words and changes of all `weights`, each given alone or with a scale.

    Changes of one parameter add up, each times its scale, and scale 0 is as if the weights were not there;
    words know no scale but that. It can be nested. Raises WeightsError, with the model untouched, where
    something does not compose: one word with two meanings, weights of another family, changes of parameters
    the model does not have, and dense changes learnt on another base than this very model; `any_base` lets
    the last pass, as it does another family if everything fits in shape.
    """
    given = [item if isinstance(item, tuple) else (item, 1.0) for item in weights]
    used = [(item, scale) for item, scale in given if scale != 0]
    for item, _ in used:
        _check_base(model, item, any_base)
    words = _united([item for item, _ in used])
    changes = [(item.changes, scale) for item, scale in used]
    named = parameters_of(model)
    for change, _ in changes:
        refuse_unknown(set(change), set(named), model.name)
    wanted = {name: [(c[name], s) for c, s in changes if name in c] for name in named}
    with words_attached(model, words), changed({named[n]: (n, c) for n, c in wanted.items() if c}):
        yield model


@contextmanager
def changed(changes: dict[nn.Parameter, tuple[str, list[tuple[Change, float]]]]) -> Generator[None]:
    """Inside, each parameter holds itself plus the sum of its scaled changes; the name is for messages."""
    for parameter, (name, scaled) in changes.items():
        for change, _ in scaled:
            if not change.fits(parameter.shape):
                raise WeightsError(
                    f"The change of {name!r} does not fit its shape {tuple(parameter.shape)} in this model.",
                    "It was learnt on another model.",
                )
        if parameter.is_meta:
            raise WeightsError(
                f"{name!r} cannot be changed while the model is offloaded layer by layer.",
                "Load it without sequential offload.",
            )
    kept: list[tuple[nn.Parameter, Tensor]] = []
    try:
        for parameter, (_, scaled) in changes.items():
            kept.append((parameter, parameter.data))
            parameter.data = _sum(parameter.data, scaled)
        yield
    finally:
        for parameter, original in kept:
            # The whole model may have been moved to another device meanwhile.
            parameter.data = original.to(parameter.device)


def _sum(base: Tensor, scaled: Iterable[tuple[Change, float]]) -> Tensor:
    total = base.to(torch.float32, copy=True)
    for change, scale in scaled:
        total += scale * change.against(base)
    return torch.empty_like(base).copy_(total)  # in the dtype and memory layout of the base


def _check_base(model: Model, weights: Weights, any_base: bool) -> None:
    if any_base:
        return
    if weights.family != model.family:
        raise WeightsError(
            f"The weights were learnt on a model of family {weights.family!r}, and {model.name} is of "
            f"{model.family!r}.",
            "Use them with a model of their family.",
        )
    dense = any(isinstance(change, Dense) for change in weights.changes.values())
    if dense and weights.base_hash != model.hash:
        raise WeightsError(
            f"The weights hold dense changes to the model {weights.base_hash[:12]}, and {model.name} is "
            f"{model.hash[:12]}.",
            "Use the model they were learnt on, or allow any base if this is a close relative of it.",
        )


def _united(weights: Sequence[Weights]) -> dict[str, tuple[Tensor, ...]]:
    """The words of all; the same word twice must be the same, and two words must not."""
    words: dict[str, tuple[Tensor, ...]] = {}
    for item in weights:
        for text, word in item.words.items():
            if not same_vectors(words.setdefault(text, word.vectors), word.vectors):
                raise meant_twice(text)
    check_different(words)
    return words
