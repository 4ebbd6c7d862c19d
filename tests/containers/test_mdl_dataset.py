"""What is said of a dataset is read from its headers, and nothing is followed out of its file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from mmconvert.containers.mdl_dataset import location, open_dataset, scalar, stored_type
from mmconvert.errors import InputRefused

W = np.arange(24, dtype="<f4").reshape(4, 6)


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Any]:
    with h5py.File(tmp_path / "x.mdl", "w") as file:
        yield file


@pytest.mark.parametrize("value", ["é", 3, 0.5, True])
def test_one_string_or_number_is_read_as_python_has_it(file: Any, value: Any) -> None:
    file.attrs["x"] = value
    found = scalar(file.id, "x", "x")
    assert (found, type(found)) == (value, type(value))
    assert scalar(file.id, "y", "y") is None


@pytest.mark.parametrize("value", [[1], ["a", "b"], h5py.Empty("f"), np.void(b"pickle"), 1j])
def test_anything_else_in_an_attribute_is_refused_by_its_name(file: Any, value: Any) -> None:
    file.attrs["x"] = value
    with pytest.raises(InputRefused, match="the x: not one string or number"):
        scalar(file.id, "x", "the x")


def group(file: Any) -> None:
    file.create_group("w")


def datatype(file: Any) -> None:
    file["w"] = np.dtype("<f4")


def soft(file: Any) -> None:
    file["v"] = W
    file["w"] = h5py.SoftLink("/v")


def external_link(file: Any) -> None:
    file["w"] = h5py.ExternalLink("/etc/passwd", "w")


def external_storage(file: Any) -> None:
    file.create_dataset("w", shape=(4, 6), dtype="<f4", external=[("/etc/passwd", 0, 96)])


def virtual(file: Any) -> None:
    layout = h5py.VirtualLayout((4, 6), "<f4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "w", (4, 6))
    file.create_virtual_dataset("w", layout)


def absent(file: Any) -> None:
    pass


@pytest.mark.parametrize(
    ("put", "said"),
    [
        (group, "the w: cannot be read as a dataset"),
        (datatype, "the w: cannot be read as a dataset"),
        (soft, "the w: a soft or external link"),
        (external_link, "the w: a soft or external link"),
        (external_storage, "the w: its data lies in another file"),
        (virtual, "the w: its data lies in another file"),
        (absent, "the w: the file describes it but does not have its data"),
    ],
)
def test_what_is_no_dataset_of_this_file_alone_is_refused(file: Any, put: Callable[[Any], None], said: str) -> None:
    put(file)
    with pytest.raises(InputRefused, match=said):
        open_dataset(file, "w", "the w")


def test_no_path_through_groups_or_links_is_followed(file: Any) -> None:
    file["group/w"] = W
    with pytest.raises(InputRefused, match="does not have its data"):
        open_dataset(file, "group/w", "w")


def test_contiguous_data_lies_at_one_offset(file: Any) -> None:
    file["w"] = W
    assert location(open_dataset(file, "w", "w"), "w") == {"offset": file["w"].id.get_offset()}


def test_chunked_data_lies_in_its_chunks(file: Any) -> None:
    file.create_dataset("w", data=W, chunks=(4, 3), compression="gzip")
    found = location(open_dataset(file, "w", "w"), "w")
    assert (found["chunk"], found["filters"]) == ((4, 3), [1])
    assert [chunk[:2] for chunk in found["chunks"]] == [[0, 0], [0, 3]]


def test_an_empty_tensor_lies_nowhere(file: Any) -> None:
    file.create_dataset("w", shape=(0, 3), dtype="<f4", chunks=(1, 3), maxshape=(None, 3))
    assert location(open_dataset(file, "w", "w"), "w") == {"offset": 0}


def test_data_that_was_never_written_is_refused(file: Any) -> None:
    file.create_dataset("w", shape=(4, 6), dtype="<f4")
    with pytest.raises(InputRefused, match="the w: its data was never written"):
        location(open_dataset(file, "w", "w"), "the w")


@pytest.mark.parametrize(
    ("dtype", "stored"), [("bfloat16", "<i2"), ("bool", "?"), ("float16", "<f2"), ("int64", "<i8")]
)
def test_element_types_are_stored_as_numpy_has_them_and_bfloat16_as_its_bits(
    file: Any, dtype: str, stored: str
) -> None:
    file["w"] = np.zeros(3, stored)
    assert open_dataset(file, "w", "w").get_type() == stored_type(dtype)
