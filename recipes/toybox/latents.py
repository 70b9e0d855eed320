"""Stage `latents`: the posterior of every picture, encoded once, so that the denoiser never runs the
autoencoder.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from recipes.toybox import autoencoder, pictures
from recipes.toybox.loop import Run
from scumble.core.files import atomic_path


def stage(run: Run) -> None:
    """Encode the rendered pictures, and their mirror images where the scale says so, and write means and
    standard deviations in half precision.
    """
    pixels = pictures.load(run)
    model = autoencoder.load(run.out, run.device)
    means, stds = zip(
        *(posterior(model, pixels, part, run) for part in torch.arange(len(pixels)).split(64)), strict=True
    )
    with atomic_path(path(run.out)) as temporary:
        save_file({"mean": torch.cat(means), "std": torch.cat(stds)}, temporary)
    print(f"latents of {len(pixels)} pictures", flush=True)


def path(out: Path) -> Path:
    return out / "latents.safetensors"


def load(run: Run) -> tuple[Tensor, Tensor]:
    """Means and standard deviations, unscaled: (N, V, 4, h, w) float16 each, V views: as it is, and
    mirrored.
    """
    tensors = load_file(path(run.out), device=run.device)
    return tensors["mean"], tensors["std"]


@torch.no_grad()
def posterior(
    model: autoencoder.AutoencoderKL, pixels: Tensor, index: Tensor, run: Run
) -> tuple[Tensor, Tensor]:
    """Means and standard deviations of the latents of the chosen pictures (N, 3, SIZE, SIZE) uint8, unscaled:
    (B, V, 4, h, w) float16 each, on the CPU.
    """
    x = pictures.pick(pixels, index.to(pixels.device))
    with run.autocast():
        both = [model.encode(view).latent_dist for view in ([x, x.flip(-1)] if run.scale.mirrored else [x])]
    mean = torch.stack([posterior.mean for posterior in both], dim=1)  # (B, V, 4, h, w)
    std = torch.stack([posterior.std for posterior in both], dim=1)
    return mean.half().cpu(), std.half().cpu()
