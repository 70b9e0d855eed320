from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scumble.core import rng
from scumble.core.errors import InputError
from scumble.diffusion.samplers import SAMPLERS
from scumble.diffusion.schedules import linear
from scumble.diffusion.spacing import levels_for
from scumble.sampling.text_to_image import SamplerOptions, sample_latents

seeds = st.integers(0, rng.MAX_SEED)
parts = st.lists(st.text(max_size=4) | st.integers(-5, 5), max_size=3)


def test_derived_seeds_are_pinned() -> None:
    """Saved recipes hold seeds: a change of these numbers would change everybody's pictures."""
    assert rng.derive(0) == 3671705938556568625
    assert rng.derive(7, "timesteps", 12) == 2582889520778321145


@given(seeds, parts)
def test_derived_seeds_are_seeds(seed: int, purpose: list[str | int]) -> None:
    assert 0 <= rng.derive(seed, *purpose) <= rng.MAX_SEED
    assert rng.derive(seed, *purpose) == rng.derive(seed, *purpose)


@given(seeds, parts, parts)
def test_different_purposes_give_different_seeds(seed: int, a: list[str | int], b: list[str | int]) -> None:
    assert (rng.derive(seed, *a) == rng.derive(seed, *b)) == (a == b)


@pytest.mark.parametrize(
    ("a", "b"), [(("a", "b"), ("ab",)), (("a", 1), ("a1",)), (("1",), (1,)), (("",), ())]
)
def test_parts_of_a_purpose_do_not_run_together(a: tuple[str | int, ...], b: tuple[str | int, ...]) -> None:
    assert rng.derive(3, *a) != rng.derive(3, *b)


def test_rows_do_not_depend_on_the_batch() -> None:
    batch = rng.randn((4, 5), rng.generators(range(10, 14)))
    assert batch.shape == (4, 4, 5)
    for i, row in enumerate(batch):
        assert torch.equal(row, rng.randn((4, 5), rng.generators([10 + i]))[0])


def test_later_draws_continue_each_generator() -> None:
    pair, single = rng.generators([1, 2]), rng.generators([2])
    first = [rng.randn((3,), pair)[1], rng.randn((3,), pair)[1]]
    second = [rng.randn((3,), single)[0], rng.randn((3,), single)[0]]
    assert torch.equal(torch.stack(first), torch.stack(second))
    assert not torch.equal(first[0], first[1])


def test_dtype_only_rounds() -> None:
    full = rng.randn((64,), rng.generators([5]))
    half = rng.randn((64,), rng.generators([5]), dtype=torch.bfloat16)
    assert torch.equal(full.to(torch.bfloat16), half)


def test_the_global_generator_is_neither_read_nor_set() -> None:
    before = torch.get_rng_state()
    a = rng.randn((8,), rng.generators([1]))
    assert torch.equal(before, torch.get_rng_state())
    torch.rand(3)
    assert torch.equal(a, rng.randn((8,), rng.generators([1])))


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_a_seed_out_of_range_is_refused_by_value(seed: int) -> None:
    for use in (rng.generator, rng.derive):
        with pytest.raises(InputError, match=str(seed)):
            use(seed)


def test_no_generator_is_refused() -> None:
    with pytest.raises(InputError, match="no generator"):
        rng.randn((3,), [])


def test_noise_for_an_accelerator_is_sent_without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """From pinned memory, uncast: a cast before the copy would land in ordinary memory."""
    moved: list[tuple[object, ...]] = []

    def to(self: torch.Tensor, *places: object, **options: object) -> torch.Tensor:
        moved.append((*places, *sorted(options.items()), "pinned" if pinned else ""))
        return self

    pinned: list[torch.Tensor] = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: pinned.append(self) or self)
    monkeypatch.setattr(torch.Tensor, "to", to)
    rng.randn((2,), rng.generators([0]), device="cuda", dtype=torch.float16)
    assert moved[0] == ("cuda", ("non_blocking", True), "pinned")
    assert [len(row) for row in pinned] == [1]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", SAMPLERS)
def test_no_sampler_waits_for_the_device(name: str) -> None:
    levels = levels_for(linear(), 6, "trailing")
    generators = rng.generators([0, 1])
    x = rng.randn((4, 8, 8), generators, device="cuda")
    options = SamplerOptions(sampler=name, steps=6)
    list(sample_latents(lambda x, _: x / 2, x, levels, generators, options))
    torch.cuda.set_sync_debug_mode("error")
    try:
        assert len(list(sample_latents(lambda x, _: x / 2, x, levels, generators, options))) == 6
    finally:
        torch.cuda.set_sync_debug_mode("default")
