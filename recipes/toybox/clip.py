"""Stage `clip`: pictures and words in one space (Radford et al. 2021, "Learning Transferable Visual Models
From Natural Language Supervision"), from nothing.

The loss is theirs, symmetric cross-entropy over the similarities in a batch, with one hard negative for
every caption: the same wording of a scene that differs in one thing said, such as a colour, a kind or a
relation. The denoiser's text encoder begins as its text tower, so pairs that differ in one word must get
embeddings that differ.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPConfig, CLIPModel, CLIPTextModel, CLIPTokenizer

from recipes.toybox import augment, autoencoder, card, pictures, tokenizer
from recipes.toybox.loop import Player, Run, train
from recipes.toybox.scales import MAX_TOKENS, SIZE, ClipSize
from scumble.world.words import caption, swapped

PATCH = 16
LARGEST_SCALE = math.log(100.0)
ROUND_TRIPS = 8
"""One picture in this many goes through the autoencoder and back first, where the scale says so."""


def stage(run: Run) -> None:
    """Train CLIP and write it in half precision."""
    words = tokenizer.load(run.out)
    model = load(run.start, run.device) if run.start else build(run.scale.clip, words).to(run.device)
    pixels = pictures.load(run, varied=True)
    texts = pictures.captions(run, len(pixels))
    train(
        "clip",
        [Player(network=model, loss=_Contrast(model, pixels, texts, run))],
        run.fit(run.scale.fit_clip),
        run,
    )
    save(model, folder(run.out))
    card.record(run.out, "clip", run.facts("clip", run.scale.fit_clip) | scores(model, words, run))


def folder(out: Path) -> Path:
    return out / "clip"


def load(out: Path, device: str = "cpu") -> CLIPModel:
    """The model in single precision, in evaluation mode."""
    return CLIPModel.from_pretrained(folder(out), dtype=torch.float32).to(device).eval()


def save(model: CLIPModel | CLIPTextModel, place: Path) -> None:
    """Write a copy in half precision; the model itself keeps its precision, and its folder says so."""
    state = {
        name: value.half() if value.is_floating_point() else value
        for name, value in model.state_dict().items()
    }
    model.save_pretrained(place, state_dict=state)


def build(size: ClipSize, words: CLIPTokenizer) -> CLIPModel:
    """A CLIP with random weights that fits the tokenizer."""
    text = {
        "vocab_size": len(words),
        "hidden_size": size.text_width,
        "intermediate_size": 4 * size.text_width,
        "num_hidden_layers": size.text_layers,
        "num_attention_heads": size.text_width // size.head,
        "max_position_embeddings": MAX_TOKENS,
        "bos_token_id": words.bos_token_id,
        "eos_token_id": words.eos_token_id,
        "pad_token_id": words.pad_token_id,
        "projection_dim": size.projection,
    }
    vision = {
        "hidden_size": size.vision_width,
        "intermediate_size": 4 * size.vision_width,
        "num_hidden_layers": size.vision_layers,
        "num_attention_heads": size.vision_width // size.head,
        "image_size": SIZE,
        "patch_size": PATCH,
        "projection_dim": size.projection,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=size.projection))


def image_features(model: CLIPModel, pixels: Tensor) -> Tensor:
    """Unit vectors (B, P) of pictures (B, 3, H, W) in [-1, 1]."""
    hidden = model.vision_model(pixels).pooler_output
    return functional.normalize(model.visual_projection(hidden), dim=-1)


def text_features(model: CLIPModel, ids: Tensor) -> Tensor:
    """Unit vectors (B, P) of token ids (B, L)."""
    hidden = model.text_model(ids).pooler_output
    return functional.normalize(model.text_projection(hidden), dim=-1)


class _Contrast:
    """The loss of a step: pictures against captions and captions of look-alikes."""

    def __init__(self, model: CLIPModel, pixels: Tensor, texts: pictures.Captions, run: Run) -> None:
        self.model, self.pixels, self.texts, self.run = model, pixels, texts, run
        self.batch = run.scale.fit_clip.batch
        self.vision = run.compiled(_Tower(model.vision_model, model.visual_projection))
        self.text = run.compiled(_Tower(model.text_model, model.text_projection))
        self.vae = autoencoder.load(run.out, run.device) if run.scale.round_trips else None

    def __call__(self, step: int) -> Tensor:
        generator = self.run.generator("clip", step)
        device = self.pixels.device
        index = torch.randint(len(self.pixels), (self.batch,), generator=generator, device=device)
        wording = torch.randint(self.texts.ids.shape[1], (self.batch,), generator=generator, device=device)
        images = augment.mixed(self._pictures(index), generator)
        plain, other = (table[index, wording].long() for table in (self.texts.ids, self.texts.swapped))
        seen = self.vision(images)  # (B, P)
        said = self.text(torch.cat([plain, other]))  # (2 B, P)
        scale = self.model.logit_scale.clamp(max=LARGEST_SCALE).exp()
        similarity = scale * seen.float() @ said.float().T  # (B, 2 B)
        # The same words can tell two pictures of a batch, or the swapped scene: those are no negatives.
        same = (torch.cat([plain, other])[None] == plain[:, None]).all(-1)
        target = torch.arange(self.batch, device=device)
        same[target, target] = False
        similarity = similarity.masked_fill(same, -torch.inf)
        by_picture = functional.cross_entropy(similarity, target)
        by_text = functional.cross_entropy(similarity[:, : self.batch].T, target)
        return 0.5 * (by_picture + by_text)

    @torch.no_grad()
    def _pictures(self, index: Tensor) -> Tensor:
        """The chosen pictures, some of them after a way through the autoencoder, as generated ones look."""
        images = pictures.pick(self.pixels, index)
        if self.vae is not None:
            some = len(images) // ROUND_TRIPS
            images[:some] = self.vae(images[:some]).sample.clamp(-1.0, 1.0).to(images)
        return images


class _Tower(nn.Module):
    """A tower with its projection, so that both are compiled as one."""

    def __init__(self, tower: nn.Module, projection: nn.Module) -> None:
        super().__init__()
        self.tower, self.projection = tower, projection

    def forward(self, x: Tensor) -> Tensor:
        return functional.normalize(self.projection(self.tower(x).pooler_output), dim=-1)


@torch.no_grad()
def scores(model: CLIPModel, words: CLIPTokenizer, run: Run) -> dict[str, float]:
    """On held-out combinations: how often a picture finds its canonical caption among 100, and how often it
    prefers it to the caption of a look-alike.
    """
    model.eval()
    scenes = pictures.held_out(run, run.scale.held_out)
    pixels = pictures.drawn(scenes, run.device).float() / 127.5 - 1.0
    told = [caption(scene) for scene in scenes]
    others = [caption(swapped(scene, scene.seed)) for scene in scenes]
    seen = image_features(model, pixels)
    said, other = (text_features(model, pictures.tokens(words, t).to(run.device)) for t in (told, others))
    preferred = ((seen * said).sum(-1) > (seen * other).sum(-1)).float().mean()
    return {"retrieval among 100": retrieval(model, words, pixels, told), "told apart": float(preferred)}


@torch.no_grad()
def retrieval(model: CLIPModel, words: CLIPTokenizer, pixels: Tensor, told: list[str]) -> float:
    """Share of pictures (N, 3, H, W) in [-1, 1] whose caption is the nearest among those of each hundred
    pictures.
    """
    seen = image_features(model, pixels)
    said = text_features(model, pictures.tokens(words, told).to(pixels.device))
    hits = 0
    for first in range(0, len(told), 100):
        block = slice(first, first + 100)
        best = (seen[block] @ said[block].T).argmax(1).tolist()
        hits += sum(told[first + i] == told[first + j] for i, j in enumerate(best))
    return hits / len(told)


def words_of(folder: Path) -> CLIPTokenizer:
    """The tokenizer of a finished toybox."""
    return tokenizer.load(folder)
