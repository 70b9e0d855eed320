"""The shards of `shards`, done by Ray Data on as many machines as its cluster has (extra `scale`).

Every machine has to see the folder that shards are committed to, as on a shared disk. Names, seeds and bytes
are those of one process, so a run may begin on a laptop and go on in a cluster.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from scumble.core.errors import MissingExtraError
from scumble.core.events import Loop, Progress, finish
from scumble.datagen.shards import Counts, Prepare, Shard, Work, commit, counted

__all__ = ["run_on_ray"]


class _Worker:
    """An actor of Ray Data: makes its work once, and does a shard a call."""

    def __init__(self, prepare: Prepare, shards: Sequence[Shard], folder: str) -> None:
        torch.set_num_threads(1)
        self.work: Work = prepare(0)  # Ray shows each actor its own accelerator as the first
        self.shards, self.folder = shards, Path(folder)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        shard = self.shards[int(row["id"])]
        finish(commit(shard, self.folder, self.work))
        return {"weight": shard.weight}


def run_on_ray(
    shards: Sequence[Shard], folder: Path, prepare: Prepare, *, workers: int, gpus: bool = False
) -> Loop[Counts]:
    """Do those shards that are not in `folder` yet with `workers` actors, each with a processor and, with
    `gpus`, a GPU; the counts of all. Joins the cluster that Ray is told of, and starts one of its own
    otherwise. Raises MissingExtraError.
    """
    try:
        ray, data = import_module("ray"), import_module("ray.data")
    except ImportError:
        raise MissingExtraError("--ray needs Ray.", "Install it: pip install 'scumble[scale]'.") from None
    folder.mkdir(parents=True, exist_ok=True)
    left = [i for i, shard in enumerate(shards) if not (folder / shard.name).is_dir()]
    total = sum(shard.weight for shard in shards)
    done = total - sum(shards[i].weight for i in left)
    if left:
        if not ray.is_initialized():
            ray.init(include_dashboard=False, log_to_driver=False)
        rows = data.from_items([{"id": i} for i in left], override_num_blocks=len(left)).map(
            _Worker,
            fn_constructor_args=(prepare, list(shards), str(folder.resolve())),
            concurrency=min(workers, len(left)),
            num_gpus=1 if gpus else None,
        )
        for row in rows.iter_rows():
            done += int(row["weight"])
            yield Progress(stage="drawing", step=done, total=total)
    return counted(shards, folder)
