"""One way in to every kind of model: the toybox, a diffusers folder, a single file, a hub id."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import torch

from scumble.core import rng
from scumble.core.errors import InputError, ModelError
from scumble.diffusion.parameterisation import Prediction
from scumble.models import toybox
from scumble.models.assemble import assemble
from scumble.models.checkpoint import Checkpoint
from scumble.models.configs import random_checkpoint
from scumble.models.folder import read_folder
from scumble.models.hub import download, is_hub_id
from scumble.models.memory import Offload, apply
from scumble.models.model import Model
from scumble.models.safety import load_safety_checker
from scumble.models.singlefile import read_single_file

__all__ = ["DTYPES", "DType", "find", "load"]

DType = Literal["float32", "bfloat16", "float16"]

DTYPES: dict[str, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def load(
    name: str | Path,
    *,
    device: str = "cpu",
    dtype: DType = "float32",
    revision: str | None = None,
    offline: bool = False,
    attention_slicing: bool = False,
    vae_tiling: bool = False,
    channels_last: bool = False,
    offload: Offload = "none",
    compile: bool | str = False,
    prediction: Prediction | Literal["auto"] = "auto",
    ema: bool | None = None,
    safety_checker: bool = True,
    trust_pickle: bool = False,
) -> Model:
    """Load a model, frozen, on `device` (cpu, cuda, cuda:1, mps) in `dtype`.

    `name` is `toybox`, `toybox-instruct` or `toybox-upscaler`, the path of a diffusers folder or of an
    original single-file checkpoint, or a hub id `owner/model` (at `revision`; `offline` uses only what is in
    the cache). What a path holds is decided by its content. `prediction` overrides what the checkpoint says
    or suggests; `ema` chooses between the two sets of weights some training checkpoints hold (None: the
    averaged one if there is one); `safety_checker` keeps the one a folder may hold. The other options are
    those of `scumble.models.memory.apply`.

    Until the toybox ships, `toybox` is a tiny random model whose `is_random` is True.

    Raises ModelError, naming the tensors or the family at fault, for a model that is missing, damaged,
    incomplete or not supported, and InputError for a device or dtype this machine has not.
    """
    if dtype not in DTYPES:
        raise InputError(f"There is no dtype {dtype!r}.", f"Choose {', '.join(DTYPES)}.")
    checkpoint = find(name, revision=revision, offline=offline, ema=ema, trust_pickle=trust_pickle)
    home = torch.device("cpu") if offload != "none" else _device(device)
    model = assemble(checkpoint, device=home, dtype=DTYPES[dtype])
    if prediction != "auto":
        model.prediction = prediction
    elif checkpoint.prediction_is_a_guess:
        _settle_prediction(model)  # where the networks are now, which offloading changes
    model.device = _device(device)
    if safety_checker and checkpoint.safety_checker is not None:
        model.safety_checker = load_safety_checker(
            checkpoint.safety_checker, device=model.device, trust_pickle=trust_pickle
        )
    return apply(
        model,
        attention_slicing=attention_slicing,
        vae_tiling=vae_tiling,
        channels_last=channels_last,
        offload=offload,
        compile=compile,
    )


def find(
    name: str | Path,
    *,
    revision: str | None = None,
    offline: bool = False,
    ema: bool | None = None,
    trust_pickle: bool = False,
) -> Checkpoint:
    """The checkpoint a name stands for, found and looked at but not yet read in full. Raises ModelError."""
    if str(name) == "toybox":
        return _toybox()
    if str(name) == "toybox-upscaler":
        return read_folder(toybox.upscaling(), name="toybox-upscaler")
    if str(name) == "toybox-instruct":
        editing = read_folder(toybox.editing(), name="toybox-instruct")
        return replace(editing, guidance=toybox.EDITING_GUIDANCE)
    path = Path(name).expanduser()
    if str(name) and path.is_dir():
        return read_folder(path, trust_pickle=trust_pickle)
    if path.is_file():
        return read_single_file(path, ema=ema, trust_pickle=trust_pickle)
    if isinstance(name, str) and is_hub_id(name):
        return read_folder(download(name, revision=revision, offline=offline), name=name)
    raise ModelError(
        f"There is no model {str(name)!r}.",
        "Give toybox, a diffusers folder, a .safetensors checkpoint, or a hub id such as owner/model.",
    )


def _toybox() -> Checkpoint:
    if find_spec("scumble.models.toybox") is None:
        return random_checkpoint("sd1", "tiny")
    return replace(read_folder(toybox.folder(), name="toybox"), guidance=toybox.GUIDANCE)


def _settle_prediction(model: Model) -> None:
    """Tell SD 2.x's `base` models (eps, 512 px) from the v-prediction ones (768 px) by trying.

    At the last timestep x is nearly pure noise. An eps model answers with that noise, so its output is x
    again; the v of eq. (11) in Salimans & Ho 2022 is alpha eps - sigma x0 with alpha near 0, so a v model's
    hardly resembles x.
    """
    last = torch.tensor(float(model.schedule.num_train_timesteps - 1))
    x = rng.randn((model.latent_channels, 16, 16), rng.generators([0]), device=model.device)
    with torch.inference_mode():
        output = model.predict(x, last, model.empty())
    likeness = torch.nn.functional.cosine_similarity(output.flatten(), x.flatten(), dim=0)
    if likeness > 0.5:
        model.prediction, model.default_size = "eps", 512


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.empty(0, device=device).cpu()  # meta has no values to take back
    except (RuntimeError, AssertionError) as problem:
        raise InputError(f"This machine has no device {name!r}.", "Choose cpu, cuda or mps.") from problem
    return device
