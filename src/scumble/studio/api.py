"""The calls of the pages: about, forms, images, jobs, weights, login."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from secrets import randbelow
from typing import Any

import torch
from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse

from scumble.core.errors import ScumbleError
from scumble.core.events import Loop
from scumble.core.files import safe_name
from scumble.core.version import VERSION
from scumble.studio.bodies import read_json, received
from scumble.studio.files import IMAGE, WEIGHTS, Stored
from scumble.studio.history import redo_loop
from scumble.studio.jobs import ENDED, Job
from scumble.studio.problems import Refused, as_refused, not_found
from scumble.studio.remains import learning_name, sweep
from scumble.studio.security import cookie_header, session_of
from scumble.studio.state import Studio
from scumble.studio.verbs import VERBS, Verb, form, missing, prepare, size_of
from scumble.studio.work import Done, Task

__all__ = [
    "about",
    "ask",
    "cancel",
    "events",
    "forms",
    "image",
    "job",
    "jobs",
    "login",
    "logout",
    "loop_of",
    "owner_of",
    "recipe",
    "remove",
    "router",
    "studio_of",
    "thumb",
    "upload",
    "weights",
]

router = APIRouter()
LOOK = 0.1
"""Seconds between two looks whether a job has changed: people see no more, and no step waits for a page."""
HEARTBEAT = 10.0
"""Seconds of silence after which a stream says that it is still there."""
SLOW = 1.0
"""Seconds after which a running job is told of again though it has not moved: its time has."""


def studio_of(request: Request) -> Studio:
    return request.app.state.studio


def owner_of(request: Request) -> str:
    """The id of the session that asks."""
    return session_of(request.scope).id


@router.get("/about")
def about(request: Request) -> Any:
    studio = studio_of(request)
    settings = studio.settings
    lacking = {verb.name: why for verb in VERBS.values() if (why := missing(verb, settings))}
    device = settings.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return {
        "version": VERSION,
        "model": Path(settings.model).name if Path(settings.model).exists() else settings.model,
        "device": device,
        "size": size_of(settings.model),
        "note": " ".join(lacking.values()),
        "methods": [
            {"verb": v.name, "title": v.title, "sentence": v.sentence}
            for v in VERBS.values() if v.name not in lacking
        ],
        "missing": lacking,
        "limits": {
            "upload_bytes": settings.upload_bytes, "pixels": settings.pixels, "frames": 1,
            "text": settings.text, "session_bytes": settings.session_bytes,
            "session_waiting": settings.session_waiting,
        },
        "password": studio.sessions.needs_password,
    }  # fmt: skip


@router.get("/forms/{verb}")
def forms(request: Request, verb: str) -> Any:
    return form(_verb(verb), studio_of(request).settings)


# Images


@router.post("/images")
async def upload(request: Request) -> Response:
    studio, session = studio_of(request), session_of(request.scope)
    name = request.query_params.get("name", "")[:300]
    announced = request.headers.get("content-length", "0")
    more = int(announced) if announced.isdecimal() and len(announced) < 18 else 0
    await run_in_threadpool(studio.files.check_room, session.id, more)
    async with received(request, studio.files.incoming, studio.settings.upload_bytes) as sent:
        await run_in_threadpool(studio.sessions.keep, session)
        stored = await run_in_threadpool(studio.files.take, session.id, sent, name)
    return JSONResponse(stored.shown(), 201)


@router.get("/images/{name}")
def image(request: Request, name: str) -> Response:
    studio = studio_of(request)
    stored = studio.files.get(owner_of(request), name)
    path = studio.files.path(stored)
    download = request.query_params.get("download") is not None or stored.kind == WEIGHTS
    kind = "image/png" if stored.kind == IMAGE else "application/octet-stream"
    file = f"{safe_name(Path(stored.name).stem)}{path.suffix}".encode("ascii", "ignore").decode()
    headers = {"Content-Disposition": f'attachment; filename="{file}"'} if download else {}
    return FileResponse(path, media_type=kind, headers=headers)


@router.get("/images/{name}/thumb")
def thumb(request: Request, name: str) -> Response:
    files = studio_of(request).files
    return Response(files.thumbnail(files.get(owner_of(request), name, IMAGE)), media_type="image/webp")


@router.get("/images/{name}/recipe")
def recipe(request: Request, name: str) -> Response:
    stored = studio_of(request).files.get(owner_of(request), name)
    if stored.recipe is None:
        raise not_found("A recipe")
    return Response(stored.recipe, media_type="application/json")


@router.delete("/images/{name}")
def remove(request: Request, name: str) -> Any:
    studio, owner = studio_of(request), owner_of(request)
    studio.files.remove(studio.files.get(owner, name))
    studio.jobs.forget_learning(owner)  # what was learnt of it, and not to the end
    return {"removed": name}


@router.get("/weights")
def weights(request: Request) -> Any:
    return [_weights(stored) for stored in studio_of(request).files.all(owner_of(request), WEIGHTS)]


def _weights(stored: Stored) -> dict[str, Any]:
    facts = json.loads(stored.facts)
    shown = {"id": stored.id, "name": stored.name, "method": facts["method"], "words": facts["words"]}
    return shown | {"note": facts.get("use", ""), "created": stored.created}


# Jobs


@router.post("/jobs")
async def ask(request: Request) -> Response:
    asked = await read_json(request)
    return await run_in_threadpool(_ask, request, asked)


def _ask(request: Request, asked: dict[str, Any]) -> Response:
    studio, session = studio_of(request), session_of(request.scope)
    if unknown := asked.keys() - {"verb", "settings"}:
        raise Refused(422, f"A job has no {min(unknown)[:40]!r}.", "It has a verb and settings.")
    verb, settings = _verb(asked.get("verb")), asked.get("settings")
    if not isinstance(settings, dict):
        raise Refused(422, "The job has no settings.", "Send an object, empty if need be.")
    studio.files.check_room(session.id)
    task = _task(studio, session.id, verb, settings, "0" * 32)
    if "seed" in type(task.config).model_fields and getattr(task.config, "seed", 0) is None:
        settings = settings | {"seed": randbelow(2**32)}  # so that it is shown, and can be used again
    studio.sessions.keep(session)
    job = studio.jobs.add(session.id, verb.name, settings)
    return JSONResponse({"id": job.id}, 202)


def _verb(name: object) -> Verb:
    if not isinstance(name, str) or name not in VERBS:
        raise Refused(404, "There is no such verb.", f"There are {', '.join(VERBS)}.", field="verb")
    return VERBS[name]


def _task(studio: Studio, owner: str, verb: Verb, settings: dict[str, Any], job: str) -> Task:
    """What is asked for. Raises Refused, with the field at fault."""

    def find(name: object, kind: str) -> Path:
        return studio.files.path(studio.files.get(owner, name, kind))

    folder = studio.files.job_folder(owner, job)
    try:
        return prepare(verb, settings, studio.settings, find, folder)
    except ScumbleError as problem:
        names = {*verb.config.model_fields, *(one.name for one in verb.inputs)}
        names |= verb.extra.model_fields.keys() if verb.extra else set()
        raise as_refused(problem, names) from problem


def loop_of(studio: Studio, job: Job) -> Loop[Done]:
    """The loop of a job, everything looked up anew: it may have waited long."""
    if job.verb == "redo":
        return redo_loop(studio, job)
    verb = VERBS[job.verb]
    name = job.id if not verb.method else _learning_name(studio, job)
    return verb.run(_task(studio, job.session, verb, job.settings, name))


def _learning_name(studio: Studio, job: Job) -> str:
    """Of the folder that a job learns in, so that it goes on where a cancelled one stopped; a new one where
    that one is finished."""
    name = learning_name(job.verb, job.settings)
    sweep(studio.files, job.session, keep=name)
    folder = studio.files.job_folder(job.session, name)
    return job.id if any(folder.glob("*.safetensors")) else name


@router.get("/jobs")
def jobs(request: Request) -> Any:
    studio = studio_of(request)
    return [studio.jobs.shown(job) for job in studio.jobs.newest(owner_of(request))]


@router.get("/jobs/{name}")
def job(request: Request, name: str) -> Any:
    studio = studio_of(request)
    return studio.jobs.shown(studio.jobs.get(owner_of(request), name))


@router.delete("/jobs/{name}")
def cancel(request: Request, name: str) -> Any:
    studio = studio_of(request)
    found = studio.jobs.get(owner_of(request), name)
    studio.jobs.cancel(found)
    return studio.jobs.shown(found)


_open: Counter[str] = Counter()


@router.get("/jobs/{name}/events")
async def events(request: Request, name: str) -> Response:
    studio, owner = studio_of(request), owner_of(request)
    found = await run_in_threadpool(studio.jobs.get, owner, name)
    if _open[owner] >= studio.settings.streams:
        raise Refused(429, "Too many pages are watching jobs.", "Close some.")
    return StreamingResponse(_told(studio, found, owner), media_type="text/event-stream")


async def _told(studio: Studio, job: Job, owner: str) -> AsyncIterator[str]:
    """The job as server-sent events whenever it has changed, until it has ended."""
    _open[owner] += 1
    try:
        told, last = -1, time.monotonic()
        while True:
            version, ended = job.version, job.state in ENDED
            silent = time.monotonic() - last
            if version != told or ended or (job.state == "running" and silent > SLOW):
                shown = await run_in_threadpool(studio.jobs.shown, job)
                yield f"data: {json.dumps(shown)}\n\n"
                told, last = version, time.monotonic()
            elif silent > HEARTBEAT:
                yield ": \n\n"
                last = time.monotonic()
            if ended or studio.jobs.closing:
                return
            await asyncio.sleep(LOOK)
    finally:
        _open[owner] -= 1
        if not _open[owner]:
            del _open[owner]


# Login


@router.post("/login")
async def login(request: Request) -> Response:
    asked = await read_json(request)
    sessions = studio_of(request).sessions
    password = asked.get("password")
    if not sessions.needs_password:
        return JSONResponse({"member": True})
    if not isinstance(password, str) or asked.keys() != {"password"}:
        raise Refused(422, "The password is missing.", "Say it.", field="password")
    address = request.client.host if request.client else "somewhere"
    known = request.scope["state"]["session"]
    token = await run_in_threadpool(sessions.log_in, known, password, address)
    response = JSONResponse({"member": True})
    response.headers.append("Set-Cookie", cookie_header(sessions.cookie, token, request.headers))
    return response


@router.post("/logout")
def logout(request: Request) -> Response:
    sessions = studio_of(request).sessions
    response = JSONResponse({"member": False})
    if sessions.needs_password:
        token = sessions.log_out(session_of(request.scope))
        response.headers.append("Set-Cookie", cookie_header(sessions.cookie, token, request.headers))
    return response
