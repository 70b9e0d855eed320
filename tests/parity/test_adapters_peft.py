"""Low-rank changes, DoRA among them, equal peft's on the same matrices."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import nn

from learnt import noise
from scumble.adapters.changes import LowRank
from scumble.adapters.lora import LowRankLayers, low_rank


def network() -> nn.ModuleDict:
    linear, conv, bare = nn.Linear(6, 5), nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.Linear(6, 5, bias=False)
    network = nn.ModuleDict({"linear": linear, "conv": conv, "bare": bare})
    for index, parameter in enumerate(network.parameters()):
        parameter.data = noise(*parameter.shape, seed=index)
    return network.requires_grad_(False)


INPUTS = {"linear": noise(2, 7, 6, seed=90), "conv": noise(2, 3, 8, 8, seed=91), "bare": noise(2, 6, seed=92)}


def theirs(dora: bool, change: dict[str, LowRank]) -> Any:
    config = LoraConfig(r=2, lora_alpha=5, target_modules=["linear", "conv", "bare"], use_dora=dora)
    model = inject_adapter_in_model(config, network())
    for name, layer in model.items():
        learnt = change[f"{name}.weight"]
        layer.lora_A["default"].weight.data = learnt.a.clone()
        b = layer.lora_B["default"].weight
        b.data = learnt.b.reshape(b.shape).clone()
        if dora and learnt.magnitude is not None:
            magnitude = layer.lora_magnitude_vector["default"].weight
            magnitude.data = learnt.magnitude.reshape(magnitude.shape).clone()
    return model


def moved(layers: LowRankLayers) -> None:
    for index, parameter in enumerate(layers.named_parameters().values()):
        parameter.data += 0.3 * noise(*parameter.shape, seed=40 + index)


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("name", list(INPUTS))
def test_outputs_and_merged_weights_equal(name: str, dora: bool) -> None:
    ours = network()
    plain = ours[name](INPUTS[name])
    with low_rank(dict(ours.items()), rank=2, alpha=5.0, dora=dora) as layers:
        moved(layers)
        changes = layers.changes()
        live = ours[name](INPUTS[name])
    other = theirs(dora, changes)
    torch.testing.assert_close(live, other[name](INPUTS[name]))
    assert (live - plain).abs().max() > 0.1
    other[name].merge()
    weight = ours[name].weight
    torch.testing.assert_close(
        weight + changes[f"{name}.weight"].against(weight), other[name].base_layer.weight
    )


@pytest.mark.parametrize("dora", [False, True])
def test_gradients_equal(dora: bool) -> None:
    ours = network()
    with low_rank(dict(ours.items()), rank=2, alpha=5.0, dora=dora) as layers:
        moved(layers)
        sum(ours[name](x).square().sum() for name, x in INPUTS.items()).backward()
        other = theirs(dora, layers.changes())
        sum(other[name](x).square().sum() for name, x in INPUTS.items()).backward()
    for name, layer in other.items():
        mine = layers.layers[f"{name}.weight"]
        pairs = [(mine.a.grad, layer.lora_A["default"].weight), (mine.b.grad, layer.lora_B["default"].weight)]
        if mine.magnitude is not None:
            pairs.append((mine.magnitude.grad, layer.lora_magnitude_vector["default"].weight))
        for gradient, parameter in pairs:
            torch.testing.assert_close(gradient, parameter.grad.reshape(gradient.shape), rtol=1e-5, atol=1e-5)
