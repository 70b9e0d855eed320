"""The studio's life: started, killed, started again, closed, and under load."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
import uvicorn
from PIL import Image

from cli import scumble
from scumble.core.errors import InputError
from scumble.studio.app import create_app
from scumble.studio.database import Database
from scumble.studio.serve import address, listen
from scumble.studio.settings import Settings
from studios import Browser, png_of, studio
from tiny import shared


class Caller:
    """A browser over a real connection."""

    def __init__(self, place: str) -> None:
        self.client = httpx2.Client(base_url=place, timeout=60)
        self.headers = {"Origin": place.rstrip("/"), "X-Scumble": "1"}
        assert self.get("/api/about").status_code == 200

    def get(self, path: str) -> httpx2.Response:
        return self.client.get(path)

    def post(self, path: str, **body: Any) -> httpx2.Response:
        return self.client.post(path, headers=self.headers, **body)

    def ask(self, verb: str, **settings: Any) -> httpx2.Response:
        return self.post("/api/jobs", json={"verb": verb, "settings": settings})

    def until(self, job: str, *states: str) -> dict[str, Any]:
        last = time.monotonic() + 120
        while time.monotonic() < last:
            found = self.get(f"/api/jobs/{job}").json()
            if found["state"] in states:
                return found
            time.sleep(0.05)
        raise AssertionError(found)


def test_a_killed_studio_finds_everything_again(tmp_path: Path) -> None:
    """What was finished is there, of the job that ran too, which has failed; what waited goes on; half an
    upload is gone."""
    folder = tmp_path / "studio"
    command = [
        "studio",
        "--no-browser",
        "--port",
        "0",
        "--folder",
        str(folder),
        "--model",
        str(shared("sd1")),
    ]
    code = f"import sys; sys.argv = ['scumble', *{command!r}]; from scumble.cli.main import main; main()"
    server = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        place = server.stdout.readline().split()[4]
        caller = Caller(place)
        sent = caller.post("/api/images?name=cat.png", content=noise(0)).json()["id"]
        done = caller.until(caller.ask("strokes", image=sent).json()["id"], "done")
        content = caller.get(f"/api/images/{done['results'][0]['id']}").content
        running = caller.ask("generate", prompt="a cat", steps=100, count=32, batch=1, seed=5).json()["id"]
        waiting = caller.ask("strokes", image=sent, colours=2).json()["id"]
        caller.until(running, "running")
        while not list(folder.glob(f"files/*/{running}/[!.]*.png")):
            time.sleep(0.01)
        cookies = dict(caller.client.cookies)
    finally:
        server.send_signal(signal.SIGKILL)
        server.communicate()
    caller.client.close()
    (folder / "incoming").mkdir(exist_ok=True)
    (folder / "incoming" / "half.partial").write_bytes(b"x")
    with studio(folder) as app:
        browser = Browser(app)
        browser.client.cookies.update(cookies)
        assert browser.get(f"/api/images/{done['results'][0]['id']}").content == content
        assert browser.get(f"/api/jobs/{done['id']}").json()["results"] == done["results"]
        assert done["results"][0]["id"] in [entry["id"] for entry in browser.get("/api/history").json()]
        found = browser.get(f"/api/jobs/{running}").json()
        assert (found["state"], found["error"]) == ("failed", "The studio was stopped while this ran.")
        assert 1 <= len(found["results"]) < 32
        assert found["results"][0]["label"] == "seed 5"
        assert browser.ended(waiting)["state"] == "done"
        assert not (folder / "incoming" / "half.partial").exists()
        assert browser.made("strokes", image=sent)["results"]


def test_a_closed_studio_finishes_its_step_and_keeps_the_queue(tmp_path: Path) -> None:
    with studio(tmp_path) as app:
        browser = Browser(app)
        running = browser.asked("generate", prompt="a cat", steps=1000, width=256, height=256)
        waiting = browser.asked("generate", prompt="a cat", steps=1)
        while not browser.get(f"/api/jobs/{running}").json()["step"]:
            time.sleep(0.01)
    with studio(tmp_path) as app:
        again = Browser(app)
        again.client.cookies.update(dict(browser.client.cookies))
        found = again.get(f"/api/jobs/{running}").json()
        assert (found["state"], found["error"]) == ("failed", "The studio was stopped while this ran.")
        assert again.ended(waiting)["state"] == "done"


def test_two_studios_do_not_share_a_folder(tmp_path: Path) -> None:
    with studio(tmp_path), pytest.raises(InputError, match="Another studio is using"):
        create_app(Settings(folder=tmp_path))
    Database(tmp_path).close()  # once it is closed, the folder is free


def test_a_port_in_use_and_an_address_that_is_none(tmp_path: Path) -> None:
    with listen(Settings(port=0)) as ear:
        port = ear.getsockname()[1]
        assert address(Settings(), ear) == f"http://127.0.0.1:{port}/"
        outcome = scumble("studio", "--no-browser", "--port", str(port), "--folder", str(tmp_path))
        assert (outcome.status, outcome.sentence.split(".")[0]) == (2, f"Port {port} is in use")
    with pytest.raises(InputError, match="There is no address"):
        listen(Settings(host="no such host", password="x" * 20))
    outcome = scumble("studio", "--host", "0.0.0.0", "--no-browser")
    assert (outcome.status, "there is no password" in outcome.sentence) == (2, True)


def test_the_command_opens_a_browser_and_closes_on_an_interrupt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []

    def opening(place: str) -> None:
        opened.append(place)
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()

    monkeypatch.setattr("webbrowser.open", opening)
    outcome = scumble("studio", "--port", "0", "--folder", str(tmp_path), "--model", str(shared("sd1")))
    assert outcome.status == 0
    assert outcome.out == f"The studio is at {opened[0]}  (Ctrl-C closes it)\n"
    assert outcome.err == "The studio is closed; everything is kept.\n"


# Under load


def noise(seed: int) -> bytes:
    values = np.random.default_rng(seed).integers(0, 256, (40, 48, 3), dtype=np.uint8)
    return png_of(Image.fromarray(values))


def memory() -> float:
    """Mebibytes that this process has; 0 where the system does not say."""
    if not Path("/proc/self/statm").exists():
        return 0.0
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """A studio on a real socket, in a thread."""
    settings = Settings(folder=folder, port=0, model=str(shared("sd1")))
    with listen(settings) as ear:
        config = uvicorn.Config(create_app(settings), log_level="critical", ws="none")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [ear]})
        thread.start()
        try:
            yield address(settings, ear)
        finally:
            server.should_exit = True
            thread.join()


LEAST = 8
"""Turns of each person, however slow the machine."""


class Person(threading.Thread):
    """Somebody who does all sorts of things, some of them wrong, until `last`."""

    def __init__(self, place: str, number: int, last: float) -> None:
        super().__init__()
        self.caller, self.number, self.last = Caller(place), number, last
        self.statuses: Counter[int] = Counter()
        self.sent: dict[str, int] = {}
        self.jobs: list[str] = []
        self.problems: list[str] = []

    def run(self) -> None:
        turn = 0
        while time.monotonic() < self.last or turn < LEAST:
            turn += 1
            try:
                self.act(turn)
            except Exception as problem:  # a thread's own would be lost
                self.problems.append(repr(problem))

    def note(self, answer: httpx2.Response) -> httpx2.Response:
        self.statuses[answer.status_code] += 1
        return answer

    def act(self, turn: int) -> None:
        caller, seed = self.caller, 1000 * self.number + turn
        answer = self.note(caller.post("/api/images", content=noise(seed)))
        if answer.status_code == 201:
            self.sent[answer.json()["id"]] = seed
        some = list(self.sent)[turn // 2]
        calls = ["/api/history", "/api/forms/generate", "/api/jobs", f"/api/images/{'0' * 32}", "/generate"]
        for path in [f"/api/images/{some}", f"/api/images/{some}/thumb", "/static/../x", *calls]:
            self.note(caller.get(path))
        self.note(caller.post("/api/images", content=b"nothing"))
        self.note(caller.client.post("/api/jobs", json={}))
        if turn % 3 == 0:
            answer = self.note(caller.ask("strokes", image=some, colours=2, kernel=3))
            if answer.status_code == 202:
                self.jobs.append(answer.json()["id"])
        if turn % 9 == 0 and self.jobs:
            self.note(caller.client.delete(f"/api/jobs/{self.jobs[-1]}", headers=caller.headers))
        if turn % 12 == 0 and self.jobs:
            self.note(caller.get(f"/api/jobs/{self.jobs[-1]}/events"))


def test_mixed_requests_of_several_people(tmp_path: Path) -> None:
    """Seven seconds: nothing is lost, nothing breaks, and memory stays flat. `-s` shows the figures."""
    with served(tmp_path) as place:
        people = [Person(place, number, time.monotonic() + 7) for number in range(4)]
        began = time.monotonic()
        for person in people:
            person.start()
        time.sleep(3)
        before = memory()
        for person in people:
            person.join()
        seconds, grown = time.monotonic() - began, memory() - before
        for person in people:
            assert person.problems == []
            assert person.statuses.keys() <= {200, 201, 202, 403, 404, 409, 415, 429}, person.statuses
            states = [person.caller.until(job, "done", "cancelled") for job in person.jobs]
            assert all(job["results"] for job in states if job["state"] == "done")
            for stored, seed in person.sent.items():
                kept = np.asarray(Image.open(io.BytesIO(person.caller.get(f"/api/images/{stored}").content)))
                assert np.array_equal(kept, np.asarray(Image.open(io.BytesIO(noise(seed)))))
            person.caller.client.close()
        assert sum(len(person.sent) for person in people) >= 4 * LEAST
        assert sum(len(person.jobs) for person in people) >= 8
        asked = sum(sum(person.statuses.values()) for person in people)
        said = f"{len(people)} people, {asked} requests in {seconds:.1f} s, {grown:+.1f} MiB"
        print(f"\n{said}, {sum(len(person.jobs) for person in people)} jobs")
        assert grown < 64, said
