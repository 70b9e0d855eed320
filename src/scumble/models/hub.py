"""Models from the Hugging Face hub, safe files only, and one sentence when it cannot be reached."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import validate_repo_id

from scumble.core.errors import ModelError

__all__ = ["download", "is_hub_id"]

_NETWORK_ERRORS: tuple[type[Exception], ...] = (
    HfHubHTTPError.__bases__
)  # the HTTP client's own error, whichever client it is, and OSError
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_FOLDERS = (
    "unet",
    "vae",
    "text_encoder",
    "text_encoder_2",
    "tokenizer",
    "tokenizer_2",
    "scheduler",
    "low_res_scheduler",
    "safety_checker",
    "feature_extractor",
)
_FILES = ("*.json", "*.safetensors", "*.txt")


def is_hub_id(name: str) -> bool:
    """Whether `name` has the form `owner/model` of a hub id; a path that exists is looked at first."""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return _HUB_ID.fullmatch(name) is not None


def download(
    name: str, *, revision: str | None = None, offline: bool = False, patterns: Sequence[str] = ()
) -> Path:
    """The local folder of a hub model, downloaded into the Hugging Face cache unless it is there.

    Only configs, vocabularies and `.safetensors` files of the parts that are used are fetched (or
    `patterns`): no pickle, no code. Single-file checkpoints in the same repository are left out. Raises
    ModelError when the model cannot be had.
    """
    parts = [f"{folder}/{pattern}" for folder in _FOLDERS for pattern in _FILES]
    parts += [
        "model_index.json",
        "config.json",
        "scheduler_config.json",
        "diffusion_pytorch_model.safetensors",
    ]
    try:
        folder = snapshot_download(
            name,
            revision=revision,
            local_files_only=offline,
            allow_patterns=list(patterns) or parts,
            ignore_patterns=["*.fp16.safetensors", "*.non_ema.safetensors"],
        )
    except GatedRepoError as problem:
        raise ModelError(
            f"The model {name} asks you to accept its licence first.",
            f"Accept it at https://huggingface.co/{name} and log in with `hf auth login`.",
        ) from problem
    except RevisionNotFoundError as problem:
        raise ModelError(
            f"The model {name} has no revision {revision!r}.", "Leave the revision out to get the newest."
        ) from problem
    except RepositoryNotFoundError as problem:
        raise ModelError(
            f"The hub has no model {name}, or it is private.",
            "Check the spelling; log in with `hf auth login`.",
        ) from problem
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as problem:
        asked = "was not asked" if offline else "cannot be reached"
        raise ModelError(
            f"The model {name} is not on this machine and the hub {asked}.",
            "Download it once while online, or give the path of a folder or .safetensors file.",
        ) from problem
    except _NETWORK_ERRORS as problem:
        first = str(problem).strip().splitlines()[0]
        raise ModelError(
            f"The model {name} cannot be downloaded: {first}.", "Check the network, or give a path."
        ) from problem
    return Path(folder)
