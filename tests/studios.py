"""A studio in this process on a tiny random model, and browsers that call it, for the tests.

with studio(folder) as app:
    browser = Browser(app)
    job = browser.made("generate", prompt="a red cat", steps=2)
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from PIL import Image
from starlette.testclient import TestClient

from scumble.studio.app import create_app
from scumble.studio.settings import Settings
from tiny import shared

__all__ = ["ADDRESS", "Browser", "chunk", "png", "png_of", "studio"]

ADDRESS = "http://127.0.0.1:7860"


@contextmanager
def studio(folder: Path, **settings: Any) -> Iterator[FastAPI]:
    """A studio that works, until the block ends."""
    models = {"model": "sd1", "instruct_model": "ip2p", "upscaler": "upscaler"}
    app = create_app(
        Settings(**{"folder": folder, **{k: str(shared(v)) for k, v in models.items()}, **settings})
    )
    with TestClient(app, base_url=ADDRESS):
        yield app


class Browser:
    """One browser: its own cookies, and the headers that the studio's pages send."""

    def __init__(self, app: FastAPI, address: str = ADDRESS) -> None:
        self.client = TestClient(app, base_url=address, follow_redirects=False)
        self.address = address

    @property
    def headers(self) -> dict[str, str]:
        return {"Origin": self.address, "X-Scumble": "1"}

    def get(self, path: str, **more: Any) -> Any:
        return self.client.get(path, **more)

    def post(self, path: str, value: Any = None, **more: Any) -> Any:
        """`value` as JSON."""
        more["headers"] = self.headers | more.get("headers", {})
        return self.client.post(path, **({"json": value} if value is not None else {}), **more)

    def delete(self, path: str) -> Any:
        return self.client.delete(path, headers=self.headers)

    def send(self, content: bytes, name: str = "picture.png", **headers: str) -> Any:
        return self.post("/api/images", content=content, params={"name": name}, headers=headers)

    def sent(self, content: bytes, name: str = "picture.png") -> str:
        """The id of an upload that has to succeed."""
        answer = self.send(content, name)
        assert answer.status_code == 201, answer.text
        return answer.json()["id"]

    def ask(self, verb: str, **settings: Any) -> Any:
        return self.post("/api/jobs", {"verb": verb, "settings": settings})

    def asked(self, verb: str, **settings: Any) -> str:
        """The id of a job that has to be taken."""
        answer = self.ask(verb, **settings)
        assert answer.status_code == 202, answer.text
        return answer.json()["id"]

    def ended(self, job: str, patience: float = 300) -> dict[str, Any]:
        """The job, once it has ended."""
        last = time.monotonic() + patience
        while time.monotonic() < last:
            found = self.get(f"/api/jobs/{job}").json()
            if found["state"] in ("done", "failed", "cancelled"):
                return found
            time.sleep(0.02)
        raise AssertionError(f"{job} has not ended: {found}")

    def made(self, verb: str, **settings: Any) -> dict[str, Any]:
        """A job that has to succeed."""
        job = self.ended(self.asked(verb, **settings))
        assert job["state"] == "done", job
        return job


def png(size: tuple[int, int] = (48, 40), colour: tuple[int, ...] = (200, 40, 60)) -> bytes:
    """A picture of one colour."""
    return png_of(Image.new("RGBA" if len(colour) == 4 else "RGB", size, colour))


def png_of(image: Image.Image, **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, "PNG", **options)
    return file.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG file."""
    return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")
