"""One task, several methods: which apply, what is written, what the figures say, what a second run does."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cli import scumble
from scumble.core.errors import ConfigError, InputError, ModelError
from scumble.core.events import finish
from scumble.core.images import from_unit, read_image, save_image, to_unit
from scumble.history.embed import read_recipe
from scumble.history.store import recalled
from scumble.verbs import compare, compare_runs
from scumble.verbs.compare_scores import Scorer
from scumble.verbs.compare_task import METHODS, CompareConfig, Task, why_not
from scumble.verbs.compare_truth import truth_of
from scumble.world.instructions import instruct
from scumble.world.render import render
from scumble.world.sampling import PROFILES, sample_scene
from scumble.world.subjects import SUBJECTS
from tiny import shared
from tiny_clip import shared_clip

PROMPT = "a <rex> dog on <b>grass</b>"


def picture(path: Path, seed: int = 0, side: int = 64) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def half(path: Path, side: int = 64) -> Path:
    """A mask that is white on the left."""
    image = Image.new("L", (side, side))
    image.paste(255, (0, 0, side // 2, side))
    image.save(path)
    return path


def settings(**more: Any) -> CompareConfig:
    small = {"model": str(shared("sd1")), "clip": str(shared_clip()), "steps": 1, "layer_steps": 1}
    return CompareConfig.of({**small, "learning_steps": 1, "prior_count": 1, **more})


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Task, Path, dict[str, Any]]:
    """A task that all six can do, done."""
    place = tmp_path_factory.mktemp("compare")
    for i in range(2):
        picture(place / "rex" / f"{i}.png", i)
    config = settings(
        instruction="make it <i>red</i>",
        prompt=PROMPT,
        before="a dog",
        word="<rex>",
        noun="dog",
        editor=str(shared("ip2p")),
    )
    files = {"image": picture(place / "dog.png", 7), "mask": half(place / "mask.png")}
    task = Task.of(config, **files, subject=place / "rex")
    done = finish(compare.compare_to(task, place / "out"))
    return task, place / "out", done.facts


def test_all_six_do_what_all_six_can(whole: tuple[Task, Path, dict[str, Any]]) -> None:
    _, out, facts = whole
    assert [row["method"] for row in facts["rows"]] == list(METHODS)
    assert [row["failed"] for row in facts["rows"]] == [""] * 6
    assert facts["left out"] == {}
    assert json.loads((out / "compare.json").read_text()) == json.loads(json.dumps(facts))
    commands = {"instruct": "edit instruct", "text2live": "edit text2live"}
    for row in facts["rows"]:
        recipe = read_recipe(out / row["picture"])
        assert recipe.command == commands.get(row["method"], "edit sdedit")
        assert sum(row["seconds"].values()) > 0
        assert row["peak_memory_bytes"] > 50_000_000
        learns = row["method"] in ("textual-inversion", "dreambooth", "custom-diffusion")
        assert len(row["commands"]) == (2 if learns else 1)
        assert any(i.role == "weights" for i in recipe.ingredients) == learns
    with recalled() as history:
        assert history is not None
        made = {e.place for e in history.newest(9)}
        weights = {out / m / "weights.safetensors" for m in METHODS[:3]}
        assert made == weights | {out / m / "picture.png" for m in METHODS}


def test_every_figure_says_what_it_is(whole: tuple[Task, Path, dict[str, Any]]) -> None:
    _, _, facts = whole
    for row in facts["rows"]:
        names = [(s["axis"], s["name"]) for s in row["scores"]]
        assert names == [
            ("faithfulness", "CLIP-I"),
            ("faithfulness", "CLIP image"),
            ("realism", "residual"),
            ("alignment", "CLIP-T"),
            ("alignment", "CLIP direction"),
            ("preservation", "L1"),
            ("preservation", "touched"),
            ("preservation", "SSIM"),
        ]
        for score in row["scores"]:
            assert score["value"] is not None
            assert score["better"] in ("higher", "lower")
            assert score["on"]
            assert score["what"]
        # The mask keeps the right half, and all methods here keep what a mask keeps.
        assert {s["value"] for s in row["scores"] if s["name"] in ("L1", "touched")} == {0.0}
        assert 0.4 < next(s["value"] for s in row["scores"] if s["name"] == "SSIM") <= 1


def test_the_page_needs_nothing_and_believes_nobody(whole: tuple[Task, Path, dict[str, Any]]) -> None:
    _, out, _ = whole
    text = (out / "index.html").read_text()
    assert not re.search(r"(src|href|url\()\s*=?\s*[\"']?(https?:)?//", text)
    assert set(re.findall(r'src="([a-z]+):', text)) == {"data"}
    assert text.count("<article") == 6
    assert text.count("<img") == 1 + 1 + 2 + 2 * 6  # the picture, its mask, two photos; each result over it
    assert "<b>grass</b>" not in text
    assert "<i>red</i>" not in text
    assert "&lt;i&gt;red&lt;/i&gt;" in text
    assert "prefers-color-scheme" in text
    assert "width=device-width" in text
    assert len(re.findall('class="best"', text)) >= 3


def test_a_second_run_makes_nothing_again(
    whole: tuple[Task, Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    task, out, facts = whole
    worked: list[str] = []

    def refuse(run: compare_runs.Run) -> Any:
        worked.append(run.method)
        yield from ()
        raise ModelError("It is not there.")

    for method in METHODS:
        monkeypatch.setitem(compare.RUNS, method, refuse)
    again = finish(compare.compare_to(task, out)).facts
    assert worked == []
    assert again["rows"] == json.loads(json.dumps(facts["rows"]))
    (out / "sdedit" / "picture.png").unlink()
    again = finish(compare.compare_to(task, out)).facts
    assert worked == ["sdedit"]  # the one that is missing; that it fails stops nobody
    [row] = [row for row in again["rows"] if row["method"] == "sdedit"]
    assert (row["failed"], row["picture"], row["scores"]) == ("It is not there.", None, [])
    assert 'class="wrong">It is not there.' in (out / "index.html").read_text()
    with pytest.raises(InputError, match="holds another comparison"):
        finish(compare.compare_to(Task.of(settings(prompt="x"), image=task.image), out))


def test_methods_that_do_not_apply_say_why(tmp_path: Path) -> None:
    image, guide = picture(tmp_path / "a.png"), picture(tmp_path / "g.png", 1)
    photos = picture(tmp_path / "rex" / "0.png").parent
    told = {"word": "<rex>", "noun": "dog", "prompt": "a <rex> dog"}

    def applies(task: Task) -> list[str]:
        return [name for name in METHODS if not why_not(name, task)]

    editing = settings(instruction="make it red", prompt="a red dog", editor=str(shared("ip2p")))
    assert applies(Task.of(editing, image=image)) == ["instruct", "sdedit", "text2live"]
    only_told = settings(instruction="make it red", editor=str(shared("ip2p")))
    assert applies(Task.of(only_told, image=image)) == ["instruct"]
    assert applies(Task.of(settings(), guide=guide)) == ["sdedit"]
    learners = ["textual-inversion", "dreambooth", "custom-diffusion"]
    assert applies(Task.of(settings(**told), subject=photos)) == learners
    assert applies(Task.of(settings(**told), guide=guide, subject=photos)) == [*learners, "sdedit"]
    no_editor = Task.of(settings(instruction="make it red"), image=image)
    assert "needs an editing model" in why_not("instruct", no_editor)
    assert "none was given (--prompt)" in why_not("text2live", no_editor)
    with pytest.raises(InputError, match="None of the methods can do this"):
        finish(compare.compare_to(no_editor, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_the_noun_stands_for_the_word_where_nobody_learnt_it() -> None:
    def plain(prompt: str) -> str:
        return settings(prompt=prompt, word="<rex>", noun="dog").plain_prompt

    assert plain("a <rex> dog and a cat") == "a dog and a cat"
    assert plain("<rex> on the moon") == "dog on the moon"
    assert plain("a <rex> doghouse") == "a dog doghouse"
    assert settings(prompt="a cat").plain_prompt == "a cat"


def test_wrong_tasks_are_a_sentence(tmp_path: Path) -> None:
    image = picture(tmp_path / "a.png")
    photos = picture(tmp_path / "rex" / "0.png").parent
    with pytest.raises(InputError, match="nothing to work on"):
        Task.of(settings(prompt="a dog"))
    small, black = tmp_path / "small.png", tmp_path / "black.png"
    Image.new("L", (8, 8), 255).save(small)
    Image.new("L", read_image(image).image.size).save(black)
    with pytest.raises(InputError, match="The mask has 8 x 8 pixels"):
        Task.of(settings(prompt="a dog"), image=image, mask=small)
    with pytest.raises(InputError, match="black everywhere"):
        Task.of(settings(prompt="a dog"), image=image, mask=black)
    with pytest.raises(InputError, match="a mask and no picture"):
        Task.of(settings(), mask=image, subject=photos)
    with pytest.raises(InputError, match="does not speak of <rex>"):
        Task.of(settings(prompt="a dog", word="<rex>", noun="dog"), subject=photos)
    with pytest.raises(InputError, match="no word or no noun"):
        Task.of(settings(prompt="a dog"), subject=photos)
    with pytest.raises(InputError, match="no subject"):
        Task.of(settings(word="<rex>"), image=image)
    with pytest.raises(InputError, match="is a folder"):
        Task.of(settings(), image=tmp_path)
    with pytest.raises(ConfigError, match="no method 'instrcut'"):
        settings(methods=("instrcut",))
    with pytest.raises(ConfigError, match="Give the prompt too"):
        settings(before="a cat")
    (tmp_path / "full").mkdir()
    picture(tmp_path / "full" / "x.png")
    with pytest.raises(InputError, match="exists already"):
        finish(compare.compare_to(Task.of(settings(), guide=image), tmp_path / "full"))


def test_from_strokes_alone_and_from_the_command_line(tmp_path: Path) -> None:
    given = ("compare", "--guide", str(picture(tmp_path / "g.png")), "--steps", "1", "--t0", "0")
    more = ("--model", str(shared("sd1")), "--clip", str(shared_clip()), "-o", str(tmp_path / "out"))
    needs = scumble(*given, *more, "--dry-run", "--json")
    assert needs.status == 0, needs.err
    assert [row["method"] for row in needs.json["rows"]] == ["sdedit"]
    assert needs.json["seconds"] > 0
    assert len(needs.json["left out"]) == 5
    assert not (tmp_path / "out").exists()
    done = scumble(*given, *more, "--no-recipe", "--json")
    assert done.status == 0, done.err
    [row] = done.json["rows"]
    values = {s["name"]: s["value"] for s in row["scores"]}
    assert values == {"L2 to the strokes": 0.0, "residual": 0.0}  # t0 = 0 gives the strokes back
    with pytest.raises(InputError, match="holds no scumble recipe"):
        read_recipe(tmp_path / "out" / row["picture"])
    wrong = scumble("compare", "-o", str(tmp_path / "none"), "--prompt", "a dog")
    assert (wrong.status, "nothing to work on" in wrong.sentence) == (2, True)


# The toy world


def rendered(folder: Path, seed: int = 3) -> tuple[Path, Any]:
    """A scene as `scumble toybox render` leaves it, and the scene."""
    folder.mkdir(parents=True, exist_ok=True)
    scene = sample_scene(seed, profile=PROFILES["photo"])
    save_image(from_unit(render([scene], size=64).pixels)[0], folder / "0.png")
    row = {"file_name": "0.png", "scene": asdict(scene)}
    (folder / "metadata.jsonl").write_text("not json, names another\n" + json.dumps(row) + "\n")
    return folder / "0.png", scene


def test_the_truth_of_a_rendered_scene(tmp_path: Path) -> None:
    image, scene = rendered(tmp_path)
    edit = instruct(scene, 1, kinds=("colour",), split=None)
    truth = truth_of(Task.of(CompareConfig(instruction=edit.text.upper()), image=image))
    assert (truth.before, truth.after, truth.asked) == (scene, edit.after, {"colour"})
    right, may = truth.right_picture(64), truth.may_change(64)
    assert right is not None
    assert may is not None
    assert right.shape == (1, 3, 64, 64)
    assert 0 < float(may.mean()) < 1
    other = truth_of(Task.of(CompareConfig(instruction="make it dance"), image=image))
    assert (other.before, other.after) == (scene, None)


def test_metadata_that_lies_is_not_believed(tmp_path: Path) -> None:
    image, _ = rendered(tmp_path)
    config = CompareConfig(instruction="make it blue")
    picture(image, 5)
    assert truth_of(Task.of(config, image=image)).before is None  # not what the scene looks like
    for text in ('{"file_name": "0.png", "scene": {"things": []}}', '{"file_name": "0.png"}', "[0.png]"):
        (tmp_path / "metadata.jsonl").write_text(text)
        assert truth_of(Task.of(config, image=image)).before is None


def test_a_benchmark_subject_is_known_by_its_folder(tmp_path: Path) -> None:
    subject = SUBJECTS[0]
    picture(tmp_path / "0.png")
    (tmp_path / "subject.json").write_text(json.dumps({"name": subject.name}))
    wish = subject.prompts[0]
    prompt = wish.text.format("<rex> cat")
    config = CompareConfig(prompt=prompt, word="<rex>", noun="cat")
    truth = truth_of(Task.of(config, subject=tmp_path))
    assert truth.after == wish.scene
    assert truth.asked == {"kind", *wish.expected}


def test_the_true_picture_has_the_best_figures(tmp_path: Path) -> None:
    """The judge and the truth agree on the right answer, and tell it from the picture as it was."""
    image, scene = rendered(tmp_path)
    edit = instruct(scene, 1, kinds=("place",), split=None)
    scorer = Scorer(Task.of(CompareConfig(instruction=edit.text), image=image))
    verdicts: dict[str, dict[str, float]] = {}
    for name, wanted in (("before", edit.before), ("after", edit.after)):
        pixels = to_unit(from_unit(render([wanted], size=64).pixels))
        with torch.inference_mode():
            verdicts[name] = {row["name"]: row["value"] for row in scorer._judged(pixels)}
    assert verdicts["after"]["PSNR"] is None  # equal to the truth: infinite, which JSON has no word for
    assert verdicts["before"]["PSNR"] < 30
    assert verdicts["after"]["done"] == 1.0
    assert verdicts["before"]["done"] == 0.0
    assert read_image(image).image.size == (64, 64)
