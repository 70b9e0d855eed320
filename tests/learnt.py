"""Tiny models, and weights that could have been learnt on them, for the tests of what is put into models."""

from __future__ import annotations

import tempfile
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scumble.adapters.changes import Dense, LowRank, norms, parameters_of
from scumble.adapters.weights import Weights, Word
from scumble.core import rng
from scumble.models.load import load
from scumble.models.model import Model
from tiny import make

__all__ = ["digests", "learnt", "noise", "output", "tiny_model"]

KEY = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"
QUERY = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q.weight"
CONV = "unet.down_blocks.0.resnets.0.conv1.weight"
TEXT = "text_encoder.encoder.layers.0.self_attn.q_proj.weight"
BIAS = "unet.conv_in.bias"


@cache
def _folder(family: str) -> Path:
    return make(family, Path(tempfile.mkdtemp(prefix="tiny-")) / family)


def tiny_model(family: str = "sd1", dtype: str = "float32") -> Model:
    """A fresh tiny model with weights that are always the same."""
    return load(_folder(family), dtype=dtype)  # pyright: ignore[reportArgumentType]


def noise(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    return scale * rng.randn(shape, [rng.generator(seed)])[0]


def learnt(model: Model, *, seed: int = 0, dora: bool = True, word: str = "<rex>", **header: Any) -> Weights:
    """A word of two vectors; dense changes of matrix and bias, low-rank ones of matrices and convolution."""
    named = {name: parameter.detach().float() for name, parameter in parameters_of(model).items()}

    def low(name: str, *, magnitude: bool = False) -> LowRank:
        shape = named[name].shape
        a, b = noise(2, *shape[1:], seed=seed + 1), noise(shape[0], 2, seed=seed + 2)
        return LowRank(a, b, 1.0, norms(named[name]) * 1.5 if magnitude else None)

    changes = {
        KEY: Dense(noise(*named[KEY].shape, seed=seed + 3)),
        BIAS: Dense(noise(*named[BIAS].shape, seed=seed + 4)),
        QUERY: low(QUERY),
        CONV: low(CONV),
        TEXT: low(TEXT, magnitude=dora),
    }
    widths = [encoder.get_input_embeddings().weight.shape[1] for encoder in model.text_encoders]
    vectors = tuple(noise(2, width, seed=seed + 5) for width in widths)
    about = {"method": "test", "family": model.family, "base_hash": model.hash} | header
    return Weights(words={word: Word(vectors, "dog")}, changes=changes, **about)


def digests(model: Model) -> dict[str, str]:
    """The hash of every tensor of every network, buffers too."""
    return {
        f"{part}.{name}": sha256(
            tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        ).hexdigest()
        for part, module in model.parts().items()
        for name, tensor in module.state_dict().items()
    }


def output(model: Model, prompt: str = "a red cat", *, rows: int = 1, seed: int = 7) -> Tensor:
    """What the denoiser says to noise under a prompt: (rows, c, 8, 8)."""
    x = rng.randn(model.latent_shape(64, 64), rng.generators(range(seed, seed + rows)))
    extra = torch.zeros(rows, model.condition_channels, *x.shape[2:])
    condition = model.prompt([prompt]) if model.text_encoders else None
    return model.predict(torch.cat([x, extra], dim=1), torch.tensor(300.0), condition)
