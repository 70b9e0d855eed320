"""Attacks on other people: their files, jobs, history and sessions, the password, the queue."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from scumble.core.errors import ConfigError
from scumble.studio.problems import Refused
from scumble.studio.sessions import Throttle
from scumble.studio.settings import Settings, read_password
from studios import ADDRESS, Browser, png, studio

PASSWORD = "correct horse battery"


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[FastAPI]:
    """A studio with a password."""
    with studio(tmp_path / "locked", password=PASSWORD) as app:
        yield app


def log_in(browser: Browser, password: str = PASSWORD, **headers: str) -> Any:
    return browser.post("/api/login", {"password": password}, headers=headers)


# Strangers


def test_files_of_a_stranger(browser: Browser, stranger: Browser) -> None:
    stored = browser.sent(png())
    for call in (f"/api/images/{stored}", f"/api/images/{stored}/thumb", f"/api/images/{stored}/recipe",
                 f"/api/history/{stored}"):  # fmt: skip
        answer = stranger.get(call)
        nothing = stranger.get(call.replace(stored, "0" * 32))
        assert (answer.status_code, answer.text) == (nothing.status_code, nothing.text) == (404, answer.text)
    assert stranger.delete(f"/api/images/{stored}").status_code == 404
    assert browser.get(f"/api/images/{stored}").status_code == 200


def test_files_of_a_stranger_in_settings(browser: Browser, stranger: Browser) -> None:
    stored = browser.sent(png())
    assert stranger.ask("strokes", image=stored).status_code == 404
    assert stranger.ask("generate", prompt="x", weights=[{"id": stored}]).status_code == 404
    assert stranger.ask("learn-dreambooth", images=[stored], word="<rex>").status_code == 404
    assert stranger.post(f"/api/history/{stored}/redo", {"set": {}}).status_code == 404


def test_jobs_and_events_of_a_stranger(browser: Browser, stranger: Browser) -> None:
    job = browser.asked("generate", prompt="a cat", steps=5)
    assert stranger.get(f"/api/jobs/{job}").status_code == 404
    assert stranger.get(f"/api/jobs/{job}/events").status_code == 404
    assert stranger.delete(f"/api/jobs/{job}").status_code == 404
    assert stranger.get("/api/jobs").json() == []
    assert browser.ended(job)["state"] == "done"
    assert stranger.get("/api/history").json() == []
    assert stranger.get("/api/weights").json() == []


def test_a_history_cannot_be_entered_by_a_strangers_id(browser: Browser, stranger: Browser) -> None:
    made = browser.made("generate", prompt="a cat", steps=1)["results"][0]["id"]
    own = stranger.made("generate", prompt="a dog", steps=1)["results"][0]["id"]
    assert [entry["id"] for entry in stranger.get(f"/api/history?after={made}").json()] == [own]
    for after in ("' OR 1=1 --", "0" * 32, "%00", "x" * 2000):
        found = stranger.get("/api/history", params={"after": after, "limit": "999999999"}).json()
        assert [entry["id"] for entry in found] == [own]


def test_weights_as_a_picture_and_a_picture_as_weights(browser: Browser) -> None:
    stored = browser.sent(png())
    assert browser.ask("generate", prompt="x", weights=[{"id": stored, "scale": 1}]).status_code == 404


# Cookies


def test_the_cookies_flags(app: FastAPI) -> None:
    answer = Browser(app).get("/api/about")
    name, _, flags = answer.headers["set-cookie"].partition("=")
    assert re.fullmatch("scumble-session-[0-9a-f]{8}", name)
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= {flag.strip() for flag in flags.split(";")}
    assert "Domain" not in flags
    assert "Secure" not in flags  # by plain http it would be dropped
    token = flags.split(";")[0]
    assert len(token) >= 43  # 256 bits


def test_behind_https_the_cookie_is_secure(app: FastAPI) -> None:
    answer = Browser(app).get("/api/about", headers={"Origin": ADDRESS.replace("http", "https")})
    assert "; Secure" in answer.headers["set-cookie"]


@pytest.mark.parametrize("token", ["x", "a" * 43, "../../x", "x" * 3000, '"', "0" * 64, "admin"])
def test_a_token_that_the_server_did_not_make(app: FastAPI, token: str) -> None:
    """Session fixation: it is not taken over, a fresh one is given."""
    name = app.state.studio.sessions.cookie
    victim = Browser(app)
    answer = victim.get("/api/about", headers={"Cookie": f"{name}={token}"})
    assert answer.headers["set-cookie"].split(";")[0] not in (f"{name}={token}", f'{name}="{token}"')


def test_tokens_are_not_on_the_disk(app: FastAPI, browser: Browser) -> None:
    browser.sent(png())
    token = next(iter(browser.client.cookies.values()))
    folder = app.state.studio.settings.folder
    assert all(token.encode() not in file.read_bytes() for file in folder.glob("studio.sqlite3*"))


# The password


def test_nothing_without_the_password(locked: FastAPI) -> None:
    browser = Browser(locked)
    for call in ("/api/about", "/api/forms/generate", "/api/jobs", "/api/weights", "/api/history",
                 "/api/images/" + "0" * 32, "/api/nothing"):  # fmt: skip
        answer = browser.get(call)
        assert answer.status_code == 401
        assert "set-cookie" not in answer.headers
    assert browser.ask("generate", prompt="x").status_code == 401
    assert browser.send(png()).status_code == 401
    assert browser.post("/api/logout").status_code == 401
    assert not list(locked.state.studio.files.folder.iterdir())


def test_with_the_password(locked: FastAPI) -> None:
    browser = Browser(locked)
    assert log_in(browser).status_code == 200
    assert browser.get("/api/about").json()["password"] is True
    stored = browser.sent(png())
    assert browser.post("/api/logout").status_code == 200
    assert browser.get(f"/api/images/{stored}").status_code == 401
    assert log_in(browser).status_code == 200
    assert browser.get(f"/api/images/{stored}").status_code == 200  # what was made before is still there


def test_guessing_the_password_is_slowed_down(locked: FastAPI) -> None:
    browser = Browser(locked)
    statuses = [log_in(browser, f"guess {n}").status_code for n in range(8)]
    assert statuses[:4] == [401] * 4
    assert 429 in statuses
    answer = log_in(browser)  # the right one has to wait, too
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) >= 1


def test_guessing_side_by_side_is_slowed_down(locked: FastAPI) -> None:
    browsers = [Browser(locked) for _ in range(12)]
    statuses: list[int] = []
    threads = [
        threading.Thread(target=lambda b=b: statuses.append(log_in(b, "wrong").status_code)) for b in browsers
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses.count(401) <= 6
    assert statuses.count(429) >= 6


def test_the_throttle_doubles_and_forgets(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    throttle = Throttle()
    waits: list[float] = []
    for _ in range(12):
        throttle.wrong("a")
        start = now
        while True:
            try:
                throttle.check("a")
                break
            except Refused:
                now += 1
        waits.append(now - start)
    assert waits[:4] == [0, 0, 0, 0]
    assert waits[4:] == [4.0, 8, 16, 32, 64, 128, 256, 512]
    throttle.check("b")  # another address does not wait
    throttle.right("a")
    throttle.wrong("a")
    throttle.check("a")
    for n in range(5000):  # one address each, of which there are many in IPv6
        throttle.wrong(f"b{n}")
    with pytest.raises(Refused, match="Too many wrong passwords"):
        throttle.check("c")
    now += 4  # which keeps nobody out for long
    throttle.check("c")


@pytest.mark.parametrize(
    "value", [None, 7, [PASSWORD], {"a": 1}, "", PASSWORD.upper(), f"{PASSWORD} ", "x" * 200_000, True]
)
def test_what_is_no_password(locked: FastAPI, value: Any) -> None:
    answer = Browser(locked).post("/api/login", {"password": value})
    assert answer.status_code in (401, 422)
    assert PASSWORD not in answer.text


def test_session_fixation_by_login(locked: FastAPI) -> None:
    """A cookie planted before the login, one that the server knows, is worth nothing afterwards."""
    attacker, victim = Browser(locked), Browser(locked)
    log_in(attacker)
    attacker.post("/api/logout")
    [(name, planted)] = attacker.client.cookies.items()
    victim.client.cookies.set(name, planted)
    log_in(victim)
    stored = victim.sent(png())
    attacker.client.cookies.clear()
    assert attacker.get("/api/about", headers={"Cookie": f"{name}={planted}"}).status_code == 401
    assert attacker.get(f"/api/images/{stored}", headers={"Cookie": f"{name}={planted}"}).status_code == 401


def test_a_cookie_is_worth_nothing_after_the_logout(locked: FastAPI) -> None:
    browser = Browser(locked)
    log_in(browser)
    [(name, token)] = browser.client.cookies.items()
    browser.post("/api/logout")
    thief = Browser(locked)
    assert thief.get("/api/about", headers={"Cookie": f"{name}={token}"}).status_code == 401


def test_login_from_another_site(locked: FastAPI) -> None:
    answer = log_in(Browser(locked), Origin="http://evil.example")
    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers


def test_another_address_needs_a_password() -> None:
    for host in ("0.0.0.0", "192.168.1.5", "::", "studio.example"):
        with pytest.raises(ConfigError, match="there is no password"):
            Settings(host=host)
        assert "correct" not in repr(Settings(host=host, password=PASSWORD))
    with pytest.raises(ConfigError, match="can be reached by others"):
        Settings(names=("studio.example",))


def test_names_of_a_proxy_and_addresses(tmp_path: Path) -> None:
    with studio(tmp_path / "a", password=PASSWORD, names=("Studio.example",)) as app:
        assert log_in(Browser(app, "https://studio.example")).status_code == 200
        assert log_in(Browser(app, "https://other.example")).status_code == 403
        assert Browser(app).get("/generate", headers={"Host": "192.168.1.5:7860"}).status_code == 403
    with studio(tmp_path / "b", password=PASSWORD, host="0.0.0.0") as app:
        assert log_in(Browser(app, "http://192.168.1.5:7860")).status_code == 200
        assert log_in(Browser(app, "http://rebound.example:7860")).status_code == 403


def test_a_password_file_that_others_can_read_or_that_is_short(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(PASSWORD + "\nmore\n")
    file.chmod(0o644)
    with pytest.raises(ConfigError, match="Others on this machine can read"):
        read_password(file)
    file.chmod(0o600)
    assert read_password(file) == PASSWORD
    for content in (b"", b"short\n", b"\n" + PASSWORD.encode(), b"\xff\xfe\xff" * 10):
        file.write_bytes(content)
        with pytest.raises(ConfigError):
            read_password(file)
    with pytest.raises(ConfigError, match="does not exist"):
        read_password(tmp_path / "none")


# The queue and the disk


def test_a_thousand_jobs(tmp_path: Path) -> None:
    with studio(tmp_path / "s", session_waiting=20, waiting=30) as app:
        browser, other = Browser(app), Browser(app)
        first = browser.asked("generate", prompt="a cat", steps=1000, width=256, height=256)
        while browser.get(f"/api/jobs/{first}").json()["state"] == "waiting":
            time.sleep(0.01)
        statuses = [browser.ask("generate", prompt="a cat", steps=1).status_code for _ in range(25)]
        assert statuses == [202] * 20 + [429] * 5
        jobs = app.state.studio.jobs
        session = jobs.newest(app.state.studio.database.row("SELECT session FROM job")[0])[0].session
        for _ in range(1000):  # past the web, which is slower than what it asks
            with pytest.raises(Refused, match="20 jobs waiting"):
                jobs.add(session, "generate", {"prompt": "a cat"})
        statuses = [other.ask("generate", prompt="a cat", steps=1).status_code for _ in range(15)]
        assert statuses == [202] * 10 + [429] * 5  # of all sessions together
        assert [job["place"] for job in browser.get("/api/jobs").json()] == [*range(20, 0, -1), None]
        assert [job["place"] for job in other.get("/api/jobs").json()] == [*range(30, 20, -1)]
        for job in browser.get("/api/jobs").json():
            assert browser.delete(f"/api/jobs/{job['id']}").status_code == 200
        assert browser.ended(first)["state"] == "cancelled"


def test_the_space_of_a_session_ends(tmp_path: Path) -> None:
    with studio(tmp_path / "s", session_files=3) as app:
        browser = Browser(app)
        stored = [browser.sent(png()) for _ in range(3)]
        answer = browser.send(png())
        assert answer.status_code == 413
        assert "Remove some" in answer.json()["remedy"]
        assert browser.ask("generate", prompt="a cat").status_code == 413
        assert Browser(app).send(png()).status_code == 201
        assert browser.delete(f"/api/images/{stored[0]}").status_code == 200
        assert browser.send(png()).status_code == 201


def test_the_bytes_of_a_session_and_of_all_end(tmp_path: Path) -> None:
    size = len(png())
    with studio(tmp_path / "s", session_bytes=10 * size, total_bytes=15 * size) as app:
        one, other = Browser(app), Browser(app)
        assert [one.send(png()).status_code for _ in range(12)][-2:] == [413, 413]
        statuses = [other.send(png()).status_code for _ in range(10)]
        assert 201 in statuses
        assert statuses[-1] == 413
        assert "disk space" in other.send(png()).json()["error"]


def test_streams_of_a_session_are_few(tmp_path: Path) -> None:
    with studio(tmp_path / "s", streams=1) as app:
        from scumble.studio import api

        browser = Browser(app)
        job = browser.made("generate", prompt="a cat", steps=1)["id"]
        owner = app.state.studio.database.row("SELECT session FROM job WHERE id = ?", job)[0]
        api._open[owner] += 1
        try:
            assert browser.get(f"/api/jobs/{job}/events").status_code == 429
        finally:
            del api._open[owner]
        assert browser.get(f"/api/jobs/{job}/events").status_code == 200
        assert owner not in api._open
