"""A language model behind an address that speaks OpenAI's protocol, with nothing but the standard library.

Whatever answers is a stranger: no redirect is followed, an answer has a largest size and a time by which it
has to be whole however slowly it drips, and what it says is text to be parsed. The key comes from a variable
of the environment that the caller names, goes to the one address only, and never over a plain connection to
another machine.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any, Literal, cast
from urllib.parse import urlsplit

from scumble.core.errors import InputError, ScumbleError
from scumble.datagen.completions import END, SEPARATOR, Answer, Sampling, question

__all__ = ["Address", "RemoteModel"]

MAX_BYTES = 1_000_000
"""The longest answer read, in bytes."""
MAX_WAIT = 60.0
"""The longest pause before another try, in seconds, whatever the server asks for."""
IN_A_ROW = 5
"""So many captions without any answer end the run."""

_TASK = f"""You write data for an image editor. You are given the caption of a picture. Think of one edit of
the picture that a person could ask for, and answer with three lines and nothing else: the instruction, a line
with {SEPARATOR.strip()} alone, and the caption of the edited picture, in the same words but for the edit."""
_EXAMPLES = (
    ("a wooden boat on a lake", "make it winter", "a wooden boat on a frozen lake in winter"),
    ("portrait of a woman with long hair", "give her a straw hat", "portrait of a woman in a straw hat"),
    ("a bowl of apples on a table", "swap the apples for lemons", "a bowl of lemons on a table"),
)


@dataclass(frozen=True, slots=True)
class Address:
    """Where a model is, such as `http://localhost:8000/v1`, and how it is asked."""

    url: str
    model: str = ""
    key_variable: str = ""
    """The variable of the environment that holds the key; none sends no key."""
    form: Literal["chat", "completions"] = "chat"
    """chat shows a model examples of the form; completions is for models tuned on it."""
    timeout: float = 60.0
    """Seconds until an answer has to be whole."""
    at_once: int = 8
    """Questions asked at the same time."""


class _AskError(Exception):
    """One try that gave nothing. `again` says whether another may help, `after` how many seconds from now."""

    def __init__(self, reason: str, *, again: bool = True, after: float = 0.0) -> None:
        super().__init__(reason)
        self.reason, self.again, self.after = reason, again, after


@dataclass(slots=True)
class RemoteModel:
    """Asks the model at `address`; raises InputError at once where the address cannot be one."""

    address: Address
    sampling: Sampling
    retries: int = 4
    """Further tries of a question that the server could not take: it was busy, slow, or broke off."""
    pause: float = 1.0
    """Seconds before the first of them; doubled each time."""
    sleep: Callable[[float], None] = time.sleep
    retried: int = 0
    """How often a question was put again."""
    _failed_in_a_row: int = 0
    _last: str = ""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        scheme, host = _parts(self.address.url)
        if self._key() and scheme == "http" and not _is_here(host):
            raise InputError(f"The key would go to {host} in plain text.", "Use an https:// address.")

    def __call__(self, captions: Sequence[str], _attempt: int) -> list[Answer]:
        """An answer for each caption. Raises InputError where the address refuses altogether, ScumbleError
        where it stops answering.
        """
        with ThreadPoolExecutor(self.address.at_once) as pool:
            return list(pool.map(self._ask, captions))

    def _ask(self, caption: str) -> Answer:
        self._give_up_on(None)
        for number in range(self.retries + 1):
            try:
                text = self._said(self._post(self._payload(caption)))
            except _AskError as failure:
                if not failure.again:
                    return Answer(None, failure.reason)
                if number == self.retries:
                    self._give_up_on(failure)
                    return Answer(None, "unanswered")
                with self._lock:
                    self.retried += 1
                self.sleep(min(MAX_WAIT, max(failure.after, self.pause * 2**number)))
            else:
                with self._lock:
                    self._failed_in_a_row = 0
                return Answer(text)
        raise AssertionError("unreachable")

    def _give_up_on(self, failure: _AskError | None) -> None:
        """Note a caption that got no answer at all; raises ScumbleError when there are too many in a row."""
        with self._lock:
            self._failed_in_a_row += failure is not None
            self._last = failure.reason if failure is not None else self._last
            if self._failed_in_a_row >= IN_A_ROW:
                raise ScumbleError(
                    f"{self.address.url} does not answer: {self._last}, {IN_A_ROW} questions in a row.",
                    "Start the server, or wait; the same command then goes on with the answers so far.",
                )

    # One try

    def _payload(self, caption: str) -> dict[str, Any]:
        settings: dict[str, Any] = {
            "model": self.address.model,
            "temperature": self.sampling.temperature,
            "top_p": self.sampling.top_p,
            "frequency_penalty": self.sampling.frequency_penalty,
            "max_tokens": self.sampling.max_tokens,
            "stop": [END],
        }
        if self.address.form == "completions":
            return settings | {"prompt": question(caption)}
        messages = [{"role": "system", "content": _TASK}]
        for given, instruction, edited in _EXAMPLES:
            messages.append({"role": "user", "content": given})
            messages.append({"role": "assistant", "content": f"{instruction}{SEPARATOR}{edited}"})
        return settings | {"messages": [*messages, {"role": "user", "content": caption}]}

    def _post(self, payload: dict[str, Any]) -> object:
        """The JSON that one request brings. Raises _AskError, and InputError where no request will."""
        parts = urlsplit(self.address.url)
        secure = parts.scheme == "https"
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        extra: dict[str, Any] = {"context": ssl.create_default_context()} if secure else {}
        connection = kind(cast("str", parts.hostname), parts.port, timeout=self.address.timeout, **extra)
        # A socket's own limit is for one piece; this one is for the whole answer.
        late = threading.Event()
        alarm: threading.Timer | None = None
        try:
            connection.connect()
            # The socket itself, which the connection forgets once the answer has begun.
            alarm = threading.Timer(self.address.timeout, _break, [connection.sock, late])
            alarm.daemon = True
            alarm.start()
            place = "/chat/completions" if self.address.form == "chat" else "/completions"
            headers = {"Content-Type": "application/json"}
            if key := self._key():
                headers["Authorization"] = f"Bearer {key}"
            connection.request("POST", parts.path.rstrip("/") + place, json.dumps(payload), headers)
            response = connection.getresponse()
            body = response.read(MAX_BYTES + 1)
        except (OSError, http.client.HTTPException) as problem:
            raise _AskError("it took too long" if late.is_set() else _said_plainly(problem)) from problem
        finally:
            if alarm is not None:
                alarm.cancel()
            connection.close()
        if late.is_set():
            raise _AskError("it took too long")
        self._check(response)
        if len(body) > MAX_BYTES:
            raise _AskError("too long", again=False)
        try:
            return json.loads(body)
        except (ValueError, RecursionError) as problem:
            raise _AskError("malformed", again=False) from problem

    def _check(self, response: http.client.HTTPResponse) -> None:
        status = response.status
        if 200 <= status < 300:
            return
        if 300 <= status < 400:
            raise InputError(
                f"{self.address.url} sends on to {(response.getheader('Location') or 'nowhere')[:200]!r}.",
                "Give that address itself, if you trust it.",
            )
        if status in (401, 403, 404):
            what = {401: "it wants a key", 403: "it is forbidden", 404: "nothing is there"}[status]
            raise InputError(
                f"{self.address.url} refuses with status {status}: {what}.",
                "Check the address, the model's name and the key.",
            )
        if status in (408, 409, 425, 429) or status >= 500:
            raise _AskError(f"status {status}", after=_seconds(response.getheader("Retry-After")))
        raise _AskError("refused", again=False)

    def _said(self, content: object) -> str:
        """The text in a response. Raises _AskError where it has none, or was cut short."""
        try:
            choice: Any = cast("Any", content)["choices"][0]
            text = choice["message"]["content"] if self.address.form == "chat" else choice["text"]
            cut = choice.get("finish_reason") == "length"
        except (KeyError, IndexError, TypeError, AttributeError) as problem:
            raise _AskError("malformed", again=False) from problem
        if cut or not isinstance(text, str):
            raise _AskError("malformed", again=False)
        return text

    def _key(self) -> str:
        name = self.address.key_variable
        if name and not os.environ.get(name):
            raise InputError(f"The environment has no variable {name!r}.", "It should hold the key.")
        return os.environ[name] if name else ""


def _parts(url: str) -> tuple[str, str]:
    """Scheme and host. Raises InputError where it is no address of a server."""
    with suppress(ValueError):
        parts = urlsplit(url)
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0:
            return parts.scheme, parts.hostname
    raise InputError(f"{url!r} is no address.", "Write it like http://localhost:8000/v1.")


def _is_here(host: str) -> bool:
    with suppress(ValueError):
        return ip_address(host).is_loopback
    return host == "localhost"


def _break(connected: socket.socket, late: threading.Event) -> None:
    """End whatever is going on: a read under way returns."""
    late.set()
    with suppress(OSError):
        connected.shutdown(socket.SHUT_RDWR)


def _seconds(header: str | None) -> float:
    try:
        return max(0.0, float(header or 0))
    except ValueError:
        return 0.0  # a date: our own pause will do


def _said_plainly(problem: Exception) -> str:
    if isinstance(problem, TimeoutError):
        return "it took too long"
    if isinstance(problem, ConnectionRefusedError):
        return "nobody is there"
    return "it broke off"
