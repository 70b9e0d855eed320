"""The data engine at size: 100 edits of 4 samples each, killed five times at places of chance, then finished
by two workers, and again by one that nobody kills: the same bytes.

Run by `make check-engine`, on tiny random models; `MODEL=toybox STEPS=25 make check-engine` takes the toybox.
The name keeps it out of the ordinary run, which does the same with 12 edits.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from data_engine import content, settings
from scumble.core.events import finish
from scumble.verbs.data_config import config_for
from scumble.verbs.data_instructions import data_instructions_to
from tiny import shared
from tiny_clip import shared_clip

EDITS, SAMPLES, KILLS = 100, 4, 5
SHARDS = EDITS // 2


def test_five_kills_and_another_number_of_workers_leave_no_trace(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    given = _given()
    start = time.monotonic()
    made = finish(data_instructions_to(config_for(None, None, **given), whole))
    seconds = time.monotonic() - start
    chance = random.Random(time.time_ns())
    marks = sorted(chance.sample(range(1, SHARDS - 1), KILLS))
    file = tmp_path / "settings.toml"
    file.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in given.items()))
    command = [str(Path(sys.executable).with_name("scumble")), "data", "instructions", "--config", str(file)]
    deaths = 0
    for number, mark in enumerate(marks):
        run = [*command, "-o", str(killed), "--workers", str(1 + number % 2)]
        deaths += _killed(run, killed.with_name("killed.run") / "shards", mark, chance.random())
    assert deaths == KILLS
    again = finish(data_instructions_to(config_for(None, None, **given), killed, workers=2))
    assert content(killed) == content(whole)
    assert again.summary == made.summary
    print(json.dumps({"pairs": made.pairs, "killed at shards": marks, "seconds of one": round(seconds)}))
    print(json.dumps(made.summary["pictures"]))


def _given() -> dict[str, object]:
    """Everything that is kept on tiny models; on the toybox with its own thresholds."""
    model, few = os.environ.get("MODEL"), {"count": EDITS, "samples": SAMPLES, "shard": 2}
    if model:
        return {"model": model, **few, "steps": int(os.environ.get("STEPS", "25"))}
    tiny = settings(shared("sd1"), shared_clip(), Path("unused"), batch=4)
    del tiny["triples"]
    return {**tiny, **few, "profile": "photo", "guidance": list(tiny["guidance"])}


def _killed(command: list[str], shards: Path, mark: int, wait: float) -> bool:
    """Run it, and kill it and its workers when `mark` shards are there, a moment later; whether it was."""
    process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)
    while process.poll() is None:
        if shards.is_dir() and sum(not p.name.startswith(".") for p in shards.iterdir()) >= mark:
            time.sleep(0.2 * wait)
            os.killpg(process.pid, signal.SIGKILL)
            break
        time.sleep(0.005)
    return process.wait() == -signal.SIGKILL
