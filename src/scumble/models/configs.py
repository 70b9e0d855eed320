"""The published configs of SD 1.5, SD 2.1 and SDXL base, and models with random weights made from them.

Sources: the config files beside the published weights, `stable-diffusion-v1-5`, `stable-diffusion-2-1` (and
`-base`) and `stable-diffusion-xl-base-1.0`. A single-file checkpoint holds no config, so these are also what
such a file is read with. `ip2p` is SD 1.5 with the eight input channels of `instruct-pix2pix`, `upscaler` is
`stable-diffusion-x4-upscaler`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from scumble.core import rng
from scumble.core.errors import ModelError
from scumble.models.assemble import assemble
from scumble.models.checkpoint import PARTS, Checkpoint, State
from scumble.models.components import build
from scumble.models.model import Model
from scumble.models.tokenizer import clip_tokenizer
from scumble.models.upscaling import PIXEL_UPSCALER

__all__ = [
    "PUBLISHED",
    "Published",
    "network_configs",
    "pipeline_name",
    "published_tokenizers",
    "random_checkpoint",
    "random_model",
]

Published = Literal["sd1", "sd2", "sd2-base", "sdxl", "ip2p", "sdxl-edit", "upscaler"]

_DOWN, _CROSS_DOWN, _UP, _CROSS_UP = "DownBlock2D", "CrossAttnDownBlock2D", "UpBlock2D", "CrossAttnUpBlock2D"

_UNET1: dict[str, Any] = {
    "_class_name": "UNet2DConditionModel",
    "sample_size": 64,
    "in_channels": 4,
    "out_channels": 4,
    "center_input_sample": False,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "down_block_types": [_CROSS_DOWN] * 3 + [_DOWN],
    "up_block_types": [_UP] + [_CROSS_UP] * 3,
    "block_out_channels": [320, 640, 1280, 1280],
    "layers_per_block": 2,
    "downsample_padding": 1,
    "mid_block_scale_factor": 1,
    "act_fn": "silu",
    "norm_num_groups": 32,
    "norm_eps": 1e-5,
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
}
_UNET2 = {
    **_UNET1,
    "cross_attention_dim": 1024,
    "attention_head_dim": [5, 10, 20, 20],
    "use_linear_projection": True,
}
_UNETXL = {
    **_UNET2,
    "sample_size": 128,
    "down_block_types": [_DOWN, _CROSS_DOWN, _CROSS_DOWN],
    "up_block_types": [_CROSS_UP, _CROSS_UP, _UP],
    "block_out_channels": [320, 640, 1280],
    "attention_head_dim": [5, 10, 20],
    "transformer_layers_per_block": [1, 2, 10],
    "cross_attention_dim": 2048,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
_UNET_UPSCALER = {
    **_UNET2,
    "sample_size": 128,
    "in_channels": 7,
    "down_block_types": [_DOWN] + [_CROSS_DOWN] * 3,
    "up_block_types": [_CROSS_UP] * 3 + [_UP],
    "block_out_channels": [256, 512, 512, 1024],
    "attention_head_dim": 8,
    "only_cross_attention": [True, True, True, False],
    "num_class_embeds": 1000,
}
_VAE: dict[str, Any] = {
    "_class_name": "AutoencoderKL",
    "sample_size": 512,
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "block_out_channels": [128, 256, 512, 512],
    "layers_per_block": 2,
    "act_fn": "silu",
    "latent_channels": 4,
    "norm_num_groups": 32,
    "scaling_factor": 0.18215,
    "force_upcast": False,
}
_VAEXL = {**_VAE, "sample_size": 1024, "scaling_factor": 0.13025, "force_upcast": True}
_VAE_UPSCALER = {
    **_VAE,
    "sample_size": 256,
    "down_block_types": ["DownEncoderBlock2D"] * 3,
    "up_block_types": ["UpDecoderBlock2D"] * 3,
    "block_out_channels": [128, 256, 512],
    "scaling_factor": 0.08333,
    "force_upcast": True,
}


def _text(width: int, layers: int, heads: int, *, act: str, projection: int) -> dict[str, Any]:
    return {
        "_class_name": "CLIPTextModel",
        "vocab_size": 49408,
        "max_position_embeddings": 77,
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "hidden_act": act,
        "layer_norm_eps": 1e-5,
        "projection_dim": projection,
        "bos_token_id": 0,
        "eos_token_id": 2,
        "pad_token_id": 1,
    }


_CLIP_L = _text(768, 12, 12, act="quick_gelu", projection=768)
_OPEN_CLIP_H = _text(1024, 23, 16, act="gelu", projection=512)
_OPEN_CLIP_G = {
    **_text(1280, 32, 20, act="gelu", projection=1280),
    "_class_name": "CLIPTextModelWithProjection",
}

_BETAS: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "trained_betas": None,
    "steps_offset": 1,
}
_PNDM = {"_class_name": "PNDMScheduler", **_BETAS, "set_alpha_to_one": False, "skip_prk_steps": True}
_DDIM_V = {
    "_class_name": "DDIMScheduler",
    **_BETAS,
    "clip_sample": False,
    "prediction_type": "v_prediction",
    "set_alpha_to_one": False,
}
_EULER = {
    "_class_name": "EulerDiscreteScheduler",
    **_BETAS,
    "prediction_type": "epsilon",
    "timestep_spacing": "leading",
}
_UPSCALER_BETAS: dict[str, Any] = {**_BETAS, "beta_start": 0.0001, "beta_end": 0.02}
_EULER_A = {"_class_name": "EulerAncestralDiscreteScheduler", **_BETAS, "prediction_type": "epsilon"}

PUBLISHED: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "sd1": {"unet": _UNET1, "vae": _VAE, "text_encoder": _CLIP_L, "scheduler": _PNDM},
    "sd2": {
        "unet": {**_UNET2, "sample_size": 96, "upcast_attention": True},
        "vae": {**_VAE, "sample_size": 768},
        "text_encoder": _OPEN_CLIP_H,
        "scheduler": _DDIM_V,
    },
    "sd2-base": {"unet": _UNET2, "vae": _VAE, "text_encoder": _OPEN_CLIP_H, "scheduler": _PNDM},
    "sdxl": {
        "unet": _UNETXL,
        "vae": _VAEXL,
        "text_encoder": _CLIP_L,
        "text_encoder_2": _OPEN_CLIP_G,
        "scheduler": _EULER,
    },
    "ip2p": {
        "unet": {**_UNET1, "in_channels": 8},
        "vae": _VAE,
        "text_encoder": _CLIP_L,
        "scheduler": _EULER_A,
    },
    "sdxl-edit": {
        "unet": {**_UNETXL, "in_channels": 8},
        "vae": _VAEXL,
        "text_encoder": _CLIP_L,
        "text_encoder_2": _OPEN_CLIP_G,
        "scheduler": _EULER,
    },
    "upscaler": {
        "unet": _UNET_UPSCALER,
        "vae": _VAE_UPSCALER,
        "text_encoder": _OPEN_CLIP_H,
        "scheduler": {**_DDIM_V, **_UPSCALER_BETAS},
        "low_res_scheduler": {"_class_name": "DDPMScheduler", **_UPSCALER_BETAS},
    },
}
"""Part -> config, for each published model, with the schedulers that it is published with."""

_PIPELINES = {
    "sdxl": "StableDiffusionXLPipeline",
    "ip2p": "StableDiffusionInstructPix2PixPipeline",
    "sdxl-edit": "StableDiffusionXLInstructPix2PixPipeline",
    "upscaler": PIXEL_UPSCALER,
}


def network_configs(kind: Published) -> dict[str, Mapping[str, Any]]:
    """The configs of the parts that hold tensors."""
    return {part: config for part, config in PUBLISHED[kind].items() if part in PARTS}


def pipeline_name(kind: Published) -> str:
    """The diffusers pipeline class that a folder of this kind names."""
    return _PIPELINES.get(kind, "StableDiffusionPipeline")


def published_tokenizers(kind: Published) -> tuple[Any, ...]:
    """The tokenizers of a published model, from the vocabulary in the package."""
    if kind.startswith("sdxl"):
        return clip_tokenizer(), clip_tokenizer(pad="!")
    return (clip_tokenizer(pad="!" if kind in ("sd2", "sd2-base", "upscaler") else "<|endoftext|>"),)


def random_checkpoint(
    kind: Published,
    size: Literal["tiny", "full"] = "tiny",
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> Checkpoint:
    """A checkpoint of random weights, of a published model's size or a few thousand times smaller.

    Each tensor is drawn from a generator of its own whenever it is asked for, so nothing is held. Matrices
    have standard deviation 1/sqrt(fan-in), which keeps activations of order one; norms are the identity. The
    denoiser of full size has 0.86 (sd1, sd2) or 2.57 (sdxl) times 10^9 parameters.
    """
    if kind not in PUBLISHED:
        raise ModelError(f"There is no published model {kind!r}.", f"There are {', '.join(PUBLISHED)}.")
    configs = {part: dict(config) for part, config in network_configs(kind).items()}
    if size == "tiny":
        configs = {part: {**config, **_TINY[part]} for part, config in configs.items()}
        _fit_tiny(configs)

    def state(part: str) -> State:
        module = build(configs[part], part)
        return {
            name: _drawn(name, tensor, rng.generator(rng.derive(seed, part, name)), dtype)
            for name, tensor in module.state_dict().items()
        }

    return Checkpoint(
        name=f"random-{size}-{kind}",
        configs=configs,
        state=state,
        scheduler=PUBLISHED[kind]["scheduler"],
        low_res_scheduler=PUBLISHED[kind].get("low_res_scheduler"),
        tokenizers=published_tokenizers(kind),
        pipeline=pipeline_name(kind),
        zeros_for_empty=kind.startswith("sdxl"),
        is_random=True,
    )


def random_model(
    kind: Published,
    size: Literal["tiny", "full"] = "tiny",
    *,
    seed: int = 0,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Model:
    """A model of `random_checkpoint`, with `is_random` True. Tiny ones make pictures of 64 px (f = 8)."""
    checkpoint = random_checkpoint(kind, size, seed=seed, dtype=dtype)
    return assemble(checkpoint, device=torch.device(device), dtype=dtype)


_TINY: dict[str, dict[str, Any]] = {
    "unet": {"sample_size": 8, "layers_per_block": 1, "norm_num_groups": 8, "addition_time_embed_dim": 8},
    "vae": {
        "sample_size": 64,
        "block_out_channels": [16, 16, 32, 32],
        "layers_per_block": 1,
        "norm_num_groups": 8,
    },
    "text_encoder": {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
    },
    "text_encoder_2": {
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "projection_dim": 40,
    },
}


def _fit_tiny(configs: dict[str, dict[str, Any]]) -> None:
    """Make the tiny denoiser's widths follow from its number of levels and the tiny text encoders' widths."""
    unet, vae = configs["unet"], configs["vae"]
    levels = len(unet["block_out_channels"])
    vae["block_out_channels"] = vae["block_out_channels"][: len(vae["down_block_types"])]
    unet["block_out_channels"] = [16, 32, 32, 32][:levels]
    unet["attention_head_dim"] = 2 if unet["attention_head_dim"] == 8 else [2, 4, 4, 4][:levels]
    unet["cross_attention_dim"] = sum(
        c["hidden_size"] for part, c in configs.items() if part.startswith("text")
    )
    if "text_encoder_2" not in configs:
        del unet["addition_time_embed_dim"]
        return
    unet["transformer_layers_per_block"] = [1, 1, 2]
    pooled = configs["text_encoder_2"]["projection_dim"]
    unet["projection_class_embeddings_input_dim"] = 6 * unet["addition_time_embed_dim"] + pooled


def _drawn(name: str, like: Tensor, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """A random tensor of the shape of `like`; ones for a norm's weight and zeros for a bias."""
    if like.ndim < 2:
        return torch.full(like.shape, float(name.endswith("weight")), dtype=dtype)
    drawn = torch.empty(like.shape, dtype=dtype)
    return nn.init.normal_(drawn, std=math.prod(like.shape[1:]) ** -0.5, generator=generator)
