"""What a CLIP tower's folder stumbles over, whoever loads it through transformers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mmconvert.diagnosis import Patient

from .traps_files import PREPROCESSOR
from .traps_parts import Part

# What the names of a tower begin with where transformers 5 has built it.
UNPREFIXED = ("embeddings.", "encoder.", "pre_layrnorm.", "post_layernorm.")
# The side to which CLIP's image processor cuts where its file does not say.
CROP = 224


def unprefixed(folder: Patient) -> Iterator[str]:
    bare = [key for key in folder.tensors if key.startswith(UNPREFIXED)]
    if bare:
        yield f"{folder.at('')}: {bare[0]} and {len(bare) - 1} more lack the prefix vision_model."


def wrong_crop(where: str, processor: Any, tower: Part) -> Iterator[str]:
    """Pictures cut to another size than the tower has positions for; `processor` is the image processor's config."""
    if not isinstance(processor, dict) or not processor or processor.get("do_center_crop") is False or not tower.full:
        return
    crop = processor.get("crop_size", CROP)
    sides = [crop.get("height"), crop.get("width")] if isinstance(crop, dict) else [crop, crop]
    if isinstance(crop, dict) and "shortest_edge" in crop:
        sides = [crop["shortest_edge"]] * 2
    if sides != list(tower.full["image_size"]):
        cut, size = (" x ".join(map(str, each)) for each in (sides, tower.full["image_size"]))
        yield f"{where}: pictures are cut to {cut}, and {tower.where} has image_size {size}"


def no_preprocessor(folder: Patient) -> Iterator[str]:
    if PREPROCESSOR not in folder.names:
        yield f"{folder.at(PREPROCESSOR)} is missing"
