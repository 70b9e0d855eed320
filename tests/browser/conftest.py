"""The studio for real: its server on a free port with a tiny random model, and chromium looking at it."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, sync_playwright

from scumble.studio.app import create_app
from scumble.studio.serve import address, listen
from scumble.studio.settings import Settings
from tiny import shared

PATIENCE = 60_000  # milliseconds: machines that run tests are busy


def chromium() -> str:
    """The path of a chromium. Fails where there is none."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    pytest.fail(
        "There is no chromium here: `apt-get install -y chromium`, or leave these out: -m 'not browser'."
    )


def serving(settings: Settings) -> Iterator[str]:
    """The address of a studio that serves until the generator is closed."""
    ear = listen(settings)
    server = uvicorn.Server(
        uvicorn.Config(create_app(settings), log_level="warning", ws="none", timeout_graceful_shutdown=1)
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [ear]}, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "The studio did not start."
        time.sleep(0.02)
    yield address(settings, ear).rstrip("/")
    server.should_exit = True
    thread.join(20)
    ear.close()


def settings(folder: Path, **more: str) -> Settings:
    """Of a studio with tiny random models on a free port."""
    models = {"model": str(shared("sd1")), "instruct_model": str(shared("ip2p"))}
    return Settings(folder=folder, port=0, device="cpu", **models, **more)  # pyright: ignore[reportArgumentType]


@pytest.fixture(scope="session")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    yield from serving(settings(tmp_path_factory.mktemp("studio")))


@pytest.fixture(scope="session")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A studio with the password `open sesame`."""
    yield from serving(settings(tmp_path_factory.mktemp("locked"), password="open sesame"))


@pytest.fixture(scope="module")  # Playwright keeps an event loop running, which other tests cannot have
def browser() -> Iterator[Browser]:
    path = chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


class Watched:
    """What must not happen on a page: complaints of the console (a broken content policy is one), errors,
    calls to other places."""

    def __init__(self, home: str) -> None:
        self.home, self.complaints = home, list[str]()

    def __call__(self, page: Page) -> None:
        page.on(
            "console", lambda said: said.type in ("error", "warning") and self.complaints.append(said.text)
        )
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self._check(request.url))

    def _hear(self, said: ConsoleMessage) -> None:
        if said.type in ("error", "warning"):
            self.complaints.append(said.text)

    def _check(self, url: str) -> None:
        if not url.startswith((self.home + "/", "data:", "blob:")):
            self.complaints.append(f"asked for {url}")


@pytest.fixture
def watched(studio: str) -> Iterator[Watched]:
    watched = Watched(studio)
    yield watched
    assert watched.complaints == []


@pytest.fixture
def context(browser: Browser, studio: str, watched: Watched) -> Iterator[BrowserContext]:
    """A browser of its own: own cookies, so own session."""
    context = browser.new_context(base_url=studio, viewport={"width": 1280, "height": 800})
    context.set_default_timeout(PATIENCE)
    context.on("page", watched)
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext) -> Page:
    return context.new_page()
