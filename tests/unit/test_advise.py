"""Advice: which method, commands that can be typed, reasons with their source; and the table that is made."""

from __future__ import annotations

import importlib.util
import itertools
import json
import re
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
import typer.main
from diffusers import UNet2DConditionModel

from cli import scumble
from scumble.adapters.lora import ATTENTION
from scumble.cli.main import app
from scumble.core.errors import ConfigError
from scumble.models.configs import network_configs
from scumble.verbs import known
from scumble.verbs.advise import WISHES, advise
from scumble.verbs.compare_page import NAMES

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize(
    ("need", "method"),
    [
        ({"want": "subject", "images": 5, "gpu": True}, "dreambooth"),
        ({"want": "subject", "images": 5, "minutes": 6}, "custom-diffusion"),
        ({"want": "subject", "images": 5, "subjects": 2}, "custom-diffusion"),
        ({"want": "subject"}, "instruct"),
        ({"want": "style", "images": 4}, "textual-inversion"),
        ({"want": "style"}, "instruct"),
        ({"want": "local", "told": "paint"}, "sdedit"),
        ({"want": "local", "mask": True}, "instruct"),
        ({"want": "local"}, "text2live"),
        ({"want": "whole"}, "instruct"),
        ({"want": "whole", "told": "paint"}, "sdedit"),
        ({"want": "whole", "video": True}, "text2live"),
        ({"want": "local", "video": True, "told": "paint"}, "text2live"),
        ({"want": "strokes"}, "sdedit"),
        ({"want": "local", "minutes": 1}, "instruct"),
        ({"want": "local", "minutes": 6, "gpu": True}, "text2live"),
        ({"want": "local", "minutes": 1, "toybox": True}, "text2live"),
        ({"want": "style", "images": 4, "minutes": 8, "gpu": True}, "custom-diffusion"),
        ({"want": "style", "images": 4, "minutes": 8}, "instruct"),
    ],
)
def test_the_method_for_a_need(need: dict[str, Any], method: str) -> None:
    assert advise(**need).method == method


def everything() -> list[dict[str, Any]]:
    """Every combination of what a person may say."""
    axes: dict[str, tuple[Any, ...]] = {
        "want": tuple(WISHES),
        "images": (0, 1, 5),
        "subjects": (1, 2),
        "told": ("words", "paint"),
        "mask": (False, True),
        "video": (False, True),
        "minutes": (None, 3.0),
        "gpu": (False, True),
        "toybox": (False, True),
    }
    rows = itertools.product(*axes.values())
    return [dict(zip(axes, row, strict=True)) for row in rows]


def test_every_advice_has_a_reason_with_a_source_and_commands_that_can_be_typed() -> None:
    seen: dict[str, dict[str, Any]] = {}
    needs = everything()
    assert len(needs) == 1920
    for need in needs:
        advice = advise(**{name: value for name, value in need.items() if value is not None})
        assert advice.method in NAMES
        assert advice.method not in [other.method for other in advice.others]
        assert len(advice.reasons) >= 3
        for reason in advice.reasons:
            assert reason.source == "how it works" or re.match(
                r"published(: .* \d{4}, arXiv:\d{4}\.\d{5})?$|measured: (compare|bench claims)$",
                reason.source,
            )
        assert not need["video"] or need["want"] == "strokes" or advice.method == "text2live"
        seen |= dict.fromkeys(advice.commands, need)
    assert len(seen) >= 20
    root = typer.main.get_command(app)
    for line in seen:
        typed(root, shlex.split(line))


def typed(command: Any, words: list[str]) -> None:
    """Raises where the command line would refuse these words, without running anything."""
    assert words[0] == "scumble"
    rest = words[1:]
    while hasattr(command, "commands"):
        command, rest = command.commands[rest[0]], rest[1:]
    context = command.make_context(command.name, list(rest))
    assert context.params


def test_names_that_were_given_stand_in_the_command() -> None:
    said = {"photos": "my rex", "word": "<max>", "noun": "cat", "prompt": "a <max> cat at sea"}
    advice = advise(want="subject", images=4, gpu=True, toybox=True, **said)
    learn, draw = advice.commands
    assert learn.startswith("scumble learn dreambooth 'my rex' --word '<max>' --noun cat -o")
    assert draw.startswith("scumble generate 'a <max> cat at sea' --with")
    assert advice.notes == []


def test_every_subject_has_its_word() -> None:
    words = {"want": "subject", "images": 4, "subjects": 2, "noun": "cat"}
    learn, draw = advise(**words, word="<max>").commands
    assert "'photos/1:<max>:cat' --subject 'photos/2:<subject2>:cat'" in learn
    assert "a <max> cat next to a <subject2> cat" in draw
    assert "'photos/1:<subject1>:cat'" in advise(**words).commands[0]


def test_what_is_named_and_what_is_told_fit_the_method() -> None:
    film = advise(want="whole", picture="clip.mp4").commands  # a video by its name
    assert film == advise(want="whole", video=True).commands
    assert film[0].startswith("scumble atlas clip.mp4")
    both = {"want": "local", "prompt": "a dog at night", "instruction": "make it night", "toybox": True}
    assert "edit instruct photo.png 'make it night'" in advise(**both, mask=True).commands[0]
    assert "--prompt 'a dog at night'" in advise(**both).commands[0]
    assert any("--instruction" in note for note in advise(want="whole", prompt="a dog at night").notes)
    assert any("caption" in note for note in advise(want="local", instruction="make it night").notes)
    strokes = advise(want="strokes", mask=True, toybox=True)
    assert "edit sdedit painted.png --mask mask.png" in strokes.commands[0]
    assert any("painted.png is the paint" in note for note in strokes.notes)
    lost = advise(want="subject", images=5, word="<max>", prompt="a dog at sea")
    assert any("does not speak of <max>" in note for note in lost.notes)
    with pytest.raises(ConfigError, match="a word and a noun"):
        advise(want="subject", images=5, noun="")
    for need in everything()[::7]:
        advice = advise(**{name: value for name, value in need.items() if value is not None})
        for name in ("MODEL", "EDITING_MODEL"):  # a word to put another for is explained
            stands = any(name in shlex.split(line) for line in advice.commands)
            assert not stands or any(note.startswith(f"{name} is") for note in advice.notes)


def test_a_film_is_edited_by_its_atlas_whatever_is_wanted() -> None:
    clip = {"video": True, "picture": "clip.mp4", "gpu": True}
    for want in WISHES:
        for told in ("words", "paint"):
            first, *_, last = advise(want=want, told=told, **clip).commands
            assert first.startswith("scumble atlas clip.mp4 ")
            assert last.startswith("scumble edit text2live clip.mp4 --atlas atlas.safetensors ")
            assert ("--clip openai/" in last) == ("--prompt" in last)
            assert "--clip" not in advise(want=want, told=told, toybox=True, **clip).commands[-1]
    strokes = advise(want="strokes", **clip)
    assert strokes.method == "sdedit"
    assert [line.split()[1:3] for line in strokes.commands] == [
        ["atlas", "clip.mp4"],
        ["edit", "sdedit"],
        ["edit", "text2live"],
    ]
    assert any("painted.png is atlas-foreground.png" in note for note in strokes.notes)
    painted = advise(want="whole", told="paint", **clip)
    assert "--painted painted.png --layer background" in painted.commands[-1]
    assert any("painted.png is atlas-background.png" in note for note in painted.notes)


@pytest.mark.parametrize("want", WISHES)
@pytest.mark.parametrize("video", [False, True])
@pytest.mark.parametrize("images", [0, 5])
def test_time_and_a_gpu_matter_to_every_wish(want: str, video: bool, images: int) -> None:
    need = {"want": want, "video": video, "images": images}
    at_ease = advise(**need, gpu=True)
    assert not any("longer" in note or "GPU" in note for note in at_ease.notes)
    without = advise(**need)
    assert any("longer" in note or "Without a GPU" in note for note in without.notes)
    hurried = advise(**need, minutes=1)
    slow = {"textual-inversion", "dreambooth", "custom-diffusion", "text2live"}
    ready = [other.method for other in hurried.others if other.method not in slow]
    # What learns stands first only where nothing else does it, and says how long that takes.
    assert hurried.method not in slow or video or (want == "subject" and ready == ["sdedit"])
    assert hurried.method not in slow or any("longer" in n or "at least" in n for n in hurried.notes)
    assert not any("--t0 auto" in line for line in hurried.commands)


def test_measured_figures_take_the_place_of_published_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    before = [reason.source for reason in advise(want="strokes").reasons]
    rows = {"sdedit/outside": {"figure": 0.0, "holds": True}}
    monkeypatch.setattr("scumble.verbs.advise.claim_figures", lambda: rows)
    found = {"sdedit": {"tasks": 3, "seconds": 2.0, "done": 0.5}}
    monkeypatch.setattr("scumble.verbs.advise.compared", lambda: found)
    after = advise(want="strokes").reasons
    assert [reason.source for reason in after] == [
        "how it works",
        "measured: compare",
        "measured: bench claims",
    ]
    assert "3 tasks of the toybox: 2 s, done 0.50" in after[1].text
    assert "sdedit/outside: 0, which holds" in after[2].text
    assert before.count("how it works") == 1


def test_comparisons_are_summed_up_by_their_middle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(seconds: float, done: float) -> dict[str, Any]:
        score = {"name": "done", "value": done}
        row = {"method": "sdedit", "picture": "x", "seconds": {"loading": 1.0, "drawing": seconds - 1}}
        return {"rows": [{**row, "scores": [score]}, {"method": "instruct", "picture": None, "scores": []}]}

    runs = [run(2, 0.0), run(4, 1.0), run(9, 0.5)]
    (tmp_path / "compare.json").write_text(json.dumps({"runs": runs}))
    monkeypatch.setattr(known, "FIGURES", tmp_path)
    known.compared.cache_clear()
    try:
        # methods.toml is read already
        assert known.methods()
        found = known.compared.__wrapped__()
    finally:
        known.compared.cache_clear()
    assert found == {"sdedit": {"tasks": 3, "seconds": 4.0, "done": 0.5}}


def test_wrong_needs_are_a_sentence() -> None:
    with pytest.raises(ConfigError, match="not said"):
        advise()
    with pytest.raises(ConfigError, match="want cannot be 'magic'"):
        advise(want="magic")


def test_from_the_command_line() -> None:
    outcome = scumble("advise", "--want", "local", "--told", "paint", "--picture", "cat.png", "--json")
    assert outcome.status == 0, outcome.err
    expected = advise(want="local", told="paint", picture="cat.png", gpu=torch.accelerator.is_available())
    assert outcome.json == json.loads(json.dumps(asdict(expected)))
    text = scumble("advise", "--want", "whole", "--no-gpu").out
    assert text.startswith("InstructPix2Pix\n\n  scumble edit instruct photo.png 'make it night'")
    assert "Or:\n  SDEdit." in text
    assert scumble("advise").status == 2  # nobody is there to ask


def test_a_person_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    from scumble.cli import advise as command

    given = iter(["subject", "n", "4", "2", "0", "n", "y"])
    monkeypatch.setattr("rich.console.Console.input", lambda *_, **__: next(given))
    answers = command._asked({})
    assert answers == {
        **{"want": "subject", "video": False, "images": 4, "subjects": 2},
        **{"toybox": False, "gpu": True},
    }
    assert list(given) == []
    assert advise(**answers).method == "custom-diffusion"


# The table


def test_numbers_that_learn_are_counted() -> None:
    """On Stable Diffusion 1.5's own shapes, without its weights."""
    with torch.device("meta"):
        network = UNet2DConditionModel.from_config(dict(network_configs("sd1")["unet"]))
    sizes = {name: p.numel() for name, p in network.named_parameters()}
    whole = sum(sizes.values())
    pairs = sum(n for name, n in sizes.items() if re.search(r"attn2\.to_[kv]\.weight$", name))
    low = sum(
        16 * sum(module.weight.shape)
        for name, module in network.named_modules()
        if isinstance(module, torch.nn.Linear) and re.search(r"\.to_([qkv]|out\.0)$", name)
    )
    assert whole == known.DENOISER == known.methods()["dreambooth"].numbers
    assert pairs == known.methods()["custom-diffusion"].numbers
    assert f"{100 * low / whole:.2f} %" in known.methods()["dreambooth"].changes
    assert set(ATTENTION) == {"unet.*.to_[qkv]", "unet.*.to_out.0"}  # what low rank changes
    assert known.methods()["textual-inversion"].numbers == network.config["cross_attention_dim"]


def test_the_table_of_choosing_is_made_and_not_written() -> None:
    assert (DOCS / "choosing.md").read_text() == known.choosing(), "python docs/data/make.py makes it"
    for name in ("claims.json", "compare.json"):
        assert (known.FIGURES / name).read_bytes() == (DOCS / "data" / name).read_bytes()
    assert set(known.methods()) == set(NAMES)


def test_the_maker_puts_comparisons_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.spec_from_file_location("maker", DOCS / "data" / "make.py")
    assert spec is not None
    assert spec.loader is not None
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    here = tmp_path / "docs" / "data"
    here.mkdir(parents=True)
    for name in ("claims.json", "compare.json"):
        (here / name).write_bytes((DOCS / "data" / name).read_bytes())
    monkeypatch.setattr(maker, "HERE", here)
    monkeypatch.setattr(maker, "FIGURES", tmp_path)
    row = {
        "method": "sdedit",
        "picture": "x",
        "seconds": {},
        "peak_memory_bytes": 1,
        "scores": [],
        "notes": [],
    }
    facts = {"settings": {"prompt": "a cat"}, "machine": {}, "model": {}, "rows": [row]}
    (tmp_path / "run.json").write_text(json.dumps(facts))
    for _ in range(2):  # the same comparison takes its own place
        maker.main([str(tmp_path / "run.json")])
    runs = json.loads((here / "compare.json").read_text())["runs"]
    assert [run["settings"] for run in runs if run["settings"] == {"prompt": "a cat"}] == [
        {"prompt": "a cat"}
    ]
    assert "notes" not in runs[-1]["rows"][0]
    assert (tmp_path / "docs" / "choosing.md").is_file()
    assert (tmp_path / "docs" / "claims.md").read_text() == (DOCS / "claims.md").read_text()
