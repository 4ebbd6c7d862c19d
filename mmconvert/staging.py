"""A folder, or a file alone, that appears at its place whole or not at all, whatever happens on the way.

Everything is written into a staging folder beside the target, `.{name}.mmconvert-staging`, which is renamed into place
at the end. A folder that is replaced waits as `.{name}.mmconvert-old` until the new one stands. A second run is kept
away by `.{name}.mmconvert-lock`; the kernel frees it when a run is killed, and the next run clears up what was left.
A file needs no second rename: the kernel puts one in the place of another at once.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from mmconvert.errors import DiskError, MMConvertError, OutputRefused
from mmconvert.units import human_bytes

# Room for the manifest, folders and the file system's own bookkeeping.
MARGIN = 16 << 20
# What the name of a small file ends with until it is whole.
UNFINISHED = ".new"


@dataclass(frozen=True)
class Staging:
    """The folder to write into."""

    path: Path


@contextmanager
def staged(
    out: Path, *, overwrite: bool, fsync: bool, bytes_needed: int, sources: Sequence[Path], resumable: bool = False
) -> Iterator[Staging]:
    """Give an empty staging folder; when the block ends without an error, it becomes `out`.

    `bytes_needed` is how much will be written. With `fsync` the folders reach the disk before and after the rename; the
    files in them are the block's own affair. On any error or interrupt nothing is left, and `out` is what it was. Where
    the work is `resumable`, an interrupt or a disk that fails leaves the folder as it is, and the next run is given it
    with what is in it, which is room too.

    Raises `OutputRefused` where `check_target` does or while another run holds the lock, and `DiskError` when there is
    no room for `bytes_needed` and for every `OSError`, those of the block included.
    """
    check_target(out, overwrite, sources)
    target = out.resolve()
    with disk_errors(target, bytes_needed), _parents(target), locked(target):
        aside = _beside(target, "old")
        staging = Staging(_beside(target, "staging"))
        stays = resumable
        _repair(target, stays)
        try:
            check_target(out, overwrite, sources)  # again: another run may have finished, or the repair put `out` back
            check_room(target.parent, bytes_needed - (_held(staging.path) if resumable else 0))
            staging.path.mkdir(exist_ok=resumable)
            yield staging
            if fsync:
                for folder, _, _ in os.walk(staging.path, topdown=False):
                    sync(Path(folder))
            check_target(out, overwrite, sources)  # a folder that somebody filled meanwhile is not ours to replace
            if target.exists():
                os.rename(target, aside)
            os.rename(staging.path, target)
            if fsync:
                sync(target.parent)
        except MMConvertError as error:
            # What was refused will be refused again.
            stays = resumable and isinstance(error, DiskError)
            raise
        finally:
            # After a success this removes the old folder; after a failure, the new one.
            with suppress(OSError):
                _repair(target, stays)


@contextmanager
def staged_file(out: Path, *, overwrite: bool, fsync: bool, bytes_needed: int) -> Iterator[Path]:
    """Give the name to write a new file under; when the block ends without an error, it becomes `out`.

    The rest is as for `staged`. A file that is replaced may be read until then. Raises `OutputRefused` where
    `check_file` does or while another run holds the lock, and `DiskError` as `staged` does.
    """
    check_file(out, overwrite)
    target = out.resolve()
    with disk_errors(target, bytes_needed), _parents(target), locked(target):
        staging = _beside(target, "staging")
        try:
            _remove(staging)
            check_file(out, overwrite)  # again: another run may have finished
            check_room(target.parent, bytes_needed)
            yield staging
            check_file(out, overwrite)
            os.rename(staging, target)
            if fsync:
                sync(target.parent)
        finally:
            with suppress(OSError):
                _remove(staging)


def write_whole(path: Path, data: bytes, mode: int | None = None) -> None:
    """Write a small file that is there whole or not at all, and on the disk, in a folder that nobody else writes to.

    What stands there is replaced, a link itself and not what it leads to. `mode` is the file's, as the umask says by
    default. Raises `DiskError`.
    """
    with disk_errors(path, len(data)):
        new = path.with_suffix(f"{path.suffix}{UNFINISHED}")
        # The folder may be a stranger's, and what is there under this name a link to a file of the user's.
        new.unlink(missing_ok=True)
        with new.open("xb") as file:
            if mode is not None:
                os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)
        sync(path.parent)


def check_file(out: Path, overwrite: bool) -> None:
    """Refuse a place that a file must not be written to, before anything is done.

    Raises `OutputRefused` if `out` is a link, a folder or anything else that is no file, or a file and `overwrite` is
    not set.
    """
    try:
        if out.is_symlink():
            raise OutputRefused(f"{out}: is a symbolic link; name the file itself")
        target = out.resolve()
        if not target.exists():
            _check_parents(out, target)
        elif not target.is_file():
            raise OutputRefused(f"{out}: exists and is not a file; only a file is replaced")
        elif not overwrite:
            raise OutputRefused(f"{out}: exists; overwrite=True replaces it")
    except OSError as error:
        raise OutputRefused(f"{out}: cannot be looked at: {error.strerror}") from error


def check_target(out: Path, overwrite: bool, sources: Sequence[Path]) -> None:
    """Refuse a target that must not be written to, before anything is done.

    `sources` are the files and folders that the conversion reads. Raises `OutputRefused` if `out` is a link, a file or
    a mount point, is or lies inside a source or holds one, or is a folder that is not empty and `overwrite` is not set.
    """
    try:
        if out.is_symlink():
            raise OutputRefused(f"{out}: is a symbolic link; name the folder itself")
        target = out.resolve()
        for source in sources:
            # A link in a hub cache counts in both places: where it stands and where it leads to.
            for place in (source.resolve(), source.parent.resolve() / source.name):
                if target == place:
                    raise OutputRefused(f"{out}: is the source {source} itself; choose another folder")
                if place in target.parents:
                    raise OutputRefused(f"{out}: lies inside the source {source}; choose a folder outside it")
                if target in place.parents:
                    raise OutputRefused(f"{out}: holds the source {source}; choose another folder")
        if not target.exists():
            _check_parents(out, target)
        elif not target.is_dir():
            raise OutputRefused(f"{out}: exists and is not a folder; a file is never replaced")
        elif target.is_mount():
            raise OutputRefused(f"{out}: is a mount point; name a folder below it")
        elif not overwrite and any(target.iterdir()):
            raise OutputRefused(f"{out}: exists and is not empty; --overwrite replaces it")
    except OSError as error:
        raise OutputRefused(f"{out}: cannot be looked at: {error.strerror}") from error


def _check_parents(out: Path, target: Path) -> None:
    standing = next(folder for folder in target.parents if folder.exists())
    if not standing.is_dir():
        raise OutputRefused(f"{out}: cannot be made, because {standing} is not a folder")


@contextmanager
def disk_errors(path: Path, needed: int) -> Iterator[None]:
    """Turn every `OSError` of the block into a `DiskError` that names the place and the bytes needed and free."""
    try:
        yield
    except OSError as error:
        where = Path(error.filename or path)
        raise DiskError(f"{where}: {error.strerror or error}; {_room(path, needed)}") from error


def sync(path: Path) -> None:
    """Make a file's bytes last, or the names in a folder, without which a file that is safe on the disk is lost."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def lock_of(target: Path) -> Path:
    """The file that a run which writes `target` holds."""
    return _beside(target, "lock")


def _beside(target: Path, what: str) -> Path:
    return target.with_name(f".{target.name}.mmconvert-{what}")


def _repair(target: Path, stays: bool) -> None:
    """Bring the folder around `target` in order, wherever a run that held the lock may have stopped."""
    staging, aside = _beside(target, "staging"), _beside(target, "old")
    if not stays or not staging.is_dir() or staging.is_symlink():
        _remove(staging)
    if aside.is_symlink():
        aside.unlink()  # nothing of ours
    if aside.exists():
        if target.exists():
            shutil.rmtree(aside)
        else:
            os.rename(aside, target)


def _held(folder: Path) -> int:
    """The bytes on the disk that the files below a folder take, if it is there."""
    places = (Path(parent, name) for parent, _, files in os.walk(folder) for name in files)
    return sum(path.lstat().st_blocks * 512 for path in places)


def _remove(staging: Path) -> None:
    """Remove the folder or the file that a run was writing, if there is one."""
    if staging.is_dir() and not staging.is_symlink():
        shutil.rmtree(staging)
    else:
        staging.unlink(missing_ok=True)


@contextmanager
def _parents(target: Path) -> Iterator[None]:
    """Make the folders that lead to `target`; when the block fails, remove those that were made."""
    missing = [folder for folder in target.parents if not folder.exists()]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for folder in missing:
            with suppress(OSError):  # it was not made, or somebody else has put something into it
                folder.rmdir()
        raise


@contextmanager
def locked(target: Path) -> Iterator[None]:
    """Hold the lock of `target`, or raise `OutputRefused` at once if another run does."""
    lock = lock_of(target)
    fd = _take_lock(lock)
    while fd is None:
        fd = _take_lock(lock)
    try:
        yield
    finally:
        # Removed while it is held: whoever opened it meanwhile will see that it is no longer the file of this name.
        with suppress(OSError):
            lock.unlink()
        os.close(fd)


def _take_lock(lock: Path) -> int | None:
    """A descriptor that holds `lock`; None if the file was replaced between opening and locking it."""
    fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(fd), os.stat(lock)):
            return fd
    except FileNotFoundError:
        pass
    except BlockingIOError as error:
        os.close(fd)
        raise OutputRefused(f"{lock}: another run is writing here; wait for it to end") from error
    except BaseException:
        os.close(fd)
        raise
    os.close(fd)
    return None


def check_room(folder: Path, needed: int) -> None:
    """Raise DiskError where so many bytes, and a little more, are not free."""
    if needed + MARGIN > _free(folder):
        raise DiskError(f"{folder}: not enough room; {_room(folder, needed + MARGIN)}")


def _free(path: Path) -> int:
    """The bytes that an ordinary user may still write where `path` is or will be."""
    stats = os.statvfs(next(place for place in (path, *path.parents) if place.exists()))
    return stats.f_bavail * stats.f_frsize


def _room(path: Path, needed: int) -> str:
    return f"{human_bytes(needed)} needed, {human_bytes(_free(path))} free"
