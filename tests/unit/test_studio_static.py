"""The studio's pages as files: nothing from outside, nothing inline, colours that can be read."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

import pytest

STATIC = Path(str(files("scumble"))) / "studio" / "static"
TEXTS = sorted(path for path in STATIC.rglob("*") if path.suffix in (".html", ".css", ".js", ".svg"))
PAGES = sorted(STATIC.glob("*.html"))
NAMESPACE = "http://www.w3.org/2000/svg"


def test_no_address_of_another_place() -> None:
    assert len(TEXTS) >= 30
    for path in TEXTS:
        text = path.read_text().replace(NAMESPACE, "")
        assert not re.search(r"https?:|//[a-z0-9-]+\.[a-z]", text), path


def test_no_inline_script_or_style() -> None:
    assert len(PAGES) == 8
    for page in PAGES:
        text = page.read_text()
        assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:", text), page
        assert all("src=" in tag for tag in re.findall(r"<script[^>]*>", text)), page
    for path in STATIC.rglob("*.js"):
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", path.read_text()
        ), path


def test_every_import_is_there() -> None:
    found = 0
    for path in STATIC.rglob("*.js"):
        for name in re.findall(r"from '(\.[^']+)'", path.read_text()):
            assert (path.parent / name).is_file(), f"{path} imports {name}"
            found += 1
    assert found > 40


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2.2)."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [0, 1, 2])  # light, dark by choice, dark by the system
def test_text_can_be_read(theme: int) -> None:
    blocks = re.findall(r":root[^{]*\{([^}]*)\}", (STATIC / "css" / "studio.css").read_text())
    assert len(blocks) == 3
    colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", blocks[theme]))
    assert len(colours) == 13
    for ground in ("ground", "raised", "sunk", "stage"):
        assert contrast(colours["ink"], colours[ground]) >= 7
        assert contrast(colours["faint"], colours[ground]) >= 4.5
    pairs = (
        ("accent", "raised"), ("accent", "ground"), ("bad", "raised"), ("bad", "bad-soft"),
        ("on-accent", "accent"), ("ink", "accent-soft"), ("accent", "accent-soft"),
    )  # fmt: skip
    for text, ground in pairs:
        assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
    assert contrast(colours["line-strong"], colours["raised"]) >= 3  # the edges of controls
    assert contrast(colours["accent"], colours["stage"]) >= 3  # the ring of the focus


def test_both_ways_to_the_dark_are_one() -> None:
    blocks = re.findall(r":root[^{]*\{([^}]*)\}", (STATIC / "css" / "studio.css").read_text())
    assert blocks[1].split() == blocks[2].split()


def test_files_stay_short() -> None:
    for path in TEXTS:
        if path.suffix == ".js":
            assert len(path.read_text().splitlines()) <= 400, path
