"""An index of a captioned folder, in which regularisation pictures are looked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from scumble.core.errors import InputError
from scumble.core.events import Loop
from scumble.datagen import faiss_index
from scumble.datagen.retrieval import captions_in, clip_for, write_index
from scumble.verbs.outputs import check_free

__all__ = ["Indexed", "index_captions"]


@dataclass(frozen=True, slots=True)
class Indexed:
    """What came of it."""

    count: int
    """Captioned pictures in the index."""
    without: int
    """Pictures of the folder that have no caption, and so are not in it."""
    note: str = ""
    """What the person should know, in sentences."""


def index_captions(
    folder: Path,
    out: Path,
    *,
    model: str = "toybox",
    clip: str = "",
    faiss: bool = False,
    overwrite: bool = False,
) -> Loop[Indexed]:
    """Write to `out`, a `.safetensors` file, the index of the captioned pictures in `folder`.

    `clip` names the CLIP model, by default the one that fits `model`; `faiss` makes an index of FAISS. The
    pictures stay where they are, and are not opened. Raises InputError, and MissingExtraError without FAISS.
    """
    if out.suffix != ".safetensors":
        raise InputError(f"{out} does not end in .safetensors.", "Give a name like dogs.safetensors.")
    check_free([out], overwrite=overwrite)
    if faiss:
        faiss_index.check_there()
    captions = yield from captions_in(folder, clip_for(model, clip))
    write_index(captions.indexed() if faiss else captions, out)
    notes = list(captions.notes)
    if captions.without:
        pictures = "1 picture has" if captions.without == 1 else f"{captions.without} pictures have"
        notes.append(f"{pictures} no caption and cannot be found by the index.")
    return Indexed(len(captions.texts), captions.without, " ".join(notes))
