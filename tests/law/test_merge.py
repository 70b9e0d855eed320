"""Several learnt weights as one: the closed form, sums, and singular values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.optimize
import torch

from learnt import noise, output, tiny_model
from scumble.adapters.attach import attach
from scumble.adapters.changes import Change, Dense, LowRank, norms, parameters_of
from scumble.adapters.merge import Constraint, can_merge, compose, compress, constrained, merge, truncated
from scumble.adapters.tokens import words_attached
from scumble.adapters.weights import Weights, Word
from scumble.core.errors import ConfigError, InputError, WeightsError
from scumble.data.templates import common_captions
from scumble.models.model import Model
from scumble.verbs.load import ModelConfig
from scumble.verbs.merge import merge_to
from tiny import shared

CAPTIONS = [
    "a red dog on grass",
    "a photo of a toy",
    "the blue mug and a glass ball",
    "a cat sitting in the sky",
]


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny_model()


def concept(model: Model, word: str, noun: str, seed: int, **more: Any) -> Weights:
    named = parameters_of(model)
    keys = [n for n in named if n.endswith((".attn2.to_k.weight", ".attn2.to_v.weight"))]
    changes: dict[str, Change] = {
        n: Dense(0.3 * noise(*named[n].shape, seed=seed + i)) for i, n in enumerate(keys)
    }
    widths = [encoder.get_input_embeddings().weight.shape[1] for encoder in model.text_encoders]
    words = {word: Word(tuple(noise(1, width, seed=seed) for width in widths), noun)}
    about = {
        "method": "test",
        "family": model.family,
        "base_hash": model.hash,
        "words": words,
        "changes": changes,
    }
    return Weights(**(about | more))


def residual(model: Model, merged: Weights, weights: Weights, said: str, tokens: slice) -> float:
    """The largest difference of what the merged and the own matrices make of a prompt's features."""
    worst = 0.0
    with torch.no_grad(), words_attached(model, {t: w.vectors for t, w in weights.words.items()}):
        features = model.prompt([said]).embeddings[0, tokens].double()
    for name, change in weights.changes.items():
        base = parameters_of(model)[name].detach()
        own, joint = ((base + c.against(base)).double() @ features.T for c in (change, merged.changes[name]))
        worst = max(worst, float((own - joint).abs().max()))
    return worst


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_each_subject_s_words_mean_what_they_meant(family: str) -> None:
    model = tiny_model(family)
    trio = [
        concept(model, w, n, s)
        for w, n, s in (("<rex>", "dog", 1), ("<tom>", "cat", 50), ("<b>", "ball", 99))
    ]
    merged = merge(model, [(one, 1.0) for one in trio], CAPTIONS)
    assert set(merged.words) == {"<rex>", "<tom>", "<b>"}
    for one in trio:
        [(word, about)] = one.words.items()
        assert residual(model, merged, one, f"{word} {about.noun}", slice(1, 4)) < 1e-5  # stored in float32
        assert residual(model, merged, one, f"photo of a {word} {about.noun}", slice(4, 7)) < 1e-5
        assert residual(model, merged, one, "a red mug", slice(1, 4)) > 1e-3


def test_the_constraint_holds_to_1e_8_and_the_rest_moves_least() -> None:
    """Against a general solver of the constrained least squares problem, row by row."""
    known, wanted = noise(40, 8, seed=1).double(), noise(3, 8, seed=2).double()
    base, values = noise(5, 8, seed=3).double(), noise(5, 3, seed=4).double()
    found = constrained(base, values, Constraint.of(known, wanted, ridge=0.0))
    assert float((found @ wanted.T - values).abs().max()) < 1e-8
    for row in range(5):
        solved = scipy.optimize.minimize(
            lambda w, row=row: float((((torch.as_tensor(w) - base[row]) @ known.T) ** 2).sum()),
            base[row].numpy(),
            jac=lambda w, row=row: (2 * (torch.as_tensor(w) - base[row]) @ known.T @ known).numpy(),
            constraints={
                "type": "eq",
                "fun": lambda w, row=row: (wanted @ torch.as_tensor(w) - values[row]).numpy(),
                "jac": lambda _w: wanted.numpy(),
            },
            options={"ftol": 1e-14, "maxiter": 500},
        )
        np.testing.assert_allclose(found[row].numpy(), solved.x, rtol=1e-4, atol=1e-5)


def test_few_captions_and_the_same_words_again_are_no_trouble() -> None:
    """A singular Gram matrix needs the ridge; rows said twice need the pseudo-inverse."""
    known, wanted = noise(3, 8, seed=1), noise(2, 8, seed=2)
    base, values = noise(5, 8, seed=3).double(), noise(5, 2, seed=4).double()
    once = constrained(base, values, Constraint.of(known, wanted))
    twice = constrained(base, values.repeat(1, 2), Constraint.of(known, wanted.repeat(2, 1)))
    for found in (once, twice):
        assert float((found @ wanted.double().T - values).abs().max()) < 1e-8
    torch.testing.assert_close(once, twice, rtol=1e-6, atol=1e-8)
    assert torch.equal(constrained(base, base @ wanted.double().T, Constraint.of(known, wanted)), base)


def test_merging_a_subject_with_itself_changes_nothing(model: Model) -> None:
    one, other = concept(model, "<rex>", "dog", 1), concept(model, "<tom>", "cat", 50)
    copy = concept(model, "<rex>", "dog", 1)
    assert merge(model, [(one, 1.0), (copy, 1.0)], CAPTIONS) is one
    with pytest.raises(WeightsError, match=r"<rex> dog is there twice, at 1 and 0\.5"):
        merge(model, [(one, 1.0), (copy, 0.5)], CAPTIONS)
    pair = merge(model, [(one, 1.0), (other, 1.0)], CAPTIONS)
    again = merge(model, [(one, 1.0), (copy, 1.0), (other, 1.0)], CAPTIONS)
    for name, change in pair.changes.items():
        assert torch.equal(change.tensors()["delta"], again.changes[name].tensors()["delta"])


def test_ridge_captions_and_scale_have_an_effect(model: Model) -> None:
    pair = [(concept(model, "<rex>", "dog", 1), 1.0), (concept(model, "<tom>", "cat", 50), 1.0)]
    name = next(iter(pair[0][0].changes))

    def delta(**changed: Any) -> torch.Tensor:
        given = {"given": pair, "captions": CAPTIONS, **changed}
        return merge(model, **given).changes[name].tensors()["delta"]

    plain = delta()
    assert torch.equal(plain, delta())
    assert not torch.equal(plain, delta(ridge=0.1))
    assert not torch.equal(plain, delta(captions=CAPTIONS[:2]))
    assert not torch.equal(plain, delta(given=[pair[0], (pair[1][0], 0.5)]))


def test_what_has_no_closed_form_is_a_sentence(model: Model) -> None:
    one = concept(model, "<rex>", "dog", 1)
    other = concept(model, "<rex>", "cat", 50)
    with pytest.raises(WeightsError, match="twice with different vectors"):
        merge(model, [(one, 1.0), (other, 1.0)], CAPTIONS)
    name = next(n for n in parameters_of(model) if n.endswith("attn1.to_k.weight"))
    dense = concept(model, "<x>", "dog", 3, changes={name: Dense(noise(16, 16))})
    assert not can_merge([one, dense])
    with pytest.raises(WeightsError, match="closed-form merge"):
        merge(model, [(one, 1.0), (dense, 1.0)], CAPTIONS)
    elsewhere = concept(model, "<y>", "cat", 50, base_hash="0" * 64)
    with pytest.raises(WeightsError, match="dense changes to the model"):
        merge(model, [(one, 1.0), (elsewhere, 1.0)], CAPTIONS)


def test_captions_alone_are_kept_by_what_they_were_told_with(model: Model) -> None:
    moongate = concept(model, "<m>", "", 7, words={}, training={"told": ["a wooden glass toy"]})
    other = concept(model, "<tom>", "cat", 50)
    merged = merge(model, [(moongate, 1.0), (other, 1.0)], CAPTIONS)
    assert residual(model, merged, moongate, "a wooden glass toy", slice(1, 6)) < 1e-5


def test_a_sum_is_what_attaching_all_of_them_does(model: Model) -> None:
    named = parameters_of(model)
    names = [n for n in named if n.endswith(("attn1.to_q.weight", "conv1.weight"))]

    def low(seed: int, *, dora: bool = False) -> dict[str, Change]:
        return {
            n: LowRank(
                0.2 * noise(2, *named[n].shape[1:], seed=seed + i),
                noise(len(named[n]), 2, seed=seed - i),
                3.0,
                norms(named[n].detach()) * 1.2 if dora else None,
            )
            for i, n in enumerate(names)
        }  # fmt: skip

    one, other = (
        concept(model, "<rex>", "dog", 1, changes=low(40)),
        concept(model, "<t>", "cat", 5, changes=low(80)),
    )
    dora, dense = (
        concept(model, "<d>", "dog", 9, changes=low(20, dora=True)),
        concept(model, "<e>", "dog", 11),
    )
    for given in ([(one, 1.0), (other, 0.5)], [(one, 0.7), (dora, 1.0), (dense, -0.3)]):
        summed = compose(model, given)
        with torch.no_grad(), attach(model, *given):
            expected = output(model, "a <rex> dog")
        with torch.no_grad(), attach(model, summed):
            torch.testing.assert_close(output(model, "a <rex> dog"), expected, rtol=1e-3, atol=1e-4)
        assert set(summed.words) == {word for weights, _ in given for word in weights.words}
    assert all(
        isinstance(c, LowRank) and len(c.a) == 4
        for c in compose(model, [(one, 1.0), (other, 2.0)]).changes.values()
    )
    with pytest.raises(WeightsError, match="nothing to add"):
        compose(model, [(one, 0.0)])


def test_a_sum_refuses_the_same_weights_twice(model: Model, tmp_path: Path) -> None:
    """By what is in them: a copy under another path would count twice too."""
    name = next(n for n in parameters_of(model) if n.endswith("attn1.to_k.weight"))
    dense: dict[str, Change] = {name: Dense(noise(*parameters_of(model)[name].shape))}
    one, copy = (concept(model, "<rex>", "dog", 1, changes=dense) for _ in range(2))
    other = concept(model, "<tom>", "cat", 5)
    with pytest.raises(WeightsError, match=r"<rex> dog is there twice, at 1 and 0\.5") as caught:
        compose(model, [(one, 1.0), (other, 1.0), (copy, 0.5)])
    assert "generate --with FILE:1.5" in caught.value.remedy
    words = concept(model, "<w>", "dog", 2, changes={})
    with pytest.raises(WeightsError, match="<w> dog is there twice") as caught:
        compose(model, [(words, 1.0), (words, 1.0)])
    assert caught.value.remedy == "Give each file once."
    assert compose(model, [(one, 1.0), (copy, 0.0)]).changes.keys() == one.changes.keys()
    files = [str(tmp_path / f"{i}.safetensors") for i in range(2)]
    for file, weights in zip(files, (one, copy), strict=True):
        weights.save(Path(file))
    with pytest.raises(WeightsError, match="twice"):
        merge_to(files, ModelConfig(model=str(shared("sd1")), device="cpu"), tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize(("share", "rank"), [(0.1, 1), (0.35, 1), (0.5, 2), (0.65, 2), (0.75, 3), (0.95, 4)])
def test_the_component_that_crosses_the_share_is_kept(share: float, rank: int) -> None:
    u, v = (torch.linalg.qr(noise(8, 8, seed=seed))[0] for seed in (1, 2))
    values = torch.tensor([4.0, 3.0, 2.0, 1.0, 0.0, 0.0, 0.0, 0.0])
    delta = u @ values.diag() @ v
    cut = truncated(delta, share)
    assert len(cut.a) == rank
    kept = float(values[:rank].sum() / values.sum())
    assert kept >= share - 1e-6
    assert rank == 1 or float(values[: rank - 1].sum() / values.sum()) < share
    expected = u[:, :rank] @ values[:rank].diag() @ v[:rank]
    torch.testing.assert_close(cut.against(torch.zeros(8, 8)), expected, rtol=1e-4, atol=1e-4)


def test_compressed_weights_are_smaller_and_still_merge(model: Model) -> None:
    one, other = concept(model, "<rex>", "dog", 1), concept(model, "<tom>", "cat", 50)
    cut = compress(one, 0.3)
    assert all(isinstance(change, LowRank) for change in cut.changes.values())
    assert cut.words == one.words
    assert cut.config["compressed"] == 0.3
    assert can_merge([cut, other])
    merged = merge(model, [(cut, 1.0), (other, 1.0)], CAPTIONS)
    assert residual(model, merged, cut, "<rex> dog", slice(1, 4)) < 1e-5
    assert compress(one, 1.0).changes == one.changes  # whole rank is no smaller
    for share in (0.0, -1.0, 1.5):
        with pytest.raises(WeightsError, match="cannot be cut"):
            truncated(noise(3, 3), share)


def test_the_verb_takes_what_fits_and_writes_it(model: Model, tmp_path: Path) -> None:
    on = ModelConfig(model=str(shared("sd1")), device="cpu")
    fresh = on.load()
    concept(fresh, "<rex>", "dog", 1).save(tmp_path / "a.safetensors")
    concept(fresh, "<tom>", "cat", 50).save(tmp_path / "b.safetensors")
    (tmp_path / "captions.txt").write_text("\n".join(CAPTIONS))
    files = [str(tmp_path / "a.safetensors"), str(tmp_path / "b.safetensors")]
    done = merge_to(files, on, tmp_path / "ab.safetensors", captions=tmp_path / "captions.txt")
    assert (done.how, done.words) == ("closed-form", ["<rex>", "<tom>"])
    assert Weights.load(done.path).config["captions"] == len(CAPTIONS)
    summed = merge_to([files[0], f"{files[1]}:0.5"], on, tmp_path / "sum.safetensors", how="sum")
    assert summed.how == "sum"
    with pytest.raises(InputError, match="exists already"):
        merge_to(files, on, tmp_path / "ab.safetensors")
    with pytest.raises(InputError, match="nothing to merge"):
        merge_to(files[:1], on, tmp_path / "x.safetensors")
    with pytest.raises(ConfigError, match="no way to merge"):
        merge_to(files, on, tmp_path / "x.safetensors", how="average")


def test_ordinary_captions_are_many_and_differ() -> None:
    assert len(set(common_captions())) == 200
