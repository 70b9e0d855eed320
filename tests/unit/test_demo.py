"""The demo: every chapter, its page, its checks that can fail, and what a second run does."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import typer.main

from cli import scumble
from scumble.cli.main import app
from scumble.core.errors import ModelError, ScumbleError
from scumble.core.events import finish
from scumble.data.video import read_video
from scumble.history.embed import read_recipe
from scumble.models import toybox
from scumble.models.atlas_file import load_atlas
from scumble.verbs import demo as verb
from scumble.verbs import demo_clip, demo_editing
from scumble.verbs.atlas import faithfulness
from scumble.verbs.demo_chapter import QUICK, WHOLE, Amount, Chapter, Check, Work
from scumble.verbs.demo_drawing import ASKED, LEARNERS
from scumble.world.clips import render_clip
from tiny import shared

LITTLE = Amount(
    prompts=2,
    steps=2,
    guides=1,
    instructions=1,
    learning_steps=2,
    prior_count=2,
    takes=1,
    layer_steps=2,
    clip_steps=2,
)
"""Every chapter, too little of each for it to come right."""
NO_EDITOR = "This toybox has no weights for toybox-instruct yet."


def no_editor() -> Path:
    raise ModelError(NO_EDITOR, "Give another with --model.")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, verb.DemoReport]]:
    """A whole demo of `LITTLE`, on a toybox that does not edit by instruction."""
    out = tmp_path_factory.mktemp("demo") / "demo"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(toybox, "editing", no_editor)
        patch.setattr(verb, "WHOLE", LITTLE)
        yield out, finish(verb.demo(out))


def chapters(out: Path) -> dict[str, Chapter]:
    facts = json.loads((out / "demo.json").read_bytes())
    return {values["name"]: Chapter.of(values) for values in facts["chapters"]}


def test_every_chapter_is_there(done: tuple[Path, verb.DemoReport]) -> None:
    out, report = done
    found = chapters(out)
    assert list(found) == list(verb.CHAPTERS)
    assert len(found) == 10
    assert report.left_out == (NO_EDITOR,)
    for name, chapter in found.items():
        if name == "instruct":
            continue
        assert chapter.rows, name
        assert chapter.commands, name
        assert chapter.seconds["in all"] > 0, name
        assert chapter.checks or name == "plain", name
        assert all((out / shown.file).is_file() for row in chapter.rows for shown in row.pictures), name
    assert report.pictures == sum(len(row.pictures) for c in found.values() for row in c.rows) > 30
    assert read_recipe(out / "dreambooth" / "0-1.png").ingredients[0].role == "weights"
    assert read_recipe(out / "clip" / "edited.apng").command == "edit text2live"
    before, after = (read_video(out / "clip" / name).frames for name in ("clip.apng", "edited.apng"))
    assert before.shape == after.shape == (16, 3, demo_clip.SIDE, demo_clip.SIDE)
    assert not torch.equal(before, after)


def test_each_learnt_subject_is_called_as_its_method_has_it(done: tuple[Path, verb.DemoReport]) -> None:
    """A word of Textual Inversion stands for the noun; those of the others stand beside it."""
    found = chapters(done[0])
    for method in LEARNERS:
        word = "<momo>" if method == "textual-inversion" else "<momo> cat"
        prompts = [
            read_recipe(done[0] / shown.file).settings["prompt"] for shown in found[method].rows[-1].pictures
        ]
        assert all(f"{word} " in prompt for prompt in prompts)
        assert any(f"{word} " in command for command in found[method].commands)
        assert all(("cat" in prompt) == ("cat" in word) for prompt in prompts)


def test_the_page_needs_nothing_else(done: tuple[Path, verb.DemoReport]) -> None:
    out, report = done
    text = report.page.read_text()
    assert not re.search(r"https?:|//[a-z]", re.sub(r'"data:[^"]*"', "", text))
    sources = re.findall(r'(?:src|href)="([^"]{5})', text)
    assert len(sources) > report.pictures
    assert all(source == "data:" or source.startswith("#") for source in sources)
    assert text.count("data:image/apng;base64,") == 2
    assert f"{NO_EDITOR} This chapter is left out." in text
    for chapter in chapters(out).values():
        assert f'<section id="{chapter.name}">' in text
        assert f'href="#{chapter.name}"' in text
    assert "scumble learn dreambooth subject" in text


def test_what_is_wrong_is_said_and_fails(done: tuple[Path, verb.DemoReport]) -> None:
    """Two steps teach nothing: the learners' checks fail, on the page, in the report and by exit status."""
    out, report = done
    assert sum(p.startswith(tuple(t for t, _ in LEARNERS.values())) for p in report.problems) >= 2
    text = report.page.read_text()
    assert "It is not right." in text
    assert text.count('class="no"') >= len(report.problems)
    with pytest.raises(ScumbleError, match="The demo is not right"):
        verb.check(report)
    outcome = scumble("demo", "-o", str(out), "--json")  # all of it is done: read again
    assert outcome.status == 1
    assert outcome.sentence.startswith("The demo is not right.")
    assert outcome.json["problems"] == list(report.problems)
    assert outcome.json["left out"] == [NO_EDITOR]
    assert NO_EDITOR in outcome.err


def test_a_demo_that_is_right_succeeds() -> None:
    verb.check(verb.DemoReport(Path("index.html"), 1, 1.0, (NO_EDITOR,), ()))


@pytest.mark.parametrize(
    ("figure", "at_most", "holds"),
    [(0.5, False, True), (0.49, False, False), (0.5, True, True), (0.51, True, False)]
    + [(float("nan"), side, False) for side in (True, False)],
)
def test_checks_can_fail(figure: float, at_most: bool, holds: bool) -> None:
    check = Check(claim="It is so", figure=figure, limit=0.5, at_most=at_most)
    chapter = Chapter(name="x", title="A title", checks=(check,))
    assert check.holds is holds
    assert chapter.problems == ([] if holds else [f"A title: It is so? No: {check.found}."])


def test_an_edit_outside_of_its_mask_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare = demo_editing.edit_sdedit.prepare
    strokes = demo_editing.strokes(Work(tmp_path / "right", LITTLE))
    [right] = [c for c in finish(strokes).checks if c.claim.startswith("Outside of the mask")]
    monkeypatch.setattr(
        demo_editing.edit_sdedit, "prepare", lambda guide, *_, prompt: prepare(guide, prompt=prompt)
    )
    strokes = demo_editing.strokes(Work(tmp_path / "wrong", LITTLE))
    [wrong] = [c for c in finish(strokes).checks if c.claim.startswith("Outside of the mask")]
    assert right.holds
    assert right.figure == 0
    assert not wrong.holds
    assert wrong.figure > 1000


def test_a_picture_that_is_not_the_same_again_is_found(
    done: tuple[Path, verb.DemoReport], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [same] = chapters(done[0])["redo"].checks
    assert same.holds
    redo_to = demo_editing.redo_to

    def other(*args: Any, **options: Any) -> Any:
        return redo_to(*args, **{**options, "changes": ["seed=5"]})

    monkeypatch.setattr(demo_editing, "redo_to", other)
    work = Work(tmp_path, LITTLE)
    for name in ("painted", "strokes"):
        finish(verb.CHAPTERS[name](work))
    [check] = finish(demo_editing.redo(work)).checks
    assert not check.holds
    assert check.figure == 2


def test_instructions_are_a_chapter_where_their_weights_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toybox, "editing", lambda: shared("ip2p"))
    chapter = finish(demo_editing.instruct(Work(tmp_path, LITTLE.replace(instructions=4))))
    assert not chapter.left_out
    assert [row.text for row in chapter.rows] == [text for _, text in demo_editing.INSTRUCTIONS]
    assert {score.name for score in chapter.scores} == {"done", "preserved"}
    [check] = chapter.checks
    assert not check.holds  # nobody trained that model
    assert read_recipe(tmp_path / "instruct" / "1.png").command == "edit instruct"


def test_a_second_run_goes_on(done: tuple[Path, verb.DemoReport], monkeypatch: pytest.MonkeyPatch) -> None:
    out, report = done
    monkeypatch.setattr(verb, "WHOLE", LITTLE)
    (out / "painted" / "chapter.json").unlink()
    before = (out / "clip" / "chapter.json").stat().st_mtime_ns
    loop = verb.demo(out)
    assert next(loop).stage == "painted: drawing"
    with pytest.raises(KeyboardInterrupt) as stopped:
        loop.throw(KeyboardInterrupt())
    assert stopped.value.__notes__ == [verb.STOPPED]
    loop, stages = verb.demo(out), set[str]()
    while True:
        try:
            stages.add(next(loop).stage)
        except StopIteration as stop:
            again = stop.value
            break
    assert stages == {"painted: drawing", "painted: decoding", "painted: pictures", "chapters"}
    assert (again.pictures, again.problems) == (report.pictures, report.problems)
    assert (out / "clip" / "chapter.json").stat().st_mtime_ns == before


def test_another_demo_begins_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = {"model": "a", "amount": 1}
    verb._claim(tmp_path, work, overwrite=False)
    (tmp_path / "painted").mkdir()
    (tmp_path / "mine").mkdir()
    verb._claim(tmp_path, work, overwrite=False)
    assert (tmp_path / "painted").is_dir()
    verb._claim(tmp_path, {**work, "model": "b"}, overwrite=False)
    assert not (tmp_path / "painted").exists()
    (tmp_path / "painted").mkdir()
    verb._claim(tmp_path, {**work, "model": "b"}, overwrite=True)
    assert not (tmp_path / "painted").exists()
    assert (tmp_path / "mine").is_dir()


def test_quick_learns_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert WHOLE.learns
    assert not QUICK.learns
    assert not set(verb.LEARNS) - set(verb.CHAPTERS)
    monkeypatch.setattr(toybox, "editing", no_editor)
    finish(verb.demo(tmp_path, amount=LITTLE.replace(learns=False)))
    assert list(chapters(tmp_path)) == ["painted", "instruct", "strokes", "redo"]
    assert "A quick demo" in (tmp_path / "index.html").read_text()


def test_its_commands_are_commands(done: tuple[Path, verb.DemoReport]) -> None:
    """Each is taken by the command line, and the files that go in are there."""
    out, _ = done
    lines = [line for chapter in chapters(out).values() for line in chapter.commands]
    assert len(lines) == 15
    for line in lines:
        program, *words = shlex.split(line)
        assert program == "scumble"
        command: Any = typer.main.get_command(app)
        while hasattr(command, "commands"):
            command = command.commands[words.pop(0)]
        context = command.make_context(command.name, words)
        assert context.params["output"].suffix in (".png", ".safetensors", ".apng")
        given = [word for word in words if "/" in word and word not in (str(context.params["output"]),)]
        for word in given:
            assert (out / word.rpartition("=")[2]).exists(), word


def test_what_its_prompts_ask_for_stands_in_them() -> None:
    assert len(ASKED) == WHOLE.prompts == 16
    for prompt, scene in ASKED:
        [thing] = scene.things
        assert thing.kind in prompt
        assert thing.colour in prompt
        assert {"grass": "grass", "moon": "moon"}.get(scene.place, scene.place) in prompt
        assert (scene.time in prompt) == (scene.time != "day")


def test_the_clip_of_the_package_is_the_toy_worlds() -> None:
    """It is what its program draws, its atlas gives it back, and both are small."""
    files = sorted(demo_clip.FOLDER.iterdir())
    assert [file.name for file in files] == ["clip.apng", "clip.atlas"]
    assert sum(file.stat().st_size for file in files) < 1_500_000
    frames = read_video(demo_clip.FOLDER / "clip.apng").frames
    assert len(frames) == demo_clip.CLIP.frames == 16
    drawn = render_clip(demo_clip.CLIP, size=demo_clip.SIDE).pixels
    assert (frames.float() / 255 - drawn).abs().max() <= 1.5 / 255


def test_the_atlas_of_the_package_gives_the_clip_back(tmp_path: Path) -> None:
    clip, atlas = demo_clip.unpack(tmp_path)
    whole = load_atlas(atlas)
    assert {p.dtype for p in whole.atlas.parameters()} == {torch.float32}
    assert whole.names == ["foreground", "background"]
    assert faithfulness(whole.atlas, read_video(clip).frames) > 33
