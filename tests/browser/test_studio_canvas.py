"""The canvas: what is painted is what arrives, to the bit; and everything can be taken back."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from playwright.sync_api import Page, expect

from scumble.verbs import edit_sdedit

pytestmark = pytest.mark.browser
PATIENCE = 60_000
SIZE = (48, 40)  # smaller than a tile, and no square
RED = (211, 63, 63)


def disc(size: int, at: tuple[int, int], shape: tuple[int, int] = SIZE) -> np.ndarray:
    """Where a round brush `size` pixels across touches: centres in its circle; odd ones stand on a pixel."""
    x, y = np.meshgrid(np.arange(shape[0]), np.arange(shape[1]))
    half = 0 if size % 2 else 1
    return (2 * (x - at[0]) + half) ** 2 + (2 * (y - at[1]) + half) ** 2 <= size**2


def noise(seed: int = 0, size: tuple[int, int] = SIZE, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size[1], size[0], channels), dtype=np.uint8)


def upload(pixels: np.ndarray | Image.Image) -> Any:
    file = BytesIO()
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(file, "PNG")
    return {"name": "picture.png", "mimeType": "image/png", "buffer": file.getvalue()}


@pytest.fixture
def canvas(page: Page) -> Page:
    """The paint page on a picture of noise."""
    page.goto("/paint")
    page.wait_for_selector("body[data-ready]")
    page.locator(".picture-buttons input[type=file]").set_input_files(upload(noise()))
    page.wait_for_selector(f'#canvas[data-pixels="{SIZE[0]} x {SIZE[1]}"]')
    return page


def size(page: Page, pixels: int) -> None:
    field = page.get_by_label("Brush size in pixels")
    field.fill(str(pixels))
    field.press("Enter")


def stroke_by_keys(page: Page, *moves: str) -> None:
    """Put the brush down where the keyboard's ring is, in the middle at first, move it and lift it."""
    page.locator("#canvas").focus()
    page.keyboard.press("Enter")
    for move in moves:
        page.keyboard.press(move)
    page.keyboard.press("Enter")


def saved(page: Page) -> np.ndarray:
    """The layer that is chosen, as it is downloaded."""
    with page.expect_download() as download:
        page.get_by_role("button", name="Save this layer to a file").click()
    return np.asarray(Image.open(download.value.path()))


def test_exactly_the_painted_pixels_and_mask_reach_the_method(
    canvas: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrived: list[Any] = []
    before = edit_sdedit.painting

    def painting(guide: Any, **given: Any) -> Any:
        arrived.append((guide, given["original"], given["mask"]))
        return before(guide, **given)

    monkeypatch.setattr(edit_sdedit, "painting", painting)
    size(canvas, 5)
    stroke_by_keys(canvas, "ArrowRight", "ArrowRight", "ArrowDown")
    canvas.keyboard.press("m")
    size(canvas, 8)
    stroke_by_keys(canvas, "ArrowLeft")
    canvas.get_by_label("Prompt").fill("a hat")
    canvas.get_by_label("Prompt").fill("a cat")  # mask and strokes stay when the prompt changes
    canvas.get_by_text("More settings").click()
    canvas.locator('[data-field="steps"] input[type=number]').fill("2")
    canvas.keyboard.press("Control+Enter")
    expect(canvas.locator("#stage .actions")).to_be_visible(timeout=PATIENCE)

    start = (SIZE[0] // 2, SIZE[1] // 2)
    painted = np.zeros(SIZE[::-1], bool)
    for at in ((0, 0), (1, 0), (2, 0), (2, 1)):
        painted |= disc(5, (start[0] + at[0], start[1] + at[1]))
    masked = disc(8, (start[0] + 2, start[1] + 1)) | disc(8, (start[0] + 1, start[1] + 1))
    guide = np.where(painted[..., None], np.uint8(RED), noise())
    assert arrived
    for guide_in, original_in, mask_in in arrived:
        assert np.array_equal(as_bytes(guide_in), guide)
        assert np.array_equal(as_bytes(original_in), noise())
        assert np.array_equal(as_bytes(mask_in)[..., 0], masked * np.uint8(255))


def as_bytes(pixels: torch.Tensor) -> np.ndarray:
    """(1, C, H, W) in [0, 1] as an array (H, W, C)."""
    return np.rint(pixels[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8)


def test_a_pointers_stroke_is_where_the_pointer_was(canvas: Page) -> None:
    box = canvas.locator("#canvas").bounding_box()
    assert box
    size(canvas, 3)
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    canvas.mouse.move(middle[0] + 1, middle[1] + 1)  # the picture is in the middle: pixel (24, 20)
    canvas.mouse.down()
    canvas.mouse.up()
    strokes = saved(canvas)
    assert strokes.shape == (SIZE[1], SIZE[0], 4)
    expected = disc(3, (24, 20))
    assert np.array_equal(strokes[..., 3], expected * np.uint8(255))
    assert np.array_equal(strokes[expected], np.tile([*RED, 255], (9, 1)))


def test_undo_and_redo_go_all_the_way(canvas: Page) -> None:
    size(canvas, 7)
    states = [saved(canvas)]
    for move in (
        "ArrowRight",
        "Shift+ArrowDown",
    ):  # Chromium lets a page save no more than ten files in a row
        stroke_by_keys(canvas, move)
        states.append(saved(canvas))
    canvas.get_by_role("button", name="Clear this layer").click()
    states.append(saved(canvas))
    assert not states[-1].any()
    canvas.keyboard.press("e")
    for state in states[-2::-1]:
        canvas.keyboard.press("Control+z")
        assert np.array_equal(saved(canvas), state)
    expect(canvas.get_by_role("button", name="Undo (Ctrl Z)")).to_be_disabled()
    for state in states[1:]:
        canvas.keyboard.press("Control+Shift+z")
        assert np.array_equal(saved(canvas), state)
    expect(canvas.get_by_role("button", name="Redo (Ctrl Shift Z)")).to_be_disabled()


def test_eraser_picker_and_fill(canvas: Page) -> None:
    canvas.keyboard.press("i")
    canvas.locator("#canvas").focus()
    canvas.keyboard.press("Enter")  # the colour in the middle; the brush is taken again
    size(canvas, 9)
    stroke_by_keys(canvas)
    middle = noise()[SIZE[1] // 2, SIZE[0] // 2]
    strokes = saved(canvas)
    assert np.array_equal(
        strokes[disc(9, (24, 20))][:, :3], np.tile(middle, (int(disc(9, (24, 20)).sum()), 1))
    )
    canvas.keyboard.press("e")
    size(canvas, 4)
    stroke_by_keys(canvas)
    left = disc(9, (24, 20)) & ~disc(4, (24, 20))
    assert np.array_equal(saved(canvas)[..., 3] > 0, left)
    canvas.keyboard.press("m")
    canvas.keyboard.press("g")
    canvas.locator("#canvas").focus()
    canvas.keyboard.press("Enter")
    assert (saved(canvas) == 255).all()
    canvas.get_by_role("button", name="Swap what may change and what stays").click()
    assert not saved(canvas).any()


def test_a_drawing_survives_a_reload_and_stays_in_its_tab(canvas: Page) -> None:
    size(canvas, 6)
    stroke_by_keys(canvas, "Shift+ArrowRight")
    strokes = saved(canvas)
    canvas.wait_for_selector('body[data-kept="1"]')
    other = canvas.context.new_page()
    other.goto("/paint")
    other.wait_for_selector("body[data-ready]")
    assert not saved(other).any()
    canvas.reload()
    canvas.wait_for_selector("body[data-ready]")
    assert np.array_equal(saved(canvas), strokes)


def test_layers_come_in_from_files(canvas: Page) -> None:
    layer = noise(1, channels=4)
    layer[..., 3] = np.where(layer[..., 3] > 127, 255, 0)
    canvas.get_by_label("Load this layer from a file").set_input_files(upload(layer))
    canvas.wait_for_selector('body[data-kept="1"]')
    strokes = saved(canvas)
    assert np.array_equal(strokes[..., 3], layer[..., 3])
    assert np.array_equal(strokes[layer[..., 3] > 0], layer[layer[..., 3] > 0])
    canvas.get_by_label("Load this layer from a file").set_input_files(upload(noise(2, (20, 20))))
    expect(canvas.locator("#messages")).to_contain_text("20 × 20")


def test_zoom_and_pan_change_no_pixel(canvas: Page) -> None:
    size(canvas, 5)
    stroke_by_keys(canvas)
    before = saved(canvas)
    box = canvas.locator("#canvas").bounding_box()
    assert box
    canvas.mouse.move(box["x"] + 200, box["y"] + 200)
    canvas.mouse.wheel(0, -300)
    for key in ("+", "-", "Alt+ArrowLeft", "0", "v"):
        canvas.keyboard.press(key)
    assert np.array_equal(saved(canvas), before)


def test_png_is_read_and_written_exactly(page: Page) -> None:
    """With Pillow on the other side, in all its ways to hold colours; transparent pixels keep theirs."""
    page.goto("/login")
    run = """async (files) => {
        const { encode, decode } = await import('/static/js/paint/png.js');
        return Promise.all(files.map(async (bytes) => {
            const { width, height, data } = await decode(Uint8Array.from(bytes));
            return [[...data], [...await encode({ width, height, channels: 4, data })]];
        }));
    }"""
    start = Image.fromarray(noise(3, (37, 29), 4))
    images = [
        start.convert("RGB").quantize(200),
        *(start.convert(mode) for mode in ("L", "LA", "RGB", "RGBA")),
    ]
    answers = page.evaluate(run, [list(upload(image)["buffer"]) for image in images])
    assert len(answers) == 5
    for image, (data, written) in zip(images, answers, strict=True):
        expected = np.asarray(image.convert("RGBA"))
        assert np.array_equal(np.uint8(data).reshape(expected.shape), expected), image.mode
        assert np.array_equal(np.asarray(Image.open(BytesIO(bytes(written)))), expected), image.mode


def test_undo_keeps_little_of_large_pictures(page: Page) -> None:
    """Forty strokes over 1024 x 1024 pixels, each with a way back of its own, in less than one bitmap."""
    page.goto("/login")
    run = """async () => {
        const { Drawing, packed } = await import('/static/js/paint/drawing.js');
        const drawing = new Drawing(1024, 1024);
        for (let i = 0; i < 40; i++) {
            drawing.begin();
            const colour = packed([i, 9, 7]);
            for (let x = 0; x < 950; x += 50) drawing.line('paint', x, 24 * i, x + 50, 24 * i, 31, colour);
            drawing.end();
        }
        const kept = drawing.done.flat().reduce((sum, { pixels }) => sum + pixels.byteLength, 0);
        const steps = drawing.done.length;
        while (drawing.undo());
        return [steps, kept, drawing.isEmpty('paint')];
    }"""
    steps, kept, empty = page.evaluate(run)
    assert (steps, empty) == (40, True)
    assert kept < 1024 * 1024 * 4
