"""DINO and DINOv2 as rulers (Caron et al. 2021, "Emerging Properties in Self-Supervised Vision Transformers";
Oquab et al. 2023): feature vectors of pictures that tell one thing from another of its kind, which CLIP's,
made to agree with words, do not.

The networks are transformers' vision transformers; `facebook/dino-vits16` is what DreamBooth's tables use.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate, normalize
from transformers import Dinov2Config, Dinov2Model, ViTConfig, ViTModel
from transformers.utils import logging

from scumble.core.errors import ModelError
from scumble.models.components import listed
from scumble.models.hub import download, is_hub_id
from scumble.models.tensors import read_json

__all__ = ["Dino", "load_dino"]

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet, by channel."""
RESIZE = 256 / 224
"""The shorter side before the crop, as a multiple of the crop: DINO's own evaluation."""

_KINDS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "vit": (ViTConfig, ViTModel, {"add_pooling_layer": False}),
    "dinov2": (Dinov2Config, Dinov2Model, {}),
}
"""`model_type` of a config -> classes of config and network, and what to build it with."""
_SETTINGS = (
    "hidden_act",
    "hidden_size",
    "image_size",
    "intermediate_size",
    "layer_norm_eps",
    "layerscale_value",
    "mlp_ratio",
    "num_attention_heads",
    "num_channels",
    "num_hidden_layers",
    "patch_size",
    "qkv_bias",
    "use_swiglu_ffn",
)
"""What shapes the network; nothing else is taken from a config."""
_FILES = ("config.json", "model.safetensors")


@contextmanager
def _no_bars() -> Generator[None]:
    """Inside, transformers draws no bar of its own."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


@dataclass(frozen=True, slots=True)
class Dino:
    """A DINO model, frozen."""

    network: Any
    size: int
    """Pixels a side that the network sees."""
    device: torch.device

    def image_features(self, pixels: Tensor) -> Tensor:
        """(B, E) float32 of length one, the class token after the last layer, of pictures (B, 3, H, W) in
        [-1, 1] of any size.
        """
        prepared = self.prepared(pixels.to(self.device, torch.float32))
        tokens = self.network(pixel_values=prepared, interpolate_pos_encoding=True).last_hidden_state
        return normalize(tokens[:, 0].float(), dim=-1)

    def prepared(self, pixels: Tensor) -> Tensor:
        """(B, 3, size, size): the shorter side brought to 256/224 of `size` (bicubic), the middle kept, by
        ImageNet's mean and deviation.
        """
        height, width = pixels.shape[-2:]
        side, short = round(self.size * RESIZE), min(height, width)
        target = height * side // short, width * side // short
        unit = pixels.clamp(-1, 1) / 2 + 0.5
        if target != (height, width):
            unit = interpolate(unit, target, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
        top, left = ((edge - self.size) // 2 for edge in target)
        unit = unit[..., top : top + self.size, left : left + self.size]
        mean, std = (pixels.new_tensor(values).reshape(-1, 1, 1) for values in (MEAN, STD))
        return (unit - mean) / std


def load_dino(
    name: str | Path = "facebook/dino-vits16",
    *,
    device: str = "cpu",
    offline: bool = False,
    trust_pickle: bool = False,
) -> Dino:
    """Load a DINO or DINOv2 model from a transformers folder or a hub id, frozen.

    Pictures are seen at 224 x 224, or at the config's size where that is smaller. Raises ModelError where it
    cannot be had, is of another kind, lacks a tensor, or is a pickle that `trust_pickle` does not allow.
    """
    folder = Path(name).expanduser()
    if not folder.is_dir():
        if not is_hub_id(str(name)):
            raise ModelError(f"There is no DINO model {str(name)!r}.", "Give a folder or a hub id.")
        patterns = (*_FILES, "pytorch_model.bin") if trust_pickle else _FILES
        folder = download(str(name), offline=offline, patterns=patterns)
    config = read_json(folder / "config.json")
    if config.get("model_type") not in _KINDS:
        raise ModelError(f"{name} is no DINO model but {str(config.get('model_type'))[:40]!r}.")
    if not trust_pickle and not (folder / "model.safetensors").is_file():
        raise ModelError(f"{name} has no model.safetensors.", "Convert it, or pass --trust-pickle.")
    settings, network, how = _KINDS[config["model_type"]]
    shape = settings(**{key: config[key] for key in _SETTINGS if key in config})
    with _no_bars():
        built, report = network.from_pretrained(
            folder,
            config=shape,
            local_files_only=True,
            use_safetensors=None if trust_pickle else True,
            dtype=torch.float32,
            output_loading_info=True,
            **how,
        )
    if missing := sorted(report["missing_keys"]):
        raise ModelError(f"{name} lacks {listed(missing)}.", "The file is incomplete.")
    frozen = built.to(device).eval().requires_grad_(False)
    return Dino(frozen, min(224, int(shape.image_size)), torch.device(device))
