"""A checkpoint made into a model: which family it is, its networks built and filled, its schedule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from scumble.core.errors import ModelError
from scumble.diffusion.parameterisation import Prediction
from scumble.diffusion.schedules import Schedule, from_diffusers_config
from scumble.models.checkpoint import Checkpoint
from scumble.models.components import build, load_state
from scumble.models.model import Family, Model

__all__ = ["assemble", "family_of"]

_PREDICTIONS: dict[str, Prediction] = {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}


_SCHEDULERS = (
    "DDIM",
    "DDPM",
    "PNDM",
    "LMSDiscrete",
    "EulerDiscrete",
    "EulerAncestralDiscrete",
    "HeunDiscrete",
    "KDPM2Discrete",
    "KDPM2AncestralDiscrete",
    "DPMSolverMultistep",
    "DPMSolverSinglestep",
    "DPMSolverSDE",
    "DEISMultistep",
    "UniPCMultistep",
    "SASolver",
    "LCM",
    "TCD",
    "ScoreSdeVe",
)
"""The diffusers schedulers whose config describes a schedule of betas or, the last, of sigmas."""


def assemble(checkpoint: Checkpoint, *, device: torch.device, dtype: torch.dtype) -> Model:
    """Build every network of the checkpoint on `device` in `dtype` and fill it strictly.

    SDXL's autoencoder overflows in half precision; unless its config says that it was cured it stays in
    float32. Raises ModelError for a variant that is not supported and for tensors that do not fit.
    """
    family = family_of(checkpoint)
    channels = _condition_channels(checkpoint, family)
    overflows = (
        dtype == torch.float16 and family == "sdxl" and checkpoint.configs["vae"].get("force_upcast", True)
    )
    modules = {}
    for part in checkpoint.parts:
        config = checkpoint.configs[part]
        upcast = part == "vae" and overflows
        module = build(config, part)
        load_state(
            module, checkpoint.state(part), part, dtype=torch.float32 if upcast else dtype, device=device
        )
        modules[part] = module
    denoiser, autoencoder = modules["unet"], modules.get("vae")
    downsample = 2 ** (len(autoencoder.config.block_out_channels) - 1) if autoencoder else 1
    return Model(
        name=checkpoint.name,
        family=family,
        denoiser=denoiser,
        autoencoder=autoencoder,
        text_encoders=tuple(modules[part] for part in ("text_encoder", "text_encoder_2") if part in modules),
        tokenizers=checkpoint.tokenizers,
        schedule=_schedule(checkpoint),
        prediction=_prediction(checkpoint.scheduler),
        default_size=_sample_size(denoiser.config.sample_size) * downsample,
        latent_channels=denoiser.config.in_channels - channels,
        downsample=downsample,
        condition_channels=channels,
        takes_sigma=_takes_sigma(checkpoint),
        device=device,
        dtype=dtype,
        checkpoint=checkpoint,
        is_random=checkpoint.is_random,
    )


def family_of(checkpoint: Checkpoint) -> Family:
    """Which family, by the parts and their configs. Raises ModelError when the parts make no family."""
    parts = set(checkpoint.parts)
    if checkpoint.configs["unet"]["_class_name"] == "UNet2DModel":
        if parts != {"unet"}:
            raise ModelError(
                f"{checkpoint.name} is a UNet2DModel with {', '.join(sorted(parts - {'unet'}))}."
            )
        return "pixel"
    if parts == {"unet", "vae", "text_encoder_2"}:
        raise ModelError(
            f"{checkpoint.name} is the SDXL refiner, which is not supported.", "Use the SDXL base model."
        )
    xl = {"unet", "vae", "text_encoder", "text_encoder_2"}
    if parts not in (xl, xl - {"text_encoder_2"}):
        raise ModelError(f"{checkpoint.name} lacks {', '.join(sorted(xl - {'text_encoder_2'} - parts))}.")
    if len(checkpoint.tokenizers) != len(parts) - 2:
        raise ModelError(f"{checkpoint.name} has a text encoder without its tokenizer.")
    if parts == xl:
        return "sdxl"
    return "sd2" if checkpoint.configs["unet"].get("use_linear_projection") else "sd1"


def _condition_channels(checkpoint: Checkpoint, family: Family) -> int:
    """How many input channels are not noisy latents: 0, or as many as latents for editing models."""
    unet = checkpoint.configs["unet"]
    latent = (
        unet.get("out_channels", 4)
        if family == "pixel"
        else checkpoint.configs["vae"].get("latent_channels", 4)
    )
    taken = unet.get("in_channels", latent)
    kinds = {9: "a 9-channel inpainting model", 5: "a depth-conditioned model", 7: "an upscaler"}
    if taken not in (latent, 2 * latent) or (family == "pixel" and taken != latent):
        kind = (
            kinds.get(taken, f"a model with {taken} input channels")
            if family != "pixel"
            else "a conditioned model"
        )
        raise ModelError(
            f"{checkpoint.name} is {kind}, which is not supported.",
            "Text-to-image models and InstructPix2Pix's editing models are.",
        )
    if unet.get("out_channels", latent) != latent:
        raise ModelError(f"{checkpoint.name} also predicts a variance, which is not supported.")
    if unet.get("class_embed_type") or unet.get("num_class_embeds"):
        raise ModelError(f"{checkpoint.name} is class-conditional or an upscaler, which is not supported.")
    return taken - latent


def _schedule(checkpoint: Checkpoint) -> Schedule:
    """The noise schedule of the scheduler config, whose class must be one that samples such a schedule."""
    name = str(checkpoint.scheduler.get("_class_name"))
    if name.removesuffix("Scheduler") not in _SCHEDULERS:
        raise ModelError(
            f"{checkpoint.name} has a {name}, which is not supported.",
            "It was trained on another kind of noise than Stable Diffusion was.",
        )
    return from_diffusers_config(checkpoint.scheduler)


def _prediction(scheduler: Mapping[str, Any]) -> Prediction:
    kind = str(scheduler.get("prediction_type", "epsilon"))
    if kind not in _PREDICTIONS:
        raise ModelError(
            f"The scheduler's prediction type {kind!r} is not supported.",
            f"Supported: {', '.join(_PREDICTIONS)}.",
        )
    return _PREDICTIONS[kind]


def _takes_sigma(checkpoint: Checkpoint) -> bool:
    """Whether the denoiser is told sigma and answers with the score, as the score-SDE-VE networks do."""
    sigma = checkpoint.configs["unet"].get("time_embedding_type") == "fourier"
    if sigma != (checkpoint.scheduler.get("_class_name") == "ScoreSdeVeScheduler"):
        raise ModelError(f"{checkpoint.name} has a scheduler of another kind than its denoiser.")
    return sigma


def _sample_size(size: int | list[int] | tuple[int, int] | None) -> int:
    """The side of the square the denoiser was trained on; 64 latents where the config does not say."""
    if size is None:
        return 64
    return size if isinstance(size, int) else max(size)
