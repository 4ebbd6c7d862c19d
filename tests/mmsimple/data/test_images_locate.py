"""Where a dataset's pictures may lie: below their folder, as regular files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mmsimple.data.images import BadImage, Reason, locate

MISSING: Reason = "image missing"
LEAVES: Reason = "image path leaves the folder"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "a.png").touch()
    (tmp_path / "outside.png").touch()
    return folder


def refusal(root: Path, name: str) -> tuple[str, Reason]:
    with pytest.raises(BadImage) as caught:
        locate(root, name)
    assert "\n" not in str(caught.value)
    return str(caught.value), caught.value.reason


@pytest.mark.parametrize("name", ["sub/a.png", "./sub//a.png"])
def test_a_picture_lies_where_its_name_says(root: Path, name: str) -> None:
    assert locate(root, name) == root / "sub" / "a.png"


def test_a_name_that_only_windows_would_split_is_a_name(root: Path) -> None:
    name = "C:\\..\\a.png"
    (root / name).touch()
    assert locate(root, name) == root / name


@pytest.mark.parametrize("name", ["../outside.png", "sub/../sub/a.png", "sub/../../outside.png", "..", "/etc/passwd"])
def test_a_name_that_could_lead_out_of_the_folder_is_refused(root: Path, name: str) -> None:
    assert refusal(root, name) == (f"{name}: is no path below {root}", LEAVES)


def test_the_absolute_path_of_a_picture_in_the_folder_is_refused(root: Path) -> None:
    assert refusal(root, str(root / "sub" / "a.png"))[1] == LEAVES


def test_a_link_inside_the_folder_is_followed(root: Path) -> None:
    (root / "file.png").symlink_to("sub/a.png")
    (root / "folder").symlink_to(root / "sub")
    assert locate(root, "file.png") == root / "file.png"
    assert locate(root, "folder/a.png") == root / "folder" / "a.png"


def test_a_link_out_of_the_folder_is_refused(root: Path) -> None:
    (root / "file.png").symlink_to("../outside.png")
    (root / "folder").symlink_to(root.parent)
    message = f"is a link out of {root}"
    assert refusal(root, "file.png") == (f"{root / 'file.png'}: {message}", LEAVES)
    assert refusal(root, "folder/outside.png") == (f"{root / 'folder/outside.png'}: {message}", LEAVES)


def test_a_link_into_a_folder_whose_name_begins_the_same_is_refused(root: Path) -> None:
    beside = root.with_name("images2")
    beside.mkdir()
    (beside / "a.png").touch()
    (root / "a.png").symlink_to(beside / "a.png")
    assert refusal(root, "a.png")[1] == LEAVES


def test_the_folder_may_be_a_link_itself(root: Path) -> None:
    link = root.with_name("link")
    link.symlink_to(root)
    assert locate(link, "sub/a.png") == link / "sub" / "a.png"


@pytest.mark.parametrize("name", ["b.png", "sub", "", ".", "sub/a.png/b.png", "a\0.png", "\ud800", "loop"])
def test_what_is_no_file_is_missing(root: Path, name: str) -> None:
    (root / "loop").symlink_to("loop")
    message, reason = refusal(root, name)
    assert message.endswith(": is missing, or no regular file")
    assert reason == MISSING


def test_a_pipe_is_not_opened(root: Path) -> None:
    os.mkfifo(root / "pipe.png")
    assert refusal(root, "pipe.png")[1] == MISSING


def test_a_name_of_several_lines_is_told_in_one(root: Path) -> None:
    message, _ = refusal(root, "a\nb\x1b[31m.png")
    assert message == f"'{root}/a\\nb\\x1b[31m.png': is missing, or no regular file"


def test_a_picture_in_place_of_its_name_is_not_told_in_full(root: Path) -> None:
    message, reason = refusal(root, f"data:image/png;base64,{'A' * 100_000}")
    assert len(message) < 400
    assert reason == MISSING
