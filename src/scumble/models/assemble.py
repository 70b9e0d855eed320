"""A checkpoint made into a model: which family it is, its networks built and filled, its schedule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from scumble.core.errors import ModelError
from scumble.core.text import printable
from scumble.diffusion.parameterisation import Prediction
from scumble.diffusion.schedules import Schedule, from_diffusers_config
from scumble.models.checkpoint import Checkpoint, channels
from scumble.models.components import build, load_state
from scumble.models.model import Family, Model
from scumble.models.upscaling import LATENT_UPSCALER, PIXEL_UPSCALER, upscaling_of

__all__ = ["PREDICTIONS", "assemble", "default_size", "family_of", "sample_size"]

PREDICTIONS: dict[str, Prediction] = {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}
"""What scheduler configs call a prediction, and what we call it."""
_CLIPPING = ("DDPMScheduler", "DDIMScheduler")
"""The schedulers that clip x0 unless their config says otherwise."""

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

    The autoencoders of SDXL and of upscalers overflow in half precision; unless the config says that one was
    cured it stays in float32. Raises ModelError for a variant that is not supported and for tensors that do
    not fit.
    """
    family, upscaling = family_of(checkpoint), upscaling_of(checkpoint)
    channels = 0 if upscaling else _condition_channels(checkpoint, family)
    small = upscaling.channels if upscaling else 0
    overflows = (
        dtype == torch.float16
        and family in ("sdxl", "upscaler")
        and checkpoint.configs["vae"].get("force_upcast", True)
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
    downsample = _downsample(checkpoint)
    return Model(
        name=checkpoint.name,
        family=family,
        denoiser=denoiser,
        autoencoder=autoencoder,
        text_encoders=tuple(modules[part] for part in ("text_encoder", "text_encoder_2") if part in modules),
        tokenizers=checkpoint.tokenizers,
        schedule=_schedule(checkpoint),
        prediction=_prediction(checkpoint.scheduler),
        default_size=default_size(checkpoint),
        latent_channels=denoiser.config.in_channels - channels - small,
        downsample=downsample,
        condition_channels=channels,
        upscaling=upscaling,
        takes_sigma=_takes_sigma(checkpoint),
        scaling=_scaling(checkpoint, autoencoder),
        x0_limit=_x0_limit(checkpoint, family),
        device=device,
        dtype=dtype,
        checkpoint=checkpoint,
        is_random=checkpoint.is_random,
    )


def _downsample(checkpoint: Checkpoint) -> int:
    """Pixels to a latent, along each side."""
    if "vae" not in checkpoint.configs:
        return 1
    return 2 ** (len(checkpoint.configs["vae"].get("block_out_channels", (64,))) - 1)


def default_size(checkpoint: Checkpoint) -> int:
    """Side in pixels of the square that it draws best, by its configs. Raises ModelError."""
    return sample_size(checkpoint.configs["unet"].get("sample_size")) * _downsample(checkpoint)


def family_of(checkpoint: Checkpoint) -> Family:
    """Which family, by the parts and their configs. Raises ModelError when the parts make no family."""
    parts = set(checkpoint.parts)
    if checkpoint.configs["unet"]["_class_name"] == "UNet2DModel":
        if parts != {"unet"}:
            raise ModelError(
                f"{checkpoint.name} is a UNet2DModel with {', '.join(sorted(parts - {'unet'}))}."
            )
        return "pixel"
    if checkpoint.pipeline in (PIXEL_UPSCALER, LATENT_UPSCALER):
        return _upscaler(checkpoint, parts)
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


def _upscaler(checkpoint: Checkpoint, parts: set[str]) -> Family:
    """Raises ModelError where parts are missing; a latent upscaler has no text encoder."""
    wanted = {"unet", "vae"} | ({"text_encoder"} if checkpoint.pipeline == PIXEL_UPSCALER else set[str]())
    if parts != wanted or len(checkpoint.tokenizers) != len(wanted) - 2:
        raise ModelError(
            f"{checkpoint.name} is an upscaler with {', '.join(sorted(parts))} and "
            f"{len(checkpoint.tokenizers)} tokenizers.",
            f"It needs {', '.join(sorted(wanted))}.",
        )
    return "upscaler"


def _condition_channels(checkpoint: Checkpoint, family: Family) -> int:
    """How many input channels are not noisy latents: 0, or as many as latents for editing models."""
    unet = checkpoint.configs["unet"]
    own = channels(unet, "out_channels", 4 if family != "pixel" else 3)
    latent = own if family == "pixel" else channels(checkpoint.configs["vae"], "latent_channels", 4)
    taken = channels(unet, "in_channels", latent)
    kinds = {9: "a 9-channel inpainting model", 5: "a depth-conditioned model", 7: "an upscaler"}
    if taken not in (latent, 2 * latent) or (family == "pixel" and taken != latent):
        kind = (
            kinds.get(taken, f"a model with {taken} input channels")
            if family != "pixel"
            else "a conditioned model"
        )
        raise ModelError(
            f"{checkpoint.name} is {kind}, which is not supported.",
            "Text-to-image models, InstructPix2Pix's editing models and the x4-upscaler are.",
        )
    if unet.get("out_channels", latent) != latent:
        raise ModelError(f"{checkpoint.name} also predicts a variance, which is not supported.")
    if unet.get("class_embed_type") or unet.get("num_class_embeds"):
        raise ModelError(f"{checkpoint.name} is class-conditional, which is not supported.")
    return taken - latent


def _schedule(checkpoint: Checkpoint) -> Schedule:
    """The noise schedule of the scheduler config, whose class must be one that samples such a schedule."""
    name = str(checkpoint.scheduler.get("_class_name"))
    if name.removesuffix("Scheduler") not in _SCHEDULERS:
        raise ModelError(
            f"{checkpoint.name} has a {printable(name, 80)}, which is not supported.",
            "It was trained on another kind of noise than Stable Diffusion was.",
        )
    try:
        schedule = from_diffusers_config(checkpoint.scheduler)
        sound = bool(torch.isfinite(schedule.alpha).all() and (schedule.sigma.diff() > 0).all())
    except (TypeError, ValueError, KeyError, IndexError, OverflowError, RuntimeError) as problem:
        raise ModelError(f"{checkpoint.name} has a damaged scheduler config: {problem}.") from problem
    if not sound:
        raise ModelError(f"{checkpoint.name} has a scheduler config whose noise does not grow with time.")
    return schedule


def _scaling(checkpoint: Checkpoint, autoencoder: Any | None) -> tuple[Tensor, Tensor]:
    """Shift and factor of the latents, each () or (1, c, 1, 1), from the autoencoder's config.

    Pixel-space models have none, but score-SDE-VE networks were trained on pixels in [0, 1].
    """
    if autoencoder is None:
        shift, factor = (-1.0, 0.5) if _takes_sigma(checkpoint) else (0.0, 1.0)
        return torch.tensor(shift), torch.tensor(factor)
    config = autoencoder.config
    try:
        shift = torch.tensor(float(config.shift_factor or 0))
        factor = torch.tensor(float(config.scaling_factor))
        if config.latents_mean is not None and config.latents_std is not None:
            shape = (1, config.latent_channels, 1, 1)
            shift = torch.tensor(config.latents_mean, dtype=torch.float32).reshape(shape)
            factor = factor / torch.tensor(config.latents_std, dtype=torch.float32).reshape(shape)
        sound = bool(torch.isfinite(shift).all() and torch.isfinite(factor).all() and (factor != 0).all())
    except (TypeError, ValueError, RuntimeError) as problem:
        raise ModelError(f"{checkpoint.name} has a damaged vae config: {problem}.") from problem
    if not sound:
        raise ModelError(f"{checkpoint.name} has a vae whose scaling factor is 0 or no number.")
    return shift, factor


def _x0_limit(checkpoint: Checkpoint, family: Family) -> float | None:
    """The magnitude at which a pixel-space model's x0 is clipped at every step, if its scheduler does so."""
    scheduler = checkpoint.scheduler
    if family != "pixel" or not scheduler.get("clip_sample", scheduler.get("_class_name") in _CLIPPING):
        return None
    limit = scheduler.get("clip_sample_range", 1.0)
    if not isinstance(limit, int | float) or not limit > 0:
        raise ModelError(f"{checkpoint.name} has a scheduler whose clip_sample_range is {limit!r}.")
    return float(limit)


def _prediction(scheduler: Mapping[str, Any]) -> Prediction:
    kind = str(scheduler.get("prediction_type", "epsilon"))
    if kind not in PREDICTIONS:
        raise ModelError(
            f"The scheduler's prediction type {kind!r} is not supported.",
            f"Supported: {', '.join(PREDICTIONS)}.",
        )
    return PREDICTIONS[kind]


def _takes_sigma(checkpoint: Checkpoint) -> bool:
    """Whether the denoiser is told sigma and answers with the score, as the score-SDE-VE networks do."""
    sigma = checkpoint.configs["unet"].get("time_embedding_type") == "fourier"
    if sigma != (checkpoint.scheduler.get("_class_name") == "ScoreSdeVeScheduler"):
        raise ModelError(f"{checkpoint.name} has a scheduler of another kind than its denoiser.")
    return sigma


def sample_size(size: object) -> int:
    """The side of the square the denoiser was trained on; 64 latents where its config does not say."""
    sides: list[Any] = [64] if size is None else [*size] if isinstance(size, list | tuple) else [size]
    if not sides or any(not isinstance(side, int) or side < 1 for side in sides):
        raise ModelError(f"The denoiser's sample_size cannot be {size!r}.", "Its config is damaged.")
    return max(sides)
