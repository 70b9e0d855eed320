"""How large every stage is, on the machines it may run on.

`tiny` runs in seconds and is for tests, `cpu` is a preview for two cores and some hours, `gpu` is the full
recipe for one GPU of the H200 class, each stage within eight minutes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

TOYBOX_VERSION = "0.5-cpu"
"""Of tokenizer, CLIP and autoencoder together: whoever retrains one of them changes it, since all else
leans on them.
"""

SIZE = 128
"""Pictures are squares of this many pixels."""

MAX_TOKENS = 77


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """How long and how fast one network is trained."""

    steps: int
    batch: int
    lr: float
    warmup: int = 200
    cooldown: float = 0.25
    """Share of the steps, at the end, over which the learning rate falls linearly to zero."""
    ema: float = 0.999
    """Decay of the averaged weights, which are what is handed on."""
    weight_decay: float = 0.01
    clip: float = 1.0
    """Largest norm of the gradient."""
    muon: bool = False
    """Whether matrices and kernels are trained by Muon instead of AdamW."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipSize:
    text_width: int = 192
    text_layers: int = 4
    vision_width: int = 192
    vision_layers: int = 4
    projection: int = 128
    head: int = 32
    """Channels of an attention head."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoencoderSize:
    channels: tuple[int, ...] = (16, 32, 64, 128)
    layers: int = 1
    groups: int = 1
    """Of channels normalised together. Groups of a few channels would forget the colour of a plain picture.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class DenoiserSize:
    channels: tuple[int, ...] = (96, 128, 192)
    layers: int = 1
    heads: int | tuple[int, ...] = 4
    """Of attention, on every level or on each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeSize:
    channels: tuple[int, ...] = (32, 64, 128, 256)
    depths: tuple[int, ...] = (1, 1, 2, 1)
    identity: int = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """The settings of all stages on one kind of machine."""

    name: str
    profile: str
    """Which scenes: a name in `scumble.world.sampling.PROFILES`."""
    pictures: int
    varied: int = 0
    """Pictures beyond these, of the profile `full`: for the judge, which has to know the whole world."""
    shard: int = 256
    """Pictures rendered and written at a time."""
    triples: int
    """Of pictures that teach the judge identity."""
    held_out: int = 256
    """Pictures of unseen combinations that each stage scores itself on; for tuning, not for the table of
    results.
    """
    captions: int = 4
    """Wordings kept of each picture's scene."""
    vocabulary: int = 1500
    compile: bool = False
    autocast: bool = False
    """Compute in bfloat16 where that is safe; weights and optimiser stay in float32."""
    round_trips: bool = True
    """Whether CLIP also sees pictures that went through the autoencoder."""
    mirrored: bool = True
    """Whether the denoiser also sees every picture mirrored."""
    simple_first: float = 0.0
    """Share of the denoiser's steps, at the start, that see photos of one thing only."""
    simple_edits: bool = False
    """Whether the instruction-tuned denoiser sees photos of one thing only."""
    crop: int = SIZE
    """Side of the squares that the autoencoder is trained on."""
    perceptual: bool = True
    """Whether the autoencoder also compares features, which needs the stage `features`."""
    adversary_from: float = 1.0
    """Share of the autoencoder's steps after which the patch discriminator joins; 1 leaves it out."""
    clip: ClipSize = field(default_factory=ClipSize)
    autoencoder: AutoencoderSize = field(default_factory=AutoencoderSize)
    denoiser: DenoiserSize = field(default_factory=DenoiserSize)
    upscaler: DenoiserSize = DenoiserSize(channels=(64, 96, 128))
    judge: JudgeSize = field(default_factory=JudgeSize)
    fit_clip: Fit
    fit_features: Fit
    fit_autoencoder: Fit
    fit_denoiser: Fit
    fit_judge: Fit
    fit_upscaler: Fit
    fit_decoder: Fit = Fit(steps=8000, batch=4, lr=5e-4, ema=0.998, warmup=50, cooldown=0.4, muon=True)
    large: int = 0
    """Pictures of twice the side, for the upscaler."""
    edits: int = 0
    """Edits in words with their pictures; at most as many as pictures."""
    fit_instruct: Fit = Fit(steps=4000, batch=32, lr=5e-4)


TINY = Scale(
    name="tiny",
    profile="full",
    pictures=16,
    varied=8,
    triples=4,
    held_out=4,
    shard=8,
    captions=2,
    vocabulary=600,
    crop=32,
    adversary_from=0.5,
    clip=ClipSize(text_width=32, text_layers=1, vision_width=32, vision_layers=2, projection=16, head=16),
    autoencoder=AutoencoderSize(channels=(8, 8, 8, 8)),
    denoiser=DenoiserSize(channels=(32, 32), heads=2),
    upscaler=DenoiserSize(channels=(32, 32), heads=2),
    judge=JudgeSize(channels=(8, 8, 16, 16), depths=(1, 1, 1, 1), identity=8),
    fit_clip=Fit(steps=4, batch=4, lr=1e-3, warmup=2),
    fit_features=Fit(steps=4, batch=4, lr=1e-3, warmup=2),
    fit_autoencoder=Fit(steps=4, batch=2, lr=1e-3, warmup=2),
    fit_denoiser=Fit(steps=4, batch=4, lr=1e-3, warmup=2),
    fit_judge=Fit(steps=4, batch=4, lr=1e-3, warmup=2),
    fit_upscaler=Fit(steps=4, batch=2, lr=1e-3, warmup=2),
    large=4,
    fit_decoder=Fit(steps=4, batch=2, lr=1e-3, warmup=2),
    edits=12,
    fit_instruct=Fit(steps=4, batch=4, lr=1e-3, warmup=2),
)
CPU = Scale(
    name="cpu",
    profile="core",
    pictures=24_576,
    varied=8192,
    triples=1024,
    held_out=96,
    shard=128,
    autocast=True,
    round_trips=False,
    mirrored=False,
    simple_first=0.6,
    simple_edits=True,
    crop=64,
    perceptual=False,
    clip=ClipSize(text_layers=3, vision_width=128),
    autoencoder=AutoencoderSize(channels=(24, 48, 96, 96)),
    denoiser=DenoiserSize(heads=(3, 4, 6)),
    fit_clip=Fit(steps=3000, batch=128, lr=1.5e-3, ema=0.99, warmup=100),
    fit_features=Fit(steps=500, batch=32, lr=1e-3, ema=0.99),
    fit_autoencoder=Fit(steps=6000, batch=8, lr=1e-3, ema=0.998, warmup=100, cooldown=0.4),
    fit_denoiser=Fit(steps=6000, batch=32, lr=1e-3, warmup=100, cooldown=0.4, muon=True),
    fit_judge=Fit(steps=6000, batch=32, lr=1e-3, ema=0.99, warmup=50, cooldown=0.4, muon=True),
    fit_upscaler=Fit(steps=2500, batch=32, lr=1e-3, ema=0.998, warmup=100, cooldown=0.4, muon=True),
    large=1536,
    edits=24_576,
    fit_instruct=Fit(steps=2200, batch=32, lr=1e-3, ema=0.998, warmup=100, cooldown=0.4, muon=True),
)
GPU = Scale(
    name="gpu",
    profile="full",
    pictures=300_000,
    triples=30_000,
    shard=2000,
    compile=True,
    autocast=True,
    adversary_from=0.7,
    clip=ClipSize(text_width=192, vision_width=256, vision_layers=5, projection=192),
    autoencoder=AutoencoderSize(channels=(32, 64, 128, 128)),
    judge=JudgeSize(channels=(48, 96, 192, 384), depths=(2, 2, 2, 2)),
    fit_clip=Fit(steps=12_000, batch=1024, lr=1e-3, warmup=1000),
    fit_features=Fit(steps=2000, batch=256, lr=1e-3, ema=0.99),
    fit_autoencoder=Fit(steps=16_000, batch=64, lr=5e-4, warmup=500),
    fit_denoiser=Fit(steps=40_000, batch=512, lr=6e-4, ema=0.9995, warmup=1000),
    fit_judge=Fit(steps=12_000, batch=512, lr=1e-3, warmup=500),
    fit_upscaler=Fit(steps=10_000, batch=256, lr=5e-4, warmup=500),
    large=20_000,
    edits=300_000,
    fit_instruct=Fit(steps=20_000, batch=512, lr=4e-4, ema=0.9995, warmup=1000),
)
SCALES = {scale.name: scale for scale in (TINY, CPU, GPU)}
