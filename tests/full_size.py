"""Full-size models with random weights: how long each step takes and how much memory it needs at most.

    python tests/full_size.py sd1 FOLDER [--dtype float32] [--stored float16] [--steps 2] [--threads 2]

Makes a diffusers folder from the published config of `sd1`, `sd2` or `sdxl`, loads it, makes a picture at the
published size, saves a single file and loads that; each step in a process of its own, so that peaks do not
add up. Prints one line a step. The folder is left for inspection: SD 1.5 takes 4 GB in it in float16, SDXL 14
GB.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
import time
from pathlib import Path


def make(kind: str, folder: Path, options: argparse.Namespace) -> None:
    import torch

    from scumble.models.configs import random_model

    random_model(kind, "full", dtype=getattr(torch, options.stored)).save_folder(folder / "folder")


def generate(source: Path, options: argparse.Namespace) -> None:
    import torch

    from scumble.core import rng
    from scumble.diffusion import guidance
    from scumble.diffusion.samplers import ddim
    from scumble.diffusion.spacing import levels_for
    from scumble.models.load import load

    started = time.perf_counter()
    model = load(source, dtype=options.dtype)
    report(f"load {source.name} as {options.dtype}", started)
    started = time.perf_counter()
    side = model.default_size
    noise = rng.randn(model.latent_shape(side, side), rng.generators([0]))
    x = noise
    with torch.inference_mode():
        denoise = guidance.text(
            model.branches([model.empty(), model.prompt(["a red cat on the grass"])]), 7.5
        )
        report("encode prompts", started)
        for step in ddim(denoise, noise, levels_for(model.schedule, options.steps), noise=lambda: noise):
            started_step, started = started, time.perf_counter()
            x = step.x
            report(f"step {step.index + 1} of {step.total}, {side} px, two branches", started_step)
        pixels = model.decode(x)
    report("decode", started)
    if not pixels.isfinite().all() or pixels.shape != (1, 3, side, side):
        sys.exit("the picture is not finite")


def save(folder: Path, options: argparse.Namespace) -> None:
    from scumble.models.load import load

    model = load(folder / "folder", dtype=options.stored)
    model.save_single_file(folder / "single.safetensors")


def compare(folder: Path, options: argparse.Namespace) -> None:
    from scumble.models.load import load

    hashes = []
    for source in (folder / "folder", folder / "single.safetensors"):
        started = time.perf_counter()
        model = load(source, dtype=options.stored, prediction="eps")
        report(f"load {source.name} as stored", started)
        started = time.perf_counter()
        hashes.append(model.hash)
        report("hash", started)
    if hashes[0] != hashes[1]:
        sys.exit("folder and single file differ")


def report(what: str, started: float) -> None:
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{what:45} {seconds:8.1f} s   peak {peak:5.1f} GiB", flush=True)


def step(name: str, options: argparse.Namespace) -> None:
    import torch

    torch.set_num_threads(options.threads)
    started = time.perf_counter()
    folder = options.folder
    if name == "make":
        make(options.kind, folder, options)
    elif name == "generate":
        generate(folder / "folder", options)
    elif name == "save":
        save(folder, options)
    else:
        compare(folder, options)
    report(f"= {name}, imports included", started)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", choices=["sd1", "sd2", "sdxl"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--stored", default="float16")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", default="make,generate,save,compare", help="which of these, in which order")
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    for name in options.only.split(","):
        process = context.Process(target=step, args=(name, options))
        process.start()
        process.join()
        if process.exitcode:
            sys.exit(f"{name} failed")


if __name__ == "__main__":
    main()
