"""Jobs: what each verb gives, progress, cancelling, failing, and a model that stays as it was."""

from __future__ import annotations

import base64
import io
import json
import logging
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from PIL import Image

from scumble.core.events import Progress
from scumble.history.store import Store
from scumble.studio import api
from scumble.studio.work import Done
from scumble.verbs import load
from studios import Browser, png, png_of, studio
from tiny import shared
from tiny_clip import shared_clip


def pixels(browser: Browser, stored: str) -> Any:
    return np.asarray(Image.open(io.BytesIO(browser.get(f"/api/images/{stored}").content)))


def noise(size: tuple[int, int] = (64, 64), seed: int = 0, channels: int = 3) -> bytes:
    values = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], channels), dtype=np.uint8)
    return png_of(Image.fromarray(values))


# What verbs give


def test_generate(browser: Browser) -> None:
    job = browser.made("generate", prompt="a red cat", steps=2, seed=7, count=2)
    assert [result["label"] for result in job["results"]] == ["seed 7", "seed 8", "grid"]
    assert job["settings"] == {"prompt": "a red cat", "steps": 2, "seed": 7, "count": 2}
    assert (job["place"], job["error"], job["preview"]) == (None, None, None)
    first = job["results"][0]
    assert (first["kind"], first["width"], first["height"]) == ("image", 64, 64)
    recipe = browser.get(f"/api/images/{first['id']}/recipe").json()
    assert (recipe["command"], recipe["seed"], recipe["settings"]["prompt"]) == ("generate", 7, "a red cat")
    thumb = browser.get(f"/api/images/{first['id']}/thumb")
    assert thumb.headers["content-type"] == "image/webp"
    assert Image.open(io.BytesIO(thumb.content)).size == (64, 64)


def test_a_seed_is_drawn_shown_and_gives_the_same_pixels(browser: Browser) -> None:
    job = browser.made("generate", prompt="a red cat", steps=1)
    again = browser.made("generate", **job["settings"])
    assert 0 <= job["settings"]["seed"] < 2**32
    one, other = (pixels(browser, j["results"][0]["id"]) for j in (job, again))
    assert np.array_equal(one, other)


def test_what_is_made_enters_the_history_of_the_user(browser: Browser) -> None:
    browser.made("generate", prompt="a thing that nobody else draws", steps=1)
    with Store.opened() as store:
        [entry] = store.newest(1)
    assert entry.recipe.settings["prompt"] == "a thing that nobody else draws"
    assert entry.is_there


def test_edit_by_painting_with_transparent_strokes(browser: Browser) -> None:
    strokes = np.zeros((64, 64, 4), np.uint8)
    strokes[20:40, 20:40] = (255, 0, 0, 255)
    guide, original = browser.sent(png_of(Image.fromarray(strokes))), browser.sent(noise())
    job = browser.made("edit-sdedit", guide=guide, original=original, steps=2, t0=0.5, seed=1)
    result = pixels(browser, job["results"][0]["id"])
    before = pixels(browser, original)
    assert np.array_equal(result[0:20], before[0:20])  # outside the strokes nothing changes by a bit
    assert not np.array_equal(result[20:40, 20:40], before[20:40, 20:40])


def test_edit_by_instruction(browser: Browser) -> None:
    job = browser.made(
        "edit-instruct", image=browser.sent(noise()), mask=browser.sent(png((64, 64), (255, 255, 255))),
        instructions=["make it night", "make it red"], steps=2,
    )  # fmt: skip
    [entry] = browser.get("/api/history").json()
    assert (entry["verb"], entry["prompt"]) == ("edit-instruct", "make it night, then make it red")
    assert entry["id"] == job["results"][0]["id"]


def test_edit_by_a_layer(tmp_path: Path) -> None:
    with studio(tmp_path / "s", clip=str(shared_clip())) as app:
        browser = Browser(app)
        picture = browser.sent(noise())
        job = browser.made("edit-text2live", image=picture, prompt="a golden cat", steps=2, size=32, seed=3)
        assert [result["label"] for result in job["results"]] == ["seed 3", "layer", "opacity", "green"]
        assert pixels(browser, job["results"][1]["id"]).shape == (64, 64, 4)
        assert len(browser.get("/api/history").json()) == 1  # the parts are of one result


def test_strokes_and_a_cut_out(browser: Browser) -> None:
    picture = browser.sent(noise())
    painted = browser.made("strokes", image=picture, colours=3)["results"][0]["id"]
    assert len(np.unique(pixels(browser, painted).reshape(-1, 3), axis=0)) <= 3
    patch = browser.sent(png((10, 10), (0, 255, 0, 255)))
    job = browser.made("composite", image=painted, patch=patch, at=[32, 32])
    picture_id, mask = (result["id"] for result in job["results"])
    assert tuple(pixels(browser, picture_id)[32, 32]) == (0, 255, 0)
    assert pixels(browser, mask).max() == 255
    entry = browser.get(f"/api/history/{picture_id}").json()
    assert set(entry["parents"]) == {painted, patch}
    assert browser.get(f"/api/history/{painted}").json()["children"] == [picture_id]


@pytest.mark.parametrize("method", ["textual-inversion", "dreambooth", "custom-diffusion"])
def test_learn_and_use(browser: Browser, method: str) -> None:
    pictures = [browser.sent(noise(seed=n)) for n in range(2)]
    less = {} if method == "textual-inversion" else {"prior_count": 1, "prior_steps": 1}
    job = browser.made(
        f"learn-{method}",
        images=pictures,
        word="<rex>",
        noun="dog",
        steps=2,
        batch=1,
        preset="default",
        **less,
    )
    [learnt] = job["results"]
    assert (learnt["kind"], learnt["name"]) == ("weights", "rex.safetensors")
    [found] = browser.get("/api/weights").json()
    assert (found["id"], found["method"], found["words"]) == (learnt["id"], method, ["<rex>"])
    settings = {"prompt": f"a photo of a {found['note']}", "steps": 1, "seed": 5}
    with_it = browser.made("generate", **settings, weights=[{"id": learnt["id"], "scale": 0.5}])
    recipe = browser.get(f"/api/images/{with_it['results'][0]['id']}/recipe").json()
    assert (recipe["ingredients"][0]["name"], recipe["ingredients"][0]["scale"]) == ("rex.safetensors", 0.5)
    entry = browser.get(f"/api/history/{with_it['results'][0]['id']}").json()
    assert entry["parents"] == [learnt["id"]]
    again = browser.post(f"/api/history/{with_it['results'][0]['id']}/redo", {})
    assert browser.ended(again.json()["id"])["note"] == "The pixels are the same as before."


def test_learning_from_captions_alone(browser: Browser) -> None:
    pictures = [browser.sent(noise(seed=n)) for n in range(2)]
    job = browser.made(
        "learn-custom-diffusion", images=pictures, described=["a red ball", "a blue cube"], steps=1, batch=1,
        preset="default", prior_count=1, prior_steps=1,
    )  # fmt: skip
    assert job["results"][0]["name"] == "concept.safetensors"
    answer = browser.ask("learn-custom-diffusion", images=pictures, described=["a red ball"])
    assert (answer.status_code, answer.json()["field"]) == (422, "described")
    assert browser.ask("learn-dreambooth", images=pictures).json()["field"] == "word"


@pytest.mark.parametrize("method", ["textual-inversion", "custom-diffusion"])
def test_several_subjects_are_learnt_together(app: FastAPI, browser: Browser, method: str) -> None:
    pictures = [browser.sent(noise(seed=n)) for n in range(4)]
    less = {} if method == "textual-inversion" else {"prior_count": 1, "prior_steps": 1}
    asked = {"images": pictures[:2], "word": "<rex>", "noun": "dog", "steps": 2, "preset": "default", **less}
    asked |= {"others": [{"images": pictures[2:], "word": "<tom>", "noun": "cat"}]}
    [learnt] = browser.made(f"learn-{method}", **asked, batch=1)["results"]
    assert learnt["name"] == "rex-tom.safetensors"
    assert browser.get("/api/weights").json()[0]["words"] == ["<rex>", "<tom>"]
    assert browser.get(f"/api/history/{learnt['id']}").json()["parents"] == pictures
    session = app.state.studio.database.row("SELECT session FROM file WHERE id = ?", learnt["id"])[0]
    assert not list((app.state.studio.files.folder / session).rglob("subject"))


@pytest.mark.parametrize(
    "others",
    ["x", 7, {}, [7], ["x"], [{}], [{"images": [], "word": "<tom>"}], [{"images": "x", "word": "<tom>"}],
     [{"images": ["/etc/passwd"], "word": "<tom>"}], [{"images": ["0" * 32], "word": "<tom>"}]],
)  # fmt: skip
def test_further_subjects_that_are_none(browser: Browser, others: Any) -> None:
    picture = browser.sent(noise())
    answer = browser.ask("learn-dreambooth", images=[picture], word="<rex>", noun="dog", others=others)
    assert answer.status_code in (404, 422), answer.text


def test_further_subjects_with_wrong_words(app: FastAPI, browser: Browser) -> None:
    picture = browser.sent(noise())
    wrong: list[dict[str, Any]] = [{}, {"word": ""}, {"word": "<rex>"}, {"word": "two words"}, {"word": 7}]
    wrong += [{"word": "<tom>", "noun": ["cat"]}, {"word": "<tom>", "path": "/etc"}, {"word": "x" * 20_000}]
    asked = {"images": [picture], "word": "<rex>", "noun": "dog"}
    for one in wrong:
        answer = browser.ask("learn-dreambooth", **asked, others=[{"images": [picture], **one}])
        assert answer.status_code == 422, answer.text
        assert str(app.state.studio.settings.folder) not in answer.text
    many = [{"images": [picture] * 25, "word": f"<w{n}>", "noun": "dog"} for n in range(2)]
    answer = browser.ask("learn-dreambooth", **asked, others=many)
    assert (answer.status_code, answer.json()["field"]) == (422, "others")


def test_merge_and_use(browser: Browser) -> None:
    """What was learnt apart, in one picture."""
    learnt: list[str] = []
    for number, word in enumerate(("<rex>", "<tom>")):
        job = browser.made(
            "learn-custom-diffusion", images=[browser.sent(noise(seed=number))], word=word, noun="dog",
            steps=1, batch=1, preset="default", prior_count=1, prior_steps=1, seed=number,
        )  # fmt: skip
        learnt.append(job["results"][0]["id"])
    asked = {"weights": [{"id": learnt[0]}, {"id": learnt[1], "scale": 0.5}]}
    [merged] = browser.made("merge", **asked)["results"]
    assert (merged["kind"], merged["name"]) == ("weights", "rex-tom.safetensors")
    found = browser.get("/api/weights").json()[0]
    assert (found["id"], found["words"], found["note"]) == (
        merged["id"],
        ["<rex>", "<tom>"],
        "<rex> and <tom>",
    )
    entry = browser.get(f"/api/history/{merged['id']}").json()
    assert (entry["verb"], entry["parents"]) == ("merge", learnt)
    drawn = browser.made("generate", prompt="a <rex> and a <tom>", steps=1, weights=[{"id": merged["id"]}])
    assert drawn["results"]
    assert browser.made("merge", **asked, how="closed-form")["results"]


def test_what_cannot_be_merged_is_a_sentence_without_paths(app: FastAPI, browser: Browser) -> None:
    picture = browser.sent(noise())
    job = browser.made(
        "learn-textual-inversion", images=[picture], word="<rex>", noun="dog", steps=1, batch=1
    )
    one = {"id": job["results"][0]["id"]}
    for weights in ([], [one], one, "x", [{"id": picture}], [one, {"id": "0" * 32}], [one] * 51, [one, 7]):
        answer = browser.ask("merge", weights=weights)
        assert answer.status_code in (404, 422), answer.text
        assert str(app.state.studio.settings.folder) not in answer.text
    assert browser.ask("merge", weights=[one, one], how="magic").json()["field"] == "how"
    assert browser.ask("merge").json()["field"] == "weights"


def test_upscale(tmp_path: Path) -> None:
    with studio(tmp_path / "s", upscaler=str(shared("upscaler"))) as app:
        browser = Browser(app)
        picture = browser.sent(noise((16, 16)))
        job = browser.made("upscale", image=picture, steps=1, seed=2)
        assert (job["results"][0]["width"], job["results"][0]["height"]) == (64, 64)
        [entry] = browser.get("/api/history").json()
        assert (entry["verb"], entry["parents"]) == ("upscale", [picture])


def test_generate_and_learn_with_the_upscaler(browser: Browser) -> None:
    pictures = [browser.sent(noise((256, 256), seed=n)) for n in range(2)]
    job = browser.made(
        "learn-dreambooth", images=pictures, word="<rex>", noun="dog", steps=1, batch=1, preset="default",
        prior_count=1, prior_steps=1, upscale=True, upscaler_steps=1, size=64,
    )  # fmt: skip
    settings = {"prompt": "a <rex> dog", "steps": 1, "weights": [{"id": job["results"][0]["id"]}]}
    settings |= {"width": 16, "height": 16}
    larger = browser.made("generate", **settings, upscale=True)["results"][0]
    assert (larger["width"], larger["height"]) == (64, 64)
    same = browser.ended(browser.post(f"/api/history/{larger['id']}/redo", {}).json()["id"])
    assert same["note"].startswith("The pixels are the same as before."), same
    assert browser.made("generate", **settings, upscale=False)["results"][0]["width"] == 16


def test_compare(tmp_path: Path) -> None:
    with studio(tmp_path / "s", clip=str(shared_clip())) as app:
        browser = Browser(app)
        given = {"image": browser.sent(noise()), "photos": [browser.sent(noise(seed=1))], "word": "<rex>"}
        given |= {"noun": "dog", "prompt": "a <rex> dog", "learning_steps": 1, "prior_count": 1, "steps": 1}
        job = browser.made("compare", **given, methods=["sdedit", "textual-inversion"])
        rows = {result["label"]: result["row"] for result in job["results"] if result["kind"] == "image"}
        assert rows.keys() == {"sdedit", "textual-inversion"}
        for row in rows.values():
            assert sum(row["seconds"].values()) > 0
            assert row["scores"]
        assert [result["label"] for result in job["results"] if result["kind"] == "weights"] == [
            "textual-inversion"
        ]
        assert "dreambooth: It was not asked for." in job["note"]
        assert len(browser.get("/api/history").json()) == 3


# Progress


def test_events_tell_of_every_state(browser: Browser) -> None:
    job = browser.asked("generate", prompt="a red cat", steps=60, seed=1)
    stream = browser.get(f"/api/jobs/{job}/events")
    told = [json.loads(line.removeprefix("data: ")) for line in stream.text.splitlines() if line]
    assert told[-1]["state"] == "done"
    assert told[-1]["results"][0]["label"] == "seed 1"
    running = [one for one in told if one["state"] == "running" and one["step"]]
    steps = [one["step"] for one in running if one["note"] == "drawing"]
    assert steps == sorted(steps)
    assert steps
    assert {one["steps"] for one in running if one["note"] == "drawing"} == {60}
    assert all(one["left"] >= 0 for one in running)
    shown = next(one["preview"] for one in running if one["preview"])
    kind, _, data = shown.partition(",")
    assert kind == "data:image/webp;base64"
    assert Image.open(io.BytesIO(base64.b64decode(data))).format == "WEBP"


def test_a_job_that_waits_moves_up(browser: Browser) -> None:
    first, *others = (browser.asked("generate", prompt="a cat", steps=40) for _ in range(3))
    places = [browser.get(f"/api/jobs/{job}").json()["place"] for job in others]
    assert places[1] - places[0] == 1
    browser.ended(first)
    assert [browser.ended(job)["place"] for job in others] == [None, None]


# Cancelling


def running(browser: Browser, job: str) -> dict[str, Any]:
    while not (found := browser.get(f"/api/jobs/{job}").json())["step"]:
        time.sleep(0.01)
    return found


def test_cancel_while_it_runs(browser: Browser) -> None:
    before = browser.made("generate", prompt="a cat", steps=1, seed=3)
    job = browser.asked("generate", prompt="a cat", steps=1000, width=256, height=256)
    running(browser, job)
    began = time.monotonic()
    assert browser.delete(f"/api/jobs/{job}").status_code == 200
    found = browser.ended(job)
    assert (found["state"], found["error"], found["results"]) == ("cancelled", None, [])
    assert time.monotonic() - began < 60
    after = browser.made("generate", prompt="a cat", steps=1, seed=3)
    one, other = (pixels(browser, j["results"][0]["id"]) for j in (before, after))
    assert np.array_equal(one, other)  # the model is as it was


def test_a_cancelled_job_keeps_what_is_finished(browser: Browser) -> None:
    job = browser.asked("generate", prompt="a cat", steps=12, count=30, batch=1, seed=1)
    while running(browser, job)["note"] != "drawing" or running(browser, job)["step"] < 30:
        time.sleep(0.01)
    browser.delete(f"/api/jobs/{job}")
    found = browser.ended(job)
    assert found["state"] == "cancelled"
    assert 1 <= len(found["results"]) < 30
    assert found["results"][0]["label"] == "seed 1"


def test_cancel_while_it_waits(browser: Browser) -> None:
    first = browser.asked("generate", prompt="a cat", steps=1000, width=256, height=256)
    second = browser.asked("generate", prompt="a cat", steps=1)
    assert browser.delete(f"/api/jobs/{second}").json()["state"] == "cancelled"
    assert browser.delete(f"/api/jobs/{first}").status_code == 200
    assert browser.ended(first)["state"] == "cancelled"


def test_cancel_twice_and_after_the_end(browser: Browser) -> None:
    job = browser.asked("generate", prompt="a cat", steps=1000, width=256, height=256)
    running(browser, job)
    assert [browser.delete(f"/api/jobs/{job}").status_code for _ in range(3)] == [200] * 3
    browser.ended(job)
    assert browser.delete(f"/api/jobs/{job}").status_code == 200
    done = browser.made("generate", prompt="a cat", steps=1)["id"]
    assert browser.delete(f"/api/jobs/{done}").status_code == 409
    assert browser.get(f"/api/jobs/{done}").json()["state"] == "done"


def test_many_cancel_at_once(browser: Browser) -> None:
    jobs = [browser.asked("generate", prompt="a cat", steps=300, width=128, height=128) for _ in range(5)]
    statuses: list[int] = []

    def cancel() -> None:
        statuses.extend(browser.delete(f"/api/jobs/{job}").status_code for job in jobs)

    threads = [threading.Thread(target=cancel) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(statuses) == 20
    assert set(statuses) == {200}
    assert {browser.ended(job)["state"] for job in jobs} == {"cancelled"}


def test_cancelled_learning_goes_on_where_it_stopped(browser: Browser) -> None:
    pictures = [browser.sent(noise(seed=n)) for n in range(2)]
    settings = {"images": pictures, "word": "<rex>", "noun": "dog", "preset": "default", "batch": 1}
    settings |= {"steps": 90, "checkpoint_every": 10}
    job = browser.asked("learn-textual-inversion", **settings)
    while (now := running(browser, job))["step"] < 15 or not now["note"].startswith("learning"):
        time.sleep(0.01)
    browser.delete(f"/api/jobs/{job}")
    stopped = browser.ended(job)
    assert stopped["state"] == "cancelled"
    again = browser.asked("learn-textual-inversion", **settings)
    while not (now := running(browser, again))["note"].startswith("learning"):
        time.sleep(0.01)
    assert browser.ended(again)["state"] == "done"
    assert now["step"] > 10
    repeated = browser.made("learn-textual-inversion", **(settings | {"steps": 1}))
    assert repeated["results"]


# Failing


def test_a_failure_that_a_person_can_mend(browser: Browser) -> None:
    settings = {"image": browser.sent(noise()), "mask": browser.sent(png((10, 10))), "prompt": "gold"}
    job = browser.ended(browser.asked("edit-text2live", **settings))
    assert (job["state"], job["results"]) == ("failed", [])
    assert "10 x 10" in job["error"]
    assert job["remedy"] == "Make them one size."
    assert "/" not in job["error"]


def test_a_failure_that_nobody_foresaw(
    app: FastAPI, browser: Browser, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> Any:
        yield Progress(stage="drawing", step=1, total=2)
        raise ZeroDivisionError("a secret of the server's")

    monkeypatch.setattr(api, "loop_of", broken)
    with caplog.at_level(logging.ERROR, "scumble.studio"):
        job = browser.ended(browser.asked("generate", prompt="a cat"))
    assert job["state"] == "failed"
    assert job["error"] == "Something went wrong that nobody foresaw."
    assert "secret" not in json.dumps(job)
    assert "a secret of the server's" in caplog.text
    monkeypatch.undo()
    assert browser.made("generate", prompt="a cat", steps=1)["results"]


@pytest.mark.parametrize(
    "problem", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_memory_that_runs_out(browser: Browser, monkeypatch: pytest.MonkeyPatch, problem: Exception) -> None:
    def hungry(*_: Any) -> Any:
        yield Progress(stage="drawing", step=1, total=2)
        raise problem

    monkeypatch.setattr(api, "loop_of", hungry)
    job = browser.ended(browser.asked("generate", prompt="a cat"))
    assert job["error"].startswith("There is not enough memory")


def test_a_request_that_breaks_gives_a_sentence_and_the_headers(
    browser: Browser, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> Any:
        raise ZeroDivisionError("a secret of the server's")

    monkeypatch.setattr(api, "form", broken)
    with caplog.at_level(logging.ERROR, "scumble.studio"):
        answer = browser.get("/api/forms/generate")
    assert answer.status_code == 500
    assert answer.json()["error"] == "Something went wrong that nobody foresaw."
    assert "content-security-policy" in answer.headers
    assert "a secret of the server's" in caplog.text


def test_records_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As on a full disk: the job fails, and the worker lives."""
    with studio(tmp_path / "s") as app:
        browser, database = Browser(app), app.state.studio.database
        picture = browser.sent(noise())
        watched = browser.asked("generate", prompt="a cat", steps=200, width=128, height=128)
        running(browser, watched)
        before = database.write

        def full(statement: str, *values: Any) -> None:
            if statement.startswith("UPDATE job"):
                raise sqlite3.OperationalError("database or disk is full")
            before(statement, *values)

        monkeypatch.setattr(database, "write", full)
        job = app.state.studio.jobs._live[watched]
        browser.delete(f"/api/jobs/{watched}")
        while job.state == "running":
            time.sleep(0.01)
        assert (job.state, job.error) == ("failed", "Something went wrong that nobody foresaw.")
        assert "was not recorded" in caplog.text
        monkeypatch.undo()
        assert browser.made("strokes", image=picture)["results"]


def test_a_job_that_breaks_keeps_what_is_finished(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    before = api.loop_of

    def breaking(*given: Any) -> Any:
        for event in before(*given):
            yield event
            if event.stage == "drawing" and event.step == 5:
                raise MemoryError

    monkeypatch.setattr(api, "loop_of", breaking)
    job = browser.ended(browser.asked("generate", prompt="a cat", steps=2, count=4, batch=1, seed=1))
    assert (job["state"], job["error"]) == ("failed", "There is not enough memory for this.")
    assert [result["label"] for result in job["results"]] == ["seed 1", "seed 2"]


def test_a_picture_that_was_removed_while_its_job_waited(browser: Browser) -> None:
    first = browser.asked("generate", prompt="a cat", steps=1000, width=256, height=256)
    picture = browser.sent(noise())
    second = browser.asked("strokes", image=picture)
    browser.delete(f"/api/images/{picture}")
    browser.delete(f"/api/jobs/{first}")
    job = browser.ended(second)
    assert (job["state"], job["error"]) == ("failed", "This file is not here.")


# The model


def test_the_model_is_loaded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []
    before = load.ModelConfig._load

    def counted(config: Any, *where: Any) -> Any:
        loaded.append(Path(config.model).name)
        return before(config, *where)

    monkeypatch.setattr(load.ModelConfig, "_load", counted)
    with studio(tmp_path / "s") as app:
        browser = Browser(app)
        made = browser.made("generate", prompt="a cat", steps=1)["results"][0]["id"]
        browser.made("edit-sdedit", guide=made, steps=1)
        browser.made("edit-instruct", image=made, instructions=["make it night"], steps=1)
        browser.made("generate", prompt="a dog", steps=1)
        browser.ended(browser.post(f"/api/history/{made}/redo", {}).json()["id"])
    assert loaded == ["sd1", "ip2p"]


def test_a_broken_job_lets_go_of_its_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with studio(tmp_path / "s") as app:
        browser = Browser(app)
        loaded: list[int] = []
        before = load.ModelConfig._load
        monkeypatch.setattr(load.ModelConfig, "_load", lambda c, *w: loaded.append(1) or before(c, *w))
        browser.made("generate", prompt="a cat", steps=1)
        loop_of = api.loop_of

        def broken(*_: Any) -> Any:
            yield Progress(stage="drawing", step=1, total=2)
            raise ZeroDivisionError

        monkeypatch.setattr(api, "loop_of", broken)
        browser.ended(browser.asked("generate", prompt="a cat"))
        monkeypatch.setattr(api, "loop_of", loop_of)
        browser.made("generate", prompt="a cat", steps=1)
    assert len(loaded) == 2


def test_without_an_editing_model_there_is_a_sentence(tmp_path: Path) -> None:
    with studio(tmp_path / "s", instruct_model=None) as app:
        browser = Browser(app)
        answer = browser.ask("edit-instruct", image=browser.sent(noise()), instructions=["make it night"])
        assert answer.status_code == 422
        assert "--instruct-model" in answer.json()["remedy"]


def test_what_a_loop_returns_is_kept_in_its_order(app: FastAPI, browser: Browser, tmp_path: Path) -> None:
    assert Done([]).paths == []  # nothing made is nothing kept
    job = browser.made("generate", prompt="a cat", steps=1, count=3, seed=10)
    assert [r["label"] for r in job["results"]] == ["seed 10", "seed 11", "seed 12", "grid"]
    listed = browser.get("/api/history").json()
    assert [entry["label"] for entry in listed] == ["seed 12", "seed 11", "seed 10"]
