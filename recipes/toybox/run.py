"""Train the toybox, stage by stage: `python -m recipes.toybox.run --stage all --scale gpu --out DIR`.

Every stage reads what earlier ones left in DIR, can be stopped at any time and taken up again, and leaves
its weights in half precision in DIR, which in the end is a folder that diffusers loads. `--start` begins
from landed weights instead of from chance.
"""

from __future__ import annotations

import argparse
import importlib
import math
import os
import sys
import time
from pathlib import Path

import torch

from recipes.toybox.loop import Run
from recipes.toybox.scales import SCALES
from scumble.core.errors import ScumbleError

STAGES = (
    "tokenizer", "render", "features", "autoencoder", "clip", "latents", "denoiser", "judge", "upscaler",
    "edits", "instruct", "pack", "evaluate",
)  # fmt: skip
"""In the order in which each finds what it needs."""
EXTRA = ("landed", "decoder")
"""Not among them: the first puts the parts that ship into a new DIR, to go on from there; the second trains
the autoencoder's decoder further, at any time after `latents`.
"""


def main(arguments: list[str] | None = None) -> int:
    """Run one stage or all of them; the exit status."""
    given = _parser().parse_args(arguments)
    device = "cuda" if given.scale == "gpu" else "cpu"
    scale = SCALES[given.scale]
    run = Run(
        out=given.out, scale=scale, seed=given.seed, minutes=given.minutes, steps=given.steps,
        start=given.start, pictures=given.pictures, device=device, threads=given.threads,
        compile=given.compile,
    )  # fmt: skip
    torch.set_num_threads(given.threads)
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    try:
        for name in STAGES if given.stage == "all" else (given.stage,):
            _timed(name, run)
    except ScumbleError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    return 0


def _timed(name: str, run: Run) -> None:
    start = time.monotonic()
    importlib.import_module(f"recipes.toybox.{'pictures' if name == 'render' else name}").stage(run)
    print(f"stage {name}: {(time.monotonic() - start) / 60.0:.1f} min", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="recipes.toybox.run", description="Train the toybox, stage by stage."
    )
    parser.add_argument("--stage", choices=[*STAGES, *EXTRA, "all"], required=True)
    parser.add_argument("--scale", choices=list(SCALES), default="cpu")
    parser.add_argument("--out", type=Path, default=Path("out/toybox"))
    parser.add_argument(
        "--minutes", type=float, default=math.inf, help="stop, with a checkpoint, after this long"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, help="instead of the scale's number of training steps")
    parser.add_argument("--start", type=Path, help="a folder of landed weights to begin from")
    parser.add_argument("--pictures", type=int, help="use at most this many pictures")
    parser.add_argument(
        "--compile",
        action="store_true",
        help="compile networks first: minutes on a CPU, then a third faster",
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of a CPU run")
    return parser


if __name__ == "__main__":
    sys.exit(main())
