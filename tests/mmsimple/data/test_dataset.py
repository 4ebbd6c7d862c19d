"""Samples with their pictures, and what is told of those that cannot be had."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from mmconvert.errors import InputRefused
from mmsimple.data import pictures as module
from mmsimple.data.dataset import Loaded, MultimodalDataset
from mmsimple.data.h5 import Layout, Row
from mmsimple.data.images import open_image
from tests.mmsimple.data.pictures import draw, make_dataset
from tests.mmsimple.data.worked_example import A, B, C, file_of


def firsts(dataset: MultimodalDataset) -> list[int]:
    """The second token of every sample, which tells them apart."""
    rows = (dataset[index].row for index in range(len(dataset)))
    return [int(row.data[0, 1]) for row in rows if row is not None]


def numbered(count: int) -> list[Row]:
    """Samples of text that are told apart by their second token."""
    rows = []
    for number in range(count):
        data = C.data.copy()
        data[0, 1] = number
        rows.append(C._replace(data=data))
    return rows


def test_samples_of_all_files_come_with_their_pictures(tmp_path: Path) -> None:
    config = make_dataset(tmp_path)
    dataset = MultimodalDataset(config)
    assert (len(dataset), dataset.layout, dataset.lengths) == (3, Layout(16, 2, 4), [3])
    expected = [config.transforms(open_image(tmp_path / "images" / name)) for name in ("sub/a.png", "b.png")]
    for index, (row, slots) in enumerate([(A, [0]), (B, [0, 1]), (C, [])]):
        found: Loaded = dataset[index]
        assert found.row is not None
        assert (found.row.paths, found.row.data.tolist()) == (row.paths, row.data.tolist())
        assert list(found.pictures) == slots
        assert all(torch.equal(found.pictures[slot], expected[slot]) for slot in slots)
        assert found.bad is None


def test_empty_slots_are_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = MultimodalDataset(make_dataset(tmp_path))
    opened: list[Path] = []

    def remember(path: Path) -> Image.Image:
        opened.append(path)
        return open_image(path)

    monkeypatch.setattr(module, "open_image", remember)
    for index in range(3):
        dataset[index]
    assert [path.name for path in opened] == ["a.png", "a.png", "b.png"]


def test_files_of_several_folders_are_sorted_by_path(tmp_path: Path) -> None:
    rows = numbered(4)
    for folder, number in (("b", 0), ("a", 1)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "1.h5").write_bytes(file_of(rows[2 * number : 2 * number + 1]))
        (tmp_path / folder / "0.h5").write_bytes(file_of(rows[2 * number + 1 : 2 * number + 2]))
    config = make_dataset(tmp_path, data_dir=[str(tmp_path / "b"), str(tmp_path / "a")])
    assert firsts(MultimodalDataset(config)) == [3, 2, 1, 0]


@pytest.mark.parametrize(
    ("subset", "expected"),
    [
        ("0.0-0.5", [0, 1, 2, 3, 4]),
        ("0.1-0.3,0.7-1.0", [1, 2, 7, 8, 9]),
        ("0.85-1.0", [8, 9]),
        ("0.19-0.29", [1]),
        ("0-1", [*range(10)]),
    ],
)
def test_a_subset_is_a_share_of_all_files(subset: str, expected: list[int], tmp_path: Path) -> None:
    config = make_dataset(tmp_path, numbered(10), data_subset=subset)
    dataset = MultimodalDataset(config)
    assert firsts(dataset) == expected
    assert len(dataset) == len(expected)


def test_a_subset_without_a_sample_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputRefused, match="no sample in the data_subset"):
        MultimodalDataset(make_dataset(tmp_path, data_subset="0.0-0.1"))


def test_a_mixture_has_one_dataset_after_the_other(tmp_path: Path) -> None:
    config = make_dataset(tmp_path, numbered(6))
    one = config.sources[0]
    both = replace(config, sources=(replace(one, ranges=((0.5, 1.0),), weight=2.0), one))
    dataset = MultimodalDataset(both)
    assert dataset.lengths == [3, 6]
    assert firsts(dataset) == [3, 4, 5, 0, 1, 2, 3, 4, 5]


def test_a_dataset_travels_to_another_process(tmp_path: Path) -> None:
    dataset = MultimodalDataset(make_dataset(tmp_path))
    dataset[0]
    assert firsts(pickle.loads(pickle.dumps(dataset))) == firsts(dataset)


# --- what cannot be had ---------------------------------------------------------------------------------------------


def spoil_missing(path: Path) -> None:
    path.unlink()


def spoil_content(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


@pytest.mark.parametrize(
    ("spoil", "reason"), [(spoil_missing, "image missing"), (spoil_content, "image cannot be decoded")]
)
@pytest.mark.parametrize("on_bad_sample", ["error", "skip", "blank"])
def test_a_picture_that_cannot_be_had_is_told(spoil: Any, reason: str, on_bad_sample: str, tmp_path: Path) -> None:
    dataset = MultimodalDataset(make_dataset(tmp_path, on_bad_sample=on_bad_sample))
    spoil(tmp_path / "images" / "b.png")
    assert dataset[0].bad is None
    found = dataset[1]
    assert found.bad is not None
    assert found.bad.reason == reason
    assert found.bad.message.startswith(f"{tmp_path / 'data' / '0.h5'}: sample 1: ")
    assert "b.png" in found.bad.message
    if on_bad_sample == "blank":
        assert found.row is not None
        assert [bool(found.pictures[slot].any()) for slot in (0, 1)] == [True, False]
        assert found.pictures[1].shape == (3, 28, 28)
    else:
        assert (found.row, found.pictures) == (None, {})


@pytest.mark.parametrize("name", ["../outside.png", "/etc/passwd", "link.png"])
def test_a_path_that_leaves_the_folder_is_never_opened(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw(tmp_path / "outside.png", 0)
    dataset = MultimodalDataset(make_dataset(tmp_path, [A._replace(paths=(name, "None")), B]))
    (tmp_path / "images" / "link.png").symlink_to(tmp_path / "outside.png")
    monkeypatch.setattr(module, "open_image", lambda path: pytest.fail(f"opened {path}"))
    found = dataset[0].bad
    assert found is not None
    assert found.reason == "image path leaves the folder"


def test_a_sample_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    dataset = MultimodalDataset(make_dataset(tmp_path, on_bad_sample="blank"))
    path = tmp_path / "data" / "1.h5"
    path.write_bytes(path.read_bytes()[:2000])
    found = dataset[2]
    assert found.row is None
    assert found.bad is not None
    assert found.bad.reason == "sample cannot be read"
    assert found.bad.message.startswith(f"{path}: sample 0: cannot be read as HDF5")


# --- what is refused ------------------------------------------------------------------------------------------------


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputRefused, match=r"nowhere: data_dir is no folder"):
        MultimodalDataset(make_dataset(tmp_path, data_dir=str(tmp_path / "nowhere")))


def test_a_folder_without_training_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputRefused, match=r"empty: data_dir holds no \*\.h5 file"):
        MultimodalDataset(make_dataset(tmp_path, data_dir=str(tmp_path / "empty")))


def test_files_that_are_not_alike_are_refused(tmp_path: Path) -> None:
    narrow = Row(C.data[:, :8], C.paths, C.positions)
    config = make_dataset(tmp_path, [A, B, narrow])
    with pytest.raises(
        InputRefused, match=r"1\.h5: has 8 positions, 2 images of 4 tokens, but .*0\.h5 has 16 positions"
    ):
        MultimodalDataset(config)


@pytest.mark.parametrize(
    ("fields", "said"), [({"max_num_img": 1}, "max_num_img is 1"), ({"num_patches": 5}, "num_patches is 5")]
)
def test_files_that_are_not_what_the_config_says_are_refused(fields: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(InputRefused, match=rf"has 16 positions, 2 images of 4 tokens, but {said}"):
        MultimodalDataset(make_dataset(tmp_path, **fields))
    assert (
        MultimodalDataset(replace(make_dataset(tmp_path / "b"), max_num_img=2, num_patches=4)).layout.image_slots == 2
    )
