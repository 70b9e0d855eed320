"""LPIPS (Zhang et al. 2018, "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric"): the
distance between pictures in the features of an image classifier, weighted channel by channel as people judge.

Equation 1: d(x, y) = sum over layers of the mean over positions of ||w (f(x) - f(y))||^2, the features f of
length one at each position. Differences of features are squared and then weighted by the learnt heads.

The weights are not ours to ship. A person who wants the metric makes a folder of two files: the classifier's
(torchvision's `alexnet-owt-7be5be79.pth` or `vgg16-397923af.pth`, from download.pytorch.org/models) and the
heads (`alex.pth` or `vgg.pth`, from lpips/weights/v0.1 of github.com/richzhang/PerceptualSimilarity). Both
are pickles, so loading them needs to be allowed once; `.safetensors` of the same tensors load as they are,
and where two such files lie in `lpips` in scumble's data folder, `present` finds them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, normalize

from scumble.core.errors import ModelError
from scumble.core.places import data_folder
from scumble.models.components import load_state
from scumble.models.tensors import read_tensors

__all__ = ["NETWORKS", "Backbone", "Lpips", "load_lpips", "present"]

SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""ImageNet's mean and deviation for pixels in [-1, 1], as the heads were learnt with."""
SMALLEST = 32
"""Pixels of the shorter side that the classifiers need."""
HINT = "See `scumble.models.lpips` for the two files and where they come from."


@dataclass(frozen=True, slots=True)
class Backbone:
    """The convolutions of a classifier: blocks whose last activations are compared."""

    blocks: tuple[tuple[nn.Module, ...], ...]
    channels: tuple[int, ...]


def _alex() -> Backbone:
    """AlexNet (Krizhevsky 2014, "One weird trick"), as torchvision has it."""

    def conv(a: int, b: int, kernel: int, padding: int, stride: int = 1) -> tuple[nn.Module, nn.Module]:
        return nn.Conv2d(a, b, kernel, stride, padding), nn.ReLU()

    blocks = (
        conv(3, 64, 11, 2, 4),
        (nn.MaxPool2d(3, 2), *conv(64, 192, 5, 2)),
        (nn.MaxPool2d(3, 2), *conv(192, 384, 3, 1)),
        conv(384, 256, 3, 1),
        conv(256, 256, 3, 1),
    )
    return Backbone(blocks, (64, 192, 384, 256, 256))


def _vgg() -> Backbone:
    """VGG-16 (Simonyan and Zisserman 2014)."""
    channels, depths = (64, 128, 256, 512, 512), (2, 2, 3, 3, 3)
    blocks: list[tuple[nn.Module, ...]] = []
    before = 3
    for width, depth in zip(channels, depths, strict=True):
        block: list[nn.Module] = [nn.MaxPool2d(2)] if blocks else []
        for _ in range(depth):
            block += [nn.Conv2d(before, width, 3, 1, 1), nn.ReLU()]
            before = width
        blocks.append(tuple(block))
    return Backbone(tuple(blocks), channels)


NETWORKS = {"alex": _alex, "vgg": _vgg}
"""Classifiers by the names that the heads' files have. `alex` is what papers report unless they say so."""


class Lpips(nn.Module):
    """Pictures (B, 3, H, W) twice, in [-1, 1], to their distances (B,): 0 for equal ones, about 1 for
    unrelated ones. At least 32 pixels a side.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, name: str) -> None:
        super().__init__()
        backbone = NETWORKS[name]()
        self.features = nn.Sequential(*(layer for block in backbone.blocks for layer in block))
        ends = torch.tensor([len(block) for block in backbone.blocks]).cumsum(0).tolist()
        self.ends = frozenset(end - 1 for end in ends)
        self.heads = nn.ParameterList(torch.zeros(1, width, 1, 1) for width in backbone.channels)
        for name_, values in (("shift", SHIFT), ("scale", SCALE)):
            self.register_buffer(name_, torch.tensor(values).reshape(1, 3, 1, 1), persistent=False)

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        both = (torch.cat([one, other]) - self.shift) / self.scale
        layers = self.activations(both)
        distance = one.new_zeros(len(one))
        for head, layer in zip(self.heads, layers, strict=True):
            x, y = normalize(layer, dim=1, eps=1e-10).chunk(2)
            distance = distance + conv2d((x - y).square(), head).mean((1, 2, 3))
        return distance

    def activations(self, x: Tensor) -> Sequence[Tensor]:
        """The last activations (B, C, h, w) of each block."""
        found: list[Tensor] = []
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in self.ends:
                found.append(x)
        return found


def load_lpips(folder: Path | str, *, device: str = "cpu", trust_pickle: bool = False) -> Lpips:
    """The metric from a folder with the files of one classifier and of its heads, frozen, in float32.

    Which file is which, and of which network, is told by the tensors. Raises ModelError, with where to get
    them, where one is missing, and where one is a pickle that `trust_pickle` does not allow.
    """
    folder = Path(folder).expanduser()
    files = [p for p in sorted(folder.glob("*")) if p.suffix in (".safetensors", ".pth", ".pt", ".bin")]
    states = [read_tensors(file, trust_pickle=trust_pickle) for file in files]
    heads = next((s for s in states if any(name.startswith("lin0.") for name in s)), None)
    features = next((s for s in states if "features.0.weight" in s), None)
    if heads is None or features is None:
        lacking = "the heads" if heads is None else "the classifier"
        raise ModelError(f"{folder} does not hold {lacking} of LPIPS.", HINT)
    name = "alex" if features["features.0.weight"].shape[-1] == 11 else "vgg"
    network = Lpips(name)
    load_state(
        network, _named(features, heads, len(network.heads)), "LPIPS", dtype=torch.float32, device=device
    )
    return network.eval()


def present(*, device: str = "cpu") -> Lpips | None:
    """The metric from `lpips` in scumble's data folder; None where a person has put nothing there."""
    folder = data_folder() / "lpips"
    return load_lpips(folder, device=device) if folder.is_dir() else None


def _named(features: Mapping[str, Tensor], heads: Mapping[str, Tensor], count: int) -> dict[str, Tensor]:
    """Tensors under our names. The classifier's layers, which we keep without its last pooling, have the
    numbers that they have in torchvision; the heads are `linI.model.1.weight`.
    """
    ours = {name: tensor for name, tensor in features.items() if name.startswith("features.")}
    for number in range(count):
        key = f"lin{number}.model.1.weight"
        if key not in heads:
            raise ModelError(f"The heads of LPIPS lack {key}.", HINT)
        ours[f"heads.{number}"] = heads[key]
    return ours
