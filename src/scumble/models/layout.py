"""The original single-file layout, written as a table: which of its tensors is which of ours.

A config decides how many blocks there are; the rules below number them. Each function gives `Rename`s,
original name without the part's prefix on the left and diffusers or transformers name on the right, and one
table serves reading and writing. Layouts: Rombach et al. 2022 (`input_blocks`, `middle_block`,
`output_blocks`; the autoencoder's `down`, `mid`, `up`), and OpenCLIP's text transformer, whose attention
holds query, key and value in one matrix.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from scumble.models.checkpoint import State

__all__ = [
    "Rename",
    "from_original",
    "open_clip_renames",
    "text_renames",
    "to_original",
    "unet_renames",
    "vae_renames",
]

Kind = Literal["same", "conv", "transposed", "stacked"]


@dataclass(frozen=True, slots=True)
class Rename:
    """One original tensor and what it is here.

    `ours` is one name, or three for `stacked`: query, key and value, one above another. `conv`: a 1 x 1
    convolution (O, I, 1, 1) there and a matrix (O, I) here. `transposed`: (I, O) there, (O, I) here.
    """

    original: str
    ours: tuple[str, ...]
    kind: Kind = "same"


_RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
_VAE_RESNET = {name: name for name in ("norm1", "conv1", "norm2", "conv2")} | {
    "nin_shortcut": "conv_shortcut"
}
_VAE_ATTENTION = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}
_TEXT_LAYER = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}


def unet_renames(config: Mapping[str, Any], names: list[str]) -> list[Rename]:
    """The denoiser's table; `names` are the tensors that the denoiser of this config has."""
    modules = dict(_unet_modules(config))
    return [Rename(_renamed(name, modules), (name,)) for name in names]


def vae_renames(config: Mapping[str, Any], names: list[str]) -> list[Rename]:
    """The autoencoder's table. Its attention is made of 1 x 1 convolutions there and of matrices here."""
    modules = dict(_vae_modules(config))
    return [
        Rename(
            _renamed(name, modules),
            (name,),
            "conv"
            if ".attentions." in name and name.endswith("weight") and "group_norm" not in name
            else "same",
        )
        for name in names
    ]


def text_renames(names: list[str]) -> list[Rename]:
    """The table of a text encoder stored as transformers' (SD 1.x, SDXL's first): only a prefix differs."""
    return [Rename("text_model." + name, (name,)) for name in names]


def open_clip_renames(names: list[str]) -> list[Rename]:
    """The table of an OpenCLIP text transformer (SD 2.x, SDXL's second)."""
    return [rename for name in names if (rename := _open_clip(name)) is not None]


def from_original(state: Mapping[str, Tensor], table: list[Rename]) -> State:
    """Our tensors from original ones (prefix removed), each a view of its original where layout allows."""
    result: State = {}
    for rename in table:
        tensor = state[rename.original]
        if rename.kind == "stacked":
            result.update(zip(rename.ours, tensor.chunk(3), strict=True))  # (3 D, ...) -> 3 of (D, ...)
        elif rename.kind == "conv":
            result[rename.ours[0]] = tensor.flatten(1) if tensor.shape[2:] in ((1, 1), ()) else tensor
        else:
            result[rename.ours[0]] = tensor.T if rename.kind == "transposed" else tensor
    return result


def to_original(state: Mapping[str, Tensor], table: list[Rename]) -> dict[str, Tensor]:
    """Original tensors from ours: the inverse of `from_original`."""
    result: dict[str, Tensor] = {}
    for rename in table:
        tensors = [state[name] for name in rename.ours]
        if rename.kind == "stacked":
            result[rename.original] = torch.cat(tensors)
        elif rename.kind == "conv":
            result[rename.original] = tensors[0][:, :, None, None]
        else:
            result[rename.original] = tensors[0].T if rename.kind == "transposed" else tensors[0]
    return result


def _renamed(name: str, modules: Mapping[str, str]) -> str:
    """Our tensor name with its longest prefix that the table knows replaced by the original's."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        prefix = ".".join(parts[:end])
        if prefix in modules:
            return ".".join([modules[prefix], *parts[end:]])
    return name


def _resnet(ours: str, original: str, table: Mapping[str, str] = _RESNET) -> Iterator[tuple[str, str]]:
    for there, here in table.items():
        yield f"{ours}.{here}", f"{original}.{there}"


def _unet_modules(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(our module, original module), in the order in which the original numbers its blocks."""
    yield from {
        "time_embedding.linear_1": "time_embed.0",
        "time_embedding.linear_2": "time_embed.2",
        "class_embedding": "label_emb",
        "add_embedding.linear_1": "label_emb.0.0",
        "add_embedding.linear_2": "label_emb.0.2",
        "conv_in": "input_blocks.0.0",
        "conv_norm_out": "out.0",
        "conv_out": "out.2",
        "mid_block.attentions.0": "middle_block.1",
    }.items()
    yield from _resnet("mid_block.resnets.0", "middle_block.0")
    yield from _resnet("mid_block.resnets.1", "middle_block.2")
    per_block, levels = config.get("layers_per_block", 2), len(config["block_out_channels"])
    number = 1
    for level, kind in enumerate(config["down_block_types"]):
        for layer in range(per_block):
            yield from _resnet(f"down_blocks.{level}.resnets.{layer}", f"input_blocks.{number}.0")
            if "CrossAttn" in kind:
                yield f"down_blocks.{level}.attentions.{layer}", f"input_blocks.{number}.1"
            number += 1
        if level < levels - 1:
            yield f"down_blocks.{level}.downsamplers.0.conv", f"input_blocks.{number}.0.op"
            number += 1
    number = 0
    for level, kind in enumerate(config["up_block_types"]):
        for layer in range(per_block + 1):
            yield from _resnet(f"up_blocks.{level}.resnets.{layer}", f"output_blocks.{number}.0")
            if "CrossAttn" in kind:
                yield f"up_blocks.{level}.attentions.{layer}", f"output_blocks.{number}.1"
            number += 1
        if level < levels - 1:  # the upsampler is the last module of the level's last block
            place = 2 if "CrossAttn" in kind else 1
            yield f"up_blocks.{level}.upsamplers.0.conv", f"output_blocks.{number - 1}.{place}.conv"


def _vae_modules(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    per_block, levels = config.get("layers_per_block", 1), len(config["block_out_channels"])
    for side in ("encoder", "decoder"):
        yield f"{side}.conv_norm_out", f"{side}.norm_out"
        for place in (0, 1):
            yield from _resnet(
                f"{side}.mid_block.resnets.{place}", f"{side}.mid.block_{place + 1}", _VAE_RESNET
            )
        yield from _resnet(f"{side}.mid_block.attentions.0", f"{side}.mid.attn_1", _VAE_ATTENTION)
    for level in range(levels):
        there = f"encoder.down.{level}"
        for layer in range(per_block):
            yield from _resnet(
                f"encoder.down_blocks.{level}.resnets.{layer}", f"{there}.block.{layer}", _VAE_RESNET
            )
        yield f"encoder.down_blocks.{level}.downsamplers.0.conv", f"{there}.downsample.conv"
        there = f"decoder.up.{levels - 1 - level}"  # the original counts levels by resolution on both sides
        for layer in range(per_block + 1):
            yield from _resnet(
                f"decoder.up_blocks.{level}.resnets.{layer}", f"{there}.block.{layer}", _VAE_RESNET
            )
        yield f"decoder.up_blocks.{level}.upsamplers.0.conv", f"{there}.upsample.conv"


def _open_clip(name: str) -> Rename | None:
    """The rename of one of our names; None for key and value, which come with query."""
    whole = name
    name = name.removeprefix("text_model.")
    simple = {
        "embeddings.token_embedding.weight": "token_embedding.weight",
        "embeddings.position_embedding.weight": "positional_embedding",
        "final_layer_norm.weight": "ln_final.weight",
        "final_layer_norm.bias": "ln_final.bias",
    }
    if name in simple:
        return Rename(simple[name], (whole,))
    if name == "text_projection.weight":
        return Rename("text_projection", (whole,), "transposed")
    _, _, layer, rest = name.split(".", 3)  # encoder.layers.N.rest
    block = f"transformer.resblocks.{layer}"
    if rest.startswith(("self_attn.k_proj", "self_attn.v_proj")):
        return None
    if rest.startswith("self_attn.q_proj"):
        kind = rest.rpartition(".")[2]
        stacked = tuple(whole.replace("q_proj", which) for which in ("q_proj", "k_proj", "v_proj"))
        return Rename(f"{block}.attn.in_proj_{kind}", stacked, "stacked")
    module, _, kind = rest.rpartition(".")
    there = {here: there for there, here in _TEXT_LAYER.items()}[module]
    return Rename(f"{block}.{there}.{kind}", (whole,))
