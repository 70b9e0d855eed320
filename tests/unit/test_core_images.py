"""Picture files in and out: every kind that people have, every way in which one can be broken."""

from __future__ import annotations

import errno
import os
import struct
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from scumble.core import images
from scumble.core.errors import DiskFullError, ImageError, InputError, NumericError


def example(width: int = 6, height: int = 4) -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(noise)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def same(a: Image.Image, b: Image.Image) -> bool:
    return a.mode == b.mode and a.size == b.size and a.tobytes() == b.tobytes()


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(width: int, height: int, depth: int, colour: int, rows: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


# What is read


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "RGBA", "LA"])
def test_every_png_mode_gives_the_picture_in_rgb(mode: str) -> None:
    source = example().convert(mode)
    picture = images.read_image(encoded(source))
    assert same(picture.image, source.convert("RGB"))
    assert picture.alpha is None


@pytest.mark.parametrize(("kind", "options"), [("WEBP", {"lossless": True}), ("JPEG", {"quality": 95})])
def test_jpeg_and_webp_give_what_pillow_gives(kind: str, options: dict[str, Any]) -> None:
    content = encoded(example(), kind, **options)
    assert same(images.read_image(content).image, Image.open(BytesIO(content)).convert("RGB"))


def test_cmyk_gives_rgb() -> None:
    content = encoded(example(16, 16).convert("CMYK"), "JPEG", quality=100, subsampling=0)
    read = np.asarray(images.read_image(content).image).astype(int)
    assert np.abs(read - np.asarray(example(16, 16)).astype(int)).mean() < 12


def test_sixteen_bit_grey_is_rounded() -> None:
    values = [0, 1, 128, 129, 257, 385, 386, 32896, 65406, 65407, 65535]
    rows = b"\0" + struct.pack(f">{len(values)}H", *values)
    read = np.asarray(images.read_image(png_of(len(values), 1, 16, 0, rows)).image)[0, :, 0]
    assert read.tolist() == [round(value / 257) for value in values]
    assert read[-1] == 255


def test_sixteen_bit_colour_keeps_its_colours() -> None:
    rows = b"\0" + struct.pack(">6H", 65535, 0, 32896, 257, 514, 65278)
    read = np.asarray(images.read_image(png_of(2, 1, 16, 2, rows)).image)[0]
    assert read.tolist() == [[255, 0, 128], [1, 2, 254]]


@pytest.mark.parametrize("colour", [2, 6], ids=["RGB", "RGBA"])
def test_sixteen_bit_colour_is_rounded(colour: int) -> None:
    values = [0, 255, 128, 65535, 129, 385, 386, 65535, 0x12FF, 65407, 65534, 65535]
    if colour == 2:
        values = [value for i, value in enumerate(values) if i % 4 < 3]
    rows = b"\0" + struct.pack(f">{len(values)}H", *values)
    read = np.asarray(images.read_image(png_of(3, 1, 16, colour, rows)).image)[0]
    wanted = [round(value / 257) for i, value in enumerate(values) if colour == 2 or i % 4 < 3]
    assert read.ravel().tolist() == wanted
    assert wanted[1] == 1  # its first byte alone would be 0


def test_sixteen_bit_grey_with_alpha_is_rounded() -> None:
    grey, alpha = [0x12FF, 385, 65407], [129, 128, 65535]
    rows = b"\0" + struct.pack(">6H", *(value for pair in zip(grey, alpha, strict=True) for value in pair))
    picture = images.read_image(png_of(3, 1, 16, 4, rows), background=None)
    assert picture.alpha is not None
    assert np.asarray(picture.image)[0].tolist() == [[round(value / 257)] * 3 for value in grey]
    assert list(picture.alpha.tobytes()) == [round(value / 257) for value in alpha] == [1, 0, 255]
    assert round(grey[0] / 257) == 0x13  # its first byte alone would be 0x12


@pytest.mark.parametrize(("colour", "channels"), [(0, 1), (2, 3)], ids=["grey", "RGB"])
def test_the_one_transparent_colour_of_sixteen_bits_is_alpha(colour: int, channels: int) -> None:
    """It is told from colours that are the same in 8 bits."""
    values = [value for value in (1000, 1001, 2000) for _ in range(channels)]
    content = png_of(3, 1, 16, colour, b"\0" + struct.pack(f">{len(values)}H", *values))
    key = png_chunk(b"tRNS", struct.pack(f">{channels}H", *[1000] * channels))
    picture = images.read_image(content[:33] + key + content[33:], background=None)
    assert picture.alpha is not None
    assert list(picture.alpha.tobytes()) == [0, 255, 255]
    assert np.asarray(picture.image)[0].tolist() == [[4] * 3, [4] * 3, [8] * 3]


def test_alpha_is_laid_over_the_background_or_given_apart() -> None:
    source = Image.new("RGBA", (3, 1))
    pixels = [(200, 100, 0, 255), (200, 100, 0, 0), (200, 100, 0, 51)]
    for x, pixel in enumerate(pixels):
        source.putpixel((x, 0), pixel)
    on_white = images.read_image(encoded(source))
    assert [on_white.image.getpixel((x, 0)) for x in range(3)] == [
        (200, 100, 0),
        (255, 255, 255),
        (244, 224, 204),
    ]
    on_black = images.read_image(encoded(source), background=(0, 0, 0))
    assert [on_black.image.getpixel((x, 0)) for x in range(3)] == [(200, 100, 0), (0, 0, 0), (40, 20, 0)]
    apart = images.read_image(encoded(source), background=None)
    assert [apart.image.getpixel((x, 0)) for x in range(3)] == [(200, 100, 0)] * 3
    for picture in (on_white, on_black, apart):
        assert picture.alpha is not None
        assert list(picture.alpha.tobytes()) == [255, 0, 51]
    assert same(apart.on((255, 255, 255)), on_white.image)


def test_palette_transparency_is_alpha() -> None:
    source = Image.new("P", (2, 1))
    source.putpalette([10, 20, 30, 40, 50, 60])
    source.putpixel((1, 0), 1)
    picture = images.read_image(encoded(source, transparency=1), background=None)
    assert picture.alpha is not None
    assert list(picture.alpha.tobytes()) == [255, 0]


ORIENTED = {1: "abcd", 2: "badc", 3: "dcba", 4: "cdab", 5: "acbd", 6: "bdac", 7: "dbca", 8: "cadb"}
"""How an upright 2 x 2 picture `ab / cd` is stored under each EXIF orientation."""


@pytest.mark.parametrize("orientation", ORIENTED)
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "JPEG"])
def test_exif_orientation_is_applied(orientation: int, kind: str) -> None:
    stored = Image.new("L", (2, 2))
    stored.putdata([16 * ord(letter) % 256 for letter in ORIENTED[orientation]])
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    blocks = stored.convert("RGB").resize((16, 16), Image.Resampling.NEAREST)  # the blocks of a JPEG
    picture = images.read_image(encoded(blocks, kind, exif=exif, **options))
    letters = picture.image.convert("L").resize((2, 2), Image.Resampling.NEAREST).tobytes()
    assert [round(letter / 16) for letter in letters] == [ord(letter) % 16 for letter in "abcd"]


def test_a_colour_profile_is_applied_and_srgb_is_left_alone() -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert same(images.read_image(encoded(example(), icc_profile=srgb)).image, example())
    linear = bytearray(srgb.replace(b"sRGB", b"mine").replace(b"s\0R\0G\0B", b"m\0i\0n\0e"))
    gamma = linear.index(b"para")
    linear[gamma : gamma + 32] = (
        b"para" + bytes(4) + struct.pack(">HHI", 0, 0, 1 << 16) + linear[gamma + 16 : gamma + 32]
    )
    grey = Image.new("RGB", (1, 1), (55, 55, 55))
    converted = images.read_image(encoded(grey, icc_profile=bytes(linear))).image.getpixel((0, 0))
    # The sRGB curve of linear 55/255 = 0.2157: 1.055 x^(1/2.4) - 0.055 = 0.502 (IEC 61966-2-1)
    assert np.abs(np.array(converted) - 128).max() <= 1
    for damaged in (b"nonsense", srgb[:200], b"\0" * 128):
        assert same(images.read_image(encoded(example(), icc_profile=damaged)).image, example())


def test_what_the_pixels_do_not_hold_is_not_passed_on(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Artist] = "somebody"
    info = PngInfo()
    info.add_text("comment", "private")
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    source = encoded(example(), exif=exif, pnginfo=info, icc_profile=srgb)
    picture = images.read_image(source)
    assert picture.image.info == {}
    for suffix in (".png", ".jpg", ".webp"):
        images.save_image(Image.open(BytesIO(source)), tmp_path / f"x{suffix}")
        with Image.open(tmp_path / f"x{suffix}") as saved:
            assert "icc_profile" not in saved.info
            assert not dict(saved.getexif())
            assert "comment" not in saved.info


def test_a_mask_is_white_where_change_is_allowed() -> None:
    source = Image.new("RGBA", (3, 1), (255, 255, 255, 255))
    source.putpixel((1, 0), (0, 0, 0, 255))
    source.putpixel((2, 0), (255, 255, 255, 0))
    mask = images.read_mask(encoded(source))
    assert mask.shape == (1, 1, 1, 3)
    assert mask.flatten().tolist() == [1, 0, 0]


# What is refused


def test_a_huge_picture_is_refused_by_its_header() -> None:
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", b"")
    with pytest.raises(ImageError, match=r"60000 x 60000 pixels, and at most 80,000,000 are read"):
        images.read_image(content)


@pytest.mark.parametrize("chunk", [
    b"VP8X" + struct.pack("<I", 10) + bytes(4) + (16_382).to_bytes(3, "little") * 2,
    b"VP8L" + struct.pack("<I", 10) + b"\x2f" + (16_382 | 16_382 << 14).to_bytes(4, "little") + bytes(5),
    b"VP8 " + struct.pack("<I", 10) + b"\x30\1\0\x9d\1\x2a" + struct.pack("<HH", 16_383, 16_383),
])  # fmt: skip
def test_a_huge_webp_is_refused_by_its_header(chunk: bytes) -> None:
    content = b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk
    with pytest.raises(ImageError, match=r"16383 x 16383 pixels"):
        images.read_image(content)


@pytest.mark.parametrize("options", [{"lossless": True}, {}, {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0"}])
def test_the_size_read_from_a_webp_header_is_its_size(options: dict[str, Any]) -> None:
    content = encoded(example(7, 5), "WEBP", **options)
    assert images.read_image(content, max_pixels=35).image.size == (7, 5)
    with pytest.raises(ImageError, match="7 x 5 pixels, and at most 34"):
        images.read_image(content, max_pixels=34)


def test_text_that_unpacks_to_too_much_is_refused() -> None:
    bomb = png_chunk(b"zTXt", b"comment\0\0" + zlib.compress(bytes(50_000_000)))
    content = encoded(example())
    with pytest.raises(ImageError, match="not a sound PNG file"):
        images.read_image(content[:33] + bomb + content[33:])


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_an_animated_picture_is_refused(kind: str) -> None:
    content = encoded(example(), kind, save_all=True, append_images=[example().rotate(180)])
    with pytest.raises(ImageError, match="is animated"):
        images.read_image(content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty: it has zero bytes"), (b"hello", "is no picture"),
        (encoded(example(), "GIF"), "is GIF"),
        (encoded(example(), "BMP"), "is BMP"), (encoded(example(), "TIFF"), "is TIFF"),
        (b"\0\0\0\x20ftypheic", "is HEIC, AVIF or video"), (b"\x89PNG\r\n\x1a\n", "not a sound PNG file"),
        (b"\xff\xd8\xff", "not a sound JPEG file"), (b"RIFF\0\0\0\0WEBP", "not a sound WebP file"),
        (png_of(0, 5, 8, 2, b""), "(0 x 5 pixels: nothing is in it)|not a sound PNG file"),
    ],
)  # fmt: skip
def test_what_is_no_picture_is_one_sentence(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "misnamed.png"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=message) as caught:
        images.read_image(path)
    assert "misnamed.png" in caught.value.message
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_truncated_picture_is_refused(kind: str) -> None:
    content = encoded(example(64, 64), kind)
    for cut in (len(content) // 4, len(content) // 2, len(content) - 60):
        with pytest.raises(ImageError, match="not a sound"):
            images.read_image(content[:cut])


def test_a_missing_file_and_a_folder_are_sentences(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="does not exist"):
        images.read_image(tmp_path / "nothing.png")
    with pytest.raises(ImageError, match="is a folder"):
        images.read_image(tmp_path)


TURNED = b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0"
SOUND = [
    encoded(example(9, 7)), encoded(example(9, 7).convert("P")), encoded(example(9, 7).convert("RGBA")),
    encoded(example(9, 7), "JPEG"), encoded(example(9, 7).convert("CMYK"), "JPEG"),
    encoded(example(9, 7), "JPEG", progressive=True, exif=TURNED),
    encoded(example(9, 7), "WEBP"), encoded(example(9, 7), "WEBP", lossless=True),
    encoded(example(9, 7), "WEBP", save_all=True, append_images=[example(9, 7)]),
]  # fmt: skip


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A sound file with bytes changed, taken out, put in or cut off, most of it near the header."""
    content = bytearray(draw(st.sampled_from(SOUND)))
    for _ in range(draw(st.integers(1, 4))):
        limit = draw(st.sampled_from([64, len(content)]))
        place = draw(st.integers(0, min(limit, len(content))))
        span = draw(st.integers(0, 8))
        content[place : place + span] = draw(st.binary(max_size=8))
    return bytes(content[: draw(st.sampled_from([len(content), len(content) // 2]))])


@settings(max_examples=600, deadline=5000)
@given(damaged() | st.binary(max_size=64))
def test_any_bytes_give_a_picture_or_a_sentence(content: bytes) -> None:
    sentence = ""
    try:
        picture = images.read_image(content, max_pixels=1_000_000)
    except ImageError as problem:
        sentence = str(problem)
    else:
        assert picture.image.mode == "RGB"
        assert picture.image.width * picture.image.height <= 1_000_000
    assert "\n" not in sentence
    assert len(sentence) < 400


# What is written


@pytest.mark.parametrize("suffix", [".png", ".webp", ".PNG"])
def test_lossless_formats_give_back_every_bit(tmp_path: Path, suffix: str) -> None:
    images.save_image(example(), tmp_path / f"x{suffix}")
    assert same(images.read_image(tmp_path / f"x{suffix}").image, example())


def test_colours_under_transparency_survive_webp(tmp_path: Path) -> None:
    source = example().convert("RGBA")
    source.putalpha(0)
    images.save_image(source, tmp_path / "x.webp")
    assert same(images.read_image(tmp_path / "x.webp", background=None).image, example())


def test_jpeg_is_close_and_has_no_transparency(tmp_path: Path) -> None:
    smooth = Image.linear_gradient("L").resize((32, 32)).convert("RGB")
    images.save_image(smooth, tmp_path / "x.jpg")
    read = np.asarray(images.read_image(tmp_path / "x.jpg").image).astype(int)
    assert np.abs(read - np.asarray(smooth)).max() <= 3
    with pytest.raises(ImageError, match="JPEG file cannot hold a picture of mode RGBA"):
        images.save_image(smooth.convert("RGBA"), tmp_path / "y.jpg")
    with pytest.raises(ImageError, match=r"y\.gif has no suffix of a picture"):
        images.save_image(smooth, tmp_path / "y.gif")
    assert [path.name for path in tmp_path.iterdir()] == ["x.jpg"]


@pytest.mark.parametrize(("suffix", "longest"), [(".webp", 16_383), (".jpg", 65_500)])
def test_a_picture_too_long_for_its_format_is_a_sentence(tmp_path: Path, suffix: str, longest: int) -> None:
    images.save_image(Image.new("RGB", (longest, 1)), tmp_path / f"fits{suffix}")
    with pytest.raises(ImageError, match=f"holds {longest:,} pixels a side, and this is 1 x {longest + 1}"):
        images.save_image(Image.new("RGB", (1, longest + 1)), tmp_path / f"longer{suffix}")
    assert [path.stem for path in tmp_path.iterdir()] == ["fits"]


def test_options_reach_the_file(tmp_path: Path) -> None:
    info = PngInfo()
    info.add_itxt("scumble", "ü")
    images.save_image(example(), tmp_path / "x.png", pnginfo=info)
    with Image.open(tmp_path / "x.png") as saved:
        assert saved.info == {"scumble": "ü"}


def test_a_full_disk_leaves_the_old_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images.save_image(example(), tmp_path / "x.png")
    before = (tmp_path / "x.png").read_bytes()

    def fsync(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(DiskFullError, match=r"x\.png was not written"):
        images.save_image(example(9, 9), tmp_path / "x.png")
    assert (tmp_path / "x.png").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


# Ranges, sizes, sheets


def test_every_level_survives_all_ranges_bit_for_bit() -> None:
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16).repeat(1, 3, 1, 1)
    model = images.to_model(images.from_uint8(levels))
    assert (model.min(), model.max()) == (-1, 1)
    assert torch.equal(images.to_uint8(images.from_model(model)), levels)
    [image] = images.from_unit(images.from_uint8(levels))
    assert torch.equal(images.to_unit(image), images.from_uint8(levels))


def test_a_batch_keeps_order_and_layout() -> None:
    batch = [example(), example().rotate(180)]
    unit = images.to_unit(batch)
    assert unit.shape == (2, 3, 4, 6)
    assert unit[0, 1, 2, 3] == np.float32(np.asarray(batch[0])[2, 3, 1]) / np.float32(255)
    for image, back in zip(batch, images.from_unit(unit), strict=True):
        assert same(image, back)
    with pytest.raises(ImageError, match="2 different sizes"):
        images.to_unit([example(), example(5, 5)])


def test_values_outside_are_clipped_and_nan_is_an_error() -> None:
    assert images.to_uint8(torch.tensor([-1.0, 0.5, 7.0, float("inf")])).tolist() == [0, 128, 255, 255]
    with pytest.raises(NumericError, match="NaN"):
        images.from_unit(torch.full((1, 3, 2, 2), torch.nan))


@given(st.integers(1, 20), st.integers(1, 20), st.sampled_from([1, 8, 16]))
def test_any_size_in_the_same_size_out(height: int, width: int, multiple: int) -> None:
    pixels = torch.arange(3.0 * height * width).reshape(1, 3, height, width)
    padded = images.pad_to_multiple(pixels, multiple)
    assert padded.shape[-2] % multiple == 0
    assert padded.shape[-1] % multiple == 0
    assert padded.shape[-2] - height < multiple
    assert padded.shape[-1] - width < multiple
    assert torch.equal(padded[..., -1, -1], pixels[..., -1, -1])
    assert torch.equal(images.crop_back(padded, (height, width)), pixels)


def test_a_sheet_has_each_picture_at_its_place() -> None:
    parts = [Image.new("RGB", (2, 2), (i, 0, 0)) for i in range(1, 4)] + [Image.new("RGB", (4, 4), (9, 0, 0))]
    sheet = images.grid(parts, gap=1, background=(0, 0, 7))
    assert sheet.size == (9, 9)
    reds = np.asarray(sheet)[:, :, 0]
    assert (reds[1:3, 1:3] == 1).all()
    assert (reds[1:3, 6:8] == 2).all()
    assert (reds[6:8, 1:3] == 3).all()
    assert (reds[5:9, 5:9] == 9).all()
    assert (np.asarray(sheet)[4] == (0, 0, 7)).all()
    assert images.grid(parts[:3], columns=3).size == (6, 2)
    with pytest.raises(InputError, match="no pictures"):
        images.grid([])


@given(st.integers(1, 10_000), st.integers(8, 8192), st.integers(8, 8192))
def test_a_sheet_of_any_number_of_pictures_is_bounded(count: int, width: int, height: int) -> None:
    class Size:
        """A picture without pixels."""

        def __init__(self, width: int, height: int) -> None:
            self.width, self.height = width, height

        def resize(self, size: tuple[int, int], _: Any) -> Any:
            return Size(*size)

    whole: Any = Size(width, height)
    cell = images.fitted(whole, count)
    columns = int(np.ceil(np.sqrt(count)))
    rows = -(-count // columns)
    sheet = (columns * cell.width, rows * cell.height)
    assert max(sheet) <= images.SHEET_SIDE
    assert sheet[0] * sheet[1] <= images.SHEET_PIXELS
    assert images.fitted(cell, count) is cell
    fits = max(columns * width, rows * height) < images.SHEET_SIDE
    if fits and columns * rows * width * height <= images.SHEET_PIXELS:
        assert cell is whole


def test_a_picture_in_memory_is_read_like_its_file(tmp_path: Path) -> None:
    """16 bits are rounded, not cut off at 255; what lies on its side is put upright."""
    deep = Image.fromarray(np.array([[0, 20000, 65535]], dtype=np.uint16))
    deep.save(tmp_path / "deep.png")
    lying, exif = example(8, 6), Image.Exif()
    exif[0x0112] = 6
    lying.save(tmp_path / "lying.png", exif=exif)
    for name in ("deep.png", "lying.png"):
        with Image.open(tmp_path / name) as opened:
            held = images.Picture.of(opened)
        read = images.read_image(tmp_path / name, background=None)
        assert held.image.size == read.image.size
        assert held.image.tobytes() == read.image.tobytes()
    assert images.Picture.of(deep).image.getpixel((1, 0)) == (78, 78, 78)
