"""Putting weights in and taking them out: identities that hold to the bit."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace

import pytest
import torch

from learnt import CONV, KEY, QUERY, TEXT, digests, learnt, noise, output, tiny_model
from scumble.adapters.attach import attach
from scumble.adapters.changes import Dense, LowRank, parameters_of, to_dense
from scumble.adapters.weights import Word
from scumble.core.errors import WeightsError


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_leaving_restores_every_tensor_bit_for_bit(family: str, dtype: str) -> None:
    model = tiny_model(family, dtype)
    weights = learnt(model)
    before, objects = digests(model), {n: id(p) for n, p in parameters_of(model).items()}
    places = {n: p.data_ptr() for n, p in parameters_of(model).items()}
    with torch.no_grad():
        plain = output(model, "a <rex> cat")
        with attach(model, (weights, 0.7)):
            inside = digests(model)
            changed = output(model, "a <rex> cat")
        after = output(model, "a <rex> cat")
    assert len([name for name in before if before[name] != inside[name]]) == len(weights.changes)
    assert not torch.equal(plain, changed)
    assert digests(model) == before
    assert torch.equal(plain, after)
    assert model.words == {}
    assert {n: id(p) for n, p in parameters_of(model).items()} == objects
    assert {n: p.data_ptr() for n, p in parameters_of(model).items()} == places


def test_an_exception_inside_restores_too() -> None:
    model = tiny_model()
    before = digests(model)
    with pytest.raises(KeyboardInterrupt), attach(model, learnt(model)):
        raise KeyboardInterrupt
    assert digests(model) == before
    assert model.words == {}


def test_an_exception_while_attaching_leaves_the_model_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()
    weights, before = learnt(model), digests(model)

    def out_of_memory(*_: object) -> torch.Tensor:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(LowRank, "against", out_of_memory)
    with pytest.raises(torch.OutOfMemoryError), attach(model, weights):
        pytest.fail("this must not be reached")
    assert digests(model) == before
    assert model.words == {}


def test_scale_zero_is_the_identity_bit_for_bit() -> None:
    model = tiny_model()
    before, plain = digests(model), output(model, "a <rex> cat")
    with attach(model, (learnt(model), 0.0)):
        assert digests(model) == before
        assert torch.equal(output(model, "a <rex> cat"), plain)


def test_nested_attaches_come_off_one_by_one() -> None:
    model = tiny_model()
    one, two = learnt(model), learnt(model, seed=50, word="<tom>")
    states = [digests(model)]
    with ExitStack() as outer:
        outer.enter_context(attach(model, one))
        states.append(digests(model))
        with attach(model, two):
            assert set(model.words) == {"<rex>", "<tom>"}
        assert digests(model) == states[1]
        assert set(model.words) == {"<rex>"}
    assert digests(model) == states[0]


def test_several_weights_add_up() -> None:
    model = tiny_model()
    one, two = learnt(model, dora=False), learnt(model, dora=False, seed=50, word="<tom>")
    base = {name: parameter.detach().clone() for name, parameter in parameters_of(model).items()}
    with attach(model, one, (two, -0.5)):
        for name in (KEY, QUERY, CONV, TEXT):
            first, second = one.changes[name].against(base[name]), two.changes[name].against(base[name])
            torch.testing.assert_close(parameters_of(model)[name].data, base[name] + first - 0.5 * second)
    with attach(model, one), attach(model, (two, -0.5)):
        nested = output(model)
    with attach(model, (two, -0.5), one):
        torch.testing.assert_close(output(model), nested)


def test_low_rank_equals_dense() -> None:
    model = tiny_model()
    weights = learnt(model)
    named = parameters_of(model)
    dense = replace(weights, changes={n: to_dense(c, named[n].detach()) for n, c in weights.changes.items()})
    assert all(isinstance(change, Dense) for change in dense.changes.values())
    with attach(model, (weights, 0.8)):
        low = output(model, "a <rex> cat")
    with attach(model, (dense, 0.8)):
        torch.testing.assert_close(output(model, "a <rex> cat"), low, rtol=1e-6, atol=1e-6)


def test_dora_at_the_base_magnitude_and_a_zero_matrix_is_the_identity() -> None:
    model = tiny_model()
    base = parameters_of(model)[TEXT].detach()
    unchanged = LowRank(noise(2, base.shape[1]), torch.zeros(len(base), 2), 1.0, base.norm(dim=1))
    torch.testing.assert_close(unchanged.against(base), torch.zeros_like(base), atol=1e-7, rtol=0)
    longer = LowRank(noise(2, base.shape[1]), noise(len(base), 2), 1.0, torch.full((len(base),), 3.0))
    lengths = (base + longer.against(base)).norm(dim=1)
    torch.testing.assert_close(lengths, torch.full_like(lengths, 3.0))


def test_the_sum_is_rounded_once_in_half_precision() -> None:
    model = tiny_model(dtype="bfloat16")
    base = parameters_of(model)[KEY].detach().clone()
    weights = learnt(model)
    small = replace(weights, words={}, changes={KEY: Dense(torch.full(base.shape, 2.0**-12))})
    with attach(model, small, small, small):
        expected = (base.float() + 3 * 2.0**-12).to(torch.bfloat16)
        assert torch.equal(parameters_of(model)[KEY].data, expected)


def test_channels_last_stays() -> None:
    model = tiny_model()
    model.denoiser.to(memory_format=torch.channels_last)
    strides = parameters_of(model)[CONV].stride()
    with attach(model, learnt(model)):
        assert parameters_of(model)[CONV].stride() == strides
    assert parameters_of(model)[CONV].stride() == strides


def test_what_does_not_compose_is_refused_and_changes_nothing() -> None:
    model = tiny_model()
    weights, before = learnt(model), digests(model)
    other_meaning = learnt(model, seed=9)
    stranger = replace(weights, base_hash="0" * 64)
    changes = dict(weights.changes)
    cases = {
        "'<rex>' is there twice with different vectors": (weights, other_meaning),
        "family 'sd2', and": (replace(weights, family="sd2"),),
        "dense changes to the model 000000000000, and": (stranger,),
        "has no parameter 'unet.nowhere'": (
            replace(weights, changes=changes | {"unet.nowhere": changes[KEY]}),
        ),
        "does not fit its shape": (replace(weights, changes=changes | {CONV: Dense(torch.zeros(2, 2))}),),
        "is 5 wide, and": (replace(weights, words={"<w>": Word((torch.zeros(2, 5),))}),),
    }
    for message, given in cases.items():
        with pytest.raises(WeightsError, match=message), attach(model, *given):
            pytest.fail(f"must be refused: {message}")
        assert digests(model) == before
        assert model.words == {}
    with attach(model, stranger, any_base=True):
        assert digests(model) != before
    low_only = {name: change for name, change in changes.items() if isinstance(change, LowRank)}
    with attach(model, replace(stranger, changes=low_only)):
        assert digests(model) != before
    with (
        attach(model, weights),
        pytest.raises(WeightsError, match="there twice"),
        attach(model, other_meaning),
    ):
        pytest.fail("must be refused: nested")


def test_the_same_word_twice_is_fine_if_it_is_the_same() -> None:
    model = tiny_model()
    weights = learnt(model)
    with attach(model, weights, replace(weights, changes={})):
        assert list(model.words) == ["<rex>"]


def test_an_offloaded_parameter_is_refused() -> None:
    model = tiny_model()
    weights = learnt(model)
    model.denoiser.to("meta")
    with pytest.raises(WeightsError, match="offloaded"), attach(model, weights):
        pytest.fail("must be refused")
