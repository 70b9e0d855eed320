"""Markup in prompts and in metadata, looked at by a browser: it is text on every page, and nothing runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from playwright.sync_api import Page, expect

from scumble.adapters.weights import Weights, Word

pytestmark = pytest.mark.browser
PATIENCE = 60_000
HOSTILE = '<img src=x onerror="window.ran=1"><script>window.ran=1</script><svg onload="window.ran=1">'
HEADERS = {"X-Scumble": "1"}


def made(page: Page, home: str, verb: str, **settings: Any) -> dict[str, Any]:
    """A job of this browser's session, once it is done."""
    headers = {**HEADERS, "Origin": home}
    answer = page.request.post("/api/jobs", headers=headers, data={"verb": verb, "settings": settings})
    assert answer.status == 202, answer.text()
    for _ in range(600):
        job = page.request.get(f"/api/jobs/{answer.json()['id']}").json()
        if job["state"] == "done":
            return job
        page.wait_for_timeout(100)
    raise AssertionError(job)


def inert(page: Page) -> None:
    """Nothing ran, nothing was asked for, and nothing of it became an element."""
    page.wait_for_timeout(300)  # an image that fails, or a script, would have had its turn
    assert page.evaluate("window.ran") is None
    assert page.locator('img[src="x"], [onerror], [onload], svg[onload]').count() == 0
    assert page.evaluate("[...document.scripts].every((script) => script.src)")


def test_markup_in_prompts_is_text_in_history_and_galleries(page: Page, studio: str) -> None:
    page.goto("/generate")
    drawn = made(page, studio, "generate", prompt=HOSTILE, negative=HOSTILE, steps=1)["results"][0]["id"]
    made(page, studio, "edit-sdedit", guide=drawn, prompt=HOSTILE, steps=1)
    page.goto("/history")
    entry = page.locator(".entry").first
    expect(entry.locator(".words")).to_have_text(HOSTILE)
    inert(page)
    entry.click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text(HOSTILE)
    expect(dialog.get_by_text("Made from")).to_be_visible()
    inert(page)
    page.keyboard.press("Escape")
    page.goto("/edit#edit-instruct")
    page.locator('[data-field="image"]').get_by_role("button", name="One made before").click()
    gallery = page.get_by_role("dialog").locator(".thumb")
    expect(gallery).to_have_count(2)
    assert [face.get_attribute("title") for face in gallery.all()] == [HOSTILE] * 2
    inert(page)


def test_markup_in_the_form_and_under_the_result_is_text(page: Page) -> None:
    page.goto("/generate")
    page.get_by_label("Prompt").fill(HOSTILE)
    page.get_by_text("More settings").click()
    page.locator('[data-field="steps"] input[type=number]').fill("1")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#stage .words")).to_have_text(HOSTILE, timeout=PATIENCE)
    expect(page.locator("#strip .tile")).to_have_count(1)
    inert(page)
    page.reload()
    expect(page.get_by_label("Prompt")).to_have_value(HOSTILE)
    inert(page)


def test_markup_in_the_metadata_of_weights_is_text(page: Page, tmp_path: Path) -> None:
    word = Word((torch.ones(1, 32),), noun=HOSTILE)
    file = tmp_path / "weights.safetensors"
    Weights(
        method="textual-inversion", family="sd1", base_hash="", words={"<img/src=x/onerror=ran=1>": word}
    ).save(file)
    page.goto("/learn")
    name = f"{HOSTILE.replace('/', '')}.safetensors"
    content = {"name": name, "mimeType": "application/octet-stream", "buffer": file.read_bytes()}
    page.locator("#bring").set_input_files([content])
    expect(page.locator("#weights li")).to_have_count(1)
    expect(page.locator("#weights strong")).to_have_text("<img/src=x/onerror=ran=1>")
    inert(page)
    page.goto("/generate")
    expect(page.locator(".weight strong")).to_contain_text("<img src=x onerror=")
    inert(page)
