"""The calls of the history page: what was made in this session, from what, and the same again."""

from __future__ import annotations

import json
from typing import Any

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from scumble.core.errors import InputError, ScumbleError
from scumble.core.events import Loop
from scumble.history.recipe import Recipe
from scumble.studio.bodies import read_json
from scumble.studio.files import ID, IMAGE, WEIGHTS, Stored
from scumble.studio.forms import CAPS
from scumble.studio.jobs import Job
from scumble.studio.problems import Refused, as_refused
from scumble.studio.security import session_of
from scumble.studio.state import Studio
from scumble.studio.verbs import check_again
from scumble.studio.work import Done, redo
from scumble.verbs.find import MODELS

__all__ = ["again", "listed", "one", "redo_loop", "router"]

router = APIRouter()
PAGE = 100
"""Entries in one answer, at most."""


@router.get("/history")
def listed(request: Request, after: str = "", limit: str = "50") -> Any:
    studio, owner = request.app.state.studio, session_of(request.scope).id
    count = int(limit) if limit.isascii() and limit.isdecimal() and len(limit) < 6 else 50
    found = studio.files.listed(owner, after if ID.fullmatch(after) else None, max(1, min(count, PAGE)))
    return [_entry(studio, stored) for stored in found]


@router.get("/history/{name}")
def one(request: Request, name: str) -> Any:
    studio, owner = request.app.state.studio, session_of(request.scope).id
    stored = studio.files.get(owner, name)
    recipe = json.loads(stored.recipe) if stored.recipe else None
    settings = _settings(studio, stored)
    if recipe is not None and "seed" in settings:
        settings = settings | {"seed": recipe["seed"]}
    more = {"recipe": recipe, "children": studio.files.children(stored), "settings": settings}
    return _entry(studio, stored) | more


@router.post("/history/{name}/redo")
async def again(request: Request, name: str) -> Response:
    asked = await read_json(request)
    return await run_in_threadpool(_again, request, name, asked)


def _again(request: Request, name: str, asked: dict[str, Any]) -> Response:
    studio, session = request.app.state.studio, session_of(request.scope)
    stored = _redoable(studio, session.id, name)
    changes = asked.get("set", {})
    if not isinstance(changes, dict) or asked.keys() - {"set"}:
        raise Refused(422, "The changes are no object of settings.", 'Send {"set": {"steps": 50}}.')
    try:
        _checked(studio, stored, changes)
    except ScumbleError as problem:
        raise as_refused(problem, {*CAPS, "steps", "channels", *changes}) from problem
    studio.files.check_room(session.id)
    job = studio.jobs.add(session.id, "redo", {"of": stored.id, "set": changes})
    return JSONResponse({"id": job.id}, 202)


def _checked(studio: Studio, stored: Stored, changes: dict[str, Any]) -> dict[str, str]:
    """The changes as text, where a form would take the settings that they lead to. Raises ConfigError."""
    recipe = Recipe.from_json(stored.recipe or "")
    own = {f.hash: f for f in studio.files.all(stored.session, IMAGE)}
    inputs = {i.role: [studio.files.path(own[i.hash])] for i in recipe.ingredients if i.hash in own}
    return check_again(recipe, changes, inputs, studio.settings)


def redo_loop(studio: Studio, job: Job) -> Loop[Done]:
    """The loop of a job that makes a result again. Files come from its session alone, by their hash: where
    the history of this machine's user has seen such content elsewhere is not asked."""
    stored = _redoable(studio, job.session, job.settings["of"])
    changes = _checked(studio, stored, job.settings["set"])
    recipe = Recipe.from_json(stored.recipe or "")
    own = {f.hash: f for f in studio.files.all(job.session)}
    inputs: list[str] = []
    for ingredient in recipe.ingredients:
        if ingredient.role in MODELS:
            continue  # no file of a session: the one that it names is found by its hash
        if ingredient.hash not in own:
            raise InputError(f"{ingredient.name} went in, and is not here any more.", "Send it again first.")
        inputs.append(f"{ingredient.role}={studio.files.path(own[ingredient.hash])}")
    settings = studio.settings
    models = {"edit instruct": settings.editor, "edit text2live": settings.clip, "upscale": settings.enlarger}
    model = models.get(recipe.command, settings.model)
    folder = studio.files.job_folder(job.session, job.id)
    return redo(studio.files.path(stored), folder, inputs, changes, model or settings.model)


def _settings(studio: Studio, stored: Stored) -> dict[str, Any]:
    """What was asked for, as a form has it; of what was made again, what the first was asked with."""
    if stored.job is None:
        return {}
    job = studio.jobs.get(stored.session, stored.job)
    if job.verb != "redo":
        return job.settings
    try:
        return _settings(studio, studio.files.get(stored.session, job.settings["of"])) | job.settings["set"]
    except Refused:  # it has been removed
        return {}


def _redoable(studio: Studio, owner: str, name: object) -> Stored:
    """A picture that a job of this session has made: others' recipes are shown and never followed."""
    stored = studio.files.get(owner, name, IMAGE)
    if stored.job is None or stored.recipe is None:
        raise Refused(422, "Only what was made here can be made again.", "Use its settings in a form.")
    return stored


def _entry(studio: Studio, stored: Stored) -> dict[str, Any]:
    recipe: dict[str, Any] = json.loads(stored.recipe) if stored.recipe else {}
    settings: dict[str, Any] = recipe.get("settings", {})
    prompt = settings.get("prompt") or ", then ".join(settings.get("instructions", []))
    facts = json.loads(stored.facts)
    verb = studio.jobs.get(stored.session, stored.job).verb if stored.job else ""
    return {
        "id": stored.id,
        "verb": recipe.get("command", verb).replace(" ", "-") or verb,
        "prompt": prompt or facts.get("use", ""),
        "created": stored.created,
        "image": None if stored.kind == WEIGHTS else stored.id,
        "kind": stored.kind,
        "name": stored.name,
        "label": stored.label,
        "parents": studio.files.parents(stored),
        "children": len(studio.files.children(stored)),
    }
