"""The tables of the methods that learn, on tiny random models: that they run, go on, and add up."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch.optim import optimizer

from scumble.bench import learning, learning_speed, timed
from scumble.bench.learning import METHODS, Settings, measure, table
from scumble.bench.timed import stand_in
from scumble.core.errors import InputError
from scumble.core.events import finish
from scumble.core.images import to_unit
from scumble.data.pairs import read_pairs
from tiny import shared

FEW: dict[str, Any] = {
    "subjects": 2,
    "prompts": 2,
    "seeds": 2,
    "class_pictures": 2,
    "learning_steps": 1,
    "prior_count": 1,
    "steps": 1,
    "methods": ("textual-inversion", "custom-diffusion"),
    "two": False,
}


@pytest.fixture(autouse=True)
def _cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning, "DIVERSE", 2)


def row(method: str, seed: int, subject: str, *, marked: bool, fidelity: float, obeyed: float) -> Any:
    return {
        "method": method,
        "seed": seed,
        "subject": subject,
        "marked": marked,
        "fidelity": fidelity,
        "fidelity of the base": -1.0,
        "obeyed": obeyed,
        "obeyed by the base": 0.5,
        "PRES": 0.1,
        "DIV": 0.2,
        "seconds": 10.0,
        "bytes": 100,
    }


def test_every_figure_is_measured_and_a_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings.of({**FEW, "model": str(shared("sd1"))})
    asked: dict[str, list[str]] = {}
    plain = learning.Lab.drawn

    def noted(lab: Any, name: str, prompts: Any, weights: Any = None) -> Any:
        asked[name] = list(prompts)
        return plain(lab, name, prompts, weights)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learning.Lab, "drawn", noted)
        scores = finish(measure(tmp_path / "out", settings))
    alike = {key: set(texts) for key, texts in asked.items() if key.endswith("alike") and "cat" in key}
    for key, texts in alike.items():  # a word stands for its noun, or beside it
        assert texts == {f"a photo of a <subject>{'' if key.startswith('textual') else ' cat'}"}
    assert {key.partition("-")[0] for key in alike} == {"textual", "custom"}
    assert len(scores["each"]) == 2 * 2 * 2
    assert {r["marked"] for r in scores["each"]} == {True, False}
    found = scores["methods"]["custom-diffusion"]
    assert set(found) == {
        *("fidelity", "nearer", "PRES", "DIV", "seconds", "prompts", "without a mark", "with a mark"),
        *("bytes", "bytes compressed"),
    }
    assert found["bytes"] > scores["methods"]["textual-inversion"]["bytes"]
    monkeypatch.setattr(learning.Lab, "learnt", None)  # all of it is there: nothing is learnt again
    assert finish(measure(tmp_path / "out", settings)) == scores
    assert json.loads((tmp_path / "out" / "scores.json").read_text()) == scores
    assert (tmp_path / "out" / "table.md").read_text() == table(scores) + "\n"
    with pytest.raises(InputError, match="holds a run with other settings"):
        finish(measure(tmp_path / "out", settings.replace(steps=2)))
    with pytest.raises(InputError, match="no method 'dreamboth'"):
        finish(measure(tmp_path / "x", settings.replace(methods=("dreamboth",))))


def test_means_are_over_subjects_and_spreads_over_seeds() -> None:
    rows = [
        row("dreambooth", 0, "a", marked=False, fidelity=0.2, obeyed=0.5),
        row("dreambooth", 0, "b", marked=True, fidelity=0.4, obeyed=0.4),
        row("dreambooth", 1, "a", marked=False, fidelity=0.6, obeyed=0.3),
        row("dreambooth", 1, "b", marked=True, fidelity=0.6, obeyed=0.3),
    ]
    found = learning._summary(rows)
    assert found["fidelity"]["mean"] == pytest.approx(0.45)
    assert found["fidelity"]["spread"] == pytest.approx(0.3 / 2**0.5)
    assert found["nearer"]["mean"] == pytest.approx((0.45 + 1) / 2)  # from -1 to 1
    assert found["without a mark"]["mean"] == pytest.approx(0.4)
    assert found["with a mark"]["mean"] == pytest.approx(0.5)
    assert found["prompts"]["mean"] == pytest.approx((0.9 + 0.6) / 2)
    assert set(METHODS) == {*learning_speed.PEERS}


# Speed


def test_our_side_and_the_floor_are_timed_in_their_own_process(tmp_path: Path) -> None:
    """In this one: `script` needs a checkout, which is somebody else's text."""
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.new("RGB", (64, 64), "red").save(folder / "0.png")
    given = {
        "row": "dreambooth-low-rank",
        "method": "dreambooth",
        "model": str(shared("sd1")),
        "photos": str(folder),
        "word": "<rex>",
        "noun": "dog",
        "out": str(tmp_path / "w.safetensors"),
        "device": "cpu",
        "dtype": "float32",
        "batch": 1,
        "size": 64,
        "steps": 3,
        "settings": {"steps": 3, "batch": 1, "size": 64, "rank": 2, "prior_weight": 0.0, "identifier": "cat"},
    }
    place = str(tmp_path / "t.json")
    run = [sys.executable, "-m", "scumble.bench.timed", place, "1:2", "floor", json.dumps(given)]
    subprocess.run(run, check=True, capture_output=True)
    found = json.loads((tmp_path / "t.json").read_text())
    assert len(found["times"]) == 3
    assert found["times"] == sorted(found["times"])
    assert found["cpu_times"] == sorted(found["cpu_times"])
    assert len(found["cpu_times"]) == 3
    assert found["device"] == "cpu"
    assert found["peak_bytes"] > 10**8


def test_a_gpu_is_waited_for_at_the_ends_alone_and_its_own_memory_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every side is told the same, and none is made to wait within what is timed."""
    waited: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 12345)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: waited.append(len(timed.TIMES)))
    timed.TIMES.clear()
    timed.SPENT.clear()
    monkeypatch.setattr(timed, "_floor", lambda _, ends: [timed._note(ends) for _ in range(8)])
    hooks = optimizer._global_optimizer_post_hooks
    before = set(hooks)
    timed.main([str(tmp_path / "t.json"), "2:7", "floor", "{}"])
    for key in set(hooks) - before:
        del hooks[key]
    assert waited == [2, 7]
    found = json.loads((tmp_path / "t.json").read_text())
    assert (found["device"], found["peak_bytes"], len(found["times"])) == ("cuda", 12345, 8)


def test_one_device_for_all_sides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What computed elsewhere is refused; on a GPU all the time counts, on a CPU the middle step."""
    told: list[str] = []

    def run(command: list[str], *, env: dict[str, str], **_: Any) -> Any:
        told.append(f"{env['ACCELERATE_USE_CPU']} {command[4]}")
        times = {"times": [0.0, 1.0, 2.0, 3.0, 8.0], "cpu_times": [0.0, 1.0, 2.0, 3.0, 4.0]}
        Path(command[3]).write_text(json.dumps({**times, "device": "cuda", "peak_bytes": 1}))
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(learning_speed.subprocess, "run", run)
    settings = learning_speed.Settings(steps=5, device="cuda")  # a fifth warms up
    found = learning_speed._timed(tmp_path, "x ours", [], settings)
    assert found["rate"] == pytest.approx(3 / 7)
    with pytest.raises(InputError, match="computed on cuda, not on cpu"):
        learning_speed._timed(tmp_path, "y ours", [], settings.replace(device="cpu"))
    assert told == ["false 1:4", "true 1:4"]
    sides = learning_speed._sides("dreambooth", tmp_path, tmp_path, ("toybox", tmp_path), settings)
    assert all(json.loads(sides[side][1])["device"] == "cuda" for side in ("ours", "floor"))
    for there in (True, False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert learning_speed._device("auto") == ("cuda" if there else "cpu")
    with pytest.raises(InputError, match="no GPU here"):
        learning_speed._device("cuda")


def test_what_is_no_checkout_and_too_few_steps_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no examples/textual_inversion"):
        finish(learning_speed.measure(tmp_path / "out", tmp_path, learning_speed.Settings()))


def test_rates_and_ratios_in_the_table() -> None:
    def side(rate: float, cpu_rate: float, gibibytes: int = 1) -> dict[str, float]:
        return {"rate": rate, "cpu_rate": cpu_rate, "peak_bytes": gibibytes * 2**30}

    sides = {
        "ours": side(3.0, 2.0),
        "script": side(1.0, 0.8, 3),
        "best": side(1.5, 0.5, 2),
        "floor": side(4.0, 4.0),
    }
    text = learning_speed.table({"methods": {"dreambooth": sides}})
    last = [cell.strip() for cell in text.splitlines()[-1].strip("|").split("|")]
    rates, peaks = ["3", "1", "1.5", "2.00", "0.75", "2.50"], ["1.00 GiB", "3.00 GiB", "2.00 GiB"]
    assert last == ["dreambooth", *rates, *peaks]
    assert {row.count("|") for row in text.splitlines()} == {11}


def test_the_stand_in_does_what_the_scripts_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = {name: sys.modules.get(name) for name in ("torchvision", "torchvision.transforms")}
    try:
        stand_in()
        transforms: Any = sys.modules["torchvision.transforms"]
        image = Image.linear_gradient("L").convert("RGB").resize((90, 60))
        steps = [
            transforms.Resize(32, interpolation=transforms.InterpolationMode.BILINEAR),
            transforms.CenterCrop(32),
            transforms.ToTensor(),
            transforms.Normalize([0.5], [0.5]),
        ]
        x = transforms.Compose(steps)(image)
        assert x.shape == (3, 32, 32)
        expected = to_unit(image.resize((48, 32)).crop((8, 0, 40, 32)))[0] * 2 - 1
        torch.testing.assert_close(x, expected)
        assert transforms.RandomHorizontalFlip(p=1.0)(image).getpixel((0, 0)) == image.getpixel((89, 0))
        assert transforms.RandomCrop(20)(image).size == (20, 20)
    finally:
        for name, module in kept.items():
            if module is None:
                sys.modules.pop(name, None)
            else:
                sys.modules[name] = module


def test_learning_to_edit_is_timed_as_a_script_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All four sides in this process, with a script that takes as many steps and is given what theirs is."""
    asked: list[list[str]] = []

    def run(command: list[str], **_: Any) -> Any:
        asked.append(command)
        if command[5] == "script":
            times = {"times": [0.0, 1.0, 2.0, 3.0], "cpu_times": [0.0, 0.5, 1.0, 1.5]}
            Path(command[3]).write_text(json.dumps({**times, "device": "cpu", "peak_bytes": 2**30}))
        else:
            timed.TIMES.clear()
            timed.SPENT.clear()
            hooks = optimizer._global_optimizer_post_hooks
            before = set(hooks)
            timed.main(command[3:])
            for key in set(hooks) - before:
                del hooks[key]
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(learning_speed, "PAIRS", 2)
    monkeypatch.setattr(learning_speed.subprocess, "run", run)
    script = tmp_path / "examples" / "instruct_pix2pix" / "train_instruct_pix2pix.py"
    script.parent.mkdir(parents=True)
    script.write_text("")
    given = {"model": str(shared("sd1")), "methods": ("instruct-pix2pix",), "steps": 4, "warmup": 1}
    settings = learning_speed.Settings.of({**given, "size": 64, "device": "cpu"})
    scores = finish(learning_speed.measure(tmp_path / "out", tmp_path, settings))
    found = scores["methods"]["instruct-pix2pix"]
    assert set(found) == {"floor", "ours", "script", "best"}
    assert {side: row["steps"] for side, row in found.items()} == dict.fromkeys(found, 2)
    assert (found["script"]["rate"], found["script"]["cpu_rate"]) == (1.0, 2.0)
    told = asked[2]
    assert told[told.index("--original_image_column") + 1] == "input_image"
    assert len(read_pairs(Path(told[told.index("--train_data_dir") + 1]) / "train")) == 2
    assert "| instruct-pix2pix |" in learning_speed.table(scores)


def test_the_stand_in_crops_tensors_as_it_does_pictures() -> None:
    x = torch.arange(2 * 3 * 8 * 6).reshape(2, 3, 8, 6)
    assert timed._cropped(x, 4, 0.0, 1.0).equal(x[..., 4:, :4])
    assert timed._cropped(x, 6, 0.5, 0.5).shape == (2, 3, 6, 6)
