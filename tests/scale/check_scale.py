"""What needs the extra `scale`: Ray Data, parquet that `datasets` reads, WebDataset's own reader.

Run by `make check-scale`; the name keeps it out of the ordinary run.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pytest
import webdataset
from PIL import Image

from data_engine import content, settings, write_edits
from scumble.core.events import finish
from scumble.verbs.data_config import config_for
from scumble.verbs.data_instructions import data_instructions_to
from tiny import shared
from tiny_clip import shared_clip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pairs as a folder, made in this process; beside it the finished shards."""
    return made(tmp_path_factory.mktemp("whole"), "pairs")


def made(place: Path, name: str, *, ray: bool = False, workers: int = 1, **changed: Any) -> Path:
    edits = place / "edits.jsonl"
    if not edits.exists():
        write_edits(edits, 6)
    config = config_for(None, None, **settings(shared("sd1"), shared_clip(), edits, **changed))
    return finish(data_instructions_to(config, place / name, workers=workers, ray=ray)).path


def test_ray_gives_the_same_bytes(whole: Path, tmp_path: Path) -> None:
    assert content(made(tmp_path, "pairs", ray=True, workers=2)) == content(whole)


def test_datasets_reads_the_parquet_files(whole: Path, tmp_path: Path) -> None:
    out = made(tmp_path, "parquet", form="parquet")
    files = sorted(map(str, out.glob("*.parquet")))
    assert len(files) == 1
    read = datasets.load_dataset(
        "parquet", data_files=files, split="train", cache_dir=str(tmp_path / "cache")
    )
    rows = [json.loads(line) for line in (whole / "metadata.jsonl").read_text().splitlines()]
    assert len(read) == len(rows) == 12
    for row, said in zip(read, rows, strict=True):
        for side in ("input", "edited"):
            assert list(row[side].convert("RGB").getdata()) == list(Image.open(whole / said[side]).getdata())
        rest = {name: value for name, value in said.items() if name not in ("input", "edited")}
        assert {name: row[name] for name in rest} == rest


def test_webdataset_reads_the_tars(whole: Path, tmp_path: Path) -> None:
    out = made(tmp_path, "tars", form="webdataset")
    files = sorted(map(str, out.glob("*.tar")))
    read = list(webdataset.WebDataset(files, shardshuffle=False).decode("pil"))
    rows = [json.loads(line) for line in (whole / "metadata.jsonl").read_text().splitlines()]
    assert len(read) == len(rows) == 12
    for sample, said in zip(read, rows, strict=True):
        assert sample["json"]["instruction"] == said["instruction"]
        assert list(sample["input.png"].getdata()) == list(Image.open(whole / said["input"]).getdata())
