"""The toybox's weights: kept in the package in 8 bits, spread out on first use into an ordinary diffusers
folder.

In the package every matrix or kernel is int8 with one float32 scale for each output channel (`name` and
`name.scale`); all else is float16. The folder made from it is in float32, so that plain diffusers and
transformers load it without being told a dtype. It is made once for each version of the weights, in the
user's cache.
"""

from __future__ import annotations

import json
import os
import shutil
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from scumble.core.errors import InputError, ModelError
from scumble.core.files import atomic_folder
from scumble.core.files import sha256 as file_sha256
from scumble.core.places import cache_folder

if TYPE_CHECKING:
    from torch import Tensor

    from scumble.models.judge import Judge

__all__ = [
    "EDITING",
    "EDITING_GUIDANCE",
    "GUIDANCE",
    "MANIFEST",
    "SCALE",
    "UPSCALING",
    "clip",
    "dequantised",
    "editing",
    "expand",
    "folder",
    "has",
    "judge",
    "packed",
    "upscaling",
]

MANIFEST = "toybox.json"
"""Beside the weights: the version and the SHA-256 of every other file."""
SCALE = ".scale"
EDITING = "instruct"
"""The folder, beside the parts, of the editing model: a diffusers folder with a denoiser and a text encoder
of its own, which shares all else.
"""
UPSCALING = "upscale"
"""The folder of the upscaler, likewise."""
GUIDANCE = 6.0
"""The guidance scale at which the toybox draws best."""
EDITING_GUIDANCE = 4.0
"""And that of the words at which the editing model edits best."""
_SHARED = {
    EDITING: {
        "unet": "unet_instruct",
        "vae": "vae",
        "text_encoder": "text_encoder_instruct",
        "tokenizer": "tokenizer",
    },
    UPSCALING: {"unet": "upscaler", "vae": "vae"},
}
"""Folder of a further model -> its parts, and which of the toybox's each is."""


def packed() -> Path:
    """The folder of the package that holds the 8-bit weights."""
    return Path(__file__).resolve().parent.parent / "toybox"


def has(model: str) -> bool:
    """Whether this package holds the weights of the further model EDITING or UPSCALING."""
    return (packed() / model / "model_index.json").is_file()


def folder(cache_dir: Path | str | None = None, *, source: Path | None = None) -> Path:
    """The toybox as a diffusers folder in float32, made now if this version was not used before.

    Safe when several processes ask at once. Raises ModelError where the packed weights are missing or
    damaged.
    """
    source = source or packed()
    manifest = source / MANIFEST
    if not manifest.is_file():
        raise ModelError(f"{source} holds no toybox weights.", "Install the package again.")
    key = sha256(manifest.read_bytes()).hexdigest()[:12]
    target = Path(cache_dir or cache_folder()) / f"toybox-{key}"
    if not target.is_dir():
        try:
            expand(source, target)
        except InputError:
            if not target.is_dir():  # otherwise another process was faster
                raise
    return target


def clip() -> Path:
    """The folder of the toybox's CLIP, with its tokenizer and image processor."""
    return folder() / "clip"


def editing() -> Path:
    """The folder of `toybox-instruct`, the toybox that edits by instruction. Raises ModelError without it."""
    place = folder() / EDITING
    if not place.is_dir():
        raise ModelError(
            "This toybox has no weights for toybox-instruct yet.",
            "Give another editing model with --model, or train one: scumble train instruct-pix2pix.",
        )
    return place


def upscaling() -> Path:
    """The folder of `toybox-upscaler`, which makes pictures twice as wide and high. Raises ModelError without
    it.
    """
    place = folder() / UPSCALING
    if not place.is_dir():
        raise ModelError(
            "This toybox has no weights for toybox-upscaler yet.",
            "Give another upscaler, such as a folder of the x4-upscaler, with --model or --upscaler.",
        )
    return place


def judge(device: str = "cpu") -> Judge:
    """The judge, in single precision, frozen."""
    from scumble.models.judge import Judge

    return Judge.load(folder() / "judge", device)


def expand(source: Path, target: Path) -> None:
    """Write the diffusers folder `target` from the packed folder `source`, whole or not at all.

    Raises ModelError where a file is not the one that the manifest names, InputError where `target` exists.
    """
    from safetensors.torch import load_file, save_file

    files: dict[str, str] = json.loads((source / MANIFEST).read_text())["files"]
    with atomic_folder(target) as temporary:
        for name, digest in files.items():
            if not (source / name).is_file() or file_sha256(source / name) != digest:
                raise ModelError(f"{source / name} is missing or damaged.", "Install the package again.")
            (temporary / name).parent.mkdir(parents=True, exist_ok=True)
            if name.endswith(".safetensors"):
                save_file(dequantised(load_file(source / name)), temporary / name, metadata={"format": "pt"})
            else:
                shutil.copyfile(source / name, temporary / name)
        for path in (temporary / "tokenizer").iterdir():
            shutil.copyfile(path, temporary / "clip" / path.name)
        for model in _SHARED:
            if (temporary / model).is_dir():
                _share(temporary, model)


def _share(place: Path, model: str) -> None:
    """Put the parts of a further model into its folder, as further names of the files that are there."""
    for name, part in _SHARED[model].items():
        (place / model / name).mkdir()
        for path in (place / part).iterdir():
            alias = place / model / name / path.name
            try:
                os.link(path, alias)
            except OSError:  # a file system without such names
                shutil.copyfile(path, alias)


def dequantised(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Every tensor in float32: int8 ones times the scale of their output channel, their first dimension."""
    whole: dict[str, Tensor] = {}
    for name, value in tensors.items():
        if name.endswith(SCALE) and name.removesuffix(SCALE) in tensors:
            continue
        scale = tensors.get(name + SCALE)
        rows = value.float() if scale is None else value.float() * scale.view(-1, *[1] * (value.ndim - 1))
        whole[name] = rows if value.is_floating_point() or scale is not None else value
    return whole
