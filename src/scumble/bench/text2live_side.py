"""One side of a race of Text2LIVE, in a process of its own:
`python -m scumble.bench.text2live_side KIND JSON`.

KIND is `theirs` (the original code, of which a checkout is given) or `ours`. A side takes one optimiser step
for each line that it reads, and answers with a line of JSON: the seconds that it took, by the clock and of
the processor. Steps are seen through torch's own hook of optimisers, so both sides are timed alike. Now and
then it leaves the layer of the whole picture in a file; that is not timed. It ends where no more is read.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook

from scumble.core.events import finish
from scumble.core.images import to_unit
from scumble.methods.text2live import Config
from scumble.models.clip import Clip, load_clip

__all__ = ["clip_at", "main"]

OFTEN = 1_000_000
"""A number of steps that is never reached."""


def main(arguments: Sequence[str]) -> None:
    """Run one side."""
    kind, given = arguments[0], json.loads(arguments[1])
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what else is printed goes where errors go, also if the process is ended
    sys.stdout.reconfigure(line_buffering=True)  # pyright: ignore[reportAttributeAccessIssue]
    side = _Side(answers, Path(given["looks"]), given["look_every"])
    register_optimizer_step_post_hook(lambda *_: side.stepped())
    run: dict[str, Callable[[dict[str, Any], _Side], None]] = {"ours": _ours, "theirs": _theirs}
    run[kind](given, side)


@dataclass
class _Side:
    answers: TextIO
    looks: Path
    look_every: int
    """Steps between two layers; 0 leaves none."""
    layer: Callable[[], Tensor] | None = None
    """(1, 4, h, w) of the whole picture, once there is a network."""
    done: int = 0
    since: tuple[float, float] = field(default=(0.0, 0.0))

    def start(self) -> None:
        """Say that all is loaded, and wait for the first step to be asked for."""
        self._answer(ready=True)

    def stepped(self) -> None:
        """Answer for a step, and wait for the next to be asked for."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = _now()
        self.done += 1
        if self.look_every and self.done % self.look_every == 0 and self.layer is not None:
            with torch.no_grad():
                layer = self.layer().detach().float().cpu().contiguous()
            save_file({"layer": layer}, self.looks / f"{self.done:06d}.safetensors")
        self._answer(clock=now[0] - self.since[0], processor=now[1] - self.since[1])

    def _answer(self, **content: Any) -> None:
        self.answers.write(json.dumps(content) + "\n")
        if not sys.stdin.readline():
            raise SystemExit
        self.since = _now()


def _now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def clip_at(name: str, device: str) -> Clip:
    """The CLIP that both sides look through."""
    from scumble.models import toybox

    return load_clip(toybox.clip() if name == "toybox" else name, device=device)


def _device() -> str:
    """What the original code chooses."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def _ours(given: dict[str, Any], side: _Side) -> None:
    from scumble.methods.text2live.image import Canvas, edit
    from scumble.methods.text2live.texts import Texts

    picture = to_unit(Image.open(given["picture"]).convert("RGB"))
    canvas = Canvas(clip_at(given["clip"], _device()), picture, Config.of(given["config"]), seed=0)
    side.layer = canvas.layer
    side.start()
    finish(edit(canvas, Texts(**given["texts"])))


def _theirs(given: dict[str, Any], side: _Side) -> None:
    import yaml

    from scumble.bench import text2live_standins

    text2live_standins.put_in(lambda: clip_at(given["clip"], _device()))
    checkout = Path(given["checkout"])
    sys.path.insert(0, str(checkout))
    import train_image as theirs  # pyright: ignore[reportMissingImports]  # of the checkout
    from util import losses  # pyright: ignore[reportMissingImports]

    texts, size = given["texts"], given["clip_size"]
    losses.get_augmentations_template = lambda: given["config"]["templates"]
    losses.get_screen_template = lambda: given["config"]["screen_templates"]
    settings = yaml.safe_load((checkout / "configs" / "image_config.yaml").read_text())
    settings |= given["settings"] | {
        "image_path": given["picture"],
        "comp_text": texts["prompt"],
        "screen_text": texts["screen"],
        "src_text": texts["region"],
        "bootstrap_text": texts["region"],
        "device": _device(),
        "log_images_freq": OFTEN,
        "use_wandb": False,
    }
    make_model, make_extractor, make_optimiser = theirs.Model, theirs.ClipExtractor, theirs.get_optimizer

    def model(config: Any) -> Any:
        made = make_model(config)
        picture = to_unit(Image.open(given["picture"]).convert("RGB")).to(_device())
        side.layer = lambda: made.netG(picture)
        return made

    def extractor(config: Any) -> Any:
        made = make_extractor(config)
        made.clip_input_size = size  # which it takes for 224
        made.basic_transform.transforms[0] = sys.modules["torchvision"].transforms.Resize(size)
        return made

    def optimiser(*given: Any) -> Any:
        made = make_optimiser(*given)  # the last before the loop
        side.start()
        return made

    theirs.Model, theirs.ClipExtractor, theirs.get_optimizer = model, extractor, optimiser
    random.seed(0)
    np.random.seed(0)  # the chance that it draws from
    torch.manual_seed(0)
    theirs.train_model(settings | {"seed": 0})


if __name__ == "__main__":
    main(sys.argv[1:])
