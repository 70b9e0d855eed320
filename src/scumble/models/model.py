"""A pretrained model, held: its networks, its schedule, and the few things anyone does with them.

Letters: B pictures, H W their size, c h w channels and size of their latents, L tokens, D width. Pixels are
in [-1, 1]. Latents are *scaled* where a denoiser sees them and *unscaled* as the autoencoder gives them; for
a pixel-space model the two are the pixels themselves. Everything public takes and returns float32, whatever
dtype the networks have, and nothing on the path of a denoising step waits for the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from scumble.core import rng
from scumble.core.errors import InputError
from scumble.diffusion.guidance import Branches
from scumble.diffusion.levels import Level
from scumble.diffusion.parameterisation import Prediction, to_x0
from scumble.diffusion.schedules import Schedule
from scumble.models import prompts
from scumble.models.checkpoint import Checkpoint
from scumble.models.conditioning import Condition, time_ids
from scumble.models.hash import fingerprint
from scumble.models.upscaling import Upscaling

if TYPE_CHECKING:
    from scumble.models.safety import SafetyChecker

__all__ = ["Family", "Model", "Posterior"]

Family = Literal["sd1", "sd2", "sdxl", "pixel", "upscaler"]


@dataclass(frozen=True, slots=True)
class Posterior:
    """The autoencoder's Gaussian over latents, unscaled: `mean` and `std`, each (B, c, h, w) float32."""

    mean: Tensor
    std: Tensor

    def sample(self, generators: Sequence[torch.Generator]) -> Tensor:
        """One draw for each picture, from that picture's own generator."""
        noise = rng.randn(self.mean.shape[1:], generators, device=self.mean.device)
        return self.mean + self.std * noise

    def mode(self) -> Tensor:
        """The most likely latents: the mean."""
        return self.mean


@dataclass(kw_only=True, eq=False, repr=False)
class Model:
    """Networks, frozen and in evaluation mode, with what is needed to use them.

    `denoiser` is a diffusers UNet2DConditionModel (UNet2DModel for family `pixel`, which has no text encoder
    and `autoencoder` None). `prediction` is what it was trained to output: `eps`, `v` or `x0`. `default_size`
    is in pixels; a picture of H x W has latents of H/`downsample` x W/`downsample` with `latent_channels`
    channels. An editing model's denoiser takes `condition_channels` more channels, the unscaled latents of
    the picture to edit; an upscaler's takes the small picture, as `upscaling` says, and has no condition
    channels. `scaling` is the shift and the factor of latents, each () or (1, c, 1, 1). A
    pixel-space model's x0 is clipped to [-`x0_limit`, `x0_limit`] if there is one. `words` holds learnt
    words, see `scumble.models.prompts`. `safety_checker` is there if the folder had one and it was not
    declined. `is_random` says that nobody trained these weights.
    """

    name: str
    family: Family
    denoiser: Any
    autoencoder: Any | None
    text_encoders: tuple[Any, ...]
    tokenizers: tuple[Any, ...]
    schedule: Schedule
    prediction: Prediction
    default_size: int
    latent_channels: int
    downsample: int
    device: torch.device
    dtype: torch.dtype
    checkpoint: Checkpoint
    condition_channels: int = 0
    upscaling: Upscaling | None = None
    takes_sigma: bool = False
    scaling: tuple[Tensor, Tensor]
    x0_limit: float | None = None
    safety_checker: SafetyChecker | None = None
    is_random: bool = False
    words: dict[str, Sequence[Tensor]] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"<Model {self.name}: {self.family}, {self.prediction}, {self.dtype} on {self.device}>"

    @cached_property
    def hash(self) -> str:
        """64 hexadecimal digits that depend on the stored tensors alone; see `scumble.models.hash`."""
        return fingerprint(self.checkpoint)

    def parts(self) -> dict[str, Any]:
        """The networks, named as in a diffusers folder."""
        encoders = dict(zip(("text_encoder", "text_encoder_2"), self.text_encoders, strict=False))
        autoencoder = {} if self.autoencoder is None else {"vae": self.autoencoder}
        return {"unet": self.denoiser, **autoencoder, **encoders}

    # Pictures and latents

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """(c, h, w) for a picture of that size in pixels. Raises InputError if f does not divide it."""
        if min(height, width) < self.downsample or height % self.downsample or width % self.downsample:
            raise InputError(
                f"{self.name} cannot make a picture of {width} x {height} pixels.",
                f"Width and height must be multiples of {self.downsample}.",
            )
        return self.latent_channels, height // self.downsample, width // self.downsample

    def encode(self, pixels: Tensor) -> Posterior:
        """The posterior over the latents of `pixels` (B, 3, H, W) in [-1, 1], unscaled.

        For a pixel-space model the pixels themselves, with no spread.
        """
        if self.autoencoder is None:
            pixels = pixels.to(self.device, torch.float32)
            return Posterior(pixels, torch.zeros_like(pixels))
        pixels = pixels.to(self.device, self.autoencoder.dtype)
        posterior = self.autoencoder.encode(pixels).latent_dist
        return Posterior(posterior.mean.float(), posterior.std.float())

    def decode(self, latents: Tensor) -> Tensor:
        """Pixels (B, 3, H, W) of scaled latents (B, c, h, w). Near [-1, 1] but not clipped to it."""
        unscaled = self.unscale(latents.to(self.device, torch.float32))
        if self.autoencoder is None:
            return unscaled
        return self.autoencoder.decode(unscaled.to(self.autoencoder.dtype)).sample.float()

    def scale(self, latents: Tensor) -> Tensor:
        """Scaled latents, `(latents - shift) * factor`, both from the autoencoder's config."""
        shift, factor = self.scaling
        return (latents - shift.to(latents)) * factor.to(latents)

    def unscale(self, latents: Tensor) -> Tensor:
        """The inverse of `scale`."""
        shift, factor = self.scaling
        return latents / factor.to(latents) + shift.to(latents)

    # Prompts

    def prompt(
        self,
        texts: Sequence[str],
        *,
        size: tuple[int, int] | None = None,
        original: tuple[int, int] | None = None,
        crop: tuple[int, int] = (0, 0),
    ) -> Condition:
        """Encode prompts, `words` included: embeddings (B, L, D) in the model's dtype.

        `size` (height, width) of the picture to be made, `original` before cropping and `crop` (top, left)
        matter to SDXL only; `size` is the default size if not given and `original` is `size`. Raises
        PromptError, and InputError for a model without text encoder.
        """
        if not self.text_encoders:
            raise InputError(f"{self.name} is a pixel-space model without words.", "Leave the prompt out.")
        condition = prompts.encode(
            texts,
            self.tokenizers,
            self.text_encoders,
            words=self.words,
            penultimate=self.family == "sdxl",
            device=self.device,
        )
        return self._with_sizes(condition, size, original, crop)

    def empty(self, count: int = 1, *, size: tuple[int, int] | None = None) -> Condition:
        """The condition of no prompt at all, `count` times: what guidance leads away from.

        The empty prompt encoded, or zeros for a model trained so (SDXL's `force_zeros_for_empty_prompt`).
        """
        condition = self.prompt([""], size=size)
        if self.checkpoint.zeros_for_empty:
            zeros = None if condition.pooled is None else torch.zeros_like(condition.pooled)
            condition = Condition(torch.zeros_like(condition.embeddings), zeros, condition.added)
        return condition.select([0] * count)

    # Denoising

    def predict(
        self, x: Tensor, timestep: Tensor, condition: Condition | None = None, labels: Tensor | None = None
    ) -> Tensor:
        """The denoiser's output (B, c, h, w) float32 for noisy `x` (B, c + condition, h, w).

        `timestep` is real, () or (B,), on the schedule's own scale: 0 to T - 1. `labels` (B,) int64 are the
        noise levels that an upscaler is told. Gradients flow to `x`, to `condition` and to whatever of the
        denoiser asks for them.
        """
        batch = x.shape[0]
        sample = x.to(self.dtype)
        if self.takes_sigma:
            sigma = self.schedule.levels(timestep).sigma.float()
            sigma = sigma.to(x.device, non_blocking=True).expand(batch)  # (B,)
            score = self.denoiser(sample, sigma).sample.float()
            return -sigma.reshape(-1, 1, 1, 1) * score  # score = -eps / sigma
        timestep = timestep.float().to(x.device, non_blocking=True).expand(batch)  # (B,)
        if condition is None:
            return self.denoiser(sample, timestep).sample.float()
        condition = condition.expand(batch)
        added = None
        if condition.added is not None:
            added = {"text_embeds": condition.pooled, "time_ids": condition.added}
        output = self.denoiser(
            sample,
            timestep,
            encoder_hidden_states=condition.embeddings.to(self.dtype),
            encoder_attention_mask=condition.mask,
            class_labels=labels,
            added_cond_kwargs=added,
        )
        return output.sample.float()

    def branches(
        self,
        conditions: Sequence[Condition | None] = (None,),
        image_condition: Tensor | Sequence[Tensor | None] | None = None,
    ) -> Branches:
        """The denoiser under several conditions, for a guidance wrapper: every branch asked, in one batch.

        `conditions[i]` is branch i's, of one row or of one for each picture; a pixel-space model has the one
        branch None. `image_condition`, for an editing model, is the unscaled latents (B or 1, c, h, w) that
        every branch sees, or one entry a branch, None meaning zeros. Raises InputError when it is there for a
        model without condition channels or the other way round, and for an upscaler.
        """
        if self.upscaling is not None:
            raise InputError(f"{self.name} is an upscaler.", "Use it with scumble upscale.")
        images = self._image_conditions(image_condition, len(conditions))
        joined: dict[tuple[tuple[int, ...], int], Condition | None] = {}

        def run(x: Tensor, level: Level, which: tuple[int, ...]) -> list[Tensor]:
            batch, count = x.shape[0], len(which)
            if (which, batch) not in joined:
                chosen = [c.expand(batch) for i in which if (c := conditions[i]) is not None]
                joined[which, batch] = Condition.cat(chosen) if chosen else None
            noisy = x.repeat(count, 1, 1, 1)  # (count B, c, h, w)
            seen = noisy
            if images is not None:
                seen = torch.cat([noisy, torch.cat([_rows(images[i], x) for i in which])], dim=1)
            if level.alpha.ndim:
                level = Level(level.alpha.repeat(count), level.sigma.repeat(count))  # (count B,)
            output = self.predict(seen, self.schedule.time(level), joined[which, batch])
            x0 = to_x0(output, noisy, level, self.prediction)
            if self.x0_limit is not None:
                x0 = x0.clamp(-self.x0_limit, self.x0_limit)
            return list(x0.chunk(count))

        return run

    # Details

    def _with_sizes(
        self,
        condition: Condition,
        size: tuple[int, int] | None,
        original: tuple[int, int] | None,
        crop: tuple[int, int],
    ) -> Condition:
        if self.family != "sdxl":
            return Condition(condition.embeddings, mask=condition.mask)
        size = size or (self.default_size, self.default_size)
        ids = time_ids(original or size, crop, size).to(self.device)
        return Condition(
            condition.embeddings, condition.pooled, ids.expand(len(condition), 6), condition.mask
        )

    def _image_conditions(
        self, given: Tensor | Sequence[Tensor | None] | None, count: int
    ) -> list[Tensor | None] | None:
        if (given is not None) != bool(self.condition_channels):
            raise InputError(
                f"{self.name} is {'an' if self.condition_channels else 'no'} editing model.",
                "Give it a picture to edit." if given is None else "Give it no picture to edit.",
            )
        if given is None:
            return None
        images: list[Tensor | None] = [given] * count if isinstance(given, Tensor) else list(given)
        if len(images) != count:
            raise InputError(f"{len(images)} image conditions were given for {count} branches.")
        return images


def _rows(image: Tensor | None, x: Tensor) -> Tensor:
    """The image condition of one branch as (B, c, h, w), zeros for None."""
    return torch.zeros_like(x) if image is None else image.to(x).expand_as(x)
