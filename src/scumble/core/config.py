"""Settings: frozen, keyword-only, checked, and the same in Python and in TOML.

    class Steps(Config):
        count: Annotated[int, Field(ge=1)] = 25
        \"\"\"Denoising steps.\"\"\"

The docstring under a field is its description: it stands in error messages and as a comment in the TOML text.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from types import NoneType
from typing import Any, Self, cast, get_args

import tomli_w
from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, ValidationError
from pydantic_core import CoreSchema, ErrorDetails

from scumble.core.errors import ConfigError
from scumble.core.files import read_bytes

__all__ = ["MAX_TOML", "Config"]

MAX_TOML = 1_000_000
"""The longest settings file read, in bytes."""


def _make_strict(part: object) -> None:
    """Have every number and boolean that the core schema `part` speaks of taken as it is."""
    if isinstance(part, dict):
        schema = cast("dict[str, object]", part)
        if schema.get("type") in ("int", "float", "bool"):
            schema["strict"] = True
        parts = [inner for name, inner in schema.items() if name not in ("default", "metadata")]
    else:
        parts = cast("list[object]", part) if isinstance(part, list) else []
    for inner in parts:
        _make_strict(inner)


class Config(BaseModel):
    """Base of all settings. Making one from values that do not fit raises ConfigError: one sentence with the
    setting, the value and what is allowed.

    Numbers and booleans are taken as they are: no text is read as one, a boolean is no number, and 5 is as
    good as 5.0 but not the other way round. No number is NaN or infinite, but in a class that sets
    `allow_inf_nan`. Lists are as good as tuples, and texts as paths.

    TOML has no null, so a setting that may be None must have None for its default.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        validate_default=True,
        protected_namespaces=(),
        allow_inf_nan=False,
    )

    def __init__(self, /, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as problem:
            raise _explained(type(self), problem.errors(include_url=False)[0]) from None

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        for name, field in cls.model_fields.items():
            if NoneType in get_args(field.annotation) and field.get_default() is not None:
                raise TypeError(f"{cls.__name__}.{name} may be None, so its default must be None.")

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler, /) -> CoreSchema:
        schema = handler(source)
        _make_strict(handler.resolve_ref_schema(schema))
        return schema

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """Settings from a mapping. Raises ConfigError."""
        return cls(**values)

    @classmethod
    def from_toml(cls, path: Path | str, **overrides: Any) -> Self:
        """Settings from a TOML file, those in `overrides` winning. Raises ConfigError."""
        try:
            values = tomllib.loads(read_bytes(path, max_bytes=MAX_TOML, error=ConfigError).decode())
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as problem:
            raise ConfigError(f"{path} is not a TOML file: {problem}.") from problem
        return cls(**(values | overrides))

    def to_toml(self) -> str:
        """The settings as TOML, each under its description; `from_toml` reads it back to an equal value."""
        values = self.model_dump(mode="json", exclude_none=True)
        # Tables come last: whatever follows a table header would belong to the table.
        ordered = sorted(values.items(), key=lambda item: isinstance(item[1], dict))
        return "\n".join(_comment(type(self), name) + tomli_w.dumps({name: value}) for name, value in ordered)

    def replace(self, **changes: Any) -> Self:
        """The same settings but for `changes`, checked like new ones."""
        return type(self)(**(dict(self) | changes))


def _comment(kind: type[Config], name: str) -> str:
    lines = (kind.model_fields[name].description or "").splitlines()
    return "".join(f"# {line}".rstrip() + "\n" for line in lines)


def _explained(kind: type[Config], error: ErrorDetails) -> ConfigError:
    """The first thing that pydantic found wrong, as one sentence."""
    location = error["loc"]
    name = ".".join(map(str, location)) or kind.__name__
    if error["type"] == "extra_forbidden" and len(location) == 1:
        near = get_close_matches(name, kind.model_fields, n=1)
        known = ", ".join(kind.model_fields)
        remedy = f"Did you mean {near[0]!r}?" if near else f"There are: {known}."
        return ConfigError(f"There is no setting {name[:80]!r}.", remedy)
    description = kind.model_fields[str(location[0])].description if location else None
    remedy = f"It means: {' '.join(description.split())}" if description else ""
    if error["type"] == "missing":
        return ConfigError(f"The setting {name} is missing.", remedy)
    value = repr(error["input"])
    shown = value if len(value) <= 80 else f"{value[:77]}..."
    reason = error["msg"].removeprefix("Value error, ").removesuffix(".")
    reason = reason.replace("Input should be", "it should be", 1)
    return ConfigError(f"{name} cannot be {shown}: {reason[:1].lower()}{reason[1:]}.", remedy)
