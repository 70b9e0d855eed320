"""`scumble data instructions`: from the command to a folder of pairs, and what it says where it cannot."""

from __future__ import annotations

import errno
import json
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w
from PIL import Image

from cli import Outcome, scumble
from data_engine import content, settings, write_edits
from scumble.core.errors import ConfigError, MissingExtraError
from scumble.core.events import finish
from scumble.data.pairs import pictures, read_pairs
from scumble.datagen.drawn_pairs import PRESETS, PairConfig
from scumble.datagen.pair_files import require
from scumble.datagen.ray_shards import run_on_ray
from scumble.datagen.shards import Shard
from scumble.history.embed import read_recipe
from scumble.verbs.data_config import InstructionsConfig, config_for
from scumble.verbs.data_edits import gather_edits
from scumble.verbs.data_instructions import plan
from shard_work import Written
from tiny import shared
from tiny_clip import shared_clip


def run(place: Path, name: str, *options: str, **changed: Any) -> Outcome:
    """`scumble data instructions` on tiny models, with 4 edits."""
    edits = place / "edits.jsonl"
    if not edits.exists():
        write_edits(edits, 4)
    given = settings(shared("sd1"), shared_clip(), edits, **changed)
    (place / "settings.toml").write_text(tomli_w.dumps(given))
    where = ("--config", str(place / "settings.toml"), "-o", str(place / name), "--device", "cpu")
    return scumble("data", "instructions", *where, *options)


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All pairs drawn, none filtered."""
    place = tmp_path_factory.mktemp("all")
    assert run(place, "pairs").status == 0
    return place / "pairs"


def test_the_best_that_pass_are_kept_and_the_rest_is_counted(everything: Path, tmp_path: Path) -> None:
    found = rows(everything)
    assert len(found) == 8
    middle = sorted(row["clip_direction"] for row in found)[3]
    said = run(tmp_path, "some", "--keep", "1", "--json", min_direction=middle)
    assert said.status == 0, said.err
    passing = [row for row in found if row["clip_direction"] >= middle]
    edits = list(dict.fromkeys(row["instruction"] for row in passing))
    best = [
        max((r for r in passing if r["instruction"] == e), key=lambda r: r["clip_direction"]) for e in edits
    ]
    assert rows(tmp_path / "some") == best
    stages = {row["stage"]: row["left"] for row in said.json["pictures"]}
    assert stages["drawn"] == stages["passed text"] == 8
    assert stages["passed direction"] == len(passing) == 5
    assert stages["kept"] == len(best) == said.json["pairs"] == said.json["edits_with_pairs"]
    assert json.loads((tmp_path / "some" / "summary.json").read_text())["pictures"] == said.json["pictures"]


def test_the_folder_is_one_that_training_reads(everything: Path) -> None:
    pairs = read_pairs(everything)
    assert len(pairs) == 8
    before, after = pictures(pairs[0])
    assert before.size == after.size == (64, 64)
    assert {"seed", "share", "guidance", "clip_image", "kind"} <= pairs[0].more.keys()
    assert len({row["share"] for row in rows(everything)}) == 8
    assert all(2 <= row["guidance"] <= 6 for row in rows(everything))
    assert b"trainedAlgorithmicMedia" in pairs[0].input.read_bytes()
    with pytest.raises(Exception, match="no scumble recipe"):
        read_recipe(pairs[0].input)


def test_a_full_disk_is_said_and_the_same_command_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("scumble.datagen.drawn_pairs.save_image", full)
        refused = run(tmp_path, "pairs", "--count", "1")
    assert refused.status == 1
    assert "disk is full" in refused.sentence
    assert not (tmp_path / "pairs").exists()
    assert list((tmp_path / "pairs.run" / "shards").iterdir()) == []
    said = run(tmp_path, "pairs", "--count", "1")
    assert [line.split() for line in said.out.splitlines()[:3]] == [
        ["1", "100.0%", "taken"],
        ["2", "100.0%", "drawn"],
        ["2", "100.0%", "not", "broken"],
    ]
    assert "2 pairs in" in said.out


def test_tars_hold_the_same(everything: Path, tmp_path: Path) -> None:
    assert run(tmp_path, "tars", "--form", "webdataset").status == 0
    assert sorted(p.name for p in (tmp_path / "tars").iterdir()) == ["pairs-000000.tar", "summary.json"]
    with tarfile.open(tmp_path / "tars" / "pairs-000000.tar") as tar:
        members = tar.getmembers()
        files = {m.name: tar.extractfile(m).read() for m in members}  # type: ignore[union-attr]
    assert {(m.mtime, m.uid, m.gid, m.uname) for m in members} == {(0, 0, 0, "")}
    assert [m.name.split(".", 1)[1] for m in members[:3]] == ["input.png", "edited.png", "json"]
    assert len(files) == 8 * 3
    for row in rows(everything):
        key = row["input"].removesuffix("-input.png")
        assert files[f"{key}.edited.png"] == (everything / row["edited"]).read_bytes()
        assert json.loads(files[f"{key}.json"])["instruction"] == row["instruction"]


def test_exact_pairs_differ_only_where_the_mask_is_white(tmp_path: Path) -> None:
    out = tmp_path / "exact"
    command = ("data", "instructions", "--source", "exact", "--count", "3", "--size", "32")
    said = scumble(*command, "-o", str(out), "--json")
    assert said.status == 0, said.err
    assert [row["stage"] for row in said.json["pictures"]] == ["rendered", "not unchanged", "kept"]
    found = rows(out)
    assert len(found) == said.json["pairs"] == len(read_pairs(out)) >= 2
    for row in found:
        before, after, mask = (np.asarray(Image.open(out / row[k])) for k in ("input", "edited", "mask"))
        assert before.shape == after.shape == mask.shape == (32, 32, 3)
        assert set(np.unique(mask)) <= {0, 255}
        differs = np.abs(before.astype(int) - after).max(2) > 1
        assert differs.any()
        assert not (differs & (mask[..., 0] == 0)).any()
    again = tmp_path / "again"
    assert scumble(*command, "-o", str(again)).status == 0
    assert content(again) == content(out)


def test_dry_run_makes_nothing(tmp_path: Path) -> None:
    said = run(tmp_path, "pairs", "--dry-run", "--json")
    assert said.status == 0, said.err
    assert said.json["seconds"] > 0
    assert said.json["memory_bytes"] > 1e5
    assert sorted(p.name for p in tmp_path.iterdir()) == ["edits.jsonl", "settings.toml"]
    exact = scumble("data", "instructions", "--source", "exact", "--size", "32", "-o", str(tmp_path / "x"),
                    "--dry-run", "--json")  # fmt: skip
    assert exact.json["seconds"] > 0


def test_only_the_words(tmp_path: Path) -> None:
    out = tmp_path / "edits.jsonl"
    said = scumble("data", "instructions", "--count", "5", "--text-only", "-o", str(out), "--json")
    assert said.status == 0, said.err
    assert said.json["pairs"] == len(out.read_text().splitlines()) == 5
    assert said.json["text"]["kept"] == 5


def test_bad_input_is_one_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").write_text("mine")
    (tmp_path / "broken.jsonl").write_text("{}\nnothing\n")
    cases: list[tuple[Outcome, str]] = [
        (run(tmp_path, "there"), "there exists already"),
        (run(tmp_path, "a", "--source", "address"), "needs address"),
        (run(tmp_path, "b", "--text-only"), "does not end in .jsonl"),
        (run(tmp_path, "c", "--preset", "best"), "no preset 'best'"),
        (run(tmp_path, "d", "--guidance", "6", "2"), "guidance cannot go from 6.0 to 2.0"),
        (run(tmp_path, "e", "--triples", str(tmp_path / "broken.jsonl")), "holds no usable triple: 2 lines"),
        (run(tmp_path, "f", "--clip", str(tmp_path / "no")), "no CLIP model"),
        (run(tmp_path, "g", min_direction=0.999), "Not one of 8 pairs was kept; dropped were 0 for broken"),
        (run(tmp_path, "h", "--form", "zip"), "form cannot be 'zip'"),
    ]
    for outcome, sentence in cases:
        assert outcome.status == 2, outcome
        assert sentence in outcome.sentence
    assert not [p for p in tmp_path.iterdir() if p.name in "abcdefgh"]


def test_missing_extras_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("pyarrow", "pyarrow.parquet", "ray", "ray.data"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=r"pip install 'scumble\[scale\]'"):
        require("parquet")
    with pytest.raises(MissingExtraError, match="--ray needs Ray"):
        finish(run_on_ray([Shard("a", (1,))], tmp_path, Written(), workers=1))
    require("folder")


def test_presets_fit_the_model(tmp_path: Path) -> None:
    assert config_for(None, None).samples == PRESETS["toybox"]["samples"]
    assert config_for(None, None, model="other").guidance == PairConfig().guidance == (7.5, 15.0)
    assert config_for("paper", None).steps == 100
    assert config_for("paper", None, steps=7).steps == 7
    assert config_for(None, None, triples=Path("x")).by == "file"
    assert config_for(None, None, address="http://x").by == "address"
    with pytest.raises(ConfigError, match="Exact pairs are pictures"):
        config_for(None, None, source="exact", text_only=True)


CHANGES: dict[str, Any] = {
    "samples": 3, "keep": 1, "steps": 3, "sampler": "ddim", "spacing": "karras", "guidance": (1.0, 2.0),
    "share": (0.0, 0.1), "cross_share": (0.0, 0.1), "size": 32, "batch": 2, "seed": 5, "min_image": 0.0,
    "min_text": 0.0, "min_direction": 0.0,
}  # fmt: skip


def test_every_setting_of_the_pictures_makes_other_shards(tmp_path: Path) -> None:
    """A shard done under one setting is never taken for one of another."""
    assert CHANGES.keys() == PairConfig.model_fields.keys()
    edits = write_edits(tmp_path / "edits.jsonl", 2)
    config = InstructionsConfig.of(settings(shared("sd1"), shared_clip(), edits))
    triples, _ = finish(gather_edits(config, tmp_path))
    more = {"model": str(shared("sd2")), "clip": str(shared_clip(3)), "dtype": "bfloat16", "shard": 1}
    names = {""}
    for field, value in {"device": config.device, **CHANGES, **more}.items():
        shards, _ = plan(config.replace(**{field: value}), triples)
        assert shards[0].name not in names, field
        names.add(shards[0].name)
    assert plan(config.replace(form="webdataset"), triples)[0][0].name in names, "the form is no part of it"


def test_an_index_says_what_is_not_in_it(tmp_path: Path) -> None:
    folder, out = tmp_path / "reg", tmp_path / "reg.safetensors"
    folder.mkdir()
    for i in range(4):
        Image.new("RGB", (64, 64), (60 * i, 0, 0)).save(folder / f"{i}.png")
    (folder / "0.txt").write_text("a dog")
    (folder / "1.txt").write_bytes("a café".encode("cp1252"))
    command = ("data", "regularization", str(folder), "--clip", str(shared_clip()), "-o", str(out))
    done = scumble(*command, "--json")
    assert done.json == {"path": str(out), "count": 1, "without_caption": 3}
    assert "Passed over: 1.txt (neither UTF-8 nor UTF-16)." in done.err
    assert "3 pictures have no caption and cannot be found by the index." in done.err
    assert scumble(*command, "--overwrite").out == f"1 caption in {out}\n"
    for i in (1, 2, 3):
        (folder / f"{i}.png").unlink()
    (folder / "1.txt").unlink()
    assert "no caption" not in scumble(*command, "--overwrite").err
    missing = scumble("data", "regularization", str(tmp_path / "nosuch"), *command[3:], "--overwrite")
    assert missing.sentence == f"There is no folder {tmp_path / 'nosuch'}. Give one with captioned pictures."
