"""A subject's folder: what belongs to which picture, and that nothing in it is passed over without a word."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from scumble.core import rng
from scumble.core.config import Config
from scumble.core.errors import ConfigError, InputError
from scumble.data.subjects import Subject, captions_of, read_subject
from scumble.methods import custom_diffusion, textual_inversion


def photo(place: Path, seed: int = 0, size: int = 40) -> None:
    pixels = torch.randint(0, 256, (size, size, 3), generator=rng.generator(seed), dtype=torch.uint8)
    _save(Image.fromarray(pixels.numpy()), place)


def mask(place: Path, white: int) -> None:
    """A mask with `white` rows of white."""
    picture = Image.new("L", (40, 40), 0)
    picture.paste(255, (0, 0, 40, white))
    _save(picture, place)


def _save(picture: Image.Image, place: Path) -> None:
    place.parent.mkdir(exist_ok=True)
    picture.save(place, "JPEG" if place.suffix.lower() == ".jpg" else "PNG")


def rows(folder: Path, *given: tuple[str, str]) -> None:
    lines = [json.dumps({"file_name": name, "text": text}) for name, text in given]
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")


def captions(read: Subject) -> dict[str, str | None]:
    return {shot.name: shot.caption for shot in read.shots}


def white(read: Subject) -> dict[str, int]:
    """How many rows of each shot's mask are white; -1 for a shot without."""
    return {shot.name: -1 if shot.mask is None else round(float(shot.mask.sum()) / 40) for shot in read.shots}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two pictures, of which there is nothing to say."""
    photo(tmp_path / "a.png", 1)
    photo(tmp_path / "b.jpg", 2)
    return tmp_path


def test_there_is_nothing_to_say_of_a_folder_in_order(folder: Path) -> None:
    rows(folder, ("a.png", "a dog"), ("b.jpg", "a dog in snow"))
    (folder / "b.txt").write_text("a dog on grass\n")
    mask(folder / "masks" / "a.png", 10)
    (folder / ".DS_Store").write_bytes(b"\0")
    for hidden in ("._a.txt", "._a.heic", "masks/._a.png"):  # a Mac's, beside what it copies elsewhere
        (folder / hidden).write_bytes(b"\0")
    read = read_subject(folder, "<rex>", "dog")
    assert captions(read) == {"a.png": "a dog", "b.jpg": "a dog on grass"}
    assert white(read) == {"a.png": 10, "b.jpg": -1}
    assert read.notes == ()


@pytest.mark.parametrize("text", ["IMG_0.txt", "IMG_0.TXT", "metadata.jsonl"])
@pytest.mark.parametrize("masked", ["IMG_0.PNG", "IMG_0.png", "IMG_0.JPG"])
def test_suffixes_in_capitals_are_as_good(folder: Path, text: str, masked: str) -> None:
    photo(folder / "IMG_0.JPG", 3)
    if text == "metadata.jsonl":
        rows(folder, ("IMG_0.jpg", "a dog"))
    else:
        (folder / text).write_text("a dog")
    mask(folder / "masks" / masked, 40)
    read = read_subject(folder, "<rex>", "dog")
    assert captions(read) == {"IMG_0.JPG": "a dog", "a.png": None, "b.jpg": None}
    assert white(read)["a.png"] == -1
    assert white(read)["IMG_0.JPG"] >= 39  # a JPEG's
    assert read.notes == ()
    assert captions_of(folder) == ({"IMG_0.JPG": "a dog"}, [])


def test_another_name_is_not_taken_for_it(folder: Path) -> None:
    (folder / "A.txt").write_text("a cat")
    mask(folder / "masks" / "a.b.png", 10)
    rows(folder, ("photos/b.jpg", "a cat"), ("B.jpg", "a cat"), ("b.jpeg", "a cat"))
    read = read_subject(folder, "<rex>", "dog")
    assert captions(read) == {"a.png": None, "b.jpg": None}
    assert white(read) == {"a.png": -1, "b.jpg": -1}
    assert read.notes == (
        "Passed over: A.txt (no picture has that name).",
        "Passed over: photos/b.jpg, B.jpg, b.jpeg (in metadata.jsonl, but no picture has that name).",
        "Passed over: masks/a.b.png (no picture has that name).",
    )


def test_of_two_masks_that_of_the_pictures_own_suffix_is_taken(folder: Path) -> None:
    photo(folder / "a.JPG", 3)
    mask(folder / "masks" / "a.png", 10)
    mask(folder / "masks" / "a.jpg", 40)
    mask(folder / "masks" / "b.png", 20)
    read = read_subject(folder, "<rex>", "dog")
    assert white(read) == {"a.JPG": 40, "a.png": 10, "b.jpg": 20}
    assert read.notes == ()


def test_two_masks_or_captions_that_fit_as_well_are_refused(folder: Path) -> None:
    mask(folder / "masks" / "b.png", 10)
    mask(folder / "masks" / "b.webp", 20)
    with pytest.raises(InputError, match=r"b\.png and b\.webp both go with b\.jpg\. Keep one\."):
        read_subject(folder, "<rex>", "dog")
    (folder / "masks" / "b.webp").unlink()
    (folder / "a.txt").write_text("a dog")
    (folder / "a.Txt").write_text("a cat")
    if len(list(folder.glob("a.[tT]xt"))) == 2:  # where capitals make another file
        for reader in (read_subject, captions_of):
            with pytest.raises(InputError, match=r"a\.Txt and a\.txt both go with a\.png\. Keep one\."):
                reader(folder)


def test_an_empty_caption_file_leaves_the_row(folder: Path) -> None:
    rows(folder, ("a.png", "a cat"), ("a.png", "a dog"))
    (folder / "a.txt").write_text(" \n")
    assert captions_of(folder) == ({"a.png": "a dog"}, [])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16-le", "utf-16-be"])
def test_captions_are_read_by_the_mark_that_they_begin_with(folder: Path, encoding: str) -> None:
    mark = "\ufeff" if encoding.startswith("utf-16") else ""
    (folder / "a.txt").write_bytes(f"{mark}a dog in a café\r\n".encode(encoding))
    (folder / "metadata.jsonl").write_bytes(
        f'{mark}{{"file_name": "b.jpg", "text": "a dög"}}\n'.encode(encoding)
    )
    read = read_subject(folder, "<rex>", "dog")
    assert captions(read) == {"a.png": "a dog in a café", "b.jpg": "a dög"}
    assert read.notes == ()


@pytest.mark.parametrize("content", ["a café".encode("cp1252"), "a dog".encode("utf-16-le"), b"\xff\xfea"])
def test_captions_that_are_no_text_are_left_out_and_named(folder: Path, content: bytes) -> None:
    (folder / "a.txt").write_bytes(content)
    (folder / "b.txt").write_text("a dog")
    read = read_subject(folder, "<rex>", "dog")
    assert captions(read) == {"a.png": None, "b.jpg": "a dog"}
    assert read.notes == ("Passed over: a.txt (neither UTF-8 nor UTF-16).",)
    (folder / "metadata.jsonl").write_bytes(content)
    with pytest.raises(InputError, match=r"metadata\.jsonl is neither UTF-8 nor UTF-16\. Save it as UTF-8\."):
        read_subject(folder, "<rex>", "dog")


@pytest.mark.parametrize("noun", ["(cat", "(((", "[cat]", "cat:extra", "<cat>", "cat\\"])
def test_a_noun_with_a_character_of_prompts_is_refused(folder: Path, noun: str) -> None:
    with pytest.raises(InputError, match=r"cannot be a class noun: '.{1,2}' means something in a"):
        read_subject(folder, "<rex>", noun)


@pytest.mark.parametrize("config", [textual_inversion.Config, custom_diffusion.Config])
def test_initial_words_with_a_character_of_prompts_are_refused(config: type[Config]) -> None:
    with pytest.raises(ConfigError, match=r"initial cannot be '\(\(\(': '\(' means something in a prompt"):
        config.of({"initial": "((("})
    assert config.of({"initial": "small dog"}) != config()


def test_pictures_further_down_are_spoken_of(tmp_path: Path) -> None:
    (tmp_path / "deep" / "masks").mkdir(parents=True)
    photo(tmp_path / "deep" / "masks" / "a.png", 1)
    with pytest.raises(InputError, match=r"no usable picture in .*deep\. .* Put a few in"):
        read_subject(tmp_path / "deep", "<rex>", "dog")
    photo(tmp_path / "deep" / "rex" / "a.png", 1)
    with pytest.raises(InputError, match=r"usable picture in .*deep\. .*Pictures in folders inside it are"):
        read_subject(tmp_path / "deep", "<rex>", "dog")


@pytest.mark.parametrize("name", ["c.heic", "C.HEIC", "c.avif", "c.bmp", "c.gif", "c.tiff", "c.dng", "c.CR2"])
def test_pictures_of_types_that_are_not_read_are_named(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"whatever")
    read = read_subject(folder, "<rex>", "dog")
    assert len(read.shots) == 2
    assert read.notes == (f"Passed over: {name} (not a type that is read).",)


def test_with_nothing_else_there_they_are_named_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "a.heic").write_bytes(b"whatever")
    with pytest.raises(InputError, match=r"no usable picture in .* Passed over: a\.heic \(not a type"):
        read_subject(tmp_path, "<rex>", "dog")


def test_a_mask_of_a_type_that_is_not_read_is_named(folder: Path) -> None:
    (folder / "masks").mkdir()
    (folder / "masks" / "a.bmp").write_bytes(b"whatever")
    read = read_subject(folder, "<rex>", "dog")
    assert white(read)["a.png"] == -1
    assert read.notes == ("Passed over: masks/a.bmp (not a type that is read).",)


def test_captions_and_masks_of_no_picture_are_named(folder: Path) -> None:
    (folder / "c.txt").write_text("a dog")
    (folder / "licence.txt").write_text("long " * 10_000)  # no caption, so not read
    mask(folder / "masks" / "c.png", 10)
    assert read_subject(folder, "<rex>", "dog").notes == (
        "Passed over: c.txt, licence.txt (no picture has that name).",
        "Passed over: masks/c.png (no picture has that name).",
    )


def test_rows_of_no_picture_are_named_in_few_words(folder: Path) -> None:
    gone = [(f"{i}.png", "a cat") for i in range(7)]
    rows(folder, ("a.png", "a dog"), *gone, ("b.jpg", "a dog in snow"))
    read = read_subject(folder, "<rex>", "dog")
    assert captions(read) == {"a.png": "a dog", "b.jpg": "a dog in snow"}
    why = "in metadata.jsonl, but no picture has that name"
    assert read.notes == (f"Passed over: 0.png, 1.png, 2.png and 4 more ({why}).",)
    rows(folder, ("\x1b[2J" + "x" * 5000, "a cat"))
    [note] = read_subject(folder, "<rex>", "dog").notes
    assert note.isprintable()
    assert len(note) < 200


def test_what_goes_with_a_picture_that_was_left_out_is_no_stray(folder: Path) -> None:
    photo(folder / "small.png", 3, size=31)
    (folder / "small.txt").write_text("a dog")
    mask(folder / "masks" / "small.png", 10)
    photo(folder / "z.png", 1)  # as a.png
    rows(folder, ("z.png", "a dog"))
    read = read_subject(folder, "<rex>", "dog")
    assert [shot.name for shot in read.shots] == ["a.png", "b.jpg"]
    assert read.notes == (
        "small.png has only 31 x 31 pixels and was left out.",
        "z.png is the same picture as a.png and was left out.",
    )


def test_a_picture_just_large_enough_is_kept(folder: Path) -> None:
    photo(folder / "small.png", 3, size=32)
    read = read_subject(folder, "<rex>", "dog")
    assert (len(read.shots), read.notes) == (3, ())
