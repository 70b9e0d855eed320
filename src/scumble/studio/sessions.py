"""Who is asking: a cookie that the server has made itself, and the password where there is one.

A session owns what was made in it, and nothing else of the server is shown to it. The cookie's token is
random; only its SHA-256 is kept. A token that the server did not make is never taken over. Logging in and out
each give a new token, so that one planted before is worth nothing afterwards.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock

from scumble.studio.database import Database
from scumble.studio.problems import Refused

__all__ = ["Session", "Sessions", "Throttle"]

UNOWNED = 4096
"""Sessions that own nothing yet and are remembered in memory only, at most."""
YEAR = 365 * 86400
MEMBERSHIP = 30 * 86400
"""Seconds after which a password has to be said again."""
FREE = 5
"""Wrong passwords from one address that cost no waiting."""
FIRST_WAIT, LONGEST_WAIT = 4, 900
"""Seconds, for one address."""
EVERYBODY = 100
"""Wrong passwords from all addresses together before everybody waits."""
EVERYBODYS_WAIT = 4
"""Seconds, at most: who has many addresses is slowed down, and keeps nobody out."""
LONGEST_PASSWORD = 1000


@dataclass(slots=True)
class Session:
    """One browser."""

    id: str
    token: str
    """SHA-256 of the cookie's value."""
    member: bool = False
    """Whether the password was said in it."""
    seen: float = 0.0
    stored: bool = False
    """Whether it is on the disk: from the first thing that it owns."""


class Throttle:
    """Makes wrong passwords slow: after a few, each doubles the wait, by address and for all together."""

    def __init__(self) -> None:
        self._wrong: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def check(self, address: str) -> None:
        """Raises Refused while `address`, or everybody, has to wait."""
        now = time.monotonic()
        until = max(self._wrong.get(who, (0, 0.0))[1] for who in (address, "*"))
        if until > now:
            wait = {"Retry-After": str(int(until - now) + 1)}
            raise Refused(429, "Too many wrong passwords.", "Wait a little and try again.", headers=wait)

    def wrong(self, address: str) -> None:
        """Count a wrong password."""
        for who, free, most in ((address, FREE, LONGEST_WAIT), ("*", EVERYBODY, EVERYBODYS_WAIT)):
            count = self._wrong.pop(who, (0, 0.0))[0] + 1
            wait = min(FIRST_WAIT * 2 ** min(count - free, 20), most) if count >= free else 0
            self._wrong[who] = (count, time.monotonic() + wait)
        while len(self._wrong) > UNOWNED:
            self._wrong.popitem(last=False)

    def right(self, address: str) -> None:
        """Forget what was wrong before."""
        self._wrong.pop(address, None)


class Sessions:
    """All sessions, and the password."""

    def __init__(self, database: Database, password: str | None) -> None:
        self._database, self._throttle = database, Throttle()
        self._lock, self._guessing = Lock(), Lock()
        self._salt = secrets.token_bytes(16)
        self._password = None if password is None else self._stretched(password)
        rows = database.rows("SELECT id, token, member, seen FROM session")
        self._stored = {token: Session(i, token, bool(m), seen, True) for i, token, m, seen in rows}
        self._unowned: OrderedDict[str, Session] = OrderedDict()
        self.cookie = f"scumble-session-{self._mark()}"
        """The cookie's name. Browsers do not keep ports apart, so that two studios on one machine would
        overwrite one another's: each has a name of its own."""

    @property
    def needs_password(self) -> bool:
        """Whether there is a password."""
        return self._password is not None

    def find(self, token: str | None) -> Session | None:
        """The session of a cookie's value; None for one that the server did not make."""
        if not token or len(token) > 100:
            return None
        key = _hash(token)
        with self._lock:
            session = self._stored.get(key) or self._unowned.get(key)
            if session is not None and session.stored and time.time() - session.seen > 86400:
                self._see(session)
        return session

    def fresh(self) -> tuple[Session, str]:
        """A new session and its token."""
        token = secrets.token_urlsafe(32)
        session = Session(secrets.token_hex(16), _hash(token), seen=time.time())
        with self._lock:
            self._unowned[session.token] = session
            while len(self._unowned) > UNOWNED:
                self._unowned.popitem(last=False)
        return session, token

    def keep(self, session: Session) -> None:
        """Put a session on the disk, now that it owns something."""
        with self._lock:
            self._keep(session)

    def may(self, session: Session | None) -> bool:
        """Whether it may see anything."""
        if not self.needs_password:
            return True
        return session is not None and session.member and time.time() - session.seen < MEMBERSHIP

    def log_in(self, session: Session | None, password: str, address: str) -> str:
        """Check a password; returns a new token. Raises Refused for a wrong one, or one too soon."""
        with self._guessing:  # one at a time: guesses side by side would get around the waiting
            self._throttle.check(address)
            given = self._stretched(password[:LONGEST_PASSWORD])
            if self._password is None or not hmac.compare_digest(given, self._password):
                self._throttle.wrong(address)
                raise Refused(401, "This is not the password.", "Try again.", field="password")
            self._throttle.right(address)
        session = session or self.fresh()[0]
        return self._renewed(session, member=True)

    def log_out(self, session: Session) -> str:
        """Forget that the password was said; returns a new token. What the session owns stays its own."""
        return self._renewed(session, member=False)

    def _renewed(self, session: Session, *, member: bool) -> str:
        token = secrets.token_urlsafe(32)
        with self._lock:
            for known in (self._stored, self._unowned):
                known.pop(session.token, None)
            session.token, session.member, session.seen = _hash(token), member, time.time()
            self._keep(session)
        return token

    def _keep(self, session: Session) -> None:
        self._unowned.pop(session.token, None)
        self._stored[session.token] = session
        self._database.write(
            "INSERT INTO session VALUES (?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET "
            "token = excluded.token, member = excluded.member, seen = excluded.seen",
            session.id, session.token, int(session.member), session.seen,
        )  # fmt: skip
        session.stored = True

    def _see(self, session: Session) -> None:
        if not self.needs_password:  # a membership ends so long after the login, whatever is done in it
            session.seen = time.time()
            self._keep(session)

    def _stretched(self, password: str) -> bytes:
        """scrypt (RFC 7914) with 16 MiB."""
        return hashlib.scrypt(password.encode(errors="replace"), salt=self._salt, n=2**14, r=8, p=1)

    def _mark(self) -> str:
        """A few random letters that belong to the folder, so that they outlive a change of port."""
        found = self._database.row("SELECT value FROM about WHERE name = 'mark'")
        if found is None:
            self._database.write("INSERT INTO about VALUES ('mark', ?)", secrets.token_hex(4))
            return self._mark()
        return found[0]


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode(errors="replace")).hexdigest()
