"""The `transforms` of a params file: every step by hand, and all of them against transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import mmsimple
from mmconvert.documents import read_yaml
from mmconvert.paths import get
from mmsimple.data import transforms
from mmsimple.data.images import BadImage
from mmsimple.data.transforms import (
    CenterCrop,
    ExpandToSquare,
    Normalize,
    Resize,
    Size,
    Step,
    ToTensor,
    Transforms,
    read_transforms,
    write_transforms,
)
from tests.mmsimple.data.transform_examples import (
    CROP,
    FILE,
    LLAVA,
    MEAN,
    PATH,
    RESIZE,
    SIZES,
    STD,
    TENSOR,
    assert_same,
    by_clip,
    expanded,
    gray,
    noise,
    row,
)

SHIPPED = Path(mmsimple.__file__).parent / "configs"


def read(section: Any) -> Transforms:
    return read_transforms(section, FILE, PATH)


@pytest.mark.parametrize("size", [*SIZES, (336, 336), (337, 336), (1, 700)], ids=str)
def test_llavas_list_is_clips_processor_on_the_expanded_square(size: Size) -> None:
    image = noise(*size)
    config = {"size": {"shortest_edge": 336}, "crop_size": {"height": 336, "width": 336}}
    ours = read(LLAVA)(image)
    assert ours.shape == (3, 336, 336)
    assert_same(ours, by_clip(config, expanded(image, (122, 116, 104))))


@pytest.mark.parametrize("phase", [1, 2])
def test_the_list_of_the_shipped_file_is_llavas_and_is_written_as_it_was_read(phase: int) -> None:
    section = get(read_yaml(SHIPPED / f"params_mm_llava_llama2_7b_phase{phase}.yaml"), PATH)
    assert section == LLAVA
    assert read(section) == Transforms(
        (
            ExpandToSquare((122, 116, 104)),
            Resize(336, "bicubic"),
            CenterCrop(336),
            ToTensor(),
            Normalize((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
        )
    )
    assert write_transforms(read(section)) == section


def test_a_picture_stays_as_it_was() -> None:
    image = noise(7, 4)
    read(LLAVA)(image)
    assert np.array_equal(np.asarray(image), np.asarray(noise(7, 4)))


def test_a_picture_stands_in_the_middle_of_a_square_or_half_a_pixel_before() -> None:
    expand = ExpandToSquare((7, 7, 7))
    wide, tall = row(1, 2, 3, 4), row(1, 2, 3, 4).transpose(Image.Transpose.ROTATE_270)
    assert gray(expand(wide)) == [[7] * 4, [1, 2, 3, 4], [7] * 4, [7] * 4]
    assert gray(expand(tall)) == [[7, 1, 7, 7], [7, 2, 7, 7], [7, 3, 7, 7], [7, 4, 7, 7]]
    assert gray(expand(row(1, 2, 3))) == [[7] * 3, [1, 2, 3], [7] * 3]
    assert gray(expand(row(1))) == [[1]]


def test_the_background_is_red_green_blue() -> None:
    assert np.asarray(ExpandToSquare((122, 116, 104))(row(0, 0))).tolist() == [[[0] * 3] * 2, [[122, 116, 104]] * 2]


@pytest.mark.parametrize(
    ("size", "to", "becomes"),
    [
        ((3, 7), 2, (2, 4)),  # 4.67 is rounded down
        ((7, 3), 2, (4, 2)),
        ((5, 5), 9, (9, 9)),
        ((480, 640), 336, (336, 448)),
        ((333, 500), 336, (336, 504)),
        ((1, 8), 3, (3, 24)),
        ((3, 7), (5, 4), (5, 4)),
        ((3, 3), (2, 6), (2, 6)),
    ],
)
def test_the_shorter_side_gets_the_size_and_the_longer_its_proportion(
    size: Size, to: int | Size, becomes: Size
) -> None:
    resized = Resize(to)(noise(*size))
    assert (resized.height, resized.width) == becomes


@pytest.mark.parametrize(
    ("levels", "width", "interpolation", "expected"),
    [
        ([0, 70, 140, 210], 2, "nearest", [70, 210]),
        # A triangle over 2 pixels to each side: weights 3, 3, 1 of 7. Without antialiasing it were [35, 175].
        ([0, 70, 140, 210], 2, "bilinear", [50, 160]),
        ([0, 100], 4, "nearest", [0, 0, 100, 100]),
        ([0, 100], 4, "bilinear", [0, 25, 75, 100]),
        # Weights of a = -1/2 at distances 1/4, 3/4, 5/4: 111/128, 29/128, -9/128; those past the edge are left out.
        ([50, 150], 4, "bicubic", [41, 71, 129, 159]),
    ],
)
def test_filters_are_those_of_pil(levels: list[int], width: int, interpolation: Any, expected: list[int]) -> None:
    assert gray(Resize((1, width), interpolation)(row(*levels))) == [expected]


@pytest.mark.parametrize(
    ("length", "kept", "torchvision", "transformers"),
    [
        (4, 4, [1, 2, 3, 4], [1, 2, 3, 4]),
        (6, 2, [3, 4], [3, 4]),
        (5, 4, [1, 2, 3, 4], [1, 2, 3, 4]),  # half a pixel is rounded to 0
        (7, 4, [3, 4, 5, 6], [2, 3, 4, 5]),  # 1.5 to 2
        (9, 4, [3, 4, 5, 6], [3, 4, 5, 6]),  # 2.5 to 2
        (11, 4, [5, 6, 7, 8], [4, 5, 6, 7]),  # 3.5 to 4
        (2, 4, [0, 1, 2, 0], [0, 1, 2, 0]),
        (3, 4, [1, 2, 3, 0], [0, 1, 2, 3]),
        (1, 4, [0, 1, 0, 0], [0, 0, 1, 0]),
    ],
)
def test_a_crop_is_the_middle_and_black_around_it(
    length: int, kept: int, torchvision: list[int], transformers: list[int]
) -> None:
    wide = row(*range(1, length + 1))
    tall = wide.transpose(Image.Transpose.ROTATE_270)
    for rounds_down, expected in ((False, torchvision), (True, transformers)):
        assert gray(CenterCrop((1, kept), rounds_down)(wide)) == [expected]
        assert gray(CenterCrop((kept, 1), rounds_down)(tall)) == [[each] for each in expected]


def test_a_picture_may_be_cut_along_one_side_and_bordered_along_the_other() -> None:
    assert gray(CenterCrop(3)(row(1, 2, 3, 4, 5))) == [[0, 0, 0], [2, 3, 4], [0, 0, 0]]
    assert gray(CenterCrop((2, 3))(row(1, 2, 3, 4, 5))) == [[2, 3, 4], [0, 0, 0]]


def test_levels_become_255ths_channels_first() -> None:
    pixels = np.array([[[0, 1, 2], [3, 4, 5]], [[6, 7, 8], [9, 10, 255]]], dtype=np.uint8)
    tensor = ToTensor()(Image.fromarray(pixels))
    expected = torch.tensor([[[0, 3], [6, 9]], [[1, 4], [7, 10]], [[2, 5], [8, 255]]], dtype=torch.float32) / 255
    assert tensor.dtype == torch.float32
    assert tensor.is_contiguous()
    assert torch.equal(tensor, expected)


def test_channels_lose_their_mean_and_are_divided_by_their_deviation() -> None:
    tensor = torch.tensor([0.0, 0.5, 1.0])[:, None, None].expand(3, 2, 1)
    normalized = Normalize((0.5, 0.25, -1), (0.5, 0.125, 4))(tensor)
    assert torch.equal(normalized, torch.tensor([-1, 2, 0.5])[:, None, None].expand(3, 2, 1))


def test_normalizing_is_a_difference_and_a_quotient_in_float32() -> None:
    levels = ToTensor()(noise(40, 40))
    tensor = Normalize((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))(levels)
    mean, std = (np.array(values, dtype=np.float32) for values in (MEAN, STD))
    expected = (levels.numpy().T - mean) / std
    assert np.array_equal(tensor.numpy(), expected.T)


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ((), None),
        ((Resize(6),), None),
        ((Resize((6, 4)),), (6, 4)),
        ((CenterCrop(5),), (5, 5)),
        ((CenterCrop((5, 3)),), (5, 3)),
        ((ExpandToSquare((0, 0, 0)),), None),
        ((ExpandToSquare((0, 0, 0)), Resize(6)), (6, 6)),
        ((Resize(6), ExpandToSquare((0, 0, 0))), None),
        ((CenterCrop((5, 3)), Resize(6)), (10, 6)),
        ((Resize((6, 4)), ExpandToSquare((0, 0, 0))), (6, 6)),
    ],
)
def test_the_size_is_known_where_it_depends_on_no_picture(steps: tuple[Step, ...], expected: Size | None) -> None:
    transforms = Transforms((*steps, ToTensor(), Normalize((0, 0, 0), (1, 1, 1))))
    assert transforms.output_size == expected
    sizes = {transforms(noise(*size)).shape[1:] for size in ((3, 3), (4, 7), (9, 2))}
    assert sizes == {expected} if expected else len(sizes) > 1


@pytest.mark.parametrize(
    ("steps", "size", "becomes"),
    [
        (LLAVA, (1, 100_000), "100000 x 1 pixels would become 100000 x 100000 on the way"),
        ([RESIZE, CROP, TENSOR], (100_000, 1), "1 x 100000 pixels would become 336 x 33600000 on the way"),
    ],
)
def test_a_line_that_would_grow_out_of_memory_is_refused(steps: list[Any], size: Size, becomes: str) -> None:
    with pytest.raises(BadImage) as caught:
        read(steps)(Image.new("RGB", (size[1], size[0])))
    assert str(caught.value) == f"{becomes}, more than {2**28:,}"
    assert caught.value.reason == "image too large"


def test_a_picture_may_grow_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transforms, "MAX_GROWN", 16)
    expand = Transforms((ExpandToSquare((0, 0, 0)), ToTensor()))
    assert expand(row(1, 2, 3, 4)).shape == (3, 4, 4)
    with pytest.raises(BadImage):
        expand(row(1, 2, 3, 4, 5))
