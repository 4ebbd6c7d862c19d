"""Small pictures and a dataset of them, for tests of what reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmsimple.data.h5 import Row
from mmsimple.data.section import DataConfig, read_data
from tests.mmsimple.data.test_section import SECTION
from tests.mmsimple.data.worked_example import A, B, C, file_of

PICTURES = ("sub/a.png", "b.png")


def draw(path: Path, seed: int, size: tuple[int, int] = (40, 30)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def make_dataset(folder: Path, rows: list[Row] | None = None, **fields: Any) -> DataConfig:
    """The worked example on the disk, in a file or two, with its pictures; `fields` change the section."""
    for seed, name in enumerate(PICTURES):
        draw(folder / "images" / name, seed)
    (folder / "data").mkdir()
    samples = rows or [A, B, C]
    (folder / "data" / "0.h5").write_bytes(file_of(samples[:2]))
    if samples[2:]:
        (folder / "data" / "1.h5").write_bytes(file_of(samples[2:]))
    places = {"data_dir": str(folder / "data"), "img_data_dir": str(folder / "images")}
    return read_data({**SECTION, **places, **fields}, "params.yaml")
