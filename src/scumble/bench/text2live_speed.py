"""How fast Text2LIVE learns beside the original code, on the same machine, picture and CLIP.

That code's text is no part of this package; the folder of a checkout of omerbt/Text2LIVE is given. Two races:

- *a step*, at identical settings: size of the picture, scales, width, views, texts, losses, CLIP. The sides
  take their steps in turn, so that whatever else the machine does falls on both.
- *the same loss*: the original with its settings against a preset of ours. Of both, the layer of the whole
  picture is looked at now and then, and one yardstick measures them all: the paper's losses but
  bootstrapping, over the same views and texts. The side that has spent less goes next; ours ends where it has
  spent as much as theirs.

What the original code imports and this machine lacks is stood in for; see `text2live_standins`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from os import environ
from pathlib import Path
from statistics import median
from typing import Annotated, Any, Self

import torch
from pydantic import Field
from safetensors.torch import load_file
from torch import Tensor

from scumble.bench import text2live
from scumble.bench.common import as_saved, claim, machine, rounded, write_json
from scumble.bench.text2live_side import clip_at
from scumble.core import rng
from scumble.core.config import Config
from scumble.core.errors import InputError
from scumble.core.events import Loop, Progress
from scumble.core.files import atomic_folder, atomic_write
from scumble.core.images import from_unit, read_image, save_image, to_unit
from scumble.methods.text2live import PRESETS
from scumble.methods.text2live import Config as Method
from scumble.methods.text2live.image import Bank, Critic, sparsity
from scumble.methods.text2live.texts import Texts
from scumble.methods.text2live.views import GREEN, over
from scumble.models.edit_layer import scales_for
from scumble.models.tokenizer import clip_tokenizer
from scumble.world.pairs import render_edits

__all__ = ["GOALS", "Settings", "arrivals", "measure", "table"]

FULL = "full-size"
"""The name for a CLIP of ViT-B/32's size with random weights, made in the run's folder."""
OFFLINE = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
NEEDED = ("train_image.py", "configs/image_config.yaml", "util/losses.py", "models/clip_extractor.py")
GOALS = {"a step": 1 / 1.15, "the same loss": 1 / 3}
"""Our time as a share of theirs, at most."""
LOOK = 10
"""Steps between two layers that are looked at."""
GLANCES = 4
"""Draws of views that the yardstick takes the mean of."""


class Settings(Config):
    """What is timed."""

    model: str = "toybox"
    """CLIP: toybox, a folder or hub id, or full-size for ViT-B/32's size with random weights."""
    repeats: Annotated[int, Field(ge=1)] = 9
    """Steps of each side that count, at identical settings."""
    warmup: Annotated[int, Field(ge=1)] = 3
    """Steps before these."""
    steps: Annotated[int, Field(ge=0)] = 100
    """Steps of theirs in the race to the same loss; 0 leaves that race out."""
    preset: str = "toybox"
    """Ours in that race."""
    size: Annotated[int, Field(ge=64)] = 128
    """Pixels of the picture's sides."""
    channels: Annotated[int, Field(ge=1)] = 128
    """Width of the generators at identical settings, and of theirs."""
    views: Annotated[int, Field(ge=1)] = 16
    """Views of CLIP's, likewise."""


def measure(out: Path, checkout: Path, settings: Settings) -> Loop[dict[str, Any]]:
    """Run the races and write `scores.json` and `table.md` into the folder `out`.

    Raises InputError where `checkout` is not of the original code, and where a side fails, with its last
    words.
    """
    missing = [name for name in NEEDED if not (checkout / name).is_file()]
    if missing:
        raise InputError(f"{checkout} has no {missing[0]}.", "Give a checkout of omerbt/Text2LIVE.")
    claim(out, {"settings": settings.model_dump(mode="json")})
    task = _Task.of(out, checkout, settings)
    races: dict[str, Any] = {"a step": (yield from _steps(task))}
    if settings.steps:
        races["the same loss"] = yield from _to_the_same_loss(task)
    scores = rounded(
        {"settings": settings.model_dump(mode="json"), "races": races, "goals": GOALS, "machine": machine()}
    )
    write_json(out / "scores.json", scores)
    atomic_write(out / "table.md", (table(scores) + "\n").encode())
    return scores


def table(scores: dict[str, Any]) -> str:
    """Both races as Markdown."""
    rows = [
        "| | ours, s | theirs, s | theirs to ours | from ... to | of CPU seconds | goal |",
        "|---" * 7 + "|",
    ]
    step = scores["races"]["a step"]
    spread = f"{step['least']:.2f} ... {step['most']:.2f}"
    cells = [f"{step[name]:.2f}" for name in ("ours", "theirs", "ratio")]
    goal = f"{1 / GOALS['a step']:.2f}"
    rows.append(
        f"| a step, identical settings | {' | '.join(cells)} | {spread} | {step['cpu ratio']:.2f} | {goal} |"
    )
    loss = scores["races"].get("the same loss")
    if loss:
        goal = f"{1 / GOALS['the same loss']:.2f}"
        if loss["ours"] is None:
            rows.append(
                f"| to their lowest loss | not in as long | {loss['theirs']:.1f} | - | - | - | {goal} |"
            )
        else:
            cells = [f"{loss['ours']:.1f}", f"{loss['theirs']:.1f}", f"{loss['ratio']:.2f}", "-"]
            rows.append(f"| to their lowest loss | {' | '.join(cells)} | {loss['cpu ratio']:.2f} | {goal} |")
        rows += [
            "",
            f"Their lowest loss is {loss['target']:.3f}, after {loss['their steps']} of "
            f"{loss['of steps']} steps; ours goes down to {loss['our lowest']:.3f}. "
            f"Without an edit it is {loss['without an edit']:.3f}.",
        ]
    return "\n".join(rows)


# The task


@dataclass(frozen=True, slots=True)
class _Task:
    out: Path
    checkout: Path
    settings: Settings
    texts: Texts
    identical: Method
    """The paper's settings at this size."""
    clip: str

    @classmethod
    def of(cls, out: Path, checkout: Path, settings: Settings) -> Self:
        """A picture of the toy world and an edit of it, from the scenes for tuning."""
        edit = text2live.task(text2live.TRYING, 0)
        told = text2live.settings_of(edit, 0)
        before = as_saved(render_edits([edit], size=settings.size).before)
        save_image(from_unit(before)[0], out / "picture.png")
        identical = PRESETS["paper"].replace(
            size=settings.size,
            channels=settings.channels,
            views=settings.views,
            templates=told.templates,
            screen_templates=told.screen_templates,
        )
        return cls(out, checkout.absolute(), settings, told.texts, identical, _clip(out, settings.model))

    def side(self, kind: str, name: str, config: Method, *, looks: bool = False) -> list[str]:
        """The arguments of a side, which keeps its layers in a folder by its `name`."""
        folder = self.out / name
        folder.mkdir(exist_ok=True)
        settings = self.settings
        given = {
            "clip": self.clip,
            "clip_size": clip_at(self.clip, "cpu").preparation.size,
            "picture": str((self.out / "picture.png").absolute()),
            "texts": asdict(self.texts),
            "config": config.model_dump(mode="json"),
            "looks": str(folder.absolute()),
            "look_every": LOOK if looks else 0,
            "checkout": str(self.checkout),
            "settings": {
                "resize_input": settings.size,
                "num_scales": scales_for(settings.size, settings.size),
                "skip_n33d": settings.channels,
                "skip_n33u": settings.channels,
                "n_aug": settings.views,
                "n_epochs": config.steps,
                "bootstrap_epoch": round(config.steps * config.bootstrapping_until),
                "relevancy_num_layers": _blocks(self.clip) - 2,  # the last block alone, as in the paper's
            },
        }
        return [sys.executable, "-m", "scumble.bench.text2live_side", kind, json.dumps(given)]


def _clip(out: Path, name: str) -> str:
    """What both sides load: a name, or an absolute folder."""
    if name != FULL:
        return str(Path(name).absolute()) if Path(name).is_dir() else name
    folder = out / "clip"
    if not folder.is_dir():
        from transformers import CLIPConfig, CLIPModel

        with atomic_folder(folder) as place, torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            CLIPModel(CLIPConfig()).save_pretrained(place)  # whose defaults are ViT-B/32's
            clip_tokenizer(pad="<|endoftext|>").save_pretrained(place)
    return str(folder.absolute())


def _blocks(name: str) -> int:
    return len(clip_at(name, "cpu").network.vision_model.encoder.layers)


# Running a side


class _Runner:
    """A side that waits to be told to take a step."""

    def __init__(self, process: subprocess.Popen[str], name: str, log: Path) -> None:
        self.process, self.name, self.log = process, name, log
        self.clock: list[float] = []
        self.processor: list[float] = []
        self._read()

    def step(self) -> bool:
        """Take one step; whether there was one left."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        answer = self._read()
        if answer is None:
            return False
        self.clock.append(answer["clock"])
        self.processor.append(answer["processor"])
        return True

    def _read(self) -> dict[str, float] | None:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if line:
            return json.loads(line)
        if self.process.wait():
            said = (self.log.read_text().strip() or "nothing").splitlines()[-1][-300:]
            raise InputError(f"{self.name} failed: {said}")
        return None


@contextmanager
def _running(command: list[str], out: Path, name: str) -> Iterator[_Runner]:
    log = out / f"{name}.log"
    with log.open("w") as errors:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env={**environ, **OFFLINE},
            text=True,
        )
        try:
            yield _Runner(process, name, log)
        finally:
            process.kill()
            process.communicate()


# The races


def _steps(task: _Task) -> Loop[dict[str, float]]:
    """One step of each in turn; the one that goes first changes, in case that matters."""
    total, warmup = task.settings.repeats + task.settings.warmup, task.settings.warmup
    config = task.identical.replace(steps=total + 1, bootstrapping_until=1.0)
    with ExitStack() as stack:
        theirs, ours = (
            stack.enter_context(_running(task.side(name, name, config), task.out, f"{name} by steps"))
            for name in ("theirs", "ours")
        )
        for number in range(total):
            for side in (ours, theirs) if number % 2 else (theirs, ours):
                side.step()
            yield Progress(stage="a step", step=number + 1, total=total)
    pairs = list(zip(ours.clock, theirs.clock, strict=True))[warmup:]
    ratios = [other / mine for mine, other in pairs]
    on_cpu = [t / o for o, t in zip(ours.processor, theirs.processor, strict=True)][warmup:]
    return {
        "ours": median(mine for mine, _ in pairs),
        "theirs": median(other for _, other in pairs),
        "ratio": median(ratios),
        "least": min(ratios),
        "most": max(ratios),
        "cpu ratio": median(on_cpu),
    }


def _to_the_same_loss(task: _Task) -> Loop[dict[str, Any]]:
    """Seconds until each side's layer is as good as the best of theirs."""
    steps = task.settings.steps
    preset = PRESETS[task.settings.preset].replace(
        size=task.settings.size,
        templates=task.identical.templates,
        screen_templates=task.identical.screen_templates,
    )
    kinds = {"ours": preset, "theirs": task.identical.replace(steps=steps)}
    with ExitStack() as stack:
        sides = {
            name: stack.enter_context(
                _running(
                    task.side(name, f"{name} to a loss", config, looks=True), task.out, f"{name} to a loss"
                )
            )
            for name, config in kinds.items()
        }
        ours, theirs = sides["ours"], sides["theirs"]
        going = [theirs, ours]
        while theirs in going or (ours in going and sum(ours.processor) < sum(theirs.processor)):
            side = min(going, key=lambda side: sum(side.processor))
            if not side.step():
                going.remove(side)
            yield Progress(stage="to the same loss", step=max(1, len(theirs.clock)), total=steps)
    yardstick = _Yardstick(task)
    losses = {
        name: {
            int(file.stem): yardstick(load_file(file)["layer"])
            for file in sorted((task.out / f"{name} to a loss").glob("*.safetensors"))
        }
        for name in sides
    }
    found = arrivals(losses, {name: (side.clock, side.processor) for name, side in sides.items()})
    return found | {"without an edit": yardstick(None)}


def arrivals(
    losses: Mapping[str, Mapping[int, float]], times: Mapping[str, tuple[Sequence[float], Sequence[float]]]
) -> dict[str, Any]:
    """When each side was as good as the best of theirs, of the losses of its layers by step, and of the time
    of every step by the clock and of the processor. Raises InputError where no layer was looked at."""
    if not all(losses.values()):
        raise InputError(f"Of fewer than {LOOK} steps no layer is looked at.", "Give more --steps.")
    last = min(losses["theirs"], key=lambda step: losses["theirs"][step])
    target = losses["theirs"][last]
    there = next((step for step, loss in losses["ours"].items() if loss <= target), None)
    theirs = [sum(each[:last]) for each in times["theirs"]]
    ours = [None, None] if there is None else [sum(each[:there]) for each in times["ours"]]
    ratios = [mine and other / mine for mine, other in zip(ours, theirs, strict=True)]
    return {
        "target": target,
        "their steps": last,
        "of steps": len(times["theirs"][0]),
        "our steps": there,
        "our lowest": min(losses["ours"].values()),
        "ours": ours[0],
        "theirs": theirs[0],
        "ratio": ratios[0],
        "cpu ratio": ratios[1],
        "losses": {name: list(each.items()) for name, each in losses.items()},
    }


class _Yardstick:
    """The paper's losses of a layer (1, 4, h, w), but bootstrapping: the same views for every layer."""

    def __init__(self, task: _Task) -> None:
        clip = clip_at(task.clip, "cpu")
        self.config = task.identical.replace(paired=True)
        self.critic = Critic(clip, Bank.of(clip, task.texts, self.config), self.config)
        self.picture = to_unit(read_image(task.out / "picture.png").image)

    @torch.no_grad()
    def __call__(self, layer: Tensor | None) -> float:
        """None is no edit."""
        picture = self.picture
        if layer is None:
            layer = torch.cat([picture, torch.zeros_like(picture[:, :1])], 1)
        total = float(sparsity(layer[:, 3:], self.config))
        green = over(layer, picture.new_tensor(GREEN))
        for glance in range(GLANCES):
            parts = self.critic(over(layer, picture), green, picture, rng.generator(glance))
            total += float(sum(parts.values())) / GLANCES
        return total
