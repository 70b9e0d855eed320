"""A tiny random CLIP in transformers layout: 32 px, patches of 8. Nothing here imports scumble."""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
from functools import cache
from pathlib import Path

import torch
from transformers import CLIPConfig, CLIPModel

import tiny

__all__ = ["shared_clip"]


@cache
def shared_clip(blocks: int = 2) -> Path:
    """A folder of a tiny CLIP that is made once for the whole run and must not be written to."""
    folder = Path(tempfile.mkdtemp(prefix="tiny-clip-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}
    words = len(tiny.tokenizer())
    markers = {"vocab_size": words, "bos_token_id": words - 2, "eos_token_id": words - 1, "pad_token_id": 0}
    text = {**sizes, **markers, "num_hidden_layers": 2}
    vision = {**sizes, "num_hidden_layers": blocks, "image_size": 32, "patch_size": 8}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16))
        for name, parameter in network.named_parameters():
            if parameter.ndim > 1:  # so that attention is not flat and words differ
                parameter.data.mul_(4)
            elif "bias" in name:
                parameter.data.normal_(std=0.1)
    network.save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    preparation = {"crop_size": 32, "size": 32, "image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.25]}
    (folder / "preprocessor_config.json").write_text(json.dumps(preparation))
    return folder
