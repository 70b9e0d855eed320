"""One side of a race of learning, in a process of its own: `python -m scumble.bench.timed FILE A:B KIND ...`.

FILE gets the time of every optimiser step, by the clock and of the processor, and the most memory that was
held: the process's, or on a GPU what was allocated there, and which of the two. KIND is `script` (a script's
path and its arguments), `learn` or `train` (a method of ours and its settings, as JSON) or `floor` (the same,
of which only the forward and backward passes are run). Steps are seen through torch's own hook of optimisers,
so every side is timed alike.

A GPU works behind what it is told. So it is waited for after the steps A and B, counted from 0, and no side
is made to wait in between: only the time from A to B is one of its work.
"""

from __future__ import annotations

import importlib.util
import json
import random
import resource
import runpy
import sys
import time
from collections.abc import Callable, Collection, Sequence
from enum import Enum
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook

__all__ = ["FLOORS", "main", "stand_in"]

FLOORS = ("textual-inversion", "dreambooth", "dreambooth-low-rank", "custom-diffusion", "instruct-pix2pix")
TIMES: list[float] = []
SPENT: list[float] = []
"""Of the processor, all threads of the process together."""


def main(arguments: Sequence[str]) -> None:
    """Run one side and write what it took, also where it fails."""
    place, window, kind, *rest = arguments
    ends = {int(step) for step in window.split(":")}
    register_optimizer_step_post_hook(lambda *_: _note(ends))
    run: dict[str, Callable[[list[str]], None]] = {
        "script": _script,
        "learn": _learn,
        "train": _train,
    }
    try:
        if kind == "floor":
            _floor(rest, ends)
        else:
            run[kind](rest)
    finally:
        device, peak = _peak()
        found = {"times": TIMES, "cpu_times": SPENT, "device": device, "peak_bytes": peak}
        Path(place).write_text(json.dumps(found))


def _on_gpu() -> bool:
    """Whether this process has computed on a GPU."""
    return torch.cuda.is_initialized() and torch.cuda.max_memory_allocated() > 0


def _peak() -> tuple[str, int]:
    """Where the most memory was held that counts, and how much."""
    if _on_gpu():
        return "cuda", torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024
    return "cpu", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _note(ends: Collection[int]) -> None:
    """One more step; at the ends of what is timed, once it is done."""
    if len(TIMES) in ends and _on_gpu():
        torch.cuda.synchronize()
    TIMES.append(time.perf_counter())
    SPENT.append(time.process_time())


def _script(rest: list[str]) -> None:
    import diffusers
    import transformers

    transformers.logging.set_verbosity_error()
    diffusers.utils.logging.set_verbosity_error()
    if importlib.util.find_spec("torchvision") is None:
        stand_in()
    sys.argv = rest
    runpy.run_path(rest[0], run_name="__main__")


def _learn(rest: list[str]) -> None:
    from scumble.core.events import finish
    from scumble.verbs.learn import config_for, learn_to
    from scumble.verbs.load import ModelConfig

    given = json.loads(rest[0])
    config = config_for(given["method"], given["model"], None, None, **given["settings"])
    subjects = [(Path(given["photos"]), given["word"], given["noun"])]
    on = ModelConfig(model=given["model"], device=given["device"], dtype=given["dtype"])
    finish(learn_to(given["method"], subjects, config, on, Path(given["out"]), overwrite=True))


def _train(rest: list[str]) -> None:
    from scumble.core.events import finish
    from scumble.verbs.load import ModelConfig
    from scumble.verbs.train_instruct import settings_for, train_to

    given = json.loads(rest[0])
    config = settings_for(given["model"], "default", None, **given["settings"])
    on = ModelConfig(model=given["model"], device=given["device"], dtype=given["dtype"])
    finish(train_to(Path(given["pairs"]), config, on, Path(given["out"])))


def _floor(rest: list[str], ends: Collection[int]) -> None:
    """Forward and backward of every network that the gradient crosses, and nothing else."""
    from scumble.adapters.conv_in import widen
    from scumble.adapters.dense import dense
    from scumble.adapters.lora import ATTENTION, find_layers, low_rank
    from scumble.adapters.tokens import new_word, words_attached
    from scumble.core import rng
    from scumble.methods.custom_diffusion import TRAIN
    from scumble.training.examples import precision
    from scumble.verbs.load import ModelConfig

    given = json.loads(rest[0])
    model = ModelConfig(model=given["model"], device=given["device"], dtype=given["dtype"]).load()
    kind, side = given["row"], given["size"]
    rows = given["batch"] * (1 if kind in ("textual-inversion", "instruct-pix2pix") else 2)
    x = rng.randn(model.latent_shape(side, side), rng.generators(range(rows)), device=model.device)
    vectors = [v.detach().requires_grad_() for v in new_word(model, given["noun"])]
    told = [f"a photo of a {given['word']} {given['noun']}"] * rows

    def steps(parameters: Sequence[Tensor], *, encode: bool) -> None:
        condition = model.prompt(told[:1])
        for _ in range(given["steps"]):
            with precision(model):
                seen = model.prompt(told) if encode else condition
                model.predict(x, torch.full((rows,), 500.0), seen).square().mean().backward()
            for parameter in parameters:
                parameter.grad = None
            _note(ends)

    if kind == "instruct-pix2pix":
        if not model.condition_channels:
            widen(model.denoiser, model.latent_channels)
        x = torch.cat([x, x], dim=1)  # beside the noise, the picture to edit
        steps(list(model.denoiser.requires_grad_(requires_grad=True).parameters()), encode=False)
        return
    with words_attached(model, {given["word"]: tuple(vectors)}):
        if kind == "textual-inversion":
            steps(vectors, encode=True)
            return
        word_learns = kind == "custom-diffusion"  # and so the gradient crosses the text encoder, too
        for vector in vectors:
            vector.requires_grad = word_learns
        if kind == "dreambooth-low-rank":
            rank = given["settings"].get("rank", 4)
            with low_rank(find_layers(model, ATTENTION), rank=rank) as layers:
                steps(list(layers.named_parameters().values()), encode=False)
            return
        patterns = ("unet.*",) if kind == "dreambooth" else TRAIN["key-value"]
        with dense(model, patterns) as layers:
            steps([*vectors, *layers.named_parameters().values()], encode=word_learns)


def stand_in() -> None:
    """A module `torchvision` with the few transforms that the scripts use, for machines without it: no build
    of it for CPUs goes with every torch. Put in after transformers and diffusers looked for the real one.
    """
    transforms: Any = ModuleType("torchvision.transforms")
    modes = ("nearest", "bilinear", "bicubic", "lanczos")  # named only: resizing is bicubic throughout
    transforms.InterpolationMode = Enum("InterpolationMode", {mode.upper(): mode for mode in modes})
    transforms.Compose = _Compose
    transforms.Resize = lambda size, **_: lambda image: _resized(image, size)
    transforms.CenterCrop = lambda size: lambda image: _cropped(image, size, 0.5, 0.5)
    transforms.RandomCrop = lambda size: lambda image: _cropped(image, size, random.random(), random.random())
    transforms.RandomHorizontalFlip = lambda p=0.5: lambda image: _mirrored(image, p)
    transforms.Lambda = lambda work: work
    transforms.ToTensor = lambda: _tensor
    transforms.Normalize = lambda mean, std: lambda x: (x - mean[0]) / std[0]
    module: Any = ModuleType("torchvision")
    module.transforms, module.__version__ = transforms, "0.0"
    module.__spec__ = transforms.__spec__ = SimpleNamespace(name="torchvision", origin=None)
    sys.modules |= {"torchvision": module, "torchvision.transforms": transforms}


class _Compose:
    def __init__(self, steps: Sequence[Callable[[Any], Any]]) -> None:
        self.steps = steps

    def __call__(self, image: Any) -> Any:
        for step in self.steps:
            image = step(image)
        return image


def _resized(image: Image.Image, size: int) -> Image.Image:
    """Its shorter side `size`."""
    factor = size / min(image.size)
    return image.resize((max(size, round(image.width * factor)), max(size, round(image.height * factor))))


def _cropped(image: Any, size: int, x: float, y: float) -> Any:
    """Of a picture, or of tensors (..., H, W)."""
    if isinstance(image, Tensor):
        top, left = round(y * (image.shape[-2] - size)), round(x * (image.shape[-1] - size))
        return image[..., top : top + size, left : left + size]
    left, top = round(x * (image.width - size)), round(y * (image.height - size))
    return image.crop((left, top, left + size, top + size))


def _mirrored(image: Image.Image, p: float) -> Image.Image:
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if random.random() < p else image


def _tensor(image: Image.Image) -> Tensor:
    """(3, H, W) in [0, 1]."""
    from scumble.core.images import to_unit

    return to_unit(image)[0]


if __name__ == "__main__":
    main(sys.argv[1:])
