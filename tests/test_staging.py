"""A target is what it was, or complete; nothing else is left beside it."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mmconvert.errors import DiskError, OutputRefused
from mmconvert.staging import check_file, check_target, disk_errors, staged, staged_file, write_whole


def put(out: Path, content: str = "new", *, overwrite: bool = False, fsync: bool = False, needed: int = 10) -> None:
    with staged(out, overwrite=overwrite, fsync=fsync, bytes_needed=needed, sources=[]) as staging:
        (staging.path / "file").write_text(content)


def tree(folder: Path) -> dict[str, str]:
    """Every path below `folder`, hidden ones too, with what files hold."""
    return {
        path.relative_to(folder).as_posix(): path.read_text() if path.is_file() else "/" for path in folder.rglob("*")
    }


def test_the_target_appears_when_the_block_ends(tmp_path: Path) -> None:
    out = tmp_path / "a" / "b" / "out"
    with staged(out, overwrite=False, fsync=True, bytes_needed=10, sources=[]) as staging:
        assert staging.path == out.parent / ".out.mmconvert-staging"
        (staging.path / "file").write_text("new")
        assert not out.exists()
    assert tree(tmp_path) == {"a": "/", "a/b": "/", "a/b/out": "/", "a/b/out/file": "new"}


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    put(tmp_path / "out")
    assert tree(tmp_path) == {"out": "/", "out/file": "new"}


def test_overwriting_replaces_the_whole_folder(tmp_path: Path) -> None:
    (tmp_path / "out" / "sub").mkdir(parents=True)
    (tmp_path / "out" / "sub" / "stale").write_text("old")
    put(tmp_path / "out", overwrite=True)
    assert tree(tmp_path) == {"out": "/", "out/file": "new"}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("stands", [True, False])
def test_after_an_error_nothing_has_happened(tmp_path: Path, error: type[BaseException], stands: bool) -> None:
    if stands:
        put(tmp_path / "a" / "out", "old")
    before = tree(tmp_path)
    with (
        pytest.raises(error),
        staged(tmp_path / "a" / "out", overwrite=True, fsync=False, bytes_needed=10, sources=[]) as staging,
    ):
        (staging.path / "half").write_text("half")
        raise error
    assert tree(tmp_path) == before


def test_an_old_folder_comes_back_if_the_new_one_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "out", "old")
    before = tree(tmp_path)
    rename = os.rename

    def failing(source: Path, target: Path) -> None:
        if source.name.endswith("staging"):
            raise OSError(errno.EIO, "Input/output error", str(source))
        rename(source, target)

    monkeypatch.setattr(os, "rename", failing)
    with pytest.raises(DiskError, match="Input/output error"):
        put(tmp_path / "out", overwrite=True)
    assert tree(tmp_path) == before


KILLED: dict[str, Callable[[Path], None]] = {
    "while writing": lambda folder: put(folder / ".out.mmconvert-staging", "half"),
    "between the renames": lambda folder: os.rename(folder / "out", folder / ".out.mmconvert-old"),
    "before the old one was removed": lambda folder: put(folder / ".out.mmconvert-old", "older"),
    "while holding the lock": lambda folder: (folder / ".out.mmconvert-lock").touch(),
}


@pytest.mark.parametrize("moment", KILLED)
def test_the_pieces_of_a_killed_run_are_repaired(tmp_path: Path, moment: str) -> None:
    put(tmp_path / "out", "old")
    KILLED[moment](tmp_path)
    with pytest.raises(ValueError), staged(tmp_path / "out", overwrite=True, fsync=False, bytes_needed=1, sources=[]):
        assert (tmp_path / "out" / "file").read_text() == "old"
        raise ValueError
    assert tree(tmp_path) == {"out": "/", "out/file": "old"}


def test_a_link_that_stands_where_an_old_folder_would_is_nothing_to_bring_back(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / ".out.mmconvert-old").symlink_to("theirs")
    put(tmp_path / "out")
    assert tree(tmp_path) == {"theirs": "/", "out": "/", "out/file": "new"}


def test_a_folder_that_a_repair_brings_back_is_not_overwritten_unasked(tmp_path: Path) -> None:
    put(tmp_path / ".out.mmconvert-old", "old")
    with pytest.raises(OutputRefused, match="not empty"):
        put(tmp_path / "out")
    assert tree(tmp_path) == {"out": "/", "out/file": "old"}


def test_a_second_run_is_refused_until_the_first_has_ended(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from mmconvert.staging import staged\n"
        "with staged(Path(sys.argv[1]), overwrite=False, fsync=False, bytes_needed=1, sources=[]):\n"
        "    print('holding', flush=True); sys.stdin.read()"
    )
    root = Path(__file__).resolve().parents[1]
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "out")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=root,
    ) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "holding\n"
        with pytest.raises(OutputRefused, match="another run"):
            put(tmp_path / "out")
        first.kill()
    put(tmp_path / "out")
    assert tree(tmp_path) == {"out": "/", "out/file": "new"}


def test_a_lock_that_its_owner_removes_while_we_wait_for_it_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock, calls = fcntl.flock, 0

    def racing(fd: int, operation: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            (tmp_path / ".out.mmconvert-lock").unlink()
        flock(fd, operation)

    monkeypatch.setattr(fcntl, "flock", racing)
    with staged(tmp_path / "out", overwrite=False, fsync=False, bytes_needed=1, sources=[]):
        with pytest.raises(OutputRefused, match="another run"):
            put(tmp_path / "out")
        assert calls == 3
    assert tree(tmp_path) == {"out": "/"}


def test_a_folder_that_was_filled_meanwhile_is_kept(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with (
        pytest.raises(OutputRefused, match="not empty"),
        staged(out, overwrite=False, fsync=False, bytes_needed=1, sources=[]),
    ):
        out.mkdir()
        (out / "theirs").write_text("theirs")
    assert tree(tmp_path) == {"out": "/", "out/theirs": "theirs"}


def test_too_little_room_is_found_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(DiskError, match=r"1000\.0 PB needed, .* free"):
        put(tmp_path / "a" / "out", needed=10**18)
    assert tree(tmp_path) == {}


def test_an_error_of_the_disk_says_where_and_how_much(tmp_path: Path) -> None:
    with (
        pytest.raises(DiskError, match=r"out: No space left on device; 13\.5 GB needed, .* free"),
        disk_errors(tmp_path / "out", 13_500_000_000),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_parent_is_a_disk_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(DiskError, match="Permission denied"):
        put(tmp_path / "out")


def test_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "out").symlink_to("real")
    with pytest.raises(OutputRefused, match="symbolic link"):
        check_target(tmp_path / "out", True, [])


def test_a_file_is_refused_even_with_overwrite(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("precious")
    with pytest.raises(OutputRefused, match="not a folder"):
        check_target(tmp_path / "out", True, [])
    with pytest.raises(OutputRefused, match="not a folder"):
        check_target(tmp_path / "out" / "below" / "it", True, [])


def test_a_mount_point_is_refused() -> None:
    with pytest.raises(OutputRefused, match="mount point"):
        check_target(Path("/"), True, [])


def test_a_folder_with_something_in_it_needs_overwrite(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputRefused, match="--overwrite"):
        check_target(tmp_path, False, [])
    check_target(tmp_path, True, [])


@pytest.mark.parametrize("target", ["src", "src/below", "src/deep/below", "link/below", "."])
def test_a_source_is_not_written_into_or_replaced(tmp_path: Path, target: str) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "link").symlink_to("src")
    with pytest.raises(OutputRefused, match="source"):
        check_target(tmp_path / target, True, [tmp_path / "src"])


def test_a_folder_of_links_to_the_source_is_not_replaced(tmp_path: Path) -> None:
    # As in a hub cache, where a snapshot's files are links into the folder of blobs.
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "0abc").touch()
    (tmp_path / "snapshot").mkdir()
    link = tmp_path / "snapshot" / "model.safetensors"
    link.symlink_to("../blobs/0abc")
    for folder in ("snapshot", "blobs"):
        with pytest.raises(OutputRefused, match="holds the source"):
            check_target(tmp_path / folder, True, [link])
    check_target(tmp_path / "out", True, [link])


def test_every_folder_is_synced_before_the_rename_and_its_parent_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.readlink(f"/proc/self/fd/{fd}")))
    with staged(tmp_path / "out", overwrite=False, fsync=True, bytes_needed=1, sources=[]) as staging:
        (staging.path / "sub").mkdir()
    folder = f"{tmp_path}/.out.mmconvert-staging"
    assert synced == [f"{folder}/sub", folder, str(tmp_path)]


def test_resumable_work_is_given_to_the_next_run(tmp_path: Path) -> None:
    out = tmp_path / "out"

    def work(name: str) -> None:
        with staged(out, overwrite=False, fsync=False, bytes_needed=10, sources=[], resumable=True) as staging:
            (staging.path / name).write_text(name)
            if name == "first":
                raise ValueError

    with pytest.raises(ValueError):
        work("first")
    assert not out.exists()
    work("second")
    assert sorted(path.name for path in out.iterdir()) == ["first", "second"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_other_work_takes_nothing_up(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with (
        pytest.raises(ValueError),
        staged(out, overwrite=False, fsync=False, bytes_needed=10, sources=[], resumable=True) as staging,
    ):
        (staging.path / "half").write_text("half")
        raise ValueError
    with staged(out, overwrite=False, fsync=False, bytes_needed=10, sources=[]) as staging:
        (staging.path / "new").write_text("new")
    assert [path.name for path in out.iterdir()] == ["new"]


def put_file(out: Path, content: str = "new", *, overwrite: bool = False, needed: int = 10) -> None:
    with staged_file(out, overwrite=overwrite, fsync=False, bytes_needed=needed) as staging:
        assert staging == out.parent / f".{out.name}.mmconvert-staging"
        staging.write_text(content)


def test_a_file_appears_when_the_block_ends_and_replaces_one_if_told_to(tmp_path: Path) -> None:
    put_file(tmp_path / "a" / "out", "old")
    with pytest.raises(OutputRefused, match="exists; overwrite=True replaces it"):
        put_file(tmp_path / "a" / "out")
    assert tree(tmp_path) == {"a": "/", "a/out": "old"}
    put_file(tmp_path / "a" / "out", overwrite=True)
    assert tree(tmp_path) == {"a": "/", "a/out": "new"}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("stands", [True, False])
def test_after_an_error_no_file_has_changed(tmp_path: Path, error: type[BaseException], stands: bool) -> None:
    if stands:
        put_file(tmp_path / "a" / "out", "old")
    before = tree(tmp_path)
    with (
        pytest.raises(error),
        staged_file(tmp_path / "a" / "out", overwrite=True, fsync=False, bytes_needed=10) as staging,
    ):
        staging.write_text("half")
        raise error
    assert tree(tmp_path) == before


@pytest.mark.parametrize("left", ["a file", "a folder", "a link"])
def test_what_a_killed_run_left_is_cleared_up_by_the_next(tmp_path: Path, left: str) -> None:
    hidden = tmp_path / ".out.mmconvert-staging"
    (tmp_path / "precious").write_text("precious")
    if left == "a folder":
        put(hidden, "half")
    elif left == "a file":
        hidden.write_text("half")
    else:
        hidden.symlink_to("precious")
    put_file(tmp_path / "out")
    assert tree(tmp_path) == {"out": "new", "precious": "precious"}


def test_a_file_that_appears_meanwhile_is_kept(tmp_path: Path) -> None:
    with (
        pytest.raises(OutputRefused, match="exists"),
        staged_file(tmp_path / "out", overwrite=False, fsync=False, bytes_needed=1) as staging,
    ):
        staging.touch()
        (tmp_path / "out").write_text("theirs")
    assert tree(tmp_path) == {"out": "theirs"}


def test_too_little_room_for_a_file_is_found_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(DiskError, match=r"1000\.0 PB needed, .* free"):
        put_file(tmp_path / "a" / "out", needed=10**18)
    assert tree(tmp_path) == {}


def test_only_a_file_is_replaced_by_a_file(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "real").touch()
    (tmp_path / "link").symlink_to("real")
    os.mkfifo(tmp_path / "pipe")
    for name, said in {
        "folder": "is not a file",
        "pipe": "is not a file",
        "link": "symbolic link",
        "real/below": "real is not a folder",
    }.items():
        with pytest.raises(OutputRefused, match=said):
            check_file(tmp_path / name, True)
    check_file(tmp_path / "real", True)
    check_file(tmp_path / "new" / "deep", False)


def test_a_small_file_replaces_another_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "notes.json"
    write_whole(path, b"old")
    write_whole(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]

    def fail(*names: object) -> None:
        raise OSError(errno.EIO, "broken", str(path))

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(DiskError, match="broken"):
        write_whole(path, b"newer")
    assert path.read_bytes() == b"new"
    with pytest.raises(DiskError, match="nowhere"):
        write_whole(tmp_path / "nowhere" / "notes.json", b"")


@pytest.mark.parametrize("name", ["notes.json", "notes.json.new"])
def test_a_small_file_is_written_through_no_link(tmp_path: Path, name: str) -> None:
    (tmp_path / "precious").write_text("precious")
    (tmp_path / name).symlink_to("precious")
    write_whole(tmp_path / "notes.json", b"new", 0o600)
    assert (tmp_path / "precious").read_text() == "precious"
    assert (tmp_path / "notes.json").read_bytes() == b"new"
    assert (tmp_path / "notes.json").lstat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.json", "precious"]
