"""A small run of the data engine on tiny random models, and one that is killed on the way, for its tests."""

from __future__ import annotations

import json
import os
import signal
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

__all__ = ["KILLED", "content", "main", "settings", "write_edits"]

KILLED = -signal.SIGKILL
WORDS = ("cat", "dog", "ball", "cube", "hat", "mug")


def write_edits(path: Path, count: int = 12) -> Path:
    """A file of `count` edits."""
    colours = ("red", "blue", "green")
    rows = [
        {
            "input_caption": f"a {colours[i % 2]} {WORDS[i // 2]} on the grass",
            "instruction": f"make the {WORDS[i // 2]} {colours[i % 2 + 1]}",
            "edited_caption": f"a {colours[i % 2 + 1]} {WORDS[i // 2]} on the grass",
        }
        for i in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def settings(model: Path, clip: Path, edits: Path, **changed: Any) -> dict[str, Any]:
    """Settings under which everything is quick and nothing is filtered out."""
    given: dict[str, Any] = {
        "triples": str(edits),
        "model": str(model),
        "clip": str(clip),
        "samples": 2,
        "steps": 2,
        "spacing": "trailing",
        "guidance": (2.0, 6.0),
        "min_image": -1.0,
        "min_text": -1.0,
        "min_direction": -1.0,
        "batch": 3,
        "shard": 2,
    }
    return given | changed


def content(folder: Path) -> dict[str, str]:
    """The SHA-256 of every file in a folder, by name."""
    return {
        str(path.relative_to(folder)): sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def main() -> None:
    """`python data_engine.py SETTINGS OUT EVENT... -- PICTURE...`: run again and again in a child, which
    kills itself with SIGKILL at its EVENT-th record of progress, or with half of its PICTURE-th picture
    written. Prints the child's status and the number of finished shards after each.
    """
    import torch

    import scumble.datagen.drawn_pairs as drawing
    from scumble.verbs.data_config import config_for
    from scumble.verbs.data_instructions import data_instructions_to

    torch.set_num_threads(1)
    given, out, *moments = sys.argv[1:]
    config = config_for(None, None, **json.loads(given))
    split = moments.index("--")
    kills = [(int(m), 0) for m in moments[:split]] + [(0, int(m)) for m in moments[split + 1 :]]

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    for event, picture in kills:
        child = os.fork()
        if child == 0:
            saved = 0
            save = drawing.save_image

            def half(image: Any, path: Path, _save: Any = save, _last: int = picture, **options: Any) -> None:
                nonlocal saved
                _save(image, path, **options)
                saved += 1
                if saved == _last:
                    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
                    die()

            drawing.save_image = half  # type: ignore[assignment]
            for number, _ in enumerate(data_instructions_to(config, Path(out)), 1):
                if number == event:
                    die()
            os._exit(0)
        _, status = os.waitpid(child, 0)
        shards = Path(out + ".run") / "shards"
        finished = [p.name for p in shards.glob("*") if not p.name.startswith(".")] if shards.exists() else []
        print(os.waitstatus_to_exitcode(status), len(finished), flush=True)


if __name__ == "__main__":
    main()
