"""The judge: what is in a toy picture, as a small network sees it, so that generated pictures can be scored.

A ResNet (He et al. 2016, "Deep Residual Learning for Image Recognition") with one linear head for each
question: of the small backbones tried it learns the most from the fewest pictures. What is asked of a thing
(colour, material, size, accessory, effect) is asked of each kind: "if there is a cat here, what colour is
it?", so two things of different kinds in one picture do not get in each other's way. Further heads tell
whether the picture shows the toy world at all, and give an embedding that is the same for pictures of one
and the same thing.

It is trained on renders only and shares nothing with the models that it judges.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import ResNetConfig, ResNetModel

from scumble.world.scene import (
    ACCESSORIES,
    COLOURLESS_STYLES,
    COLOURS,
    EFFECTS,
    KINDS,
    MATERIALS,
    PLACES,
    RELATIONS,
    SIZES,
    STYLES,
    TIMES,
    VIEWS,
    Scene,
)

__all__ = ["OF_PICTURES", "OF_THINGS", "Judge", "Verdict"]

NONE = "none"
OF_THINGS: dict[str, tuple[str, ...]] = {
    "colour": tuple(COLOURS),
    "material": MATERIALS,
    "size": tuple(SIZES),
    "accessory": (NONE, *ACCESSORIES),
    "effect": (NONE, *EFFECTS),
}
"""Questions about a thing, with the possible answers."""

OF_PICTURES: dict[str, tuple[str, ...]] = {
    "place": PLACES,
    "time": TIMES,
    "style": STYLES,
    "view": VIEWS,
    "relation": (NONE, *RELATIONS),
}
"""Questions about a picture; `relation` is none where there is one thing only."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the judge says of B pictures."""

    kinds: Tensor
    """(B, 24) logits over `scene.KINDS`; with two things in the picture, two are high."""
    things: dict[str, Tensor]
    """For each name of OF_THINGS (B, 24, answers) logits, of the thing of each kind."""
    pictures: dict[str, Tensor]
    """For each name of OF_PICTURES (B, answers) logits."""
    known: Tensor
    """(B,) logit that the picture shows the toy world at all."""
    identity: Tensor
    """(B, E) unit vectors; the cosine tells the same thing from others like it."""

    def labels(self) -> list[dict[str, str | int]]:
        """In words: `kind` and, with two things, `second_kind`; what the first is like; what the picture is
        like.
        """
        return [self._label(i) for i in range(len(self.kinds))]

    def scores(self, scenes: Sequence[Scene]) -> dict[str, list[bool | None]]:
        """Whether each picture shows what its scene asks for; None where that cannot be seen.

        `kind` is right when the kinds of all the scene's things are the likeliest, `count` when it sees as
        many things. Colours, materials, sizes, accessories and effects are those of the first thing, read
        under its true kind.
        """
        rows = [self._score(i, scene) for i, scene in enumerate(scenes)]
        return {name: [row[name] for row in rows] for name in rows[0]} if rows else {}

    def _label(self, i: int) -> dict[str, str | int]:
        first, second = self.kinds[i].topk(2).indices.tolist()
        answers = {name: _answer(logits[i], OF_PICTURES[name]) for name, logits in self.pictures.items()}
        answers |= {name: _answer(logits[i, first], OF_THINGS[name]) for name, logits in self.things.items()}
        count = 1 if answers["relation"] == NONE else 2
        kinds = {"kind": KINDS[first]} | ({"second_kind": KINDS[second]} if count == 2 else {})
        return kinds | answers | {"count": count}

    def _score(self, i: int, scene: Scene) -> dict[str, bool | None]:
        thing = scene.things[0]
        row = KINDS.index(thing.kind)
        seen = {name: _answer(logits[i, row], OF_THINGS[name]) for name, logits in self.things.items()}
        seen |= {name: _answer(logits[i], OF_PICTURES[name]) for name, logits in self.pictures.items()}
        wanted = {name: getattr(thing, name) or NONE for name in OF_THINGS}
        wanted |= {name: getattr(scene, name) or NONE for name in OF_PICTURES}
        right: dict[str, bool | None] = {name: seen[name] == answer for name, answer in wanted.items()}
        likeliest = self.kinds[i].topk(len(scene.things)).indices.tolist()
        right["kind"] = {KINDS[k] for k in likeliest} == {t.kind for t in scene.things}
        right["count"] = (seen["relation"] == NONE) == (len(scene.things) == 1)
        if scene.style in COLOURLESS_STYLES:
            right["colour"] = None
        if scene.place == "green screen":
            right["time"] = None
        return right


class Judge(nn.Module):
    """Pictures (B, 3, H, W) in [-1, 1], 128 px and about, to a verdict."""

    def __init__(self, widths: Sequence[int], depths: Sequence[int], identity: int) -> None:
        super().__init__()
        self.shape = {"widths": list(widths), "depths": list(depths), "identity": identity}
        config = ResNetConfig(
            embedding_size=widths[0], hidden_sizes=list(widths), depths=list(depths), layer_type="basic"
        )
        width = widths[-1]
        self.backbone = ResNetModel(config)
        self.kinds = nn.Linear(width, len(KINDS))
        self.shared = nn.ModuleDict({name: nn.Linear(width, len(a)) for name, a in OF_THINGS.items()})
        self.by_kind = nn.ModuleDict(
            {name: nn.Linear(width, len(KINDS) * len(a), bias=False) for name, a in OF_THINGS.items()}
        )
        self.pictures = nn.ModuleDict({name: nn.Linear(width, len(a)) for name, a in OF_PICTURES.items()})
        self.known = nn.Linear(width, 1)
        self.identity = nn.Linear(width, identity)
        for head in self.by_kind.children():
            nn.init.zeros_(head.get_parameter("weight"))

    def features(self, pixels: Tensor) -> Tensor:
        """(B, width) features under the heads, of pictures (B, 3, H, W) in [-1, 1]: for distances of sets."""
        return self.backbone(pixels).pooler_output.flatten(1)

    def forward(self, pixels: Tensor) -> Verdict:
        x = self.features(pixels)
        things = {
            name: self.shared[name](x)[:, None] + head(x).unflatten(1, (len(KINDS), -1))
            for name, head in self.by_kind.items()
        }
        pictures = {name: head(x) for name, head in self.pictures.items()}
        identity = functional.normalize(self.identity(x), dim=-1)
        return Verdict(self.kinds(x), things, pictures, self.known(x)[:, 0], identity)

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> Judge:
        """The judge from a folder with `config.json` and `model.safetensors`, in single precision, frozen."""
        shape = json.loads((folder / "config.json").read_text())
        judge = cls(shape["widths"], shape["depths"], shape["identity"])
        # The numbers of batches that normalisation has seen are not kept: they matter in training only.
        counters = {name: v for name, v in judge.state_dict().items() if not v.is_floating_point()}
        state = {name: value.float() for name, value in load_file(folder / "model.safetensors").items()}
        judge.load_state_dict(counters | state)
        return judge.to(device).eval().requires_grad_(requires_grad=False)


def _answer(logits: Tensor, answers: tuple[str, ...]) -> str:
    return answers[int(logits.argmax())]
