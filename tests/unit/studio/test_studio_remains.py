"""What stays on the disk: results and what was sent, all of it counted, and nothing of what was removed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from PIL import Image

from scumble.studio.remains import learning_name
from studios import Browser, png, png_of, studio
from tiny_clip import shared_clip


def noise(seed: int = 0) -> bytes:
    values = np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    return png_of(Image.fromarray(values))


def owner(app: FastAPI, stored: str) -> str:
    return app.state.studio.database.row("SELECT session FROM file WHERE id = ?", stored)[0]


def lying(app: FastAPI) -> dict[str, int]:
    """Every file of every session, with its length."""
    folder = app.state.studio.files.folder
    return {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for path in folder.rglob("*")
        if path.is_file()
    }


def counted(app: FastAPI) -> int:
    return app.state.studio.database.row("SELECT sum(bytes) FROM file")[0]


def remove_all(app: FastAPI, browser: Browser) -> None:
    for (stored,) in app.state.studio.database.rows("SELECT id FROM file"):
        assert browser.delete(f"/api/images/{stored}").status_code == 200


def test_photos_of_a_comparison_are_not_kept_twice(tmp_path: Path) -> None:
    """Neither as copies nor within a page; and all that is there is counted."""
    with studio(tmp_path / "s", clip=str(shared_clip())) as app:
        browser = Browser(app)
        given = {"image": browser.sent(noise()), "photos": [browser.sent(noise(n)) for n in (1, 2)]}
        given |= {"word": "<rex>", "noun": "dog", "prompt": "a <rex> dog", "learning_steps": 1, "steps": 1}
        job = browser.made("compare", **given, prior_count=1, methods=["sdedit", "textual-inversion"])
        names = sorted(Path(name).name for name in lying(app))
        assert names == ["picture.png"] * 5 + ["weights.safetensors"]
        assert sum(lying(app).values()) == counted(app)
        [drawn] = [r for r in job["results"] if r["label"] == "sdedit"]
        assert drawn["row"]["scores"]  # the page's table is kept
        assert browser.get(f"/api/images/{drawn['id']}").status_code == 200
        remove_all(app, browser)
        assert list(app.state.studio.files.folder.glob("*/*")) == []


def test_a_comparison_that_failed_leaves_nothing(app: FastAPI, browser: Browser) -> None:
    photo = browser.sent(noise())
    settings = {"photos": [photo], "word": "<rex>", "noun": "dog", "prompt": "no word of it"}
    job = browser.ended(browser.asked("compare", **settings))
    assert (job["state"], job["results"]) == ("failed", [])
    assert not app.state.studio.files.job_folder(owner(app, photo), job["id"]).exists()


def test_a_jobs_folder_goes_with_its_last_file(app: FastAPI, browser: Browser) -> None:
    results = browser.made("generate", prompt="a cat", steps=1, count=2)["results"]
    folder = app.state.studio.files.path(
        app.state.studio.files.get(owner(app, results[0]["id"]), results[0]["id"])
    ).parent
    for number, result in enumerate(results, 1):
        assert folder.is_dir()
        browser.delete(f"/api/images/{result['id']}")
        assert folder.exists() == (number < len(results))
    assert folder.parent.is_dir()  # the session's, in which others may be about to be made


# Learning


def cancelled(browser: Browser, settings: dict[str, Any]) -> str:
    """A learning that has got somewhere and was cancelled."""
    job = browser.asked("learn-textual-inversion", **settings)
    while (now := browser.get(f"/api/jobs/{job}").json())["step"] < 15 or not now["note"].startswith(
        "learning"
    ):
        assert now["state"] in ("waiting", "running"), now
        time.sleep(0.01)
    browser.delete(f"/api/jobs/{job}")
    assert browser.ended(job)["state"] == "cancelled"
    return job


@pytest.fixture
def learning(browser: Browser) -> dict[str, Any]:
    pictures = [browser.sent(noise(n)) for n in range(2)]
    settings = {"images": pictures, "word": "<rex>", "noun": "dog", "preset": "default", "batch": 1}
    return settings | {"steps": 500, "checkpoint_every": 10}


def test_cancelled_learning_keeps_no_photo(app: FastAPI, browser: Browser, learning: dict[str, Any]) -> None:
    cancelled(browser, learning)
    session = owner(app, learning["images"][0])
    folder = app.state.studio.files.job_folder(session, learning_name("learn-textual-inversion", learning))
    assert not (folder / "subject").exists()
    assert (folder / "rex.run" / "checkpoints").is_dir()


def test_cancelled_learning_goes_with_a_photo_of_it(
    app: FastAPI, browser: Browser, learning: dict[str, Any]
) -> None:
    """It could not be gone on with any more."""
    cancelled(browser, learning)
    session = owner(app, learning["images"][0])
    folder = app.state.studio.files.job_folder(session, learning_name("learn-textual-inversion", learning))
    unrelated = browser.sent(noise(9))
    browser.delete(f"/api/images/{unrelated}")
    assert (folder / "rex.run").is_dir()
    browser.delete(f"/api/images/{learning['images'][1]}")
    assert not folder.exists()


def test_learning_whose_photo_is_removed_while_it_runs(
    app: FastAPI, browser: Browser, learning: dict[str, Any]
) -> None:
    """It goes on, since it has read them all; of what was cancelled then, nothing stays."""
    job = browser.asked("learn-textual-inversion", **learning)
    while not browser.get(f"/api/jobs/{job}").json()["note"].startswith("learning"):
        time.sleep(0.01)
    session = owner(app, learning["images"][0])
    folder = app.state.studio.files.job_folder(session, learning_name("learn-textual-inversion", learning))
    browser.delete(f"/api/images/{learning['images'][0]}")
    assert folder.is_dir()
    browser.delete(f"/api/jobs/{job}")
    assert browser.ended(job)["state"] == "cancelled"
    last = time.monotonic() + 20
    while folder.exists() and time.monotonic() < last:
        time.sleep(0.02)
    assert not folder.exists()


# After a kill


def test_a_studio_that_starts_sorts_what_a_killed_one_left(tmp_path: Path) -> None:
    """Whole pictures of the job that ran become its results; all that no record speaks of goes."""
    with studio(tmp_path / "s") as app:
        browser = Browser(app)
        job = browser.made("generate", prompt="a cat", steps=1, count=3, seed=1)
        sent = browser.sent(noise())
        session, files = owner(app, sent), app.state.studio.files
        folder, kept = files.job_folder(session, job["id"]), set(lying(app))
    with studio(tmp_path / "s") as app:
        database = app.state.studio.database
        database.write("UPDATE job SET state = 'running', step = 1")
        database.write("DELETE FROM file WHERE job = ? AND label = 'seed 2'", job["id"])  # not recorded yet
    half = (
        folder / "seed-9.png",
        folder / ".tmp.png",
        folder / "photos" / "00.png",
        folder / "comparison" / "index.html",
    )
    for place in half:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(png()[:40] if place in half[:2] else png())
    orphans = ("0" * 32, "a.png"), ("1" * 32, "comparison/photos/00.png"), ("2" * 32, "rex.run/config.toml")
    for name, place in orphans:
        lost = folder.parent / name / place
        lost.parent.mkdir(parents=True)
        lost.write_bytes(png())
    unknown = folder.parent.parent / ("f" * 32) / ("0" * 32) / "a.png"  # of no session here
    unknown.parent.mkdir(parents=True)
    unknown.write_bytes(png())
    with studio(tmp_path / "s") as app:
        later = Browser(app)
        later.client.cookies.update(dict(browser.client.cookies))
        found = later.get(f"/api/jobs/{job['id']}").json()
        assert (found["state"], found["error"]) == ("failed", "The studio was stopped while this ran.")
        assert {result["label"] for result in found["results"]} == {"seed 1", "seed 2", "seed 3", "grid"}
        assert set(lying(app)) == kept | {unknown.relative_to(folder.parent.parent).as_posix()}
        assert [path.name for path in folder.parent.iterdir() if path.name in dict(orphans)] == []
        assert later.get(f"/api/images/{sent}").status_code == 200


def test_learning_that_was_killed_can_be_gone_on_with(tmp_path: Path) -> None:
    with studio(tmp_path / "s") as app:
        browser = Browser(app)
        settings = {"images": [browser.sent(noise(n)) for n in range(2)], "word": "<rex>", "noun": "dog"}
        settings |= {"preset": "default", "batch": 1, "steps": 500, "checkpoint_every": 10}
        cancelled(browser, settings)
        session = owner(app, settings["images"][0])
        folder = app.state.studio.files.job_folder(
            session, learning_name("learn-textual-inversion", settings)
        )
        app.state.studio.database.write("UPDATE job SET state = 'running'")
    (folder / "subject").mkdir()
    (folder / "subject" / "00.png").write_bytes(png())
    with studio(tmp_path / "s"):
        assert (folder / "rex.run" / "checkpoints").is_dir()
        assert not (folder / "subject").exists()


def test_a_link_in_a_jobs_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "diary.txt").write_text("x")
    with studio(tmp_path / "s") as app:
        sent = Browser(app).sent(noise())
        folder = app.state.studio.files.job_folder(owner(app, sent), "0" * 32)
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path / "theirs")
    (folder / "file").symlink_to(tmp_path / "theirs" / "diary.txt")
    with studio(tmp_path / "s"):
        assert not folder.exists()
        assert (tmp_path / "theirs" / "diary.txt").read_text() == "x"
