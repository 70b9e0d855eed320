"""Whether an edit of a toy picture did what it was told, and nothing else: a fact, since the world is known.

A picture earns a point only where the edit is *done* and the rest *preserved*, both on the same picture. It
is told in two ways, one that looks and one that measures.

By the **judge**, for the edits that it can read: those of which it sees every answer asked for in the true
picture after, and not all of them in the picture before, and the same after both went through the
autoencoder. Truth alone decides which these are, no editor does.

- *done*: the judge sees every answer that the instruction asks for;
- *preserved, as seen*: it sees every other answer that both scenes share and that it could read so far;
- *preserved, in pixels*: it is that very picture and not another of the same description. What has no reason
  to change is at most half as far, in mean squared error, from the true picture after the edit as it is in
  the nearest of a few redraws: scenes with all that was said and another seed.

In **pixels** alone, for every edit: *done* where the part that may change is at most half as far from the
true picture after as it is in the picture before; *preserved* as above.

Either way an untouched picture is never done, and another picture, even a perfect one of the right
description, is not preserved: both score 0.

Letters: B pictures, H W their size, K redraws.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from scumble.models.judge import NONE, OF_PICTURES, OF_THINGS, Verdict
from scumble.world.instructions import Edit
from scumble.world.sampling import dice
from scumble.world.scene import COLOURLESS_STYLES, KINDS, Scene

__all__ = [
    "HALF",
    "Outcome",
    "Reading",
    "asked",
    "outcome",
    "readings",
    "redrawn",
    "seen",
    "shared",
    "wanted",
]

HALF = 0.5
"""The share of another picture's error that a picture may have to count as the nearer one."""

Answers = dict[str, object]


@dataclass(frozen=True, slots=True)
class Reading:
    """What the judge can tell of one edit."""

    is_readable: bool
    """Whether it can tell a picture in which it is done from one in which it is not."""
    told: Answers
    """What it has to see for the edit to be done."""
    kept: Answers
    """What it has to see for the rest to be preserved."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of B pictures, each (B,) bool."""

    done: Tensor
    """To the judge. It means something only where the reading is readable, as does `right`."""
    as_seen: Tensor
    in_pixels: Tensor
    done_in_pixels: Tensor

    @property
    def preserved(self) -> Tensor:
        return self.as_seen & self.in_pixels

    @property
    def right(self) -> Tensor:
        """Done and preserved, to the judge."""
        return self.done & self.preserved

    @property
    def right_in_pixels(self) -> Tensor:
        """Done and preserved, measured."""
        return self.done_in_pixels & self.in_pixels


# What is asked


def wanted(scene: Scene) -> Answers:
    """Question -> its true answer; questions of things carry their number. What the scene's style or place
    hides is no question.
    """
    answers: Answers = {"kinds": frozenset(thing.kind for thing in scene.things)}
    answers |= {name: getattr(scene, name) or NONE for name in OF_PICTURES}
    for i, thing in enumerate(scene.things):
        answers |= {f"{name} {i}": getattr(thing, name) or NONE for name in OF_THINGS}
    hidden = ["time"] if scene.place == "green screen" else []
    hidden += [f"colour {i}" for i in range(2)] if scene.style in COLOURLESS_STYLES else []
    return {name: answer for name, answer in answers.items() if name not in hidden}


def asked(edit: Edit) -> Answers:
    """The answers that the instruction asks for. Of a new thing these are its kind, colour and place."""
    before, after = wanted(edit.before), wanted(edit.after)
    changed = {name: answer for name, answer in after.items() if before.get(name, answer) != answer}
    if len(edit.after.things) > len(edit.before.things) and "colour 1" in after:
        changed["colour 1"] = after["colour 1"]
    return changed


def shared(edit: Edit) -> Answers:
    """The answers that are true before and after."""
    before = wanted(edit.before)
    return {name: answer for name, answer in wanted(edit.after).items() if before.get(name) == answer}


def seen(verdict: Verdict, i: int, scene: Scene) -> Answers:
    """What the judge sees in picture `i`, to the questions of `scene`: as many kinds as it has things, and
    what those are like under their true kinds.
    """
    likeliest = verdict.kinds[i].topk(len(scene.things)).indices.tolist()
    answers: Answers = {"kinds": frozenset(KINDS[kind] for kind in likeliest)}
    answers |= {name: names[int(verdict.pictures[name][i].argmax())] for name, names in OF_PICTURES.items()}
    for number, thing in enumerate(scene.things):
        row = KINDS.index(thing.kind)
        for name, names in OF_THINGS.items():
            answers[f"{name} {number}"] = names[int(verdict.things[name][i, row].argmax())]
    return answers


def readings(edits: Sequence[Edit], before: Sequence[Verdict], after: Sequence[Verdict]) -> list[Reading]:
    """What the judge can tell of B edits, by its verdicts on several copies of the pictures before and of
    the true pictures after, such as the render and its round trip through an autoencoder.
    """
    return [_reading(edit, before, after, i) for i, edit in enumerate(edits)]


def _reading(edit: Edit, before: Sequence[Verdict], after: Sequence[Verdict], i: int) -> Reading:
    old = [seen(verdict, i, edit.before) for verdict in before]
    new = [seen(verdict, i, edit.after) for verdict in after]
    told, still = asked(edit), [seen(verdict, i, edit.after) for verdict in before]
    readable = all(_all(told, row) for row in new) and not any(_all(told, row) for row in still)
    sure = {q: a for q, a in shared(edit).items() if all(row[q] == a for row in old + new)}
    return Reading(readable, told, sure)


# What came of it


def redrawn(edit: Edit, count: int) -> list[Scene]:
    """Scenes of the same description as the one after the edit, with seeds of their own."""
    chance = dice(edit.after.seed, "redrawn")
    return [replace(edit.after, seed=int(chance.random() * 2**53)) for _ in range(count)]


def outcome(
    edits: Sequence[Edit],
    told: Sequence[Reading],
    verdict: Verdict,
    *,
    kept_error: tuple[Tensor, Tensor],
    changed_error: tuple[Tensor, Tensor],
) -> Outcome:
    """What became of B edits, by the judge's verdict on what the editor made of them and by their errors to
    the true pictures after (`scumble.metrics.pixels.mse_where`).

    `kept_error` is that where nothing has a reason to change, (B,), and that of redraws, (B, K); where
    that is nowhere (not a number) pixels tell nothing. `changed_error` is that where pixels may change, and
    that of the pictures before, each (B,).
    """
    rows = [(r, seen(verdict, i, e.after)) for i, (e, r) in enumerate(zip(edits, told, strict=True))]
    kept, redraws = kept_error
    changed, untouched = changed_error
    return Outcome(
        done=torch.tensor([_all(reading.told, row) for reading, row in rows]),
        as_seen=torch.tensor([_all(reading.kept, row) for reading, row in rows]),
        in_pixels=(kept <= HALF * redraws.amin(-1)) | kept.isnan(),
        done_in_pixels=changed <= HALF * untouched,
    )


def _all(answers: Mapping[str, object], given: Mapping[str, object]) -> bool:
    return all(given[name] == answer for name, answer in answers.items())
