"""Tiny random models in diffusers layout, for every test that needs a model and not a good one.

    from tiny import make
    folder = make("sdxl", tmp_path / "model")

Families: `sd1` (eps), `sd2` (v, linear projections, `!` as padding), `sdxl` (two text encoders, size
conditioning), `ip2p` (sd1 whose denoiser takes 8 channels), `upscaler` (the x4-upscaler's layout: 7 channels,
f = 4, 32 px default), `ddpm` and `ve` (pixel space). Latent ones: 64 px default, f = 8, 4 latent channels.
Pixel ones: 16 px. The tokenizer is a real byte-pair encoder with a vocabulary of its own, so words differ
from one another, and cross-attention is turned up so that the prompt moves the output visibly. Nothing here
imports scumble.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    PNDMScheduler,
    ScoreSdeVePipeline,
    ScoreSdeVeScheduler,
    StableDiffusionInstructPix2PixPipeline,
    StableDiffusionPipeline,
    StableDiffusionUpscalePipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
    UNet2DModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

__all__ = ["FAMILIES", "LATENT_FAMILIES", "PIXEL_FAMILIES", "clip", "make", "pipeline", "shared", "tokenizer"]

LATENT_FAMILIES = ("sd1", "sd2", "sdxl", "ip2p")
PIXEL_FAMILIES = ("ddpm", "ve")
FAMILIES = LATENT_FAMILIES + PIXEL_FAMILIES

SENTENCE = """
    cat dog red blue green ball cube hat the a of on photo painting sitting grass night day make it toy mug
    small large left right sky with and in his her wooden glass rex
"""
WORDS = SENTENCE.split()

BETAS: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
}


def make(family: str, path: Path, *, seed: int = 0, **unet: Any) -> Path:
    """Write a tiny random model of `family` to the folder `path`; `unet` overrides the denoiser's config."""
    pipeline(family, seed=seed, **unet).save_pretrained(path)
    return path


@cache
def shared(family: str) -> Path:
    """A folder of `make(family)` that is made once for the whole test run and must not be written to."""
    folder = Path(tempfile.mkdtemp(prefix="tiny-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return make(family, folder / family)


def pipeline(family: str, *, seed: int = 0, **unet: Any) -> Any:
    """The diffusers pipeline of `family` with weights drawn from `seed`, in float32 and evaluation mode."""
    state = torch.get_rng_state()
    torch.manual_seed(seed)
    try:
        return {
            "sd1": _sd1,
            "sd2": _sd2,
            "sdxl": _sdxl,
            "ip2p": _ip2p,
            "upscaler": _upscaler,
            "ddpm": _ddpm,
            "ve": _ve,
        }[family](**unet)
    finally:
        torch.set_rng_state(state)


def tokenizer(pad: str = "<|endoftext|>") -> CLIPTokenizer:
    """A byte-pair tokenizer: 512 byte tokens, a chain of merges for each of WORDS, then the two markers."""
    letters = _byte_letters()
    vocab = {token: i for i, token in enumerate(letters + [letter + "</w>" for letter in letters])}
    merges: list[tuple[str, str]] = []
    for word in WORDS:
        parts = [*word[:-1], word[-1] + "</w>"]
        while len(parts) > 1:
            pair = (parts[0], parts[1])
            parts[:2] = ["".join(pair)]
            if pair not in merges:
                merges.append(pair)
                vocab.setdefault("".join(pair), len(vocab))
    for marker in ("<|startoftext|>", "<|endoftext|>"):
        vocab[marker] = len(vocab)
    return CLIPTokenizer(vocab=vocab, merges=merges, pad_token=pad, model_max_length=77)


def clip(width: int = 32, *, layers: int = 2, act: str = "quick_gelu", projection: int | None = None) -> Any:
    """A text encoder for `tokenizer()`: CLIPTextModel, or the one with a projection of size `projection`."""
    words = len(tokenizer())
    config = CLIPTextConfig(
        vocab_size=words,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=2,
        hidden_act=act,
        projection_dim=projection or width,
        bos_token_id=words - 2,
        eos_token_id=words - 1,
        pad_token_id=words - 1,
        attn_implementation="sdpa",
    )
    return _settled((CLIPTextModelWithProjection if projection else CLIPTextModel)(config))


def _byte_letters() -> list[str]:
    """A printable letter for each byte, as byte-level BPE writes them: printable bytes as themselves."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + i) for i in range(len(others))]


def _settled(module: torch.nn.Module) -> torch.nn.Module:
    for name, parameter in module.named_parameters():
        if "attn2.to_" in name or "embedding.weight" in name:
            parameter.data.mul_(4)
    return module.eval().requires_grad_(False)


def _vae(**config: Any) -> Any:
    layout: dict[str, Any] = {
        "block_out_channels": (8, 8, 16, 16),
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "latent_channels": 4,
        "sample_size": 64,
    }
    return _settled(AutoencoderKL(**{**layout, **config}))


def _unet(**config: Any) -> Any:
    layout: dict[str, Any] = {
        "sample_size": 8,
        "block_out_channels": (16, 32),
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "layers_per_block": 1,
        "norm_num_groups": 8,
        "cross_attention_dim": 32,
        "attention_head_dim": 2,
    }
    return _settled(UNet2DConditionModel(**{**layout, **config}))


def _sd1(pipe: Any = StableDiffusionPipeline, scheduler: Any = None, **unet: Any) -> Any:
    return pipe(
        vae=_vae(),
        text_encoder=clip(),
        tokenizer=tokenizer(),
        unet=_unet(**unet),
        scheduler=scheduler or PNDMScheduler(**BETAS, skip_prk_steps=True),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _ip2p(**unet: Any) -> Any:
    scheduler = EulerAncestralDiscreteScheduler(**BETAS)
    return _sd1(StableDiffusionInstructPix2PixPipeline, scheduler, **{"in_channels": 8, **unet})


def _sd2(**unet: Any) -> Any:
    layout = {"use_linear_projection": True, "attention_head_dim": (2, 4), "cross_attention_dim": 48}
    return StableDiffusionPipeline(
        vae=_vae(),
        text_encoder=clip(48, act="gelu", layers=3),
        tokenizer=tokenizer(pad="!"),
        unet=_unet(**{**layout, **unet}),
        scheduler=DDIMScheduler(
            **BETAS, prediction_type="v_prediction", set_alpha_to_one=False, clip_sample=False
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _upscaler(**unet: Any) -> Any:
    betas = {**BETAS, "beta_start": 0.0001, "beta_end": 0.02}
    layout = {
        "in_channels": 7,
        "num_class_embeds": 1000,
        "use_linear_projection": True,
        "only_cross_attention": (True, False),
        "attention_head_dim": 2,
        "cross_attention_dim": 48,
    }
    vae = {
        "block_out_channels": (8, 8, 16),
        "down_block_types": ("DownEncoderBlock2D",) * 3,
        "up_block_types": ("UpDecoderBlock2D",) * 3,
        "sample_size": 32,
        "scaling_factor": 0.08333,
    }
    return StableDiffusionUpscalePipeline(
        vae=_vae(**vae),
        text_encoder=clip(48, act="gelu", layers=3),
        tokenizer=tokenizer(pad="!"),
        unet=_unet(**{**layout, **unet}),
        low_res_scheduler=DDPMScheduler(**{k: v for k, v in betas.items() if k != "steps_offset"}),
        scheduler=DDIMScheduler(
            **betas, prediction_type="v_prediction", set_alpha_to_one=False, clip_sample=False
        ),
        max_noise_level=350,
    )


def _sdxl(**unet: Any) -> Any:
    layout = {
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "use_linear_projection": True,
        "attention_head_dim": (2, 4),
        "transformer_layers_per_block": (1, 2),
        "cross_attention_dim": 32 + 48,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 6 * 8 + 40,
    }
    return StableDiffusionXLPipeline(
        vae=_vae(scaling_factor=0.13025, force_upcast=False),
        text_encoder=clip(32, layers=3),
        text_encoder_2=clip(48, layers=3, act="gelu", projection=40),
        tokenizer=tokenizer(),
        tokenizer_2=tokenizer(pad="!"),
        unet=_unet(**{**layout, **unet}),
        scheduler=EulerDiscreteScheduler(**BETAS),
        force_zeros_for_empty_prompt=True,
        add_watermarker=False,
    )


def _pixel_unet(**config: Any) -> Any:
    layout: dict[str, Any] = {
        "sample_size": 16,
        "in_channels": 3,
        "out_channels": 3,
        "layers_per_block": 1,
        "block_out_channels": (16, 32),
        "norm_num_groups": 8,
        "attention_head_dim": 8,
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    }
    return _settled(UNet2DModel(**{**layout, **config}))


def _ddpm(**unet: Any) -> Any:
    scheduler = DDPMScheduler(num_train_timesteps=1000, beta_start=0.0001, beta_end=0.02)
    return DDPMPipeline(unet=_pixel_unet(**unet), scheduler=scheduler)


def _ve(**unet: Any) -> Any:
    layout = {
        "time_embedding_type": "fourier",
        "down_block_types": ("SkipDownBlock2D", "AttnSkipDownBlock2D"),
        "up_block_types": ("AttnSkipUpBlock2D", "SkipUpBlock2D"),
        "block_out_channels": (32, 32),
        "mid_block_scale_factor": 1.41421356237,
        "downsample_padding": 1,
        "norm_eps": 1e-6,
        "act_fn": "silu",
        "freq_shift": 0,
    }
    scheduler = ScoreSdeVeScheduler(num_train_timesteps=2000, snr=0.15, sigma_min=0.01, sigma_max=1348.0)
    return ScoreSdeVePipeline(unet=_pixel_unet(**{**layout, **unet}), scheduler=scheduler)
