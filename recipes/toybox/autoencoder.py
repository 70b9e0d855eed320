"""Stage `autoencoder`: Stable Diffusion's first stage at toy size (Rombach et al. 2022, section 3.1 and
appendix G).

The loss is an error in pixels and in differences of neighbouring pixels, a perceptual error in features of
a small network of ours (stage `features`; not the judge's, which is kept for judging), a slight pull of the
posterior to the standard normal, and, in the last part of training, a patch discriminator (hinge loss,
Isola et al. 2017) whose weight balances its gradient with that of the reconstruction at the last layer
(Esser et al. 2021, equation 7).
"""

from __future__ import annotations

import math
from copy import deepcopy
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from torch.nn import functional

from recipes.toybox import card, features, pictures
from recipes.toybox.loop import Player, Run, train
from recipes.toybox.scales import SIZE, AutoencoderSize
from recipes.toybox.warmstart import start_at_mean_colour
from recipes.toybox.whitening import whiten

LATENT_CHANNELS = 4
KL_WEIGHT = 1e-7
EDGE_WEIGHT = 0.5
PERCEPTUAL_WEIGHT = 0.1
ADVERSARY_WEIGHT = 0.3


def stage(run: Run) -> None:
    """Train the autoencoder, even out its latents, measure their scale and write it in half precision."""
    pixels = pictures.load(run)
    model = load(run.start, run.device) if run.start else build(run.scale.autoencoder).to(run.device)
    players = _players(model, pixels, run)
    train("autoencoder", players, run.fit(run.scale.fit_autoencoder), run)
    whiten(model, *_posteriors(model, pixels))
    model.register_to_config(scaling_factor=1.0 / float(_posteriors(model, pixels)[0].std()))
    save(model, run.out)
    facts = run.facts("autoencoder", run.scale.fit_autoencoder)
    card.record(run.out, "autoencoder", facts | scores(model, run))


def folder(out: Path) -> Path:
    return out / "vae"


def load(out: Path, device: str = "cpu") -> AutoencoderKL:
    """The autoencoder in single precision, in evaluation mode."""
    model = AutoencoderKL.from_pretrained(folder(out), torch_dtype=torch.float32)
    return model.to(device, memory_format=torch.channels_last).eval()


def save(model: AutoencoderKL, out: Path) -> None:
    """Write a copy in half precision; the model itself keeps its precision."""
    deepcopy(model).half().save_pretrained(folder(out))


def build(size: AutoencoderSize) -> AutoencoderKL:
    """An untrained autoencoder; without attention in the middle, so that it works alike at every
    size.
    """
    levels = len(size.channels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoencoderKL(
            block_out_channels=size.channels,
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            layers_per_block=size.layers,
            latent_channels=LATENT_CHANNELS,
            norm_num_groups=size.groups,
            sample_size=SIZE,
            mid_block_add_attention=False,
        )
        start_at_mean_colour(model)
    return model.to(memory_format=torch.channels_last)


@torch.no_grad()
def scores(model: AutoencoderKL, run: Run) -> dict[str, float]:
    """Mean and lowest PSNR in dB of pictures of held-out combinations, both as 8-bit values."""
    model.eval()
    truth = pictures.drawn(pictures.held_out(run, run.scale.held_out), run.device)
    values = [psnr(reconstructed(model, part), part) for part in truth.split(32)]
    psnrs = torch.cat(values)
    return {"psnr": float(psnrs.mean()), "lowest psnr": float(psnrs.min())}


@torch.no_grad()
def reconstructed(model: AutoencoderKL, pixels: Tensor) -> Tensor:
    """Through the autoencoder and back: (B, 3, H, W) uint8."""
    latents = model.encode(pixels.float() / 127.5 - 1.0).latent_dist.mode()
    return to_uint8(model.decode(latents).sample)


def to_uint8(pictures: Tensor) -> Tensor:
    return (pictures.float().clamp(-1.0, 1.0) * 127.5 + 127.5).round().to(torch.uint8)


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of each of (B, 3, H, W) uint8 pictures."""
    error = (a.float() - b.float()).square().flatten(1).mean(1).clamp_min(1e-6)
    return 10.0 * torch.log10(255.0**2 / error)


def edge_error(a: Tensor, b: Tensor) -> Tensor:
    """Mean absolute error of the differences between neighbours, which a blurred picture has too small."""
    d = a - b
    return d.diff(dim=-1).abs().mean() + d.diff(dim=-2).abs().mean()


def patch_discriminator(width: int = 48) -> nn.Sequential:
    """Three strided convolutions and a verdict for each patch (Isola et al. 2017)."""
    return nn.Sequential(
        nn.Conv2d(3, width, 4, 2, 1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(width, 2 * width, 4, 2, 1),
        nn.GroupNorm(8, 2 * width),
        nn.LeakyReLU(0.2),
        nn.Conv2d(2 * width, 4 * width, 4, 1, 1),
        nn.GroupNorm(8, 4 * width),
        nn.LeakyReLU(0.2),
        nn.Conv2d(4 * width, 1, 3, 1, 1),
    )


def _players(model: AutoencoderKL, pixels: Tensor, run: Run) -> list[Player]:
    fit = run.fit(run.scale.fit_autoencoder)
    first = math.ceil(run.scale.adversary_from * fit.steps)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        adversary = patch_discriminator().to(run.device) if first < fit.steps else None
    loss = _Reconstruction(model, pixels, adversary, first, run)
    players = [Player(network=model, loss=loss, betas=(0.9, 0.99))]
    if adversary is not None:
        verdict = _Verdict(adversary, loss, first)
        players.append(Player(network=adversary, loss=verdict, averaged=False, betas=(0.5, 0.9)))
    return players


@torch.no_grad()
def _posteriors(model: AutoencoderKL, pixels: Tensor, count: int = 512) -> tuple[Tensor, Tensor]:
    """Means and standard deviations (n, 4, h, w) of some pictures spread over all."""
    index = torch.linspace(0, len(pixels) - 1, min(count, len(pixels))).long()
    found = [model.encode(pictures.pick(pixels, part)).latent_dist for part in index.split(32)]
    return torch.cat([f.mean for f in found]), torch.cat([f.std for f in found])


class _Reconstruction:
    """The autoencoder's loss; keeps the last pictures for the discriminator's."""

    def __init__(
        self, model: AutoencoderKL, pixels: Tensor, adversary: nn.Module | None, first: int, run: Run
    ) -> None:
        self.model, self.pixels, self.adversary, self.first, self.run = model, pixels, adversary, first, run
        self.perceive = features.load(run.out, run.device) if run.scale.perceptual else None
        # `_balance` goes back through the decoder more than once a step, which a compiled one does not allow.
        self.encode = run.compiled(_Encode(model))
        self.decode = run.compiled(model.decoder) if adversary is None else model.decoder
        self.real = self.fake = pixels.new_zeros(0)

    def __call__(self, step: int) -> Tensor:
        generator = self.run.generator("autoencoder", step)
        self.real = x = crops(
            self.pixels, self.run.scale.fit_autoencoder.batch, self.run.scale.crop, generator
        )
        mean, log_variance = self.encode(x).float().chunk(2, dim=1)  # (B, 4, h, w) each
        log_variance = log_variance.clamp(-30.0, 20.0)
        noise = torch.randn(mean.shape, generator=generator, device=mean.device)
        z = mean + (0.5 * log_variance).exp() * noise
        y = self.decode(self.model.post_quant_conv(z)).float()
        self.fake = y.detach()
        kl = 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance).sum((1, 2, 3)).mean()
        fidelity = functional.l1_loss(y, x) + functional.mse_loss(y, x) + EDGE_WEIGHT * edge_error(y, x)
        if self.perceive is not None:
            fidelity = fidelity + PERCEPTUAL_WEIGHT * self.perceive.distance(y, x)
        loss = fidelity + KL_WEIGHT * kl * (SIZE / self.run.scale.crop) ** 2
        if self.adversary is None or step < self.first:
            return loss
        fooled = -self.adversary(y).mean()
        return loss + ADVERSARY_WEIGHT * self._balance(fidelity, fooled) * fooled

    def _balance(self, fidelity: Tensor, fooled: Tensor) -> Tensor:
        """Ratio of the two gradients' norms at the last layer."""
        last = self.model.decoder.conv_out.weight
        ours, theirs = (
            torch.autograd.grad(term, last, retain_graph=True)[0].norm() for term in (fidelity, fooled)
        )
        return (ours / (theirs + 1e-6)).clamp(max=1e4).detach()


class _Verdict:
    """The discriminator's hinge loss; zero, with zero gradients, before it joins."""

    def __init__(self, adversary: nn.Module, pair: _Reconstruction, first: int) -> None:
        self.adversary, self.pair, self.first = adversary, pair, first

    def __call__(self, step: int) -> Tensor:
        if step < self.first:
            return sum(p.sum() for p in self.adversary.parameters()) * 0.0
        real, fake = self.adversary(self.pair.real), self.adversary(self.pair.fake)
        return 0.5 * (functional.relu(1.0 - real).mean() + functional.relu(1.0 + fake).mean())


class _Encode(nn.Module):
    def __init__(self, model: AutoencoderKL) -> None:
        super().__init__()
        self.encoder, self.quant_conv = model.encoder, model.quant_conv

    def forward(self, x: Tensor) -> Tensor:
        return self.quant_conv(self.encoder(x))


def crops(pixels: Tensor, count: int, side: int, generator: torch.Generator) -> Tensor:
    """Random squares of random pictures, half of them mirrored: (count, 3, side, side) in [-1, 1]."""
    device = pixels.device
    index = torch.randint(len(pixels), (count,), generator=generator, device=device)
    corner = torch.randint(SIZE - side + 1, (2, count), generator=generator, device=device)
    mirrored = torch.rand(count, generator=generator, device=device) < 0.5
    offset = torch.arange(side, device=device)
    column = torch.where(mirrored[:, None], offset.flip(0), offset) + corner[1, :, None]  # (B, side)
    row = offset + corner[0, :, None]
    chosen = pixels[index[:, None, None], :, row[:, :, None], column[:, None, :]]  # (B, side, side, 3)
    return chosen.permute(0, 3, 1, 2).float() / 127.5 - 1.0
