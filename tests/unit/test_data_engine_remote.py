"""A server that answers well, badly, slowly, too much, or not at all, and what is made of it."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from cli import scumble
from scumble.core.errors import InputError, ScumbleError
from scumble.datagen.completions import Sampling
from scumble.datagen.remote_model import IN_A_ROW, MAX_BYTES, Address, RemoteModel

GOOD = "make it blue\n%%\na blue cat"
Reply = Callable[[BaseHTTPRequestHandler], None]


def chat(text: str = GOOD, **choice: Any) -> bytes:
    return json.dumps({"choices": [{"message": {"content": text}} | choice]}).encode()


def send(body: bytes = b"", status: int = 200, **headers: str) -> Reply:
    def reply(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return reply


def drip(handler: BaseHTTPRequestHandler) -> None:
    """A byte every 50 ms, so that no single read takes long and the whole would take minutes."""
    handler.send_response(200)
    handler.send_header("Content-Length", "10000")
    handler.end_headers()
    for _ in range(10_000):
        handler.wfile.write(b" ")
        handler.wfile.flush()
        time.sleep(0.05)


def drip_headers(handler: BaseHTTPRequestHandler) -> None:
    for _ in range(10_000):
        handler.wfile.write(b"H")
        handler.wfile.flush()
        time.sleep(0.05)


def silent(handler: BaseHTTPRequestHandler) -> None:
    time.sleep(5)


def hang_up(handler: BaseHTTPRequestHandler) -> None:
    handler.connection.shutdown(socket.SHUT_RDWR)


def flood(handler: BaseHTTPRequestHandler) -> None:
    """An endless answer."""
    handler.send_response(200)
    handler.end_headers()
    while True:
        handler.wfile.write(b"x" * 65536)


class Server:
    """Gives the replies of its list one after another, the last one for ever, and keeps the requests."""

    def __init__(self, *replies: Reply) -> None:
        self.replies, self.requests = list(replies), list[tuple[str, dict[str, str], Any]]()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                server.requests.append((self.path, dict(self.headers), json.loads(body)))
                reply = server.replies[min(len(server.requests), len(server.replies)) - 1]
                self.close_connection = True
                with suppress(OSError):
                    reply(self)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/v1"

    def __enter__(self) -> Server:
        Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.http.shutdown()
        self.http.server_close()


@contextmanager
def asking(*replies: Reply, **address: Any) -> Iterator[tuple[RemoteModel, Server, list[float]]]:
    """A model at a server of these replies, and the pauses that it makes (without making them)."""
    pauses: list[float] = []
    with Server(*replies) as server:
        place = Address(**({"url": server.url, "model": "small", "timeout": 2.0, "at_once": 1} | address))
        yield RemoteModel(place, Sampling(), sleep=pauses.append), server, pauses


def test_a_good_answer_and_what_was_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", "secret")
    with asking(send(chat()), key_variable="A_KEY") as (model, server, _):
        [answer] = model(["a red cat"], 0)
    assert answer.text == GOOD
    [(path, headers, body)] = server.requests
    assert path == "/v1/chat/completions"
    assert headers["Authorization"] == "Bearer secret"
    assert body["model"] == "small"
    assert body["messages"][-1] == {"role": "user", "content": "a red cat"}
    shown = [m["content"] for m in body["messages"] if m["role"] == "assistant"]
    assert len(shown) == 3
    assert all("\n%%\n" in text for text in shown)
    assert {
        "temperature": 0.7,
        "top_p": 1.0,
        "frequency_penalty": 0.1,
        "max_tokens": 256,
    }.items() <= body.items()
    assert body["stop"] == ["\nEND"]


def test_the_completions_form_sends_the_papers_question() -> None:
    body = json.dumps({"choices": [{"text": GOOD, "finish_reason": "stop"}]}).encode()
    with asking(send(body), form="completions") as (model, server, _):
        assert model(["a red cat"], 0)[0].text == GOOD
    assert server.requests[0][0] == "/v1/completions"
    assert server.requests[0][2]["prompt"] == "a red cat\n##\n"
    assert "Authorization" not in server.requests[0][1]


def test_answers_stand_in_the_order_of_the_captions() -> None:
    def echo(handler: BaseHTTPRequestHandler) -> None:
        caption = server.requests[-1][2]["messages"][-1]["content"]
        send(chat(f"say {caption}\n%%\nnew"))(handler)

    with asking(echo, at_once=1) as (model, server, _):
        assert [a.text for a in model(["x", "y", "z"], 0)] == [f"say {c}\n%%\nnew" for c in "xyz"]
    with asking(send(chat()), at_once=4) as (model, server, _):
        assert len(model([str(i) for i in range(9)], 0)) == 9 == len(server.requests)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"<html>hello</html>", b"\xff\xfe", b"null", b"[]", b'"text"', b"{}", b'{"choices": []}',
        b'{"choices": [7]}', b'{"choices": [{"message": null}]}',
        b'{"choices": [{"message": {"content": 5}}]}',
        b"[" * 200_000, chat(finish_reason="length"),
    ],
)  # fmt: skip
def test_babble_is_malformed_and_left_to_the_caller(body: bytes) -> None:
    with asking(send(body)) as (model, server, _):
        [answer] = model(["a red cat"], 0)
    assert (answer.text, answer.reason) == (None, "malformed")
    assert len(server.requests) == 1


@pytest.mark.parametrize("reply", [send(b" " * (MAX_BYTES + 1)), flood])
def test_what_is_too_long_is_not_read(reply: Reply) -> None:
    with asking(reply) as (model, _, _):
        assert model(["a red cat"], 0)[0].reason == "too long"


@pytest.mark.parametrize(
    "trouble",
    [send(status=429), send(status=500), send(status=503), hang_up],
    ids=["429", "500", "503", "cut"],
)
def test_a_busy_server_is_asked_again_with_longer_pauses(trouble: Reply) -> None:
    with asking(trouble, trouble, send(chat())) as (model, server, pauses):
        assert model(["a red cat"], 0)[0].text == GOOD
    assert len(server.requests) == 3
    assert pauses == [1.0, 2.0]
    assert model.retried == 2


def test_the_server_may_say_how_long_to_wait_within_reason() -> None:
    waits = [
        send(status=429, Retry_After=text) for text in ("7", "1e9", "Wed, 21 Oct 2037 07:28:00 GMT", "nan")
    ]
    with asking(*waits, send(chat())) as (model, _, pauses):
        assert model(["a red cat"], 0)[0].text == GOOD
    assert pauses == [7.0, 60.0, 4.0, 8.0]


@pytest.mark.parametrize("slow", [drip, drip_headers, silent])
def test_a_slow_answer_is_given_up_on_time(slow: Reply) -> None:
    with asking(slow, send(chat()), timeout=0.4) as (model, server, _):
        begin = time.monotonic()
        assert model(["a red cat"], 0)[0].text == GOOD
        assert time.monotonic() - begin < 4
    assert len(server.requests) == 2


def test_one_that_refuses_a_caption_is_skipped() -> None:
    with asking(send(status=400), send(chat())) as (model, server, _):
        refused, answered = model(["a", "b"], 0)
    assert (refused.text, refused.reason, answered.text) == (None, "refused", GOOD)
    assert len(server.requests) == 2


@pytest.mark.parametrize("status", [401, 403, 404])
def test_an_address_that_refuses_altogether_is_a_sentence(status: int) -> None:
    with asking(send(status=status)) as (model, _, _), pytest.raises(InputError, match=f"status {status}"):
        model(["a", "b"], 0)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_no_redirect_is_followed(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", "secret")
    with Server(send(chat())) as elsewhere:
        away = send(status=status, Location=elsewhere.url)
        with (
            asking(away, key_variable="A_KEY") as (model, _, _),
            pytest.raises(InputError, match="sends on to"),
        ):
            model(["a"], 0)
        assert elsewhere.requests == []


def test_nobody_at_home_ends_the_run() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        model = RemoteModel(Address(url=url, at_once=1), Sampling(), retries=1, sleep=lambda _: None)
        with pytest.raises(ScumbleError, match="nobody is there, 5 questions in a row"):
            model([str(i) for i in range(20)], 0)
    assert model.retried == IN_A_ROW


def test_one_that_fails_for_good_is_skipped_and_the_next_answered() -> None:
    with asking(*[send(status=500)] * 5, send(chat())) as (model, _, _):
        first, second = model(["a", "b"], 0)
    assert (first.text, first.reason, second.text) == (None, "unanswered", GOOD)


@pytest.mark.parametrize(
    "url", ["localhost:8000", "ftp://host/v1", "http://", "file:///etc/passwd", "http://h:x"]
)
def test_what_is_no_address_is_refused_at_once(url: str) -> None:
    with pytest.raises(InputError, match="no address"):
        RemoteModel(Address(url=url), Sampling())


def test_a_key_is_there_and_does_not_travel_in_plain_text(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="no variable 'NO_SUCH_KEY'"):
        RemoteModel(Address(url="https://example.com/v1", key_variable="NO_SUCH_KEY"), Sampling())
    monkeypatch.setenv("A_KEY", "secret")
    with pytest.raises(InputError, match="plain text"):
        RemoteModel(Address(url="http://example.com/v1", key_variable="A_KEY"), Sampling())
    RemoteModel(Address(url="https://example.com/v1", key_variable="A_KEY"), Sampling())
    RemoteModel(Address(url="http://localhost:1/v1", key_variable="A_KEY"), Sampling())


def test_from_the_command_line(tmp_path: Path) -> None:
    def by_caption(handler: BaseHTTPRequestHandler) -> None:
        caption = server.requests[-1][2]["messages"][-1]["content"]
        replies = {"babble": send(b"<html>"), "refuse": send(status=400)}
        replies.get(caption, send(chat(f"make it blue\n%%\na blue {caption}")))(handler)

    captions, out = tmp_path / "captions.txt", tmp_path / "edits.jsonl"
    captions.write_text("cat\nbabble\nrefuse\ndog\n")
    with Server(by_caption) as server:
        (tmp_path / "settings.toml").write_text(f'address = "{server.url}"\nat_once = 1\ntries = 2\n')
        command = (
            "data", "instructions", "--config", str(tmp_path / "settings.toml"), "--captions", str(captions),
            "--address-model", "small", "--text-only", "-o", str(out), "--json",
        )  # fmt: skip
        said = scumble(*command)
        asked = len(server.requests)
    assert said.status == 0, said.err
    assert [json.loads(line)["edited_caption"] for line in out.read_text().splitlines()] == [
        "a blue cat",
        "a blue dog",
    ]
    assert said.json["text"] == {"asked again": 2, "taken": 4, "kept": 2, "malformed": 1, "refused": 1}
    assert asked == 6
    out.unlink()
    assert scumble(*command).status == 0, "all was answered: the server, which is gone, is not needed"
    with Server(send(status=401)) as server:
        refused = scumble(*command[:-2], str(tmp_path / "again.jsonl"), "--address", server.url)
    assert (refused.status, "status 401: it wants a key" in refused.sentence) == (2, True)
