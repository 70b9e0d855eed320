"""Every method that edits, as one function of a case of a set, so that all run the same protocol."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from PIL import Image

from scumble.bench.sets import EditCase
from scumble.core.events import Loop
from scumble.verbs import edit_instruct, edit_sdedit, edit_text2live

__all__ = ["EDITORS", "Editor"]

Editor = Callable[[EditCase, Path, int], Loop[Image.Image]]
"""`edit(case, image, seed)`: what becomes of the picture in the file `image`."""


def _sdedit(model: str, steps: int | None) -> Editor:
    """From the caption of the result, with the usual t0 of 0.5, everything free to change."""
    given = {"model": model, **({"steps": steps} if steps else {})}
    loaded = edit_sdedit.SdeditConfig.of(given).load()

    def edit(case: EditCase, image: Path, seed: int) -> Loop[Image.Image]:
        config = edit_sdedit.SdeditConfig.of({**given, "prompt": case.after, "seed": seed})
        work = edit_sdedit.prepare(image, prompt=config.prompt)
        [picture] = yield from edit_sdedit.repaint(config, loaded, work)
        return picture.image

    return edit


def _instruct(model: str, steps: int | None) -> Editor:
    """From the instruction, with the scales that the model's makers recommend."""
    given = {"model": model, **({"steps": steps} if steps else {})}
    loaded = edit_instruct.InstructConfig.of({**given, "instructions": ("edit",)}).load()

    def edit(case: EditCase, image: Path, seed: int) -> Loop[Image.Image]:
        told = {"instructions": (case.instruction,), "seed": seed}
        config = edit_instruct.InstructConfig.of({**given, **told})
        work = edit_instruct.prepare(image, None, config)
        [picture] = yield from edit_instruct.follow(config, loaded, work)
        return picture.image

    return edit


def _text2live(model: str, steps: int | None) -> Editor:
    """From the caption of the result; `model` is the CLIP that leads, and the region is found by it."""
    given = {"clip": model, **({"steps": steps} if steps else {})}
    clip, known = edit_text2live.Text2liveConfig.of({**given, "prompt": "edit"}).load_clip()

    def edit(case: EditCase, image: Path, seed: int) -> Loop[Image.Image]:
        config = edit_text2live.Text2liveConfig.of({**given, "prompt": case.after, "seed": seed})
        [edited] = yield from edit_text2live.paint([config], clip, known, edit_text2live.prepare(image))
        return edited.image

    return edit


EDITORS: dict[str, Callable[[str, int | None], Editor]] = {
    "instruct": _instruct,
    "sdedit": _sdedit,
    "text2live": _text2live,
    # A method that edits adds a line: its name, and what makes its editor from a model's name and steps.
}
"""Method -> `make(model, steps)`, which loads the model once."""
