"""Recipes: everything needed to make an output again, as a value, as JSON, and as a line of text.

A recipe names its inputs by base name and hash only, so that a shared picture does not carry its maker's
folder names. What is read back is a stranger's text: it is checked, capped in size and never acted on.
Where an input lay on this machine is known to the run that read it, and to its history; it is never written
into a recipe nor read from one.
"""

from __future__ import annotations

import platform
import re
from importlib.metadata import version
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError

from scumble.core.errors import InputError
from scumble.core.text import printable
from scumble.core.version import VERSION

__all__ = ["FORMAT", "Ingredient", "Recipe", "library_versions", "parameters_line", "printable"]

FORMAT = 1
"""Version of the recipe format; a recipe of a later one is refused by name."""

MAX_JSON = 256 * 1024
"""Characters of recipe JSON that are read from a file; no recipe of ours is a tenth of it."""

HUB_ID = re.compile(r"[^/\\\s]+/[^/\\\s]+")
Name = Annotated[str, Field(max_length=255)]
Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{8,64}$")]
Text = Annotated[str, Field(max_length=20_000)]


class Ingredient(BaseModel):
    """A file that went into an output: a model, learnt weights, a picture, a mask."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: Annotated[str, Field(max_length=40)]
    name: Name
    hash: Hash
    scale: float | None = None
    _place: str = PrivateAttr(default="")

    @classmethod
    def of(cls, role: str, path: str | PurePath, digest: str, scale: float | None = None) -> Ingredient:
        """An ingredient that remembers the base name of `path` and the `digest` of its content.

        A model that is no file here keeps its whole name, since `owner/model` is where the hub has it.
        """
        here = Path(path).expanduser()
        lies_here = here.exists()
        whole = role in ("model", "upscaler") and not lies_here and HUB_ID.fullmatch(str(path)) is not None
        made = cls(role=role, name=str(path) if whole else PurePath(path).name, hash=digest, scale=scale)
        made._place = str(here.absolute()) if lies_here else ""
        return made

    @property
    def place(self) -> str:
        """Where it lay when it was read by this process; empty for what no file on this machine was."""
        return self._place

    def __eq__(self, other: object) -> bool:
        """Whether both say the same; where they lay does not count."""
        return isinstance(other, Ingredient) and self.model_dump() == other.model_dump()

    def __hash__(self) -> int:
        return hash((self.role, self.name, self.hash, self.scale))


class Recipe(BaseModel):
    """How one output was made."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = FORMAT
    scumble: Annotated[str, Field(max_length=40)] = VERSION
    command: Annotated[str, Field(max_length=60)]
    settings: dict[Annotated[str, Field(max_length=60)], Any]
    output: Annotated[str, Field(max_length=20)] | None = None
    """Which of the command's results this is: none for the picture itself, `grid`, `mask`."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Of the picture; 0 where nothing is left to chance."""
    batch: tuple[Annotated[int, Field(ge=0, lt=2**63)], Annotated[int, Field(ge=1, le=1024)]] | None = None
    """First seed and number of the pictures that were computed together with this one: arithmetic differs in
    its last bits with the batch, so the same pixels need the same company."""
    model: Ingredient | None = None
    """None where no model took part, as in pasting."""
    ingredients: tuple[Ingredient, ...] = ()
    machine: dict[Annotated[str, Field(max_length=40)], Annotated[str, Field(max_length=200)]] = {}

    def to_json(self) -> str:
        """The recipe on one line of ASCII JSON, keys in the order of the fields."""
        return self.model_dump_json(exclude_none=True, ensure_ascii=True)

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        """Read a recipe; `text` is untrusted. Raises InputError with one sentence."""
        if len(text) > MAX_JSON:
            raise InputError(f"The recipe in this file has {len(text)} characters, over {MAX_JSON}.")
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            if first["loc"] == ("format",):
                raise InputError("This recipe is of another version of scumble.", "Update scumble.") from None
            where = printable(".".join(str(part) for part in first["loc"]), 80) or "its JSON"
            reason = printable(first["msg"], 200)
            raise InputError(f"The recipe in this file cannot be used: {where}: {reason}.") from None


def library_versions(device: str, threads: int) -> dict[str, str]:
    """What the same pixels depend on besides the recipe: versions, device, threads."""
    libraries = ("torch", "diffusers", "transformers", "pillow")
    return {
        **{name: version(name) for name in libraries},
        "python": platform.python_version(),
        "device": device,
        "threads": str(threads),
    }


SAMPLER_NAMES = {
    "ddpm": "DDPM",
    "ddim": "DDIM",
    "euler": "Euler",
    "euler_ancestral": "Euler a",
    "heun": "Heun",
    "dpmpp_2m": "DPM++ 2M",
    "dpmpp_2m_sde": "DPM++ 2M SDE",
}
"""Samplers under the names that A1111 writes, where it has them."""


def parameters_line(recipe: Recipe) -> str:
    """The recipe as the `parameters` text that A1111 writes and that many programs read.

    The prompt, or the instructions; a line with the negative prompt, if any; one line of `Key: value` pairs.
    """
    settings = recipe.settings
    lines = [str(settings.get("prompt") or "; ".join(map(str, settings.get("instructions", ()))))]
    if settings.get("negative"):
        lines.append(f"Negative prompt: {settings['negative']}")
    sampler = str(settings.get("sampler", ""))
    pairs: dict[str, Any] = {
        "Steps": settings.get("steps"),
        "Sampler": SAMPLER_NAMES.get(sampler, sampler or None),
        "CFG scale": settings.get("guidance"),
        "Seed": recipe.seed,
        "Size": f"{settings['width']}x{settings['height']}" if "width" in settings else None,
        "Model hash": recipe.model.hash[:10] if recipe.model else None,
        "Model": _quoted(recipe.model.name) if recipe.model else None,
        "Version": f"scumble {recipe.scumble}",
    }
    lines.append(", ".join(f"{key}: {value}" for key, value in pairs.items() if value is not None))
    return "\n".join(lines)


def _quoted(value: str) -> str:
    return f'"{value}"' if any(c in value for c in ',:\n"') else value
