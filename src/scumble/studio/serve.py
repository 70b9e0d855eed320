"""Running the studio: a socket, uvicorn, and an end that keeps everything."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from types import FrameType
from typing import cast

import uvicorn
from fastapi import FastAPI

from scumble.core.errors import InputError
from scumble.studio.app import create_app
from scumble.studio.settings import Settings

__all__ = ["address", "listen", "serve"]

CONNECTIONS = 500
"""At once, at most; more are turned away."""
GOODBYE = 3
"""Seconds that open connections have at the end."""


def listen(settings: Settings) -> socket.socket:
    """A socket that listens where `settings` say. Raises InputError where that is not to be had."""
    host = "127.0.0.1" if settings.host == "localhost" else settings.host  # which some systems take for ::1
    try:
        found = socket.getaddrinfo(host, settings.port, type=socket.SOCK_STREAM)
    except OSError:
        raise InputError(f"There is no address {settings.host}.", "Give another with --host.") from None
    family, kind, protocol, _, where = found[0]
    ear = socket.socket(family, kind, protocol)
    try:
        ear.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        ear.bind(where)
        ear.listen(128)
    except OSError as problem:
        ear.close()
        if problem.errno == errno.EADDRINUSE:
            raise InputError(
                f"Port {settings.port} is in use.", "Give another with --port, or --port 0 for a free one."
            ) from None
        raise InputError(
            f"Nothing can listen on {settings.host}, port {settings.port}: {problem.strerror}.",
            "Give another with --host and --port.",
        ) from None
    return ear


def address(settings: Settings, ear: socket.socket) -> str:
    """What to type into a browser."""
    host = "127.0.0.1" if settings.host == "localhost" else settings.host
    host = socket.gethostname() if host in ("0.0.0.0", "::") else host
    return f"http://{f'[{host}]' if ':' in host else host}:{ear.getsockname()[1]}/"


def serve(settings: Settings, ear: socket.socket, ready: Callable[[], None] = lambda: None) -> None:
    """Serve until interrupted. `ready` is called when the application is there, before the first answer."""
    app = create_app(settings)
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,  # prompts and ids are nobody's business
        server_header=False,
        proxy_headers=False,  # addresses that somebody writes into a header are not believed
        limit_concurrency=CONNECTIONS,
        timeout_graceful_shutdown=GOODBYE,
        h11_max_incomplete_event_size=32_768,
        ws="none",
    )
    ready()
    _Server(config).run(sockets=[ear])


class _Server(uvicorn.Server):
    """Tells the streams of events first, which would otherwise be waited for."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        app = cast("FastAPI", self.config.app)
        app.state.studio.jobs.close_soon()
        super().handle_exit(sig, frame)
