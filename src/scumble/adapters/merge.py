"""Weights of several subjects made into one.

`merge` is the closed form of Kumari et al. 2022 (arXiv:2212.04488), section 3.3 and appendix A: for each key
and value matrix of cross-attention the W nearest to the pretrained W0 on ordinary captions,

    min_W |W C_reg^T - W0 C_reg^T|_F   subject to   W C^T = V,

where the rows of C are the text features of every subject's words and V is what that subject's own matrix
makes of them. With G = C_reg^T C_reg + ridge I = L L^T and B = L^-1 C^T the solution is
W = W0 + (V - W0 C^T) B^+ L^-1. All of it is done in float64, and the pseudo-inverse lets rows of C repeat.

`compose` adds up what adds up: words side by side, low-rank changes as one of the ranks' sum. `compress`
keeps the leading singular components of each dense change, as the paper's released models do.

Letters: N regularisation tokens, S tokens of subjects, D width of text features, O outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from scumble.adapters.attach import attach
from scumble.adapters.changes import Change, Dense, LowRank, parameters_of
from scumble.adapters.tokens import check_different, meant_twice, same_vectors, words_attached
from scumble.adapters.weights import Weights, Word
from scumble.core.errors import WeightsError
from scumble.models.model import Model
from scumble.models.prompts import token_count

__all__ = ["Constraint", "can_merge", "compose", "compress", "constrained", "merge", "truncated"]

RIDGE = 1e-6
"""Added to the Gram matrix of the regularisation features, as a share of its mean diagonal."""
CUTOFF = 1e-10
"""Share of the largest singular value of B below which a direction of C is one of the others again."""
SAID = ("{}", "photo of a {}")
"""How a subject is spoken of in the constraint; the features of the name and of the end count."""

Scaled = tuple[Weights, float]


def merge(model: Model, given: Sequence[Scaled], captions: Sequence[str], *, ridge: float = RIDGE) -> Weights:
    """The closed-form merge of weights that change keys and values of cross-attention only, and words.

    `captions` are ordinary sentences that shall keep their meaning. Weights that are there twice count once,
    and one alone is what it was. Raises WeightsError for weights of another kind, for one word with two
    meanings, and for weights of another model.
    """
    given = _distinct(given)
    if len(given) == 1 and given[0][1] == 1.0:
        return given[0][0]
    if not can_merge([item for item, _ in given]):
        raise WeightsError(
            "Only weights of keys and values of cross-attention, with words, have a closed-form merge.",
            "Add others up with --how sum.",
        )
    for item, _ in given:
        with attach(model, item):
            pass  # refuses weights of another model
    words = _united([item for item, _ in given])
    named = parameters_of(model)
    changed = sorted({name for item, _ in given for name in item.changes})
    with torch.no_grad(), words_attached(model, {text: word.vectors for text, word in words.items()}):
        known = torch.cat([_features(model, caption) for caption in captions])  # (N, D)
        wanted = [torch.cat([_said(model, name) for name in _names(item)]) for item, _ in given]
        constraint = Constraint.of(known, torch.cat(wanted), ridge)
        changes: dict[str, Change] = {}
        for name in changed:
            base = named[name].detach().double().cpu()
            values = [
                _moved(item, name, base, scale) @ rows.T
                for (item, scale), rows in zip(given, wanted, strict=True)
            ]
            merged = constrained(base, torch.cat(values, dim=1), constraint)
            changes[name] = Dense((merged - base).float())
    told = [name for item, _ in given for name in _names(item)]
    return Weights(
        method="merge",
        family=model.family,
        base_hash=model.hash,
        words=words,
        changes=changes,
        config={"how": "closed-form", "ridge": ridge, "captions": len(captions)},
        training={"told": told, "merged": [item.method for item, _ in given]},
        upscaler=_upscaler(given),
    )


@dataclass(frozen=True, slots=True)
class Constraint:
    """What is the same for every matrix: `wanted` C (S, D), and B^+ L^-1 (S, D)."""

    wanted: Tensor
    projector: Tensor

    @classmethod
    def of(cls, known: Tensor, wanted: Tensor, ridge: float = RIDGE) -> Constraint:
        """From C_reg (N, D) and C (S, D), in float64."""
        known, wanted = known.double(), wanted.double()
        gram = known.T @ known  # (D, D)
        gram += max(ridge, 1e-12) * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
        lower = torch.linalg.cholesky(gram)
        b = torch.linalg.solve_triangular(lower, wanted.T, upper=False)  # (D, S)
        inverse = torch.linalg.pinv(b, rtol=CUTOFF)  # (S, D)
        return cls(wanted, torch.linalg.solve_triangular(lower, inverse, upper=False, left=False))


def constrained(base: Tensor, values: Tensor, constraint: Constraint) -> Tensor:
    """The W (O, D) for W0 `base` (O, D) and V `values` (O, S), float64."""
    base = base.double()
    return base + (values.double() - base @ constraint.wanted.T) @ constraint.projector


def can_merge(weights: Sequence[Weights]) -> bool:
    """Whether there is a closed form: all name what they learnt, and change keys and values only."""
    names = {name for item in weights for name in item.changes}
    places = (".attn2.to_k.weight", ".attn2.to_v.weight")
    return bool(names) and all(n.endswith(places) for n in names) and all(_names(w) for w in weights)


def compose(model: Model, given: Sequence[Scaled]) -> Weights:
    """The sum: what attaching all of them at their scales does, as one. Low-rank changes stay low-rank where
    no other kind changes the same parameter. Raises WeightsError where something does not compose, and where
    the same is given twice.
    """
    given = [(item, scale) for item, scale in given if scale != 0]
    if not given:
        raise WeightsError("There is nothing to add up.", "Give weights with a scale other than 0.")
    _refuse_twice(given)
    with attach(model, *given):
        pass  # refuses what does not go together
    named = parameters_of(model)
    changes: dict[str, Change] = {}
    for name in dict.fromkeys(name for item, _ in given for name in item.changes):
        parts = [(item.changes[name], scale) for item, scale in given if name in item.changes]
        changes[name] = _sum(parts, named[name].detach())
    told = list(dict.fromkeys(name for item, _ in given for name in _names(item)))
    return Weights(
        method="merge",
        family=model.family,
        base_hash=model.hash,
        words=_united([item for item, _ in given]),
        changes=changes,
        config={"how": "sum", "scales": [scale for _, scale in given]},
        training={"told": told, "merged": [item.method for item, _ in given]},
        upscaler=_upscaler(given),
    )


def _upscaler(given: Sequence[Scaled]) -> Weights | None:
    """What one of them holds for an upscaler, at its whole strength; that of several is not added up."""
    found = [(item.upscaler, scale) for item, scale in given if item.upscaler is not None]
    if len(found) > 1 or any(scale != 1 for _, scale in found):
        raise WeightsError(
            "What weights hold for an upscaler can be merged from one of them only, at scale 1.",
            "Learn the subjects together: dreambooth takes several with --subject.",
        )
    return found[0][0] if found else None


def compress(weights: Weights, share: float) -> Weights:
    """The same with each dense change of a matrix cut to its leading singular components, by `truncated`.

    A change that this makes no smaller stays as it is.
    """
    changes: dict[str, Change] = {}
    for name, change in weights.changes.items():
        changes[name] = change
        if isinstance(change, Dense) and change.delta.ndim == 2:
            cut = truncated(change.delta, share)
            if cut.a.numel() + cut.b.numel() < change.delta.numel():
                changes[name] = cut
    return replace(weights, changes=changes, config={**weights.config, "compressed": share})


def truncated(delta: Tensor, share: float) -> LowRank:
    """The components of `delta` (O, D) whose singular values, from the largest on, first add up to `share` of
    the sum of all. The one that crosses is kept, so that there is at least one.

    Raises WeightsError for a share outside (0, 1].
    """
    if not 0 < share <= 1:
        raise WeightsError(f"A change cannot be cut to {share} of itself.", "Take a share such as 0.6.")
    u, s, v = torch.linalg.svd(delta.double(), full_matrices=False)
    reached = s.cumsum(0) >= share * s.sum() * (1 - 1e-12)
    rank = int(reached.int().argmax()) + 1
    return LowRank(v[:rank].float(), (u[:, :rank] * s[:rank]).float(), float(rank))


def _distinct(given: Sequence[Scaled]) -> list[Scaled]:
    kept: list[Scaled] = []
    for item, scale in given:
        before = [s for other, s in kept if _same(item, other)]
        if any(s != scale for s in before):
            name = ", ".join(_names(item)) or "What was learnt"
            raise WeightsError(
                f"{name} is there twice, at {before[0]:g} and {scale:g}, and can mean only one.",
                "Give each file once.",
            )
        if not before:
            kept.append((item, scale))
    if not kept:
        raise WeightsError("There is nothing to merge.", "Give two files or more.")
    return kept


def _refuse_twice(given: Sequence[Scaled]) -> None:
    """Raise WeightsError where two of what is to be added up are the same: one stronger was hardly meant."""
    for i, (item, scale) in enumerate(given):
        for other, before in given[:i]:
            if _same(item, other):
                name = ", ".join(_names(item)) or "What was learnt"
                stronger = f"; generate --with FILE:{before + scale:g} is their sum" if item.changes else ""
                raise WeightsError(
                    f"{name} is there twice, at {before:g} and {scale:g}.", f"Give each file once{stronger}."
                )


def _same(one: Weights, other: Weights) -> bool:
    def tensors(weights: Weights) -> dict[str, Tensor]:
        words = {f"{t}/{e}": v for t, word in weights.words.items() for e, v in enumerate(word.vectors)}
        changes = {f"{n}/{k}": t for n, c in weights.changes.items() for k, t in c.tensors().items()}
        return words | changes

    a, b = tensors(one), tensors(other)
    return a.keys() == b.keys() and all(same_vectors([a[name]], [b[name]]) for name in a)


def _united(weights: Sequence[Weights]) -> dict[str, Word]:
    words: dict[str, Word] = {}
    for item in weights:
        for text, word in item.words.items():
            if not same_vectors(words.setdefault(text, word).vectors, word.vectors):
                raise meant_twice(text)
    check_different({text: word.vectors for text, word in words.items()})
    return words


def _names(weights: Weights) -> list[str]:
    """How what was learnt is spoken of."""
    told: Any = weights.training.get("told")
    if isinstance(told, list) and told and all(isinstance(name, str) for name in told):
        return told
    return [f"{text} {word.noun}".strip() for text, word in weights.words.items()]


def _moved(weights: Weights, name: str, base: Tensor, scale: float) -> Tensor:
    """The matrix as `weights` have it, float64."""
    change = weights.changes.get(name)
    return base if change is None else base + scale * change.against(base.float()).double()


def _said(model: Model, name: str) -> Tensor:
    """(S, D) features of a name, alone and in a sentence."""
    parts = [said.partition("{}")[0].strip() for said in SAID]
    return torch.cat([_features(model, name, before) for before in parts])


def _features(model: Model, text: str, before: str = "") -> Tensor:
    """(L, D) float64 on the CPU: the tokens of `text` and of the end marker after it, `before` left out."""
    whole = model.prompt([f"{before} {text}".strip()]).embeddings[0].double().cpu()
    skipped, count = (token_count(part, model.tokenizers[0], model.words) for part in (before, text))
    # Of a caption too long for one chunk, the first.
    return whole[1 + skipped : min(2 + skipped + count, model.tokenizers[0].model_max_length)]


def _sum(parts: Sequence[tuple[Change, float]], base: Tensor) -> Change:
    low = [(change, scale) for change, scale in parts if isinstance(change, LowRank)]
    if len(low) < len(parts) or any(change.magnitude is not None for change, _ in low):
        if len(parts) == 1 and parts[0][1] == 1.0:
            return parts[0][0]
        return Dense(sum((s * c.against(base) for c, s in parts), torch.zeros_like(base.float())).cpu())
    a = torch.cat([change.a.float() for change, _ in low])
    b = torch.cat([scale * change.alpha / len(change.a) * change.b.float() for change, scale in low], dim=1)
    return LowRank(a, b, float(len(a)))
