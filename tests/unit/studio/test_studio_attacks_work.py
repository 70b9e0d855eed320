"""Attacks by work: settings that are each allowed and together never end, or take all memory; the same by way
of a redo. None gets into the queue, and each is told so at its field.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from scumble.core.errors import ConfigError
from scumble.studio.files import ID
from scumble.studio.forms import CAPS
from scumble.studio.limits import LONGEST, check_job
from scumble.studio.settings import Settings
from scumble.studio.verbs import VERBS, prepare
from scumble.studio.work import Task
from scumble.verbs.learn import METHODS
from studios import Browser, png, studio

MUCH = "are the most in one job"


def refused(answer: Any, field: str | None, said: str = "") -> None:
    assert answer.status_code == 422, answer.text
    assert answer.json()["field"] == field, answer.text
    assert said in answer.json()["error"]
    assert len(answer.json()["error"]) < 300


def given(verb: str, stored: str) -> dict[str, Any]:
    """What a verb's form needs, filled in, with one picture wherever there is to be one."""
    subject = {"word": "<rex>", "noun": "dog"}
    return {
        "generate": {"prompt": "a cat"},
        "edit-instruct": {"image": stored, "instructions": ["make it night"]},
        "edit-sdedit": {"guide": stored},
        "edit-text2live": {"image": stored, "prompt": "gold"},
        "upscale": {"image": stored},
        "compare": {"image": stored, "photos": [stored], "prompt": "a <rex> dog", **subject},
    }.get(verb, {"images": [stored], **subject})


# Forms


@pytest.mark.parametrize(
    ("verb", "settings", "field"),
    [
        ("generate", {"count": 32, "steps": 1000, "width": 2048, "height": 2048}, "steps"),
        ("generate", {"count": 32, "width": 1536, "height": 1536, "upscale": True, "steps": 600}, "steps"),
        ("edit-instruct", {"instructions": ["a"] * 100, "steps": 1000, "count": 32}, "steps"),
        ("edit-sdedit", {"repeats": 100, "steps": 1000, "count": 32}, "steps"),
        ("edit-sdedit", {"repeats": 100, "steps": 1000, "search": "sweep"}, "steps"),
        ("edit-text2live", {"steps": 1000, "earlier": ["gold"] * 100, "views": 64}, "steps"),
        ("upscale", {"tile": 256, "overlap": 255, "count": 32}, "steps"),
        ("learn-textual-inversion", {"steps": 10_000_000}, "steps"),
        ("learn-textual-inversion", {"pivotal": 10**9}, "steps"),
        ("learn-textual-inversion", {"stop_after": 1, "stop_every": 1, "steps": 15_000}, "steps"),
        ("learn-dreambooth", {"steps": 10_000_000}, "steps"),
        ("learn-dreambooth", {"upscale": True, "upscaler_steps": 10_000_000}, "steps"),
        ("learn-dreambooth", {"prior_count": 2000, "prior_steps": 1000}, "steps"),
        ("learn-custom-diffusion", {"steps": 9000, "batch": 32}, "steps"),
        ("compare", {"learning_steps": 10_000}, None),
        ("compare", {"methods": ["custom-diffusion"], "steps": 50, "learning_steps": 9000}, None),
    ],
)  # fmt: skip
def test_work_without_end(browser: Browser, verb: str, settings: dict[str, Any], field: str | None) -> None:
    """Each value is one that its field takes."""
    answer = browser.ask(verb, **(given(verb, browser.sent(png((64, 64)))) | settings))
    refused(answer, field, MUCH)


@pytest.mark.parametrize(
    ("verb", "settings", "size"),
    [
        ("edit-instruct", {"search": "sweep", "steps": 1000}, (2000, 2000)),
        ("edit-sdedit", {"steps": 1000, "count": 4, "batch": 1}, (4000, 4000)),
        (
            "edit-text2live",
            {"steps": 1000, "size": 1024, "channels": 256, "earlier": ["a"] * 4},
            (1024, 1024),
        ),
        ("upscale", {"steps": 1000, "count": 4}, (1000, 1000)),
    ],
)
def test_work_without_end_by_large_pictures(
    browser: Browser, verb: str, settings: dict[str, Any], size: tuple[int, int]
) -> None:
    small, large = (browser.sent(png(side)) for side in ((64, 64), size))
    job = browser.asked(verb, **(given(verb, small) | settings))
    browser.delete(f"/api/jobs/{job}")
    refused(browser.ask(verb, **(given(verb, large) | settings)), "steps", MUCH)


@pytest.mark.parametrize(
    ("verb", "settings", "field"),
    [
        ("generate", {"batch": 32, "count": 32, "width": 2048, "height": 2048}, "batch"),
        ("learn-dreambooth", {"batch": 32, "size": 2048, "steps": 1}, "batch"),
        ("learn-dreambooth", {"batch": 32, "micro_batch": 16, "size": 2048, "steps": 1}, "micro_batch"),
        ("edit-text2live", {"size": 2048, "views": 64, "channels": 512}, "channels"),
    ],
)
def test_more_at_once_than_memory_has(
    browser: Browser, verb: str, settings: dict[str, Any], field: str
) -> None:
    """Such a job would be ended by the system, and the server with it."""
    refused(browser.ask(verb, **(given(verb, browser.sent(png((64, 64)))) | settings)), field)


def test_a_wide_layer_on_a_large_picture(browser: Browser) -> None:
    asked = given("edit-text2live", browser.sent(png((2048, 2048)))) | {"size": 2048, "channels": 128}
    refused(browser.ask("edit-text2live", **asked), "channels", "64 is the most at this size")


@pytest.mark.parametrize("name", ["width", "height", "count", "batch", "seed", "steps"])
def test_numbers_that_are_written_as_texts(browser: Browser, name: str) -> None:
    most = CAPS.get(name, 1000)
    for value in (str(most + 1), f" {most + 1} ", f"+{most + 1}", f"{most + 1}.0", float(most + 1)):
        refused(browser.ask("generate", prompt="a cat", **{name: value}), name)


@pytest.mark.parametrize("verb", ["edit-instruct", "edit-sdedit", "edit-text2live", "learn-dreambooth"])
@pytest.mark.parametrize("preset", [["fast"], {"fast": 1}, 7, True, "../x"])
def test_presets_that_are_no_names(browser: Browser, verb: str, preset: Any) -> None:
    refused(browser.ask(verb, **(given(verb, browser.sent(png())) | {"preset": preset})), "preset")


@pytest.mark.parametrize(
    ("verb", "name"),
    [("edit-text2live", "templates"), ("edit-text2live", "negatives"), ("learn-dreambooth", "targets")],
)
def test_lists_without_end(browser: Browser, verb: str, name: str) -> None:
    long = {name: ["{}"] * (LONGEST + 1)}
    refused(browser.ask(verb, **(given(verb, browser.sent(png())) | long)), name, "100 are the most")


def test_what_people_ask_for_is_taken(tmp_path: Path) -> None:
    """The papers' own settings, and as much as one form offers of one thing."""
    (tmp_path / "picture.png").write_bytes(png((512, 512)))
    settings = Settings(model="elsewhere", instruct_model="elsewhere", upscaler="elsewhere", clip="elsewhere")

    def taken(verb: str, **more: Any) -> None:
        asked = given(verb, "picture") | more
        prepare(VERBS[verb], asked, settings, lambda name, kind: tmp_path / "picture.png", tmp_path / "job")

    tried = 0
    for verb in VERBS.values():
        for preset in verb.presets:
            if not preset.startswith("toybox") and not preset.endswith("video"):
                taken(verb.name, preset=preset)
                tried += 1
    assert tried >= 18
    taken("generate", count=32, steps=1000)
    taken("generate", count=32, steps=50, width=2048, height=2048, batch=8)
    taken("compare")


def test_the_owner_sets_how_much_a_job_may_be(tmp_path: Path) -> None:
    with studio(tmp_path / "s", work=10) as app:
        browser = Browser(app)
        refused(browser.ask("generate", prompt="a cat", steps=11), "steps", "11 steps")
        assert browser.made("generate", prompt="a cat", steps=10)["results"]


# Redo


@pytest.fixture(scope="module")
def made(app: FastAPI) -> tuple[Browser, dict[str, str]]:
    """Somebody, and a picture, an edit and a grid of theirs."""
    browser = Browser(app)
    drawn = browser.made("generate", prompt="a red cat", steps=1, seed=3, count=2)["results"]
    edited = browser.made("edit-sdedit", guide=drawn[0]["id"], steps=1, seed=1)["results"]
    return browser, {"one": drawn[0]["id"], "grid": drawn[2]["id"], "edit": edited[0]["id"]}


def again(browser: Browser, stored: str, **changes: Any) -> Any:
    return browser.post(f"/api/history/{stored}/redo", {"set": changes})


@pytest.mark.parametrize(
    ("of", "changes", "field"),
    [
        ("one", {"width": 4096, "height": 4096}, "width"),
        ("one", {"height": 2049}, "height"),
        ("one", {"width": "4096"}, "width"),
        ("one", {"width": 4096.0}, "width"),
        ("one", {"steps": 1001}, "steps"),
        ("one", {"steps": "1001"}, "steps"),
        ("one", {"steps": -1}, "steps"),
        ("one", {"steps": [1]}, "steps"),
        ("one", {"seed": 2**53}, "seed"),
        ("one", {"seed": -1}, "seed"),
        ("one", {"count": 2}, "count"),
        ("one", {"batch": 2}, "batch"),
        ("one", {"prompt": 7}, "prompt"),
        ("one", {"prompt": "x" * 10_001}, "prompt"),
        ("one", {"negative": ["a"] * 200}, "negative"),
        ("one", {"nonsense": 1}, "nonsense"),
        ("one", {"nonsense=1 --model": 1}, None),
        ("one", {"x" * 5000: 1}, None),
        ("one", {"": 1}, None),
        ("one", {"model": "/etc"}, "model"),
        ("one", {"upscaler": "owner/name"}, "upscaler"),
        ("one", {"device": "cuda:7"}, "device"),
        ("one", {"trust_pickle": True}, "trust_pickle"),
        ("one", {"weights": []}, "weights"),
        ("one", {"weights": ["/etc/passwd"]}, "weights"),
        ("one", {"t0": 0.4}, "t0"),
        ("one", {"guidance": 10**1000}, "guidance"),
        ("grid", {"count": 10_000}, "count"),
        ("grid", {"count": "10000"}, "count"),
        ("grid", {"batch": 1024}, "batch"),
        ("grid", {"count": 32, "steps": 1000, "width": 2048, "height": 2048}, "steps"),
        ("grid", {"count": 32, "batch": 32, "width": 2048, "height": 2048}, "batch"),
        ("edit", {"steps": 10_000}, "steps"),
        ("edit", {"repeats": 100, "search": "sweep", "steps": 1000}, "steps"),
        ("edit", {"preset": ["fast"]}, "preset"),
        ("edit", {"guide": "/etc/passwd"}, "guide"),
    ],
    ids=lambda value: next(iter(value))[:20] if isinstance(value, dict) else None,
)  # fmt: skip
def test_a_redo_keeps_the_limits_of_the_form(
    made: tuple[Browser, dict[str, str]], of: str, changes: dict[str, Any], field: str | None
) -> None:
    browser, stored = made
    before = len(browser.get("/api/jobs").json())
    answer = again(browser, stored[of], **changes)
    assert answer.status_code == 422, answer.text
    assert answer.json()["field"] in ({field, *changes} if field is None else {field}), answer.text
    assert len(browser.get("/api/jobs").json()) == before


def test_a_redo_with_changes_that_are_none(made: tuple[Browser, dict[str, str]]) -> None:
    browser, stored = made
    for value in ([], "steps=50", 7, None, {"set": {}}):
        answer = browser.post(f"/api/history/{stored['one']}/redo", {"set": value})
        assert answer.status_code == 422, value
    assert browser.post(f"/api/history/{stored['one']}/redo", {"set": {}, "model": "x"}).status_code == 422


def test_a_redo_of_what_the_limits_have_become_too_small_for(tmp_path: Path) -> None:
    """What waited in the queue, and what was made before, are looked at again."""
    with studio(tmp_path / "s") as app:
        browser = Browser(app)
        first = browser.made("generate", prompt="a cat", steps=5, seed=1)["results"][0]["id"]
    with studio(tmp_path / "s", work=4) as app:
        later = Browser(app)
        later.client.cookies.update(dict(browser.client.cookies))
        refused(again(later, first), "steps", "5 steps")
        assert again(later, first, steps=4).status_code == 202


def test_ids_in_changes_are_texts(made: tuple[Browser, dict[str, str]]) -> None:
    """A prompt that looks like a file's id is a prompt."""
    browser, stored = made
    assert ID.fullmatch(stored["one"])
    answer = again(browser, stored["one"], prompt=stored["edit"])
    assert answer.status_code == 202
    browser.delete(f"/api/jobs/{answer.json()['id']}")


def test_learning_is_never_a_redo(made: tuple[Browser, dict[str, str]]) -> None:
    assert len(METHODS) == 3
    browser, _ = made
    stored = browser.sent(png())
    assert again(browser, stored).status_code == 422


def test_every_setting_of_work_counts() -> None:
    """Twice as much of it is more work."""
    settings = Settings(work=1)
    config = VERBS["generate"].config.of({"prompt": "a", "steps": 1, "count": 2})
    with pytest.raises(ConfigError, match="2 steps"):
        check_job(Task("", config, {}, Path(), settings), 64)
    check_job(Task("", config.replace(count=1), {}, Path(), settings), 64)
