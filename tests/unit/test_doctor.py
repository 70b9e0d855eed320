"""The doctor finds what is broken, says what helps, and never falls ill itself."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PIL import Image

from cli import scumble
from scumble.core.errors import ModelError
from scumble.core.events import finish
from scumble.verbs import doctor
from scumble.verbs.doctor import Check, is_broken


def found(name: str) -> list[Check]:
    return list(doctor._CHECKS[name]())


def test_this_installation_is_sound() -> None:
    outcome = scumble("doctor", "--json")
    assert outcome.status == 0, outcome.out
    assert outcome.json["broken"] is False
    names = [check["name"] for check in outcome.json["checks"]]
    assert {"python", "packages", "device", "threads", "memory", "toybox weights", "history", "drawing"} <= {
        *names
    }
    assert {f"extra {extra}" for extra in doctor.EXTRAS} <= {*names}
    assert len(names) == 16
    for check in outcome.json["checks"]:
        assert check["found"]
        assert check["state"] in ("good", "note")


def test_damaged_weights_are_named_and_the_status_is_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from scumble.models import toybox

    copy = tmp_path / "toybox"
    shutil.copytree(toybox.packed(), copy)
    (copy / "judge" / "config.json").write_text("{}")
    (copy / "vae" / "config.json").unlink()
    monkeypatch.setattr(toybox, "packed", lambda: copy)
    [check] = found("toybox weights")
    assert check.state == "broken"
    assert "judge/config.json" in check.found
    assert "vae/config.json" in check.found
    assert "reinstall" in check.remedy
    monkeypatch.setattr(doctor, "_CHECKS", {"toybox weights": doctor._CHECKS["toybox weights"]})
    outcome = scumble("doctor")
    assert outcome.status == 1
    assert outcome.out.startswith("!! toybox weights")
    assert "->" in outcome.out


def test_what_raises_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def ours() -> None:
        raise ModelError("It is gone.", "Look for it.")

    def theirs() -> None:
        raise OSError("disk on fire\nand more")

    monkeypatch.setattr(doctor, "_CHECKS", {"one": ours, "two": theirs})
    one, two = finish(doctor.doctor())
    assert (one.state, one.remedy) == ("broken", "Look for it.")
    assert two.found == "OSError: disk on fire"
    assert is_broken([one])
    assert not is_broken([Check("x", "note", "y")])


def test_packages_that_do_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        doctor, "requires", lambda _: ["pillow>=999", "no-such-package-here>=1", "av>=999; extra == 'video'"]
    )
    [check] = found("packages")
    assert check.state == "broken"
    assert "pillow" in check.found
    assert "no-such-package-here is missing" in check.found
    assert "av" not in check.found.split()


def test_missing_extras_are_no_illness(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "find_spec", lambda name: None if name == "faiss" else object())
    checks = {check.name: check for check in found("extras")}
    assert checks["extra retrieval"].state == "note"
    assert "scumble[retrieval]" in checks["extra retrieval"].remedy
    assert checks["extra video"].state == "good"


def test_places_that_cannot_be_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SCUMBLE_CACHE", str(tmp_path / "file" / "below"))
    checks = {check.name: check for check in found("places")}
    assert checks["cache"].state == "broken"
    assert "SCUMBLE_CACHE" in checks["cache"].remedy
    assert checks["data"].state == "good"
    monkeypatch.setenv("SCUMBLE_CACHE", str(tmp_path / "new"))
    monkeypatch.setattr(doctor, "DISK", 2**60)
    checks = {check.name: check for check in found("places")}
    assert checks["cache"].state == "note"
    assert not (tmp_path / "new").exists()


def test_little_memory_and_many_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_free_memory", lambda: 2**20)
    assert found("memory")[0].state == "note"
    monkeypatch.setattr(doctor, "_free_memory", lambda: None)
    assert found("memory")[0].state == "note"
    monkeypatch.setattr("torch.get_num_threads", lambda: 4096)
    assert "OMP_NUM_THREADS" in found("threads")[0].remedy


def test_a_blank_picture_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    class Blank:
        image = Image.new("RGB", (8, 8), (3, 3, 3))

    monkeypatch.setattr("scumble.verbs.generate.generate", lambda *_, **__: [Blank()])
    [check] = found("drawing")
    assert (check.state, "blank" in check.found) == ("broken", True)
