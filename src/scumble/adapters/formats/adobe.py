"""Custom Diffusion's own deltas: whole matrices of cross-attention, and a vector for each word.

The diffusers flavour is a pickle `{"unet": {PARAMETER: W}, "modifier_token": {"<new1>": (D,)}}`, for SDXL
with a list of two vectors; flattened with dots it is a `.safetensors` file here. The original flavour is
`{"state_dict": {"model.diffusion_model.LAYER...weight": W, "embed": (n, D)}}` with the original code's names
and no words. Compressed deltas have `u` (out, r) and `v` (r, in) in place of a matrix, W - W0 = u v.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from scumble.adapters.changes import Change, Dense, LowRank, parameters_of, refuse_unknown
from scumble.adapters.formats.content import Content, Parts
from scumble.adapters.weights import Weights, Word
from scumble.core.errors import WeightsError
from scumble.models.model import Model
from scumble.models.singlefile import UNET, part_table

__all__ = ["NAME", "claims", "read", "write"]

NAME = "adobe"
FILE = "delta.bin"
WORDS = "modifier_token."


def claims(content: Content) -> bool:
    """Whether a file is of this format."""
    names = [name.removeprefix("state_dict.") for name in content.tensors]
    return any(
        name == "embed"
        or name.startswith(WORDS)
        or (name.startswith(("unet.", UNET)) and ".attn2." in name and ".lora" not in name)
        for name in names
    )


def read(content: Content, model: Model, word: str, _path: Path) -> Parts:
    """Words and changes. `word` names the words of a file that does not, with numbers for several."""
    named = parameters_of(model)
    matrices: dict[str, dict[str, Tensor]] = {}
    vectors: dict[str, list[Tensor]] = {}
    original = _original(model)
    for key, tensor in content.tensors.items():
        name = key.removeprefix("state_dict.")
        if name.startswith(WORDS):
            text = name.removeprefix(WORDS)
            head, _, number = text.rpartition(".")
            vectors.setdefault(head if head and number.isdigit() else text, []).append(tensor.float()[None])
        elif name == "embed":
            base = word or "<new>"
            for i, row in enumerate(tensor.float(), 1):
                vectors[base if len(tensor) == 1 else f"{base[:-1]}{i}{base[-1]}"] = [row[None]]
        else:
            half = name.rpartition(".")[2] if name.endswith((".u", ".v")) else "whole"
            name = name.removesuffix(f".{half}")
            matrices.setdefault(original.get(name, name), {})[half] = tensor.float()
    refuse_unknown(set(matrices), set(named), model.name)
    changes = {name: _change(name, parts, named[name].detach()) for name, parts in matrices.items()}
    return Parts({text: Word(tuple(rows)) for text, rows in vectors.items()}, changes)


def write(weights: Weights, model: Model) -> dict[str, Mapping[str, Any]]:
    """The one file, nested. Raises WeightsError for what is not Custom Diffusion's."""
    named = parameters_of(model)
    unet: dict[str, Any] = {}
    for name, change in weights.changes.items():
        if ".attn2." not in name or not name.startswith("unet."):
            raise WeightsError(f"These deltas are of cross-attention, and {name!r} is not.")
        ours = name.removeprefix("unet.")
        if isinstance(change, LowRank):
            if change.magnitude is not None:
                raise WeightsError("These deltas have no place for a magnitude (DoRA).")
            unet[ours] = {"u": change.alpha / len(change.a) * change.b.float(), "v": change.a.float()}
        else:
            unet[ours] = named[name].detach().float().cpu() + change.delta
    tokens: dict[str, Any] = {}
    for text, word in weights.words.items():
        if len(word.vectors[0]) != 1:
            raise WeightsError(
                f"These deltas have one vector for a word, and {text!r} has {len(word.vectors[0])}."
            )
        rows = [vectors[0] for vectors in word.vectors]
        tokens[text] = rows[0] if len(rows) == 1 else rows
    return {FILE: {"unet": unet, "modifier_token": tokens}}


def _original(model: Model) -> dict[str, str]:
    """Our names of the denoiser's parameters by those of the original code."""
    if model.family == "pixel":
        return {}
    config = {**model.denoiser.config, "_class_name": "UNet2DConditionModel"}
    table = part_table(model.family, "unet", config)
    return {f"{UNET}{rename.original}": f"unet.{rename.ours[0]}" for rename in table}


def _change(name: str, parts: Mapping[str, Tensor], base: Tensor) -> Change:
    if "whole" in parts:
        if parts["whole"].shape != base.shape:
            raise WeightsError(
                f"{name!r} is {tuple(parts['whole'].shape)} in the file and {tuple(base.shape)} in the model."
            )
        return Dense(parts["whole"] - base.float().cpu())
    if parts.keys() != {"u", "v"}:
        raise WeightsError(f"The file has only one half of the change of {name!r}.")
    return LowRank(parts["v"], parts["u"], float(len(parts["v"])))
