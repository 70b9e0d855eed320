"""A command that is interrupted, told to end or out of memory: a sentence, and what was finished is kept."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

import tiny
from cli import scumble
from scumble.core.errors import OutOfMemoryError
from scumble.models import load as loading
from scumble.models.model import Model
from scumble.models.safety import SafetyChecker
from scumble.verbs import generate

PATIENCE = 120
"""Seconds, for a machine that is busy."""


def stopped(number: int, arguments: list[str], when: Callable[[], bool]) -> tuple[int, str]:
    """Exit status and standard error of a command that got signal `number` as soon as `when` was true."""
    # Whoever starts the tests in the background of a shell has them ignore an interrupt, and what they start.
    heeded = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    code = f"{heeded}; from scumble.cli.main import main; main()"
    command = [sys.executable, "-c", code, *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        end = time.monotonic() + PATIENCE
        while not when():
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < end
            time.sleep(0.01)
        process.send_signal(number)
        _, said = process.communicate(timeout=PATIENCE)
    return process.returncode, said


def test_an_interrupted_run_keeps_its_pictures_and_says_how_to_go_on(tmp_path: Path) -> None:
    names = [f"--model={tiny.shared('sd1')}", "--seed=5", "--count=5", "--batch=1", "--steps=50"]
    place = tmp_path / "cats"
    status, said = stopped(
        signal.SIGINT, ["generate", "a cat", *names, "-o", str(place)], (place / "6.png").exists
    )
    kept = sorted(path.name for path in place.iterdir())
    assert status == 130
    assert "scumble: stopped; what was finished is kept." in said
    assert "Traceback" not in said
    assert kept[:2] == ["5.png", "6.png"]
    assert f"--seed {5 + len(kept)} --count {5 - len(kept)}" in said
    for name in kept:
        with Image.open(place / name) as picture:
            picture.load()


@pytest.mark.parametrize(
    ("count", "seen", "said"),
    [
        (1, 0, "0 of 1 pictures are written; --seed 5 -o cat.png draws it."),
        (3, 1, "1 of 3 pictures are written; --seed 6 --count 2 draws the others."),
        (3, 2, "2 of 3 pictures are written; --seed 7 -o cat-7.png draws the other."),
    ],
)
def test_an_interrupted_run_leaves_nothing_but_pictures(
    count: int, seen: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw, begun = generate.draw_batch, []

    def stopping(*given: Any) -> Any:
        begun.append(given)
        if len(begun) > seen:
            raise KeyboardInterrupt
        return (yield from draw(*given))

    monkeypatch.setattr(generate, "draw_batch", stopping)
    monkeypatch.chdir(tmp_path)
    names = [f"--model={tiny.shared('sd1')}", "--seed=5", f"--count={count}", "--batch=1", "--steps=1"]
    stopped = scumble("generate", "a cat", *names, "-o", "cat.png")
    assert stopped.status == 130
    assert said in stopped.err.splitlines()
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"cat-{5 + i}.png" for i in range(seen)]


def test_told_to_end_it_leaves_nothing_half_written(tmp_path: Path) -> None:
    asked = ["toybox", "render", "--count", "5000", "-o", str(tmp_path / "world")]
    status, said = stopped(signal.SIGTERM, asked, lambda: any(tmp_path.iterdir()))
    assert status == 143
    assert "Traceback" not in said
    assert not any(tmp_path.iterdir())


def test_pictures_are_written_before_the_last_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw, started = generate.draw_batch, []

    def failing(*given: Any) -> Any:
        started.append(given)
        if len(started) == 3:
            raise ValueError("a bug")
        return (yield from draw(*given))

    monkeypatch.setattr(generate, "draw_batch", failing)
    names = [f"--model={tiny.shared('sd1')}", "--seed=5", "--count=5", "--batch=2", "--steps=1"]
    with pytest.raises(ValueError, match="a bug"):
        scumble("generate", "a cat", *names, "-o", str(tmp_path / "cats"))
    assert sorted(path.name for path in (tmp_path / "cats").iterdir()) == [
        f"{seed}.png" for seed in range(5, 9)
    ]


ERRORS = {
    "cuda": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    "mps": RuntimeError("MPS backend out of memory (MPS allocated: 17.9 GB)"),
    "cpu": RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried ..."),
    "python": MemoryError(),
}


@pytest.mark.parametrize("kind", ERRORS)
def test_out_of_memory_while_loading_is_a_sentence(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise ERRORS[kind]

    monkeypatch.setattr(loading, "assemble", full)
    outcome = scumble("generate", "a cat", f"--model={tiny.shared('sd1')}", "-o", str(tmp_path / "cat.png"))
    assert outcome.status == 1
    assert "not enough memory for the model" in outcome.sentence
    assert "--low-memory" in outcome.sentence
    assert not any(tmp_path.iterdir())


def test_out_of_memory_anywhere_else_is_a_sentence_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise ERRORS["cuda"]

    monkeypatch.setattr(Model, "hash", property(full))
    outcome = scumble("generate", "a cat", f"--model={tiny.shared('sd1')}", "-o", str(tmp_path / "cat.png"))
    assert (outcome.status, "not enough memory" in outcome.sentence) == (1, True)


def test_out_of_memory_in_the_safety_checker_is_its_error() -> None:
    def full(*_: Any) -> Any:
        raise ERRORS["cuda"]

    network = SimpleNamespace(concept_embeds=torch.zeros(1), dtype=torch.float32)
    with pytest.raises(OutOfMemoryError, match="safety checker"):
        SafetyChecker(network, full).flagged(torch.zeros(1, 3, 8, 8))
