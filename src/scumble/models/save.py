"""A model written out: as a diffusers folder, or as one file in the original layout. Whole or not at all.

What is written is what the networks hold now, so a model that was trained is saved as trained, in its dtype.
Names and files are the classic ones, which every release of diffusers and transformers and the usual web
interfaces read: `text_model.` before a text encoder's names, `vocab.json` and `merges.txt` for a tokenizer.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from scumble.core.errors import ModelError
from scumble.core.files import atomic_folder
from scumble.core.safetensor_files import save_safetensors
from scumble.models.assemble import PREDICTIONS, sample_size
from scumble.models.folder import GUIDANCE
from scumble.models.layout import to_original
from scumble.models.model import Model
from scumble.models.safety import CHECKER
from scumble.models.singlefile import part_table, prefixes

__all__ = ["save_folder", "save_single_file"]

_FORMAT = {"format": "pt"}
_EDITING = {
    "StableDiffusionPipeline": "StableDiffusionInstructPix2PixPipeline",
    "StableDiffusionXLPipeline": "StableDiffusionXLInstructPix2PixPipeline",
}


def save_folder(model: Model, path: Path | str) -> Path:
    """Write a diffusers folder to `path`, which must not exist or be empty, and return it.

    Raises InputError if something is there, DiskFullError if the disk is full; then nothing is left behind.
    """
    with atomic_folder(path) as folder:
        for part, module in model.parts().items():
            _write_part(folder / part, part, module, _config(model, part, module))
        for key, tokenizer in zip(("tokenizer", "tokenizer_2"), model.tokenizers, strict=False):
            _write_tokenizer(folder / key, tokenizer)
        _copy_safety_checker(model, folder)
        _write_json(folder / "scheduler" / "scheduler_config.json", _scheduler(model))
        if (small := model.checkpoint.low_res_scheduler) is not None:
            _write_json(folder / "low_res_scheduler" / "scheduler_config.json", small)
        _write_json(folder / "model_index.json", _index(model, folder))
    return Path(path)


def save_single_file(model: Model, path: Path | str) -> Path:
    """Write one `.safetensors` in the original layout: LDM's for SD 1.x and 2.x, SGM's for SDXL.

    SD 2.x's unused last text layer, which a diffusers folder does not hold, is not written: loaders that
    build it leave it as it is. Raises ModelError for a pixel-space model and a latent upscaler, which have
    no such layout, and for one that predicts x0; DiskFullError.
    """
    if model.family == "pixel":
        raise ModelError(
            f"{model.name} is a pixel-space model, which has no single-file layout.", "Save it as a folder."
        )
    if model.upscaling is not None and not model.text_encoders:
        raise ModelError(
            f"{model.name} is a latent upscaler, which has no single-file layout.", "Save it as a folder."
        )
    original = _markers(model)
    for part, module in model.parts().items():
        table = part_table(model.family, part, _config(model, part, module))
        prefix = prefixes(model.family)[part]
        tensors = to_original(_tensors(part, module), table)
        original.update({prefix + name: tensor.contiguous() for name, tensor in tensors.items()})
    save_safetensors(path, original, _FORMAT)
    return Path(path)


def _index(model: Model, folder: Path) -> dict[str, Any]:
    """model_index.json for what is in the folder; an editing model names the editing pipeline."""
    pipeline = model.checkpoint.pipeline
    if model.condition_channels:
        pipeline = _EDITING.get(pipeline, pipeline)
    index: dict[str, Any] = {"_class_name": pipeline, "_diffusers_version": "0.42.0"}
    if model.checkpoint.guidance is not None:
        index[GUIDANCE] = model.checkpoint.guidance
    for part, module in model.parts().items():
        index[part] = ["transformers" if part.startswith("text") else "diffusers", type(module).__name__]
    for key, _ in zip(("tokenizer", "tokenizer_2"), model.tokenizers, strict=False):
        index[key] = ["transformers", "CLIPTokenizer"]
    index["scheduler"] = ["diffusers", model.checkpoint.scheduler["_class_name"]]
    if model.upscaling is not None:
        small = model.checkpoint.low_res_scheduler or model.checkpoint.scheduler
        index["low_res_scheduler"] = ["diffusers", small["_class_name"]]
        index["max_noise_level"] = model.upscaling.highest
    if model.family == "sdxl":
        index["force_zeros_for_empty_prompt"] = model.checkpoint.zeros_for_empty
    elif model.family != "pixel":
        kept = (folder / "safety_checker").is_dir()
        extractor = (folder / "feature_extractor").is_dir()
        index["safety_checker"] = (
            ["stable_diffusion", "StableDiffusionSafetyChecker"] if kept else [None, None]
        )
        index["feature_extractor"] = ["transformers", "CLIPImageProcessor"] if extractor else [None, None]
        if model.upscaling is None:
            index["requires_safety_checker"] = kept
    return index


def _write_part(folder: Path, part: str, module: nn.Module, config: Mapping[str, Any]) -> None:
    text = part.startswith("text")
    tensors = {
        ("text_model." if text and not name.startswith("text_") else "") + name: tensor.contiguous()
        for name, tensor in _tensors(part, module).items()
    }
    _write_json(folder / "config.json", config)
    name = "model.safetensors" if text else "diffusion_pytorch_model.safetensors"
    save_safetensors(folder / name, tensors, _FORMAT)


def _tensors(part: str, module: nn.Module) -> dict[str, Tensor]:
    state = module.state_dict()
    if any(tensor.is_meta for tensor in state.values()):
        raise ModelError(
            f"The {part} is offloaded layer by layer, so it cannot be saved.",
            "Load the model without offload.",
        )
    return {name: tensor.detach().cpu() for name, tensor in state.items()}


def _copy_safety_checker(model: Model, folder: Path) -> None:
    """The checker that the model came with and what prepares its pictures. What was a pickle becomes a safe
    file if it was read, and is left out if it was not.
    """
    source = model.checkpoint.safety_checker
    if source is None or (not (source / CHECKER).is_file() and model.safety_checker is None):
        return
    for place in (source, source.parent / "feature_extractor"):
        if place.is_dir():
            shutil.copytree(place, folder / place.name, ignore=shutil.ignore_patterns("*.bin", "*.msgpack"))
    if model.safety_checker is not None and not (source / CHECKER).is_file():
        save_safetensors(folder / source.name / CHECKER, model.safety_checker.state(), _FORMAT)


def _scheduler(model: Model) -> dict[str, Any]:
    """The scheduler's config, with what the denoiser predicts: the checkpoint may have said otherwise."""
    config = dict(model.checkpoint.scheduler)
    said = next(name for name, kind in PREDICTIONS.items() if kind == model.prediction)
    return config if config.get("prediction_type", "epsilon") == said else {**config, "prediction_type": said}


def _markers(model: Model) -> dict[str, Tensor]:
    """Empty tensors that tell, by their names, what the layout has no other place for.

    Raises ModelError for a prediction that has no such name.
    """
    if model.prediction == "x0":
        raise ModelError(f"A single file cannot say that {model.name} predicts x0.", "Save it as a folder.")
    zero_snr = model.checkpoint.scheduler.get("rescale_betas_zero_snr")
    told = {"v_pred": model.prediction == "v", "ztsnr": bool(zero_snr)}
    return {name: torch.zeros(0) for name, is_so in told.items() if is_so}


def _config(model: Model, part: str, module: Any) -> dict[str, Any]:
    """The config of a network as it is now, with the names of its class in both libraries' ways."""
    name, public = type(module).__name__, _public(part, module)
    if part.startswith("text"):
        return {**public, "architectures": [name], "_class_name": name}
    if part == "unet" and sample_size(public.get("sample_size")) * model.downsample != model.default_size:
        public["sample_size"] = model.default_size // model.downsample
    return {**public, "_class_name": name}


def _public(part: str, module: Any) -> dict[str, Any]:
    config = module.config.to_dict() if part.startswith("text") else dict(module.config)
    return {key: value for key, value in config.items() if not key.startswith("_")}


def _write_tokenizer(folder: Path, tokenizer: Any) -> None:
    """The classic four files: vocabulary, merges, settings and markers."""
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    markers = {
        key: tokenizer.special_tokens_map[key] for key in ("bos_token", "eos_token", "pad_token", "unk_token")
    }
    _write_json(folder / "vocab.json", tokenizer.get_vocab())
    lines = ["#version: 0.2", *(" ".join(merge) for merge in model["merges"])]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": tokenizer.model_max_length}
    _write_json(folder / "tokenizer_config.json", settings | markers)
    _write_json(folder / "special_tokens_map.json", markers)


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(dict(content), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
