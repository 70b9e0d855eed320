"""How fast subjects, and editing by instruction, are learnt beside the example scripts of diffusers v0.40, on
the same model, pictures, batch and precision, and how near to the floor: the forward and backward passes
alone.

The scripts' text is no part of this package; the folder of a diffusers checkout is given. Each side runs in a
process of its own, one after another, all on one device, and is timed from one optimiser step to the next, so
that loading, class pictures and saving do not count; the first steps do not count either. On a CPU the middle
of the steps' times counts and the process's peak memory; on a GPU, which works behind what it is told, the
time of all of them together, and what was allocated there. The scripts are given their defaults, and the
flags that make them fastest on this machine.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from itertools import pairwise
from os import environ
from pathlib import Path
from statistics import fmean, median
from typing import Annotated, Any, Literal

from pydantic import Field

from scumble.bench.common import as_saved, claim, one_of, written
from scumble.bench.timed import FLOORS
from scumble.core.config import Config
from scumble.core.errors import InputError
from scumble.core.events import Loop, Progress
from scumble.core.files import atomic_folder
from scumble.core.images import from_unit, save_image
from scumble.datagen.exact_pairs import edit_of
from scumble.world.pairs import render_edits
from scumble.world.render import render
from scumble.world.subjects import SUBJECTS, lookalike

__all__ = ["PEERS", "TRAINING", "Settings", "measure", "table"]

WORD = "<subject>"
FULL = "full-size"
"""The name for Stable Diffusion 1.5's size with random weights, made in the run's folder."""
OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


@dataclass(frozen=True, slots=True)
class _Peer:
    """A script, what it is always told, and what makes it fastest."""

    script: str
    method: str
    settings: dict[str, Any]
    """Of ours, to be the same."""
    flags: tuple[str, ...] = ()
    best: tuple[str, ...] = ()


_CLASS = ("--with_prior_preservation", "--class_data_dir", "{kind}", "--class_prompt", "a {noun}")
_CLASSES = ("--num_class_images", "{classes}", "--instance_data_dir", "{photos}")
_TOLD = ("--instance_prompt", "a photo of a sks {noun}")
PEERS: dict[str, _Peer] = {
    "textual-inversion": _Peer(
        "textual_inversion/textual_inversion.py",
        "textual-inversion",
        {"vectors": 1},
        (
            *("--train_data_dir", "{photos}", "--placeholder_token", WORD, "--initializer_token", "{noun}"),
            *("--learnable_property", "object", "--save_steps", "1000000"),
        ),
    ),
    "dreambooth": _Peer(
        "dreambooth/train_dreambooth.py",
        "dreambooth",
        {"train": "all", "prior_count": 4},
        (*_CLASS, *_CLASSES, *_TOLD),
        ("--pre_compute_text_embeddings", "--set_grads_to_none"),
    ),
    "dreambooth-low-rank": _Peer(
        "dreambooth/train_dreambooth_lora.py",
        "dreambooth",
        {"train": "low-rank", "rank": 4, "prior_count": 4},
        (*_CLASS, *_CLASSES, *_TOLD, "--rank", "4"),
        ("--pre_compute_text_embeddings",),
    ),
    "custom-diffusion": _Peer(
        "custom_diffusion/train_custom_diffusion.py",
        "custom-diffusion",
        {"prior_count": 4},
        (
            *_CLASS,
            *_CLASSES,
            *("--instance_prompt", f"a photo of a {WORD} {{noun}}", "--modifier_token", WORD),
            *("--initializer_token", "{noun}", "--no_safe_serialization", "--dataloader_num_workers", "0"),
        ),
        ("--set_grads_to_none",),
    ),
}
TRAINING: dict[str, _Peer] = {
    "instruct-pix2pix": _Peer(
        "instruct_pix2pix/train_instruct_pix2pix.py",
        "instruct-pix2pix",
        {"ema": 0.0, "validate_every": 0, "mirror": False},
        (
            *("--train_data_dir", "{pairs}", "--original_image_column", "input_image"),
            *("--edited_image_column", "edited_image", "--edit_prompt_column", "edit_prompt"),
            *("--conditioning_dropout_prob", "0.05", "--cache_dir", "{cache}"),
        ),
        ("--dataloader_num_workers", "1"),
    ),
}
"""What learns from pairs and not from a subject; the script needs the library `datasets`."""
PAIRS = 16


class Settings(Config):
    """What is timed."""

    model: str = "toybox"
    """toybox, a folder of the Stable Diffusion 1 family, or full-size."""
    methods: tuple[str, ...] = tuple(PEERS)
    """Rows of the table."""
    steps: Annotated[int, Field(ge=2)] = 30
    """Optimiser steps of each side."""
    warmup: Annotated[int, Field(ge=1)] | None = None
    """Of these, how many do not count; none takes a fifth, but not more than 5."""
    batch: Annotated[int, Field(ge=1)] = 1
    """Pictures of the subject in a step; as many of the class go with them where a method takes any."""
    size: Annotated[int, Field(ge=32)] = 128
    """Pixels; 256 for full-size on a CPU."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """What networks compute in."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where all sides compute; auto is a GPU if there is one."""

    @property
    def first(self) -> int:
        """The first step that counts."""
        return self.warmup or min(5, max(1, self.steps // 5))


def measure(out: Path, checkout: Path, settings: Settings) -> Loop[dict[str, Any]]:
    """Time all sides and write `scores.json` and `table.md` into the folder `out`.

    Raises InputError where `checkout` is none of diffusers, where there is no such device, and where a side
    fails, with its last words.
    """
    for name in settings.methods:
        one_of("method", name, FLOORS)
    peers = [(PEERS | TRAINING)[name] for name in settings.methods]
    missing = [p.script for p in peers if not (checkout / "examples" / p.script).is_file()]
    if missing:
        raise InputError(f"{checkout} has no examples/{missing[0]}.", "Give a checkout of diffusers v0.40.")
    if settings.first >= settings.steps - 1:
        raise InputError(f"Of {settings.steps} steps, {settings.first} cannot be for warming up.")
    settings = settings.replace(device=_device(settings.device))
    claim(out, {"settings": settings.model_dump(mode="json")})
    if any(name in PEERS for name in settings.methods):
        _pictures(out, settings.size)
    if any(name in TRAINING for name in settings.methods):
        _pairs(out / "pairs" / "train", settings.size)
    model = _model(out, settings.model)
    rows: dict[str, Any] = {}
    done = 0
    for name in settings.methods:
        rows[name] = {}
        for side, command in _sides(name, out, checkout, model, settings).items():
            rows[name][side] = _timed(out, f"{name} {side}", command, settings)
            done += 1
            yield Progress(stage="timing", step=done, total=4 * len(settings.methods))
    return written(out, {"settings": settings.model_dump(mode="json"), "methods": rows}, table)


def table(scores: dict[str, Any]) -> str:
    """Steps a second, ratios and peak memory as Markdown."""
    rows = [
        "| | ours, steps/s | script | script, best flags | ours to the better | ours to the floor "
        "| to the better, in CPU seconds | peak, ours | peak, script | peak, best flags |",
        "|---" * 10 + "|",
    ]
    for name, found in scores["methods"].items():
        ours, plain, best, floor = (found[side] for side in ("ours", "script", "best", "floor"))
        rate = [f"{side['rate']:.3g}" for side in (ours, plain, best)]
        better = max(plain["rate"], best["rate"])
        on_cpu = max(plain["cpu_rate"], best["cpu_rate"])
        peaks = [f"{side['peak_bytes'] / 2**30:.2f} GiB" for side in (ours, plain, best)]
        ratios = [f"{ours['rate'] / other:.2f}" for other in (better, floor["rate"])]
        ratios.append(f"{ours['cpu_rate'] / on_cpu:.2f}")
        rows.append(f"| {name} | {' | '.join([*rate, *ratios, *peaks])} |")
    return "\n".join(rows)


def _device(wanted: str) -> str:
    """cpu or cuda: one for all sides, which would each choose by themselves."""
    from torch.cuda import is_available

    if wanted == "cuda" and not is_available():
        raise InputError("There is no GPU here that torch can use.", "Take cpu.")
    return wanted if wanted != "auto" else "cuda" if is_available() else "cpu"


def _pictures(out: Path, size: int) -> None:
    """The photos of a subject, and as many pictures of others of its kind, of the size that is learnt at."""
    subject = SUBJECTS[0]
    others = [
        type(s)(things=(lookalike(subject, s.seed),), place=s.place, seed=s.seed) for s in subject.scenes
    ]
    for name, scenes in (("photos", subject.scenes), ("class", others[:4])):
        folder = out / name
        if not folder.is_dir():
            folder.mkdir(parents=True)
            for i, picture in enumerate(from_unit(as_saved(render(scenes, size=size).pixels))):
                save_image(picture, folder / f"{i}.png")


def _pairs(folder: Path, size: int) -> None:
    """Exact pairs of that size, under the names that the script of diffusers wants."""
    if folder.is_dir():
        return
    with atomic_folder(folder) as place:
        rows: list[str] = []
        for i in range(PAIRS):
            edit = edit_of(i, "photo")
            drawn = render_edits([edit], size=size)
            names = {f"{side}_image_file_name": f"{i:02d}-{side}.png" for side in ("input", "edited")}
            for name, pixels in zip(names.values(), (drawn.before, drawn.after), strict=True):
                save_image(from_unit(pixels)[0], place / name)
            rows.append(json.dumps({**names, "edit_prompt": edit.text}))
        (place / "metadata.jsonl").write_text("\n".join(rows) + "\n")


def _model(out: Path, name: str) -> tuple[str, Path]:
    """What we load, and the folder that the scripts load."""
    from scumble.models import toybox
    from scumble.models.configs import random_model
    from scumble.models.save import save_folder

    if name == "toybox":
        return name, toybox.folder()
    if name != FULL:
        return name, Path(name).absolute()
    folder = out / "model"
    if not folder.is_dir():
        save_folder(random_model("sd1", "full"), folder)
    return str(folder), folder.absolute()


def _sides(
    name: str, out: Path, checkout: Path, model: tuple[str, Path], settings: Settings
) -> dict[str, list[str]]:
    """The arguments of `scumble.bench.timed` for each side."""
    peer, noun = (PEERS | TRAINING)[name], SUBJECTS[0].noun
    given = {
        "row": name,
        "method": peer.method,
        "model": model[0],
        "photos": str(out / "photos"),
        "pairs": str(out / "pairs" / "train"),
        "word": WORD,
        "noun": noun,
        "out": str(out / f"{name}.safetensors" if name in PEERS else out / "trained"),
        "device": settings.device,
        "dtype": settings.dtype,
        "batch": settings.batch,
        "size": settings.size,
        "steps": settings.steps,
        "settings": {
            **peer.settings,
            **{key: getattr(settings, key) for key in ("steps", "batch", "size")},
        },
    }
    places = {
        "photos": str((out / "photos").absolute()),
        "kind": str((out / "class").absolute()),
        "classes": "4",
        "pairs": str((out / "pairs").absolute()),
        "cache": str((out / "cache").absolute()),
        "noun": noun,
    }
    script = [
        *("script", str(checkout / "examples" / peer.script)),
        *("--pretrained_model_name_or_path", str(model[1])),
        *(flag.format(**places) for flag in peer.flags),
        *("--resolution", str(settings.size), "--train_batch_size", str(settings.batch)),
        *("--max_train_steps", str(settings.steps), "--lr_warmup_steps", "0", "--seed", "0"),
        *("--checkpointing_steps", "1000000"),
        *("--mixed_precision", "bf16" if settings.dtype == "bfloat16" else "no"),
        *("--output_dir", str((out / "theirs" / name).absolute())),
    ]
    return {
        "floor": ["floor", json.dumps(given)],
        "ours": ["learn" if name in PEERS else "train", json.dumps(given)],
        "script": script,
        "best": [*script, *peer.best],
    }


def _timed(out: Path, name: str, command: list[str], settings: Settings) -> dict[str, Any]:
    """Steps a second and peak memory of one side, which is run unless that was done."""
    place, first, last = out / "sides" / f"{name}.json", settings.first, settings.steps - 1
    if not place.is_file():
        place.parent.mkdir(parents=True, exist_ok=True)
        running = place.with_suffix(".running")
        result = subprocess.run(
            [sys.executable, "-m", "scumble.bench.timed", str(running), f"{first}:{last}", *command],
            env={**environ, **OFFLINE, "ACCELERATE_USE_CPU": str(settings.device == "cpu").lower()},
            capture_output=True,
            text=True,
            check=False,
        )
        if result.returncode:
            said = (result.stderr.strip() or "nothing").splitlines()[-1][-300:]
            raise InputError(f"{name} failed: {said}")
        running.rename(place)
    found = json.loads(place.read_bytes())
    if found["device"] != settings.device:
        raise InputError(f"{name} computed on {found['device']}, not on {settings.device}.")
    spans = [_between(found[of][first:]) for of in ("times", "cpu_times")]
    typical = fmean if settings.device == "cuda" else median  # whose single steps end when nobody knows
    rates = [1 / typical(span) for span in spans]
    peak = found["peak_bytes"]
    return {"rate": rates[0], "cpu_rate": rates[1], "peak_bytes": peak, "steps": len(spans[0])}


def _between(times: list[float]) -> list[float]:
    return [after - before for before, after in pairwise(times)]
