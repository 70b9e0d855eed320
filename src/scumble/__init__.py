"""scumble: six published ways to edit images with diffusion models.

    import scumble

    [picture] = scumble.generate("a red cat on the beach", seed=7)
    picture.image.save("cat.png")

The names below load what they need when they are first used; `import scumble` itself loads nothing heavy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from scumble.core.version import VERSION

if TYPE_CHECKING:
    from scumble.verbs.advise import advise as advise
    from scumble.verbs.atlas import atlas as atlas
    from scumble.verbs.compare import compare as compare
    from scumble.verbs.composite import composite as composite
    from scumble.verbs.convert import convert as convert
    from scumble.verbs.data_instructions import data_instructions as data_instructions
    from scumble.verbs.edit_instruct import edit_instruct as edit_instruct
    from scumble.verbs.edit_sdedit import edit_sdedit as edit_sdedit
    from scumble.verbs.edit_text2live import edit_text2live as edit_text2live
    from scumble.verbs.edit_video import edit_video as edit_video
    from scumble.verbs.generate import generate as generate
    from scumble.verbs.inspect import inspect as inspect
    from scumble.verbs.learn import learn as learn
    from scumble.verbs.load import load as load
    from scumble.verbs.merge import merge as merge
    from scumble.verbs.redo import redo as redo
    from scumble.verbs.strokes import strokes as strokes
    from scumble.verbs.train_instruct import train_instruct as train_instruct
    from scumble.verbs.upscale import upscale as upscale

__version__ = VERSION

_HOMES = {
    "advise": "scumble.verbs.advise",
    "atlas": "scumble.verbs.atlas",
    "compare": "scumble.verbs.compare",
    "composite": "scumble.verbs.composite",
    "convert": "scumble.verbs.convert",
    "data_instructions": "scumble.verbs.data_instructions",
    "edit_instruct": "scumble.verbs.edit_instruct",
    "edit_sdedit": "scumble.verbs.edit_sdedit",
    "edit_text2live": "scumble.verbs.edit_text2live",
    "edit_video": "scumble.verbs.edit_video",
    "generate": "scumble.verbs.generate",
    "inspect": "scumble.verbs.inspect",
    "learn": "scumble.verbs.learn",
    "load": "scumble.verbs.load",
    "merge": "scumble.verbs.merge",
    "redo": "scumble.verbs.redo",
    "strokes": "scumble.verbs.strokes",
    "train_instruct": "scumble.verbs.train_instruct",
    "upscale": "scumble.verbs.upscale",
}
"""Public names and the modules that they live in."""

__all__ = [
    "__version__",
    "advise",
    "atlas",
    "compare",
    "composite",
    "convert",
    "data_instructions",
    "edit_instruct",
    "edit_sdedit",
    "edit_text2live",
    "edit_video",
    "generate",
    "inspect",
    "learn",
    "load",
    "merge",
    "redo",
    "strokes",
    "train_instruct",
    "upscale",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'scumble' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
