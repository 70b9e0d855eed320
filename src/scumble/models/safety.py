"""The safety checker of some folders: a CLIP image encoder that compares a picture with listed concepts.

A folder that has one loads with it and it is used by default; there is none to use otherwise.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from torch import Tensor

from scumble.core.memory import memory_for
from scumble.models.clip import Preparation, known_config, read_preparation
from scumble.models.components import load_state
from scumble.models.tensors import read_json, read_tensors

__all__ = ["CHECKER", "SafetyChecker", "load_safety_checker"]

CHECKER = "model.safetensors"
"""The file of a checker's tensors in its folder."""


class SafetyChecker:
    """Says which pictures come too close to a listed concept (Rando et al. 2022 describe how it decides)."""

    def __init__(self, network: Any, preparation: Preparation) -> None:
        self._network = network
        self._preparation = preparation

    def state(self) -> dict[str, Tensor]:
        """Its tensors, on the CPU."""
        state = self._network.state_dict()
        return {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}

    @torch.inference_mode()
    def flagged(self, pixels: Tensor) -> list[bool]:
        """For each of the pictures (B, 3, H, W) in [-1, 1], whether it should not be shown."""
        device, dtype = self._network.concept_embeds.device, self._network.dtype
        with memory_for("the safety checker"):
            prepared = self._preparation(pixels.to(device, torch.float32)).to(dtype)
            # The network blacks out the pictures that it is given: these are nobody's.
            blank = prepared.new_zeros(len(prepared), 1)
            _, flags = self._network.forward_onnx(prepared, blank)
            return [bool(flag) for flag in flags.tolist()]


def load_safety_checker(
    folder: Path, *, device: str | torch.device = "cpu", trust_pickle: bool = False
) -> SafetyChecker:
    """The checker in `folder`, in float32, strictly; its preparation is in `feature_extractor` beside it.

    Raises ModelError if it is damaged, and if all there is is a pickle that was not asked to be trusted.
    """
    file, pickled = folder / CHECKER, folder / "pytorch_model.bin"
    if not file.is_file() and pickled.is_file():
        file = pickled
    with init_empty_weights(include_buffers=False):
        network = StableDiffusionSafetyChecker(
            known_config(read_json(folder / "config.json"), attention="eager")
        )
    doubled = "vision_model.vision_model."  # how releases of transformers before 5.6 wrote it
    state = {
        name.replace(doubled, "vision_model."): tensor
        for name, tensor in read_tensors(file, trust_pickle=trust_pickle).items()
        if not name.endswith("embeddings.position_ids")
    }
    load_state(network, state, "safety checker", dtype=torch.float32, device=device)
    return SafetyChecker(
        network.eval(), read_preparation(folder.parent / "feature_extractor" / "preprocessor_config.json")
    )
