"""A tiny random latent upscaler, laid out as the toybox's is, for tests; nothing else writes that layout."""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

from tiny import BETAS

__all__ = ["latent_upscaler", "shared_latent_upscaler"]


def latent_upscaler(path: Path, *, labels: int = 100, **unet: Any) -> Path:
    """Write one to the folder `path`: f = 8, 4 latent channels, 64 px default, twice as large."""
    state = torch.get_rng_state()
    torch.manual_seed(3)
    try:
        network = UNet2DConditionModel(
            **{
                "sample_size": 8,
                "in_channels": 8,
                "out_channels": 4,
                "num_class_embeds": labels,
                "block_out_channels": (16, 32),
                "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
                "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
                "layers_per_block": 1,
                "norm_num_groups": 8,
                "cross_attention_dim": 32,
                "attention_head_dim": 2,
                **unet,
            }
        )
        vae = AutoencoderKL(
            block_out_channels=(8, 8, 16, 16),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=1,
            norm_num_groups=4,
            latent_channels=4,
            sample_size=64,
        )
    finally:
        torch.set_rng_state(state)
    network.save_pretrained(path / "unet")
    vae.save_pretrained(path / "vae")
    index = {
        "_class_name": "ScumbleLatentUpscalePipeline",
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "low_res_scheduler": ["diffusers", "DDPMScheduler"],
        "max_noise_level": labels - 1,
    }
    (path / "model_index.json").write_text(json.dumps(index))
    for name, kind in (("scheduler", "DDIMScheduler"), ("low_res_scheduler", "DDPMScheduler")):
        (path / name).mkdir()
        config = {"_class_name": kind, **BETAS, "prediction_type": "epsilon"}
        (path / name / "scheduler_config.json").write_text(json.dumps(config))
    return path


@cache
def shared_latent_upscaler() -> Path:
    """One that is made once for the whole test run and must not be written to."""
    folder = Path(tempfile.mkdtemp(prefix="tiny-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return latent_upscaler(folder / "latent-upscaler")
