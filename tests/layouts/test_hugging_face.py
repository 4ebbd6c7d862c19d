"""Folders with a config.json: hub caches, folders of folders, and files that must agree."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from mmconvert.errors import InputRefused, UsageError
from mmconvert.layouts import Hints, recognise
from mmconvert.layouts.checkpoint import LICENCE_LIMIT
from mmconvert.layouts.hugging_face import snapshot

Make = Callable[..., Path]


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A hub cache folder with two snapshots."""
    folder = tmp_path / "models--org--name"
    for name in ("aaa", "bbb"):
        (folder / "snapshots" / name).mkdir(parents=True)
    (folder / "refs").mkdir()
    return folder


def test_the_snapshot_is_the_one_that_main_names(cache: Path) -> None:
    (cache / "refs" / "main").write_text("bbb\n")
    assert snapshot(cache) == cache / "snapshots" / "bbb"


def test_a_single_snapshot_needs_no_name(cache: Path) -> None:
    (cache / "snapshots" / "bbb").rmdir()
    assert snapshot(cache) == cache / "snapshots" / "aaa"


@pytest.mark.parametrize("main", [None, b"", b"ccc", b"../..", b"/", b"\xff\xfe\x00", b"x" * 300, b"\n\xc3\xa9" * 40])
def test_several_snapshots_without_a_usable_name_are_the_users_to_choose(cache: Path, main: bytes | None) -> None:
    if main is not None:
        (cache / "refs" / "main").write_bytes(main)
    with pytest.raises(UsageError, match="2 snapshots"):
        snapshot(cache)


def test_a_single_snapshot_is_found_whatever_main_says(cache: Path) -> None:
    (cache / "refs" / "main").write_bytes(b"\xff" * 300)
    (cache / "snapshots" / "bbb").rmdir()
    assert snapshot(cache) == cache / "snapshots" / "aaa"


@pytest.mark.parametrize("name", ["snapshots", "snapshots/bbb", "refs", "refs/main"])
@pytest.mark.parametrize("main", ["bbb", "ccc"])
def test_a_snapshot_that_is_a_link_out_of_the_cache_is_refused(cache: Path, name: str, main: str) -> None:
    (cache / "snapshots" / "aaa").rmdir()
    (cache / "refs" / "main").write_text(main)
    (cache / name).rename(cache.parent / "private")
    (cache / name).symlink_to(cache.parent / "private")
    with pytest.raises(InputRefused, match=f"{name}: links out of its folder"):
        snapshot(cache)


def test_any_other_folder_is_itself(tmp_path: Path) -> None:
    assert snapshot(tmp_path) == tmp_path


def test_files_travel_by_name_and_licences_only_if_they_are_small(make_llama: Make, tmp_path: Path) -> None:
    source = make_llama(tmp_path / "source")
    for name in ("LICENSE.txt", "generation_config.json", "training_args.bin", "README.md"):
        (source / name).write_text("{}")
    (source / "LICENSE.huge").write_bytes(bytes(LICENCE_LIMIT + 1))
    (source / "merges.txt").write_bytes(bytes(LICENCE_LIMIT + 1))
    assert set(recognise(source).sidecars) == {
        "config.json",
        "tokenizer.model",
        "LICENSE.txt",
        "generation_config.json",
        "merges.txt",
    }


@pytest.mark.parametrize("name", ["config.json", "tokenizer.model", "LICENSE"])
def test_a_file_that_links_out_of_its_folder_is_refused(make_llama: Make, tmp_path: Path, name: str) -> None:
    source = make_llama(tmp_path / "source")
    (source / "LICENSE").touch()
    (source / name).rename(tmp_path / "secret")
    (source / name).symlink_to("../secret")
    with pytest.raises(InputRefused, match=rf"{name}: links out of its folder"):
        recognise(source)


def test_a_companion_that_links_out_of_its_folder_is_refused(make_llava: Make, tmp_path: Path) -> None:
    text = make_llava(tmp_path / "source") / "text_model_llava"
    (text / "config_lmsys.json").symlink_to("../image_model/config.json")
    with pytest.raises(InputRefused, match=r"config_lmsys\.json: links out of its folder"):
        recognise(tmp_path / "source")


def test_safetensors_are_read_where_a_pickle_lies_beside_them(make_llama: Make, tmp_path: Path) -> None:
    source = make_llama(tmp_path / "source")
    (source / "pytorch_model.bin").write_bytes(b"not read")
    found = recognise(source)
    assert len(found.tensors) == 21
    assert found.notes == (f"{source}: model.safetensors is read, pytorch_model.bin beside it is not",)


def test_a_format_or_model_that_is_named_narrows_the_choice(llava: Path, llama: Path) -> None:
    assert str(recognise(llava, Hints(format="llava")).node) == "mmsimple-llava llava"
    with pytest.raises(InputRefused, match="folders for"):
        recognise(llava, Hints(format="hf"))
    with pytest.raises(InputRefused, match="model_type 'llama'"):
        recognise(llama, Hints(model="mistral"))


def test_an_empty_folder_is_refused_with_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(InputRefused, match=r"no config\.json, no \.mdl"):
        recognise(tmp_path)


def test_a_config_that_is_no_mapping_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(InputRefused, match=r"config\.json: holds no mapping"):
        recognise(tmp_path)


def test_fields_of_a_companion_that_llava_changes_may_differ_and_are_noted(make_llava: Make, tmp_path: Path) -> None:
    source = make_llava(tmp_path / "source")
    own = {"model_type": "llama", "max_position_embeddings": 4096, "bos_token_id": 7, "pretraining_tp": 1}
    (source / "text_model_llava" / "config_lmsys.json").write_text(json.dumps(own))
    found = recognise(source)
    text = found.config["text_model"]
    assert (text["model_type"], text["max_position_embeddings"], text["bos_token_id"]) == ("llava_llama", 64, 1)
    assert text["pretraining_tp"] == 1
    (note,) = found.notes
    assert note == "config_lmsys.json: its max_position_embeddings 4096 is not used, but 64"


@pytest.mark.parametrize("name", ["x" * 100_000, "a\0b"])
def test_a_tower_whose_name_no_folder_can_have_is_not_found(make_llava: Make, tmp_path: Path, name: str) -> None:
    text = make_llava(tmp_path / "llava", names=("tower", "text"), mm_vision_tower=name) / "text"
    with pytest.raises(InputRefused, match=r"mm_vision_tower is '[ax].{1,80} is not found; name its folder"):
        recognise(text)


def test_a_config_that_is_no_file_is_told_of(make_llama: Make, tmp_path: Path) -> None:
    folder = make_llama(tmp_path / "llama")
    (folder / "config.json").unlink()
    for make in (lambda path: path.mkdir(), lambda path: (path.rmdir(), path.symlink_to("nowhere"))):
        make(folder / "config.json")
        with pytest.raises(InputRefused, match=r"config\.json: is not a regular file, or leads to none"):
            recognise(folder)
