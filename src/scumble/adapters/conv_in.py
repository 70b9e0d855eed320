"""More input channels for a denoiser: what it saw before it sees as before, and the new ones it does not see
yet.

As InstructPix2Pix starts (Brooks et al. 2023, section 3.2): the first convolution gets weights of zero for
the new channels and keeps those for the old ones and its bias, so the outputs are what they were, whatever
the new channels hold, until training moves these weights.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from typing import Any, cast

import torch
from torch import nn

from scumble.core.errors import ModelError
from scumble.models.model import Model

__all__ = ["widen", "widened", "widened_copy"]


@contextmanager
def widened(model: Model, channels: int | None = None) -> Generator[Model]:
    """Inside, the denoiser takes `channels` more channels, the latents' number if not given; leaving takes
    them away.

    What was done to the wider convolution meanwhile is lost with it. Raises ModelError for a model that has
    condition channels already.
    """
    extra = _extra(model, channels)
    before = model.denoiser.conv_in
    widen(model.denoiser, extra)
    model.condition_channels = extra
    try:
        yield model
    finally:
        _set(model.denoiser, before)
        model.condition_channels = 0


def widened_copy(model: Model, channels: int | None = None) -> Model:
    """A model with a denoiser of its own, taking `channels` more channels; the other networks are shared.

    Raises ModelError for a model that has condition channels already.
    """
    extra = _extra(model, channels)
    denoiser = deepcopy(model.denoiser)
    widen(denoiser, extra)
    return replace(model, denoiser=denoiser, condition_channels=extra, words=dict(model.words))


def widen(denoiser: Any, extra: int) -> None:
    """Give a UNet2DConditionModel `extra` more input channels, for good."""
    _set(denoiser, _wider(denoiser.conv_in, extra))


def _extra(model: Model, channels: int | None) -> int:
    if model.condition_channels:
        raise ModelError(
            f"{model.name} is an editing model already, with {model.condition_channels} condition channels.",
            "Start from a model without.",
        )
    return model.latent_channels if channels is None else channels


def _wider(conv: nn.Conv2d, extra: int) -> nn.Conv2d:
    """A convolution of `extra` more inputs, zero for them, with the bias and options of `conv`."""
    weight = conv.weight.detach()
    zeros = torch.zeros(len(weight), extra, *weight.shape[2:], dtype=weight.dtype, device=weight.device)
    made = nn.utils.skip_init(
        nn.Conv2d,
        conv.in_channels + extra,
        conv.out_channels,
        conv.kernel_size,
        conv.stride,
        conv.padding,
        conv.dilation,
        bias=conv.bias is not None,
        device=weight.device,
        dtype=weight.dtype,
    )
    wide = cast("nn.Conv2d", made)
    with torch.no_grad():
        wide.weight.copy_(torch.cat([weight, zeros], dim=1))
        if conv.bias is not None and wide.bias is not None:
            wide.bias.copy_(conv.bias)
    return wide.requires_grad_(conv.weight.requires_grad).train(conv.training)


def _set(denoiser: Any, conv: nn.Conv2d) -> None:
    denoiser.conv_in = conv
    denoiser.register_to_config(in_channels=conv.in_channels)
