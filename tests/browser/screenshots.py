"""The pictures of docs/studio.md: every page of a studio with the toybox, light, dark and on a phone.

.venv/bin/python tests/browser/screenshots.py docs/images/studio
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import uvicorn
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from scumble.studio.app import create_app
from scumble.studio.serve import address, listen
from scumble.studio.settings import Settings
from scumble.world.render import render
from scumble.world.subjects import SUBJECTS

LOOKS = (("light", "light", (1280, 800)), ("dark", "dark", (1280, 800)), ("phone", "light", (360, 740)))
PATIENCE = 900_000
TOP = "for (const node of document.querySelectorAll('html, .side')) node.scrollTop = 0"
SUBJECT = SUBJECTS[0]


@contextmanager
def serving(folder: Path, **more: str) -> Iterator[str]:
    settings = Settings(folder=folder, port=0, **more)  # pyright: ignore[reportArgumentType]
    ear = listen(settings)
    server = uvicorn.Server(uvicorn.Config(create_app(settings), log_level="warning", ws="none"))
    threading.Thread(target=server.run, kwargs={"sockets": [ear]}, daemon=True).start()
    while not server.started:
        time.sleep(0.1)
    yield address(settings, ear).rstrip("/")
    server.should_exit = True


def rendered(folder: Path) -> list[Path]:
    """Photos of one subject of the toy world."""
    pixels = (render(SUBJECT.scenes, size=128).pixels * 255).round().byte().permute(0, 2, 3, 1).numpy()
    paths = [folder / f"{SUBJECT.name}-{i}.png" for i in range(len(pixels))]
    for path, array in zip(paths, pixels, strict=True):
        Image.fromarray(array).save(path)
    return paths


class Camera:
    """Takes each page in every look."""

    def __init__(self, page: Page, out: Path) -> None:
        self.page, self.out = page, out

    def take(self, name: str) -> None:
        for look, scheme, (width, height) in LOOKS:
            self.page.emulate_media(color_scheme=scheme)  # pyright: ignore[reportArgumentType]
            self.page.set_viewport_size({"width": width, "height": height})
            self.page.wait_for_timeout(500)
            self.page.evaluate(TOP)
            picture = Image.open(BytesIO(self.page.screenshot()))
            picture.convert("RGB").save(self.out / f"{name}-{look}.webp", quality=80, method=6)
        self.page.emulate_media(color_scheme="light")
        self.page.set_viewport_size({"width": 1280, "height": 800})
        self.page.wait_for_timeout(300)


def send(page: Page) -> None:
    seed = page.locator('[data-field="seed"] input')
    if seed.is_visible():
        seed.fill("7")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#stage .progress", timeout=PATIENCE)
    page.wait_for_selector("#stage .actions", timeout=PATIENCE)
    page.wait_for_load_state("networkidle")


def steps(page: Page, count: int) -> None:
    page.get_by_text("More settings").click()
    page.locator('[data-field="steps"] input[type=number]').fill(str(count))
    page.get_by_text("More settings").click()


def generate(page: Page, camera: Camera) -> None:
    page.goto("/generate")
    for prompt, count in (("a wooden boat under the stars", 2), ("a red cat on the beach at sunset", 4)):
        page.get_by_label("Prompt").fill(prompt)
        page.locator('[data-field="count"] input[type=number]').fill(str(count))
        send(page)
    camera.take("generate")


def learn(page: Page, camera: Camera, photos: list[Path]) -> None:
    page.goto("/learn")
    page.get_by_label("Textual Inversion").check()
    page.get_by_text("Find the word").wait_for()
    page.locator('[data-field="images"] input[type=file]').set_input_files(photos)
    page.locator(".photos .chosen").nth(len(photos) - 1).wait_for()
    page.get_by_label("Word", exact=True).fill("<rex>")
    page.get_by_label("Noun", exact=True).fill(SUBJECT.noun)
    steps(page, 20)
    send(page)
    camera.take("learn")


def paint(page: Page, camera: Camera, photo: Path) -> None:
    page.goto("/paint")
    page.wait_for_selector("body[data-ready]")
    page.locator(".picture-buttons input[type=file]").set_input_files(photo)
    page.wait_for_selector('#canvas[data-pixels="128 x 128"]')
    box = page.locator("#canvas").bounding_box()
    assert box
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def stroke(*points: tuple[float, float]) -> None:
        page.mouse.move(x + points[0][0], y + points[0][1])
        page.mouse.down()
        for dx, dy in points[1:]:
            page.mouse.move(x + dx, y + dy, steps=12)
        page.mouse.up()

    page.get_by_label("Brush size in pixels").fill("9")
    page.get_by_label("Brush size in pixels").press("Enter")
    page.locator('.swatch[value="#d33f3f"]').click()
    stroke((-70, -150), (0, -172), (70, -150))
    page.locator('.swatch[value="#f5cf3d"]').click()
    stroke((-95, -125), (0, -140), (95, -125))
    page.keyboard.press("m")
    page.get_by_label("Brush size in pixels").fill("24")
    page.get_by_label("Brush size in pixels").press("Enter")
    stroke((-95, -130), (0, -165), (95, -130))
    page.mouse.move(x + 150, y - 60)
    page.get_by_label("Prompt").fill("a red hat")
    camera.take("paint")
    send(page)
    camera.take("painted")


def edit(page: Page, camera: Camera, photo: Path) -> None:
    page.goto("/edit#edit-text2live")
    page.locator('[data-field="image"] input[type=file]').set_input_files(photo)
    page.wait_for_selector('[data-field="image"] .chosen')
    page.get_by_label("Prompt").fill("a golden cat")
    steps(page, 80)
    send(page)
    camera.take("edit")


def look_back(page: Page, camera: Camera) -> None:
    page.goto("/history")
    page.wait_for_selector(".entry img")
    page.wait_for_load_state("networkidle")
    camera.take("history")
    page.locator(".entry", has_text="a red hat").first.click()
    page.wait_for_selector("dialog .frame img")
    camera.take("entry")
    page.keyboard.press("Escape")
    pair = [page.locator(".entry", has_text="a red cat").nth(i).get_attribute("data-id") for i in (0, 1)]
    page.evaluate("pair => sessionStorage.setItem('scumble:compare:pair', JSON.stringify(pair))", pair)
    page.goto("/compare")
    page.wait_for_selector("#pair-stage img")
    camera.take("compare")


def main(out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as playwright:
        work = Path(scratch)
        photos = rendered(work)
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        with serving(work / "studio") as home:
            page = browser.new_page(base_url=home, viewport={"width": 1280, "height": 800})
            page.set_default_timeout(PATIENCE)
            camera = Camera(page, out)
            generate(page, camera)
            learn(page, camera, photos)
            paint(page, camera, photos[0])
            edit(page, camera, photos[1])
            look_back(page, camera)
        with serving(work / "locked", password="a long password") as home:
            page = browser.new_page(base_url=home)
            page.goto("/login")
            page.wait_for_selector("#password")
            Camera(page, out).take("login")
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
