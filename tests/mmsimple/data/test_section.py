"""A dataloader section into a description of it, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

import mmsimple
from mmconvert.errors import InputRefused
from mmsimple.data.section import Source, read_data
from mmsimple.data.transforms import CenterCrop, Resize

FILE = "params.yaml"
CONFIGS = Path(mmsimple.__file__).parent / "configs"
SECTION: dict[str, Any] = {
    "data_processor": "MultimodalSimpleHDF5MapDataProcessor",
    "data_dir": "data",
    "img_data_dir": "images",
    "image_data_size": [3, 28, 28],
    "batch_size": 4,
    "transforms": [
        {"name": "resize", "size": 28},
        {"name": "center_crop", "size": 28},
        {"name": "to_tensor"},
    ],
}


def refuse(section: dict[str, Any], *said: str) -> None:
    with pytest.raises(InputRefused) as caught:
        read_data(section, FILE, "trainer.fit.train_dataloader")
    message = str(caught.value)
    assert message.startswith(f"{FILE}: ")
    assert "\n" not in message
    for each in said:
        assert each in message, message


def test_a_section_says_where_data_lies_and_how_it_is_batched() -> None:
    config = read_data(SECTION, FILE)
    assert config.sources == (Source((Path("data"),)),)
    assert (config.image_folder, config.image_size) == (Path("images"), (3, 28, 28))
    assert config.transforms.steps[:2] == (Resize(28, "bilinear"), CenterCrop(28))
    assert (config.batch_size, config.drop_last, config.shuffle, config.shuffle_seed) == (4, True, False, 0)
    assert (config.max_num_img, config.num_patches, config.on_bad_sample) == (None, None, "error")


def test_a_seed_and_whether_something_is_shuffled_are_two_things() -> None:
    config = read_data({**SECTION, "shuffle": True, "shuffle_seed": 5}, FILE)
    assert (config.shuffle, config.shuffle_seed) == (True, 5)
    assert not read_data({**SECTION, "shuffle_seed": 5}, FILE).shuffle


def test_what_workers_do_needs_workers() -> None:
    said = {"prefetch_factor": 3, "persistent_workers": True}
    without, some = (read_data({**SECTION, **said, "num_workers": count}, FILE) for count in (0, 2))
    assert (without.num_workers, without.prefetch_factor, without.persistent_workers) == (0, None, False)
    assert (some.num_workers, some.prefetch_factor, some.persistent_workers) == (2, 3, True)


def test_several_folders_are_one_dataset() -> None:
    assert read_data({**SECTION, "data_dir": ["b", "a"]}, FILE).sources == (Source((Path("b"), Path("a"))),)


def test_a_mixture_has_weights_and_subsets() -> None:
    mixture = [{"data_dir": "a", "weight": 1, "data_subset": "0.5-1.0"}, {"data_dir": ["b", "c"], "weight": 0.25}]
    section = {**SECTION, "mixture": mixture}
    del section["data_dir"]
    assert read_data(section, FILE).sources == (
        Source((Path("a"),), ((0.5, 1.0),), 1.0),
        Source((Path("b"), Path("c")), ((0.0, 1.0),), 0.25),
    )


@pytest.mark.parametrize(
    ("text", "ranges"), [("0.0-0.5", ((0.0, 0.5),)), ("0.1-0.3,0.7-1.0", ((0.1, 0.3), (0.7, 1.0))), ("0-1", ((0, 1),))]
)
def test_a_subset_is_a_list_of_ranges(text: str, ranges: tuple[tuple[float, float], ...]) -> None:
    assert read_data({**SECTION, "data_subset": text}, FILE).sources[0].ranges == ranges


@pytest.mark.parametrize(
    "text", ["", "0.5", "0.5-0.5", "0.6-0.5", "0.5-1.5", "-0.5-1", "0-0.5,0.4-1", "0.7-1,0-0.2", "a-b", "nan-1"]
)
def test_ranges_that_are_none_are_refused(text: str) -> None:
    refuse({**SECTION, "data_subset": text}, "data_subset is", "such as 0.0-0.5 or 0.1-0.3,0.7-1.0")


@pytest.mark.parametrize("phase", [1, 2])
@pytest.mark.parametrize("loader", ["train_dataloader", "val_dataloader"])
def test_the_shipped_configs_are_read(phase: int, loader: str) -> None:
    file = CONFIGS / f"params_mm_llava_llama2_7b_phase{phase}.yaml"
    section = yaml.safe_load(file.read_text("utf-8"))["trainer"]["fit"][loader]
    config = read_data(section, str(file))
    assert (config.image_size, config.transforms.output_size) == ((3, 336, 336), (336, 336))
    assert (config.max_num_img, config.num_patches) == (1, 576)


# --- what is refused ------------------------------------------------------------------------------------------------


def test_a_field_that_does_not_exist_is_named_with_the_nearest() -> None:
    refuse(
        {**SECTION, "bach_size": 4}, "trainer.fit.train_dataloader.bach_size: no such field; did you mean batch_size?"
    )


def test_a_transform_that_does_not_exist_is_named_with_its_place() -> None:
    refuse({**SECTION, "transforms": [{"name": "resise", "size": 28}]}, "train_dataloader.transforms.0", "resize")


@pytest.mark.parametrize("field", ["batch_size", "img_data_dir", "image_data_size", "transforms", "data_processor"])
def test_a_field_that_is_needed_is_missed(field: str) -> None:
    refuse({name: value for name, value in SECTION.items() if name != field}, f"'{field}' is a required property")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": True}, "batch_size"),
        ({"on_bad_sample": "ignore"}, "on_bad_sample"),
        ({"data_processor": "GptHDF5MapDataProcessor"}, "data_processor"),
        ({"data_dir": None}, "data_dir is missing, and so is mixture"),
        ({"mixture": [{"data_dir": "a", "weight": 1}]}, "data_dir and mixture are both given"),
        ({"data_dir": None, "mixture": [{"data_dir": "a", "weight": 0}]}, "mixture.0.weight"),
        ({"data_dir": None, "mixture": [{"data_dir": "a", "wait": 1, "weight": 1}]}, "did you mean weight?"),
        (
            {"data_dir": None, "data_subset": "0-1", "mixture": [{"data_dir": "a", "weight": 1}]},
            "in a mixture, each entry has its own",
        ),
        ({"image_data_size": [3, 28, 30]}, "image_data_size is [3, 28, 30], but transforms make 3 x (28, 28)"),
        ({"image_data_size": [1, 28, 28]}, "image_data_size is [1, 28, 28]"),
        ({"transforms": [{"name": "resize", "size": 28}, {"name": "to_tensor"}]}, "end with center_crop"),
    ],
)
def test_values_that_make_no_sense_are_refused(fields: dict[str, Any], said: str) -> None:
    refuse({**SECTION, **fields}, said)
