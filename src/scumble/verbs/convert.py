"""Learnt weights from and to the files of other programs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from scumble.adapters.attach import attach
from scumble.adapters.changes import Change, Dense
from scumble.adapters.formats import a1111, adobe, diffusers, kohya
from scumble.adapters.formats.content import PICKLES, Content, metadata_json, read_content, write_content
from scumble.adapters.merge import compress
from scumble.adapters.tokens import check_new_word, check_word
from scumble.adapters.weights import Weights, Word
from scumble.core.errors import ConfigError, InputError, WeightsError
from scumble.core.files import atomic_folder, explained, sha256
from scumble.models.model import Model
from scumble.models.save import save_folder
from scumble.verbs.load import ModelConfig
from scumble.verbs.outputs import check_free, check_new

__all__ = [
    "FORMATS",
    "TARGETS",
    "Converted",
    "caption_index",
    "convert",
    "convert_to",
    "files_in",
    "format_of",
    "read_any",
]

FORMATS: dict[str, ModuleType] = {"kohya": kohya, "a1111": a1111, "adobe": adobe, "diffusers": diffusers}
"""The formats of others, in the order in which a file is tried for them."""
MODEL = "diffusers-model"
TARGETS = ("a1111", "diffusers", "kohya", "adobe", MODEL, "scumble")
SUFFIXES = (".safetensors", *PICKLES)
INDEX = "model_index.json"
"""What a folder of a whole model has in it."""
AUTOENCODER = "first_stage_model."
"""How names begin that only the single file of a whole model has."""
NO_PLACE = "What the weights hold for an upscaler is left out: only the format of scumble has a place for it."
_FILE_SUFFIX = re.compile(r"\.[A-Za-z]\w*")
"""A file's, and not the end of a name with a version in it, such as `rex-1.5`."""


@dataclass(frozen=True, slots=True)
class Converted:
    """What was written."""

    files: list[dict[str, Any]]
    """Path, bytes and SHA-256 of each file."""
    words: list[str]
    note: str = ""
    """What the person should know, in a sentence."""


def convert_to(
    source: Path,
    to: str,
    on: ModelConfig,
    out: Path,
    *,
    word: str = "",
    noun: str = "",
    share: float | None = None,
    any_base: bool = False,
    overwrite: bool = False,
) -> Converted:
    """Write the weights of `source`, a file of any format or a folder of such, to `out` in the format `to`.

    A format of several files needs a folder. `share` cuts dense changes to low rank first. Pickles are read
    and written only if the settings trust them. Raises InputError for a place that is taken or does not fit,
    for a `word` that the model knows already and for a `share` of nothing that can be cut, and WeightsError
    for what the format cannot hold.
    """
    if to not in TARGETS:
        raise ConfigError(f"There is no format {to!r}.", f"Choose one of {', '.join(TARGETS)}.")
    with explained(out, "written"):
        _check_place(out, to, overwrite=overwrite)
    model = on.load()
    if word:
        check_new_word(model, word) if model.tokenizers else check_word(word)
    weights, after_file = _read(source, model, word, noun, trust_pickle=on.trust_pickle)
    with attach(model, weights, any_base=any_base):
        pass  # refuses what does not fit the model
    if share is not None:
        if not any(isinstance(c, Dense) and c.delta.ndim == 2 for c in weights.changes.values()):
            raise InputError(
                f"{source} holds no dense change of a matrix, so there is nothing to cut to {share}.",
                "Leave out --compress.",
            )
        weights = compress(weights, share)
    if to == "scumble":
        weights.save(out)
        written = [out]
    elif to == MODEL:
        written = _write_model(model, weights, out, any_base=any_base)
    else:
        written = _write(FORMATS[to].write(weights, model), out, trusted=on.trust_pickle)
    rows = [{"path": str(p), "bytes": p.stat().st_size, "sha256": sha256(p)} for p in written]
    left_out = weights.upscaler is not None and to != "scumble"
    notes = [NO_PLACE] if left_out else []
    return Converted(rows, list(weights.words), " ".join(notes + _named(after_file)))


def convert(
    source: Path | str, to: str, out: Path | str, *, model: str = "toybox", **given: Any
) -> list[str]:
    """Write learnt weights in the format of another program, or read them from it; the paths written.

    >>> scumble.convert("rex.safetensors", "diffusers", "rex-diffusers")
    """
    done = convert_to(Path(source), to, ModelConfig(model=model), Path(out), **given)
    return [str(row["path"]) for row in done.files]


def read_any(
    source: Path, model: Model, *, word: str = "", noun: str = "", trust_pickle: bool = False
) -> Weights:
    """Weights from a file of any format, or from all files in a folder together, as learnt on `model`.

    `word` is what a word shall be called, `noun` its class noun. Raises WeightsError.
    """
    return _read(source, model, word, noun, trust_pickle=trust_pickle)[0]


def _read(
    source: Path, model: Model, word: str, noun: str, *, trust_pickle: bool
) -> tuple[Weights, list[str]]:
    """The weights, and those of their words that are called after their files."""
    files = _files(source)
    words: dict[str, Word] = {}
    changes: dict[str, Change] = {}
    after_file: list[str] = []
    for file in files:
        content = read_content(file, trust_pickle=trust_pickle)
        if "scumble" in content.metadata:
            if len(files) > 1:
                raise WeightsError(f"{source} holds weights of scumble and others.", "Give one file.")
            return _renamed(Weights.load(file), word, noun), []
        kind = format_of(content, file)
        try:
            parts = FORMATS[kind].read(content, model, word, file)
        except (ValueError, TypeError, IndexError, RuntimeError) as problem:  # shapes that do not fit
            raise WeightsError(f"{file} is not sound, for a file of {kind}: {problem}.") from problem
        for text, one in parts.words.items():
            if text in words:
                raise WeightsError(f"Two files in {source} hold the word {text!r}.", "Convert one by one.")
            words[text] = replace(one, noun=noun)
            if kind == a1111.NAME and not word and text == file.stem:
                after_file.append(text)
        changes |= parts.changes
    weights = Weights(
        method="converted", family=model.family, base_hash=model.hash, words=words, changes=changes
    )
    return weights, after_file


def format_of(content: Content, path: Path) -> str:
    """Which program's format a file is of. Raises WeightsError for none that is known."""
    if caption_index(content) is not None:
        raise WeightsError(
            f"{path} is an index of captions, and no learnt weights.",
            f"Learn with it: learn custom-diffusion --regularization {path}.",
        )
    if any(name.startswith(AUTOENCODER) for name in content.tensors):
        raise _whole_model(path)
    for name, module in FORMATS.items():
        if module.claims(content):
            return name
    first = next(iter(content.tensors), "nothing")
    raise WeightsError(f"{path} holds no learnt weights of a known kind: its first tensor is {first[:80]!r}.")


def caption_index(content: Content) -> tuple[str, int] | None:
    """The folder and the number of captions, if this is an index that `data regularization` wrote."""
    about = metadata_json(content, "captions")
    root, texts = about.get("root"), about.get("texts")
    if set(content.tensors) not in ({"features"}, {"faiss"}) or not isinstance(texts, list):
        return None
    return (root, len(texts)) if isinstance(root, str) else None


def files_in(folder: Path) -> list[Path]:
    """The files in a folder that could hold weights."""
    return sorted(p for p in folder.iterdir() if p.suffix in SUFFIXES and p.is_file())


def _files(source: Path) -> list[Path]:
    if not source.is_dir():
        return [source]
    found = files_in(source)
    if (source / INDEX).is_file():
        raise _whole_model(source, with_words=bool(found))
    # The second text encoder's half of a word is read with the first.
    halves = {p.with_name(f"{p.stem}_2{p.suffix}") for p in found}
    files = [p for p in found if p not in halves]
    if not files:
        raise InputError(f"There are no weights in {source}.", f"They end in {', '.join(SUFFIXES)}.")
    return files


def _whole_model(source: Path, *, with_words: bool = False) -> WeightsError:
    """The error that `source` is one, with or without files of words beside it."""
    return WeightsError(
        f"{source} is a whole model, and what was learnt cannot be told from it without the model before.",
        f"Use it with --model {source}" + (", and convert a word's file in it alone." if with_words else "."),
    )


def _named(words: Sequence[str]) -> list[str]:
    """What a person should know of words that nothing names but their files: no sentence, or one."""
    called = ", ".join(map(repr, words))
    if len(words) < 2:
        return [f"The word is called {called}, after its file; --word names another."] if words else []
    return [f"The words are called {called}, after their files; --word names another for a file alone."]


def _check_place(out: Path, to: str, *, overwrite: bool) -> None:
    """Raise InputError, before any work, where `out` is taken, or is no name for what the format writes."""
    if to == "scumble" and out.suffix != ".safetensors":
        raise InputError(f"{out} does not end in .safetensors.", "Give a name like rex.safetensors.")
    if out.is_dir():
        if to == "scumble":
            raise InputError(f"{out} is a folder, and this format is a file.", "Give another name with -o.")
        check_new(out)
    elif to != MODEL and out.suffix in SUFFIXES:
        check_free([out], overwrite=overwrite)
    elif _FILE_SUFFIX.fullmatch(out.suffix):
        raise InputError(
            f"{out} ends in {out.suffix}, and "
            + ("a whole model is a folder." if to == MODEL else "weights do not."),
            "Give the name of a folder, without a suffix"
            + ("." if to == MODEL else ", or a file's that ends in .safetensors."),
        )
    else:
        check_new(out)


def _renamed(weights: Weights, word: str, noun: str) -> Weights:
    """Weights of ours with their one word under another name, or with a noun."""
    if not word and not noun:
        return weights
    if len(weights.words) != 1:
        raise InputError("Only weights with one word can have it renamed.", "Leave out --word and --noun.")
    [(text, one)] = weights.words.items()
    larger = weights.upscaler
    if larger is not None and larger.words:
        larger = _renamed(larger, word, noun)
    return replace(weights, words={word or text: replace(one, noun=noun or one.noun)}, upscaler=larger)


def _write(files: Mapping[str, Mapping[str, Any]], out: Path, *, trusted: bool) -> list[Path]:
    """`files` as the one file `out`, or in the folder `out`."""
    one = out.suffix in SUFFIXES and not out.is_dir()
    if one and len(files) == 1:
        [content] = files.values()
        pickled = out.suffix in PICKLES
        if pickled and not trusted:
            raise WeightsError(
                f"{out} would be a pickle.",
                "Take .safetensors, or pass --trust-pickle for programs that need one.",
            )
        write_content(out, content, pickled=pickled)
        return [out]
    if one:
        raise InputError(f"These weights are {len(files)} files in this format.", "Give a folder with -o.")
    names: list[str] = []
    with atomic_folder(out) as folder:
        for name, content in files.items():
            pickled = trusted and Path(name).suffix in PICKLES
            names.append(name if pickled else str(Path(name).with_suffix(".safetensors")))
            write_content(folder / names[-1], content, pickled=pickled)
    return [out / name for name in names]


def _write_model(model: Model, weights: Weights, out: Path, *, any_base: bool) -> list[Path]:
    """The whole model with the changes in it, and the words beside it for diffusers' own loader of words."""
    words: dict[str, Mapping[str, Any]] = diffusers.written_words(weights)
    with atomic_folder(out) as folder:
        with attach(model, replace(weights, words={}), any_base=any_base):
            save_folder(model, folder)
        for name, content in words.items():
            write_content(folder / name, content)
    kept: Sequence[Path] = sorted(out.rglob("*.safetensors"))
    return list(kept)
