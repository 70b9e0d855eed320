"""The files that LPIPS is loaded from, with random weights."""

from __future__ import annotations

import torch
from torch import Tensor

from scumble.core import rng


def torchvision_like(name: str, seed: int = 0) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Tensors under torchvision's names with the sizes of the real ones, and heads, all random."""
    layers = {
        "alex": {0: (64, 3, 11), 3: (192, 64, 5), 6: (384, 192, 3), 8: (256, 384, 3), 10: (256, 256, 3)},
        "vgg": {
            0: (64, 3, 3), 2: (64, 64, 3), 5: (128, 64, 3), 7: (128, 128, 3), 10: (256, 128, 3),
            12: (256, 256, 3), 14: (256, 256, 3), 17: (512, 256, 3), 19: (512, 512, 3), 21: (512, 512, 3),
            24: (512, 512, 3), 26: (512, 512, 3), 28: (512, 512, 3),
        },
    }[name]  # fmt: skip
    widths = {"alex": (64, 192, 384, 256, 256), "vgg": (64, 128, 256, 512, 512)}[name]
    draw, state = rng.generator(seed), {}
    for number, (out, into, side) in layers.items():
        scale = (2 / (into * side * side)) ** 0.5
        state[f"features.{number}.weight"] = scale * torch.randn(out, into, side, side, generator=draw)
        state[f"features.{number}.bias"] = 0.1 * torch.randn(out, generator=draw)
    state["classifier.1.weight"] = torch.zeros(3, 3)
    heads = {
        f"lin{i}.model.1.weight": torch.rand(1, width, 1, 1, generator=draw) for i, width in enumerate(widths)
    }
    return state, heads
