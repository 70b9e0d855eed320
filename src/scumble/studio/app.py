"""The studio as an application: FastAPI and our own pages, and no Gradio, because only so every page has a
strict content policy and the canvas's pixels reach the methods as they were painted, without re-encoding.

Requests meet `security.Guard` first, then the routes of `api`. Whatever goes wrong is one JSON object with a
sentence; tracebacks go to the log alone.
"""

from __future__ import annotations

import mimetypes
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, RedirectResponse, Response
from starlette.staticfiles import StaticFiles

from scumble.core.errors import ScumbleError
from scumble.core.events import Loop
from scumble.studio import api, history
from scumble.studio.database import Database
from scumble.studio.files import Files
from scumble.studio.jobs import Job, Jobs
from scumble.studio.problems import Refused, answer, as_refused, not_found
from scumble.studio.security import Guard
from scumble.studio.sessions import Sessions
from scumble.studio.settings import Settings
from scumble.studio.state import Studio
from scumble.studio.work import Done

__all__ = ["PAGES", "create_app"]

PAGES = ("learn", "generate", "edit", "paint", "compare", "history", "login")
STATIC = Path(__file__).resolve().parent / "static"
for kind, suffix in (("text/javascript", ".js"), ("text/javascript", ".mjs"), ("text/css", ".css")):
    mimetypes.add_type(kind, suffix)  # some systems say otherwise, and browsers then refuse them


def create_app(settings: Settings) -> FastAPI:
    """The application. Raises InputError where its folder cannot be used.

    Its worker runs between the application's startup and shutdown.
    """
    database = Database(settings.folder)
    files = Files(database, settings)
    sessions = Sessions(database, settings.password)

    def start(job: Job) -> Loop[Done]:
        return api.loop_of(studio, job)

    studio = Studio(settings, database, files, sessions, Jobs(database, files, settings, start))

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncGenerator[None]:
        studio.jobs.start()
        yield
        studio.jobs.stop()
        database.close()

    app = FastAPI(lifespan=life, docs_url=None, redoc_url=None, openapi_url=None)
    app.state.studio = studio
    app.include_router(api.router, prefix="/api")
    app.include_router(history.router, prefix="/api")
    app.add_api_route("/", _first_page, methods=["GET"])
    for page in PAGES:
        app.add_api_route(f"/{page}", _page(page), methods=["GET"])
    app.mount("/static", StaticFiles(directory=STATIC, check_dir=False))
    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(ScumbleError, _explained)
    app.add_exception_handler(HTTPException, _http)
    app.add_middleware(Guard, settings=settings, sessions=sessions)
    return app


async def _first_page() -> Response:
    return RedirectResponse("/generate", 307)


def _page(name: str):
    async def page() -> Response:
        path = STATIC / f"{name}.html"
        if not path.is_file():
            raise not_found("This page")
        return FileResponse(path, media_type="text/html")

    return page


# Errors


async def _refused(_: Request, problem: Exception) -> Response:
    assert isinstance(problem, Refused)
    return answer(problem)


async def _explained(request: Request, problem: Exception) -> Response:
    assert isinstance(problem, ScumbleError)
    files: Files = request.app.state.studio.files
    refused = as_refused(problem)
    refused.error, refused.remedy = files.without_paths(refused.error), files.without_paths(refused.remedy)
    return answer(refused)


async def _http(request: Request, problem: Exception) -> Response:
    assert isinstance(problem, HTTPException)
    wants_page = "text/html" in request.headers.get("accept", "")
    if problem.status_code == 404 and wants_page and not request.url.path.startswith("/api/"):
        return FileResponse(STATIC / "lost.html", 404, media_type="text/html")
    sentence = {404: "There is no such page.", 405: "This is not done here."}.get(problem.status_code)
    return answer(Refused(problem.status_code, sentence or "The request cannot be answered."))
