"""What making a data set will need, without making it."""

from __future__ import annotations

import time

import torch

from scumble.core import rng
from scumble.datagen.exact_pairs import edit_of
from scumble.diffusion.samplers import SAMPLERS
from scumble.models.clip import load_clip
from scumble.sampling import estimate
from scumble.sampling.estimate import Estimate
from scumble.verbs.data_config import InstructionsConfig
from scumble.verbs.data_edits import edits_of
from scumble.verbs.data_instructions import clip_name
from scumble.world.pairs import render_edits

__all__ = ["estimate_instructions"]


def estimate_instructions(config: InstructionsConfig, *, workers: int = 1) -> Estimate:
    """Time for the pictures and memory of all workers together; what a language model takes is not in it.

    Traces one step, one decoding and one judging without running them; renders one exact pair.
    """
    settings = config.model_dump(mode="json", exclude_none=True)
    edits = edits_of(config)
    if config.by == "exact":
        begin = time.perf_counter()
        render_edits([edit_of(rng.derive(config.seed, "exact", 0), config.profile)], size=config.size or 128)
        seconds = (time.perf_counter() - begin) * edits / workers
        return Estimate(seconds=seconds, memory_bytes=workers * 2**28, settings=settings)
    model = config.load()
    clip = load_clip(clip_name(config), device=str(model.device), offline=config.offline)
    size, n = config.size or model.default_size, config.batch
    shape, at = model.latent_shape(size, size), torch.zeros((), device=model.device)
    condition = model.prompt([""], size=(size, size))
    step = estimate.trace(
        lambda: model.predict(torch.zeros(4 * n, *shape, device=model.device), at, condition)
    )
    decoding = estimate.trace(lambda: model.decode(torch.zeros(1, *shape, device=model.device)))
    judging = estimate.trace(lambda: clip.image_features(torch.zeros(n, 3, size, size, device=model.device)))
    pairs = edits * config.samples
    batches = -(-pairs // n)
    flops = step.flops * SAMPLERS[config.sampler].calls(config.steps) * batches
    flops += 2 * (decoding.flops * pairs + judging.flops * batches)
    weights = estimate.model_bytes(model) + estimate.parameter_bytes(clip.network)
    peak = max(step.peak_bytes, decoding.peak_bytes, judging.peak_bytes)
    seconds = estimate.seconds(flops, model.device, model.dtype) / workers
    return Estimate(seconds=seconds, memory_bytes=workers * (weights + peak), settings=settings)
