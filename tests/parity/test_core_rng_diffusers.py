"""Start noise equals what diffusers' pipelines draw from the same seeds."""

from __future__ import annotations

import torch
from diffusers.utils.torch_utils import randn_tensor

from scumble.core import rng


def test_first_draw_equals_diffusers() -> None:
    theirs = randn_tensor(
        (3, 4, 8, 8), generator=[torch.Generator("cpu").manual_seed(40 + i) for i in range(3)]
    )
    assert torch.equal(theirs, rng.randn((4, 8, 8), rng.generators(range(40, 43))))
