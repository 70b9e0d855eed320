"""CLIP as a ruler: feature vectors of pictures and of texts, for metrics, filters and losses.

Letters: B pictures or texts, H W a picture's size, E width of the shared space. Pictures are tensors in [-1,
1], as everywhere here, of any size; they are resized and normalised as the checkpoint's own preprocessor file
says, differentiably.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import Tensor
from torch.nn.functional import interpolate, normalize
from transformers import CLIPConfig, CLIPModel

from scumble.core.errors import ModelError
from scumble.models.components import TEXT_SETTINGS, load_state
from scumble.models.folder import read_tokenizer
from scumble.models.hub import download, is_hub_id
from scumble.models.tensors import read_json, read_tensors

__all__ = ["Clip", "Preparation", "clip_folder", "known_config", "load_clip", "read_preparation"]

_FILES = (
    "config.json",
    "preprocessor_config.json",
    "model.safetensors",
    "*token*.json",
    "vocab.json",
    "merges.txt",
)
_SETTINGS = (*TEXT_SETTINGS, "image_size", "patch_size", "num_channels")


@dataclass(frozen=True, slots=True)
class Preparation:
    """How a picture becomes CLIP's input: `size` x `size` pixels, `(unit pixels - mean) / std` by channel."""

    size: int = 224
    mean: tuple[float, ...] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, ...] = (0.26862954, 0.26130258, 0.27577711)

    def __call__(self, pixels: Tensor) -> Tensor:
        """(B, 3, size, size) from (B, 3, H, W) in [-1, 1].

        The shorter side is resized to `size` (bicubic, antialiased) and the middle is kept, as CLIP's own
        preprocessing does.
        """
        height, width = pixels.shape[-2:]
        short = min(height, width)
        target = (
            max(self.size, height * self.size // short),
            max(self.size, width * self.size // short),
        )
        unit = pixels.clamp(-1, 1) / 2 + 0.5
        if target != (height, width):
            unit = interpolate(unit, target, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
        top, left = ((side - self.size) // 2 for side in target)
        unit = unit[..., top : top + self.size, left : left + self.size]
        mean, std = (pixels.new_tensor(values).reshape(-1, 1, 1) for values in (self.mean, self.std))
        return (unit - mean) / std


@dataclass(frozen=True, slots=True)
class Clip:
    """A CLIP model, frozen, with its tokenizer and its way of preparing pictures."""

    network: Any
    tokenizer: Any
    preparation: Preparation
    device: torch.device

    def image_features(self, pixels: Tensor) -> Tensor:
        """(B, E) float32 of length one, of pictures (B, 3, H, W) in [-1, 1]. Gradients reach the pixels."""
        prepared = self.preparation(pixels.to(self.device, torch.float32)).to(self.network.dtype)
        pooled = self.network.vision_model(pixel_values=prepared).pooler_output
        return normalize(self.network.visual_projection(pooled).float(), dim=-1)

    def text_features(self, texts: Sequence[str]) -> Tensor:
        """(B, E) float32 of length one, of texts; what exceeds the tokenizer's length is cut off."""
        tokens = self.tokenizer(
            list(texts), padding="max_length", truncation=True, max_length=self._length, return_tensors="pt"
        )
        pooled = self.network.text_model(input_ids=tokens.input_ids.to(self.device)).pooler_output
        return normalize(self.network.text_projection(pooled).float(), dim=-1)

    @property
    def _length(self) -> int:
        return int(self.network.config.text_config.max_position_embeddings)


def load_clip(
    name: str | Path,
    *,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    revision: str | None = None,
    offline: bool = False,
) -> Clip:
    """Load a CLIP model from a transformers folder or a hub id, frozen and strictly. Raises ModelError."""
    folder = clip_folder(name, revision=revision, offline=offline)
    config = read_json(folder / "config.json")
    if config.get("model_type") != "clip":
        raise ModelError(f"{name} is no CLIP model but {config.get('model_type')!r}.")
    with init_empty_weights(include_buffers=False):
        network = CLIPModel(known_config(config))
    state = read_tensors(folder / "model.safetensors")
    kept = {key: tensor for key, tensor in state.items() if not key.endswith("embeddings.position_ids")}
    load_state(network, kept, "CLIP", dtype=dtype, device=device)
    preparation = read_preparation(folder / "preprocessor_config.json")
    return Clip(network.eval(), read_tokenizer(folder), preparation, torch.device(device))


def clip_folder(name: str | Path, *, revision: str | None = None, offline: bool = False) -> Path:
    """The folder of a CLIP model: `name` itself, or where the hub's model of that id was brought to. Raises
    ModelError."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if not is_hub_id(str(name)):
        raise ModelError(f"There is no CLIP model {str(name)!r}.", "Give a folder or a hub id.")
    return download(str(name), revision=revision, offline=offline, patterns=_FILES)


def known_config(config: Mapping[str, Any], *, attention: str = "sdpa") -> CLIPConfig:
    """A CLIPConfig with the settings that shape the networks, and none that could do anything else."""
    settings: dict[str, Any] = {
        side: {key: value for key, value in dict(config.get(side) or {}).items() if key in _SETTINGS}
        for side in ("text_config", "vision_config")
    }
    settings |= {key: config[key] for key in ("projection_dim",) if key in config}
    settings["attn_implementation"] = attention
    return CLIPConfig(**settings)


def read_preparation(path: Path) -> Preparation:
    """The preparation a `preprocessor_config.json` describes; CLIP's own where there is no such file."""
    if not path.is_file():
        return Preparation()
    content = read_json(path)
    size = content.get("crop_size", content.get("size", 224))
    if isinstance(size, Mapping):
        size = size.get("height", size.get("shortest_edge", 224))
    default = Preparation()
    mean, std = content.get("image_mean", default.mean), content.get("image_std", default.std)
    return Preparation(int(size), tuple(mean), tuple(std))
