"""What a request is told when it cannot be answered: one sentence, a remedy, and the field at fault."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from starlette.responses import JSONResponse

from scumble.core.errors import ConfigError, MissingExtraError, ResourceError, ScumbleError

__all__ = ["Refused", "answer", "as_refused", "field_of", "not_found"]


class Refused(Exception):  # noqa: N818
    """A request that is not answered as asked: HTTP status, sentence, remedy, and the field, if it is one."""

    def __init__(
        self,
        status: int,
        error: str,
        remedy: str = "",
        *,
        field: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(error)
        self.status, self.error, self.remedy, self.field = status, error, remedy, field
        self.headers = dict(headers or {})


def not_found(what: str = "It", field: str | None = None) -> Refused:
    """The one answer for what is not there and for what is another session's."""
    return Refused(404, f"{what} is not here.", "It may have been removed.", field=field)


def answer(refused: Refused) -> JSONResponse:
    """The response that says so."""
    content = {"error": refused.error, "remedy": refused.remedy, "field": refused.field}
    return JSONResponse(content, refused.status, refused.headers)


def as_refused(error: ScumbleError, fields: Iterable[str] = ()) -> Refused:
    """An error of the library, as an answer to settings with these `fields`."""
    status = 503 if isinstance(error, ResourceError | MissingExtraError) else 422
    return Refused(status, error.message, error.remedy, field=field_of(error, fields))


def field_of(error: ScumbleError, fields: Iterable[str]) -> str | None:
    """Which of `fields` an error about a setting speaks of, if it says so."""
    if not isinstance(error, ConfigError):
        return None
    found = re.match(r"(?:The setting |There is no (?:setting )?'?)?([a-z_0-9]+)\b", error.message)
    return found[1] if found and found[1] in set(fields) else None
