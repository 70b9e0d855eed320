"""What a studio is told when it starts. Nothing of this can be changed through the web."""

from __future__ import annotations

import ipaddress
import os
import stat
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from scumble.core.config import Config
from scumble.core.errors import ConfigError
from scumble.core.files import explained, read_bytes
from scumble.core.places import data_folder

__all__ = ["LOOPBACK", "Settings", "read_password"]

LOOPBACK = ("localhost", "127.0.0.1", "::1")
"""Names under which a browser reaches a server that listens on loopback."""
SHORTEST = 10
"""Characters of a password, at least."""
MEGABYTE = 2**20


class Settings(Config):
    """What `scumble studio` can be told, and the limits it keeps."""

    host: str = "127.0.0.1"
    """Address to listen on; every one but loopback needs a password."""
    port: Annotated[int, Field(ge=0, le=65535)] = 7860
    """Port to listen on; 0 takes a free one."""
    names: tuple[str, ...] = ()
    """Further host names under which browsers may call, as of a proxy; they need a password."""
    password: str | None = Field(None, repr=False)
    """What people have to say before they see anything."""
    folder: Path = Field(default_factory=lambda: data_folder() / "studio")
    """Where pictures, weights, jobs and sessions are kept."""
    model: str = "toybox"
    """The model that draws, paints and learns."""
    instruct_model: str | None = None
    """The model that edits by instruction; none takes the toybox's where the model is the toybox."""
    upscaler: str | None = None
    """The model that makes pictures larger; none takes the toybox's where the model is the toybox."""
    clip: str = "toybox"
    """The CLIP of edits by a layer."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Precision of the networks."""
    low_memory: bool = False
    """Trade time for memory."""

    upload_bytes: Annotated[int, Field(ge=1)] = 64 * MEGABYTE
    """Length of an upload, at most."""
    pixels: Annotated[int, Field(ge=1)] = 16_000_000
    """Pixels of a picture, at most."""
    text: Annotated[int, Field(ge=1)] = 10_000
    """Characters of one text, at most."""
    work: Annotated[int, Field(ge=1)] = 200_000
    """Work of one job, at most, in steps of a picture of 512 x 512 pixels; see `scumble.studio.limits`."""
    waiting: Annotated[int, Field(ge=1)] = 100
    """Jobs in the queue, at most, of all sessions."""
    session_waiting: Annotated[int, Field(ge=1)] = 20
    """Jobs in the queue, at most, of one session."""
    session_bytes: Annotated[int, Field(ge=1)] = 4096 * MEGABYTE
    """Bytes kept for one session, at most."""
    session_files: Annotated[int, Field(ge=1)] = 5000
    """Pictures and weights kept for one session, at most."""
    total_bytes: Annotated[int, Field(ge=1)] = 40960 * MEGABYTE
    """Bytes kept for all sessions, at most."""
    streams: Annotated[int, Field(ge=1)] = 12
    """Streams of events that one session may hold open, at most."""

    @model_validator(mode="after")
    def _safe(self) -> Settings:
        if (not self.is_loopback or self.names) and self.password is None:
            raise ConfigError(
                f"{(*self.names, self.host)[0]} can be reached by others, and there is no password.",
                "Give one with --password-file, or stay on 127.0.0.1.",
            )
        return self

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def editor(self) -> str | None:
        """The model that edits by instruction, if there is one."""
        return self.instruct_model or ("toybox-instruct" if self.model == "toybox" else None)

    @property
    def enlarger(self) -> str | None:
        """The model that makes pictures larger, if there is one."""
        return self.upscaler or ("toybox-upscaler" if self.model == "toybox" else None)


def read_password(file: Path) -> str:
    """The first line of `file`. Raises ConfigError where it is short, or where others can read it."""
    with explained(file, "read", ConfigError):
        mode = file.stat().st_mode
    if os.name == "posix" and mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigError(f"Others on this machine can read {file}.", f"Say chmod 600 {file}.")
    try:
        lines = read_bytes(file, max_bytes=10_000, error=ConfigError).decode().splitlines()
    except UnicodeDecodeError:
        raise ConfigError(f"{file} is no text.", "Write the password on its first line.") from None
    password = lines[0].strip() if lines else ""
    if len(password) < SHORTEST:
        raise ConfigError(f"The password in {file} is short.", f"Take {SHORTEST} characters or more.")
    return password
