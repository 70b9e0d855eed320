"""Stage `features`: a small convolutional classifier whose hidden layers compare pictures as the eye does.

The autoencoder's perceptual loss is the distance of unit-length features at each layer (Zhang et al. 2018,
"The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", without learnt weights per
channel).
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from recipes.toybox import augment, labels, pictures
from recipes.toybox.loop import Player, Run, train
from scumble.core.files import atomic_path

WIDTHS = (32, 64, 128, 192)


class Perception(nn.Module):
    """Four strided blocks and a linear layer for each heading of `labels`."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, *WIDTHS)
        self.blocks = nn.ModuleList(_block(a, b) for a, b in zip(widths, WIDTHS, strict=False))
        self.heads = nn.ModuleDict(
            {name: nn.Linear(WIDTHS[-1], len(c)) for name, c in labels.CLASSES.items()}
        )

    def features(self, x: Tensor) -> list[Tensor]:
        """The output of each block for pictures (B, 3, H, W) in [-1, 1]; H and W are halved by each."""
        layers = []
        for block in self.blocks:
            x = block(x)
            layers.append(x)
        return layers

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        pooled = self.features(x)[-1].mean((2, 3))
        return {name: head(pooled) for name, head in self.heads.items()}

    def distance(self, a: Tensor, b: Tensor) -> Tensor:
        """Mean over layers of the squared distance between unit-length features; a scalar."""
        pairs = zip(self.features(a), self.features(b), strict=True)
        return sum((_unit(x) - _unit(y)).square().sum(1).mean() for x, y in pairs) / len(self.blocks)


def stage(run: Run) -> None:
    """Train the classifier and write it in half precision."""
    pixels = pictures.load(run)
    classes = {
        name: c.to(run.device) for name, c in labels.of(pictures.scenes(run, range(len(pixels)))).items()
    }
    fit = run.fit(run.scale.fit_features)
    model = load(run.start, run.device) if run.start else _build(run.device)
    forward = run.compiled(model)

    def loss(step: int) -> Tensor:
        generator = run.generator("features", step)
        index = torch.randint(len(pixels), (fit.batch,), generator=generator, device=run.device)
        logits = forward(augment.crop(pictures.pick(pixels, index), generator))
        return sum(
            functional.cross_entropy(logits[name].float(), known[index]) for name, known in classes.items()
        )

    train("features", [Player(network=model, loss=loss)], fit, run)
    with atomic_path(_path(run.out)) as temporary:
        save_file({name: value.half() for name, value in model.state_dict().items()}, temporary)


def load(out: Path, device: str) -> Perception:
    """The classifier in single precision, frozen."""
    model = Perception().to(device)
    model.load_state_dict(load_file(_path(out), device=device))
    return model.eval().requires_grad_(requires_grad=False)


def _build(device: str) -> Perception:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        return Perception().to(device)


def _block(channels_in: int, channels_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, 2, 1),
        nn.GroupNorm(8, channels_out),
        nn.ReLU(),
        nn.Conv2d(channels_out, channels_out, 3, 1, 1),
        nn.ReLU(),
    )


def _unit(x: Tensor) -> Tensor:
    return functional.normalize(x.float(), dim=1, eps=1e-6)


def _path(out: Path) -> Path:
    return out / "features.safetensors"
