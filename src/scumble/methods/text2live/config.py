"""Settings of Text2LIVE, with the paper's beside those for a CPU."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field

from scumble.methods.text2live.texts import SCREENS, TEMPLATES, Texts
from scumble.training.settle import SettleConfig

__all__ = ["PRESETS", "Config"]


def _templates(templates: tuple[str, ...]) -> tuple[str, ...]:
    if not templates or any("{}" not in template for template in templates):
        raise ValueError("there has to be one at least, and each needs {} where the words go")
    return templates


def _rising(pair: tuple[float, float]) -> tuple[float, float]:
    if not 0.1 <= pair[0] <= pair[1] <= 4:
        raise ValueError("it has to be two numbers from 0.1 to 4, the smaller first")
    return pair


STYLES_LOOSER = 0.25
"""What is left of the weight of structure in edits of style: brush strokes and pixels are structure too."""

Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Templates = Annotated[tuple[str, ...], AfterValidator(_templates)]


class Config(SettleConfig):
    """How a layer is learnt. Weights are those of the losses, in the paper's order."""

    size: Annotated[int, Field(ge=16, le=2048)] = 256
    """Shorter side at which the layer is learnt, in pixels; a smaller picture keeps its own."""
    channels: Annotated[int, Field(ge=1, le=512)] = 32
    """Width of the generator."""
    skip_channels: Annotated[int, Field(ge=1, le=128)] = 4
    """Width of the generator's skips."""
    views: Annotated[int, Field(ge=1, le=64)] = 4
    """Views of a picture that CLIP sees in a step; the first is all of it, the others crops."""
    smallest_crop: Annotated[float, Field(gt=0, le=1)] = 0.6
    """Side of a crop, at least, as a share of the picture's."""
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    """The most by which the hue of such a view is turned, as a share of the circle."""
    grey: Share = 0.15
    """How often such a view is made grey."""
    paired: bool = True
    """Look at input and result in the same views, so that they differ by the edit alone."""
    full_every: Annotated[int, Field(ge=1)] = 75
    """Every so many steps the whole picture, untouched, is trained on too."""
    flip: Share = 0.5
    """How often the training picture is mirrored."""
    jitter: Share = 0.1
    """How often its colours are jittered."""
    scales: Annotated[tuple[float, float], AfterValidator(_rising)] = (0.8, 1.2)
    """Between which it is resized."""
    cover: Annotated[float, Field(gt=0, le=1)] = 0.85
    """Share of its sides that a training crop has at least."""
    templates: Templates = TEMPLATES
    """Sentences that the prompt and the region are put into."""
    screen_templates: Templates = SCREENS
    """Sentences that say a layer lies over green."""
    distance: Literal["spherical", "cosine"] = "spherical"
    """How far a picture is from a text."""
    composition: Weight = 1.0
    """The whole result is like the prompt."""
    direction: Weight = 1.0
    """The result has moved from the input as the prompt from the region."""
    green: Weight = 1.0
    """The layer alone, over green, is like its text."""
    structure: Weight = 2.0
    """Patches of the result are as like one another as those of the input."""
    sparsity: Weight = 6.0
    """Opacity is little and decided; weighs the two below."""
    sparsity_l1: Weight = 0.01
    """The mean opacity."""
    sparsity_l0: Weight = 0.01
    """The share of pixels with any opacity, smoothly."""
    bootstrapping: Weight = 3.0
    """The opacity is where the region is, at first."""
    bootstrapping_until: Share = 0.4
    """Share of the steps over which that weight falls to nothing."""
    bootstrapping_fall: Literal["linear", "exponential", "constant"] = "linear"
    """How it falls: evenly, by a hundredth a step, or not until its end."""
    at_least: Share = 0.4
    """Share of the steps that are taken in any case; after it learning ends once the losses have settled."""
    negatives: tuple[str, ...] = ()
    """Words for what has to stay as it is: relevancy to them is taken out of the region."""
    negative_threshold: Share = 0.6
    """From which relevancy on a pixel belongs to such words."""
    styles_cover: bool = True
    """Edits of style have no region: what wants the layer to be somewhere has no weight for them."""
    relevancy_blocks: Annotated[int, Field(ge=1, le=100)] = 1
    """The last blocks of CLIP that relevancy is read from."""
    relevancy_edge: Share = 0.0
    """Relevancy, brought along the picture's edges, about which the region's own soft edge lies; 0 takes
    relevancy itself for the region."""
    relevancy_looks: Annotated[int, Field(ge=1, le=3)] = 1
    """1 looks at the whole picture, 2 and 3 at crops of it too, for a finer map."""
    haze: Annotated[float, Field(ge=0, lt=0.5)] = 0.04
    """Opacity that counts as none in the result, and the same below 1 as all."""

    frame_distance: Annotated[int, Field(ge=1)] = 2
    """Of a video: frames from each of the three that are looked at together to the next."""
    fill: Share = 1.0
    """What surrounds a view that was turned or moved: 1 white, 0 black."""

    def of_texts(self, texts: Texts) -> Self:
        """The settings for an edit of `texts`: those of style are not sparse, nor shown over green, nor
        bootstrapped, as their layer is everywhere, and less bound to the input's structure."""
        if not (texts.whole and self.styles_cover):
            return self
        loose = STYLES_LOOSER * self.structure
        return self.replace(green=0.0, sparsity=0.0, bootstrapping=0.0, structure=loose)


_CAPTION = ("{}", "a photo of {}", "a good photo of {}", "a nice photo of {}")
_TOYBOX = Config(
    size=128,
    templates=_CAPTION,
    screen_templates=("a photo of {} in front of a green screen",),
    # Of four blocks the last alone says little of where a thing is: an area under the curve of 0.62 over 12
    # scenes, of the last two 0.94.
    relevancy_blocks=2,
    relevancy_looks=2,
    # Intersection over union with the true region, on 12 scenes: 0.38 as it is, 0.63 so.
    relevancy_edge=0.3,
    bootstrapping=10.0,
    bootstrapping_until=1.0,
    at_least=0.7,
    lr=5e-3,
    skip_channels=16,
    # This CLIP saw no picture in other hues or in grey.
    hue=0.02,
    grey=0.0,
)
_PAPER = Config(
    steps=1000,
    patience=0,
    lr=2.5e-3,
    lr_decay=0.99,
    size=512,
    channels=128,
    views=16,
    paired=False,
    bootstrapping=10.0,
    bootstrapping_until=1.0,
    styles_cover=False,
    haze=0.0,
)
_VIDEO: dict[str, float] = {
    "structure": 3.0,
    "sparsity": 0.1,
    "sparsity_l0": 0.005,
    "bootstrapping": 0.0,
    "bootstrapping_until": 0.0,
    "at_least": 0.0,
    "fill": 0.0,
}
"""What the paper's code has other for videos than for pictures; its crops, of 0.95, are in `paper-video`."""

PRESETS: dict[str, Config] = {
    # A third of the steps, a quarter of the width and of the views: for CPUs.
    "fast": Config(),
    # What the paper's code has for pictures, but for the optimiser (see the docstring of the package).
    "paper": _PAPER,
    # The toy world's captions know these wordings only, and its pictures are small.
    "toybox": _TOYBOX,
    "video": Config().replace(**_VIDEO, views=2),
    "paper-video": _PAPER.replace(**_VIDEO, cover=0.95, steps=3000, lr_decay=0.999, views=6, size=2000),
    "toybox-video": _TOYBOX.replace(**_VIDEO, views=2),
}
"""Settings to start from."""
