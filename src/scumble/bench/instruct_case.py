"""Edits whose true pictures are known, ready to hold an editor's pictures against: what the judge can read
of them, and how far pictures are from the truth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from scumble.bench.common import as_saved, judged
from scumble.bench.instruct_truth import Truth, rendered
from scumble.core.events import Loop
from scumble.core.images import from_model, to_model
from scumble.metrics.pixels import mse_where
from scumble.metrics.toy_edits import Outcome, Reading, outcome, readings
from scumble.models.judge import Judge
from scumble.models.model import Model
from scumble.world.instructions import Edit

__all__ = ["Case", "known"]

REDRAWS = 3


@dataclass(frozen=True)
class Case:
    """What is known of N edits before any of them is made."""

    truth: Truth
    trip: Tensor
    """(N, 3, H, W) the pictures before, through the autoencoder and back."""
    ideal: Tensor
    """(N, 3, H, W) the true pictures after, likewise."""
    told: list[Reading]

    def first(self, count: int) -> Case:
        """The same for the first edits only."""
        truth = self.truth
        tensors = ("before", "after", "redraw", "changing", "same", "redraw_error")
        part = Truth(truth.edits[:count], **{name: getattr(truth, name)[:count] for name in tensors})
        return Case(part, self.trip[:count], self.ideal[:count], self.told[:count])

    def outcome(self, judge: Judge, pictures: Tensor) -> Outcome:
        """What became of the edits in `pictures` (N, 3, H, W) in [0, 1]."""
        truth = self.truth
        changed, untouched = (mse_where(x, truth.after, truth.changing) for x in (pictures, truth.before))
        return outcome(
            truth.edits,
            self.told,
            judged(judge, pictures),
            kept_error=(mse_where(pictures, truth.after, truth.same), truth.redraw_error),
            changed_error=(changed, untouched),
        )


def known(folder: Path, todo: Sequence[Edit], model: Model, judge: Judge) -> Loop[Case]:
    """Render the edits, unless `folder` has them, and read them by the judge, before and after they go
    through the model's autoencoder.
    """
    truth = yield from rendered(folder, todo, size=model.default_size, redraws=REDRAWS)
    trip, ideal = _decoded(model, truth.before), _decoded(model, truth.after)
    before, after = ([judged(judge, x) for x in pair] for pair in _copies(truth, trip, ideal))
    return Case(truth, trip, ideal, readings(truth.edits, before, after))


def _copies(truth: Truth, trip: Tensor, ideal: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """The pictures before and after that the judge has to agree on."""
    return (truth.before, trip), (truth.after, ideal)


@torch.inference_mode()
def _decoded(model: Model, pixels: Tensor) -> Tensor:
    """Pictures (N, 3, H, W) in [0, 1] through the autoencoder and back, in 8 bits."""
    parts = [
        from_model(model.decode(model.scale(model.encode(to_model(part)).mode()))) for part in pixels.split(8)
    ]
    return as_saved(torch.cat(parts).cpu())
