"""Attacks by files: bombs, polyglots, lies about lengths, disguises, names, links. Nothing of them is kept
but pixels, and nothing of anybody else's is given.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fastapi import FastAPI
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from safetensors.torch import save

from scumble.adapters.weights import Weights, Word
from studios import ADDRESS, Browser, chunk, png, png_of, studio

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def kept(app: FastAPI) -> set[Path]:
    """Every file in the studio's folder but its records."""
    folder = app.state.studio.settings.folder
    return {path for path in folder.rglob("*") if path.is_file() and "studio.sqlite3" not in path.name}


def refused(app: FastAPI, answer: Any, *statuses: int) -> None:
    """An answer that says no in a sentence without paths; nothing of the upload lies about."""
    assert answer.status_code in statuses, answer.text
    assert set(answer.json()) == {"error", "remedy", "field"}
    assert str(app.state.studio.settings.folder) not in answer.text
    assert ".partial" not in answer.text
    assert not list(app.state.studio.files.incoming.glob("*"))


def header(width: int, height: int) -> bytes:
    return chunk(b"IHDR", width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes((8, 0, 0, 0, 0)))


# Size


def test_an_upload_that_is_too_long_by_its_own_word(app: FastAPI, browser: Browser) -> None:
    """It is refused before a byte of the body is looked at."""
    headers = browser.headers | {"Content-Length": str(10**12)}
    refused(app, browser.client.post("/api/images", content=b"x", headers=headers), 413)


@pytest.mark.parametrize("length", ["-1", "1e3", "0x10", "１２", "9" * 400, "10, 20"])
def test_an_upload_with_an_odd_length(app: FastAPI, browser: Browser, length: str) -> None:
    headers = {**browser.headers, "Content-Length": length}
    encoded = {name.encode(): value.encode() for name, value in headers.items()}
    refused(app, browser.client.post("/api/images", content=b"x", headers=encoded), 400, 413)


def test_an_upload_in_chunks_that_never_says_how_long_it_is(tmp_path: Path) -> None:
    with studio(tmp_path / "s", upload_bytes=100_000) as app:
        browser, sent = Browser(app), 0

        def endless() -> Iterator[bytes]:
            nonlocal sent
            while sent < 50_000_000:
                sent += 10_000
                yield bytes(10_000)

        answer = browser.client.post("/api/images", content=endless(), headers=browser.headers)
        refused(app, answer, 413)


def test_a_short_upload_that_is_announced_as_none(app: FastAPI, browser: Browser) -> None:
    refused(app, browser.client.post("/api/images", content=b"", headers=browser.headers), 415)


# Bombs


def test_a_png_bomb(app: FastAPI, browser: Browser) -> None:
    """40,000 x 40,000 black pixels in four kilobytes."""
    row = bytes(40_001)
    packer = zlib.compressobj(9)
    data = b"".join(packer.compress(row) for _ in range(100)) + packer.flush()
    bomb = SIGNATURE + header(40_000, 40_000) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    refused(app, browser.send(bomb), 422)


def test_a_png_with_a_few_pixels_more_than_allowed(tmp_path: Path) -> None:
    with studio(tmp_path / "s", pixels=48 * 40) as app:
        browser = Browser(app)
        assert browser.send(png((48, 40))).status_code == 201
        refused(app, browser.send(png((49, 40))), 422)


def test_a_webp_bomb(app: FastAPI, browser: Browser) -> None:
    """A canvas of 16384 x 16384 that is announced in 30 bytes, and would be made as soon as it is opened."""
    canvas = b"\0\0\0\0" + (16383).to_bytes(3, "little") * 2
    body = b"WEBPVP8X" + len(canvas).to_bytes(4, "little") + canvas
    bomb = b"RIFF" + len(body).to_bytes(4, "little") + body
    refused(app, browser.send(bomb, "a.webp"), 422)


def test_a_gif_bomb(app: FastAPI, browser: Browser) -> None:
    frames = [Image.new("P", (800, 800), n) for n in range(50)]
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    refused(app, browser.send(file.getvalue(), "a.gif"), 415)
    refused(app, browser.send(file.getvalue(), "a.png"), 415)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_a_picture_of_many_frames(app: FastAPI, browser: Browser, kind: str) -> None:
    frames = [Image.new("RGB", (40, 40), (n, 0, 0)) for n in range(60)]
    file = io.BytesIO()
    frames[0].save(file, kind, save_all=True, append_images=frames[1:])
    refused(app, browser.send(file.getvalue()), 422)


def test_a_text_chunk_bomb(app: FastAPI, browser: Browser) -> None:
    """200 texts that unpack to 900 kB each."""
    text = zlib.compress(bytes(900_000), 9)
    texts = b"".join(chunk(b"zTXt", b"k%d\0\0" % n + text) for n in range(200))
    whole = png()
    refused(app, browser.send(whole[:33] + texts + whole[33:]), 422)


def test_a_text_chunk_that_unpacks_to_a_gigabyte(app: FastAPI, browser: Browser) -> None:
    packer = zlib.compressobj(9)
    text = b"".join(packer.compress(bytes(10**6)) for _ in range(50)) + packer.flush()
    whole = png()
    refused(app, browser.send(whole[:33] + chunk(b"zTXt", b"scumble\0\0" + text) + whole[33:]), 422)


# Disguises


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>", "a.svg"),
        (b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>", "a.png"),
        (b"<?xml version='1.0'?><!DOCTYPE x [<!ENTITY a SYSTEM 'file:///etc/passwd'>]>&a;", "a.png"),
        (b"<!doctype html><script>alert(1)</script>", "a.html"),
        (b"<!doctype html><script>alert(1)</script>", "a.png"),
        (b"%PDF-1.7\n", "a.png"), (b"MZ" + bytes(100), "a.png"), (b"\x7fELF" + bytes(100), "a.png"),
        (b"PK\x03\x04" + bytes(100), "a.png"), (b"#!/bin/sh\nrm -rf /\n", "a.png"),
        (b"P6\n1 1\n255\nabc", "a.png"), (b"II*\0" + bytes(50), "a.tiff"), (b"BM" + bytes(60), "a.bmp"),
        (b"\0\0\0\x20ftypavif" + bytes(60), "a.avif"), (b"%!PS-Adobe-3.0 EPSF-3.0\n", "a.png"),
        (b"push graphic-context\nimage over 0,0 0,0 'https://evil.example'\n", "a.mvg"),
        (bytes(64), "a.png"), (b"\x89PNG\r\n\x1a\n", "a.png"), (b"RIFF\0\0\0\0WEBP", "a.webp"),
        (b"\xff\xd8\xff", "a.jpg"),
    ],
)  # fmt: skip
def test_something_else_as_a_picture(app: FastAPI, browser: Browser, content: bytes, name: str) -> None:
    refused(app, browser.send(content, name), 415, 422)


def test_a_polyglot_of_picture_and_page(browser: Browser) -> None:
    """It is a sound PNG and a sound page; what is kept is the picture alone, and its type is said."""
    page = b"<html><script>alert(document.cookie)</script></html>"
    whole = png()
    poly = whole[:33] + chunk(b"tEXt", b"Comment\0" + page) + whole[33:] + page + b"PK\x05\x06" + bytes(18)
    answer = browser.get(f"/api/images/{browser.sent(poly, 'a.html')}")
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert b"script" not in answer.content
    assert b"PK\x05\x06" not in answer.content
    assert list(Image.open(io.BytesIO(answer.content)).info) == []


def test_a_polyglot_of_jpeg_and_script(browser: Browser) -> None:
    file = io.BytesIO()
    Image.new("RGB", (40, 40)).save(file, "JPEG", comment=b"*/=alert(1);/*")
    answer = browser.get(f"/api/images/{browser.sent(file.getvalue(), 'a.js')}")
    assert answer.headers["content-type"] == "image/png"
    assert b"alert" not in answer.content


def test_metadata_of_a_camera_is_not_kept(browser: Browser) -> None:
    exif = Image.Exif()
    exif[0x010F] = "a camera of somebody's"
    file = io.BytesIO()
    Image.new("RGB", (40, 40)).save(file, "JPEG", exif=exif)
    assert b"somebody" not in browser.get(f"/api/images/{browser.sent(file.getvalue())}").content


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_a_truncated_picture(app: FastAPI, browser: Browser, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    before = kept(app)
    for kind in ("PNG", "JPEG", "WEBP"):
        file = io.BytesIO()
        Image.fromarray(noise).save(file, kind)
        content = file.getvalue()
        refused(app, browser.send(content[: int(len(content) * share)]), 422)
    assert kept(app) == before


def test_pixels_and_alpha_are_kept_bit_for_bit(browser: Browser) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (37, 51, 4), dtype=np.uint8)
    answer = browser.get(f"/api/images/{browser.sent(png_of(Image.fromarray(noise)))}")
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(answer.content))), noise)


# Weights


def test_a_pickle_disguised_as_weights(app: FastAPI, browser: Browser, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return os.system, (f"touch {tmp_path / 'pwned'}",)

    bad = io.BytesIO()
    torch.save({"emb_params": torch.zeros(1)}, bad)
    for content in (pickle.dumps(Evil()), bad.getvalue(), bytes(8) + b"{" + pickle.dumps(Evil())):
        for name in ("a.safetensors", "a.pt", "a.ckpt", "a.bin"):
            refused(app, browser.send(content, name), 415, 422)
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    "length", [0, 1, 7, 10**3, 10**6, 2**31, 2**63 - 1, 2**64 - 1], ids=lambda n: f"{n} bytes"
)
def test_weights_with_a_lying_header(app: FastAPI, browser: Browser, length: int) -> None:
    content = length.to_bytes(8, "little") + b'{"__metadata__": {}}' + bytes(40)
    refused(app, browser.send(content, "a.safetensors"), 422)


@pytest.mark.parametrize(
    "header",
    [
        {"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 4]}},
        {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 2**62]}},
        {"a": {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}},
        {"a": {"dtype": "O", "shape": [1], "data_offsets": [0, 4]}},
        {"__metadata__": {"scumble": "{" * 10_000}},
        {"__metadata__": {"scumble": json.dumps({"method": "../../x", "format": 1})}},
        {"__metadata__": {"scumble": "x" * 5_000_000}},
        [],
    ],
    ids=range(8),
)
def test_weights_with_a_hostile_header(app: FastAPI, browser: Browser, header: Any) -> None:
    text = json.dumps(header).encode()
    refused(app, browser.send(len(text).to_bytes(8, "little") + text + bytes(4), "a.safetensors"), 415, 422)


def test_weights_of_others_are_not_taken_as_ours(app: FastAPI, browser: Browser) -> None:
    refused(app, browser.send(save({"emb_params": torch.zeros(1, 32)}), "a.safetensors"), 422)


def test_weights_with_a_hostile_name_come_back_inert(browser: Browser, tmp_path: Path) -> None:
    word = Word((torch.ones(1, 32),), noun="<img src=x onerror=alert(1)>")
    file = tmp_path / "w.safetensors"
    weights = Weights(method="textual-inversion", family="sd1", base_hash="", words={"<rex>": word})
    weights.save(file)
    name = "../../<script>alert(1)</script>\r\nX-Evil: 1.safetensors"
    stored = browser.sent(file.read_bytes(), name)
    [found] = browser.get("/api/weights").json()
    assert found["id"] == stored
    assert "\n" not in found["name"]
    answer = browser.get(f"/api/images/{stored}")
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"] == 'attachment; filename="script-X-Evil-1.safetensors"'
    assert "x-evil" not in answer.headers
    assert answer.content == file.read_bytes()


# Names and texts


@pytest.mark.parametrize(
    "name",
    ["../../../etc/cron.d/evil.png", "..\\..\\evil.png", "/etc/passwd", "a\0b.png", "x" * 10_000, "", ".",
     "..", ".htaccess", "CON.png", "a\r\nSet-Cookie: evil=1.png", 'a"; filename="b.html', "\u202egnp.exe",
     "日本.png", "<script>alert(1)</script>", "$(touch pwned).png", "%2e%2e%2f.png", "a/b/c.png",
     "\u2028.png"],
)  # fmt: skip
def test_hostile_names(app: FastAPI, browser: Browser, name: str) -> None:
    before = kept(app)
    stored = browser.sent(png(), name)
    [new] = kept(app) - before
    assert new.parent.parent.parent == app.state.studio.files.folder
    assert new.suffix == ".png"
    answer = browser.get(f"/api/images/{stored}?download=1")
    disposition = answer.headers["content-disposition"]
    assert disposition.startswith('attachment; filename="')
    assert disposition.isascii()
    assert disposition.count('"') == 2
    assert not {"\r", "\n", "/", "\\", ";"} & set(disposition.removeprefix("attachment; "))
    assert "set-cookie" not in answer.headers


XSS = (
    "<script>alert(1)</script>", "\"><img src=x onerror=alert(1)>", "</script><svg/onload=alert(1)>",
    "javascript:alert(1)", "{{7*7}}${7*7}", "' OR 1=1 --", "\u2028alert(1)\u2029",
)  # fmt: skip


def test_scripts_in_prompts_come_back_inert(browser: Browser) -> None:
    text = " ".join(XSS)
    job = browser.made("generate", prompt=text, negative=text, steps=1)
    stored = job["results"][0]["id"]
    calls = ["/api/jobs", f"/api/jobs/{job['id']}", "/api/history", f"/api/history/{stored}",
             f"/api/images/{stored}/recipe"]  # fmt: skip
    for call in calls:
        answer = browser.get(call)
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "script-src 'self'" in answer.headers["content-security-policy"]
        assert text in json.dumps(answer.json(), ensure_ascii=False).replace('\\"', '"')
    stream = browser.get(f"/api/jobs/{job['id']}/events")
    assert stream.headers["content-type"].startswith("text/event-stream")
    assert [line for line in stream.text.split("\n") if line and not line.startswith("data: {")] == []


def test_a_prompt_cannot_forge_an_event(browser: Browser) -> None:
    job = browser.made("generate", prompt='x\n\ndata: {"state": "done"}\n\nevent: evil\r\n', steps=1)
    stream = browser.get(f"/api/jobs/{job['id']}/events").text
    assert [json.loads(line[6:])["id"] for line in stream.splitlines() if line] == [job["id"]]


def test_a_recipe_of_a_stranger_is_shown_and_never_followed(browser: Browser, tmp_path: Path) -> None:
    """It names files outside, another model, pickles; it comes back as data, and cannot be made again."""
    secret = tmp_path / "secret.png"
    secret.write_bytes(png())
    recipe = {
        "format": 1, "command": "edit instruct", "seed": 1, "scumble": "<b>0.1</b>",
        "settings": {"instructions": ["x"], "model": "evil/model", "trust_pickle": True},
        "model": {"role": "model", "name": "evil/model", "hash": "a" * 64},
        "ingredients": [{"role": "image", "name": str(secret), "hash": "b" * 64}],
    }  # fmt: skip
    info = PngInfo()
    info.add_text("scumble", json.dumps(recipe))
    stored = browser.sent(png_of(Image.new("RGB", (40, 40)), pnginfo=info))
    shown = browser.get(f"/api/images/{stored}/recipe")
    assert shown.headers["content-type"] == "application/json"
    assert shown.json()["settings"] == recipe["settings"]
    answer = browser.post(f"/api/history/{stored}/redo", {"set": {}})
    assert answer.status_code == 422
    assert browser.ask("edit-instruct", image=stored, **recipe["settings"]).status_code == 422


@pytest.mark.parametrize(
    "text", ["{" * 50_000, "null", "[]", '{"format": 99}', "x" * 900_000, '{"format": 1, "command": 7}']
)
def test_hostile_recipes_do_not_spoil_their_picture(browser: Browser, text: str) -> None:
    info = PngInfo()
    info.add_text("scumble", text)
    stored = browser.sent(png_of(Image.new("RGB", (40, 40)), pnginfo=info))
    assert browser.get(f"/api/images/{stored}/recipe").status_code == 404


def test_redo_cannot_change_what_it_may_not(browser: Browser) -> None:
    made = browser.made("generate", prompt="a cat", steps=1)["results"][0]["id"]
    for name in ("model", "clip", "weights", "device", "trust_pickle", "upscaler", "count", "a=b", "", "x y"):
        answer = browser.post(f"/api/history/{made}/redo", {"set": {name: "/etc/passwd"}})
        if answer.status_code == 202:
            job = browser.ended(answer.json()["id"])
            assert job["state"] == "failed"
            assert job["results"] == []
        else:
            assert answer.status_code == 422


# Links in the folder


def test_a_link_in_the_folder_is_not_followed(app: FastAPI, browser: Browser) -> None:
    stored = browser.sent(png())
    files = app.state.studio.files
    session = app.state.studio.database.row("SELECT session FROM file WHERE id = ?", stored)[0]
    path = files.path(files.get(session, stored))
    path.unlink()
    path.symlink_to("/etc/passwd")
    assert browser.get(f"/api/images/{stored}").status_code == 404
    assert browser.ask("strokes", image=stored).status_code == 404
    path.unlink()
    folder = path.parent
    folder.rename(folder.with_name("elsewhere"))
    folder.symlink_to(folder.with_name("elsewhere"))
    (folder / path.name).write_bytes(png())
    assert browser.get(f"/api/images/{stored}").status_code == 404


def test_a_file_that_was_removed_behind_the_studios_back(app: FastAPI, browser: Browser) -> None:
    stored = browser.sent(png())
    [path] = [path for path in kept(app) if path.parent.name and stored and path.stem == "picture"][-1:]
    files = app.state.studio.files
    session = app.state.studio.database.row("SELECT session FROM file WHERE id = ?", stored)[0]
    path = files.path(files.get(session, stored))
    path.unlink()
    assert browser.get(f"/api/images/{stored}").status_code == 404
    assert browser.delete(f"/api/images/{stored}").status_code == 200


def test_a_link_among_the_pages_is_not_followed(app: FastAPI, browser: Browser) -> None:
    from scumble.studio.app import STATIC

    link = STATIC / "link-of-a-test.txt"
    link.symlink_to("/etc/passwd")
    try:
        assert browser.get("/static/link-of-a-test.txt").status_code == 404
    finally:
        link.unlink()


def test_the_address_of_the_tests_is_the_servers_own(browser: Browser) -> None:
    assert browser.address == ADDRESS
