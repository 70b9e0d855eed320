"""Forms, about, history, pages: what is told, and that it is what the settings say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from fastapi import FastAPI

from scumble.adapters.weights import Weights, Word
from scumble.core.errors import ModelError
from scumble.models import toybox
from scumble.studio.app import PAGES
from scumble.studio.forms import TEXTS, is_offered
from scumble.studio.settings import Settings
from scumble.studio.verbs import VERBS, form, missing, size_of
from scumble.verbs.edit_sdedit import SdeditConfig
from scumble.verbs.generate import GenerateConfig
from studios import Browser, png, studio
from tiny import shared

TYPES = {
    "text", "words", "int", "float", "choice", "bool", "image", "mask", "images", "weights", "seed", "pair",
    "subjects",
}  # fmt: skip
KEYS = {
    "name", "label", "help", "type", "default", "min", "max", "step", "choices", "unit", "advanced",
    "required",
}  # fmt: skip


def fields(browser: Browser, verb: str) -> dict[str, dict[str, Any]]:
    return {field["name"]: field for field in browser.get(f"/api/forms/{verb}").json()["fields"]}


def learnt(folder: Path, word: str) -> bytes:
    """A file of weights that knows `word`."""
    vectors = torch.full((1, 32), float(len(word)))
    words = {word: Word((vectors,), noun="dog")}
    file = folder / "w.safetensors"
    Weights(method="textual-inversion", family="sd1", base_hash="", words=words).save(file)
    return file.read_bytes()


def test_about(browser: Browser) -> None:
    found = browser.get("/api/about").json()
    assert [method["verb"] for method in found["methods"]] == list(VERBS)
    assert len(VERBS) >= 9
    assert found["model"] == "sd1"
    assert found["password"] is False
    assert found["limits"]["pixels"] == Settings().pixels
    assert (found["missing"], found["note"]) == ({}, "")
    assert found["size"] == [64, 64]


def test_a_wrong_address_is_a_page_for_people(tmp_path: Path) -> None:
    with studio(tmp_path, model=str(shared("sd1"))) as app:
        browser = Browser(app)
        page = browser.get("/nope", headers={"Accept": "text/html"})
        assert (page.status_code, page.headers["content-type"]) == (404, "text/html; charset=utf-8")
        assert "There is no such page." in page.text
        assert "content-security-policy" in page.headers
        for path, accept in (("/nope", "application/json"), ("/api/nope", "text/html")):
            answer = browser.get(path, headers={"Accept": accept})
            assert answer.status_code == 404
            assert answer.json()["error"] == "There is no such page."


def test_about_says_what_has_no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be done is not offered, and the page can say why."""

    def none() -> Path:
        raise ModelError("This toybox has no weights for that yet.")

    for name in ("editing", "upscaling"):
        monkeypatch.setattr(toybox, name, none)
    for model in ("toybox", str(shared("sd1"))):
        with studio(tmp_path, model=model, instruct_model=None, upscaler=None) as app:
            found = Browser(app).get("/api/about").json()
            offered = {f["name"] for f in Browser(app).get("/api/forms/generate").json()["fields"]}
            wish = {"verb": "generate", "settings": {"prompt": "a cat", "upscale": True}}
            refused = Browser(app).post("/api/jobs", json=wish)
        assert "upscale" not in offered
        assert refused.status_code == 422
        assert "--upscaler" in refused.text
        assert found["missing"].keys() == {"edit-instruct", "upscale"}
        assert [m["verb"] for m in found["methods"]] == [v for v in VERBS if v not in found["missing"]]
        assert found["missing"]["edit-instruct"].endswith("Start the studio with --instruct-model.")
        assert found["missing"]["upscale"].endswith("Start the studio with --upscaler.")
        assert found["note"].startswith(found["missing"]["edit-instruct"])
    given = Settings(folder=tmp_path, instruct_model=str(shared("ip2p")))
    assert missing(VERBS["edit-instruct"], given) == ""
    monkeypatch.setattr(toybox, "editing", lambda: tmp_path)
    assert missing(VERBS["edit-instruct"], Settings(folder=tmp_path)) == ""
    assert size_of("toybox") == [128, 128]
    assert size_of("nobody/has-this") is None


@pytest.mark.parametrize("verb", VERBS)
def test_forms_are_whole(browser: Browser, verb: str) -> None:
    found = browser.get(f"/api/forms/{verb}").json()
    assert (found["verb"], found["title"], found["sentence"][-1]) == (verb, VERBS[verb].title, ".")
    assert len({field["name"] for field in found["fields"]}) == len(found["fields"]) >= 3
    for field in found["fields"]:
        assert field.keys() == KEYS
        assert field["type"] in TYPES
        assert field["help"].endswith(".")
        assert field["label"][0].isupper()
        assert (field["type"] == "choice") <= bool(field["choices"])
    required = [field["name"] for field in found["fields"] if field["required"]]
    answer = browser.ask(verb)
    if required:
        assert answer.status_code == 422
        assert answer.json()["field"] in {field["name"] for field in found["fields"]}


@pytest.mark.parametrize("verb", VERBS)
def test_forms_offer_what_is_taken_and_no_name_of_a_file_or_model(browser: Browser, verb: str) -> None:
    """A setting of free text that nobody has looked at is neither offered nor taken."""
    found = fields(browser, verb)
    own = VERBS[verb].config.model_fields.keys()
    offered = {name for name in own if is_offered(VERBS[verb].config, name)}
    assert offered <= found.keys()
    for name in own - offered:
        assert name not in found
        answer = browser.ask(verb, **{name: "/etc/passwd"})
        assert answer.status_code == 422
        assert answer.json()["error"] == f"{name} is chosen when the studio starts."
    assert {name for name, field in found.items() if field["type"] in ("text", "words")} <= TEXTS
    places = {"model", "clip_model", "regularization", "upscaler", "editor", "device", "trust_pickle"}
    assert not places & found.keys()


def test_a_field_says_what_its_setting_says(browser: Browser) -> None:
    t0 = fields(browser, "edit-sdedit")["t0"]
    assert t0["help"] == " ".join((SdeditConfig.model_fields["t0"].description or "").split())
    assert (t0["min"], t0["max"], t0["default"], t0["step"]) == (0, 1, 0.5, 0.01)
    drawn = fields(browser, "generate")
    assert drawn["steps"]["default"] == GenerateConfig.model_fields["steps"].default
    assert drawn["prompt"]["required"]
    assert not drawn["prompt"]["advanced"]
    assert drawn["eta"]["advanced"]
    assert drawn["width"]["unit"] == "px"
    assert "dpmpp_2m" in drawn["sampler"]["choices"]
    assert "sde" in fields(browser, "edit-sdedit")["spacing"]["choices"]
    assert fields(browser, "edit-sdedit")["search"]["choices"] == ["none", "auto", "sweep"]
    assert fields(browser, "learn-dreambooth")["lr"]["step"] is None
    assert fields(browser, "composite")["at"]["type"] == "pair"
    assert fields(browser, "learn-dreambooth")["clip"]["type"] == "float"  # of gradients, no model's name


def test_defaults_of_learning_are_those_of_the_models_preset() -> None:
    for model, preset in (("toybox", "toybox"), ("elsewhere", "default")):
        found = {f["name"]: f for f in form(VERBS["learn-dreambooth"], Settings(model=model))["fields"]}
        assert found["preset"]["default"] == preset
        assert found["preset"]["default"] in found["preset"]["choices"]
        assert found["prior_count"]["default"] == (64 if preset == "toybox" else 200)


@pytest.mark.parametrize("verb", VERBS)
def test_greatest_and_least_values_of_forms_hold(browser: Browser, verb: str, tmp_path: Path) -> None:
    """What a form forbids, the server forbids, in a sentence that names the field."""
    asked = {"prompt": "a", "instructions": ["a"], "word": "<rex>", "at": [1, 1]}
    found = fields(browser, verb)
    given: dict[str, Any] = {name: value for name, value in asked.items() if name in found}
    picture = browser.sent(png())
    for name, field in found.items():
        if field["type"] in ("image", "images") and field["required"]:
            given[name] = [picture] if field["type"] == "images" else picture
        if field["type"] == "weights" and field["required"]:
            given[name] = [{"id": browser.sent(learnt(tmp_path, f"<{n}>"))} for n in ("rex", "tom")]
    tried = 0
    for name, field in found.items():
        if field["type"] in ("int", "float", "seed") and field["max"] is not None:
            answer = browser.ask(verb, **(given | {name: field["max"] * 2 + 1}))
            assert (answer.status_code, answer.json()["field"]) == (422, name), answer.text
            tried += 1
    assert tried >= 1


def test_an_unknown_setting_is_refused_with_the_nearest(browser: Browser) -> None:
    answer = browser.ask("generate", prompt="a", stepz=3)
    assert answer.status_code == 422
    assert "steps" in answer.json()["remedy"]


# History


def test_history_pages_backwards(browser: Browser) -> None:
    made = [browser.made("generate", prompt=f"cat {n}", steps=1)["results"][0]["id"] for n in range(5)]
    listed = browser.get("/api/history?limit=2").json()
    assert [entry["id"] for entry in listed] == made[:2:-1]
    assert [entry["prompt"] for entry in listed] == ["cat 4", "cat 3"]
    rest = browser.get(f"/api/history?limit=10&after={made[3]}").json()
    assert [entry["id"] for entry in rest] == made[2::-1]
    assert browser.get("/api/history?limit=-7").status_code == 200


def test_lineage_of_three_generations_and_settings_to_use_again(browser: Browser) -> None:
    first = browser.made("generate", prompt="a cat", steps=1)["results"][0]["id"]
    second = browser.made("edit-sdedit", guide=first, steps=2, t0=0.4, count=2)["results"][0]["id"]
    third = browser.made("edit-instruct", image=second, instructions=["make it night"], steps=1)
    third = third["results"][0]["id"]
    detail = browser.get(f"/api/history/{second}").json()
    assert detail["parents"] == [first]
    assert detail["children"] == [third]
    assert detail["recipe"]["command"] == "edit sdedit"
    assert detail["settings"]["guide"] == first
    assert detail["settings"]["t0"] == 0.4
    assert detail["settings"]["seed"] == detail["recipe"]["seed"]
    sibling = browser.get(f"/api/history/{first}").json()["children"]
    assert len(sibling) == 2
    assert [entry["children"] for entry in browser.get("/api/history").json()][-1] == 2
    assert browser.delete(f"/api/images/{first}").status_code == 200
    assert browser.get(f"/api/history/{second}").json()["parents"] == []


def test_redo_the_same_and_with_changes(browser: Browser) -> None:
    made = browser.made("edit-sdedit", guide=browser.sent(png((64, 64))), steps=2, seed=5, count=2)
    first = made["results"][1]["id"]
    same = browser.ended(browser.post(f"/api/history/{first}/redo", {"set": {}}).json()["id"])
    assert same["note"].startswith("The pixels are the same as before.")
    result = same["results"][0]["id"]
    assert browser.get(f"/api/history/{result}").json()["parents"] == [first]
    other = browser.ended(
        browser.post(f"/api/history/{result}/redo", {"set": {"steps": 3, "prompt": "a cat"}}).json()["id"]
    )
    assert other["state"] == "done"
    detail = browser.get(f"/api/history/{other['results'][0]['id']}").json()
    assert (detail["recipe"]["settings"]["steps"], detail["recipe"]["settings"]["prompt"]) == (3, "a cat")
    assert detail["settings"]["steps"] == 3
    assert detail["settings"]["guide"] == made["settings"]["guide"]


def test_redo_says_what_is_missing(browser: Browser) -> None:
    guide = browser.sent(png((64, 64)), "painting.png")
    made = browser.made("edit-sdedit", guide=guide, steps=1)["results"][0]["id"]
    browser.delete(f"/api/images/{guide}")
    job = browser.ended(browser.post(f"/api/history/{made}/redo", {}).json()["id"])
    assert (job["state"], job["error"]) == ("failed", "painting.png went in, and is not here any more.")


def test_redo_takes_no_file_of_a_stranger(browser: Browser, stranger: Browser) -> None:
    """Both know the same picture; when one removes it, the other's is not used for it."""
    picture = png((64, 64), (1, 2, 3))
    guide = browser.sent(picture)
    stranger.sent(picture)
    made = browser.made("edit-sdedit", guide=guide, steps=1)["results"][0]["id"]
    browser.delete(f"/api/images/{guide}")
    job = browser.ended(browser.post(f"/api/history/{made}/redo", {}).json()["id"])
    assert job["state"] == "failed"


def test_an_uploaded_result_brings_its_recipe(browser: Browser, stranger: Browser) -> None:
    made = browser.made("generate", prompt="a red cat", steps=1)["results"][0]["id"]
    content = browser.get(f"/api/images/{made}?download=1").content
    stored = stranger.sent(content, "from-a-friend.png")
    assert stranger.get(f"/api/images/{stored}/recipe").json()["settings"]["prompt"] == "a red cat"
    assert stranger.get(f"/api/history/{stored}").json()["settings"] == {}


def test_weights_that_were_downloaded_can_be_sent_again(browser: Browser, tmp_path: Any) -> None:
    pictures = [browser.sent(png((64, 64)))]
    job = browser.made("learn-textual-inversion", images=pictures, word="<rex>", noun="dog", steps=1, batch=1)
    content = browser.get(f"/api/images/{job['results'][0]['id']}").content
    (tmp_path / "rex.safetensors").write_bytes(content)
    assert list(Weights.load(tmp_path / "rex.safetensors").words) == ["<rex>"]
    assert browser.send(content, "rex.safetensors").json()["kind"] == "weights"
    assert len(browser.get("/api/weights").json()) == 2


# Pages


def test_pages_are_served_with_the_strict_policy(app: FastAPI) -> None:
    newcomer = Browser(app)
    first = newcomer.get("/")
    assert (first.status_code, first.headers["location"]) == (307, "/generate")
    assert len(PAGES) == 7
    for page in PAGES:
        answer = newcomer.get(f"/{page}")
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/html")
        assert answer.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'")
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert answer.headers["cache-control"] == "no-cache"
        assert "set-cookie" not in answer.headers


def test_scripts_and_styles_have_their_types(app: FastAPI) -> None:
    from scumble.studio.app import STATIC

    seen = {".js": 0, ".css": 0}
    for file in STATIC.rglob("*"):
        if file.suffix in seen:
            answer = Browser(app).get(f"/static/{file.relative_to(STATIC).as_posix()}")
            assert answer.status_code == 200
            kind = {".js": "text/javascript", ".css": "text/css"}[file.suffix]
            assert answer.headers["content-type"].startswith(kind)
            seen[file.suffix] += 1
    assert min(seen.values()) >= 1


def test_answers_about_people_are_not_kept_by_caches(browser: Browser) -> None:
    stored = browser.sent(png())
    for call in ("/api/about", "/api/jobs", f"/api/images/{stored}", f"/api/images/{stored}/thumb"):
        assert browser.get(call).headers["cache-control"] == "no-store"
