"""What is in a file: learnt weights of ours or of others, a model, an index of captions, or a picture and
its recipe.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from shlex import quote
from typing import Any

from scumble.adapters.changes import Dense
from scumble.adapters.formats.content import Content, read_content
from scumble.adapters.weights import Weights
from scumble.core.errors import ModelError, ScumbleError, WeightsError
from scumble.core.images import SUFFIXES
from scumble.data.video import VIDEO_SUFFIXES
from scumble.history.embed import read_recipe
from scumble.models.load import find
from scumble.verbs.convert import INDEX, caption_index, files_in, format_of

__all__ = ["described", "inspect"]


def inspect(path: Path | str, *, trust_pickle: bool = False) -> dict[str, Any]:
    """What a file of learnt weights holds and how it was made; for a folder of them what each is, for a model
    its family and parts, for an index of captions their number, for a picture or video the recipe in it.

    >>> scumble.inspect("rex.safetensors")["words"]
    """
    path = Path(path)
    if path.is_dir():
        return _folder(path, trust_pickle)
    if path.suffix.lower() in (*SUFFIXES, *VIDEO_SUFFIXES):
        return _made(path)
    content = read_content(path, trust_pickle=trust_pickle)
    if "scumble" in content.metadata:
        return _ours(path, Weights.load(path))
    if (index := caption_index(content)) is not None:
        return _captions(path, *index, exact="features" in content.tensors)
    try:
        kind = format_of(content, path)
    except WeightsError:
        try:
            return _model(path, trust_pickle)
        except ModelError:
            pass
        raise
    return _theirs(path, content, kind)


def described(facts: dict[str, Any]) -> str:
    """The facts for people, a line each; what a stranger wrote cannot steer the terminal."""
    lines: list[str] = []
    for key, value in facts.items():
        if isinstance(value, dict):
            lines += [f"{key}:", *(f"  {name}: {one}" for name, one in value.items())]
        elif isinstance(value, list):
            lines += [f"{key}: {', '.join(map(str, value)) or 'none'}"]
        else:
            lines += [f"{key}: {value}"]
    return "\n".join("".join(c if c.isprintable() else "?" for c in line) for line in lines)


def _folder(path: Path, trust_pickle: bool) -> dict[str, Any]:
    """A model, or the weights in a folder, as `convert` writes and reads them."""
    try:
        return _model(path, trust_pickle)
    except ModelError:
        files = [] if (path / INDEX).exists() else files_in(path)
        contents = {file: read_content(file, trust_pickle=trust_pickle) for file in files}
        kinds = {file.name: _kind(file, content) for file, content in contents.items()}
        if not any(kinds.values()):
            raise
    return {
        "file": str(path),
        "kind": "a folder of learnt weights",
        "bytes": sum(file.stat().st_size for file in files),
        "numbers": sum(t.numel() for content in contents.values() for t in content.tensors.values()),
        "files": {name: kind or "nothing known" for name, kind in kinds.items()},
    }


def _kind(path: Path, content: Content) -> str:
    """Of which program a file of weights is, empty for none that is known."""
    if "scumble" in content.metadata:
        return "weights of scumble"
    try:
        return f"weights in the format of {format_of(content, path)}"
    except WeightsError:
        return ""


def _captions(path: Path, folder: str, count: int, *, exact: bool) -> dict[str, Any]:
    return {
        "file": str(path),
        "kind": f"an index of {count} captions",
        "bytes": path.stat().st_size,
        "folder": folder,
        "search": "exact" if exact else "FAISS",
        "use": f"learn custom-diffusion --regularization {path}",
    }


def _made(path: Path) -> dict[str, Any]:
    recipe = read_recipe(path)
    parts = [*([] if recipe.model is None else [recipe.model]), *recipe.ingredients]
    return {
        "file": str(path),
        "kind": "made by scumble",
        "bytes": path.stat().st_size,
        "command": recipe.command,
        "seed": recipe.seed,
        "settings": dict(recipe.settings),
        "from": {part.role: f"{part.name} ({part.hash[:12]})" for part in parts},
        "machine": dict(recipe.machine),
        "again": f"scumble redo {quote(str(path))} -o OUT",
    }


def _ours(path: Path, weights: Weights) -> dict[str, Any]:
    return {
        "file": str(path),
        "kind": "weights of scumble",
        "bytes": path.stat().st_size,
        "method": weights.method,
        "family": weights.family,
        "base": weights.base_hash,
        "words": {
            text: f"{len(word.vectors[0])} vectors of {' and '.join(str(v.shape[1]) for v in word.vectors)}"
            + (f", a kind of {word.noun}" if word.noun else "")
            for text, word in weights.words.items()
        },
        "changes": _changed(weights),
        **({} if weights.upscaler is None else {"upscaler": _changed(weights.upscaler)}),
        "config": dict(weights.config),
        "training": {k: v for k, v in weights.training.items() if k != "losses"},
    }


def _changed(weights: Weights) -> dict[str, Any]:
    """How many changes of which kinds."""
    dense = {n: c for n, c in weights.changes.items() if isinstance(c, Dense)}
    low = {n: c for n, c in weights.changes.items() if not isinstance(c, Dense)}
    ranks = Counter(len(c.a) for c in low.values() if not isinstance(c, Dense))
    return {
        "numbers": sum(t.numel() for c in weights.changes.values() for t in c.tensors().values()),
        "dense": len(dense),
        "low-rank": len(low),
        "ranks": ", ".join(f"{rank} ({count})" for rank, count in sorted(ranks.items())) or "none",
        "parts": ", ".join(f"{part} ({n})" for part, n in _parts(weights).items()) or "none",
    }


def _parts(weights: Weights) -> Counter[str]:
    return Counter(name.partition(".")[0] for name in weights.changes)


def _theirs(path: Path, content: Content, kind: str) -> dict[str, Any]:
    shapes = {name: "x".join(map(str, tensor.shape)) for name, tensor in content.tensors.items()}
    return {
        "file": str(path),
        "kind": f"weights in the format of {kind}",
        "bytes": path.stat().st_size,
        "numbers": sum(tensor.numel() for tensor in content.tensors.values()),
        "tensors": dict(list(shapes.items())[:20])
        | ({"...": f"{len(shapes) - 20} more"} if len(shapes) > 20 else {}),
        "metadata": {key: value[:200] for key, value in list(content.metadata.items())[:20]},
    }


def _model(path: Path, trust_pickle: bool) -> dict[str, Any]:
    try:
        checkpoint = find(path, trust_pickle=trust_pickle)
    except ScumbleError as problem:
        raise ModelError(problem.message, problem.remedy) from None
    return {
        "file": str(path),
        "kind": "a model",
        "pipeline": checkpoint.pipeline,
        "parts": {part: str(checkpoint.configs[part].get("_class_name")) for part in checkpoint.parts},
        "scheduler": str(checkpoint.scheduler.get("_class_name")),
        "use": f"--model {path}",
    }
