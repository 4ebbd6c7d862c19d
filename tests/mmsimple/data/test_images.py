"""Pictures from strangers: none blows up, or comes in by halves, and nothing is printed."""

from __future__ import annotations

import io
import os
import pickle
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmconvert.errors import InputRefused
from mmsimple.data import images
from mmsimple.data.images import MAX_PIXELS, BadImage, Reason, open_image

MISSING: Reason = "image missing"
BROKEN: Reason = "image cannot be decoded"
LARGE: Reason = "image too large"

NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (21, 33, 3), dtype=np.uint8))


@pytest.fixture(autouse=True)
def nothing_is_said(capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder) -> Iterator[None]:
    yield
    assert capfd.readouterr() == ("", "")
    assert recwarn.list == []


def refusal(path: Path) -> tuple[str, Reason]:
    with pytest.raises(BadImage) as caught:
        open_image(path)
    error = caught.value
    assert isinstance(error, InputRefused)
    assert error.__cause__ is None
    assert error.__suppress_context__
    assert "\n" not in str(error)
    assert str(error).startswith(f"{path}: ")
    return str(error).removeprefix(f"{path}: "), error.reason


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, rows: bytes, depth: int = 8, color: int = 0) -> bytes:
    """A PNG that says of itself what it is told to say; the default is gray."""
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def opened(tmp_path: Path, data: bytes, name: str = "picture.jpg") -> Any:
    """[H, W, 3], as nested lists."""
    (tmp_path / name).write_bytes(data)
    image = open_image(tmp_path / name)
    assert type(image) is Image.Image
    assert image.mode == "RGB"
    return np.asarray(image).tolist()


def outcome(tmp_path: Path, data: bytes) -> Any:
    """The pixels, or the reason why there are none."""
    try:
        return opened(tmp_path, data)
    except BadImage as error:
        return error.reason


def refused(tmp_path: Path, data: bytes) -> tuple[str, Reason]:
    """What is said of such a file after its name."""
    (tmp_path / "picture.jpg").write_bytes(data)
    return refusal(tmp_path / "picture.jpg")


@pytest.mark.parametrize("form", ["PNG", "BMP"])
@pytest.mark.parametrize("name", ["a.jpg", "a.PNG", "a", "a.txt"])
def test_the_format_is_told_by_content_and_not_by_name(tmp_path: Path, form: str, name: str) -> None:
    assert opened(tmp_path, encoded(NOISE, form), name) == np.asarray(NOISE).tolist()


@pytest.mark.parametrize(
    ("form", "options"), [("JPEG", {}), ("JPEG", {"progressive": True}), ("WEBP", {}), ("WEBP", {"lossless": True})]
)
def test_pictures_are_what_pil_makes_of_them(tmp_path: Path, form: str, options: dict[str, Any]) -> None:
    data = encoded(NOISE, form, **options)
    assert opened(tmp_path, data) == np.asarray(Image.open(io.BytesIO(data))).tolist()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello, I am a picture\n",
        b"%PDF-1.4\n1 0 obj\n",
        b'<svg xmlns="http://www.w3.org/2000/svg" width="8" height="8"/>',
        encoded(NOISE, "EPS"),
        encoded(NOISE, "TIFF"),
        encoded(NOISE, "PPM"),
        encoded(NOISE, "ICO"),
        encoded(NOISE, "PDF"),
    ],
    ids=["empty", "text", "pdf", "svg", "eps", "tiff", "ppm", "ico", "whole-pdf"],
)
def test_other_formats_are_refused_under_any_name(tmp_path: Path, data: bytes) -> None:
    assert refused(tmp_path, data) == ("holds no JPEG, PNG, WEBP, GIF, BMP", BROKEN)


@pytest.mark.parametrize(
    ("form", "options"),
    [("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {}), ("WEBP", {}), ("GIF", {}), ("BMP", {})],
)
def test_a_file_that_is_cut_off_never_gives_a_part_of_a_picture(
    tmp_path: Path, form: str, options: dict[str, Any]
) -> None:
    """What ends after the last pixel, without a checksum or a trailer, is whole; JPEG and WEBP tell even that."""
    data = encoded(NOISE, form, **options)
    whole = outcome(tmp_path, data)
    lengths = [*range(0, len(data) - 40, 37), *range(len(data) - 40, len(data))]
    outcomes = [outcome(tmp_path, data[:length]) for length in lengths]
    assert all(each in (whole, BROKEN) for each in outcomes)
    assert outcomes.count(whole) <= {"PNG": 20, "GIF": 2, "BMP": 1}.get(form, 0)


def test_what_is_wrong_with_a_file_is_told_as_pil_tells_it(tmp_path: Path) -> None:
    said, reason = refused(tmp_path, encoded(NOISE, "JPEG")[:-100])
    assert said.startswith("is damaged: image file is truncated")
    assert reason == BROKEN


@pytest.mark.parametrize(
    ("error", "said"), [(KeyError("a\nb"), r"'a\nb'"), (SyntaxError("a\nb"), "a b"), (EOFError(), "EOFError")]
)
def test_whatever_a_decoder_raises_is_a_bad_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    def convert(image: Image.Image, mode: str) -> None:
        raise error

    monkeypatch.setattr(Image.Image, "convert", convert)
    assert refused(tmp_path, encoded(Image.new("L", (1, 1)), "PNG")) == (f"is damaged: {said}", BROKEN)


def test_a_file_that_cannot_be_opened_is_missing(tmp_path: Path) -> None:
    assert refusal(tmp_path / "a.png") == ("is missing, or no regular file", MISSING)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    assert refusal(tmp_path / "a.png") == ("is missing, or no regular file", MISSING)


def test_a_refusal_survives_the_way_out_of_a_worker_process() -> None:
    error = pickle.loads(pickle.dumps(BadImage("a.png: is damaged", BROKEN)))
    assert (type(error), str(error), error.reason) == (BadImage, "a.png: is damaged", BROKEN)


def claiming(form: str, side: int) -> bytes:
    """A small file whose header says that it is a square of so many pixels."""
    if form == "PNG":
        return png(side, side, b"\0" * 100)
    data = bytearray(encoded(NOISE, form, **({"lossless": True} if form == "WEBP" else {})))
    match form:
        case "JPEG":
            struct.pack_into(">HH", data, data.index(b"\xff\xc0") + 5, side, side)
        case "GIF":
            struct.pack_into("<HH", data, 6, side, side)
        case "BMP":
            struct.pack_into("<ii", data, 18, side, side)
        case "WEBP":
            assert data[12:16] == b"VP8L"
            struct.pack_into("<I", data, 21, (side - 1) | (side - 1) << 14)
    return bytes(data)


@pytest.mark.parametrize(
    ("form", "side"),
    [
        *(("PNG", side) for side in (8193, 12000, 60000)),
        ("JPEG", 60000),
        ("GIF", 60000),
        ("BMP", 60000),
        ("WEBP", 16383),
    ],
)
def test_a_bomb_is_refused_for_what_its_header_says(tmp_path: Path, form: str, side: int) -> None:
    start = time.monotonic()
    said, reason = refused(tmp_path, claiming(form, side))
    assert reason == LARGE, said
    assert said == f"has more than {MAX_PIXELS:,} pixels"
    assert time.monotonic() - start < 5


def test_the_limit_is_8192_times_8192_pixels(tmp_path: Path) -> None:
    assert refused(tmp_path, png(8193, 8192, b"")) == (f"has more than {MAX_PIXELS:,} pixels", LARGE)
    assert refused(tmp_path, png(8192, 8192, b""))[1] == BROKEN


def test_the_limit_is_of_pixels_and_not_of_sides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_PIXELS", 12)
    assert opened(tmp_path, encoded(Image.new("L", (12, 1)), "PNG")) == [[[0, 0, 0]] * 12]
    assert refused(tmp_path, encoded(Image.new("L", (13, 1)), "PNG")) == ("has more than 12 pixels", LARGE)
    assert refused(tmp_path, encoded(Image.new("L", (4, 4)), "PNG")) == ("has more than 12 pixels", LARGE)


def test_a_text_that_inflates_is_no_way_round_the_limit(tmp_path: Path) -> None:
    text = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(10**7)))
    data = encoded(NOISE, "PNG")
    said, reason = refused(tmp_path, data[:33] + text + data[33:])
    assert said.lower().startswith("is damaged: decompressed data too large")
    assert reason == BROKEN


def test_gray_is_the_same_in_all_channels(tmp_path: Path) -> None:
    assert opened(tmp_path, png(3, 1, bytes([0, 0, 100, 255]))) == [[[0] * 3, [100] * 3, [255] * 3]]


def test_one_bit_is_black_and_white(tmp_path: Path) -> None:
    assert opened(tmp_path, png(3, 1, bytes([0, 0b01000000]), depth=1)) == [[[0] * 3, [255] * 3, [0] * 3]]


@pytest.mark.parametrize("transparency", [1, b"\0\x80\xff"])
@pytest.mark.parametrize("form", ["PNG", "GIF"])
def test_a_palette_becomes_its_colors_also_where_it_is_transparent(
    tmp_path: Path, form: str, transparency: int | bytes
) -> None:
    image = Image.new("P", (3, 1))
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    image.putdata([0, 1, 2])
    if form == "PNG" or isinstance(transparency, int):
        image.info["transparency"] = transparency
    assert opened(tmp_path, encoded(image, form)) == [[[10, 20, 30], [40, 50, 60], [70, 80, 90]]]


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_a_transparent_pixel_has_the_color_that_it_hides(tmp_path: Path, form: str) -> None:
    image = Image.new("RGBA", (2, 1))
    image.putdata([(10, 20, 30, 0), (40, 50, 60, 128)])
    options = {"lossless": True, "exact": True} if form == "WEBP" else {}
    assert opened(tmp_path, encoded(image, form, **options)) == [[[10, 20, 30], [40, 50, 60]]]


def test_gray_with_alpha_becomes_gray(tmp_path: Path) -> None:
    assert opened(tmp_path, png(2, 1, bytes([0, 7, 0, 9, 128]), color=4)) == [[[7] * 3, [9] * 3]]


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    data = encoded(Image.new("CMYK", (8, 8), (255, 0, 0, 0)), "JPEG", quality=100)
    red, green, blue = opened(tmp_path, data)[4][4]
    assert red < 5
    assert min(green, blue) > 250


def test_16_bits_of_gray_are_cut_off_at_255(tmp_path: Path) -> None:
    """So does PIL, and so LLaVA."""
    rows = b"\0" + struct.pack(">4H", 0, 254, 256, 65535)
    assert opened(tmp_path, png(4, 1, rows, depth=16)) == [[[0] * 3, [254] * 3, [255] * 3, [255] * 3]]


def test_16_bits_of_color_keep_the_upper_8(tmp_path: Path) -> None:
    rows = b"\0" + struct.pack(">3H", 0x12FF, 0x8000, 0xFFFF)
    assert opened(tmp_path, png(1, 1, rows, depth=16, color=2)) == [[[0x12, 0x80, 0xFF]]]


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP"])
def test_an_animation_is_its_first_frame(tmp_path: Path, form: str) -> None:
    frames = [Image.new("RGB", (4, 2), color) for color in ("red", "blue", "lime")]
    options = {"lossless": True} if form == "WEBP" else {}
    data = encoded(frames[0], form, save_all=True, append_images=frames[1:], duration=100, **options)
    assert Image.open(io.BytesIO(data)).n_frames == 3  # type: ignore[attr-defined]
    assert opened(tmp_path, data) == [[[255, 0, 0]] * 4] * 2


def test_a_picture_is_not_turned_as_its_exif_says(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: a quarter turn
    assert np.shape(opened(tmp_path, encoded(NOISE, "JPEG", exif=exif))) == (21, 33, 3)


def test_a_damaged_exif_is_not_spoken_of(tmp_path: Path) -> None:
    data = encoded(NOISE, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert np.shape(opened(tmp_path, data)) == (21, 33, 3)


def test_the_picture_needs_its_file_no_longer(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    NOISE.save(path)
    image = open_image(path)
    path.unlink()
    assert np.array_equal(np.asarray(image), np.asarray(NOISE))
