"""What a batch holds of a picture: its pixels, or, where its encoders do not train, what they have made of it before.

Shape letters: C channels, F features of a picture, all of its tokens and encoders in one row.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol
from uuid import uuid4

import torch
import xxhash
from torch import Tensor

from mmconvert.errors import DiskError, InputRefused
from mmconvert.staging import disk_errors
from mmsimple.data.images import BadImage, digest, open_image
from mmsimple.data.transforms import Transforms

# Bytes in front of a picture's features that tell whether they are what was written: half a write may have been lost.
DIGEST = 8
BLANK = "blank"


class Pictures(Protocol):
    """A way to read pictures. `field` is that of `mmsimple.model.Batch` that holds them, `shape` what each of them is.

    `read` raises BadImage for a picture that cannot be had; `blank` is what stands in its place.
    """

    @property
    def field(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> torch.dtype: ...
    def read(self, path: Path) -> Tensor: ...
    def blank(self) -> Tensor: ...


@dataclass(frozen=True)
class Pixels:
    """Pictures as an encoder sees them, [C, height, width]; what is blank is 0, their mean colour."""

    transforms: Transforms
    shape: tuple[int, int, int]
    field: ClassVar[str] = "image_data"
    dtype: ClassVar[torch.dtype] = torch.float32

    def read(self, path: Path) -> Tensor:
        return self.transforms(open_image(path))

    def blank(self) -> Tensor:
        return torch.zeros(self.shape)


@dataclass(frozen=True)
class Features:
    """What encoders make of pictures, [F], out of a folder with a file for each, named by the digest of the picture.

    The folder is for one set of encoders and transforms.
    """

    folder: Path
    length: int
    dtype: torch.dtype
    pixels: Pixels
    field: ClassVar[str] = "image_features"

    @property
    def shape(self) -> tuple[int]:
        return (self.length,)

    @property
    def nbytes(self) -> int:
        """Bytes that a picture takes."""
        return DIGEST + self.length * self.dtype.itemsize

    def read(self, path: Path) -> Tensor:
        try:
            found = self.find(digest(path))
        except DiskError as error:
            raise BadImage(str(error), "features cannot be read") from error
        if found is None:
            # If it is no picture there is nothing to find, and this says why.
            self.pixels.read(path)
            raise BadImage(f"{path}: has changed since its features were kept, or they have", "image changed")
        return found

    def blank(self) -> Tensor:
        found = self.find(BLANK)
        if found is None:
            raise InputRefused(f"{self.folder}: has lost the features of a blank picture; run again")
        return found

    def find(self, name: str) -> Tensor | None:
        """The features of a picture with a digest; None where there are none, or not what was written.

        Raises DiskError.
        """
        path = self._path(name)
        with disk_errors(path, 0):
            try:
                content = path.read_bytes()
            except FileNotFoundError:
                return None
        features = memoryview(content)[DIGEST:]
        if len(content) != self.nbytes or xxhash.xxh3_64_digest(features) != content[:DIGEST]:
            return None
        return torch.frombuffer(bytearray(features), dtype=self.dtype)

    def keep(self, name: str, features: Tensor) -> None:
        """Write the features [F] of a picture with a digest. Raises DiskError."""
        content = features.to("cpu", self.dtype).contiguous().view(torch.uint8).numpy().tobytes()
        path = self._path(name)
        # Another run may write the same at the same time.
        new = path.with_suffix(f".{uuid4().hex}")
        with disk_errors(path, self.nbytes):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                new.write_bytes(xxhash.xxh3_64_digest(content) + content)
                os.replace(new, path)
            finally:
                new.unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        # No folder with a hundred thousand names.
        return self.folder / name[:2] / name
