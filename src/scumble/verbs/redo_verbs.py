"""Which commands can be done again from a recipe, and how: one line each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from scumble.core.config import Config
from scumble.core.events import Loop
from scumble.history.store import Made
from scumble.verbs import (
    composite,
    edit_instruct,
    edit_sdedit,
    edit_text2live,
    edit_video,
    generate,
    redo_film,
    strokes,
    upscale,
)
from scumble.verbs.load import ModelConfig
from scumble.verbs.outputs import Picture
from scumble.verbs.vision import VisionConfig

__all__ = ["OURS", "VERBS", "Verb"]


@dataclass(frozen=True, slots=True)
class Verb:
    """How the outputs of one command are made again."""

    config: type[Config]
    """The settings; those in a recipe are checked by it."""
    again: Callable[..., Loop[list[Picture]]]
    """`again(config, model, files)`: every picture of the run. `model` is the loaded one of a ModelConfig,
    else None; `files` maps roles to files."""
    needs: tuple[str, ...] = ()
    """Roles of the files without which it cannot be."""
    takes: tuple[str, ...] = ()
    """Roles of those that may be there."""
    places: tuple[str, ...] = ()
    """Settings that name a file, a folder or a model of the hub: never taken from a recipe."""
    film: Callable[..., Loop[tuple[list[Made], str]]] | None = None
    """For videos, which `again` cannot give: `film(config, files, out, overwrite=...)` writes one itself, and
    says what the history shall remember and what the person should know."""


VERBS: dict[str, Verb] = {
    "generate": Verb(generate.GenerateConfig, generate.again, takes=("upscaler",), places=("upscaler",)),
    "upscale": Verb(upscale.UpscaleConfig, upscale.again, ("image",)),
    "edit instruct": Verb(edit_instruct.InstructConfig, edit_instruct.again, ("image",), ("mask",)),
    "edit sdedit": Verb(edit_sdedit.SdeditConfig, edit_sdedit.again, ("guide",), ("original", "mask")),
    "edit text2live": Verb(edit_text2live.Text2liveConfig, edit_text2live.again, ("image",), ("mask",)),
    "edit text2live of a video": Verb(
        edit_video.VideoEditConfig,
        redo_film.again,
        ("video", "atlas"),
        ("mask", "painted"),
        film=redo_film.film,
    ),
    "strokes": Verb(strokes.StrokesConfig, strokes.again, ("image",)),
    "composite": Verb(composite.CompositeConfig, composite.again, ("image", "patch")),
    # A verb that writes pictures with recipes has a function `again(config, model, files)` that does its work
    # and returns its `Picture`s, and a line here: the command as its recipes have it, its Config, that
    # function, the roles of its ingredients. Settings of its own that say where something lies (not those of
    # ModelConfig and VisionConfig, which no recipe has) go into `places`:
    # "edit words": Verb(words.WordsConfig, words.again, ("image",), ("mask",), places=("dictionary",)),
}
"""Command of a recipe, `of a video` where one went in -> how to do it again."""

OURS = (ModelConfig.model_fields.keys() | VisionConfig.model_fields.keys()) - {"seed"}
"""Settings of where and how to compute, which no recipe has."""
