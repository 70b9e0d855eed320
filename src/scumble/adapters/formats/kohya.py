"""Low-rank changes as kohya's sd-scripts write them, which the usual web interfaces read.

`lora_unet_LAYER.lora_down.weight` (r, in), `.lora_up.weight` (out, r) and `.alpha`, the layer's dots being
underscores; the scale is alpha / r, and `.dora_scale` (out, 1) is DoRA's magnitude. A denoiser's layers are
called as diffusers calls them, for SDXL as the original code does. Text encoders are `lora_te_`, for SDXL
`lora_te1_` and `lora_te2_`, with transformers' names. Read also: `.diff` and `.diff_b`, dense changes.

Underscores cannot be turned back into dots by rule, so names are looked up among the model's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from scumble.adapters.changes import Change, Dense, LowRank, parameters_of
from scumble.adapters.formats.a1111 import written_words
from scumble.adapters.formats.content import Content, LowRankParts, Parts, no_place
from scumble.adapters.weights import Weights
from scumble.core.errors import WeightsError
from scumble.models.model import Model
from scumble.models.singlefile import part_table

__all__ = ["NAME", "claims", "layer_names", "read", "write"]

NAME = "kohya"
FILE = "lora.safetensors"
PREFIXES = ("lora_unet_", "lora_te_", "lora_te1_", "lora_te2_")
KINDS = {
    "lora_down.weight": "down",
    "lora_up.weight": "up",
    "alpha": "alpha",
    "dora_scale": "magnitude",
    "diff": "diff",
    "diff_b": "diff_b",
}


def claims(content: Content) -> bool:
    """Whether a file is of this format."""
    return any(name.startswith(PREFIXES) for name in content.tensors)


def layer_names(model: Model) -> dict[str, list[str]]:
    """For each parameter of the model that is a weight, the names of its layer: the one to write first."""
    named = parameters_of(model)
    original: dict[str, str] = {}
    if model.family != "pixel":
        table = part_table(
            model.family, "unet", {**model.denoiser.config, "_class_name": "UNet2DConditionModel"}
        )
        original = {f"unet.{rename.ours[0]}": rename.original for rename in table}
    found: dict[str, list[str]] = {}
    for name in named:
        if not name.endswith(".weight"):
            continue
        part, _, layer = name.removesuffix(".weight").partition(".")
        if part == "unet":
            ours = f"lora_unet_{layer.replace('.', '_')}"
            ldm = f"lora_unet_{original.get(name, name).removesuffix('.weight').replace('.', '_')}"
            found[name] = [ldm, ours] if model.family == "sdxl" else [ours, ldm]
            continue
        flat = layer.replace(".", "_")
        flat = flat if layer.startswith("text_projection") else f"text_model_{flat}"
        which = {"text_encoder": ("te1", "te"), "text_encoder_2": ("te2",)}[part]
        which = which if model.family == "sdxl" else which[::-1]
        found[name] = [f"lora_{te}_{flat}" for te in which]
    return found


def read(content: Content, model: Model, _word: str, path: Path) -> Parts:
    """The changes of a file; parts of a text encoder may be missing. Raises WeightsError for a layer that the
    model does not have and for other kinds of changes (LoHa, LoKr, OFT).
    """
    names = {spelling: name for name, spellings in layer_names(model).items() for spelling in spellings}
    parameters = parameters_of(model)
    parts: dict[str, LowRankParts] = {}
    changes: dict[str, Change] = {}
    for key, tensor in content.tensors.items():
        layer, _, rest = key.partition(".")
        if rest not in KINDS:
            raise WeightsError(f"{path.name} holds {key[:120]!r}, a kind of change that is not read.")
        if layer not in names:
            raise WeightsError(
                f"{model.name} has no layer {layer[:120]!r}.", "It was learnt on another model."
            )
        name = names[layer]
        if KINDS[rest] == "diff":
            changes[name] = Dense(tensor.float().reshape(parameters[name].shape))
        elif KINDS[rest] == "diff_b":
            changes[f"{name.removesuffix('.weight')}.bias"] = Dense(tensor.float())
        else:
            parts.setdefault(name, LowRankParts()).tensors[KINDS[rest]] = tensor
    return Parts(changes=changes | {n: p.change(n, parameters[n].shape) for n, p in parts.items()})


def write(weights: Weights, model: Model) -> dict[str, Mapping[str, Any]]:
    """The files, by name: the changes, and an embedding of the web UI for each word.

    Raises WeightsError for dense changes.
    """
    names = layer_names(model)
    low = {n: c for n, c in weights.changes.items() if isinstance(c, LowRank) and n in names}
    if others := {n: c for n, c in weights.changes.items() if n not in low}:
        raise no_place(NAME, weights, others)
    tensors: dict[str, Any] = {}
    for name, change in low.items():
        layer, ones = names[name][0], [1] * (change.a.ndim - 2)
        tensors[f"{layer}.lora_down.weight"] = change.a
        tensors[f"{layer}.lora_up.weight"] = change.b.reshape(*change.b.shape, *ones)
        tensors[f"{layer}.alpha"] = torch.tensor(change.alpha)
        if change.magnitude is not None:
            tensors[f"{layer}.dora_scale"] = change.magnitude.reshape(-1, 1, *ones)
    files: dict[str, Mapping[str, Any]] = {FILE: tensors} if tensors else {}
    return files | written_words(weights)
