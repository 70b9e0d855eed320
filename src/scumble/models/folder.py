"""A diffusers folder, read part by part.

`model_index.json` names a pipeline class and the class of each part; both are looked up in tables here and
never imported by name. A folder of a pixel-space model may have its files at the root, as the published DDPM
folders do.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import CLIPTokenizer

from scumble.core.errors import ModelError
from scumble.core.text import printable
from scumble.models.checkpoint import PARTS, Checkpoint, State
from scumble.models.components import CLASSES, canonical_text_state
from scumble.models.tensors import read_json, read_tensors
from scumble.models.upscaling import LATENT_UPSCALER, PIXEL_UPSCALER

__all__ = ["GUIDANCE", "PIPELINES", "read_folder", "read_tokenizer", "refuse_pipeline"]

PIPELINES = (
    "StableDiffusionPipeline",
    "StableDiffusionImg2ImgPipeline",
    "StableDiffusionInstructPix2PixPipeline",
    "StableDiffusionXLPipeline",
    "StableDiffusionXLImg2ImgPipeline",
    "StableDiffusionXLInstructPix2PixPipeline",
    "DDPMPipeline",
    "DDIMPipeline",
    "PNDMPipeline",
    "ScoreSdeVePipeline",
    PIXEL_UPSCALER,
    LATENT_UPSCALER,
)
"""The pipeline classes a folder may name."""

GUIDANCE = "_guidance_scale"
"""A key of ours in model_index.json: the guidance scale that the makers recommend. Other programs pass over
keys that begin so.
"""

_REFUSED = {
    "StableDiffusion3": "Stable Diffusion 3",
    "Flux": "FLUX",
    "PixArt": "PixArt",
    "StableDiffusionInpaint": "a 9-channel inpainting model",
    "StableDiffusionXLInpaint": "a 9-channel inpainting model",
    "StableDiffusionDepth2Img": "a depth-conditioned model",
    "StableDiffusionLatentUpscale": "the k-diffusion latent upscaler",
    "StableDiffusionControlNet": "a ControlNet pipeline",
    "Kandinsky": "Kandinsky",
    "StableCascade": "Stable Cascade",
    "Wuerstchen": "Wuerstchen",
    "IF": "DeepFloyd IF",
    "Sana": "Sana",
    "AuraFlow": "AuraFlow",
    "HunyuanDiT": "Hunyuan-DiT",
    "QwenImage": "Qwen-Image",
    "Lumina": "Lumina",
    "Chroma": "Chroma",
}
_SUPPORTED = (
    "Stable Diffusion 1.x, 2.x and XL, InstructPix2Pix, the x4-upscaler and pixel-space DDPM and "
    "score-SDE-VE are supported."
)
_RENAMED_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_OLD_ATTENTION = re.compile(r"(mid_block\.attentions\.\d+)\.(query|key|value|proj_attn)\.(weight|bias)$")


def read_folder(folder: Path, *, name: str | None = None, trust_pickle: bool = False) -> Checkpoint:
    """The checkpoint in a diffusers folder; only configs and tokenizers are read until tensors are asked for.

    Raises ModelError for a folder that holds no pipeline, a family that is not supported, and damaged
    configs.
    """
    name = name or folder.name
    index = _index(folder)
    pipeline = str(index.get("_class_name"))
    refuse_pipeline(pipeline, name)
    present = [part for part in PARTS if part in index and _is_there(index[part])]
    places = {part: _place(folder, part) for part in present}
    configs = {part: _config(places[part], index[part], part) for part in present}
    if "unet" not in configs:
        raise ModelError(f"{folder} names no unet in its model_index.json.", _SUPPORTED)
    tokenizers = [key for key in ("tokenizer", "tokenizer_2") if _is_there(index.get(key))]
    checker = folder / "safety_checker"

    def state(part: str) -> State:
        tensors = _canonical(_part_tensors(places[part], part, trust_pickle), part)
        if part.startswith("text_encoder"):
            return canonical_text_state(
                tensors, wrapped=configs[part]["_class_name"] == "CLIPTextModelWithProjection"
            )
        return tensors

    return Checkpoint(
        name=name,
        configs=configs,
        state=state,
        scheduler=read_json(_scheduler(folder)),
        tokenizers=tuple(read_tokenizer(folder / key) for key in tokenizers),
        pipeline=pipeline,
        zeros_for_empty=bool(index.get("force_zeros_for_empty_prompt", "XL" in pipeline)),
        safety_checker=checker if _is_there(index.get("safety_checker")) and checker.is_dir() else None,
        path=folder,
        guidance=_guidance(index),
        low_res_scheduler=_low_res_scheduler(folder, pipeline),
        max_noise_level=_whole(index.get("max_noise_level")),
    )


def refuse_pipeline(pipeline: str, name: str) -> None:
    """Raise ModelError, naming the family, unless the pipeline class is one of PIPELINES."""
    if pipeline in PIPELINES:
        return
    known = [family for prefix, family in _REFUSED.items() if pipeline.startswith(prefix)]
    kind = known[-1] if known else f"a {printable(pipeline, 80)}"
    raise ModelError(f"{name} is {kind}, which is not supported.", _SUPPORTED)


def _index(folder: Path) -> Mapping[str, Any]:
    index = folder / "model_index.json"
    if index.is_file():
        return read_json(index)
    config = folder / "config.json"
    if config.is_file() and read_json(config).get("_class_name") == "UNet2DModel":
        scheduler = read_json(_scheduler(folder)).get("_class_name", "")
        pipeline = "ScoreSdeVePipeline" if scheduler == "ScoreSdeVeScheduler" else "DDPMPipeline"
        return {"_class_name": pipeline, "unet": ["diffusers", "UNet2DModel"]}
    raise ModelError(
        f"{folder} is not a diffusers folder: it has no model_index.json.",
        "Give the folder that holds unet/, vae/ and the rest, or a .safetensors file.",
    )


def _guidance(index: Mapping[str, Any]) -> float | None:
    """The recommended guidance scale, None where the folder says none or no sound one."""
    scale = index.get(GUIDANCE)
    return float(scale) if isinstance(scale, int | float) and 0 <= scale <= 100 else None


def _is_there(entry: object) -> bool:
    """Whether an entry of model_index.json names a library and a class; absent parts are two nulls."""
    return isinstance(entry, list) and len(entry) == 2 and isinstance(entry[1], str)


def _place(folder: Path, part: str) -> Path:
    return folder / part if (folder / part).is_dir() else folder


def _config(place: Path, entry: list[str], part: str) -> dict[str, Any]:
    """The config of a part, with the class it is of; what the index says must be what the config says."""
    if entry[1] not in CLASSES:
        raise ModelError(
            f"The model's {part} is a {printable(entry[1], 80)}, which is not supported.",
            f"Supported are {', '.join(CLASSES)}.",
        )
    return {**read_json(place / "config.json"), "_class_name": entry[1]}


def _low_res_scheduler(folder: Path, pipeline: str) -> dict[str, Any] | None:
    """Of the small picture's noise, where the folder is an upscaler's."""
    if pipeline not in (PIXEL_UPSCALER, LATENT_UPSCALER):
        return None
    return dict(read_json(folder / "low_res_scheduler" / "scheduler_config.json"))


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and value >= 0 else None


def _scheduler(folder: Path) -> Path:
    places = (folder / "scheduler" / "scheduler_config.json", folder / "scheduler_config.json")
    return next((place for place in places if place.is_file()), places[0])


def read_tokenizer(folder: Path) -> CLIPTokenizer:
    """The CLIP tokenizer in a folder, from the current or the classic files. Raises ModelError."""
    try:
        return CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as problem:  # which is all that the library underneath raises on damaged files
        reason = " ".join(str(problem).split())[:200]
        raise ModelError(f"{folder} holds no CLIP tokenizer: {reason}.", "Get the model again.") from problem


def _part_tensors(place: Path, part: str, trust_pickle: bool) -> State:
    """Every tensor of a part, from one file or from shards."""
    stem = "model" if part.startswith("text_encoder") else "diffusion_pytorch_model"
    for suffix in ("", ".fp16", ".bf16", ".non_ema"):
        index = place / f"{stem}.safetensors.index{suffix}.json"
        if index.is_file():
            return _sharded(index)
        file = place / f"{stem}{suffix}.safetensors"
        if file.is_file():
            return read_tensors(file)
    pickled = place / ("pytorch_model.bin" if stem == "model" else f"{stem}.bin")
    if pickled.is_file():
        return read_tensors(pickled, trust_pickle=trust_pickle)
    raise ModelError(
        f"{place} has no {stem}.safetensors.", "The download is incomplete, or the folder is not a model."
    )


def _sharded(index: Path) -> State:
    files = read_json(index).get("weight_map", {})
    shards = sorted({str(file) for file in files.values()})
    if any(Path(shard).name != shard for shard in shards):
        raise ModelError(f"{index} names files outside its folder.", "Do not use this model.")
    return {name: tensor for shard in shards for name, tensor in read_tensors(index.parent / shard).items()}


def _canonical(state: State, part: str) -> State:
    """Tensors of autoencoders saved before 2023 under the attention names of today."""
    if part != "vae":
        return state
    return {
        _OLD_ATTENTION.sub(
            lambda found: f"{found[1]}.{_RENAMED_ATTENTION[found[2]]}.{found[3]}", name
        ): tensor
        for name, tensor in state.items()
    }
