"""The loop of Text2LIVE for a picture (2204.02491, section 3): crops of it are edited by a generator, CLIP
looks at the results, and the generator learns.

Letters: H x W is the picture's own size, h x w the size it is worked at.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from scumble.core import rng
from scumble.core.events import Loop
from scumble.data.guided import guided_filter
from scumble.methods.text2live import losses
from scumble.methods.text2live.config import Config
from scumble.methods.text2live.texts import Texts
from scumble.methods.text2live.views import GREEN, Views, draw_crop, draw_jitter, draw_views, over
from scumble.models.clip import Clip
from scumble.models.clip_vision import see, view_size
from scumble.models.edit_layer import drawn
from scumble.models.relevancy import relevancy_map, seen_share
from scumble.training.settle import settle

__all__ = ["Bank", "Canvas", "Critic", "edit", "relevant", "sparsity", "wanted_region"]


@dataclass(frozen=True, slots=True)
class Bank:
    """The features of an edit's texts in every sentence: (n, E) each; prompt and region in the same ones."""

    prompt: Tensor
    region: Tensor
    screen: Tensor

    @classmethod
    @torch.no_grad()
    def of(cls, clip: Clip, texts: Texts, config: Config) -> Bank:
        """The features of `texts` in the sentences of `config`."""

        def put(templates: tuple[str, ...], words: str) -> Tensor:
            return clip.text_features([template.format(words) for template in templates])

        return cls(
            put(config.templates, texts.prompt),
            put(config.templates, texts.region),
            put(config.screen_templates, texts.screen),
        )


@dataclass(frozen=True, slots=True)
class Critic:
    """CLIP's losses on a layer."""

    clip: Clip
    bank: Bank
    config: Config

    def __call__(
        self, result: Tensor, green: Tensor, source: Tensor, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Each loss times its weight, of a result, the layer over green, and the input, (1, 3, h, w) in [0,
        1] each. What has no weight is not computed."""
        config, size = self.config, view_size(self.clip, result.shape[-2], result.shape[-1])

        def drawn() -> Views:
            smallest = config.smallest_crop
            return draw_views(generator, config.views, size, smallest, hue=config.hue, grey=config.grey)

        views = drawn()
        before = views if config.paired else drawn()
        screened = drawn()
        prompt, region = _drawn(generator, self.bank.prompt, self.bank.region)
        (screen,) = _drawn(generator, self.bank.screen)

        now = {"views": views.of(result, config.fill)}
        then: dict[str, Tensor] = {}
        if config.green:
            now["green"] = screened.of(green, config.fill)
        if config.direction:
            then["views"] = before.of(source, config.fill)
        if config.structure:
            now["whole"], then["whole"] = _resized(result, size), _resized(source, size)
        after, tokens = self._seen(now)
        with torch.no_grad():
            earlier, tokens_before = self._seen(then)

        kind = config.distance
        parts = {"composition": config.composition * losses.distance(after["views"], prompt, kind)}
        if config.direction:
            moved = losses.direction(after["views"], earlier["views"], prompt, region)
            parts["direction"] = config.direction * moved
        if config.green:
            parts["screen"] = config.green * losses.distance(after["green"], screen, kind)
        if config.structure:
            parts["structure"] = config.structure * losses.structure(tokens["whole"], tokens_before["whole"])
        return parts

    def _seen(self, pictures: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Features and tokens of several lots of views of one size, by name, in one batch."""
        if not pictures:
            return {}, {}
        seen = see(self.clip, torch.cat(list(pictures.values())))
        features, tokens = dict[str, Tensor](), dict[str, Tensor]()
        first = 0
        for name, lot in pictures.items():
            rows = slice(first, first + len(lot))
            features[name], tokens[name], first = seen.features[rows], seen.tokens[rows], rows.stop
        return features, tokens


class Canvas:
    """One picture with its generator, which goes on from one prompt to the next instead of starting anew.

    `picture` (1, 3, H, W) and a person's `mask` (1, 1, H, W), 1 where the layer may be, in [0, 1].
    """

    def __init__(
        self, clip: Clip, picture: Tensor, config: Config, *, seed: int, mask: Tensor | None = None
    ) -> None:
        self.clip, self.config, self.seed, self.prompts = clip, config, seed, 0
        self.picture = _worked_at(picture.to(clip.device), config.size)
        size = (self.picture.shape[-2], self.picture.shape[-1])
        self.mask = None if mask is None else interpolate(mask.to(clip.device), size, mode="area")
        self.network = drawn(size, seed, channels=config.channels, skip_channels=config.skip_channels).to(
            clip.device
        )

    def region(self, texts: Texts) -> Tensor:
        """(1, 1, h, w) in [0, 1]: where the layer is wanted at first. A person's mask; else relevancy to the
        region, but where it speaks for the negatives more."""
        if self.mask is not None:
            return self.mask
        return wanted_region(self.clip, self.picture, texts, self.config)

    def found(self, texts: Texts) -> float:
        """Whether there is anything of the region in the picture, from 0, nothing, to 1; see `seen_share`. An
        edit of the whole picture has all of it."""
        if texts.whole:
            return 1.0
        relevancy = relevant(self.clip, self.picture, texts.region, self.config)
        return seen_share(self.clip, self.picture, relevancy, _text(self.clip, texts.region, self.config))

    def layer(self) -> Tensor:
        """(1, 4, h, w) in [0, 1]: the layer of the whole picture as it is now."""
        with torch.no_grad():
            return self._bounded(self.network(self.picture), self.mask)

    def losses(
        self, critic: Critic, region: Tensor | None, step: int, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Each loss times its weight, at one step: of a crop, and now and then of the whole picture too."""
        config, whole = critic.config, (self.picture.shape[-2], self.picture.shape[-1])
        crop = draw_crop(
            generator, whole, cover=config.cover, scales=config.scales, flip=config.flip,
            least=2 ** len(self.network.downs) + 1,
        )  # fmt: skip
        jitter = draw_jitter(generator, 1, config.jitter)
        wanted, bounds = (None if part is None else crop(part) for part in (region, self.mask))
        parts = self._of(critic, jitter(crop(self.picture)), wanted, bounds, generator)
        if step % config.full_every == 0:
            for name, value in self._of(critic, self.picture, region, self.mask, generator).items():
                parts[name] = parts[name] + value
        if "bootstrapping" in parts:
            share = losses.bootstrapping_share(
                step, config.bootstrapping_until * config.steps, config.bootstrapping_fall
            )
            parts["bootstrapping"] = share * parts["bootstrapping"]
        return parts

    # Parts

    def _of(
        self, critic: Critic, source: Tensor, region: Tensor | None, mask: Tensor | None,
        generator: torch.Generator,
    ) -> dict[str, Tensor]:  # fmt: skip
        layer = self._bounded(self.network(source), mask)
        opacity = layer[:, 3:]
        parts = critic(over(layer, source), over(layer, source.new_tensor(GREEN)), source, generator)
        parts["sparsity"] = sparsity(opacity, critic.config)
        if region is not None:
            parts["bootstrapping"] = critic.config.bootstrapping * losses.bootstrapping(opacity, region)
        return parts

    def _bounded(self, layer: Tensor, mask: Tensor | None) -> Tensor:
        return layer if mask is None else torch.cat([layer[:, :3], layer[:, 3:] * mask], dim=1)


def edit(canvas: Canvas, texts: Texts, *, preview_every: int = 0) -> Loop[Tensor]:
    """Learn a layer (1, 4, h, w) in [0, 1] for `texts`, from where the canvas stands.

    A record a step; with `preview_every` a small picture goes with every so many of them. Ends early once the
    losses have settled. Raises NumericError where a loss is no number.
    """
    config = canvas.config.of_texts(texts)
    critic = Critic(canvas.clip, Bank.of(canvas.clip, texts, config), config)
    wanted = config.bootstrapping > 0 and config.bootstrapping_until > 0
    region = canvas.region(texts) if wanted else None
    number, canvas.prompts = canvas.prompts, canvas.prompts + 1

    def loss(step: int) -> dict[str, Tensor]:
        generator = rng.generator(rng.derive(canvas.seed, "text2live", number, step))
        return canvas.losses(critic, region, step, generator)

    def preview() -> Tensor:
        return over(canvas.layer(), canvas.picture)

    yield from settle(
        canvas.network,
        loss,
        config,
        stage="painting",
        least=config.at_least,
        passing="bootstrapping",
        preview=preview,
        preview_every=preview_every,
    )
    return canvas.layer()


def wanted_region(clip: Clip, picture: Tensor, texts: Texts, config: Config) -> Tensor:
    """(1, 1, h, w) in [0, 1]: relevancy of a picture (1, 3, h, w) to the region, with an edge where the
    config has one, but where it speaks for the negatives more."""
    found = relevant(clip, picture, texts.region, config)
    if config.relevancy_edge:
        found = guided_filter(found, picture, max(1, min(picture.shape[-2:]) // 8))
        found = _smooth_step(found / config.relevancy_edge - 0.5)
    for words in config.negatives:
        found = found * (relevant(clip, picture, words, config) < config.negative_threshold)
    return found


def relevant(clip: Clip, picture: Tensor, words: str, config: Config) -> Tensor:
    """(1, 1, h, w) in [0, 1]: relevancy of a picture (1, 3, h, w) to words, in the mean of all sentences."""
    options = {"blocks": config.relevancy_blocks, "looks": config.relevancy_looks}
    return relevancy_map(clip, picture, _text(clip, words, config), **options)


@torch.no_grad()
def _text(clip: Clip, words: str, config: Config) -> Tensor:
    """(E,)."""
    return clip.text_features([template.format(words) for template in config.templates]).mean(0)


def sparsity(opacity: Tensor, config: Config) -> Tensor:
    """The weighted sum of the two measures of how much opacity there is: equation 7."""
    few = config.sparsity_l1 * opacity.abs().mean() + config.sparsity_l0 * losses.smooth_l0(opacity)
    return config.sparsity * few


# Parts


def _smooth_step(x: Tensor) -> Tensor:
    """0 up to 0, 1 from 1 on, with level ends between."""
    x = x.clamp(0, 1)
    return x.square() * (3 - 2 * x)


def _drawn(generator: torch.Generator, *banks: Tensor) -> list[Tensor]:
    """As the paper's code does: a number from 1 to N, and as many of the N texts, some perhaps twice."""
    size = len(banks[0])
    count = int(torch.randint(1, size + 1, (1,), generator=generator))
    rows = torch.randint(size, (count,), generator=generator).to(banks[0].device)
    return [bank[rows] for bank in banks]


def _resized(picture: Tensor, size: tuple[int, int]) -> Tensor:
    if picture.shape[-2:] == size:
        return picture
    return interpolate(picture, size, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)


def _worked_at(picture: Tensor, short_side: int) -> Tensor:
    height, width = picture.shape[-2:]
    factor = min(1.0, short_side / min(height, width))
    return _resized(picture, (round(height * factor), round(width * factor)))
