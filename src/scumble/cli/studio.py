"""`scumble studio`: the web studio."""

from __future__ import annotations

from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from scumble.cli import options
from scumble.cli.console import say

__all__ = ["studio"]


def studio(
    host: Annotated[str | None, typer.Option(help="Address to listen on.  [127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 takes a free one.  [7860]")] = None,
    password_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Ask for the password on its first line.")
    ] = None,
    name: Annotated[
        list[str] | None, typer.Option(help="Another host name to answer to; as often as needed.")
    ] = None,
    folder: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where things are kept.  [the user's data folder]")
    ] = None,
    model: options.Model = None,
    instruct_model: Annotated[
        str | None, typer.Option(metavar="NAME_OR_PATH", help="The model that edits by instruction.")
    ] = None,
    upscaler: Annotated[
        str | None, typer.Option(metavar="NAME_OR_PATH", help="The model that makes pictures larger.")
    ] = None,
    clip: Annotated[str | None, typer.Option(help="The CLIP of edits by a layer.  [toybox]")] = None,
    device: options.Device = None,
    dtype: options.Dtype = None,
    low_memory: options.LowMemory = None,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Open no browser.")] = False,
) -> None:
    """Open the studio in a browser: learn, generate, edit, paint, compare, history."""
    from scumble.core.errors import MissingExtraError

    if find_spec("fastapi") is None or find_spec("uvicorn") is None:
        raise MissingExtraError("The studio needs FastAPI.", "Say pip install 'scumble[studio]'.")
    from scumble.studio.serve import address, listen, serve
    from scumble.studio.settings import Settings, read_password

    given: dict[str, Any] = {
        "host": host,
        "port": port,
        "password": None if password_file is None else read_password(password_file),
        "names": tuple(name) if name else None,
        "folder": folder,
        "model": model,
        "instruct_model": instruct_model,
        "upscaler": upscaler,
        "clip": clip,
        "device": device,
        "dtype": dtype,
        "low_memory": low_memory,
    }
    settings = options.settings(Settings, None, **given)
    with listen(settings) as ear:
        here = address(settings, ear)
        with suppress(KeyboardInterrupt):
            serve(settings, ear, lambda: _announce(here, settings, browser=not no_browser))
        say("The studio is closed; everything is kept.")


def _announce(here: str, settings: Any, *, browser: bool) -> None:
    print(f"The studio is at {here}  (Ctrl-C closes it)", flush=True)
    if not settings.is_loopback:
        say("What is sent over plain http can be read on the way: see the documentation for tunnels.")
    if browser:
        import webbrowser

        webbrowser.open(here)
