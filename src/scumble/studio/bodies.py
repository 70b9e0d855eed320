"""The bodies of requests: never longer than allowed, whatever their length says; JSON read strictly."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from math import isfinite
from pathlib import Path
from secrets import token_hex
from typing import Any, cast

from starlette.requests import ClientDisconnect, Request

from scumble.studio.problems import Refused

__all__ = ["MAX_JSON", "read_json", "received"]

MAX_JSON = 256 * 1024
"""Bytes of JSON in a request, at most."""
DEEPEST = 10
"""Objects and lists inside one another, at most."""
PATIENCE = 300
"""Seconds that a body may take."""
FORMS = ("multipart/form-data", "application/x-www-form-urlencoded")


async def read_json(request: Request) -> dict[str, Any]:
    """The JSON object in a request. Raises Refused for anything else, and for NaN and infinity in it."""
    if _content_type(request) != "application/json":
        raise Refused(415, "The request is not JSON.", "Send it as application/json.")
    content = bytearray()
    async for chunk in _limited(request, MAX_JSON):
        content += chunk
    try:
        value = json.loads(content.decode(), parse_constant=_number, parse_float=_number)
    except RecursionError:
        raise Refused(400, "The JSON is nested too deeply.") from None
    except ValueError as problem:
        raise Refused(400, "The request is no sound JSON.", f"{str(problem)[:100]}.") from None
    if not isinstance(value, dict):
        raise Refused(400, "The request is no JSON object.")
    _check(value, DEEPEST)
    return cast("dict[str, Any]", value)


@asynccontextmanager
async def received(request: Request, folder: Path, limit: int) -> AsyncGenerator[Path]:
    """A temporary file in `folder` with the body of an upload of at most `limit` bytes. Raises Refused."""
    if _content_type(request) in FORMS:
        raise Refused(415, "A form was sent, not a file.", "Send the file's bytes as the body.")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = folder / f"{token_hex(16)}.partial"
    try:
        with path.open("xb") as file:
            async for chunk in _limited(request, limit):
                await asyncio.to_thread(file.write, chunk)
        yield path
    finally:
        path.unlink(missing_ok=True)


async def _limited(request: Request, limit: int) -> AsyncIterator[bytes]:
    """The body in pieces. Raises Refused where it is, or says that it is, longer than `limit`, or slow."""
    too_long = Refused(413, f"This is longer than {limit:,} bytes.", "Send something smaller.")
    announced = request.headers.get("content-length", "0")
    if not announced.isascii() or not announced.isdecimal():
        raise Refused(400, "The length of the request is no number.")
    if len(announced) > 18 or int(announced) > limit:
        raise too_long
    read, last, pieces = 0, time.monotonic() + PATIENCE, aiter(request.stream())
    while True:
        try:
            chunk = await asyncio.wait_for(anext(pieces), last - time.monotonic())
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise Refused(408, f"The request took longer than {PATIENCE} seconds to arrive.") from None
        except ClientDisconnect:
            raise Refused(400, "The request was cut short.") from None
        read += len(chunk)
        if read > limit:
            raise too_long
        yield chunk


def _content_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _number(text: str) -> float:
    if not isfinite(number := float(text)):
        raise ValueError(f"{text[:20]} is no number")
    return number


def _check(value: object, left: int) -> None:
    """Raises Refused where a value is nested deeper than `left`, or a text in it is none."""
    if isinstance(value, str) and not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise Refused(400, "A text in the JSON has half a character in it.") from None
    if not isinstance(value, dict | list):
        return
    if not left:
        raise Refused(400, "The JSON is nested too deeply.")
    inner = cast("dict[str, object]", value) if isinstance(value, dict) else cast("list[object]", value)
    for one in [*inner, *inner.values()] if isinstance(inner, dict) else inner:
        _check(one, left - 1)
