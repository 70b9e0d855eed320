"""Attacks by requests: names, origins, headers, methods, paths, bodies. None may get anything."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from scumble.studio.security import HEADERS
from studios import ADDRESS, Browser, png

SECRET = b"root:"


def refused(answer: Any, status: int) -> None:
    """An answer that says no in one JSON object, and gives nothing else away."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert set(answer.json()) == {"error", "remedy", "field"}
    assert answer.json()["error"].endswith(".")
    assert "Traceback" not in answer.text
    for name, value in HEADERS.items():
        assert answer.headers[name] == value


# Which name, from where


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:7860", "127.0.0.1.evil.example", "localhost.evil.example", "10.0.0.1", "",
     "127.0.0.1:7860, evil.example", "user@127.0.0.1", "127.0.0.1:7860/evil", "0.0.0.0", "[::2]"],
)  # fmt: skip
def test_dns_rebinding_by_a_foreign_host(browser: Browser, host: str) -> None:
    refused(browser.get("/api/about", headers={"Host": host}), 403)
    assert browser.get("/generate", headers={"Host": host}).status_code == 403


def test_a_missing_host(app: FastAPI) -> None:
    refused(_raw(app, [], "GET", "/api/about"), 403)


def test_two_hosts(app: FastAPI) -> None:
    refused(_raw(app, [("host", "127.0.0.1"), ("host", "evil.example")], "GET", "/api/about"), 403)


@pytest.mark.parametrize("host", ["127.0.0.1:7860", "localhost:7860", "LOCALHOST:9", "[::1]:7860"])
def test_the_server_answers_to_its_own_names(browser: Browser, host: str) -> None:
    assert browser.get("/api/about", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "origin",
    ["null", "http://evil.example", "http://127.0.0.1", "http://127.0.0.1:7861", "http://localhost:7860",
     "file://", "http://127.0.0.1:7860.evil.example", "http://127.0.0.1:7860@evil.example", ""],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_cross_site_request_by_origin(browser: Browser, origin: str, method: str) -> None:
    headers = browser.headers | {"Origin": origin}
    answer = browser.client.request(method, "/api/jobs", headers=headers, json={"verb": "generate"})
    refused(answer, 403)


def test_cross_site_request_without_origin(browser: Browser) -> None:
    refused(browser.client.post("/api/jobs", headers={"X-Scumble": "1"}, json={}), 403)


@pytest.mark.parametrize("value", [None, "0", "1, 1", "true"])
def test_cross_site_request_without_the_header(browser: Browser, value: str | None) -> None:
    headers = {"Origin": ADDRESS} | ({} if value is None else {"X-Scumble": value})
    refused(browser.client.post("/api/images", headers=headers, content=png()), 403)
    refused(browser.client.delete("/api/images/" + "0" * 32, headers=headers), 403)


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
@pytest.mark.parametrize("path", ["/api/about", "/api/jobs", "/static/js/app.js", "/api/images/" + "0" * 32])
def test_embedding_from_another_site(browser: Browser, site: str, path: str) -> None:
    """As by an <img> or <script>, which send no Origin."""
    refused(browser.get(path, headers={"Sec-Fetch-Site": site}), 403)


def test_a_link_from_another_site_opens_a_page_and_sets_no_cookie(app: FastAPI) -> None:
    """A strict cookie does not come along then: a page that set one would overwrite a person's session."""
    newcomer = Browser(app)
    answer = newcomer.get("/history", headers={"Sec-Fetch-Site": "cross-site"})
    assert answer.status_code in (200, 404)
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(
    "method", ["PUT", "PATCH", "OPTIONS", "TRACE", "CONNECT", "HEAD", "BREW", "PROPFIND"]
)
def test_other_methods(browser: Browser, method: str) -> None:
    answer = browser.client.request(method, "/api/jobs", headers=browser.headers)
    assert answer.status_code == 405
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("name", ["X-HTTP-Method-Override", "X-Method-Override", "X-HTTP-Method"])
def test_method_override(browser: Browser, name: str) -> None:
    stored = browser.sent(png())
    assert browser.get(f"/api/images/{stored}", headers={name: "DELETE"}).status_code == 200
    refused(browser.post(f"/api/images/{stored}", headers={name: "DELETE"}), 405)
    assert browser.get(f"/api/images/{stored}?_method=DELETE").status_code == 200


def test_a_forwarded_header_changes_nothing(app: FastAPI) -> None:
    lying = {"X-Forwarded-Host": "127.0.0.1:7860", "Forwarded": "host=127.0.0.1", "Host": "evil.example"}
    refused(Browser(app).get("/api/about", headers=lying), 403)


def test_a_websocket_is_refused(app: FastAPI) -> None:
    from starlette.websockets import WebSocketDisconnect

    client = TestClient(app, base_url=ADDRESS)
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/api/jobs"):
        pass


def test_no_documentation_of_the_interface_is_served(browser: Browser) -> None:
    for path in ("/docs", "/redoc", "/openapi.json"):
        refused(browser.get(path), 404)


# Paths


TRAVERSALS = (
    "../../../../etc/passwd", "..%2f..%2f..%2fetc%2fpasswd", "%2e%2e/%2e%2e/etc/passwd",
    "%252e%252e%252fetc%252fpasswd", "..%5c..%5cetc%5cpasswd", "....//....//etc/passwd",
    "/etc/passwd", "%2fetc%2fpasswd", "%00", "passwd%00.png", "..%c0%af..%c0%afetc/passwd",
    "file:///etc/passwd", "~/.ssh/id_rsa", "C:%5cWindows%5cwin.ini", "studio.sqlite3",
    "../studio.sqlite3", "CON", "a" * 5000,
)  # fmt: skip


@pytest.mark.parametrize("name", TRAVERSALS)
@pytest.mark.parametrize(
    "place",
    ["/static/{}", "/api/images/{}", "/api/images/{}/thumb", "/api/images/{}/recipe", "/api/jobs/{}",
     "/api/jobs/{}/events", "/api/history/{}", "/api/forms/{}", "/{}"],
)  # fmt: skip
def test_traversal_in_paths(app: FastAPI, name: str, place: str) -> None:
    answer = _raw(app, [("host", "127.0.0.1:7860")], "GET", place.format(name))
    assert answer.status_code in (403, 404), answer.text
    assert SECRET not in answer.content
    assert b"SQLite" not in answer.content


@pytest.mark.parametrize(
    "name", [*TRAVERSALS, 7, ["x"], {"id": "x"}, True, "", "0" * 31, "G" * 32, "０" * 32]
)
def test_traversal_in_ids_of_settings(browser: Browser, name: Any) -> None:
    for verb, field in (("strokes", "image"), ("edit-sdedit", "guide"), ("edit-instruct", "image")):
        answer = browser.ask(verb, **{field: name, "instructions": ["make it night"]})
        assert answer.status_code in (404, 422), answer.text
        refused(answer, answer.status_code)


def test_traversal_in_ids_of_weights(browser: Browser) -> None:
    for name in TRAVERSALS:
        refused(browser.ask("generate", prompt="cat", weights=[{"id": name, "scale": 1}]), 404)
    refused(browser.ask("generate", prompt="cat", weights=["/etc/passwd"]), 422)
    refused(browser.ask("generate", prompt="cat", weights=[{"id": "x", "path": "/etc/passwd"}]), 422)


# Bodies


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""]
)
def test_json_under_another_type(browser: Browser, kind: str) -> None:
    """Those that a form of another site can send without being asked about."""
    body = json.dumps({"verb": "generate", "settings": {"prompt": "cat"}})
    refused(browser.post("/api/jobs", content=body, headers={"Content-Type": kind}), 415)


def test_a_form_as_upload(browser: Browser) -> None:
    refused(browser.post("/api/images", files={"file": ("cat.png", png(), "image/png")}), 415)


@pytest.mark.parametrize(
    "text",
    ["NaN", "Infinity", "-Infinity", "1e999", "[" * 100_000, '{"a":' * 5000, "", "1" * 5000, '"\\ud800"',
     "\xff", "{'a': 1}", "null", "[]", '"x"'],
)  # fmt: skip
def test_hostile_json(browser: Browser, text: str) -> None:
    for body in (text, f'{{"verb": "generate", "settings": {{"prompt": "a", "guidance": {text}}}}}'):
        answer = browser.post(
            "/api/jobs", content=body.encode("latin-1"), headers={"Content-Type": "application/json"}
        )
        if answer.status_code != 202:  # null is a setting that was not given
            assert answer.status_code in (400, 422)
            refused(answer, answer.status_code)
        else:
            assert text == "null"


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e400"])
def test_numbers_that_are_none_where_any_number_would_do(browser: Browser, number: str) -> None:
    picture = browser.sent(png())
    settings = f'{{"image": "{picture}", "patch": "{picture}", "at": [{number}, 1]}}'
    body = f'{{"verb": "composite", "settings": {settings}}}'
    refused(browser.post("/api/jobs", content=body, headers={"Content-Type": "application/json"}), 400)


def test_numbers_with_a_thousand_digits(browser: Browser) -> None:
    huge, picture = 10**1000, browser.sent(png())
    for name in ("count", "steps", "guidance", "seed", "eta", "guidance_interval", "width"):
        for value in (huge, -huge, [huge, huge]):
            refused(browser.ask("generate", **({"prompt": "a"} | {name: value})), 422)
    refused(browser.ask("generate", prompt="a", weights=[{"id": picture, "scale": huge}]), 422)
    refused(browser.ask("composite", image=picture, patch=picture, at=[huge, 1]), 422)
    refused(browser.ask("learn-dreambooth", images=[picture], word="<rex>", lr=huge), 422)


def test_half_a_character(browser: Browser) -> None:
    for settings in ('{"prompt": "\\ud800"}', '{"prompt": "a", "\\udfff": 1}'):
        body = f'{{"verb": "generate", "settings": {settings}}}'
        refused(browser.post("/api/jobs", content=body, headers={"Content-Type": "application/json"}), 400)


def test_json_nested_deeply_but_soundly(browser: Browser) -> None:
    value: Any = "x"
    for _ in range(40):
        value = [value]
    refused(browser.ask("edit-instruct", image="0" * 32, instructions=value), 400)


def test_json_that_is_too_long(browser: Browser) -> None:
    refused(browser.ask("generate", prompt="x" * 300_000), 413)


def test_a_prompt_that_is_too_long(browser: Browser) -> None:
    answer = browser.ask("generate", prompt="x" * 10_001)
    refused(answer, 422)
    assert answer.json()["field"] == "prompt"


@pytest.mark.parametrize(
    ("name", "value"),
    [("model", "/etc"), ("model", "owner/name"), ("trust_pickle", True), ("device", "cuda:7"),
     ("dtype", "x"), ("revision", "main"), ("offline", False), ("any_base", True), ("compile", True),
     ("__class__", "x"), ("model_config", {}), ("safety_checker", False), ("count", 10_000),
     ("width", 8192), ("steps", 100_000),
     ("steps", -1), ("prompt", ["a"]), ("prompt", {"a": 1}), ("seed", -1), ("seed", 2**63)],
)  # fmt: skip
def test_settings_that_the_web_may_not_give(browser: Browser, name: str, value: Any) -> None:
    answer = browser.ask("generate", **({"prompt": "cat"} | {name: value}))
    refused(answer, 422)


def test_a_clip_of_the_hub(browser: Browser) -> None:
    picture = browser.sent(png())
    for settings in ({"clip": "owner/name"}, {"clip": "/etc"}):
        refused(browser.ask("edit-text2live", image=picture, prompt="gold", **settings), 422)
        refused(browser.ask("edit-instruct", image=picture, instructions=["a"], **settings), 422)


@pytest.mark.parametrize(
    "verb",
    ["redo", "train", "convert", "load", "__init__", "", None, 7, ["generate"], "generate; ls", "../x"],
)
def test_a_job_for_a_foreign_verb(browser: Browser, verb: Any) -> None:
    refused(browser.post("/api/jobs", {"verb": verb, "settings": {}}), 404)


def test_a_job_with_more_than_it_has(browser: Browser) -> None:
    job = {"verb": "generate", "settings": {"prompt": "cat"}, "session": "0" * 32}
    refused(browser.post("/api/jobs", job), 422)


def _raw(app: FastAPI, headers: list[tuple[str, str]], method: str, path: str) -> Any:
    """A request as the wire has it: no client tidies up its path, nor adds a Host."""
    import asyncio
    from urllib.parse import unquote

    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    raw, _, query = path.partition("?")
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method,
        "path": unquote(raw, errors="replace"), "raw_path": raw.encode(), "query_string": query.encode(),
        "headers": [(n.encode(), v.encode()) for n, v in headers], "scheme": "http", "root_path": "",
        "client": ("127.0.0.1", 5), "server": ("127.0.0.1", 7860),
    }  # fmt: skip
    asyncio.run(app(scope, receive, send))
    return _Answer(sent)


class _Answer:
    def __init__(self, messages: list[dict[str, Any]]) -> None:
        self.status_code = messages[0]["status"]
        self.headers = {n.decode().title(): v.decode() for n, v in messages[0]["headers"]}
        self.headers["content-type"] = self.headers.get("Content-Type", "")
        self.content = b"".join(m.get("body", b"") for m in messages[1:])

    @property
    def text(self) -> str:
        return self.content.decode(errors="replace")

    def json(self) -> Any:
        return json.loads(self.content)
