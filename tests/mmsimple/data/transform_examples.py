"""LLaVA's transforms, pictures in which every pixel counts, and what transformers makes of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

FILE = "params.yaml"
PATH = "trainer.fit.train_dataloader.transforms"
MEAN = [0.48145466, 0.4578275, 0.40821073]
STD = [0.26862954, 0.26130258, 0.27577711]
EXPAND: dict[str, Any] = {"name": "expand_to_square", "background_color": [122, 116, 104]}
RESIZE: dict[str, Any] = {"name": "resize", "size": 336, "interpolation": "bicubic"}
CROP: dict[str, Any] = {"name": "center_crop", "size": 336}
TENSOR: dict[str, Any] = {"name": "to_tensor"}
NORMALIZE: dict[str, Any] = {"name": "normalize", "mean": MEAN, "std": STD}
LLAVA = [EXPAND, RESIZE, CROP, TENSOR, NORMALIZE]

# (height, width): landscape, portrait, square, lines, smaller and larger than what they become, even and odd.
SIZES = ((37, 64), (65, 40), (36, 36), (41, 41), (1, 23), (30, 1), (5, 8), (11, 3), (50, 51), (333, 210), (149, 401))


def noise(height: int, width: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def row(*levels: int) -> Image.Image:
    """A picture of one row of gray."""
    return Image.fromarray(np.array([[[level] * 3 for level in levels]], dtype=np.uint8))


def gray(image: Image.Image) -> list[list[int]]:
    """The rows of a picture whose channels are all the same."""
    pixels = np.asarray(image)
    assert (pixels == pixels[..., :1]).all()
    rows: list[list[int]] = pixels[..., 0].tolist()
    return rows


def expanded(image: Image.Image, background: tuple[int, ...]) -> Image.Image:
    """LLaVA's `expand2square`, in numpy."""
    side, (width, height) = max(image.size), image.size
    square = np.empty((side, side, 3), dtype=np.uint8)
    square[:] = background
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = np.asarray(image)
    return Image.fromarray(square)


def by_clip(config: dict[str, Any], image: Image.Image) -> Tensor:
    """[3, H, W], as CLIP's processor with such a config makes it."""
    from transformers import CLIPImageProcessorPil

    return torch.from_numpy(CLIPImageProcessorPil(**config)(image)["pixel_values"][0])


def assert_same(ours: Tensor, theirs: Tensor) -> None:
    """One level of 255 is 4e-3 / 0.3; the last bit of float32, where 1 / 255 is a factor in theirs, 1e-7 / 0.3."""
    assert ours.dtype == theirs.dtype == torch.float32
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
