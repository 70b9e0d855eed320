"""Recipes inside files: written with a picture, read back from it or from a video.

| format | recipe (JSON) | for other programs | made by AI |
|---|---|---|---|
| PNG, animated too | `scumble` text chunk | `parameters` text chunk | XMP |
| JPEG, WebP | EXIF ImageHistory | EXIF UserComment | XMP |
| videos | metadata `scumble`, in any case | | |

The mark that a picture was made by AI is the IPTC digital source type (IPTC Photo Metadata Standard 2023.2).
It is written even where the recipe is left out, and not where no model took part.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

from scumble.core.decoding import DECODER_ERRORS
from scumble.core.errors import InputError
from scumble.data.video import ANIMATION, VIDEO_SUFFIXES, pyav
from scumble.history.recipe import MAX_JSON, Recipe, parameters_line

__all__ = ["read_recipe", "save_options"]

MADE_BY_AI = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
PARTLY_BY_AI = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"

XMP = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
   Iptc4xmpExt:DigitalSourceType="{source}"/>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>"""

IMAGE_HISTORY = 0x9213
"""TIFF/EP tag "ImageHistory": a record of what was done to the image."""
USER_COMMENT_CODE = b"UNICODE\0"


def save_options(
    suffix: str, recipe: Recipe | None, *, edited: bool = False, by_ai: bool = True
) -> dict[str, Any]:
    """Keyword arguments for `PIL.Image.Image.save` that put `recipe` into a file with this suffix.

    `recipe` None leaves the recipe out. `edited` says that a person's picture was the start, which the mark
    for AI tells apart from a picture made of nothing; without `by_ai` there is no such mark.
    """
    xmp = XMP.format(source=PARTLY_BY_AI if edited else MADE_BY_AI) if by_ai else ""
    if suffix.lower() == ".png":
        info = PngInfo()
        if recipe is not None:
            info.add_itxt("scumble", recipe.to_json())
            if recipe.model is not None:
                info.add_itxt("parameters", parameters_line(recipe))
        if xmp:
            info.add_itxt("XML:com.adobe.xmp", xmp)
        return {"pnginfo": info}
    options: dict[str, Any] = {"xmp": xmp.encode()} if xmp else {}
    if recipe is not None:
        exif = Image.Exif()
        details = exif.get_ifd(ExifTags.IFD.Exif)
        details[IMAGE_HISTORY] = recipe.to_json()
        if recipe.model is not None:
            line = parameters_line(recipe).encode("utf-16-be")
            details[ExifTags.Base.UserComment] = USER_COMMENT_CODE + line
        options["exif"] = exif
    return options


def read_recipe(path: Path) -> Recipe:
    """The recipe in the picture or video file `path`.

    Only the file's header and text are read; nothing it names is opened. Raises InputError with one sentence
    when the file is no picture, holds no recipe, or holds one that cannot be used.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's remarks on the rest of the metadata
            text = _video_text(path) if _needs_pyav(path) else _text(path)
    except FileNotFoundError as problem:
        raise InputError(f"{path} does not exist.") from problem
    except DECODER_ERRORS as problem:
        raise InputError(
            f"{path} cannot be read as a picture.", "Give a PNG, JPEG or WebP file, or a video."
        ) from problem
    if not isinstance(text, str):
        raise InputError(
            f"{path} holds no scumble recipe.", "Only what scumble wrote without --no-recipe has one."
        )
    return Recipe.from_json(text[: MAX_JSON + 1])


def _needs_pyav(path: Path) -> bool:
    return path.suffix.lower() in VIDEO_SUFFIXES and path.suffix.lower() != ANIMATION


def _text(path: Path) -> object:
    """What stands where a recipe would, whatever it is."""
    with Image.open(path, formats=("PNG", "JPEG", "WEBP")) as image:
        if image.format == "PNG":
            return image.info.get("scumble")
        return image.getexif().get_ifd(ExifTags.IFD.Exif).get(IMAGE_HISTORY)


def _video_text(path: Path) -> object:
    """The same of a video: its container is opened, and no frame decoded. Raises MissingExtraError."""
    av = pyav()
    try:
        with path.open("rb"), av.open(str(path)) as container:
            found = {str(name).lower(): value for name, value in container.metadata.items()}
    except av.error.FFmpegError as problem:
        raise OSError(str(problem)) from problem
    return found.get("scumble")
