"""Stage `decoder`: the second half of the autoencoder alone, trained further.

The code of a picture stays what it was, so the denoiser, and whatever was learnt with it, fit as before; only
the way from the code to pixels gets better. It is a stage of its own because it costs half of what both
halves do, and can be repeated at any time.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from recipes.toybox import autoencoder, card, latents, pictures
from recipes.toybox.loop import Player, Run, train


def stage(run: Run) -> None:
    """Train the decoder on the rendered pictures and their codes, and write the autoencoder again."""
    model = autoencoder.load(run.out, run.device).requires_grad_(requires_grad=False)
    half = nn.Sequential(model.post_quant_conv, model.decoder).requires_grad_()
    train("decoder", [Player(network=half, loss=_Decoding(half, run))], run.fit(run.scale.fit_decoder), run)
    autoencoder.save(model, run.out)
    facts = run.facts("decoder", run.scale.fit_decoder)
    card.record(run.out, "decoder", facts | autoencoder.scores(model, run))


class _Decoding:
    """The loss of a step: pixels and differences of neighbours, as in the stage `autoencoder`."""

    def __init__(self, half: nn.Sequential, run: Run) -> None:
        self.decode, self.run = run.compiled(half), run
        self.pixels = pictures.load(run)
        self.mean, self.std = latents.load(run)

    def __call__(self, step: int) -> Tensor:
        generator = self.run.generator("decoder", step)
        batch, device = self.run.scale.fit_decoder.batch, self.pixels.device
        index = torch.randint(len(self.mean), (batch,), generator=generator, device=device)
        x = pictures.pick(self.pixels, index)  # (B, 3, H, W)
        mean, std = (table[index, 0].float() for table in (self.mean, self.std))  # (B, 4, h, w)
        z = mean + std * torch.randn(mean.shape, generator=generator, device=device)
        y = self.decode(z.contiguous(memory_format=torch.channels_last)).float()
        edges = autoencoder.EDGE_WEIGHT * autoencoder.edge_error(y, x)
        return functional.l1_loss(y, x) + functional.mse_loss(y, x) + edges
