"""Pictures from strangers: where they may lie, what they may be, and how large."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any, Literal, TypeAlias

import xxhash
from PIL import Image, UnidentifiedImageError

from mmconvert.errors import InputRefused

Reason: TypeAlias = Literal[
    "image missing",
    "image path leaves the folder",
    "image cannot be decoded",
    "image too large",
    "image changed",
    "features cannot be read",
]

# What decoders are let at a file: raster formats alone, none of which runs a program, as EPS runs Ghostscript.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
# 8192 x 8192; PIL decodes to up to 4 bytes a pixel, 256 MiB, and holds that and its RGB copy for a moment.
MAX_PIXELS = 2**26
BLOCK = 1 << 20


class BadImage(InputRefused):
    """A picture that no sample can be made of; `reason` is what such pictures are counted by."""

    def __init__(self, message: str, reason: Reason) -> None:
        super().__init__(message)
        self.reason: Reason = reason

    def __reduce__(self) -> tuple[Any, ...]:
        """Exceptions are pickled with their message alone; this one must come back from a worker process whole."""
        return BadImage, (str(self), self.reason)


def locate(root: Path, name: str) -> Path:
    """Where the picture that a dataset calls `name` lies below the folder `root`, which may itself be a link.

    Raises BadImage for a name that leads out of the folder, by itself or through a link, and for what is missing or no
    regular file. Nothing is opened: a pipe would never answer.
    """
    path = root / name
    if Path(name).anchor or ".." in Path(name).parts:
        raise BadImage(f"{_spelled(name)}: is no path below {_spelled(root)}", "image path leaves the folder")
    if not os.path.isfile(path):
        raise BadImage(f"{_spelled(path)}: is missing, or no regular file", "image missing")
    real = Path(os.path.realpath(path))
    if not real.is_relative_to(os.path.realpath(root)):
        raise BadImage(f"{_spelled(path)}: is a link out of {_spelled(root)}", "image path leaves the folder")
    return path


def open_image(path: Path) -> Image.Image:
    """The picture in a file, whatever its name says of its format, fully decoded, RGB.

    Everything is as LLaVA has it: of an animation the first frame; not turned as EXIF says; other modes become RGB as
    `convert` does it, which takes palettes and transparent pixels for what colour they have, and cuts 16 bits of grey
    off at 255.

    Raises BadImage for what is none of FORMATS, has more than MAX_PIXELS pixels, or is damaged or cut off.
    """
    if not os.path.isfile(path):
        raise BadImage(f"{_spelled(path)}: is missing, or no regular file", "image missing") from None
    try:
        file = path.open("rb")
    except OSError as error:
        raise BadImage(f"{_spelled(path)}: {error.strerror}", "image missing") from None
    try:
        with file, warnings.catch_warnings(action="ignore"), Image.open(file, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise Image.DecompressionBombError
            return image.convert("RGB")
    except Image.DecompressionBombError:
        raise BadImage(f"{_spelled(path)}: has more than {MAX_PIXELS:,} pixels", "image too large") from None
    except UnidentifiedImageError:
        raise BadImage(f"{_spelled(path)}: holds no {', '.join(FORMATS)}", "image cannot be decoded") from None
    except Exception as error:  # plugins raise anything: SyntaxError, EOFError, struct.error, KeyError
        what = " ".join(str(error).split()) or type(error).__name__
        raise BadImage(f"{_spelled(path)}: is damaged: {what:.200}", "image cannot be decoded") from None


def digest(path: Path) -> str:
    """Of the bytes of a picture's file. Raises BadImage for one that cannot be read."""
    found = xxhash.xxh3_128()
    try:
        with path.open("rb") as file:
            while block := file.read(BLOCK):
                found.update(block)
    except OSError as error:
        raise BadImage(f"{_spelled(path)}: {error.strerror}", "image missing") from None
    return found.hexdigest()


def _spelled(path: Path | str) -> str:
    """A path for a message of one line: strangers' names hold line breaks, or a whole picture as a data URI."""
    text = str(path)
    return f"{text if text.isprintable() else ascii(text):.300}"
