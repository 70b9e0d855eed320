"""The layouts of published sets, on made-up copies a few pixels small, and their protocols on tiny models."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import ViTConfig, ViTModel

from cli import scumble
from scumble.bench import protocols
from scumble.bench.protocols import Settings, measure, table
from scumble.bench.sets import read_edits, read_subjects
from scumble.core.errors import InputError
from scumble.core.events import finish
from tiny import shared
from tiny_clip import shared_clip

PROMPTS = """Classes

subject_name,class
backpack,backpack
plushie,stuffed animal
dog2,dog

Prompts

Object Prompts

prompt_list = [
'a {0} {1} in the jungle'.format(unique_token, class_token),
'a purple {0} {1}'.format(unique_token, class_token)
]

Live Subject Prompts

prompt_list = [
'a {0} {1} wearing a red hat'.format(unique_token, class_token)
]
"""


def picture(path: Path, seed: int = 0, size: tuple[int, int] = (40, 36)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def dreambench(path: Path) -> Path:
    path.mkdir(parents=True)
    (path / "prompts_and_classes.txt").write_text(PROMPTS)
    for number, name in enumerate(("backpack", "plushie", "dog2")):
        for i in range(2):
            picture(path / name / f"0{i}.jpg", 10 * number + i)
    return path


def customconcept101(path: Path) -> Path:
    picture(path / "benchmark_dataset" / "pet_dog1" / "1.jpeg")
    (path / "prompts").mkdir()
    (path / "prompts" / "dog.txt").write_text("Photo of a {}.\n{} in times square.\na sad {}.")
    row = {
        "instance_prompt": "photo of a <new1> dog",
        "class_prompt": "dog",
        "instance_data_dir": "./benchmark_dataset/pet_dog1",
        "class_data_dir": "./regularization/pet_dog",
        "prompt_filename": "prompts/dog.txt",
    }
    (path / "dataset.json").write_text(json.dumps([row]))
    return path


def instructpix2pix(path: Path) -> Path:
    rows = [[f"{i:07d}", [f"{900 + i}", f"{800 + i}"]] for i in range(40)]
    for name, seeds in rows:
        picture(path / name / f"{seeds[0]}_0.jpg")
        told = {"edit": f"make it {name}", "input": "a dog", "output": f"a dog {name}"}
        (path / name / "prompt.json").write_text(json.dumps(told))
    (path / "seeds.json").write_text(json.dumps(rows))
    return path


def magicbrush(path: Path) -> Path:
    """One session of three turns and one of a single turn."""
    sessions, captions = {}, {}
    for session, turns in (("139", 3), ("30", 1)):
        folder = path / "images" / session
        rows = []
        names = [f"{session}-input.png", *(f"{session}-output{i}.png" for i in range(1, turns + 1))]
        for i, name in enumerate(names):
            picture(folder / name, int(session) + i)
        for i in range(turns):
            row = {"input": names[i], "mask": f"{session}-mask{i + 1}.png", "output": names[i + 1]}
            rows.append(row | {"instruction": f"turn {i + 1}"})
        sessions[session] = rows
        captions[session] = {name: f"a cat {i}" for i, name in enumerate(names)}
    (path / "edit_sessions.json").write_text(json.dumps(sessions))
    (path / "local_captions.json").write_text(json.dumps(captions))
    return path


def test_dreambench(tmp_path: Path) -> None:
    for place in (tmp_path / "copy" / "dataset", tmp_path / "other"):
        dreambench(place)
    cases = read_subjects("dreambench", tmp_path / "copy")  # the repository, or its folder
    assert cases[0].folder.parent == tmp_path / "copy" / "dataset"
    assert [(c.name, c.noun, len(c.prompts)) for c in read_subjects("dreambench", tmp_path / "other")] == [
        ("backpack", "backpack", 2),
        ("plushie", "stuffed animal", 2),
        ("dog2", "dog", 1),
    ]
    assert cases[0].prompts == ("a {} in the jungle", "a purple {}")
    assert cases[2].prompts == ("a {} wearing a red hat",)
    assert [p.name for p in cases[0].pictures] == ["00.jpg", "01.jpg"]


def test_customconcept101(tmp_path: Path) -> None:
    [case] = read_subjects("customconcept101", customconcept101(tmp_path / "cc"))
    assert (case.name, case.noun) == ("pet_dog1", "dog")
    assert case.prompts == ("Photo of a {}.", "{} in times square.", "a sad {}.")


def test_instructpix2pix_takes_the_last_twentieth_in_the_released_order(tmp_path: Path) -> None:
    cases = read_edits("instructpix2pix", instructpix2pix(tmp_path / "ip2p"))
    torch.manual_seed(0)
    assert [c.name for c in cases] == [f"{38 + i:07d}" for i in torch.randperm(2).tolist()]
    by_name = {c.name: c for c in cases}
    assert by_name["0000038"].image.name == "938_0.jpg"
    assert (by_name["0000038"].instruction, by_name["0000038"].after) == ("make it 0000038", "a dog 0000038")


def test_magicbrush(tmp_path: Path) -> None:
    cases = read_edits("magicbrush", magicbrush(tmp_path / "mb"))
    assert [(c.name, c.follows, c.is_last) for c in cases] == [
        ("139-1", "", False),
        ("139-2", "139-1", False),
        ("139-3", "139-2", True),
        ("30-1", "", True),
    ]
    assert (cases[1].image.name, cases[1].before, cases[1].after) == ("139-output1.png", "a cat 1", "a cat 2")
    assert cases[1].target is not None
    assert cases[1].target.name == "139-output2.png"


def changed(path: Path, change: Callable[[Any], None]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_another_layout_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no folder .*nowhere"):
        read_subjects("dreambench", tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    for name, said in (("dreambench", "prompts_and_classes"), ("customconcept101", "dataset.json")):
        with pytest.raises(InputError, match=said):
            read_subjects(name, tmp_path / "empty")
    for name, said in (("instructpix2pix", "seeds.json"), ("magicbrush", "edit_sessions.json")):
        with pytest.raises(InputError, match=said):
            read_edits(name, tmp_path / "empty")
    (dreambench(tmp_path / "db") / "prompts_and_classes.txt").write_text("nothing")
    with pytest.raises(InputError, match="another layout"):
        read_subjects("dreambench", tmp_path / "db")
    cc = customconcept101(tmp_path / "cc")
    changed(cc / "dataset.json", lambda rows: rows[0].pop("class_prompt"))
    with pytest.raises(InputError, match="row without 'class_prompt'"):
        read_subjects("customconcept101", cc)
    mb = magicbrush(tmp_path / "mb")
    (mb / "images" / "139" / "139-output2.png").unlink()
    with pytest.raises(InputError, match=r"no images/139/139-output2\.png"):
        read_edits("magicbrush", mb)
    (mb / "local_captions.json").unlink()
    with pytest.raises(InputError, match=r"no local_captions\.json"):
        read_edits("magicbrush", mb)


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "..", "a\\b", ""])
def test_no_set_leads_out_of_its_folder(tmp_path: Path, name: str) -> None:
    mb = magicbrush(tmp_path / "mb")
    changed(mb / "edit_sessions.json", lambda rows: rows["30"][0].update(input=name))
    with pytest.raises(InputError, match="no name of a file"):
        read_edits("magicbrush", mb)
    ip = instructpix2pix(tmp_path / "ip")
    changed(ip / "seeds.json", lambda rows: rows[39].__setitem__(0, name))
    with pytest.raises(InputError, match="no name of a file"):
        read_edits("instructpix2pix", ip)


# Protocols


@pytest.fixture(scope="module")
def dino(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("dino")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    ViTModel(ViTConfig(**sizes, image_size=32, patch_size=8), add_pooling_layer=False).save_pretrained(folder)
    return str(folder)


def settings(name: str, method: str, dino: str, **more: Any) -> Settings:
    small = {"model": str(shared("sd1")), "steps": 1, "clip": str(shared_clip()), "dino": dino}
    return Settings.of({"set": name, "method": method, **small, **more})


def test_dreambench_learns_draws_and_scores(tmp_path: Path, dino: str) -> None:
    place, out = dreambench(tmp_path / "db"), tmp_path / "run"
    chosen = settings("dreambench", "textual-inversion", dino, count=1, per_prompt=2, learning_steps=1)
    scores = finish(measure(out, place, chosen))
    assert sorted(p.name for p in (out / "pictures" / "backpack").iterdir()) == [
        f"0{p}-0{s}.png" for p in range(2) for s in range(2)
    ]
    assert set(scores["all"]["scores"]) == {"DINO", "CLIP-I", "CLIP-T"}
    assert all(-1 <= value <= 1 for value in scores["all"]["scores"].values())
    assert scores["cases"] == 1
    assert "| published, single | 0.5690 | 0.7800 | 0.2550 |" in (out / "table.md").read_text()
    again = finish(measure(out, place, chosen))  # everything is there already
    assert again["all"] == scores["all"]
    with pytest.raises(InputError, match="holds a run with other settings"):
        finish(measure(out, place, chosen.replace(per_prompt=1)))


def test_pictures_of_the_subject_itself_have_the_best_figures(tmp_path: Path, dino: str) -> None:
    """Pictures that are there already are scored as they are, whoever made them."""
    place = customconcept101(tmp_path / "cc")
    chosen = settings("customconcept101", "dreambooth", dino, per_prompt=1)
    figures = []
    for name, seed in (("same", 0), ("other", 5)):
        for prompt in range(3):
            picture(tmp_path / name / "pictures" / "pet_dog1" / f"0{prompt}-00.png", seed)
        figures.append(finish(measure(tmp_path / name, place, chosen))["all"]["scores"])
    assert set(figures[0]) == {"DINO", "CLIP-I", "CLIPScore"}
    for name in ("DINO", "CLIP-I"):  # random networks tell pictures apart, though by little
        assert figures[0][name] > figures[1][name]


def test_magicbrush_scores_turns_and_sessions(
    tmp_path: Path, dino: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, seen = magicbrush(tmp_path / "mb"), []

    def make(model: str, steps: int | None) -> protocols.Edit:
        def edit(case: Any, image: Path, seed: int) -> Any:
            seen.append((case.name, image.name))
            yield from ()
            with Image.open(case.target) as target:  # the right answer, but as large again
                return target.convert("RGB").resize((80, 72), Image.Resampling.NEAREST)

        return edit

    monkeypatch.setitem(protocols.EDITORS, "sdedit", make)
    scores = finish(measure(tmp_path / "run", place, settings("magicbrush", "sdedit", dino)))
    assert seen == [
        ("139-1", "139-input.png"),
        ("139-2", "139-output1.png"),
        ("139-3", "139-output2.png"),
        ("30-1", "30-input.png"),
        ("139-2", "139-1.png"),
        ("139-3", "139-2-session.png"),
    ]
    assert (scores["single turn"]["edits"], scores["multi-turn"]["edits"]) == (4, 2)
    for part in ("single turn", "multi-turn"):
        found = scores[part]["scores"]
        assert found["L1"] < 0.1
        assert found["L2"] < found["L1"]
        assert found["CLIP-I"] > 0.9
    assert table(scores).count("\n") == 4


def test_edits_run_from_the_command_line(tmp_path: Path, dino: str) -> None:
    place = instructpix2pix(tmp_path / "ip")
    rulers = ("--clip", str(shared_clip()), "--dino", dino)
    given = ("bench", "edits", "--set", "instructpix2pix", str(place), "--method", "sdedit", *rulers)
    more = ("--model", str(shared("sd1")), "--steps", "1", "--count", "2", "-o", str(tmp_path / "run"))
    outcome = scumble(*given, *more, "--json")
    assert outcome.status == 0, outcome.err
    assert set(outcome.json["all"]["scores"]) == {"direction", "image", "CLIP-T"}
    assert len(list((tmp_path / "run" / "pictures").iterdir())) == 2
    wrong = scumble("bench", "edits", "--set", "imagenet", str(place), "--method", "sdedit", "-o", "x")
    assert "no set 'imagenet'" in wrong.sentence
    wrong = scumble("bench", "edits", "--set", "magicbrush", str(place), "--method", "dreambooth", "-o", "x")
    assert "no method for this set 'dreambooth'" in wrong.sentence
    wrong = scumble("bench", "edits", "--set", "magicbrush", "--method", "sdedit", "-o", "x")
    assert "no copy of the set" in wrong.sentence
