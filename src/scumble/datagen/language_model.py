"""A language model on this machine that writes edits, and tuning one to (Brooks et al. 2022, section 3.1.1).

Any causal language model that transformers loads will do. Each caption has a generator of its own, so what is
said about it depends on the seed, the caption and the attempt, and, by rounding alone, on the group.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    LogitsProcessor,
    StoppingCriteria,
)

from scumble.core import rng
from scumble.core.errors import InputError, ModelError
from scumble.core.events import Loop
from scumble.core.files import atomic_folder
from scumble.core.runs import RunFolder
from scumble.datagen.completions import END, Answer, Sampling, answer, question
from scumble.datagen.triples import Triple
from scumble.models.hub import download, is_hub_id
from scumble.training.fit import FitConfig, Fitted, Group, fit

__all__ = ["LanguageModel", "TuneConfig", "load_language_model", "save_language_model", "tune"]

_FILES = ("*.json", "*.safetensors", "*.txt", "*.model")
_TAIL = 16
"""Tokens at the end of an answer in which the end mark is looked for."""
_IGNORED = -100


@dataclass(frozen=True, slots=True)
class LanguageModel:
    """A causal language model with its tokenizer; calling it asks about captions."""

    network: Any
    tokenizer: Any
    sampling: Sampling
    seed: int = 0

    @torch.inference_mode()
    def __call__(self, captions: Sequence[str], attempt: int) -> list[Answer]:
        """An answer for each caption; none where the end mark did not come, or the caption is too long."""
        encoded = [self.tokenizer(question(c), add_special_tokens=False).input_ids for c in captions]
        room = getattr(self.network.config, "max_position_embeddings", None) or 2**30
        fits = [i for i, ids in enumerate(encoded) if 0 < len(ids) < room]
        answers = [Answer(None, "too long")] * len(captions)
        if not fits:
            return answers
        longest = max(len(encoded[i]) for i in fits)
        pad, device = _padding(self.tokenizer), self.network.device
        ids = torch.tensor([[pad] * (longest - len(encoded[i])) + encoded[i] for i in fits], device=device)
        seen = torch.tensor([[0] * (longest - len(encoded[i])) + [1] * len(encoded[i]) for i in fits])
        seeds = [rng.derive(self.seed, "answer", captions[i], attempt) for i in fits]
        settings = GenerationConfig(
            do_sample=False,  # the chance is in the processor, whose generators are the captions' own
            max_new_tokens=min(self.sampling.max_tokens, room - longest),
            pad_token_id=pad,
            eos_token_id=self.tokenizer.eos_token_id,
        )
        said: Any = self.network.generate(
            ids,
            attention_mask=seen.to(device),
            generation_config=settings,
            logits_processor=[_Draw(self.sampling, rng.generators(seeds), longest)],
            stopping_criteria=[_Ended(self.tokenizer, longest)],
        )
        texts = self.tokenizer.batch_decode(said[:, longest:], skip_special_tokens=True)
        for i, text in zip(fits, texts, strict=True):
            answers[i] = Answer(text.split(END)[0]) if END in text else Answer(None)
        return answers


class _Draw(LogitsProcessor):
    """Makes the largest logit a draw from the distribution: logits / T plus Gumbel noise (Gumbel 1954)."""

    def __init__(self, sampling: Sampling, generators: Sequence[torch.Generator], start: int) -> None:
        self.sampling, self.generators, self.start = sampling, generators, start

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        scores = scores.float()  # (B, V)
        if self.sampling.frequency_penalty:
            said = torch.zeros_like(scores)
            new = input_ids[:, self.start :]
            said.scatter_add_(1, new, torch.ones_like(new, dtype=scores.dtype))
            scores = scores - self.sampling.frequency_penalty * said
        if self.sampling.temperature == 0:
            return scores
        scores = scores / self.sampling.temperature
        if self.sampling.top_p < 1:
            ordered, order = scores.softmax(-1).sort(-1, descending=True)
            unlikely = ordered.cumsum(-1) - ordered >= self.sampling.top_p  # the first one always stays
            scores = scores.masked_fill(unlikely.scatter(1, order, unlikely), -torch.inf)
        uniform = torch.stack([torch.rand(scores.shape[1], generator=g) for g in self.generators])
        return scores - (-uniform.clamp(min=1e-20).log()).log().to(scores.device)


class _Ended(StoppingCriteria):
    """A row is done when its end mark has come."""

    def __init__(self, tokenizer: Any, start: int) -> None:
        self.tokenizer, self.start = tokenizer, start

    def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
        del scores
        tails = self.tokenizer.batch_decode(input_ids[:, self.start :][:, -_TAIL:])
        return torch.tensor([END in tail for tail in tails], device=input_ids.device)


def load_language_model(
    name: str | Path, sampling: Sampling, *, seed: int = 0, device: str = "cpu", dtype: str = "float32"
) -> LanguageModel:
    """Load a model from a transformers folder or a hub id, frozen; safe files only, no code of its own.

    Raises ModelError.
    """
    folder = Path(name).expanduser()
    if not folder.is_dir():
        if not is_hub_id(str(name)):
            raise ModelError(f"There is no language model {str(name)!r}.", "Give a folder or a hub id.")
        folder = download(str(name), patterns=_FILES)
    try:
        network: Any = AutoModelForCausalLM.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, dtype=getattr(torch, dtype)
        )
        tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError, ImportError) as problem:
        first = (str(problem).strip().splitlines() or ["it is damaged"])[0]
        raise ModelError(f"{name} is no causal language model that can be used: {first}.") from problem
    network = network.eval().requires_grad_(False).to(device)
    return LanguageModel(network, tokenizer, sampling, seed)


def save_language_model(model: LanguageModel, path: Path) -> None:
    """Write a transformers folder, whole or not at all. Raises InputError if `path` is not empty."""
    with atomic_folder(path) as folder:
        model.network.save_pretrained(folder)
        model.tokenizer.save_pretrained(folder)


class TuneConfig(FitConfig):
    """How a language model is tuned to write edits. The paper tuned for one pass over 700 triples."""

    steps: int = 200
    """Optimiser steps."""
    batch: int = 8
    """Triples in a step."""
    lr: float = 1e-5
    """Learning rate."""
    max_length: int = 512
    """Triples of more tokens are left out."""


def tune(
    model: LanguageModel, triples: Sequence[Triple], config: TuneConfig, *, run: RunFolder | None = None
) -> Loop[Fitted]:
    """Tune `model` in place to answer the questions of `triples`: cross-entropy of the answers' tokens.

    No dropout, so that a stopped run that goes on ends at the same bits. Raises InputError where no triple is
    short enough.
    """
    examples = [_example(model.tokenizer, triple) for triple in triples]
    examples = [(ids, start) for ids, start in examples if len(ids) <= config.max_length]
    if not examples:
        raise InputError(f"No triple has at most {config.max_length} tokens.", "Raise max_length.")
    pad, device = _padding(model.tokenizer), model.network.device

    def loss(step: int, rows: Sequence[int]) -> Tensor:
        chance = rng.generators(rng.derive(config.seed, "tuning", step, row) for row in rows)
        chosen = [examples[int(torch.randint(len(examples), (), generator=g))] for g in chance]
        longest = max(len(ids) for ids, _ in chosen)
        inputs = torch.tensor([ids + [pad] * (longest - len(ids)) for ids, _ in chosen], device=device)
        seen = torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for ids, _ in chosen], device=device)
        targets = torch.tensor(
            [[_IGNORED] * s + ids[s:] + [_IGNORED] * (longest - len(ids)) for ids, s in chosen], device=device
        )
        logits = model.network(input_ids=inputs, attention_mask=seen).logits[:, :-1].float()  # (B, L - 1, V)
        errors = cross_entropy(
            logits.transpose(1, 2), targets[:, 1:], ignore_index=_IGNORED, reduction="none"
        )
        return errors.sum(1) / (targets[:, 1:] != _IGNORED).sum(1)

    model.network.requires_grad_(True)
    try:
        group = Group(dict(model.network.named_parameters()))
        return (yield from fit([group], loss, config, stage="tuning", run=run))
    finally:
        model.network.requires_grad_(False)


def _example(tokenizer: Any, triple: Triple) -> tuple[list[int], int]:
    """The tokens of question and answer, and where the answer begins."""
    asked = tokenizer(question(triple.input_caption), add_special_tokens=False).input_ids
    said = tokenizer(answer(triple), add_special_tokens=False).input_ids
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    return [*asked, *said, *end], len(asked)


def _padding(tokenizer: Any) -> int:
    known = (tokenizer.pad_token_id, tokenizer.eos_token_id, 0)
    return next(token for token in known if token is not None)
