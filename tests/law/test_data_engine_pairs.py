"""Two pictures drawn side by side: what sharing attention must and must not change."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor

from learnt import tiny_model as fresh_model
from scumble.adapters.attention import Site
from scumble.core.errors import ConfigError, InputError
from scumble.core.events import finish
from scumble.core.images import to_uint8
from scumble.datagen.alignment import align, aligned_tokens
from scumble.datagen.attention_sharing import Alignment, Sharing
from scumble.datagen.drawn_pairs import PairConfig, Sample, draw_pairs, literal, sample
from scumble.datagen.triples import Triple
from scumble.models.model import Model
from scumble.sampling.text_to_image import SamplerOptions, Task, text_to_image


@cache
def tiny_model(family: str = "sd1") -> Model:
    return fresh_model(family)


EDIT = Triple("a red cat on the grass", "make it blue", "a blue cat on the grass")
SAME = Triple("a red cat on the grass", "do nothing", "a red cat on the grass")
CONFIG = PairConfig(steps=4, spacing="trailing", sampler="euler_ancestral")


def drawn(model: Model, triple: Triple, share: float, cross: float = 0.0, *, number: int = 0) -> Tensor:
    """(2, 3, H, W): both pictures of one pair."""
    one = Sample(triple, number, 1000 + number, share, cross, 5.0)
    return draw_pairs(model, [one], CONFIG)[:, 0]


def alone(model: Model, prompt: str, seed: int, guidance: float) -> Tensor:
    options = SamplerOptions(sampler="euler_ancestral", steps=4, spacing="trailing", guidance=guidance)
    task = Task(prompt=prompt, seeds=[seed], height=64, width=64, options=options)
    return finish(text_to_image(model, task))[0]


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_without_sharing_they_are_two_plain_samples_of_one_noise(family: str) -> None:
    model = tiny_model(family)
    first, second = drawn(model, EDIT, 0.0)
    plain = alone(model, EDIT.input_caption, 1000, 5.0), alone(model, EDIT.edited_caption, 1000, 5.0)
    torch.testing.assert_close(first, plain[0], rtol=0, atol=2e-4)
    torch.testing.assert_close(second, plain[1], rtol=0, atol=2e-4)
    assert (plain[0] - plain[1]).abs().max() > 0.02


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_equal_captions_give_equal_pictures(share: float) -> None:
    first, second = drawn(tiny_model(), SAME, share, cross=share)
    assert torch.equal(first, second)


@pytest.mark.parametrize(("share", "cross"), [(1.0, 0.0), (0.5, 0.0), (0.0, 1.0)])
def test_sharing_changes_the_second_picture_only(share: float, cross: float) -> None:
    model = tiny_model()
    before, after = drawn(model, EDIT, 0.0), drawn(model, EDIT, share, cross)
    torch.testing.assert_close(after[0], before[0], rtol=0, atol=2e-4)
    assert (after[1] - before[1]).abs().max() > 2e-3


def test_a_pair_does_not_depend_on_its_company() -> None:
    model = tiny_model()
    samples = [Sample(EDIT, 0, 5, 0.25, 0.0, 2.0), Sample(SAME, 1, 6, 1.0, 0.5, 9.0)]
    both = draw_pairs(model, samples, CONFIG)
    for i, one in enumerate(samples):
        torch.testing.assert_close(draw_pairs(model, [one], CONFIG)[:, 0], both[:, i], rtol=0, atol=2e-4)
    # and to the byte in the same batch
    assert torch.equal(to_uint8(draw_pairs(model, samples, CONFIG)), to_uint8(both))


def test_maps_are_shared_in_every_branch_for_the_share_of_the_steps() -> None:
    """Rows are (uncond0, uncond1, cond0, cond1) for one pair, and n of each for n."""
    own, cross = Site("own", False, "mid", 2), Site("cross", True, "mid", 2)
    maps = torch.rand(8, 2, 9, 9, generator=torch.Generator().manual_seed(0)).softmax(-1)
    sharing = Sharing(torch.tensor([2, 0]), torch.tensor([0, 0]))
    assert sharing.last() == 2
    for step in range(4):
        sharing.step = step
        shared = sharing(maps.clone(), own)
        wanted = maps.clone()
        if step < 2:
            wanted[2], wanted[6] = maps[0], maps[4]  # the second picture of the first pair, both branches
        assert torch.equal(shared, wanted)
        assert torch.equal(sharing(maps.clone(), cross), maps)


def test_cross_attention_is_carried_over_in_the_conditional_branch_only() -> None:
    maps = torch.rand(4, 1, 5, 3, generator=torch.Generator().manual_seed(0))
    moved = torch.eye(3)[None].roll(1, dims=2)  # token i's attention goes to token i + 1
    own = torch.tensor([[0.0, 0.0, 1.0]])
    sharing = Sharing(torch.tensor([0]), torch.tensor([1]), Alignment(moved, own))
    carried = sharing(maps.clone(), Site("cross", True, "mid", 1))
    assert torch.equal(carried[:3], maps[:3])
    wanted = maps[2].roll(1, dims=-1)
    wanted[..., 2] += maps[3][..., 2]
    torch.testing.assert_close(carried[3], wanted)
    sharing.step = 1
    assert torch.equal(sharing(maps.clone(), Site("cross", True, "mid", 1)), maps)


def test_tokens_are_aligned_by_what_captions_have_in_common() -> None:
    length = 10
    moved, own = aligned_tokens([5, 6, 7], [5, 6, 7], length)
    assert torch.equal(moved, torch.eye(length))
    assert not own.any()
    moved, own = aligned_tokens([5, 6, 7], [5, 8, 9, 7], length)  # one word for another, in two tokens
    assert moved[2].tolist() == [0, 0, 0.5, 0.5, 0, 0, 0, 0, 0, 0]
    assert moved[1, 1] == moved[3, 4] == moved[0, 0] == 1
    assert moved[4, 5] == 1, "the end mark is the end mark"
    moved, own = aligned_tokens([5, 7], [5, 6, 7], length)  # a word more
    assert own.nonzero().flatten().tolist() == [2]
    assert moved[:, 2].sum() == 0
    assert moved[2, 3] == 1
    moved, own = aligned_tokens([5, 6, 7], [5, 7], length)  # a word less
    assert moved[2].sum() == 0
    assert not own.any()
    torch.testing.assert_close(moved.sum(0), torch.ones(length))  # each place gets one share


def test_alignment_counts_the_places_of_a_second_chunk() -> None:
    model = tiny_model()
    words = [model.tokenizers[0]("cat", add_special_tokens=False).input_ids[0]] * 80
    moved, own = aligned_tokens(words, words, 154)
    assert torch.equal(moved, torch.eye(154))
    whole = align(model.tokenizers[0], [("a cat", "a dog"), ("a", "a")], 77)
    assert whole.moved.shape == (2, 77, 77)
    assert torch.equal(whole.moved[1], torch.eye(77))
    assert torch.equal(own, torch.zeros(154))


def test_captions_are_taken_as_they_stand() -> None:
    model = tiny_model()
    assert literal("a (red) cat [1] BREAK \\") == "a \\(red\\) cat \\[1\\] break \\\\"
    plain, weighed = (model.prompt([t]).embeddings for t in (literal("a (cat)"), "a (cat)"))
    assert not torch.equal(plain, weighed)


def test_a_sample_is_a_function_of_words_number_and_seed() -> None:
    config = PairConfig(guidance=(2, 6), share=(0.2, 0.4), cross_share=(0.5, 0.5))
    several = [sample(EDIT, n, config) for n in range(200)]
    assert several == [sample(EDIT, n, config) for n in range(200)]
    assert len({s.seed for s in several}) == 200
    assert sample(EDIT, 0, config.replace(seed=1)).seed != several[0].seed
    assert sample(SAME, 0, config).seed != several[0].seed
    for name, low, high in (("share", 0.2, 0.4), ("guidance", 2, 6)):
        values = [getattr(s, name) for s in several]
        assert low <= min(values) < low + 0.05 * (high - low)
        assert high - 0.05 * (high - low) < max(values) <= high
    assert {s.cross_share for s in several} == {0.5}


@pytest.mark.parametrize(
    ("bad", "match"),
    [
        ({"sampler": "eulr"}, "no sampler"),
        ({"spacing": "even"}, "no spacing"),
        ({"guidance": (6, 2)}, "guidance cannot go from 6"),
        ({"share": (0, 1.5)}, "share cannot go"),
    ],
)
def test_settings_that_cannot_be_are_refused(bad: dict[str, object], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        PairConfig.of(bad).check()


def test_a_model_without_words_is_refused() -> None:
    with pytest.raises(InputError, match="without words"):
        drawn(tiny_model("ddpm"), EDIT, 0.5)
