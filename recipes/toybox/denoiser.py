"""Stage `denoiser`: the latent diffusion model itself (Rombach et al. 2022), in Stable Diffusion 1's
layout.

It predicts the noise on the scaled-linear schedule, with min-SNR weights (Hang et al. 2023), 10 % of the
captions left empty for classifier-free guidance (Ho & Salimans 2022), and averaged weights. Its text encoder
begins as CLIP's text tower and learns with it, as in Rombach et al. 2022 (section 4.3.1): the contrast alone
lets an encoder forget what no pair of captions needs.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import CLIPTextModel

from recipes.toybox import autoencoder, card, clip, latents, pictures
from recipes.toybox.autoencoder import LATENT_CHANNELS
from recipes.toybox.loop import Player, Run, train
from recipes.toybox.scales import MAX_TOKENS, SIZE, DenoiserSize
from scumble.diffusion import parameterisation, schedules
from scumble.diffusion.levels import Level

TIMES = 1000
DROPPED = 0.1
"""Share of captions replaced by the empty one."""
MIDDLE = -0.2
"""Logit of the time, as a share of all, about which most steps are drawn."""


def stage(run: Run) -> None:
    """Train the denoiser and its text encoder and write both in half precision."""
    text = read_text(text_folder(run.start), run.device) if run.start else clip.load(run.out).text_model
    text = learner(text, run.device)
    scaling = autoencoder.load(run.out).config.scaling_factor
    width = text.config.hidden_size
    model = load(run.start, run.device) if run.start else build(run.scale.denoiser, width).to(run.device)
    loss = _Denoising(model, text, scaling, run)
    both = nn.ModuleList([model, text])
    train("denoiser", [Player(network=both, loss=loss)], run.fit(run.scale.fit_denoiser), run)
    card.record(run.out, "denoiser", run.facts("denoiser", run.scale.fit_denoiser))
    write(model, folder(run.out))
    clip.save(text, text_folder(run.out))


def folder(out: Path) -> Path:
    return out / "unet"


def text_folder(out: Path) -> Path:
    return out / "text_encoder"


def learner(text: CLIPTextModel, device: str) -> CLIPTextModel:
    """The text encoder, to learn with a denoiser; its tables of embeddings stay as the contrast left them.

    Rare words would forget theirs between two times that they are seen, and a table is no matrix for Muon.
    """
    text.embeddings.requires_grad_(requires_grad=False)
    return text.to(device)


def read_text(path: Path, device: str = "cpu") -> CLIPTextModel:
    """A text encoder in single precision, in evaluation mode."""
    return CLIPTextModel.from_pretrained(path, dtype=torch.float32).to(device).eval()


def load(out: Path, device: str = "cpu") -> UNet2DConditionModel:
    """The denoiser in single precision, in evaluation mode."""
    return read(folder(out), device)


def read(path: Path, device: str) -> UNet2DConditionModel:
    """Any such network in single precision, in evaluation mode."""
    model = UNet2DConditionModel.from_pretrained(path, torch_dtype=torch.float32)
    return model.to(device, memory_format=torch.channels_last).eval()


def write(model: UNet2DConditionModel, path: Path) -> None:
    """Write a copy in half precision; the model itself keeps its precision."""
    deepcopy(model).half().save_pretrained(path)


def build(
    size: DenoiserSize,
    text_width: int,
    *,
    in_channels: int = LATENT_CHANNELS,
    num_class_embeds: int | None = None,
) -> UNet2DConditionModel:
    """A denoiser with random weights, with cross-attention on every level."""
    levels = len(size.channels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = UNet2DConditionModel(
            sample_size=SIZE // 8,
            in_channels=in_channels,
            out_channels=LATENT_CHANNELS,
            num_class_embeds=num_class_embeds,
            block_out_channels=size.channels,
            layers_per_block=size.layers,
            down_block_types=("CrossAttnDownBlock2D",) * levels,
            up_block_types=("CrossAttnUpBlock2D",) * levels,
            cross_attention_dim=text_width,
            attention_head_dim=size.heads,
        )
    return model.to(memory_format=torch.channels_last)


class _Denoising:
    """The loss of a step; latents, captions, noise and times are drawn from the step's generator."""

    def __init__(self, model: UNet2DConditionModel, text: CLIPTextModel, scaling: float, run: Run) -> None:
        self.model, self.text = run.compiled(model), text
        self.scaling, self.run = scaling, run
        self.mean, self.std = latents.load(run)
        self.ids = pictures.captions(run, len(self.mean)).ids
        self.padding = int(self.ids[0, 0, -1])
        self.simple = _simple(run, len(self.mean))
        self.all_from = 0 if run.start else _simple_steps(run)
        self.levels = schedules.scaled_linear(TIMES).levels(torch.arange(TIMES).double()).to(run.device)

    def __call__(self, step: int) -> Tensor:
        generator = self.run.generator("denoiser", step)
        batch, device = self.run.scale.fit_denoiser.batch, self.mean.device
        index = torch.randint(len(self.mean), (batch,), generator=generator, device=device)
        if step < self.all_from:
            index = self.simple[index % len(self.simple)]
        x0 = self._latents(index, generator)
        eps = torch.randn(x0.shape, generator=generator, device=device)
        t = spread_times(batch, generator, device)
        level = Level(self.levels.alpha[t], self.levels.sigma[t])
        noisy = level.mix(x0, eps).contiguous(memory_format=torch.channels_last)
        with plain_attention(self.run.device):
            predicted = self.model(noisy, t, self._condition(index, generator)).sample
        return parameterisation.loss(predicted, x0, eps, level, "eps", weighting="min_snr").mean()

    def _latents(self, index: Tensor, generator: torch.Generator) -> Tensor:
        view = torch.randint(self.mean.shape[1], index.shape, generator=generator, device=index.device)
        mean, std = (table[index, view].float() for table in (self.mean, self.std))
        noise = torch.randn(mean.shape, generator=generator, device=mean.device)
        return self.scaling * (mean + std * noise)

    def _condition(self, index: Tensor, generator: torch.Generator) -> Tensor:
        wording = torch.randint(self.ids.shape[1], index.shape, generator=generator, device=index.device)
        dropped = torch.rand(index.shape, generator=generator, device=index.device) < DROPPED
        ids = torch.full((len(index), MAX_TOKENS), self.padding, device=index.device)
        ids[:, : self.ids.shape[-1]] = self.ids[index, wording].long()
        ids[dropped, 1:] = self.padding
        return self.text(ids).last_hidden_state  # (B, 77, D)


def _simple_steps(run: Run) -> int:
    """How many of the first steps see photos of one thing alone; weights trained before need none."""
    return math.ceil(run.scale.simple_first * run.fit(run.scale.fit_denoiser).steps)


def _simple(run: Run, count: int) -> Tensor:
    """The numbers of those of the first `count` pictures that are photos of one thing."""
    scenes = pictures.scenes(run, range(count))
    chosen = [i for i, scene in enumerate(scenes) if scene.style == "photo" and len(scene.things) == 1]
    return torch.tensor(chosen or list(range(count)), device=run.device)


def plain_attention(device: str) -> AbstractContextManager[object]:
    """On a CPU, matrix by matrix: on maps as small as these the fused kernel's backward pass takes longer."""
    return sdpa_kernel(SDPBackend.MATH) if device == "cpu" else nullcontext()


def spread_times(batch: int, generator: torch.Generator, device: torch.device) -> Tensor:
    """Time steps (batch,) int64, less noisy than independent ones: one from each of `batch` equal parts of
    their distribution.

    A quarter of them are uniform; the others follow a logit-normal distribution (Esser et al. 2024, "Scaling
    Rectified Flow Transformers", section 3.1) about the levels where a picture's things take shape: in a
    latent of 16 x 16 little is left to learn of the noisiest steps.
    """
    uniform = _parts(batch // 4, generator, device)
    logits = MIDDLE + torch.special.ndtri(
        _parts(batch - batch // 4, generator, device).clamp(1e-4, 1.0 - 1e-4)
    )
    return (torch.cat([uniform, logits.sigmoid()]) * TIMES).long().clamp(max=TIMES - 1)


def _parts(count: int, generator: torch.Generator, device: torch.device) -> Tensor:
    """A number in each of `count` equal parts of [0, 1): (count,)."""
    offset = torch.rand(count, generator=generator, device=device)
    return (torch.arange(count, device=device) + offset) / count
