"""Stage `upscaler`: doubles the side of a picture in latent space.

A denoiser that also sees the latents of the small picture, enlarged and noised a little; how much noise is
told as a class (Ho et al. 2022, "Cascaded Diffusion Models", conditioning augmentation). It learns from
crops of pictures: the latents of a crop at full size are the goal, those of the same crop at half size the
condition, so one stock of pictures serves.
"""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor
from torch.nn import functional

from recipes.toybox import autoencoder, card, clip, denoiser, pictures
from recipes.toybox.denoiser import TIMES
from recipes.toybox.loop import Player, Run, train
from recipes.toybox.scales import SIZE, DenoiserSize
from scumble.diffusion import parameterisation, schedules
from scumble.diffusion.levels import Level

LEAST_NOISE = 100
"""The small picture's latents are noised to a time step below this."""


def stage(run: Run) -> None:
    """Train the upscaler and write it in half precision."""
    text = clip.load(run.out, run.device).text_model
    width = text.config.hidden_size
    model = load(run.start, run.device) if run.start else build(run.scale.upscaler, width).to(run.device)
    loss = _Upscaling(model, autoencoder.load(run.out, run.device), run, width)
    train("upscaler", [Player(network=model, loss=loss)], run.fit(run.scale.fit_upscaler), run)
    card.record(run.out, "upscaler", run.facts(run.scale.fit_upscaler))
    denoiser.write(model, folder(run.out))


def folder(out: Path) -> Path:
    return out / "upscaler"


def load(out: Path, device: str = "cpu") -> UNet2DConditionModel:
    """The upscaler in single precision, in evaluation mode."""
    return denoiser.read(folder(out), device)


def build(size: DenoiserSize, text_width: int) -> UNet2DConditionModel:
    """An upscaler with random weights: noisy latents beside the small picture's, the noise of the latter as
    a class.
    """
    channels = 2 * autoencoder.LATENT_CHANNELS
    return denoiser.build(size, text_width, in_channels=channels, num_class_embeds=LEAST_NOISE)


class _Upscaling:
    """The loss of a step. It reads no caption: its condition is the small picture, its text a zero token."""

    def __init__(self, model: UNet2DConditionModel, vae: AutoencoderKL, run: Run, text_width: int) -> None:
        self.model, self.run = run.compiled(model), run
        self.vae = vae.requires_grad_(requires_grad=False)
        self.pixels = pictures.load(run)
        self.no_text = torch.zeros(1, 1, text_width, device=run.device)
        self.levels = schedules.scaled_linear(TIMES).levels(torch.arange(TIMES).double()).to(run.device)

    def __call__(self, step: int) -> Tensor:
        generator = self.run.generator("upscaler", step)
        batch, device = self.run.scale.fit_upscaler.batch, self.pixels.device
        large = autoencoder.crops(self.pixels, batch, SIZE, generator)
        small = functional.interpolate(large, scale_factor=0.5, mode="area")
        x0, low = self._latents(large), self._latents(small)
        low = functional.interpolate(low, scale_factor=2, mode="nearest")
        eps, blur = (torch.randn(x0.shape, generator=generator, device=device) for _ in range(2))
        noise = torch.randint(LEAST_NOISE, (batch,), generator=generator, device=device)
        t = denoiser.spread_times(batch, generator, device)
        level, low_level = (Level(self.levels.alpha[s], self.levels.sigma[s]) for s in (t, noise))
        given = torch.cat([level.mix(x0, eps), low_level.mix(low, blur)], dim=1)  # (B, 8, h, w)
        text = self.no_text.expand(batch, -1, -1)
        predicted = self.model(given, t, text, class_labels=noise).sample
        return parameterisation.loss(predicted, x0, eps, level, "eps", weighting="min_snr").mean()

    @torch.no_grad()
    def _latents(self, x: Tensor) -> Tensor:
        return self.vae.config.scaling_factor * self.vae.encode(x).latent_dist.mode()
