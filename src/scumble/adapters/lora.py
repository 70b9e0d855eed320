"""Low-rank layers that learn: small matrices beside frozen layers, which change what these give.

A layer's output gets `(alpha / r) B A x` added (Hu et al. 2021, equation 3; A Gaussian with variance 1 /
inputs, B zero, so that nothing is changed at the start). With `dora`, the whole is then given a length of its
own for each output (Liu et al. 2024, equation 5), the norm being taken as a constant in the gradient (their
section 4.3). The frozen layers stay where they are and are hooked, so leaving restores the model by taking
the hooks off.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, linear

from scumble.adapters.changes import LowRank, norms, refuse_unknown
from scumble.core import rng
from scumble.core.errors import ConfigError, WeightsError
from scumble.models.model import Model

__all__ = [
    "ATTENTION",
    "CROSS_ATTENTION",
    "TEXT_ATTENTION",
    "LowRankLayer",
    "LowRankLayers",
    "check_rank",
    "find_layers",
    "low_rank",
]

Layer = nn.Linear | nn.Conv2d

ATTENTION = ("unet.*.to_[qkv]", "unet.*.to_out.0")
"""Every attention projection of the denoiser."""
CROSS_ATTENTION = ("unet.*.attn2.to_[qkv]", "unet.*.attn2.to_out.0")
"""Those in which the picture looks at the prompt."""
TEXT_ATTENTION = ("text_encoder*.self_attn.*_proj",)
"""Every attention projection of the text encoders."""


def find_layers(
    model: Model, patterns: Sequence[str], *, kinds: tuple[type[Layer], ...] = (nn.Linear, nn.Conv2d)
) -> dict[str, Layer]:
    """The layers of `kinds` whose name `PART.MODULE` matches one of `patterns` (`*`, `?`, `[...]`; `*` spans
    dots).

    Raises ConfigError for a pattern that matches nothing.
    """
    layers: dict[str, Layer] = {}
    for part, module in model.parts().items():
        for name, layer in module.named_modules():
            if part != "vae" and isinstance(layer, kinds):
                layers[f"{part}.{name.removeprefix('text_model.')}"] = layer
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in layers):
            raise ConfigError(
                f"No layer of {model.name} is called {pattern!r}.",
                f"One of them is {next(iter(layers), None)!r}.",
            )
    return {name: layer for name, layer in layers.items() if any(fnmatchcase(name, p) for p in patterns)}


def check_rank(layers: Mapping[str, Layer], rank: int) -> None:
    """Raise ConfigError, as `low_rank` does, where one of `layers` cannot have low-rank changes of `rank`."""
    for layer in layers.values():
        _check_layer(layer, rank)


def _check_layer(layer: Layer, rank: int) -> None:
    outputs, inputs = len(layer.weight), layer.weight[0].numel()
    if not 1 <= rank <= min(outputs, inputs):
        raise ConfigError(
            f"rank cannot be {rank} for a layer of {inputs} x {outputs}.", "Choose a smaller one."
        )
    if isinstance(layer, nn.Conv2d) and (layer.groups != 1 or layer.padding_mode != "zeros"):
        raise ConfigError("A convolution in groups, or not padded with zeros, cannot have a low-rank change.")


class LowRankLayer(nn.Module):
    """The matrices beside a frozen layer, float32: `a` (r, *in), `b` (out, r), `magnitude` (out,) or None."""

    def __init__(
        self, layer: Layer, rank: int, alpha: float, *, dora: bool, generator: torch.Generator
    ) -> None:
        super().__init__()
        _check_layer(layer, rank)
        weight = layer.weight.detach()
        inputs = weight[0].numel()
        start = torch.randn(rank, *weight.shape[1:], generator=generator) / inputs**0.5
        self.a = nn.Parameter(start.to(weight.device))
        self.b = nn.Parameter(torch.zeros(len(weight), rank, device=weight.device))
        self.magnitude = nn.Parameter(norms(weight.float())) if dora else None
        self.alpha = alpha

    def change(self) -> LowRank:
        """What it has learnt so far, as a value: detached copies on the CPU."""
        copies = {
            name: parameter.detach().to("cpu", copy=True) for name, parameter in self.named_parameters()
        }
        return LowRank(copies["a"], copies["b"], self.alpha, copies.get("magnitude"))

    def load(self, change: LowRank) -> None:
        """Go on from `change`. Raises WeightsError if it is of another rank, shape or kind."""
        mine, theirs = dict(self.named_parameters()), change.tensors()
        if {k: v.shape for k, v in mine.items()} != {
            k: v.shape for k, v in theirs.items()
        } or change.alpha != self.alpha:
            raise WeightsError("A low-rank change can only go on with the rank, alpha and kind that it has.")
        with torch.no_grad():
            for name, parameter in mine.items():
                parameter.copy_(theirs[name])

    def forward(self, layer: Layer, x: Tensor, output: Tensor) -> Tensor:
        """`output`, what the frozen `layer` makes of `x`, with the change; in the dtype of `output`."""
        a, b = self.a.to(x.dtype), self.b.to(x.dtype)
        if isinstance(layer, nn.Conv2d):
            inner = conv2d(x, a, None, layer.stride, layer.padding, layer.dilation)
            added = conv2d(inner, b[:, :, None, None])
        else:
            added = linear(linear(x, a), b)
        added = added * (self.alpha / len(a))
        if self.magnitude is None:
            return output + added
        ratio = (self.magnitude / self._norms(layer)).to(output.dtype)  # (out,)
        bias = torch.zeros_like(ratio) if layer.bias is None else layer.bias
        if isinstance(layer, nn.Conv2d):
            ratio, bias = ratio[:, None, None], bias[:, None, None]
        return ratio * (output - bias + added) + bias

    @torch.no_grad()
    def _norms(self, layer: Layer) -> Tensor:
        delta = (self.alpha / len(self.a)) * (self.b @ self.a.flatten(1))
        return norms(layer.weight.float() + delta.reshape(layer.weight.shape))


class LowRankLayers:
    """All layers of one learning, by the name of the parameter they change."""

    def __init__(self, layers: Mapping[str, LowRankLayer]) -> None:
        self.layers = dict(layers)

    def named_parameters(self) -> dict[str, nn.Parameter]:
        """What is trained, and nothing else: names `PARAMETER.a`, `.b` and `.magnitude`."""
        return {
            f"{name}.{kind}": p for name, layer in self.layers.items() for kind, p in layer.named_parameters()
        }

    def changes(self) -> dict[str, LowRank]:
        """What was learnt so far, for `Weights`."""
        return {name: layer.change() for name, layer in self.layers.items()}

    def load(self, changes: Mapping[str, LowRank]) -> None:
        """Go on from `changes`, which must be of exactly these layers. Raises WeightsError."""
        refuse_unknown(set(changes), set(self.layers), "The learning that goes on")
        refuse_unknown(set(self.layers), set(changes), "What it goes on from")
        for name, change in changes.items():
            self.layers[name].load(change)


@contextmanager
def low_rank(
    layers: Mapping[str, Layer],
    *,
    rank: int,
    alpha: float | None = None,
    dora: bool = False,
    seed: int = 0,
) -> Generator[LowRankLayers]:
    """Inside, `layers`, as `find_layers` gives them, have trainable low-rank changes; `alpha` is `rank` if
    not given.

    The start of a layer depends on `seed` and its name only. A compiled denoiser does not notice hooks put in
    after its first call, so enter before that. Raises ConfigError for a rank that does not fit.
    """
    beside = {
        f"{name}.weight": LowRankLayer(
            layer,
            rank,
            float(rank if alpha is None else alpha),
            dora=dora,
            generator=rng.generator(rng.derive(seed, name)),
        )
        for name, layer in layers.items()
    }
    hooks = [layer.register_forward_hook(_hook(beside[f"{name}.weight"])) for name, layer in layers.items()]
    try:
        yield LowRankLayers(beside)
    finally:
        for hook in hooks:
            hook.remove()


def _hook(beside: LowRankLayer) -> Any:
    def run(layer: Any, arguments: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return beside(layer, arguments[0], output)

    return run
