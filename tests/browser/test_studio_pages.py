"""What people do in the studio: learn, generate, cancel, look back, work in two tabs, and all by keyboard."""

from __future__ import annotations

import re
from io import BytesIO
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Page, expect

pytestmark = pytest.mark.browser
PATIENCE = 60_000


def picture(colour: str, size: tuple[int, int] = (64, 64)) -> Any:
    """A file to upload."""
    file = BytesIO()
    Image.new("RGB", size, colour).save(file, "PNG")
    return {"name": f"{colour}.png", "mimeType": "image/png", "buffer": file.getvalue()}


def ask(page: Page, prompt: str, steps: int = 2) -> None:
    """Fill in the form that is open and send it, by keyboard."""
    page.get_by_label("Prompt").fill(prompt)
    fold = page.get_by_text("More settings")
    if page.locator("details.fold[open]").count() == 0:
        fold.click()
    page.locator('[data-field="steps"] input[type=number]').fill(str(steps))
    page.keyboard.press("Control+Enter")


def wait_for_result(page: Page) -> None:
    expect(page.locator("#stage .actions")).to_be_visible(timeout=PATIENCE)


def test_generate_shows_the_picture_and_its_seed_can_be_used_again(page: Page) -> None:
    page.goto("/generate")
    ask(page, "a red <b>cat</b>")
    wait_for_result(page)
    image = page.locator("#stage .frame img")
    expect(image).to_be_visible()
    expect(image).to_have_js_property("naturalWidth", 64)  # waits: a picture is shown before it has arrived
    expect(image).to_have_js_property("naturalHeight", 64)
    expect(page.locator("#stage .words")).to_have_text("a red <b>cat</b>")  # text, never markup
    seed = re.search(r"seed (\d+)", page.locator("#stage .facts").first.inner_text())
    assert seed
    seed_field = page.locator('[data-field="seed"] input')
    expect(seed_field).to_have_value("")
    page.get_by_role("button", name="Use these settings").click()
    expect(seed_field).to_have_value(seed[1])
    shown = image.evaluate("image => image.src")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#strip .tile")).to_have_count(2)
    wait_for_result(page)
    again = page.locator("#stage .frame img").evaluate("image => image.src")
    assert again != shown
    assert page.request.get(again).body() != b""
    first, second = (Image.open(BytesIO(page.request.get(url).body())) for url in (shown, again))
    assert first.tobytes() == second.tobytes()


def test_a_refusal_stands_at_its_field(page: Page, watched: Any) -> None:
    page.goto("/generate")
    ask(page, "a cat", steps=0)
    field = page.locator('[data-field="steps"]')
    expect(field.locator(".fault")).to_have_text("Steps is at least 1.")
    expect(field.locator("input[type=number]")).to_be_focused()
    page.locator('[data-field="steps"] input[type=number]').fill("2")
    page.locator('[data-field="negative"] input').fill("(cat:1.2")  # only the server knows
    page.locator('[data-field="width"] input[type=number]').fill("61")
    page.keyboard.press("Control+Enter")
    expect(page.locator(".fault:visible, #stage .notice").first).to_contain_text(".", timeout=PATIENCE)
    watched.complaints[:] = [text for text in watched.complaints if "status of 422" not in text]


def test_cancel_stops_a_job(page: Page) -> None:
    page.goto("/generate")
    ask(page, "a blue ball", steps=1000)
    expect(page.locator(".progress-text")).to_contain_text("Step", timeout=PATIENCE)
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#stage")).to_contain_text("Cancelled", timeout=PATIENCE)
    ask(page, "a red ball")  # and the studio goes on
    wait_for_result(page)


def test_a_learnt_word_goes_from_learn_to_generate(page: Page) -> None:
    page.goto("/learn")
    page.get_by_label("Textual Inversion").check()
    expect(page.locator(".sentence")).to_contain_text("Find the word")  # the form of this method is there
    page.locator('[data-field="images"] input[type=file]').set_input_files([picture("red"), picture("blue")])
    expect(page.locator(".photos .chosen")).to_have_count(2)
    page.get_by_label("Word", exact=True).fill("<rex>")
    page.get_by_label("Noun", exact=True).fill("dog")
    page.get_by_text("More settings").click()
    page.locator('[data-field="steps"] input[type=number]').fill("2")
    page.keyboard.press("Control+Enter")
    expect(page.get_by_role("heading", name="<rex> is learnt")).to_be_visible(timeout=PATIENCE)
    expect(page.locator("#shelf")).to_contain_text("<rex>")
    page.get_by_role("button", name="Use it in Generate").click()
    page.wait_for_url("**/generate")
    expect(page.locator(".weight input[type=checkbox]")).to_be_checked()
    expect(page.get_by_label("Prompt")).to_have_value("a photo of a <rex> dog")
    ask(page, "a photo of a <rex> dog")
    wait_for_result(page)


def test_two_subjects_are_learnt_together_and_two_files_made_one(page: Page, watched: Any) -> None:
    page.goto("/learn")
    page.get_by_label("Textual Inversion").check()
    expect(page.locator(".sentence")).to_contain_text("Find the word")
    page.locator('[data-field="images"] input[type=file]').set_input_files([picture("red")])
    page.get_by_label("Word", exact=True).fill("<rex>")
    page.get_by_label("Noun", exact=True).fill("dog")
    page.get_by_role("button", name="Another subject").click()
    page.locator(".subject input[type=file]").set_input_files([picture("green"), picture("blue")])
    expect(page.locator(".subject .chosen")).to_have_count(2)
    page.get_by_label("Word of this subject").fill("<tom>")
    page.get_by_label("Noun of this subject").fill("cat")
    page.reload()  # a draft keeps it
    expect(page.get_by_label("Word of this subject")).to_have_value("<tom>")
    page.get_by_text("More settings").click()
    page.locator('[data-field="steps"] input[type=number]').fill("2")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#shelf")).to_contain_text("<rex> <tom>", timeout=PATIENCE)
    page.get_by_role("button", name="Take this subject away").click()
    page.get_by_label("Word", exact=True).fill("<ada>")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#shelf li")).to_have_count(2, timeout=PATIENCE)
    page.get_by_label("Merge").check()
    boxes = page.locator(".weight input[type=checkbox]")
    expect(boxes).to_have_count(2)
    boxes.first.check()
    page.keyboard.press("Control+Enter")
    expect(page.locator('[data-field="weights"] .fault')).to_contain_text("two or more", timeout=PATIENCE)
    boxes.last.check()
    page.keyboard.press("Control+Enter")
    expect(page.get_by_role("heading", name="Merged")).to_be_visible(timeout=PATIENCE)
    expect(page.locator("#shelf li")).to_have_count(3)
    watched.complaints[:] = [text for text in watched.complaints if "status of 422" not in text]


def test_an_edit_is_compared_with_what_it_was_made_from(page: Page) -> None:
    page.goto("/edit#edit-instruct")
    page.locator('[data-field="image"] input[type=file]').set_input_files(picture("green"))
    expect(page.locator('[data-field="image"] .chosen')).to_be_visible()
    page.get_by_label("Instructions").fill("make it night")
    page.get_by_text("More settings").click()
    page.locator('[data-field="steps"] input[type=number]').fill("2")
    page.keyboard.press("Control+Enter")
    slider = page.get_by_role("slider", name="Before and after")
    expect(slider).to_be_visible(timeout=PATIENCE)
    slider.focus()
    for _ in range(10):
        page.keyboard.press("ArrowLeft")
    assert page.locator(".slider").evaluate("node => node.style.getPropertyValue('--cut')") == "40%"


def test_history_keeps_lineage_and_makes_the_same_pixels_again(page: Page) -> None:
    page.goto("/generate")
    ask(page, "a dog in the grass")
    wait_for_result(page)
    page.locator(".menu summary").click()
    page.get_by_role("button", name="Generate, as a guide").click()
    page.wait_for_selector("body[data-ready]")
    ask(page, "a dog in the snow")
    wait_for_result(page)
    page.goto("/history")
    newest = page.locator(".entry").first
    expect(newest).to_contain_text("a dog in the snow")
    newest.click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_text("Made from")).to_be_visible()
    dialog.locator(".family .thumb").first.click()
    expect(page.get_by_role("dialog")).to_contain_text("a dog in the grass")
    page.get_by_role("button", name="Redo: the same pixels").click()
    page.wait_for_url("**/generate")
    wait_for_result(page)
    ids = [tile.get_attribute("data-key") for tile in page.locator("#strip .tile").all()]
    assert len(ids) == 2
    urls = []
    for tile in page.locator("#strip .tile").all():
        tile.click()
        urls.append(page.locator("#stage .frame img").evaluate("image => image.src"))
    first, second = (Image.open(BytesIO(page.request.get(url).body())) for url in urls)
    assert first.tobytes() == second.tobytes()


def test_two_tabs_do_not_disturb_each_other(context: BrowserContext) -> None:
    one, other = context.new_page(), context.new_page()
    for page, prompt in ((one, "a red ball"), (other, "a blue cube")):
        page.goto("/generate")
        ask(page, prompt)
    for page, prompt in ((one, "a red ball"), (other, "a blue cube")):
        wait_for_result(page)
        page.reload()
        expect(page.get_by_label("Prompt")).to_have_value(prompt)
        expect(page.locator("#stage .words")).to_have_text(prompt)
        expect(page.locator("#strip .tile")).to_have_count(1)


def test_generate_by_keyboard_alone(page: Page) -> None:
    page.goto("/generate")
    expect(page.get_by_label("Prompt")).to_be_visible()
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.tagName") == "TEXTAREA":
            break
    page.keyboard.type("a green hat")
    while "fold" not in page.evaluate("document.activeElement.parentElement.className"):
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    while page.evaluate("document.activeElement.closest('.row')?.dataset.field") != "steps":
        page.keyboard.press("Tab")
    page.keyboard.press("Control+a")
    page.keyboard.type("2")
    page.keyboard.press("Enter")
    wait_for_result(page)
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.tagName") == "SUMMARY" and page.evaluate(
            "Boolean(document.activeElement.closest('.menu'))"
        ):
            break
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Paint on it")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Paint on it")).to_be_hidden()
    expect(page.locator(".menu summary")).to_be_focused()


def test_a_password_opens_the_studio(browser: Browser, locked: str) -> None:
    context = browser.new_context(base_url=locked)
    page = context.new_page()
    page.goto("/generate")
    page.wait_for_url("**/login")
    page.get_by_label("Password").fill("wrong")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).not_to_be_empty()
    page.get_by_label("Password").fill("open sesame")
    page.keyboard.press("Enter")
    page.wait_for_url("**/generate")
    expect(page.get_by_label("Prompt")).to_be_visible()
    page.get_by_role("button", name="Log out").click()
    page.wait_for_url("**/login")
    context.close()


def test_every_page_fits_a_phone_and_every_control_has_a_name(page: Page) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    nameless = """[...document.querySelectorAll('button, a, input, select, textarea')]
        .filter((node) => node.checkVisibility() && node.getAttribute('aria-hidden') !== 'true')
        .filter((node) => !node.labels?.length && !node.getAttribute('aria-label'))
        .filter((node) => !node.textContent.trim())
        .map((node) => node.outerHTML)"""
    for name in ("learn", "generate", "edit", "paint", "compare", "history", "login"):
        page.goto(f"/{name}")
        page.wait_for_load_state("networkidle")
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, name
        assert page.evaluate(nameless) == [], name
