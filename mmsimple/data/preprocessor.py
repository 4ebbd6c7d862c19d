"""The steps that a Hugging Face `preprocessor_config.json` of CLIP sets out, and LLaVA's padding before them.

They are those of transformers' `CLIPImageProcessorPil`. Where torchvision is installed, transformers resizes with other
code, and puts a picture that is smaller than the crop elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mmsimple.data.fields import MEAN, SIDE, STD, SWITCH
from mmsimple.data.transforms import (
    CenterCrop,
    ExpandToSquare,
    Interpolation,
    Normalize,
    Resize,
    Size,
    Step,
    ToTensor,
    Transforms,
)
from mmsimple.sections.supported import check_names, require, shown

DEFAULTS: dict[str, Any] = {
    "do_resize": True,
    "size": {"shortest_edge": 224},
    "resample": 3,
    "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224},
    "do_normalize": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
# PIL's numbers of its filters.
RESAMPLE: dict[int, Interpolation] = {0: "nearest", 2: "bilinear", 3: "bicubic"}

TYPES = ("CLIPImageProcessor", "CLIPImageProcessorFast", "CLIPImageProcessorPil", "CLIPFeatureExtractor")
# The values at which other settings ask for nothing but what is done here; the first is the default.
VALUES: dict[str, tuple[Any, ...]] = {
    "image_processor_type": TYPES,
    "feature_extractor_type": TYPES,
    "do_rescale": (True,),
    "rescale_factor": (1 / 255,),
    "do_pad": (False, None),
    "default_to_square": (False, None),
    "use_square_size": (False, None),
    "data_format": ("channels_first", None),
}
# What says nothing of what becomes of an RGB picture in PIL, or nothing without `do_pad`.
MOOT = {
    *("_valid_processor_keys", "device", "disable_grouping", "do_convert_rgb", "input_data_format", "pad_size"),
    *("processor_class", "return_tensors"),
}


def from_preprocessor(config: Mapping[str, Any], where: str, *, pad: bool) -> Transforms:
    """What the config of the file `where` does to an RGB picture; `pad` is LLaVA's `image_aspect_ratio: pad`.

    Raises InputRefused, naming file and field, for another processor's config, and for settings that `Transforms` have
    no steps for.
    """
    for name, values in VALUES.items():
        value = config.get(name, values[0])
        computed = " or ".join(map(shown, values))
        require(value in values, where, f"{name} is {shown(value)}; mmsimple computes {computed}")
    check_names(config, {*DEFAULTS, *VALUES, *MOOT}, where, "")
    full = {**DEFAULTS, **config}
    do_resize, do_crop, do_normalize = (
        SWITCH.checked(full[name], where, name) for name in ("do_resize", "do_center_crop", "do_normalize")
    )
    mean = MEAN.checked(full["image_mean"], where, "image_mean")
    std = STD.checked(full["image_std"], where, "image_std")
    steps: list[Step] = []
    if pad:
        fits = all(0 <= level <= 1 for level in mean)
        require(fits, where, f"image_mean is {shown(list(mean))}: as a colour to pad with it must be from 0 to 1")
        red, green, blue = (int(level * 255) for level in mean)
        steps.append(ExpandToSquare((red, green, blue)))
    if do_resize:
        steps.append(_resize(full, where))
    if do_crop:
        steps.append(_center_crop(full, where, Transforms(tuple(steps)).output_size))
    steps.append(ToTensor())
    if do_normalize:
        steps.append(Normalize(mean, std))
    return Transforms(tuple(steps))


def _resize(full: Mapping[str, Any], where: str) -> Resize:
    size, resample = full["size"], full["resample"]
    known = isinstance(resample, int) and not isinstance(resample, bool) and resample in RESAMPLE
    filters = ", ".join(f"{number} ({name})" for number, name in RESAMPLE.items())
    require(known, where, f"resample is {shown(resample)}; mmsimple computes {filters}")
    interpolation = RESAMPLE[resample]
    if not isinstance(size, Mapping):
        return Resize(SIDE.checked(size, where, "size"), interpolation)
    if set(size) == {"shortest_edge"}:
        return Resize(SIDE.checked(size["shortest_edge"], where, "size.shortest_edge"), interpolation)
    return Resize(_height_width(size, where, "size", "an integer, {shortest_edge} or {height, width}"), interpolation)


def _center_crop(full: Mapping[str, Any], where: str, before: Size | None) -> CenterCrop:
    """The crop of pictures that are all of one size before it, or not."""
    size = full["crop_size"]
    if isinstance(size, Mapping):
        height, width = _height_width(size, where, "crop_size", "an integer or {height, width}")
    else:
        height = width = SIDE.checked(size, where, "crop_size")
    crop = CenterCrop(height if height == width else (height, width))
    exact = replace(crop, rounds_down=True)
    # A crop that a params file can say, where it is the same.
    return crop if before is not None and crop.start(before) == exact.start(before) else exact


def _height_width(size: Mapping[str, Any], where: str, path: str, words: str) -> Size:
    require(set(size) == {"height", "width"}, where, f"{path} is {shown(size)}: it must be {words}")
    return SIDE.checked(size["height"], where, f"{path}.height"), SIDE.checked(size["width"], where, f"{path}.width")
