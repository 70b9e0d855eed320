"""Forms, made from the settings that verbs have: nothing about a field is written twice.

Names, types, ranges, defaults and choices come from the pydantic models, help from the docstrings under their
fields; choices of settings that are plain text come from the tables that the settings themselves look into.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any

from scumble.core.config import Config
from scumble.diffusion.samplers import SAMPLERS
from scumble.diffusion.spacing import SPACINGS
from scumble.verbs.load import ModelConfig
from scumble.verbs.vision import VisionConfig

__all__ = ["CAPS", "TEXTS", "field_for", "fields_of", "is_offered"]

OURS = (ModelConfig.model_fields.keys() | VisionConfig.model_fields.keys()) - {"seed", "weights", "clip"}
"""Settings of where and how to compute: chosen when the studio starts, never by the web. (`clip` is a name of
a model in some verbs, and a length of gradients in others.)
"""
TEXTS = frozenset({
    "after", "before", "described", "earlier", "identifier", "initial", "instruction", "instructions",
    "methods", "negative", "negatives", "noun", "preset", "prompt", "region", "sampler", "screen",
    "screen_templates", "spacing", "targets", "templates", "word",
})  # fmt: skip
"""Settings of free text that are words and nothing else. Any other could name a file, a folder or a model to
fetch, and so is not offered and not taken: a new one has to be looked at and put here first."""
CAPS: dict[str, int] = {
    "count": 32, "batch": 32, "width": 2048, "height": 2048, "size": 2048, "seed": 2**53 - 1,
    "prior_count": 2000, "channels": 256, "learning_steps": 10_000, "layer_steps": 1000,
}  # fmt: skip
"""Greatest values in the studio, where settings alone allow more: one person may not take all the machine,
and JavaScript counts exactly up to 2^53."""
CHOICES: dict[str, Callable[[], Iterable[str]]] = {
    "sampler": lambda: SAMPLERS,
    "spacing": lambda: SPACINGS,
}
LABELS = {
    "lr": "Learning rate", "text_lr": "Learning rate of the text encoders", "t0": "Noise (t0)",
    "others": "Further subjects",
}  # fmt: skip
"""Of names that are no words."""
UNITS = (("pixel", "px"), ("degree", "°"), ("seconds", "s"))


def fields_of(
    kind: type[Config],
    *,
    plain: Iterable[str],
    defaults: Mapping[str, Any],
    choices: Mapping[str, Iterable[str]] | None = None,
) -> list[dict[str, Any]]:
    """The fields of a form for settings of `kind`: those in `plain` first and in that order, all others
    `advanced`.

    `defaults` take the place of the model's own, `choices` add to the tables known here.
    """
    found: dict[str, dict[str, Any]] = {}
    for name, about in _schema(kind).items():
        known = (choices or {}).get(name) or (CHOICES[name]() if name in CHOICES else None)
        own = kind.model_fields[name]
        if is_offered(kind, name):
            found[name] = field_for(
                name, about,
                default=defaults.get(name, None if own.is_required() else own.get_default()),
                choices=known, required=own.is_required(), advanced=name not in set(plain),
            )  # fmt: skip
    first = [name for name in plain if name in found]
    return [found[name] for name in [*first, *(name for name in found if name not in first)]]


def field_for(
    name: str,
    about: Mapping[str, Any],
    *,
    default: Any = None,
    choices: Iterable[str] | None = None,
    required: bool = False,
    advanced: bool = False,
) -> dict[str, Any]:
    """One field, from its JSON schema."""
    kinds = [kind for kind in about.get("anyOf", [about]) if kind.get("type") != "null"]
    shape: Mapping[str, Any] = kinds[0] if kinds else {}
    listed = list(choices) if choices is not None else shape.get("enum")
    low, high = _limits(name, shape)
    kind = _type(name, shape)
    kind = "choice" if listed and kind != "words" else kind
    help_ = " ".join(str(about.get("description", "")).split())
    return {
        "name": name,
        "label": LABELS.get(name, name.replace("_", " ").capitalize()),
        "help": help_,
        "type": kind,
        "default": list(default) if isinstance(default, tuple | set | frozenset) else default,
        "min": low,
        "max": high,
        "step": _step(kind, low, high, default),
        "choices": listed,
        "unit": _unit(help_) if kind in ("int", "float", "pair") else None,
        "advanced": advanced,
        "required": required,
    }


@cache
def _schema(kind: type[Config]) -> dict[str, Any]:
    """JSON schema of every setting; making it takes longer than answering a request."""
    return kind.model_json_schema()["properties"]


def is_offered(kind: type[Config], name: str) -> bool:
    """Whether the web may set the setting `name` of `kind`."""
    if name in OURS:
        return False
    about = _schema(kind)[name]
    shapes = about.get("anyOf", [about])
    free = any(_free(shape) or _free(shape.get("items", {})) for shape in shapes)
    return not free or name in TEXTS or name == "weights"


def _free(shape: Mapping[str, Any]) -> bool:
    """Whether any text would do."""
    return shape.get("type") == "string" and "enum" not in shape


def _type(name: str, shape: Mapping[str, Any]) -> str:
    if name in ("seed", "weights"):
        return name
    if name == "others":
        return "subjects"
    if shape.get("type") == "array":
        return "pair" if "prefixItems" in shape else "words"
    return {"integer": "int", "number": "float", "boolean": "bool"}.get(str(shape.get("type")), "text")


def _limits(name: str, shape: Mapping[str, Any]) -> tuple[float | None, float | None]:
    low = shape.get("minimum", shape.get("exclusiveMinimum"))
    high = shape.get("maximum", shape.get("exclusiveMaximum"))
    if name in CAPS and shape.get("type") == "integer":
        high = CAPS[name] if high is None else min(high, CAPS[name])
    return low, high


def _step(kind: str, low: float | None, high: float | None, default: object) -> float | None:
    """From one value to the next; None where they are spread over powers of ten, as learning rates are."""
    if kind == "int":
        return 1
    if kind != "float" or (isinstance(default, float) and 0 < default < 0.01):
        return None
    return 0.01 if low is not None and high is not None and high - low <= 1 else 0.1


def _unit(help_: str) -> str | None:
    return next((unit for word, unit in UNITS if re.search(rf"\b{word}", help_, re.IGNORECASE)), None)
