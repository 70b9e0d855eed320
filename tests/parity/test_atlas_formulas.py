"""The losses of layered neural atlases beside their formulas, and the networks as the paper has them."""

from __future__ import annotations

from math import cos, sin, sqrt
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from scumble.core.errors import InputError
from scumble.models import atlas_losses as losses
from scumble.models.atlas import CHUNK, Atlas, Layout, Mlp, Pyramid, layer_weights
from scumble.models.atlas_file import layer_names
from scumble.models.atlas_sheets import seen_weights


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


# Losses


def test_losses_are_their_formulas() -> None:
    found, true = noise(5, 3), noise(5, 3, seed=1)
    expected = np.mean([((a - b) ** 2).sum() for a, b in zip(found.numpy(), true.numpy(), strict=True)])
    assert float(losses.colour(found, true)) == pytest.approx(expected, rel=1e-5)
    steps, inside = noise(2, 5, 3, seed=2), torch.tensor([[1.0, 1, 1, 0, 1], [1, 1, 1, 1, 0]])
    total = 0.0
    for axis in range(2):
        for place in range(5):
            if inside[axis, place]:
                total += float(((noise(2, 5, 3)[axis, place] - steps[axis, place]) ** 2).sum())
    assert float(losses.gradient(noise(2, 5, 3), steps, inside)) == pytest.approx(total / 5, rel=1e-5)
    opacity = noise(5, seed=3)
    expected = np.mean(
        [(1 - float(a)) ** 2 * float((c**2).sum()) for a, c in zip(opacity, found, strict=True)]
    )
    assert float(losses.sparsity(opacity, found)) == pytest.approx(expected, rel=1e-5)
    masks = (noise(5, 1, seed=4) > 0.5).float()
    a = opacity[:, None].numpy()
    expected = -np.mean(masks.numpy() * np.log(a) + (1 - masks.numpy()) * np.log(1 - a))
    assert float(losses.bootstrapping(opacity[:, None], masks)) == pytest.approx(expected, rel=1e-4)
    assert float(losses.gain(torch.tensor([0.1, -0.3]))) == pytest.approx(0.05, rel=1e-5)


def test_flow_losses() -> None:
    uv, there, weight = noise(1, 4, 2), noise(1, 4, 2, seed=1), torch.tensor([[1.0, 0.5, 0, 0.25]])
    distances = np.sqrt(((uv - there).numpy()[0] ** 2).sum(-1))
    trusted = torch.tensor([[1.0, 1, 0, 0]])
    expected = (weight.numpy()[0] * distances)[:2].mean() * 30
    assert float(losses.flow(uv, there, weight, trusted, 30.0)) == pytest.approx(expected, rel=1e-4)
    assert float(losses.flow(uv, there, weight, torch.zeros(1, 4), 30.0)) == 0
    assert float(losses.placing(uv, there)) == pytest.approx(distances.mean(), rel=1e-4)
    opacity = noise(1, 4, 1, seed=2)
    expected = float((opacity - 0.5).abs()[0, :2].sum()) / 2
    assert float(losses.flow_opacity(opacity, torch.full((1, 4, 1), 0.5), trusted)) == pytest.approx(expected)


def test_rigidity_is_least_for_turns_and_by_a_solver_the_same() -> None:
    jacobians = torch.randn(6, 2, 2, generator=torch.Generator().manual_seed(0))
    expected = []
    for j in jacobians.double().numpy():
        square = j.T @ j + 1e-3 * np.eye(2)
        expected.append(np.linalg.norm(square) + np.linalg.norm(np.linalg.inv(square)))
    assert float(losses.rigidity(jacobians)) == pytest.approx(np.mean(expected), rel=1e-3)
    turn = torch.tensor([[cos(0.3), -sin(0.3)], [sin(0.3), cos(0.3)]])
    least = float(losses.rigidity(turn[None]))
    assert least == pytest.approx(2 * sqrt(2), rel=1e-3)
    for other in (1.2 * turn, turn @ torch.tensor([[1.0, 0.2], [0, 1]])):
        assert float(losses.rigidity(other[None])) > least + 1e-3


def test_a_jacobian_is_one_for_a_map_of_that_scale() -> None:
    xy, step = noise(1, 5, 2), 0.05
    ends = [0.7 * (xy + xy.new_tensor(shift)) for shift in ((0.0, 0.0), (step, 0.0), (0.0, step))]
    assert_close(losses.jacobian(ends, step, 0.7), torch.eye(2).expand(1, 5, 2, 2), rtol=0, atol=1e-4)


# Networks


def test_weights_of_layers() -> None:
    opacity = torch.tensor([[0.2, 0.5], [1.0, 0.3], [0.0, 1.0]])
    expected = torch.tensor([[0.2, 0.4, 0.4], [1.0, 0, 0], [0, 1.0, 0]])
    assert_close(layer_weights(opacity), expected)
    assert torch.equal(seen_weights(torch.tensor([[0.015], [0.985]])), torch.tensor([[0.0, 1], [1, 0]]))


def test_the_papers_networks() -> None:
    """Layers, widths and skips as in the paper's section 3.1 and its code; one colour network for both."""
    atlas = Atlas(Layout(frames=CHUNK + 5, height=32, width=48, form="faithful"))
    assert len(atlas.colours) == 1
    assert atlas.chunks == 2

    def shapes(network: Any) -> list[tuple[int, int]]:
        return [(layer.in_features, layer.out_features) for layer in network.linear]

    assert shapes(atlas.mappings[0].get_submodule("0")) == [(3, 256), *[(256, 256)] * 4, (256, 2)]
    assert shapes(atlas.mappings[1].get_submodule("1")) == [(3, 256), *[(256, 256)] * 2, (256, 2)]
    assert shapes(atlas.opacities[0].get_submodule("0")) == [(30, 256), *[(256, 256)] * 6, (256, 1)]
    wide = (256 + 40, 256)
    assert shapes(atlas.colours[0]) == [(40, 256), *[(256, 256)] * 2, wide, *[(256, 256)] * 2, wide, (256, 3)]


def test_frames_of_several_chunks_keep_their_order() -> None:
    atlas = Atlas(Layout(frames=2 * CHUNK, height=8, width=8, form="faithful"))
    places, frames = noise(3, 5, 2) * 2 - 1, [CHUNK + 1, 0, CHUNK + 7]
    together = atlas.uv(0, frames, places)
    for row, frame in enumerate(frames):
        assert_close(together[row : row + 1], atlas.uv(0, [frame], places[row : row + 1]))
    assert (together[0] - atlas.uv(0, [1], places[:1])[0]).abs().max() > 1e-4  # another chunk, other networks


def test_encoding_and_pyramid() -> None:
    places = noise(4, 1) * 2 - 1
    network = Mlp(1, 1, layers=1, frequencies=2)
    found = network._encoded(places)
    x = places.numpy()
    expected = np.concatenate(
        [np.sin(np.pi * x), np.sin(2 * np.pi * x), np.cos(np.pi * x), np.cos(2 * np.pi * x)], 1
    )
    assert_close(found, torch.tensor(expected), rtol=0, atol=1e-5)
    pyramid = Pyramid(1, 1, [(2, 2), (3, 3)])
    with torch.no_grad():
        pyramid.levels[0].copy_(torch.tensor([[[[0.0, 2], [0, 2]]]]))  # x + 1
        pyramid.levels[1].fill_(0.5)
    at = torch.tensor([[[-1.0, 0.3], [0.0, 0.0], [0.5, -1.0], [4.0, 0.0]]])
    assert_close(pyramid(at)[0, :, 0], torch.tensor([0.5, 1.5, 2.0, 2.5]))  # beyond the edge it goes on


def test_what_is_no_layout() -> None:
    for wrong in ({"frames": 1}, {"foregrounds": 4}, {"form": "flat"}):
        with pytest.raises(InputError):
            Layout(**({"frames": 2, "height": 8, "width": 8} | wrong))
    assert layer_names(1) == ["foreground", "background"]
    assert layer_names(2) == ["foreground-1", "foreground-2", "background"]
    layout = Layout(frames=2, height=10, width=20)
    xy = layout.pixel_centres(10, 20)
    assert xy[0].tolist() == pytest.approx([-0.95, -0.45])
    assert xy[-1].tolist() == pytest.approx([0.95, 0.45])
