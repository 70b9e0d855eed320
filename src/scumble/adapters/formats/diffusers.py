"""What diffusers and peft keep: words, low-rank changes, and Custom Diffusion's whole matrices.

Words, `learned_embeds.safetensors`: one tensor (n, D), its key the word; for SDXL a second file for the
second text encoder. Low rank, `pytorch_lora_weights.safetensors`: `unet.LAYER.lora.down.weight` (r, in) and
`.lora.up.weight` (out, r), `text_encoder.text_model.LAYER.lora_linear_layer.down.weight`, without an alpha,
which is then r; with DoRA peft's spelling, `LAYER.lora_A.weight`, `.lora_B.weight`, `.lora_magnitude_vector`.
Custom Diffusion, `pytorch_custom_diffusion_weights.safetensors`: `LAYER.attn2.processor.to_k_custom_diffusion
.weight` and its like, whole matrices and not changes.

Their loader for the last wants an entry for every attention layer. Those that do not change get an empty
tensor here, since without it a safetensors file cannot be loaded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scumble.adapters.changes import Change, Dense, LowRank, parameters_of, refuse_unknown
from scumble.adapters.formats.content import (
    Content,
    LowRankParts,
    Parts,
    file_names,
    metadata_json,
    no_place,
    read_content,
)
from scumble.adapters.tokens import check_word
from scumble.adapters.weights import Weights, Word
from scumble.core.errors import WeightsError
from scumble.models.model import Model

__all__ = ["NAME", "claims", "low_rank_parts", "read", "write", "written_words"]

NAME = "diffusers"
LORA_FILE = "pytorch_lora_weights.safetensors"
CUSTOM_FILE = "pytorch_custom_diffusion_weights.safetensors"
WORD_FILE = "learned_embeds.safetensors"

_LOW_RANK = re.compile(
    r"(?P<layer>.+?)(?P<old>\.processor\.(?P<which>to_(?:q|k|v|out)))?"
    r"(?:\.lora_linear_layer\.(?P<linear>down|up)\.weight"
    r"|[._]lora\.(?P<lora>down|up)\.weight"
    r"|\.lora_(?P<peft>A|B)(?:\.default)?\.weight"
    r"|\.(?P<magnitude>lora_magnitude_vector)(?:\.default)?(?:\.weight)?"
    r"|\.(?P<alpha>alpha|network_alpha))"
)
_CUSTOM = re.compile(r"(?P<layer>.+)\.processor\.(?P<which>to_[kqv]|to_out)_custom_diffusion\.(?P<rest>.+)")


def claims(content: Content) -> bool:
    """Whether a file is of this format: any spelling of low rank, Custom Diffusion, or one word."""
    if any(_LOW_RANK.fullmatch(name) or _CUSTOM.fullmatch(name) for name in content.tensors):
        return True
    if len(content.tensors) != 1:
        return False
    [(name, tensor)] = content.tensors.items()
    return tensor.ndim in (1, 2) and tensor.is_floating_point() and _names_a_word(name)


def read(content: Content, model: Model, word: str, path: Path) -> Parts:
    """Words or changes of one file. Raises WeightsError for a layer that the model does not have."""
    if any(_CUSTOM.fullmatch(name) for name in content.tensors):
        return Parts(changes=_custom(content.tensors, model))
    if any(_LOW_RANK.fullmatch(name) for name in content.tensors):
        return Parts(changes=_low_rank(content, model))
    [(name, tensor)] = content.tensors.items()
    vectors = [tensor.float().reshape(-1, tensor.shape[-1])]
    second = path.with_name(f"{path.stem}_2{path.suffix}")
    if len(model.text_encoders) > 1 and second.is_file():
        [(_, other)] = read_content(second).tensors.items()
        vectors.append(other.float().reshape(-1, other.shape[-1]))
    return Parts({word or name: Word(tuple(vectors))})


def write(weights: Weights, model: Model) -> dict[str, Mapping[str, Any]]:
    """The files, by name. Raises WeightsError for dense changes outside cross-attention."""
    files: dict[str, Mapping[str, Any]] = {}
    low = {name: c for name, c in weights.changes.items() if isinstance(c, LowRank)}
    dense = {name: c for name, c in weights.changes.items() if isinstance(c, Dense)}
    if low:
        files[LORA_FILE] = low_rank_parts(low)
    if dense:
        others = {n: c for n, c in dense.items() if ".attn2." not in n or not n.startswith("unet.")}
        if others:
            raise no_place(NAME, weights, others)
        files[CUSTOM_FILE] = _written_custom(dense, model)
    return files | written_words(weights)


def written_words(weights: Weights) -> dict[str, Mapping[str, Any]]:
    """The files of the words: `learned_embeds` for one, a file each for several."""
    files: dict[str, Mapping[str, Any]] = {}
    stems = file_names(weights.words)
    for text, word in weights.words.items():
        stem = Path(WORD_FILE).stem if len(weights.words) == 1 else stems[text]
        for number, vectors in enumerate(word.vectors, 1):
            name = f"{stem}.safetensors" if number == 1 else f"{stem}_{number}.safetensors"
            files[name] = {text: vectors}
    return files


def low_rank_parts(changes: Mapping[str, LowRank]) -> dict[str, Tensor]:
    """The tensors of low-rank changes, `alpha / r` multiplied in."""
    tensors: dict[str, Tensor] = {}
    for name, change in changes.items():
        part, _, layer = name.removesuffix(".weight").partition(".")
        text = part.startswith("text")
        inside = text and not layer.startswith("text_projection")
        where = f"{part}.text_model.{layer}" if inside else f"{part}.{layer}"
        up = change.alpha / len(change.a) * change.b.float()
        up = up.reshape(*up.shape, *[1] * (change.a.ndim - 2))  # (out, r[, 1, 1])
        if change.magnitude is not None:
            tensors[f"{where}.lora_A.weight"] = change.a
            tensors[f"{where}.lora_B.weight"] = up
            tensors[f"{where}.lora_magnitude_vector"] = change.magnitude
        else:
            kind = "lora_linear_layer" if text else "lora"
            tensors[f"{where}.{kind}.down.weight"] = change.a
            tensors[f"{where}.{kind}.up.weight"] = up
    return tensors


def _names_a_word(name: str) -> bool:
    """Whether a tensor's name can be a word's, and is not how a network's own tensors are called."""
    try:
        return check_word(name) == name and not name.endswith((".weight", ".bias"))
    except WeightsError:
        return False


def _low_rank(content: Content, model: Model) -> dict[str, Change]:
    parts: dict[str, LowRankParts] = {}
    for name, tensor in content.tensors.items():
        match = _LOW_RANK.fullmatch(name)
        if match is None:
            raise WeightsError(f"The tensor {name[:120]!r} has no place among low-rank changes.")
        layer = match["layer"] + (f".{match['which']}" if match["old"] else "")
        layer += ".0" if layer.endswith("to_out") else ""
        half = match["linear"] or match["lora"] or {"A": "down", "B": "up"}.get(match["peft"] or "")
        kind = half or ("magnitude" if match["magnitude"] else "alpha")
        parts.setdefault(_ours(layer), LowRankParts()).tensors[kind] = tensor
    named = parameters_of(model)
    refuse_unknown(set(parts), set(named), model.name)
    about = metadata_json(content, "lora_adapter_metadata")
    return {n: part.change(n, named[n].shape, _alpha(about, n)) for n, part in parts.items()}


def _alpha(about: Mapping[str, Any], name: str) -> float | None:
    """peft's alpha of a parameter, from the metadata that newer files have."""
    part, _, layer = name.removesuffix(".weight").partition(".")
    patterns: Any = about.get(f"{part}.alpha_pattern")
    named = patterns.items() if isinstance(patterns, dict) else ()
    found = next((v for key, v in named if layer.endswith(str(key))), about.get(f"{part}.lora_alpha"))
    return float(found) if isinstance(found, int | float) else None


def _ours(layer: str) -> str:
    """The parameter that a layer's change is of."""
    layer = layer.removeprefix("base_model.model.").replace(".text_model.", ".", 1)
    if layer.startswith(("down_blocks.", "up_blocks.", "mid_block.", "conv_")):
        layer = f"unet.{layer}"
    return f"{layer}.weight"


def _custom(tensors: Mapping[str, Tensor], model: Model) -> dict[str, Change]:
    named = parameters_of(model)
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if match := _CUSTOM.fullmatch(name):
            found[f"unet.{match['layer'].removeprefix('unet.')}.{match['which']}.{match['rest']}"] = tensor
        elif tensor.numel():
            raise WeightsError(f"The tensor {name[:120]!r} has no place in Custom Diffusion's weights.")
    refuse_unknown(set(found), set(named), model.name)
    return {n: Dense(t.float() - named[n].detach().float().cpu()) for n, t in found.items()}


def _written_custom(changes: Mapping[str, Dense], model: Model) -> dict[str, Tensor]:
    """Whole matrices of every cross-attention layer, and empty entries for the other attention layers."""
    named = parameters_of(model)
    kinds = ["to_k.weight", "to_v.weight"]
    if any(not name.endswith(tuple(kinds)) for name in changes):
        kinds += ["to_q.weight", "to_out.0.weight", "to_out.0.bias"]
    tensors: dict[str, Tensor] = {}
    for layer in (name.removesuffix(".to_k.weight") for name in named if name.endswith(".to_k.weight")):
        if not layer.startswith("unet."):
            continue
        where = f"{layer.removeprefix('unet.')}.processor"
        if not layer.endswith(".attn2"):
            tensors[where] = torch.zeros(0)
            continue
        for kind in kinds:
            base = named[f"{layer}.{kind}"].detach().float().cpu()
            change = changes.get(f"{layer}.{kind}")
            first, _, rest = kind.partition(".")
            tensors[f"{where}.{first}_custom_diffusion.{rest}"] = (
                base if change is None else base + change.delta
            )
    return tensors
