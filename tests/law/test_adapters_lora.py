"""Low-rank layers: nothing at the start, exact as a merged change, gone afterwards."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from learnt import digests, learnt, output, tiny_model
from scumble.adapters import lora
from scumble.adapters.attach import attach
from scumble.core.errors import ConfigError, WeightsError
from scumble.models.model import Model

EVERYTHING = (
    *lora.ATTENTION,
    *lora.TEXT_ATTENTION,
    "unet.*.conv1",
    "unet.conv_in",
    "unet.*.downsamplers.0.conv",
)


def moved(layers: lora.LowRankLayers) -> None:
    """As if something had been learnt."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in layers.named_parameters().values():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_at_the_start_nothing_is_changed_and_afterwards_nothing_is_left(family: str, dtype: str) -> None:
    model = tiny_model(family, dtype)
    before = digests(model)
    found = lora.find_layers(model, EVERYTHING)
    with torch.no_grad():
        plain = output(model)
        with lora.low_rank(found, rank=2) as layers:
            assert torch.equal(output(model), plain)
            moved(layers)
            assert not torch.equal(output(model), plain)
        assert torch.equal(output(model), plain)
    assert digests(model) == before
    assert len(found) > 20


def test_dora_changes_rounding_only_at_the_start() -> None:
    model = tiny_model()
    with torch.no_grad():
        plain = output(model)
        with lora.low_rank(lora.find_layers(model, EVERYTHING), rank=2, dora=True):
            torch.testing.assert_close(output(model), plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_live_layers_equal_the_merged_change(family: str, dora: bool) -> None:
    model = tiny_model(family)
    with torch.no_grad():
        plain = output(model)
        with lora.low_rank(lora.find_layers(model, EVERYTHING), rank=3, alpha=5.0, dora=dora) as layers:
            moved(layers)
            live = output(model)
            weights = replace(learnt(model), words={}, changes=layers.changes())
        with attach(model, weights):
            torch.testing.assert_close(output(model), live, rtol=1e-4, atol=1e-5)
    assert (plain - live).abs().max() > 1e-2


@pytest.mark.parametrize("dora", [False, True])
def test_only_the_small_matrices_get_gradients(dora: bool) -> None:
    model = tiny_model()
    with lora.low_rank(lora.find_layers(model, lora.CROSS_ATTENTION), rank=2, dora=dora) as layers:
        moved(layers)
        output(model).square().sum().backward()
        named = layers.named_parameters()
    assert all(name.rsplit(".", 1)[1] in ("a", "b", "magnitude") for name in named)
    assert len(named) == (3 if dora else 2) * len(layers.layers)
    for parameter in named.values():
        assert parameter.dtype == torch.float32
        assert parameter.grad is not None
        assert parameter.grad.abs().max() > 0
    assert all(p.grad is None for module in model.parts().values() for p in module.parameters())


def test_the_start_depends_on_seed_and_name_only() -> None:
    model = tiny_model()
    few = lora.find_layers(model, ["unet.mid_block.*.attn2.to_k"])
    many = lora.find_layers(model, lora.ATTENTION)
    with lora.low_rank(few, rank=2, seed=1) as a, lora.low_rank(many, rank=2, seed=1) as b:
        [name] = a.changes()
        assert torch.equal(a.changes()[name].a, b.changes()[name].a)
        with lora.low_rank(few, rank=2, seed=2) as c:
            assert not torch.equal(a.changes()[name].a, c.changes()[name].a)
        others = [change.a for other, change in b.changes().items() if other.endswith("attn2.to_k.weight")]
        assert not torch.equal(others[0], others[1])


@pytest.mark.parametrize("dora", [False, True])
def test_it_goes_on_from_what_it_gave(dora: bool) -> None:
    model = tiny_model()
    found = lora.find_layers(model, lora.CROSS_ATTENTION)
    with torch.no_grad():
        with lora.low_rank(found, rank=2, dora=dora) as layers:
            moved(layers)
            live, changes = output(model), layers.changes()
        with lora.low_rank(found, rank=2, dora=dora, seed=9) as layers:
            layers.load(changes)
            assert torch.equal(output(model), live)
    for rank, alpha, kind in ((3, 2.0, dora), (2, 1.0, dora), (2, 2.0, not dora)):
        with (
            lora.low_rank(found, rank=rank, alpha=alpha, dora=kind) as layers,
            pytest.raises(WeightsError, match="go on"),
        ):
            layers.load(changes)
    with lora.low_rank(dict(list(found.items())[:1]), rank=2, dora=dora) as layers:
        with pytest.raises(WeightsError, match="has no parameter"):
            layers.load(changes)
        with pytest.raises(WeightsError, match="has no parameter"):
            layers.load({})


def test_layers_are_found_by_name_and_type() -> None:
    model = tiny_model("sdxl")
    cross = lora.find_layers(model, lora.CROSS_ATTENTION)
    assert len(cross) == 4 * 8
    assert set(cross) < set(lora.find_layers(model, lora.ATTENTION))
    text = lora.find_layers(model, lora.TEXT_ATTENTION)
    assert {name.split(".")[0] for name in text} == {"text_encoder", "text_encoder_2"}
    assert not any("text_model" in name for name in text)
    linear = lora.find_layers(model, ["unet.*"], kinds=(torch.nn.Linear,))
    assert all(isinstance(layer, torch.nn.Linear) for layer in linear.values())
    with pytest.raises(ConfigError, match=r"No layer of .* is called 'unet\.\*\.to_x'"):
        lora.find_layers(model, ["unet.*.to_x"])


@pytest.mark.parametrize("rank", [0, 33])
def test_a_rank_that_does_not_fit_is_refused(rank: int) -> None:
    model: Model = tiny_model()
    found = lora.find_layers(model, ["unet.mid_block.*.attn1.to_q"])
    with pytest.raises(ConfigError, match=f"rank cannot be {rank}"), lora.low_rank(found, rank=rank):
        pytest.fail("must be refused")
