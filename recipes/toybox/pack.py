"""Stage `pack`: from trained parts to the 8-bit files that ship in the package (see
`scumble.models.toybox`).
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from recipes.toybox import card, upscaler
from recipes.toybox.loop import Run
from recipes.toybox.scales import SIZE, TOYBOX_VERSION
from scumble.core.errors import InputError
from scumble.core.files import sha256
from scumble.models.toybox import EDITING as EDITING_FOLDER
from scumble.models.toybox import MANIFEST, SCALE
from scumble.models.toybox import UPSCALING as UPSCALING_FOLDER

LARGEST_FILE = 16_000_000
LARGEST_TOTAL = 44_000_000
SMALLEST_MATRIX = 1024
"""Tensors of fewer numbers stay in float16: they weigh nothing and may matter much."""

PIPELINE = {
    "_class_name": "StableDiffusionPipeline",
    "_diffusers_version": "0.42.1",
    "feature_extractor": [None, None],
    "image_encoder": [None, None],
    "requires_safety_checker": False,
    "safety_checker": [None, None],
    "scheduler": ["diffusers", "PNDMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}
SCHEDULER = {
    "_class_name": "PNDMScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "timestep_spacing": "leading",
}
IMAGE_PROCESSOR = {
    "image_processor_type": "CLIPImageProcessor",
    "crop_size": {"height": SIZE, "width": SIZE},
    "size": {"shortest_edge": SIZE},
    "do_center_crop": True,
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "resample": 3,
    "rescale_factor": 1 / 255,
}
EDITING = PIPELINE | {
    "_class_name": "StableDiffusionInstructPix2PixPipeline",
    "scheduler": ["diffusers", "EulerAncestralDiscreteScheduler"],
}
EDITING_SCHEDULER = {
    "_class_name": "EulerAncestralDiscreteScheduler",
    **{key: SCHEDULER[key] for key in ("beta_start", "beta_end", "beta_schedule", "num_train_timesteps")},
    "prediction_type": "epsilon",
    "timestep_spacing": "linspace",
}
PARTS = (
    "clip", "text_encoder", "vae", "unet", "unet_instruct", "text_encoder_instruct", "judge", "upscaler",
)  # fmt: skip


def stage(run: Run) -> None:
    """Pack what has been trained into the folder `packed` of the run; refuse what is too large to ship."""
    print(f"packed {pack(run.out, folder(run.out)) / 1e6:.1f} MB", flush=True)


def folder(out: Path) -> Path:
    return out / "packed"


def pack(trained: Path, target: Path) -> int:
    """Write the packed folder anew; its size in bytes. Raises InputError where a limit is passed."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(trained / "tokenizer", target / "tokenizer")
    for part in (part for part in PARTS if (trained / part).is_dir()):
        _pack_part(trained / part, target / part)
    _write_json(target / "model_index.json", PIPELINE)
    _write_json(target / "scheduler" / "scheduler_config.json", SCHEDULER)
    if (target / "unet_instruct").is_dir():
        _write_json(target / EDITING_FOLDER / "model_index.json", EDITING)
        _write_json(target / EDITING_FOLDER / "scheduler" / "scheduler_config.json", EDITING_SCHEDULER)
    if (target / "upscaler").is_dir():
        upscaler.describe(target / UPSCALING_FOLDER)
    _write_json(target / "clip" / "preprocessor_config.json", IMAGE_PROCESSOR)
    paths = sorted(path for path in target.rglob("*") if path.is_file())
    files = {path.relative_to(target).as_posix(): sha256(path) for path in paths}
    _write_json(target / MANIFEST, {"version": TOYBOX_VERSION, "files": files})
    (target / "README.md").write_text(card.written(trained))
    return _checked_size(target)


def quantised(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Matrices and kernels as int8 with a float32 scale for each output channel, all else in float16.

    The scale is the channel's largest magnitude over 127, so no weight is off by more than half a scale.
    """
    small: dict[str, Tensor] = {}
    for name, value in tensors.items():
        if value.ndim < 2 or value.numel() < SMALLEST_MATRIX or "embedding" in name:
            small[name] = value.half() if value.is_floating_point() else value
            continue
        rows = value.float().flatten(1)
        scale = rows.abs().amax(1).clamp_min(1e-12) / 127.0  # (out,)
        small[name] = (rows / scale[:, None]).round().to(torch.int8).view(value.shape).contiguous()
        small[name + SCALE] = scale
    return small


def _pack_part(source: Path, target: Path) -> None:
    target.mkdir(parents=True)
    config = json.loads((source / "config.json").read_text())
    config.pop("_name_or_path", None)  # where it was read from on the machine that trained it
    _write_json(target / "config.json", config)
    for path in source.glob("*.safetensors"):
        save_file(quantised(load_file(path)), target / path.name)


def _write_json(path: Path, content: dict[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n")


def _checked_size(target: Path) -> int:
    sizes = {path: path.stat().st_size for path in target.rglob("*") if path.is_file()}
    largest = max(sizes, key=lambda path: sizes[path])
    if sizes[largest] > LARGEST_FILE or sum(sizes.values()) > LARGEST_TOTAL:
        raise InputError(
            f"The packed toybox has {sum(sizes.values()):,} bytes, its largest file {sizes[largest]:,}.",
            f"At most {LARGEST_TOTAL:,} and {LARGEST_FILE:,} may ship; make the networks smaller.",
        )
    return sum(sizes.values())
