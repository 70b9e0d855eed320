"""However often it is killed and however many work on it: the same bytes."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from multiprocessing import Pipe
from pathlib import Path
from threading import Thread

import pytest

from data_engine import KILLED, content, settings, write_edits
from scumble.core.errors import DiskFullError, ScumbleError
from scumble.core.events import finish
from scumble.datagen.shards import Prepare, Shard, _serve, _take_report, cut, run_shards
from scumble.verbs.data_config import config_for
from scumble.verbs.data_instructions import data_instructions_to
from shard_work import Broken, Died, Full, Written
from tiny import shared
from tiny_clip import shared_clip

TESTS = Path(__file__).parents[1]


def test_killed_at_random_and_ended_by_two_workers_gives_what_one_gives(tmp_path: Path) -> None:
    edits = write_edits(tmp_path / "edits.jsonl", 12)
    given = settings(shared("sd1"), shared_clip(), edits)
    chance = random.Random(7)
    # 6 shards of 4 samples in 2 batches: a record a batch; with 8 pictures each
    events = sorted(chance.sample(range(1, 9), 3))
    pictures = [str(chance.randint(1, 16))]
    killed = tmp_path / "killed"
    command = [sys.executable, str(TESTS / "data_engine.py"), json.dumps(given), str(killed)]
    done = subprocess.run(
        [*command, *map(str, events), "--", *pictures],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": str(TESTS)},
    )
    ends = [tuple(map(int, line.split())) for line in done.stdout.splitlines()]
    assert [status for status, _ in ends] == [KILLED] * 4
    finished = [shards for _, shards in ends]
    assert finished == sorted(finished), "what is finished stays"
    assert 0 < finished[-1] < 6
    left = [p for p in (tmp_path / "killed.run" / "shards").iterdir() if p.name.startswith(".")]
    assert left, "a kill leaves a part, under another name"

    config = config_for(None, None, **given)
    made = finish(data_instructions_to(config, killed, workers=2))
    whole = tmp_path / "whole"
    assert finish(data_instructions_to(config, whole)).pairs == made.pairs == 24
    assert content(whole) == content(killed)
    assert len(content(whole)) == 24 * 2 + 2
    rows = [json.loads(line) for line in (whole / "metadata.jsonl").read_text().splitlines()]
    assert len({row["seed"] for row in rows}) == 24
    assert made.summary["pictures"][0] == {"stage": "drawn", "left": 24, "share": 1.0}


# The same with work that takes no time


def shards(count: int = 5) -> list[Shard]:
    return cut(list(range(count)), 1, key=int, settings={"test": 1})


def test_names_depend_on_content_and_settings_alone() -> None:
    first = cut([1, 2, 3, 4, 5], 2, key=int, settings={"a": 1, "b": 2}, weight=7)
    assert [s.items for s in first] == [(1, 2), (3, 4), (5,)]
    assert [s.weight for s in first] == [14, 14, 7]
    assert first == cut([1, 2, 3, 4, 5], 2, key=int, settings={"b": 2, "a": 1}, weight=7)
    names = {s.name for s in first}
    longer = cut([1, 2, 3, 4, 5, 6], 2, key=int, settings={"a": 1, "b": 2})
    assert [s.name in names for s in longer] == [True, True, False], "whole shards are used again"
    other = cut([1, 2, 3, 4, 5], 2, key=int, settings={"a": 1, "b": 3})
    assert not names & {s.name for s in other}


def test_a_finished_shard_is_not_done_again(tmp_path: Path) -> None:
    assert finish(run_shards(shards(), tmp_path, Written()))["done"] == 5
    assert finish(run_shards(shards(), tmp_path, Broken()))["done"] == 5
    loop = run_shards(shards(7), tmp_path, Written())
    assert (next(loop).step, next(loop).step) == (5, 6)


def test_closing_the_loop_keeps_what_is_committed_and_nothing_else(tmp_path: Path) -> None:
    loop = run_shards(shards(), tmp_path, Written())
    while next(loop).step < 2:  # the second is written, and not yet committed
        pass
    loop.close()
    assert len(list(tmp_path.iterdir())) == 1
    assert finish(run_shards(shards(), tmp_path, Written()))["done"] == 5


def test_a_full_disk_is_said_and_leaves_no_part(tmp_path: Path) -> None:
    with pytest.raises(DiskFullError, match="disk is full"):
        finish(run_shards(shards(), tmp_path, Full()))
    assert list(tmp_path.iterdir()) == []


def test_what_goes_wrong_in_a_worker_is_told_here(tmp_path: Path) -> None:
    def told(prepare: Prepare) -> None:
        """What a worker would report, without the process."""
        ours, theirs = Pipe()
        ours.send(shards(1)[0])
        served = Thread(target=_serve, args=(theirs, 0, prepare, tmp_path / "served"))
        served.start()
        try:
            _take_report(ours)
        finally:
            ours.close()  # which ends the worker
            served.join(60)
            assert not served.is_alive()

    with pytest.raises(DiskFullError, match="disk is full") as problem:
        told(Full())
    assert problem.value.remedy
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        told(Broken())
    told(Written())
    with pytest.raises(ScumbleError, match="A worker was killed"):
        finish(run_shards(shards(1), tmp_path / "died", Died(), workers=2))
