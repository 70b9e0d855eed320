"""Options that trade memory for speed or speed for start-up time. None of them changes what is computed."""

from __future__ import annotations

import importlib.util
from typing import Literal

import torch
from accelerate import cpu_offload, cpu_offload_with_hook

from scumble.core.errors import InputError
from scumble.models.model import Model

__all__ = ["Offload", "apply"]

Offload = Literal["none", "model", "sequential"]


def apply(
    model: Model,
    *,
    attention_slicing: bool = False,
    vae_tiling: bool = False,
    channels_last: bool = False,
    offload: Offload = "none",
    compile: bool | str = False,
) -> Model:
    """Set the options on the model's networks, in place, and return the model.

    `attention_slicing` computes attention head by head; `vae_tiling` encodes and decodes pictures larger than
    the autoencoder's own size in overlapping tiles, whose blended seams are the one visible difference an
    option can make; `channels_last` lays convolutions out for tensor cores; `offload` keeps networks
    (`model`) or single layers (`sequential`) in main memory until they are used; `compile` is True or the
    name of a torch.compile backend and compiles the denoiser at its first use.
    """
    in_order = [*model.text_encoders, model.denoiser, model.autoencoder]  # each sends the one before it away
    networks = [network for network in in_order if network is not None]
    if offload not in ("none", "model", "sequential"):
        raise InputError(f"There is no offload {offload!r}.", "Choose none, model or sequential.")
    if attention_slicing and hasattr(model.denoiser, "set_attention_slice"):
        model.denoiser.set_attention_slice("max")
    if vae_tiling and model.autoencoder is not None:
        model.autoencoder.enable_tiling()
    if channels_last:
        for network in (model.denoiser, model.autoencoder):
            if network is not None:
                network.to(memory_format=torch.channels_last)
    if compile:
        _compile(model, compile)
    if offload == "sequential":
        for network in networks:
            cpu_offload(network.to("cpu"), execution_device=model.device)
    elif offload == "model":
        hook = None
        for network in networks:
            _, hook = cpu_offload_with_hook(network.to("cpu"), model.device, prev_module_hook=hook)
    return model


def _compile(model: Model, backend: bool | str) -> None:
    name = "inductor" if backend is True else str(backend)
    if name not in torch.compiler.list_backends(exclude_tags=()):
        raise InputError(
            f"torch.compile has no backend {name!r}.",
            f"It has {', '.join(torch.compiler.list_backends(exclude_tags=()))}.",
        )
    if name == "inductor" and model.device.type == "cuda" and importlib.util.find_spec("triton") is None:
        raise InputError(
            "Compiling for CUDA needs triton, which is not installed.", "Leave the compile option out."
        )
    model.denoiser.compile(backend=name)
