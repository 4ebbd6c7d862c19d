"""The `transforms` of a params file, read and written, and what is refused of them."""

from __future__ import annotations

from typing import Any

import pytest

from mmconvert.errors import InputRefused
from mmsimple.data.transforms import CenterCrop, Resize, ToTensor, Transforms, read_transforms, write_transforms
from tests.mmsimple.data.transform_examples import CROP, EXPAND, FILE, LLAVA, NORMALIZE, PATH, RESIZE, TENSOR

NAMES = "expand_to_square, resize, center_crop, to_tensor, normalize"


def read(section: Any) -> Transforms:
    return read_transforms(section, FILE, PATH)


def refuse(section: Any, said: str) -> None:
    with pytest.raises(InputRefused) as caught:
        read(section)
    assert str(caught.value) == f"{FILE}: {said}"


def without(entry: dict[str, Any], field: str) -> dict[str, Any]:
    return {name: value for name, value in entry.items() if name != field}


def test_the_default_filter_is_bilinear() -> None:
    assert read([without(RESIZE, "interpolation"), TENSOR]).steps[0] == Resize(336, "bilinear") == Resize(336)


@pytest.mark.parametrize(
    "section",
    [
        [TENSOR],
        [{"name": "resize", "size": [6, 4], "interpolation": "nearest"}, TENSOR],
        [{"name": "center_crop", "size": [6, 4]}, CROP, TENSOR, NORMALIZE, NORMALIZE],
        [TENSOR, {"name": "normalize", "mean": [0, -1.5, 0], "std": [1, 2, 0.5]}],
    ],
)
def test_what_is_read_is_written_the_same(section: list[Any]) -> None:
    assert write_transforms(read(section)) == section


def test_a_default_is_not_asked_for_by_null() -> None:
    said = f"{PATH}.0.interpolation is null: it must be nearest or bilinear or bicubic"
    refuse([{**RESIZE, "interpolation": None}, TENSOR], said)


def test_a_default_is_written_out() -> None:
    assert write_transforms(read([{"name": "resize", "size": 6}, TENSOR])) == [
        {"name": "resize", "size": 6, "interpolation": "bilinear"},
        TENSOR,
    ]


def test_a_crop_that_rounds_down_cannot_be_written() -> None:
    with pytest.raises(InputRefused, match=r"center_crop to \[6, 6\] rounds half a pixel down"):
        write_transforms(Transforms((CenterCrop(6, rounds_down=True), ToTensor())))


@pytest.mark.parametrize(("section", "shown"), [(None, "null"), ({"name": "to_tensor"}, None), ("to_tensor", None)])
def test_transforms_are_a_list(section: Any, shown: str | None) -> None:
    refuse(section, f"{PATH} is {shown or section}: it must be a list of transforms")


@pytest.mark.parametrize(("entry", "shown"), [("to_tensor", "to_tensor"), (None, "null"), ([], "[]")])
def test_an_entry_is_a_mapping(entry: Any, shown: str) -> None:
    refuse([entry, TENSOR], f"{PATH}.0 is {shown}: it must be a mapping with a name")


@pytest.mark.parametrize(
    ("entry", "shown", "hint"),
    [
        ({"name": "resise", "size": 1}, "resise", "; did you mean resize?"),
        ({"name": "ToTensor"}, "ToTensor", "; did you mean to_tensor?"),
        ({"name": "flip"}, "flip", ""),
        ({"name": 5}, "5", ""),
        ({"name": ["resize"]}, "['resize']", "; did you mean resize?"),
        ({}, "null", ""),
    ],
)
def test_an_unknown_transform_is_refused_with_those_there_are(entry: dict[str, Any], shown: str, hint: str) -> None:
    refuse([EXPAND, entry, TENSOR], f"{PATH}.1.name is {shown}; transforms are {NAMES}{hint}")


@pytest.mark.parametrize(
    ("entry", "field", "hint"),
    [
        (EXPAND, "background_colour", "; did you mean background_color?"),
        (RESIZE, "sizes", "; did you mean size?"),
        (CROP, "interpolation", ""),
        (TENSOR, "size", ""),
        (NORMALIZE, "stdev", "; did you mean std?"),
    ],
)
def test_an_unknown_field_is_refused_with_the_nearest(entry: dict[str, Any], field: str, hint: str) -> None:
    refuse([{**entry, field: 1}], f"{PATH}.0.{field}: no such field{hint}")


SIDE = "an integer from 1 to 8192, or [height, width]"
COLOR = "[red, green, blue], integers from 0 to 255"


@pytest.mark.parametrize(
    ("entry", "field", "must"),
    [
        (EXPAND, "background_color", COLOR),
        (RESIZE, "size", SIDE),
        (CROP, "size", SIDE),
        (NORMALIZE, "mean", "three numbers"),
        (NORMALIZE, "std", "three numbers above 0"),
    ],
)
def test_a_field_without_a_default_must_be_there(entry: dict[str, Any], field: str, must: str) -> None:
    at = LLAVA.index(entry)
    section = [*LLAVA[:at], without(entry, field), *LLAVA[at + 1 :]]
    refuse(section, f"{PATH}.{at}.{field} is null: it must be {must}")


FILTER = "nearest or bilinear or bicubic"
# Of each field, under what it must be.
WRONG: list[tuple[dict[str, Any], str, str, list[Any]]] = [
    (
        EXPAND,
        "background_color",
        COLOR,
        ["red", {}, 0, [0, 0], [0, 0, 256], [0, 0, -1], [0, 0, 0.0], [122.77, 116, 104]],
    ),
    (RESIZE, "size", SIDE, ["336", 0, -1, 8193, 2**70, 336.0, [336], [1, 0], [1, 1, 1], [1, 1.5]]),
    (CROP, "size", SIDE, ["336", 0, -1, 8193, 2**70, 336.0, [336], [0, 1], [1, 1, 1], [1, 1.5]]),
    (RESIZE, "interpolation", FILTER, ["lanczos", "BICUBIC", 3, []]),
    (
        NORMALIZE,
        "mean",
        "three numbers",
        [0.5, [0.5, 0.5], [0.5, 0.5, "0.5"], [0, 0, 10**400], [0, 0, 1e39], [0, 0, None]],
    ),
    (NORMALIZE, "mean", "three numbers", [[0, 0, float("inf")], [0, float("nan"), 0]]),
    (
        NORMALIZE,
        "std",
        "three numbers above 0",
        [1, [1, 1], [1, 1, 0], [1, 1, 0.0], [1, -1, 1], [1, 1, 1e-50], [1, 1, "1"]],
    ),
    (NORMALIZE, "std", "three numbers above 0", [[1, 1, float("inf")], [1, float("nan"), 1]]),
]


@pytest.mark.parametrize(
    ("entry", "field", "must", "value"),
    [(entry, field, must, value) for entry, field, must, values in WRONG for value in values],
)
def test_a_value_of_the_wrong_type_or_out_of_range_is_refused(
    entry: dict[str, Any], field: str, must: str, value: Any
) -> None:
    at = LLAVA.index(entry)
    section = [*LLAVA[:at], {**entry, field: value}, *LLAVA[at + 1 :]]
    refuse(section, f"{PATH}.{at}.{field} is {value!s:.60}: it must be {must}")


@pytest.mark.parametrize(
    ("entry", "field", "value"),
    [
        (EXPAND, "background_color", [True, 0, 0]),
        (RESIZE, "size", True),
        (CROP, "size", [True, 1]),
        (NORMALIZE, "mean", [True, 0, 0]),
        (NORMALIZE, "std", [1, 1, True]),
    ],
)
def test_a_switch_is_no_number(entry: dict[str, Any], field: str, value: Any) -> None:
    at = LLAVA.index(entry)
    with pytest.raises(InputRefused, match=rf"^{FILE}: {PATH}.{at}.{field} is .*: it must be "):
        read([*LLAVA[:at], {**entry, field: value}, *LLAVA[at + 1 :]])


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ([], " has no to_tensor"),
        ([EXPAND, RESIZE, CROP], " has no to_tensor"),
        ([RESIZE, TENSOR, TENSOR], ".2 is a second to_tensor"),
        ([RESIZE, TENSOR, CROP], ".2: center_crop must come before to_tensor"),
        ([TENSOR, NORMALIZE, RESIZE], ".2: resize must come before to_tensor"),
        ([TENSOR, EXPAND], ".1: expand_to_square must come before to_tensor"),
        ([RESIZE, NORMALIZE, TENSOR], ".1: normalize must come after to_tensor"),
    ],
)
def test_pictures_come_before_the_one_to_tensor_and_tensors_after(section: list[Any], said: str) -> None:
    refuse(section, f"{PATH}{said}")
