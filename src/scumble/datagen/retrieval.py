"""Regularisation pictures by their captions: from a person's own captioned folder those whose caption is near
what a subject is told with, in CLIP's space of texts (Kumari et al. 2022, section 3.2: 200 pictures, cosine
above 0.85). The public service that the paper used is gone, and nobody's folder has to leave their machine.

Captions that are looked for again and again can be put in an index, one `.safetensors` file: the unit vectors
of all captions, (M, E), and in its metadata the captions and where the pictures are. The search is exact, a
product of matrices; on request, with the extra `retrieval`, FAISS searches, which is faster among millions,
and the file then holds its index of the vectors in their place.

Letters: M captions, Q queries, E width of CLIP's space.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from scumble.core.errors import ImageError, InputError
from scumble.core.events import Loop, Progress
from scumble.core.images import SUFFIXES, read_image
from scumble.core.safetensor_files import safetensors_header, save_safetensors
from scumble.data.subjects import Shot, captions_of, cropped, passed_over
from scumble.datagen import faiss_index
from scumble.datagen.priors import Prior
from scumble.models import toybox
from scumble.models.clip import Clip, load_clip
from scumble.models.model import Model
from scumble.training.examples import encoded

__all__ = [
    "Captions",
    "captions_in",
    "clip_for",
    "nearest",
    "read_captions",
    "retrieved_prior",
    "write_index",
]

CLIP = "openai/clip-vit-large-patch14"
"""What compares captions for models that bring no CLIP of their own: the text tower of SD 1.x is from it."""
AT_ONCE = 64
SUFFIX = ".safetensors"


@dataclass(frozen=True, slots=True, eq=False)
class Captions:
    """Captioned pictures: `features` (M, E) of length one, or FAISS's index of them; the captions and the
    files of the pictures.
    """

    features: Tensor | faiss_index.Index
    texts: tuple[str, ...]
    files: tuple[Path, ...]
    without: int = 0
    """How many pictures of the folder have no caption, where the folder itself was read."""
    notes: tuple[str, ...] = ()
    """What a person should know of the captions, in sentences."""

    def indexed(self) -> Captions:
        """The same, to be searched by FAISS. Raises MissingExtraError."""
        if isinstance(self.features, Tensor):
            return replace(self, features=faiss_index.build(self.features))
        return self


def clip_for(model: str, name: str = "", *, device: str = "cpu") -> Clip:
    """CLIP by name; for none the toybox's own for the model called toybox, OpenAI's ViT-L/14 for others."""
    return load_clip(name or (toybox.clip() if model == "toybox" else CLIP), device=device)


def captions_in(folder: Path, clip: Clip) -> Loop[Captions]:
    """Read and encode the captions of a folder (`metadata.jsonl` or text files, as for subjects).

    Raises InputError where there is no folder, and where no picture has a caption.
    """
    if not folder.is_dir():
        raise InputError(f"There is no folder {folder}.", "Give one with captioned pictures.")
    texts, notes = captions_of(folder)
    pictures = [p for p in sorted(folder.glob("*")) if p.suffix.lower() in SUFFIXES and p.is_file()]
    files = [p for p in pictures if p.name in texts]
    if not files:
        raise InputError(
            f"There is no captioned picture in {folder}. {' '.join(notes)}".rstrip(),
            "Captions stand beside the pictures, cat.txt for cat.png, or in metadata.jsonl.",
        )
    told = [texts[p.name] for p in files]
    parts: list[Tensor] = []
    for start in range(0, len(told), AT_ONCE):
        with torch.no_grad():
            parts.append(clip.text_features(told[start : start + AT_ONCE]).cpu())
        yield Progress(stage="captions", step=min(start + AT_ONCE, len(told)), total=len(told))
    without = len(pictures) - len(files)
    return Captions(torch.cat(parts), tuple(told), tuple(files), without, tuple(notes))


def write_index(captions: Captions, path: Path) -> None:
    """Write an index for `read_captions`, whole or not at all."""
    about = {
        "root": str(captions.files[0].parent.resolve()),
        "files": [file.name for file in captions.files],
        "texts": captions.texts,
    }
    if isinstance(captions.features, Tensor):
        save_safetensors(path, {"features": captions.features}, {"captions": json.dumps(about)})
    else:
        content = faiss_index.to_bytes(captions.features)
        about["sha256"] = _digest(content)
        save_safetensors(path, {"faiss": content}, {"captions": json.dumps(about)})


def read_captions(place: Path, clip: Clip, *, faiss: bool = False) -> Loop[Captions]:
    """The captions of a folder, or of an index of one; with `faiss` to be searched by that library. Raises
    InputError for what is neither, and MissingExtraError without FAISS where it is wanted.
    """
    if faiss:
        faiss_index.check_there()
    captions = _read_index(place, clip) if place.suffix == SUFFIX else (yield from captions_in(place, clip))
    return captions.indexed() if faiss else captions


def _read_index(place: Path, clip: Clip) -> Captions:
    metadata = safetensors_header(place)["__metadata__"]
    if "captions" not in metadata:
        raise InputError(
            f"{place} was not made by scumble data regularization.",
            "Give an index that was, or the folder of captioned pictures.",
        )
    try:
        about = json.loads(metadata["captions"])
        root, files, texts = Path(about["root"]), about["files"], about["texts"]
        tensors = load_file(place)
        features = _index_in(tensors["faiss"], about["sha256"]) if "faiss" in tensors else tensors["features"]
        names = all(isinstance(f, str) and Path(f).name == f for f in files)
        shape = tuple(features.shape) if isinstance(features, Tensor) else (features.ntotal, features.d)
        sound = names and len(files) == len(texts) and shape == (len(texts), _width(clip))
    except (KeyError, TypeError, ValueError) as problem:
        raise InputError(f"{place} is no index of captions: {problem}.", "Make it anew.") from None
    if not sound:
        raise InputError(f"{place} does not fit this CLIP model.", "Make the index anew.")
    root = _found(root, place)
    return Captions(features, tuple(map(str, texts)), tuple(root / f for f in files))


def _found(root: Path, place: Path) -> Path:
    """The folder of an index's pictures: where it was, else of the same name beside the index `place`."""
    beside = place.parent / root.name
    if not root.is_dir() and not beside.is_dir():
        raise InputError(
            f"{root}, whose pictures {place} is an index of, is not there.",
            "If the folder was moved, put it beside the index, or make the index anew.",
        )
    return root if root.is_dir() else beside


def nearest(
    known: Tensor | faiss_index.Index, wanted: Tensor, count: int, least: float
) -> list[tuple[int, float]]:
    """The rows of `known` (M, E) nearest to any row of `wanted` (Q, E), both of length one, with their
    cosines: at most `count`, none under `least`, the nearest first and of equals the first.
    """
    if isinstance(known, Tensor):
        best = (known @ wanted.T).amax(dim=1)  # (M,)
    else:
        best = faiss_index.cosines(known, wanted, count)
    order = torch.argsort(best, descending=True, stable=True)[:count].tolist()
    return [(i, float(best[i])) for i in order if float(best[i]) >= least]


def retrieved_prior(
    model: Model,
    clip: Clip,
    captions: Captions,
    queries: Sequence[str],
    count: int,
    least: float,
    *,
    side: int,
    mirrored: bool,
) -> tuple[Prior, str]:
    """The pictures whose captions are nearest to `queries`, cut to squares of `side`; and sentences where
    they are fewer than `count`, and on those that cannot be read, for which the next nearest are taken.
    Raises InputError where there is none.
    """
    place = captions.files[0].parent
    with torch.no_grad():
        wanted = clip.text_features(list(dict.fromkeys(queries))).cpu()
    shots, broken = _readable(captions, wanted, count, least)
    if not shots:
        [(_, most)] = nearest(captions.features, wanted, 1, -1.0)
        raise InputError(
            f"No picture in {place} whose caption is near enough can be read."
            if broken
            else f"The nearest caption in {place} is {most:.2f} like {queries[0][:80]!r}, under {least}.",
            "Lower `similarity` in a settings file (--config), or let the model draw its own pictures.",
        )
    latents = encoded(model, [cropped(shot, (side, side))[0] for shot in shots.values()], mirrored=mirrored)
    few = [f"Only {len(shots)} captions in {place} are near enough."] if len(shots) < count else []
    note = " ".join(few + passed_over(broken, f"in {place}, but cannot be read"))
    return Prior(latents, tuple(captions.texts[i] for i in shots)), note


def _readable(
    captions: Captions, wanted: Tensor, count: int, least: float
) -> tuple[dict[int, Shot], list[str]]:
    """By their rows at most `count` of the nearest pictures, and the names of nearer ones that are broken."""
    shots: dict[int, Shot] = {}
    broken: dict[int, str] = {}
    asked = 0
    while len(shots) < count and asked < count + len(broken):
        asked = count + len(broken)
        for i, _ in nearest(captions.features, wanted, asked, least):
            if i in shots or i in broken or len(shots) == count:
                continue
            file = captions.files[i]
            try:
                shots[i] = Shot(file.name, read_image(file).image)
            except ImageError:
                broken[i] = file.name
    return shots, list(broken.values())


def _width(clip: Clip) -> int:
    """Of the vectors that it makes of texts."""
    return clip.text_features(["a"]).shape[1]


def _index_in(content: Tensor, digest: str) -> faiss_index.Index:
    """FAISS's index in a file, which it would read without a check."""
    if _digest(content) != digest:
        raise ValueError("it is damaged")
    return faiss_index.from_bytes(content)


def _digest(content: Tensor) -> str:
    return sha256(content.numpy().data).hexdigest()
