"""Looking at attention changes nothing; replacing it by itself changes nothing but rounding."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from learnt import digests, output, tiny_model
from scumble.adapters.attention import observe, record, replace_maps, sites
from scumble.core.errors import ModelError
from scumble.models.conditioning import Condition
from scumble.models.model import Model


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl", "ddpm"])
def test_observation_changes_no_bit(family: str) -> None:
    model = tiny_model(family)
    before = digests(model)
    with torch.no_grad():
        plain = output(model, rows=2) if model.text_encoders else pixels(model)
        with record(model) as maps:
            seen = output(model, rows=2) if model.text_encoders else pixels(model)
        assert torch.equal(seen, plain)
        assert torch.equal(output(model, rows=2) if model.text_encoders else pixels(model), plain)
    assert list(maps) != []
    assert set(maps) == {site.name for site in sites(model)}
    for site in sites(model):
        [seen_map] = maps[site.name]
        assert seen_map.shape[:2] == (2, site.heads)
        assert seen_map.shape[3] == (77 if site.cross else seen_map.shape[2])
        torch.testing.assert_close(seen_map.sum(dim=-1), torch.ones(seen_map.shape[:3]))
    assert digests(model) == before


def pixels(model: Model) -> torch.Tensor:
    x = torch.linspace(-1, 1, 2 * 3 * 16 * 16).reshape(2, 3, 16, 16)
    return model.predict(x, torch.tensor(300.0))


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl", "ddpm"])
def test_a_map_replaced_by_itself_changes_rounding_only(family: str) -> None:
    model = tiny_model(family)
    calls: list[str] = []
    processors = [layer.processor for layer in attention_layers(model)]
    with torch.no_grad():
        plain = output(model) if model.text_encoders else pixels(model)
        with replace_maps(model, lambda maps, site: calls.append(site.name) or maps):
            same = output(model) if model.text_encoders else pixels(model)
        torch.testing.assert_close(same, plain, rtol=1e-5, atol=1e-5)
        assert torch.equal(output(model) if model.text_encoders else pixels(model), plain)
    assert sorted(calls) == sorted(site.name for site in sites(model))
    assert [layer.processor for layer in attention_layers(model)] == processors


def attention_layers(model: Model) -> list[Any]:
    return [model.denoiser.get_submodule(site.name) for site in sites(model)]


def test_prompts_of_different_length_are_masked_in_maps_as_in_the_layer() -> None:
    model = tiny_model()
    long = model.prompt([" ".join(["cat"] * 100)])
    both = Condition.cat([model.prompt(["a red dog"]), long])
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        plain = model.predict(x, torch.tensor(300.0), both)
        with record(model, where=lambda site: site.cross) as maps, replace_maps(model, lambda m, _: m):
            torch.testing.assert_close(
                model.predict(x, torch.tensor(300.0), both), plain, rtol=1e-5, atol=1e-5
            )
    assert len(maps) > 1
    for [seen] in maps.values():
        assert seen.shape[3] == 154
        assert (seen[0, :, :, 77:] == 0).all()
        assert (seen[1, :, :, 77:] > 0).any()


def test_only_the_layers_asked_for_are_touched() -> None:
    model = tiny_model()
    found = sites(model)
    assert {site.place for site in found} == {"down", "mid", "up"}
    assert [site.cross for site in found].count(True) == len(found) // 2
    seen: list[str] = []
    with observe(
        model, lambda _, site: seen.append(site.name), where=lambda s: s.place == "mid" and not s.cross
    ):
        output(model)
    assert seen == [site.name for site in found if site.place == "mid" and not site.cross]


def test_a_replaced_map_is_used_and_the_rest_follows_an_exception() -> None:
    model = tiny_model()

    def first_token(maps: torch.Tensor, _: object) -> torch.Tensor:
        return torch.zeros_like(maps).index_fill_(3, torch.tensor([0]), 1.0)

    with torch.no_grad():
        cat, dog = output(model, "a red cat"), output(model, "the blue dog")
        assert (cat - dog).abs().max() > 1e-3
        # The first token is the start marker, which knows nothing of the words after it.
        with replace_maps(model, first_token, where=lambda site: site.cross):
            torch.testing.assert_close(output(model, "a red cat"), output(model, "the blue dog"))
        with pytest.raises(KeyboardInterrupt), replace_maps(model, first_token), observe(model, print):
            raise KeyboardInterrupt
        assert torch.equal(output(model, "a red cat"), cat)


def test_gradients_reach_the_prompt_through_a_recorded_map() -> None:
    model = tiny_model()
    condition = model.prompt(["a red cat"])
    embeddings = condition.embeddings.detach().requires_grad_()
    with record(model, where=lambda site: site.cross and site.place == "mid") as maps:
        model.predict(torch.zeros(1, 4, 8, 8), torch.tensor(300.0), Condition(embeddings))
    [[seen]] = maps.values()
    [gradient] = torch.autograd.grad(seen[..., 1].sum(), [embeddings])
    assert gradient.abs().max() > 0


def test_no_such_layer_is_a_sentence() -> None:
    model = tiny_model("ddpm")
    with pytest.raises(ModelError, match="no attention layer"), record(model, where=lambda site: site.cross):
        pytest.fail("must be refused")
