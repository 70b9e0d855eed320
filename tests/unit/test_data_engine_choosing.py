"""What is dropped before CLIP is asked, and what is said when memory runs out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from scumble.core.errors import OutOfMemoryError
from scumble.core.events import finish
from scumble.datagen.drawn_pairs import DrawPairs, PairConfig, sample
from scumble.datagen.shards import Shard
from scumble.datagen.triples import Triple

EDIT = Triple("a red cat", "make it blue", "a blue cat")
ANYTHING = {"min_image": -1.0, "min_text": -1.0, "min_direction": -1.0}


class Checker:
    """Flags what is white in [-1, 1]."""

    def flagged(self, pixels: Tensor) -> list[bool]:
        return [bool((picture == 1).all()) for picture in pixels]


class Colours:
    """A CLIP in which a picture is its mean colour, and a caption the colour that it names."""

    def image_features(self, pixels: Tensor) -> Tensor:
        return torch.nn.functional.normalize((pixels / 2 + 0.5).mean((2, 3)), dim=1)

    def text_features(self, texts: Sequence[str]) -> Tensor:
        return torch.tensor([[1.0, 0.0, 0.0] if "red" in text else [0.0, 0.0, 1.0] for text in texts])


def work(checker: Checker | None = None, **config: Any) -> DrawPairs:
    model = cast("Any", SimpleNamespace(safety_checker=checker))
    return DrawPairs(model, cast("Any", Colours()), PairConfig.of(ANYTHING | config))


def pictures(*colours: tuple[float, float, float]) -> Tensor:
    """(2, n, 3, 8, 8): red first pictures, and second ones of these colours."""
    first = torch.tensor([[1.0, 0.0, 0.0]]).repeat(len(colours), 1)
    return torch.stack([first, torch.tensor(colours)])[..., None, None].repeat(1, 1, 1, 8, 8)


def test_broken_and_flagged_pairs_are_dropped_and_counted() -> None:
    counts: Counter[str] = Counter()
    drawn = pictures((0, 0, 1), (1, 1, 1), (0, 0, float("nan")), (0, 1, 0))
    batch = [sample(EDIT, number, PairConfig()) for number in range(4)]
    kept = work(Checker())._passing(batch, drawn, counts)
    assert [pair.sample.number for pair in kept] == [0, 3]
    assert counts == {"drawn": 4, "broken": 1, "flagged": 1}
    assert kept[0].scores.direction == pytest.approx(1.0)
    assert kept[1].scores.direction == pytest.approx(0.5)
    assert kept[0].pictures[1].getpixel((0, 0)) == (0, 0, 255)
    none = work()._passing(batch[:1], pictures((0, float("nan"), 0)), counts)
    assert none == []


def test_without_a_checker_nothing_is_flagged() -> None:
    counts: Counter[str] = Counter()
    kept = work(min_direction=0.9)._passing(
        [sample(EDIT, n, PairConfig()) for n in range(2)], pictures((1, 1, 1), (0, 0, 1)), counts
    )
    assert [pair.sample.number for pair in kept] == [1]
    assert counts == {"drawn": 2, "broken": 0, "direction": 1}


def test_memory_that_runs_out_is_a_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def too_much(*_: Any) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("scumble.datagen.drawn_pairs.draw_pairs", too_much)
    with pytest.raises(OutOfMemoryError, match="not enough memory for 3 pairs"):
        finish(work(batch=3, samples=3)(Shard("a", (EDIT,)), tmp_path))
