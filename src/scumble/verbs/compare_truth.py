"""What is known of a task because its picture came from a program: the scene that it shows, the scene that an
instruction asks for, the labels that a subject's prompt asks for.

`scumble toybox render` and `scumble toybox subjects` write the files that say so beside their pictures. Those
are a stranger's text: a scene counts only where rendering it gives the picture, to a level of 255.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from scumble.core.errors import ScumbleError
from scumble.core.files import read_bytes
from scumble.core.images import from_uint8, read_image, to_uint8, to_unit
from scumble.models.judge import Verdict
from scumble.verbs.compare_task import Task
from scumble.world.instructions import changed_labels, every_edit
from scumble.world.pairs import change_mask
from scumble.world.render import render
from scumble.world.scene import Look, Scene, Thing
from scumble.world.subjects import SUBJECTS, TUNING_SUBJECTS
from scumble.world.words import caption, describe

__all__ = ["Truth", "answers", "questions", "truth_of"]

MAX_BYTES = 64_000_000
ASKED_OF_THINGS = {"second_kind": "kind", "second_colour": None}
"""Labels under which the judge is asked for something else, or for nothing."""


@dataclass(frozen=True, slots=True)
class Truth:
    """What is known."""

    before: Scene | None = None
    """What the picture shows."""
    after: Scene | None = None
    """What it shows when it is edited rightly, or what a subject's prompt asks for."""
    asked: frozenset[str] = field(default_factory=frozenset[str])
    """Questions to the judge that the task is about."""
    why: str = ""
    """In a sentence, what is known or why nothing is."""

    def right_picture(self, side: int) -> Tensor | None:
        """(1, 3, side, side) in [0, 1] as a file has it: the picture after the edit; None if not known."""
        if self.before is None or self.after is None:
            return None
        return from_uint8(to_uint8(render([self.after], size=side).pixels))

    def may_change(self, side: int) -> Tensor | None:
        """(1, 1, side, side): 1 where the edit gives a reason to change."""
        if self.before is None or self.after is None:
            return None
        return change_mask(self.before, self.after, side)[None, None].float()


def truth_of(task: Task) -> Truth:
    """What is known of the task; never an error."""
    if task.image is not None:
        scene = _scene_of(task.image)
        return Truth(why=NO_SCENE) if scene is None else _edit_of(scene, task)
    if task.subject is not None:
        return _prompt_of(task)
    return Truth(why="There is no picture to know anything of.")


NO_SCENE = "The picture is no rendered scene with its metadata.jsonl beside it, so no truth is known of it."


def _edit_of(scene: Scene, task: Task) -> Truth:
    """The scene that the instruction, or else the prompt, asks for."""
    config = task.config
    if config.instruction:
        said = " ".join(config.instruction.lower().split())
        for edit in every_edit(scene):
            if edit.text.lower() == said:
                return Truth(scene, edit.after, questions(scene, edit.after), f"The truth of {edit.text!r}.")
    if config.prompt and not config.word:
        for edit in every_edit(scene):
            if config.prompt in (caption(edit.after), caption(edit.after, complete=True)):
                return Truth(
                    scene, edit.after, questions(scene, edit.after), f"The truth of {config.prompt!r}."
                )
    return Truth(scene, why="What is asked for is no edit of the toy world's, so only its start is known.")


def questions(before: Scene, after: Scene) -> frozenset[str]:
    """Questions to the judge that an edit from one scene to the other is about."""
    from scumble.world.instructions import Edit

    changed = changed_labels(Edit(kind="", text="", before=before, after=after, target=None))
    names = {ASKED_OF_THINGS.get(name, name) for name in changed}
    return frozenset(name for name in names if name)


def _prompt_of(task: Task) -> Truth:
    """What a benchmark subject's own prompt asks for."""
    assert task.subject is not None
    config = task.config
    about = _read(task.subject / "subject.json")
    name = about.get("name") if isinstance(about, dict) else None
    for subject in (*SUBJECTS, *TUNING_SUBJECTS):
        if subject.name != name:
            continue
        for prompt in subject.prompts:
            if prompt.text.format(f"{config.word} {config.noun}") == config.prompt:
                asked = frozenset({"kind", *prompt.expected})
                return Truth(None, prompt.scene, asked, f"What {prompt.text!r} asks for.")
        scene = subject.scenes[0]
        return Truth(None, scene, frozenset({"kind"}), f"The subject {name}; its prompt is none of its own.")
    return Truth(why="The subject is none of the toy world's, so no truth is known of it.")


def answers(verdict: Verdict, row: int, scene: Scene) -> Mapping[str, bool | None]:
    """The judge's answers for picture number `row`: whether it shows what `scene` asks for."""
    one = Verdict(
        verdict.kinds[row : row + 1],
        {name: logits[row : row + 1] for name, logits in verdict.things.items()},
        {name: logits[row : row + 1] for name, logits in verdict.pictures.items()},
        verdict.known[row : row + 1],
        verdict.identity[row : row + 1],
    )
    return {name: given[0] for name, given in one.scores([scene]).items()}


def _scene_of(image: Path) -> Scene | None:
    """The scene in `metadata.jsonl` beside the picture, if rendering it gives the picture."""
    place = image.parent / "metadata.jsonl"
    if not place.is_file():
        return None
    try:
        lines = read_bytes(place, max_bytes=MAX_BYTES).decode(errors="replace").splitlines()
        rows = (json.loads(line) for line in lines if image.name in line)
        scene = next((_scene(row["scene"]) for row in rows if row.get("file_name") == image.name), None)
        if scene is None:
            return None
        pixels = to_unit(read_image(image).image)
        if pixels.shape[-1] != pixels.shape[-2]:
            return None
        drawn = render([scene], size=pixels.shape[-1]).pixels
    except (ScumbleError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    same = bool(((drawn - pixels).abs() <= 1.5 / 255).all())
    return scene if same and describe(scene) else None


def _scene(row: Any) -> Scene:
    """A scene from the JSON of one. Raises TypeError, KeyError or ValueError for another."""
    values = cast("dict[str, Any]", row)
    things = tuple(Thing(**{**thing, "look": Look(**thing["look"])}) for thing in values["things"])
    if not 1 <= len(things) <= 2:
        raise ValueError("a scene has one or two things")
    return Scene(**{**values, "things": things})


def _read(place: Path) -> Any:
    try:
        return json.loads(read_bytes(place, max_bytes=MAX_BYTES))
    except (ScumbleError, ValueError, RecursionError):
        return None
