"""Indices: they stay in their folder, and agree with their files key by key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mmconvert.containers.shards import check_key, check_shape, inside, read_shards
from mmconvert.dtypes import BY_NAME
from mmconvert.errors import InputRefused
from mmconvert.sources import FileSpan, TensorRef


def read_lines(path: Path, name: str) -> dict[str, TensorRef]:
    """A container for these tests: one key a line."""
    return {
        key: TensorRef(key, BY_NAME["uint8"], (0,), FileSpan(path, 0, 0), name) for key in path.read_text().splitlines()
    }


def checkpoint(folder: Path, weight_map: Any, **shards: list[str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, keys in shards.items():
        (folder / name).write_text("\n".join(keys))
    index = folder / "index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return index


def test_the_tensors_come_in_the_order_of_the_index_and_know_their_file(tmp_path: Path) -> None:
    index = checkpoint(tmp_path, {"c": "two", "a": "one", "b": "two"}, one=["a"], two=["b", "c"])
    assert [(key, tensor.file) for key, tensor in read_shards(index, read_lines).items()] == [
        ("c", "two"),
        ("a", "one"),
        ("b", "two"),
    ]


@pytest.mark.parametrize(
    ("weight_map", "shards", "reason"),
    [
        ({"a": "one", "b": "one"}, {"one": ["a"]}, "'b' should be in one, but is not there"),
        ({"a": "one"}, {"one": ["a", "b"]}, "one holds 'b', which the index does not list"),
        ({"a": "one", "b": "two"}, {"one": ["a"], "two": ["a", "b"]}, "'a' lies in one and in two"),
        ({"a": "two", "b": "one"}, {"one": ["a"], "two": ["b"]}, "'a' should be in two, but lies in one"),
        ({"a": "one", "b": "two"}, {"one": ["a"]}, "two: is missing"),
        ({"a": 1}, {}, "'a': its file is not a name"),
        ({"a/b": "one"}, {"one": ["a/b"]}, "'a/b' cannot be the name"),
        ({}, {}, "has no weight_map"),
        (["a"], {}, "has no weight_map"),
        (None, {}, "has no weight_map"),
    ],
)
def test_an_index_that_disagrees_with_its_files_is_refused(
    tmp_path: Path, weight_map: Any, shards: dict[str, list[str]], reason: str
) -> None:
    with pytest.raises(InputRefused, match=reason):
        read_shards(checkpoint(tmp_path, weight_map, **shards), read_lines)


def test_an_index_that_is_no_object_is_refused(tmp_path: Path) -> None:
    (tmp_path / "index.json").write_text("[]")
    with pytest.raises(InputRefused, match=r"index\.json: has no weight_map"):
        read_shards(tmp_path / "index.json", read_lines)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "sub/one", "sub\\one", "..", ".", "", "C:one", "a\0"])
def test_only_plain_file_names_are_followed(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret").write_text("a")
    with pytest.raises(InputRefused, match=r"index\.json: 'a': .* is not a plain file name"):
        read_shards(checkpoint(tmp_path / "model", {"a": name}), read_lines)


def test_a_link_out_of_the_folder_is_refused_and_one_within_it_is_followed(tmp_path: Path) -> None:
    index = checkpoint(tmp_path / "model", {"a": "one"}, other=["a"])
    (tmp_path / "secret").write_text("a")
    link = tmp_path / "model" / "one"
    link.symlink_to("other")
    assert list(read_shards(index, read_lines)) == ["a"]
    link.unlink()
    link.symlink_to("../secret")
    with pytest.raises(InputRefused, match="one: links out of its folder"):
        read_shards(index, read_lines)


def test_an_index_that_is_a_link_out_of_the_folder_is_not_read(tmp_path: Path) -> None:
    index = checkpoint(tmp_path, {"a": "one"}, one=["a"])
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "index.json").symlink_to(index)
    with pytest.raises(InputRefused, match=r"index\.json: links out of its folder"):
        read_shards(folder / "index.json", read_lines)


@pytest.mark.parametrize("target", ["itself", "nowhere"])
def test_a_link_to_nothing_is_refused(tmp_path: Path, target: str) -> None:
    (tmp_path / "itself").symlink_to(target)
    with pytest.raises(InputRefused, match="itself: is missing"):
        inside(tmp_path, "itself")


def test_a_hub_snapshot_links_into_the_blobs_beside_it_and_nowhere_else(tmp_path: Path) -> None:
    repository = tmp_path / "models--a--b"
    blobs, snapshot = repository / "blobs", repository / "snapshots" / "0123abcd"
    blobs.mkdir(parents=True)
    (blobs / "f00").write_text("a")
    (blobs / "ba5").write_text(json.dumps({"weight_map": {"a": "one"}}))
    snapshot.mkdir(parents=True)
    (snapshot / "index.json").symlink_to("../../blobs/ba5")
    (snapshot / "one").symlink_to("../../blobs/f00")
    assert list(read_shards(snapshot / "index.json", read_lines)) == ["a"]

    (tmp_path / "through").symlink_to(snapshot)
    assert list(read_shards(tmp_path / "through" / "index.json", read_lines)) == ["a"]

    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "f00").write_text("a")
    (snapshot / "one").unlink()
    (snapshot / "one").symlink_to("../../../blobs/f00")
    with pytest.raises(InputRefused, match="one: links out of its folder"):
        read_shards(snapshot / "index.json", read_lines)


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    """A hub's snapshot with a file `one`; `foreign` stands beside the cache and holds files with the same names."""
    for folder in (tmp_path / "foreign", tmp_path / "models--a--b" / "blobs"):
        folder.mkdir(parents=True)
        (folder / "f00").write_text("a")
    found = tmp_path / "models--a--b" / "snapshots" / "0123abcd"
    found.mkdir(parents=True)
    (found / "one").symlink_to("../../blobs/f00")
    assert inside(found, "one") == found / "one"
    return found


def test_blobs_that_are_a_link_to_another_folder_are_none(snapshot: Path) -> None:
    blobs = snapshot.parents[1] / "blobs"
    blobs.rename(blobs.with_name("others"))
    for target in ("../foreign", "others"):
        blobs.symlink_to(target)
        with pytest.raises(InputRefused, match="one: links out of its folder"):
            inside(snapshot, "one")
        blobs.unlink()


def test_a_blob_is_a_file_of_its_own_and_leads_nowhere_else(snapshot: Path) -> None:
    blob = snapshot.parents[1] / "blobs" / "f00"
    blob.unlink()
    blob.symlink_to("../../foreign/f00")
    with pytest.raises(InputRefused, match=r"one: links out of its folder, to .*foreign/f00"):
        inside(snapshot, "one")
    blob.unlink()
    blob.mkdir()
    with pytest.raises(InputRefused, match="one: links out of its folder"):
        inside(snapshot, "one")


def test_only_the_blobs_of_the_nearest_snapshots_are_meant(snapshot: Path) -> None:
    (snapshot / "snapshots" / "inner").mkdir(parents=True)
    (snapshot / "snapshots" / "inner" / "one").symlink_to("../../../../blobs/f00")
    with pytest.raises(InputRefused, match="one: links out of its folder"):
        inside(snapshot / "snapshots" / "inner", "one")


@pytest.mark.parametrize("key", ["", "a/b", "a\\b", "../a", "a\n", "a\x1b[2J", "__metadata__", "k" * 1025, "\ud800"])
def test_a_name_that_could_be_taken_for_something_else_is_refused(tmp_path: Path, key: str) -> None:
    with pytest.raises(InputRefused, match="cannot be the name of a tensor"):
        check_key(key, tmp_path)


def test_ordinary_names_and_shapes_pass(tmp_path: Path) -> None:
    check_key("model.layers.0.self_attn.q_proj.weight", tmp_path)
    check_key("k" * 1024, tmp_path)
    assert check_shape([2, 0, 1 << 60], "x") == (2, 0, 1 << 60)
    assert check_shape((), "x") == ()
