"""Stage `judge`: the network that says what is in a toy picture, trained on renders and their labels.

Three tasks share each batch: name what is there; say that mixed, smeared, shuffled and noise pictures show
nothing known; and embed two pictures of one thing alike and a look-alike of the same kind and colour apart
(van den Oord et al. 2018, InfoNCE).
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from recipes.toybox import augment, card, pictures
from recipes.toybox.loop import Player, Run, train
from scumble.core.files import atomic_path, atomic_write
from scumble.metrics.toy_world import auroc, right, share, spoilt
from scumble.models.judge import NONE, OF_PICTURES, OF_THINGS, Judge, Verdict
from scumble.world.sampling import PROFILES, dice, sample_look, sample_scene
from scumble.world.scene import COLOURLESS_STYLES, KINDS, PLACES, Scene
from scumble.world.splits import is_held_out

UNSEEN = -100
"""The class number that cross-entropy ignores: the picture does not show it."""
TEMPERATURE = 0.1
REJECTED = 4
"""One picture in this many is spoilt, to be rejected."""
LIFTED = {"accessory": 4.0, "effect": 4.0, "varied": 2.0}
"""How many times as often as others pictures are seen with something worn, with an effect, of the whole
world: there are few of each.
"""
TWIN_SEED = 500_000
"""Seeds of the triples that teach identity begin here."""


def stage(run: Run) -> None:
    """Train the judge, write it in half precision and print its scores on held-out combinations."""
    fit = run.fit(run.scale.fit_judge)
    judge = Judge.load(folder(run.start), run.device).requires_grad_() if run.start else _build(run)
    train("judge", [Player(network=judge, loss=_Judging(judge, run))], fit, run)
    save(judge, run.out)
    card.record(run.out, "judge", run.facts("judge", run.scale.fit_judge) | scores(judge, run))


def folder(out: Path) -> Path:
    return out / "judge"


def save(judge: Judge, out: Path) -> None:
    """Write the weights in half precision, with the shape beside them."""
    with atomic_path(folder(out) / "model.safetensors") as temporary:
        state = {name: value for name, value in judge.state_dict().items() if value.is_floating_point()}
        save_file({name: value.half().contiguous() for name, value in state.items()}, temporary)
    atomic_write(folder(out) / "config.json", json.dumps(judge.shape).encode())


def triples(run: Run) -> Tensor:
    """Pictures of one thing in two scenes, and of a look-alike in the second: (T, 3, 3, H, W) uint8;
    rendered once.
    """
    path = run.out / "triples.safetensors"
    if not path.exists():
        scenes = [scene for i in range(run.scale.triples) for scene in triple(TWIN_SEED + i)]
        with atomic_path(path) as temporary:
            save_file({"pixels": pictures.drawn(scenes, run.device).cpu()}, temporary)
    return load_file(path, device=run.device)["pixels"].unflatten(0, (-1, 3))


def classes(scenes: list[Scene]) -> dict[str, Tensor]:
    """Class numbers, UNSEEN where there is nothing to see: of OF_PICTURES (N,), of kind and OF_THINGS (N,
    2), int64.
    """
    table = {name: torch.full((len(scenes), 2), UNSEEN) for name in ("kind", *OF_THINGS)}
    for i, scene in enumerate(scenes):
        for j, thing in enumerate(scene.things):
            table["kind"][i, j] = KINDS.index(thing.kind)
            for name, answers in OF_THINGS.items():
                if name != "colour" or scene.style not in COLOURLESS_STYLES:
                    table[name][i, j] = answers.index(getattr(thing, name) or NONE)
    for name, answers in OF_PICTURES.items():
        table[name] = torch.tensor([answers.index(getattr(scene, name) or NONE) for scene in scenes])
    table["time"][torch.tensor([scene.place == "green screen" for scene in scenes])] = UNSEEN
    return table


def how_often(wanted: dict[str, Tensor], usual: int) -> Tensor:
    """How often each picture of the classes `wanted` is seen, (N,); the first `usual` are not of the whole
    world.
    """
    often = torch.ones(len(wanted["kind"]), device=wanted["kind"].device)
    often[usual:] *= LIFTED["varied"]
    for name in ("accessory", "effect"):
        often[(wanted[name] > OF_THINGS[name].index(NONE)).any(1)] *= LIFTED[name]
    return often


@torch.no_grad()
def scores(judge: Judge, run: Run) -> dict[str, float]:
    """Share of right answers on held-out combinations, and the AUROC of telling them from spoilt pictures."""
    scenes = pictures.held_out(run, run.scale.held_out)
    pixels = pictures.drawn(scenes, run.device).float() / 127.5 - 1.0
    verdict = judge(pixels)
    unknown = judge(spoilt(pixels, run.generator("spoilt pictures to score"))).known
    return share(right(verdict, scenes)) | {"rejection": auroc(verdict.known, unknown)}


class _Judging:
    """The loss of a step: naming, rejecting and telling apart."""

    def __init__(self, judge: Judge, run: Run) -> None:
        self.run, self.forward = run, run.compiled(judge)
        self.pixels = pictures.load(run, varied=True)
        self.classes = {
            name: value.to(run.device)
            for name, value in classes(pictures.scenes(run, range(len(self.pixels)))).items()
        }
        self.triples = triples(run)
        self.often = how_often(self.classes, run.scale.pictures)

    def __call__(self, step: int) -> Tensor:
        generator = self.run.generator("judge", step)
        batch, device = self.run.scale.fit_judge.batch, self.pixels.device
        index = torch.multinomial(self.often, batch, replacement=True, generator=generator)
        x = augment.softly(pictures.pick(self.pixels, index), generator)
        nothing = spoilt(x[: batch // REJECTED], generator)
        trio = torch.randint(len(self.triples), (max(2, batch // 8),), generator=generator, device=device)
        same = augment.softly(pictures.pick(self.triples.flatten(0, 1), _rows(trio)), generator)
        verdict = self.forward(torch.cat([x, nothing, same]))
        known = torch.ones(len(verdict.known), device=device)
        known[batch : batch + len(nothing)] = 0.0
        rejecting = functional.binary_cross_entropy_with_logits(verdict.known.float(), known)
        chosen = {name: value[index] for name, value in self.classes.items()}
        return (
            naming(verdict, chosen, batch) + rejecting + telling_apart(verdict.identity[-len(same) :].float())
        )


def naming(verdict: Verdict, wanted: dict[str, Tensor], count: int) -> Tensor:
    """Cross-entropy of all answers on the first `count` pictures; two kinds share the probability of
    `kind`.
    """
    kind = wanted["kind"]  # (count, 2)
    present = kind != UNSEEN
    chances = verdict.kinds[:count].float().log_softmax(-1)
    of_kinds = chances.gather(1, kind.clamp(min=0)) * present / present.sum(1, keepdim=True)
    total = -of_kinds.sum(1).mean()
    for name, logits in verdict.pictures.items():
        total = total + functional.cross_entropy(logits[:count].float(), wanted[name], ignore_index=UNSEEN)
    for name, logits in verdict.things.items():
        row = kind.clamp(min=0)[..., None].expand(-1, -1, logits.shape[-1])
        answers = logits[:count].float().gather(1, row).flatten(0, 1)  # (2 count, answers)
        total = total + functional.cross_entropy(answers, wanted[name].flatten(), ignore_index=UNSEEN)
    return total


def telling_apart(identity: Tensor) -> Tensor:
    """InfoNCE of triples (3 T, E): each first one finds its second among all the seconds and the look-
    alikes.
    """
    first, second, other = identity.unflatten(0, (-1, 3)).unbind(1)
    similarity = first @ torch.cat([second, other]).T / TEMPERATURE
    return functional.cross_entropy(similarity, torch.arange(len(first), device=identity.device))


def _rows(trio: Tensor) -> Tensor:
    return (3 * trio[:, None] + torch.arange(3, device=trio.device)).flatten()


def triple(seed: int) -> tuple[Scene, Scene, Scene]:
    """A thing, the same elsewhere, and there a look-alike; none of them a combination that is held out."""
    base = sample_scene(seed, profile=PROFILES["photo"])
    rng = dice(seed, "triple")
    other = _shown(
        replace(sample_scene(seed + TWIN_SEED // 2, profile=PROFILES["photo"]), things=base.things)
    )
    thing = base.things[0]
    alike = replace(thing, look=sample_look(rng, thing.colour))
    return base, other, replace(other, things=(alike,))


def _shown(scene: Scene) -> Scene:
    """The scene, or the same in the first other place in which its thing is not held out."""
    elsewhere = (replace(scene, place=place) for place in PLACES if place != "green screen")
    return next(other for other in (scene, *elsewhere) if not is_held_out(other))


def _build(run: Run) -> Judge:
    size = run.scale.judge
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return Judge(size.channels, size.depths, size.identity).to(run.device)
