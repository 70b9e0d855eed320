"""The hub: only safe files are asked for, and every way it can fail is one sentence."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import filter_repo_objects

import tiny
from scumble.core.errors import ModelError
from scumble.models import hub
from scumble.models.hub import download, is_hub_id
from scumble.models.load import load

RESPONSE: Any = SimpleNamespace(headers={}, request=None)


def test_what_is_a_hub_id() -> None:
    ids = ["owner/model", "stable-diffusion-v1-5/stable-diffusion-v1-5", "a/b.c-d_e"]
    others = ["model", "a/b/c", "../model", "/model", "a/", "~/model", "a/..", "a b/c", "https://x/y", "./a"]
    others += ["foo/bar.git", "a/b--c", "models/sd15.", "a/b..c", "a/" + "b" * 100]
    assert all(map(is_hub_id, ids))
    assert not any(map(is_hub_id, others))


def test_a_hub_model_is_a_folder_once_it_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def snapshot(name: str, **options: Any) -> str:
        asked.update(name=name, **options)
        return str(tiny.shared("sd1"))

    monkeypatch.setattr(hub, "snapshot_download", snapshot)
    model = load("owner/model", revision="main", offline=True)
    assert model.name == "owner/model"
    assert asked["name"] == "owner/model"
    assert (asked["revision"], asked["local_files_only"]) == ("main", True)
    patterns = asked["allow_patterns"]
    assert "unet/*.safetensors" in patterns
    assert "model_index.json" in patterns
    assert "feature_extractor/*.json" in patterns
    assert not [p for p in patterns if not p.endswith((".json", ".safetensors", ".txt"))]
    assert "*.safetensors" not in patterns


@pytest.mark.parametrize("family", ["sd1", "sdxl", "upscaler", "ddpm", "ve"])
def test_what_is_fetched_of_a_family_is_all_that_it_needs(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for the hub gives the files that are asked for, and no other."""
    whole = tiny.shared(family)

    def snapshot(_: str, *, allow_patterns: list[str], ignore_patterns: list[str], **__: Any) -> str:
        files = [str(path.relative_to(whole)) for path in whole.rglob("*") if path.is_file()]
        for file in filter_repo_objects(
            files, allow_patterns=allow_patterns, ignore_patterns=ignore_patterns
        ):
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / file).symlink_to(whole / file)
        return str(tmp_path)

    monkeypatch.setattr(hub, "snapshot_download", snapshot)
    assert load("owner/model").family == load(whole).family


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (GatedRepoError("no", response=RESPONSE), "accept its licence"),
        (RevisionNotFoundError("no", response=RESPONSE), "no revision 'x'"),
        (RepositoryNotFoundError("no", response=RESPONSE), "no model owner/model"),
        (LocalEntryNotFoundError("no"), "the hub cannot be reached"),
        (OfflineModeIsEnabled("no"), "the hub cannot be reached"),
        (HfHubHTTPError.__bases__[0]("connection reset"), "connection reset"),
        (HfHubHTTPError("500 server error\nmore", response=RESPONSE), "500 server error"),
        (OSError("disk gone"), "disk gone"),
    ],
)
def test_failures_are_one_sentence(monkeypatch: pytest.MonkeyPatch, error: Exception, said: str) -> None:
    def snapshot(name: str, **options: Any) -> Path:
        raise error

    monkeypatch.setattr(hub, "snapshot_download", snapshot)
    with pytest.raises(ModelError, match=said) as caught:
        download("owner/model", revision="x")
    assert "\n" not in str(caught.value)
    assert caught.value.remedy


def test_offline_without_the_model_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match="not on this machine and the hub was not asked"):
        load("scumble-tests/no-such-model", offline=True)
