"""A run of `scumble learn` that is gone on with: what may differ, what may not, and who may."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from cli import Outcome, scumble
from scumble.core import rng
from scumble.core.errors import InputError
from scumble.core.runs import RunFolder
from scumble.methods import custom_diffusion, dreambooth, textual_inversion
from scumble.sampling.estimate import Cost
from scumble.training.fit import FitConfig
from scumble.verbs import learn as verb
from tiny import shared


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    pixels = torch.randint(0, 256, (64, 64, 3), generator=rng.generator(1), dtype=torch.uint8)
    Image.fromarray(pixels.numpy()).save(folder / "0.png")
    return folder


@pytest.fixture
def stopped(photos: Path, tmp_path: Path) -> Path:
    """Where two steps are kept of a run that gave no result."""
    out = tmp_path / "rex.safetensors"
    assert learn(photos, out, "--steps", "2").status == 0
    out.unlink()
    return out


def learn(photos: Path, out: Path, *more: str) -> Outcome:
    named = ("--word", "<rex>", "--noun", "dog", "--model", str(shared("sd1")), "--device", "cpu")
    return scumble("learn", "textual-inversion", str(photos), *named, "--batch", "1", "-o", str(out), *more)


def test_other_settings_are_named_and_the_old_ones_stay(photos: Path, stopped: Path) -> None:
    run = stopped.with_suffix(".run")
    told = (run / "config.toml").read_text()
    other = learn(photos, stopped, "--steps", "3", "--lr", "0.25", "--vectors", "2")
    assert other.status == 2
    assert "lr was 0.01 and is 0.25, vectors was not set and is 2. Take the same again" in other.sentence
    assert "Going on" not in other.err
    assert (run / "config.toml").read_text() == told


def test_how_many_checkpoints_are_kept_may_differ(photos: Path, stopped: Path, tmp_path: Path) -> None:
    (tmp_path / "keep.toml").write_text("keep = 5\nmicro_batch = 1\n")
    more = learn(photos, stopped, "--steps", "3", "--config", str(tmp_path / "keep.toml"), "--json")
    assert (more.status, more.json["steps"], "Going on from" in more.err) == (0, 3, True)


def test_a_damaged_record_of_the_inputs_is_a_sentence(photos: Path, stopped: Path) -> None:
    (stopped.with_suffix(".run") / "inputs.json").write_text('{"garb')
    again = learn(photos, stopped, "--steps", "3")
    assert (again.status, "inputs.json is damaged. Remove" in again.sentence) == (2, True)


def test_two_do_not_learn_in_one_folder(photos: Path, stopped: Path) -> None:
    run = RunFolder(stopped.with_suffix(".run"))
    with run.alone():
        other = learn(photos, stopped, "--steps", "3")
    assert (other.status, "Another process works in" in other.sentence) == (2, True)
    assert learn(photos, stopped, "--steps", "3").status == 0


def test_the_folder_is_free_again_whatever_happens(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt), RunFolder(tmp_path).alone():
            raise KeyboardInterrupt


def test_a_file_system_without_locks_is_taken_on_trust(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = errno.ENOLCK

    def none(*_: Any, **__: Any) -> None:
        raise OSError(wrong, "none here")

    monkeypatch.setattr("scumble.core.runs.FileLock.acquire", none)
    worked = False
    with RunFolder(tmp_path).alone():
        worked = True
    assert worked
    wrong = errno.EROFS
    with pytest.raises(InputError, match="cannot be written"), RunFolder(tmp_path).alone():
        pass


@pytest.mark.parametrize("rehearsal", [(), ("--dry-run",)])
def test_a_size_that_cannot_be_drawn_is_refused_before_the_work(
    photos: Path, tmp_path: Path, rehearsal: tuple[str, ...]
) -> None:
    out = tmp_path / "x.safetensors"
    refused = learn(photos, out, "--steps", "1", "--size", "100", *rehearsal)
    assert (refused.status, "100 x 100" in refused.sentence) == (2, True)
    assert not out.with_suffix(".run").exists()


def test_a_missing_optimiser_is_told_before_the_work(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr("scumble.training.fit.import_module", none)
    (tmp_path / "small.toml").write_text('optimiser = "adamw8bit"\n')
    out = tmp_path / "x.safetensors"
    refused = learn(photos, out, "--steps", "1", "--config", str(tmp_path / "small.toml"), "--dry-run")
    assert (refused.status != 0, "bitsandbytes" in refused.sentence) == (True, True)


def test_a_rank_is_of_low_rank_changes(photos: Path, tmp_path: Path) -> None:
    given = ("--word", "<rex>", "--noun", "dog", "--model", str(shared("sd1")), "--rank", "2", "--dry-run")
    place = (str(photos), "-o", str(tmp_path / "x.safetensors"))
    refused = scumble("learn", "dreambooth", *place, *given, "--train", "all")
    assert (refused.status, "--rank is of low-rank changes" in refused.sentence) == (2, True)
    assert scumble("learn", "dreambooth", *place, *given, "--train", "low-rank").status == 0


@pytest.mark.parametrize(
    ("config", "passes"),
    [
        (dreambooth.Config(prior_count=10, prior_steps=5), 2 * 10 * 5 * 3),
        (dreambooth.Config(prior_weight=0.0), 0),
        (custom_diffusion.Config(prior_count=2, prior_steps=7), 2 * 2 * 7 * 3),
        (custom_diffusion.Config(regularization="pictures"), 0),
        (textual_inversion.Config(), 0),
    ],
)
def test_class_pictures_count_in_an_estimate(config: FitConfig, passes: int) -> None:
    assert verb._class_pictures(Cost(800, 5), 8, config, 3) == Cost(100 * passes, 0)


def test_settings_are_shown_as_they_are_written(photos: Path, tmp_path: Path) -> None:
    shown = learn(photos, tmp_path / "x.safetensors", "--steps", "7", "--dry-run").out.splitlines()[1]
    assert shown.startswith("steps = 7, batch = 1, ")
    assert 'decay = "constant"' in shown


def test_what_a_run_began_with_is_kept_beside_its_checkpoints(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.write_inputs({"a": [1]})
    assert run.begun_with() is None  # nothing to go on from
    run.write_checkpoint(1, {"x": torch.zeros(1)}, {})
    assert run.begun_with() == {"a": [1]}
    (tmp_path / "inputs.json").write_text(json.dumps([1]))
    with pytest.raises(InputError, match="damaged"):
        run.begun_with()
    run.clear()
    assert not (tmp_path / "inputs.json").exists()
