"""Stage `upscaler`: doubles the side of a picture in latent space.

A denoiser that also sees the latents of the small picture, each cell repeated and noised a little; how much
noise is told as a class (Ho et al. 2022, "Cascaded Diffusion Models", conditioning augmentation). It learns
what it will be asked for: scenes rendered at twice the toybox's size, beside the same made half as large.
Both are encoded once, and a step sees squares cut out of their latents, so the autoencoder never runs while
it learns and a square costs what a picture of the toybox's size costs the denoiser.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from recipes.toybox import autoencoder, card, denoiser, pictures
from recipes.toybox.autoencoder import LATENT_CHANNELS
from recipes.toybox.denoiser import TIMES
from recipes.toybox.loop import Player, Run, train
from recipes.toybox.scales import SIZE, DenoiserSize
from scumble.core.errors import InputError
from scumble.core.files import atomic_folder, atomic_path, atomic_write, sha256
from scumble.core.rng import generators, randn
from scumble.diffusion import parameterisation, samplers, schedules
from scumble.diffusion.levels import Level
from scumble.diffusion.spacing import levels_for
from scumble.models.toybox import UPSCALING
from scumble.models.upscaling import LATENT_UPSCALER
from scumble.world.render import render
from scumble.world.scene import Scene

NOISE_LEVELS = 100
"""The small picture's latents are noised to a time step below this."""
USUAL = 20
"""The noise level that it is scored at."""
FACTOR = 2
SCHEDULER = {
    "_class_name": "DDIMScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": TIMES,
    "prediction_type": "v_prediction",
    "clip_sample": False,
}
PIPELINE = {
    "_class_name": LATENT_UPSCALER,
    "_diffusers_version": "0.42.1",
    "low_res_scheduler": ["diffusers", "DDIMScheduler"],
    "max_noise_level": NOISE_LEVELS - 1,
    "scheduler": ["diffusers", "DDIMScheduler"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}
SHARD = 32
"""Pictures rendered and encoded at a time."""
SCORED = 16


def stage(run: Run) -> None:
    """Render and encode what is missing, train the upscaler, score it and write it in half precision."""
    prepare(run)
    width = denoiser.load(run.out).config.cross_attention_dim
    vae = autoencoder.load(run.out, run.device)
    model = load(run.start, run.device) if run.start else build(run.scale.upscaler, width).to(run.device)
    loss = _Upscaling(model, vae.config.scaling_factor, run, width)
    train("upscaler", [Player(network=model, loss=loss)], run.fit(run.scale.fit_upscaler), run)
    facts = run.facts("upscaler", run.scale.fit_upscaler) | {"pictures": len(loss.mean)}
    card.record(run.out, "upscaler", facts | scores(model, vae, run))
    denoiser.write(model, folder(run.out))
    alone(run.out)


def alone(out: Path) -> Path:
    """The upscaler as a folder that `scumble upscale --model` loads, with an autoencoder of its own."""
    place = out / UPSCALING
    shutil.rmtree(place, ignore_errors=True)  # made anew from what lies beside it
    with atomic_folder(place) as temporary:
        describe(temporary)
        shutil.copytree(folder(out), temporary / "unet")
        shutil.copytree(autoencoder.folder(out), temporary / "vae")
    return place


def describe(place: Path) -> None:
    """Write into the folder `place` of an upscaler what it is: its index and its schedulers."""
    atomic_write(place / "model_index.json", (json.dumps(PIPELINE, indent=2) + "\n").encode())
    for name in ("scheduler", "low_res_scheduler"):
        content = (json.dumps(SCHEDULER, indent=2) + "\n").encode()
        atomic_write(place / name / "scheduler_config.json", content)


def folder(out: Path) -> Path:
    return out / "upscaler"


def load(out: Path, device: str = "cpu") -> UNet2DConditionModel:
    """The upscaler in single precision, in evaluation mode."""
    return denoiser.read(folder(out), device)


def build(size: DenoiserSize, text_width: int) -> UNet2DConditionModel:
    """An upscaler with random weights: noisy latents beside the small picture's, the noise of the latter as
    a class. The finest level has no attention: what a detail looks like is decided near it.
    """
    coarser = len(size.channels) - 1
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = UNet2DConditionModel(
            sample_size=SIZE // 8,
            in_channels=2 * LATENT_CHANNELS,
            out_channels=LATENT_CHANNELS,
            num_class_embeds=NOISE_LEVELS,
            block_out_channels=size.channels,
            layers_per_block=size.layers,
            down_block_types=("DownBlock2D",) + ("CrossAttnDownBlock2D",) * coarser,
            up_block_types=("CrossAttnUpBlock2D",) * coarser + ("UpBlock2D",),
            cross_attention_dim=text_width,
            attention_head_dim=size.heads,
        )
    return model.to(memory_format=torch.channels_last)


def prepare(run: Run) -> None:
    """Render large pictures and encode them and their halves, shard by shard, as long as there is time."""
    end = time.monotonic() + 60.0 * run.minutes
    vae = autoencoder.load(run.out, run.device)
    for first in range(0, run.scale.large, SHARD):
        if (path := _shard(run.out, first)).exists():
            continue
        if time.monotonic() > end:
            return
        start, seeds = time.monotonic(), range(first, min(first + SHARD, run.scale.large))
        with atomic_path(path) as temporary:
            save_file(_encoded(vae, _large(run, list(seeds)), run), temporary)
        cost = 1000.0 * (time.monotonic() - start) / len(seeds)
        print(f"large {seeds.stop}/{run.scale.large}  {cost:.1f} ms a picture", flush=True)


@torch.no_grad()
def scores(model: UNet2DConditionModel, vae: AutoencoderKL, run: Run) -> dict[str, float]:
    """Mean PSNR in dB to large renders of held-out combinations: enlarged by the upscaler, by bicubic
    interpolation, and the renders themselves through the autoencoder, which is the most there can be.
    """
    count = min(SCORED, run.scale.held_out)
    truth = _drawn(pictures.held_out(run, count), run.device)
    small = functional.interpolate(truth.float(), scale_factor=1 / FACTOR, mode="area") / 127.5 - 1.0
    bicubic = functional.interpolate(small, scale_factor=FACTOR, mode="bicubic")
    guesses = {
        "psnr": enlarged(model, vae, small),
        "psnr of bicubic": autoencoder.to_uint8(bicubic),
        "psnr of the autoencoder": autoencoder.reconstructed(vae, truth),
    }
    return {name: float(autoencoder.psnr(guess, truth).mean()) for name, guess in guesses.items()}


@torch.no_grad()
def enlarged(model: UNet2DConditionModel, vae: AutoencoderKL, small: Tensor, steps: int = 12) -> Tensor:
    """Pictures (B, 3, H, W) in [-1, 1] twice as large: (B, 3, 2 H, 2 W) uint8."""
    model.eval()
    schedule, device = schedules.scaled_linear(TIMES), small.device
    chance = generators(range(len(small)))
    low = _repeated(vae.config.scaling_factor * vae.encode(small).latent_dist.mode())
    low = schedule.levels(torch.tensor(USUAL)).mix(low, randn(low.shape[1:], chance, device=device))
    text = torch.zeros(len(small), 1, model.config.cross_attention_dim, device=device)
    labels = torch.full((len(small),), USUAL, device=device)

    def denoise(x: Tensor, level: Level) -> Tensor:
        given = torch.cat([x, low], dim=1)
        v = model(given, schedule.time(level).to(device), text, class_labels=labels).sample
        return parameterisation.to_x0(v, x, level, "v")

    x = randn(low.shape[1:], chance, device=device)
    levels = levels_for(schedule, steps, "trailing")
    *_, last = samplers.dpmpp_2m(denoise, x, levels, noise=lambda: randn(low.shape[1:], chance))
    return autoencoder.to_uint8(vae.decode(last.x / vae.config.scaling_factor).sample)


class _Upscaling:
    """The loss of a step. It reads no caption: its condition is the small picture, its text a zero token."""

    def __init__(self, model: UNet2DConditionModel, scaling: float, run: Run, text_width: int) -> None:
        self.model, self.scaling, self.run = run.compiled(model), scaling, run
        found = list(takewhile(Path.exists, (_shard(run.out, f) for f in range(0, run.scale.large, SHARD))))
        if not found:
            raise InputError("There was no time to render a large picture.", "Give the stage more minutes.")
        shards = [load_file(path, device=run.device) for path in found]
        tables = {name: torch.cat([shard[name] for shard in shards]) for name in shards[0]}
        self.mean, self.std, self.small = tables["mean"], tables["std"], tables["small"]
        self.no_text = torch.zeros(1, 1, text_width, device=run.device)
        self.levels = schedules.scaled_linear(TIMES).levels(torch.arange(TIMES).double()).to(run.device)

    def __call__(self, step: int) -> Tensor:
        generator = self.run.generator("upscaler", step)
        batch, device = self.run.scale.fit_upscaler.batch, self.mean.device
        x0, low = self._squares(batch, generator)
        eps, blur = (torch.randn(x0.shape, generator=generator, device=device) for _ in range(2))
        noise = torch.randint(NOISE_LEVELS, (batch,), generator=generator, device=device)
        t = denoiser.spread_times(batch, generator, device)
        level, low_level = (Level(self.levels.alpha[s], self.levels.sigma[s]) for s in (t, noise))
        given = torch.cat([level.mix(x0, eps), low_level.mix(low, blur)], dim=1)  # (B, 8, h, w)
        given = given.contiguous(memory_format=torch.channels_last)
        text = self.no_text.expand(batch, -1, -1)
        with denoiser.plain_attention(self.run.device):
            predicted = self.model(given, t, text, class_labels=noise).sample
        return parameterisation.loss(predicted, x0, eps, level, "v", weighting="min_snr").mean()

    def _squares(self, batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Scaled latents of random squares, and of the same seen small: both (B, 4, h, w), h the toybox's."""
        device, side = self.mean.device, SIZE // 8
        index = torch.randint(len(self.mean), (batch,), generator=generator, device=device)
        room = self.small.shape[-1] - side // FACTOR + 1
        corner = torch.randint(room, (2, batch), generator=generator, device=device)
        mean, std = (_cut(table, index, FACTOR * corner, side) for table in (self.mean, self.std))
        noise = torch.randn(mean.shape, generator=generator, device=device)
        small = _cut(self.small, index, corner, side // FACTOR)
        return self.scaling * (mean + std * noise), _repeated(self.scaling * small)


def _cut(table: Tensor, index: Tensor, corner: Tensor, side: int) -> Tensor:
    """Squares (B, 4, side, side) of the chosen rows of `table` (N, 4, h, w), from `corner` (2, B) on."""
    offset = torch.arange(side, device=table.device)
    rows, columns = (offset + of[:, None] for of in corner)  # (B, side) each
    chosen = table[index[:, None, None], :, rows[:, :, None], columns[:, None, :]]  # (B, side, side, 4)
    return chosen.permute(0, 3, 1, 2).float()


def _repeated(latents: Tensor) -> Tensor:
    return functional.interpolate(latents, scale_factor=FACTOR, mode="nearest")


def _large(run: Run, seeds: list[int]) -> Tensor:
    return _drawn(pictures.scenes(run, seeds), run.device)


def _drawn(scenes: Sequence[Scene], device: str) -> Tensor:
    """(B, 3, 2 SIZE, 2 SIZE) uint8 on the device."""
    step = pictures.RENDER_BATCH[device]
    parts = [
        render(scenes[i : i + step], size=FACTOR * SIZE, device=device).pixels
        for i in range(0, len(scenes), step)
    ]
    return torch.cat(parts).mul(255.0).round().to(torch.uint8)


@torch.no_grad()
def _encoded(vae: AutoencoderKL, pixels: Tensor, run: Run) -> dict[str, Tensor]:
    """Unscaled posteriors of the large pictures, and the modes of their halves: float16 on the CPU."""
    x = pixels.float() / 127.5 - 1.0
    with run.autocast():
        large = [vae.encode(part).latent_dist for part in x.split(8)]
        small = vae.encode(functional.interpolate(x, scale_factor=1 / FACTOR, mode="area")).latent_dist.mode()
    mean, std = (torch.cat([getattr(one, name) for one in large]) for name in ("mean", "std"))
    found = {"mean": mean, "std": std, "small": small}
    return {name: tensor.half().cpu().contiguous() for name, tensor in found.items()}


def _shard(out: Path, first: int) -> Path:
    """Named by the autoencoder's weights too: another one has other latents."""
    weights = autoencoder.folder(out) / "diffusion_pytorch_model.safetensors"
    return out / f"large-{sha256(weights)[:12]}" / f"{first:07d}.safetensors"
