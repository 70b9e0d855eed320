from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file, save_file

from scumble.core.errors import DiskFullError, InputError
from scumble.core.runs import RunFolder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_run_is_opened_again_with_all_it_had(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "runs" / "rex")
    run.write_config("steps = 3\n")
    run.append_step(step=1, loss=0.5, note="ü")
    run.append_step(step=2, loss=float("inf"))
    preview = run.write_preview(2, Image.new("RGB", (2, 2)))
    again = RunFolder(tmp_path / "runs" / "rex")
    again.append_step(step=3, loss=0.25)
    assert again.config.read_text() == "steps = 3\n"
    assert [step["loss"] for step in again.steps()] == [0.5, float("inf"), 0.25]
    assert again.steps()[0]["note"] == "ü"
    assert preview.relative_to(run.path) == Path("previews/000002.png")
    assert names(run.path) == ["checkpoints", "config.toml", "previews", "steps.jsonl"]


def test_a_new_run_has_no_steps_and_no_checkpoint(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert run.steps() == []
    assert run.latest_checkpoint() == (None, [])


@given(cut=st.integers(0, 60))
def test_a_torn_last_line_is_passed_over_and_writing_goes_on(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    run = RunFolder(tmp_path_factory.mktemp("run"))
    for step in range(3):
        run.append_step(step=step, loss=1.5)
    log = run.path / "steps.jsonl"
    content = log.read_bytes()
    log.write_bytes(content[: len(content) - cut])
    whole = [step for step in range(3) if len(content) * (step + 1) // 3 - 1 <= len(content) - cut]
    assert [step["step"] for step in run.steps()] == whole
    run.append_step(step=99)
    assert [step["step"] for step in run.steps()] == [*whole, 99]


def test_the_newest_checkpoints_are_kept(tmp_path: Path) -> None:
    run = RunFolder(tmp_path, keep=2)
    for step in (9, 10, 100, 1_000_000):
        run.write_checkpoint(step, {"x": torch.tensor([step])}, {"step": str(step)})
    assert names(tmp_path / "checkpoints") == ["000100.safetensors", "1000000.safetensors"]
    path, complaints = run.latest_checkpoint()
    assert path is not None
    assert load_file(path)["x"].item() == 1_000_000
    assert complaints == []


def test_a_damaged_checkpoint_is_passed_over_with_a_sentence(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    good = run.write_checkpoint(1, {"x": torch.ones(3)}, {})
    bad = run.write_checkpoint(2, {"x": torch.ones(3)}, {})
    bad.write_bytes(bad.read_bytes()[:-1])
    (tmp_path / "checkpoints" / ".abc.partial.safetensors").write_bytes(b"half")
    path, [complaint] = run.latest_checkpoint()
    assert path == good
    assert "000002.safetensors is not a sound .safetensors file" in complaint


def test_a_full_disk_keeps_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunFolder(tmp_path, keep=1)
    good = run.write_checkpoint(1, {"x": torch.ones(3)}, {})

    def fsync(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(DiskFullError):
        run.write_checkpoint(2, {"x": torch.ones(3)}, {})
    assert run.latest_checkpoint() == (good, [])
    assert len(names(tmp_path / "checkpoints")) == 1


def test_a_place_that_cannot_be_a_run_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="a file stands where"):
        RunFolder(tmp_path / "file")
    with pytest.raises(InputError, match="0 checkpoints cannot be kept"):
        RunFolder(tmp_path / "run", keep=0)


def test_a_checkpoint_is_read_to_its_last_byte(tmp_path: Path) -> None:
    """One flipped bit in a tensor, its shape or the metadata is seen, and so is an entry that is missing."""
    run = RunFolder(tmp_path, keep=3)
    good = run.write_checkpoint(1, {"x": torch.ones(3), "n": torch.tensor(7)}, {"step": "1"})
    assert run.latest_checkpoint(["step"]) == (good, [])
    assert run.latest_checkpoint(["digest"])[0] is None
    path = run.write_checkpoint(2, {"x": torch.ones(2, 3)}, {"step": "2"})
    content = path.read_bytes()
    for there, other in ((b'"step":"2"', b'"step":"3"'), (b'"shape":[2,3]', b'"shape":[3,2]')):
        assert content.count(there) == 1
        path.write_bytes(content.replace(there, other))
        assert "000002.safetensors is damaged" in run.latest_checkpoint()[1][0]
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    found, [complaint] = run.latest_checkpoint()
    assert found == good
    assert "000002.safetensors is damaged" in complaint
    save_file({"x": torch.ones(3)}, path)
    assert "it has no checksum" in run.latest_checkpoint()[1][0]


def test_what_is_cleared_is_the_run_s_alone(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    run.write_config("steps = 3\n")
    run.append_step(step=1)
    run.write_preview(1, Image.new("RGB", (2, 2)))
    run.write_checkpoint(1, {"x": torch.ones(3)}, {})
    for mine in (run.path / "mine.txt", run.path / "checkpoints" / "mine.safetensors"):
        mine.touch()
    run.clear()
    assert run.latest_checkpoint() == (None, [])
    assert run.steps() == []
    assert names(run.path) == ["checkpoints", "mine.txt", "previews"]
    assert names(run.path / "checkpoints") == ["mine.safetensors"]
    run.clear()  # twice is no harm
