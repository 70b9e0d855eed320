"""What stands before every request: who may be called by which name, from where, and what goes with answers.

- Host: a name of this server, so that no other name can be made to point here (DNS rebinding).
- Origin: where there is one it is this very server, `null` is refused; Sec-Fetch-Site, which browsers that
  have it cannot be made to leave out, says the same of requests without one. Only pages may be opened from
  elsewhere.
- What changes anything carries `X-Scumble: 1`, which no form and no link can send, and an Origin.
- Every answer forbids scripts, frames and addresses of others, guessing of types, referrers and caches.
"""

from __future__ import annotations

import ipaddress
import logging
import re
import socket
from http.cookies import CookieError, SimpleCookie

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from scumble.studio.problems import Refused, answer
from scumble.studio.sessions import YEAR, Session, Sessions
from scumble.studio.settings import LOOPBACK, Settings

__all__ = ["HEADERS", "Guard", "cookie_header", "session_of"]

log = logging.getLogger("scumble.studio")

UNFORESEEN = Refused(500, "Something went wrong that nobody foresaw.", "The studio's log says what it was.")
METHODS = ("GET", "POST", "DELETE")
OPEN = ("/api/login",)
"""What may be asked for without the password."""
HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9_.-]+))(?::[0-9]{1,5})?")
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
        "media-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'self'; "
        "frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
}
"""On every answer."""
PRIVATE = "no-store"
PUBLIC = "no-cache"
"""Pages and their parts may be kept, if they are asked about each time."""


class Guard:
    """The outermost layer of the application."""

    def __init__(self, app: ASGIApp, settings: Settings, sessions: Sessions) -> None:
        self._app, self._sessions = app, sessions
        self._any_address = not settings.is_loopback
        self._names = {*LOOPBACK, *(name.lower() for name in settings.names)}
        if self._any_address:
            here = socket.gethostname().lower()
            self._names |= {settings.host.lower(), here, f"{here}.local"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # there are no sockets here
            await send({"type": "websocket.close", "code": 1008})
            return
        outgoing = _Outgoing(send, private=scope["path"].startswith("/api/"))
        try:
            headers = Headers(scope=scope)
            self._check_call(scope, headers)
            if scope["path"].startswith("/api/"):
                self._admit(scope, headers, outgoing)
        except Refused as refused:
            await answer(refused)(scope, receive, outgoing)
            return
        try:
            await self._app(scope, receive, outgoing)
        except Exception as problem:
            log.error("A request failed: %s %s", scope["method"], scope["path"], exc_info=problem)
            if not outgoing.begun:
                await answer(UNFORESEEN)(scope, receive, outgoing)

    # Where a request comes from

    def _check_call(self, scope: Scope, headers: Headers) -> None:
        method, path = scope["method"], scope["path"]
        if method not in METHODS:
            raise Refused(405, f"{method[:20]} is not done here.", headers={"Allow": ", ".join(METHODS)})
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self._is_ours(hosts[0]):
            raise Refused(403, "This server does not go by that name.", "Use the address that it printed.")
        origins = headers.getlist("origin")
        allowed = {f"http://{hosts[0].lower()}", f"https://{hosts[0].lower()}"}
        if len(origins) > 1 or any(origin.lower() not in allowed for origin in origins):
            raise Refused(403, "Another site asked for this.", "Open the studio itself.")
        is_page = method == "GET" and "." not in path and not path.startswith(("/api/", "/static/"))
        if headers.get("sec-fetch-site", "none") not in ("same-origin", "none") and not is_page:
            raise Refused(403, "Another site asked for this.", "Open the studio itself.")
        if method != "GET" and (not origins or headers.getlist("x-scumble") != ["1"]):
            raise Refused(403, "This did not come from the studio's pages.", "Send Origin and X-Scumble: 1.")
        if ".." in path or "\\" in path or "//" in path or not path.isprintable():
            raise Refused(404, "There is no such page.", "Start at /.")

    def _is_ours(self, host: str) -> bool:
        """Whether a Host header names this server. Any port will do: a tunnel may have another, and it is
        names that can be made to point here."""
        found = HOST.fullmatch(host)
        if found is None:
            return False
        name = (found[1] or found[2]).lower().rstrip(".")
        if name in self._names:
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return self._any_address or address.is_loopback

    # Who it comes from

    def _admit(self, scope: Scope, headers: Headers, outgoing: _Outgoing) -> None:
        """Put the session into `scope`, a new one where there is none. Raises Refused without password."""
        token = _cookie(headers, self._sessions.cookie)
        session = self._sessions.find(token)
        if not self._sessions.may(session) and scope["path"] not in OPEN:
            raise Refused(401, "The password is needed.", "Log in first.")
        if session is None and not self._sessions.needs_password:
            session, token = self._sessions.fresh()
            outgoing.set_cookie(cookie_header(self._sessions.cookie, token, headers))
        scope.setdefault("state", {})["session"] = session


def cookie_header(name: str, token: str, headers: Headers) -> str:
    """A Set-Cookie value. `Secure` where the browser came by https, over a proxy; by plain http it would be
    dropped."""
    secure = "; Secure" if headers.get("origin", "").startswith("https://") else ""
    return f"{name}={token}; Path=/; Max-Age={YEAR}; HttpOnly; SameSite=Strict{secure}"


def session_of(scope: Scope) -> Session:
    """The session that a request to the API belongs to."""
    return scope["state"]["session"]


def _cookie(headers: Headers, name: str) -> str | None:
    jar: SimpleCookie = SimpleCookie()
    for line in headers.getlist("cookie"):
        try:
            jar.load(line)
        except CookieError:
            continue
    return jar[name].value if name in jar else None


class _Outgoing:
    """`send` with the headers of every answer."""

    def __init__(self, send: Send, *, private: bool) -> None:
        self._send, self._private = send, private
        self._cookie: str | None = None
        self.begun = False
        """Whether an answer is on its way, so that no other can be given."""

    def set_cookie(self, value: str) -> None:
        self._cookie = value

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.begun = True
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers[name] = value
            headers["Cache-Control"] = PRIVATE if self._private else PUBLIC
            if self._cookie is not None and "set-cookie" not in headers:
                headers.append("Set-Cookie", self._cookie)
        await self._send(message)
