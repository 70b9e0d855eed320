"""Stage `instruct`: the editing denoiser (Brooks et al. 2022), which also sees the picture to edit and reads
what to do to it.

It starts from the trained denoiser, whose first convolution gets four more channels with weights of zero
(their section 3.2), and learns from exact pairs: the latents of the picture before as they are, unscaled, at
their mode; those of the picture after as what is noised. One draw an example leaves out the words, the
picture, or both, 5 % each. The denoiser's text encoder learns on with it, since captions taught it no
instructions (theirs stays as it was); the autoencoder is that of the toybox.
"""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import CLIPTextModel

from recipes.toybox import autoencoder, card, clip, denoiser, edits, latents
from recipes.toybox.autoencoder import LATENT_CHANNELS
from recipes.toybox.denoiser import TIMES
from recipes.toybox.loop import Player, Run, train
from recipes.toybox.scales import MAX_TOKENS
from scumble.adapters.conv_in import widen
from scumble.core.files import atomic_path, sha256
from scumble.diffusion import parameterisation, schedules
from scumble.diffusion.levels import Level

DROPPED = 0.05
"""Share of examples without words; as many are without the picture, and as many without either."""


def stage(run: Run) -> None:
    """Train the editing denoiser and its text encoder and write both in half precision."""
    model = load(run.start, run.device) if run.start else widened(run)
    begin = text_folder(run.start) if run.start else denoiser.text_folder(run.out)
    text = denoiser.learner(denoiser.read_text(begin), run.device)
    scaling = autoencoder.load(run.out).config.scaling_factor
    loss = _Editing(model, text, scaling, run)
    fit = run.scale.fit_instruct
    train("instruct", [Player(network=nn.ModuleList([model, text]), loss=loss)], run.fit(fit), run)
    card.record(run.out, "instruct", run.facts("instruct", fit) | {"pairs": len(loss.after)})
    denoiser.write(model, folder(run.out))
    clip.save(text, text_folder(run.out))


def folder(out: Path) -> Path:
    return out / "unet_instruct"


def text_folder(out: Path) -> Path:
    return out / "text_encoder_instruct"


def load(out: Path, device: str = "cpu") -> UNet2DConditionModel:
    """The editing denoiser in single precision, in evaluation mode."""
    return denoiser.read(folder(out), device)


def widened(run: Run) -> UNet2DConditionModel:
    """The trained denoiser with channels for the picture, which it does not see yet."""
    model = denoiser.load(run.out)
    widen(model, LATENT_CHANNELS)
    return model.to(run.device, memory_format=torch.channels_last)


def encoded(run: Run) -> tuple[Tensor, Tensor]:
    """Means and standard deviations of the after-pictures' latents, unscaled: (N, V, 4, h, w) float16 each.

    Every shard is encoded once for each autoencoder.
    """
    model = autoencoder.load(run.out, run.device)
    weights = autoencoder.folder(run.out) / "diffusion_pytorch_model.safetensors"
    place = run.out / f"edit_latents-{sha256(weights)[:12]}"
    tables: list[dict[str, Tensor]] = []
    for shard in edits.shards(run):
        path = place / f"{shard.stem}-{2 if run.scale.mirrored else 1}.safetensors"
        if not path.exists():
            pixels = edits.load(shard, run.device)
            parts = [latents.posterior(model, pixels, i, run) for i in torch.arange(len(pixels)).split(64)]
            mean, std = (torch.cat(column) for column in zip(*parts, strict=True))
            with atomic_path(path) as temporary:
                save_file({"mean": mean, "std": std}, temporary)
        tables.append(load_file(path, device=run.device))
    return torch.cat([t["mean"] for t in tables]), torch.cat([t["std"] for t in tables])


class _Editing:
    """The loss of a step (their equation 2); everything is drawn from the step's generator."""

    def __init__(self, model: UNet2DConditionModel, text: CLIPTextModel, scaling: float, run: Run) -> None:
        self.model, self.text = run.compiled(model), text
        self.scaling, self.run = scaling, run
        before, _ = latents.load(run)
        after, std = encoded(run)
        numbers = torch.tensor(edits.sources(run.scale)[: len(after)])
        numbers = numbers[numbers < len(before)]
        count = len(numbers)
        self.before, self.after, self.std = before[numbers.to(before.device)], after[:count], std[:count]
        self.ids = edits.instructions(run, count)
        self.padding = int(self.ids[0, 0, -1])
        self.levels = schedules.scaled_linear(TIMES).levels(torch.arange(TIMES).double()).to(run.device)

    def __call__(self, step: int) -> Tensor:
        generator = self.run.generator("instruct", step)
        batch, device = self.run.scale.fit_instruct.batch, self.after.device
        index = torch.randint(len(self.after), (batch,), generator=generator, device=device)
        view = torch.randint(self.after.shape[1], (batch,), generator=generator, device=device)
        before, after, std = (t[index, view].float() for t in (self.before, self.after, self.std))
        noise, eps = (torch.randn(after.shape, generator=generator, device=device) for _ in range(2))
        x0 = self.scaling * (after + std * noise)
        left_out = torch.rand(batch, generator=generator, device=device)
        t = denoiser.spread_times(batch, generator, device)
        level = Level(self.levels.alpha[t], self.levels.sigma[t])
        seen = (left_out < DROPPED) | (left_out >= 3 * DROPPED)
        given = torch.cat([level.mix(x0, eps), before * seen[:, None, None, None]], dim=1)  # (B, 8, h, w)
        given = given.contiguous(memory_format=torch.channels_last)
        condition = self._condition(index, left_out < 2 * DROPPED, generator)
        with denoiser.plain_attention(self.run.device):
            predicted = self.model(given, t, condition).sample
        return parameterisation.loss(predicted, x0, eps, level, "eps", weighting="min_snr").mean()

    def _condition(self, index: Tensor, untold: Tensor, generator: torch.Generator) -> Tensor:
        wording = torch.randint(self.ids.shape[1], index.shape, generator=generator, device=index.device)
        ids = torch.full((len(index), MAX_TOKENS), self.padding, device=index.device)
        ids[:, : self.ids.shape[-1]] = self.ids[index, wording].long()
        ids[untold, 1:] = self.padding
        return self.text(ids).last_hidden_state  # (B, 77, D)
