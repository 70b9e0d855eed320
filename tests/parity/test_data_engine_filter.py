"""The filter's four numbers, derived again with numpy on angles that are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from scumble.datagen.clip_filter import STAGES, Scores, Thresholds, best, first_failed, scores

FEATURES = 6


def unit(rows: int, seed: int) -> NDArray[np.float64]:
    found = np.random.default_rng(seed).standard_normal((rows, FEATURES))
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def cosine(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """By the law of cosines, |a - b|^2 = |a|^2 + |b|^2 - 2 |a| |b| cos."""
    lengths = np.sqrt((a**2).sum()), np.sqrt((b**2).sum())
    return float((lengths[0] ** 2 + lengths[1] ** 2 - ((a - b) ** 2).sum()) / (2 * lengths[0] * lengths[1]))


def test_the_four_cosines() -> None:
    first, second, before, after = (unit(5, seed) for seed in range(4))
    found = scores((torch.tensor(first), torch.tensor(second)), (torch.tensor(before), torch.tensor(after)))
    assert len(found) == 5
    for i, row in enumerate(found):
        assert row.image == pytest.approx(cosine(first[i], second[i]))
        assert row.text_input == pytest.approx(cosine(first[i], before[i]))
        assert row.text_edited == pytest.approx(cosine(second[i], after[i]))
        assert row.direction == pytest.approx(cosine(second[i] - first[i], after[i] - before[i]))


def test_direction_of_a_change_that_is_none_is_zero() -> None:
    features = torch.tensor(unit(2, 0))
    [row, _] = scores((features, features), (torch.tensor(unit(2, 1)), torch.tensor(unit(2, 2))))
    assert row.direction == 0
    assert first_failed(row, Thresholds(min_image=0, min_text=-1)) == "direction"


@pytest.mark.parametrize(
    ("changed", "stage"),
    [
        ({}, None),
        ({"image": 0.69}, "image"),
        ({"text_input": 0.19}, "text"),
        ({"text_edited": 0.19}, "text"),
        ({"direction": 0.19}, "direction"),
        ({"image": 0.1, "direction": 0.1}, "image"),
        ({"image": float("nan")}, "image"),
    ],
)
def test_thresholds_are_the_papers_and_the_first_that_fails_is_named(
    changed: dict[str, float], stage: str | None
) -> None:
    passing = {"image": 0.70, "text_input": 0.20, "text_edited": 0.20, "direction": 0.20}
    assert first_failed(Scores(**(passing | changed)), Thresholds()) == stage
    assert stage is None or stage in STAGES


@pytest.mark.parametrize("field", list(Thresholds.model_fields))
def test_every_threshold_has_an_effect(field: str) -> None:
    found = Scores(image=0.5, text_input=0.5, text_edited=0.5, direction=0.5)
    assert first_failed(found, Thresholds.of({"min_image": 0.5, field: 0.5})) is None
    assert first_failed(found, Thresholds.of({"min_image": 0.5, field: 0.51})) is not None


def test_the_best_are_those_of_the_greatest_direction() -> None:
    given = [(i, Scores(1, 1, 1, d)) for i, d in enumerate([0.3, 0.5, 0.5, 0.9, 0.1])]
    assert best(given, 3) == [3, 1, 2]
    assert best(list(reversed(given)), 3) == [3, 1, 2]
    assert best(given, 99) == [3, 1, 2, 0, 4]
