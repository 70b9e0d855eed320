"""One studio for all tests that do not need one of their own: starting it takes longer than asking it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi import FastAPI

from studios import Browser, studio


@pytest.fixture(scope="session")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FastAPI]:
    with studio(tmp_path_factory.mktemp("studio") / "here") as running:
        yield running


@pytest.fixture
def browser(app: FastAPI) -> Browser:
    """A new one, with a session of its own."""
    made = Browser(app)
    assert made.get("/api/about").status_code == 200
    return made


@pytest.fixture
def stranger(app: FastAPI) -> Browser:
    """Another."""
    made = Browser(app)
    assert made.get("/api/about").status_code == 200
    return made
