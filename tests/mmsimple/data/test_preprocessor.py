"""CLIP's preprocessor_config.json: the same pixels as in transformers, and what is refused of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mmconvert.documents import read_json
from mmconvert.errors import InputRefused
from mmsimple.data.preprocessor import from_preprocessor
from mmsimple.data.transforms import (
    CenterCrop,
    ExpandToSquare,
    Normalize,
    Resize,
    Size,
    ToTensor,
    Transforms,
    read_transforms,
    write_transforms,
)
from tests.mmsimple.data.transform_examples import SIZES, assert_same, by_clip, expanded, noise

FILE = "preprocessor_config.json"
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
# As it lies beside CLIP ViT-L/14 at 336 pixels.
OLD: dict[str, Any] = {
    "crop_size": 336,
    "do_center_crop": True,
    "do_normalize": True,
    "do_resize": True,
    "feature_extractor_type": "CLIPFeatureExtractor",
    "image_mean": [*MEAN],
    "image_std": [*STD],
    "resample": 3,
    "size": 336,
}
# As it lies beside LLaVA 1.5 for transformers.
NEW: dict[str, Any] = {
    "_valid_processor_keys": ["images", "do_resize", "size"],
    "crop_size": {"height": 336, "width": 336},
    "do_center_crop": True,
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [*MEAN],
    "image_processor_type": "CLIPImageProcessor",
    "image_std": [*STD],
    "processor_class": "LlavaProcessor",
    "resample": 3,
    "rescale_factor": 0.00392156862745098,
    "size": {"shortest_edge": 336},
}
# As the processors that need torchvision are written.
NULLS: dict[str, Any] = {
    **NEW,
    "image_processor_type": "CLIPImageProcessorFast",
    "data_format": "channels_first",
    "default_to_square": False,
    **dict.fromkeys(("device", "disable_grouping", "do_pad", "input_data_format", "pad_size", "return_tensors")),
}
LLAVA = (ExpandToSquare((122, 116, 104)), Resize(336, "bicubic"), CenterCrop(336), ToTensor(), Normalize(MEAN, STD))

# What differs from the class defaults; small, for they are tried on many pictures.
CONFIGS: dict[str, dict[str, Any]] = {
    "integers": {"size": 36, "crop_size": 36},
    "an odd difference": {"size": 37, "crop_size": 32},
    "an odd difference that rounds up": {"size": {"shortest_edge": 39}, "crop_size": {"height": 32, "width": 36}},
    "a crop that is larger": {"size": 20, "crop_size": 33},
    "a crop that is larger one way": {"size": 31, "crop_size": {"height": 60, "width": 24}},
    "both sides": {"size": {"height": 29, "width": 40}, "crop_size": {"height": 24, "width": 43}},
    "nearest": {"size": 36, "crop_size": 36, "resample": 0},
    "bilinear": {"size": 36, "crop_size": 36, "resample": 2},
    "without resize": {"do_resize": False, "crop_size": 36},
    "without crop": {"size": 36, "do_center_crop": False},
    "without normalize": {"size": 36, "crop_size": 36, "do_normalize": False},
    "another mean": {"size": 36, "crop_size": 36, "image_mean": [0.5, 0.25, 0.125], "image_std": [0.5, 1.0, 2.0]},
    "nulls": {**NULLS, "size": 36, "crop_size": 36},
}


def read(config: dict[str, Any], pad: bool = False) -> Transforms:
    return from_preprocessor(config, FILE, pad=pad)


def refuse(config: dict[str, Any], said: str, pad: bool = False) -> None:
    with pytest.raises(InputRefused) as caught:
        read(config, pad)
    assert str(caught.value) == f"{FILE}: {said}"


@pytest.mark.parametrize("size", [(300, 451), (451, 300), (100, 50), (1, 9), (224, 224), (227, 224)], ids=str)
def test_an_empty_config_has_clips_defaults(size: Size) -> None:
    image = noise(*size)
    ours = read({})(image)
    assert ours.shape == (3, 224, 224)
    assert_same(ours, by_clip({}, image))


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_pixels_are_those_of_clips_processor(config: dict[str, Any]) -> None:
    for number, size in enumerate(SIZES):
        image = noise(*size, seed=number)
        assert_same(read(config)(image), by_clip(config, image))


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_padding_is_llavas_before_clips_processor(config: dict[str, Any]) -> None:
    background = tuple(int(level * 255) for level in config.get("image_mean", MEAN))
    for number, size in enumerate(SIZES):
        image = noise(*size, seed=number)
        assert_same(read(config, pad=True)(image), by_clip(config, expanded(image, background)))


@pytest.mark.parametrize("config", [OLD, NEW, NULLS], ids=["old", "new", "nulls"])
def test_configs_of_every_age_say_the_same(config: dict[str, Any]) -> None:
    clip = (Resize(336, "bicubic"), CenterCrop(336, rounds_down=True), ToTensor(), Normalize(MEAN, STD))
    assert read(config) == Transforms(clip)
    assert read(config, pad=True) == Transforms(LLAVA)


def test_what_transformers_writes_is_read(tmp_path: Path) -> None:
    from transformers import CLIPImageProcessorPil

    CLIPImageProcessorPil(size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336}).save_pretrained(
        tmp_path
    )
    assert read(read_json(tmp_path / FILE), pad=True) == Transforms(LLAVA)


def test_a_params_file_can_say_what_llava_does_with_padding_but_not_without() -> None:
    padded = read(OLD, pad=True)
    assert read_transforms(write_transforms(padded), "params.yaml", "transforms") == padded
    with pytest.raises(InputRefused, match="rounds half a pixel down"):
        write_transforms(read(OLD))


@pytest.mark.parametrize(
    ("size", "crop_size", "rounds_down"),
    [(36, 36, False), (38, 36, False), (37, 36, False), (39, 36, True), (35, 36, True), (34, 36, False)],
)
def test_a_crop_is_torchvisions_where_that_is_the_same(size: int, crop_size: int, rounds_down: bool) -> None:
    steps = read({"size": {"height": size, "width": size}, "crop_size": crop_size}).steps
    assert steps[1] == CenterCrop(crop_size, rounds_down)


def test_sides_that_are_equal_are_both_meant_in_a_resize_and_one_in_a_crop() -> None:
    steps = read({"size": {"height": 40, "width": 40}, "crop_size": {"height": 30, "width": 30}}).steps
    assert steps[:2] == (Resize((40, 40), "bicubic"), CenterCrop(30))


@pytest.mark.parametrize("name", ["SiglipImageProcessor", "LlavaNextImageProcessor", "ViTFeatureExtractor", "", 1])
@pytest.mark.parametrize("field", ["image_processor_type", "feature_extractor_type"])
def test_the_processor_of_another_model_is_refused(field: str, name: Any) -> None:
    types = "CLIPImageProcessor or CLIPImageProcessorFast or CLIPImageProcessorPil or CLIPFeatureExtractor"
    refuse({**OLD, "image_grid_pinpoints": [], field: name}, f"{field} is {name}; mmsimple computes {types}")


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("do_rescale", False, "do_rescale is false; mmsimple computes true"),
        ("rescale_factor", 1 / 127.5, "rescale_factor is 0.00784313725490196; mmsimple computes 0.00392156862745098"),
        ("do_pad", True, "do_pad is true; mmsimple computes false or null"),
        ("default_to_square", True, "default_to_square is true; mmsimple computes false or null"),
        ("use_square_size", True, "use_square_size is true; mmsimple computes false or null"),
        ("data_format", "channels_last", "data_format is channels_last; mmsimple computes channels_first or null"),
        ("resample", 1, "resample is 1; mmsimple computes 0 (nearest), 2 (bilinear), 3 (bicubic)"),
        ("resample", "bicubic", "resample is bicubic; mmsimple computes 0 (nearest), 2 (bilinear), 3 (bicubic)"),
        ("resample", False, "resample is false; mmsimple computes 0 (nearest), 2 (bilinear), 3 (bicubic)"),
        ("do_resize", 1, "do_resize is 1: it must be true or false"),
        ("do_center_crop", "yes", "do_center_crop is yes: it must be true or false"),
        ("do_normalize", 0, "do_normalize is 0: it must be true or false"),
        # In transformers a switch that is null is off, and other settings that are null fail.
        ("do_resize", None, "do_resize is null: it must be true or false"),
        ("do_rescale", None, "do_rescale is null; mmsimple computes true"),
        ("size", None, "size is null: it must be an integer from 1 to 8192"),
        ("image_mean", 0.5, "image_mean is 0.5: it must be three numbers"),
        ("image_std", [1, 1, 0], "image_std is [1, 1, 0]: it must be three numbers above 0"),
        ("size", 0, "size is 0: it must be an integer from 1 to 8192"),
        ("size", True, "size is true: it must be an integer from 1 to 8192"),
        ("size", [336, 336], "size is [336, 336]: it must be an integer from 1 to 8192"),
        ("size", {"shortest_edge": 1.5}, "size.shortest_edge is 1.5: it must be an integer from 1 to 8192"),
        ("size", {"height": 8193, "width": 1}, "size.height is 8193: it must be an integer from 1 to 8192"),
        ("size", {"height": 1, "width": 0}, "size.width is 0: it must be an integer from 1 to 8192"),
        *(
            ("size", value, f"size is {value}: it must be an integer, {{shortest_edge}} or {{height, width}}")
            for value in ({}, {"longest_edge": 2}, {"shortest_edge": 1, "longest_edge": 2}, {"height": 2})
        ),
        ("crop_size", "2", "crop_size is 2: it must be an integer from 1 to 8192"),
        (
            "crop_size",
            {"shortest_edge": 2},
            "crop_size is {'shortest_edge': 2}: it must be an integer or {height, width}",
        ),
        ("crop_size", {"height": 2, "width": 2.0}, "crop_size.width is 2.0: it must be an integer from 1 to 8192"),
        ("image_means", [0], "image_means: no such field; did you mean image_mean?"),
        ("auto_map", {}, "auto_map: no such field"),
        ("do_flip_channel_order", True, "do_flip_channel_order: no such field"),
    ],
)
def test_a_setting_that_is_not_computed_is_refused(field: str, value: Any, said: str) -> None:
    refuse({**NEW, field: value}, said)


@pytest.mark.parametrize("level", [-0.25, 1.5])
def test_a_mean_that_is_no_color_is_refused_with_padding_alone(level: float) -> None:
    config = {**NEW, "image_mean": [0.5, level, 0.5]}
    read(config)
    refuse(config, f"image_mean is {[0.5, level, 0.5]}: as a colour to pad with it must be from 0 to 1", pad=True)
