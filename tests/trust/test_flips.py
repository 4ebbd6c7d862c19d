"""Folders that mmconvert wrote, damaged: `verify DIR` finds every flipped bit, and whatever else is not as it was."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from random import Random
from types import FrameType

import pytest

from mmconvert import api
from mmconvert.cli import main
from mmconvert.errors import UsageError
from mmconvert.excerpt import printable
from mmconvert.manifest import NAME
from mmconvert.options import Options
from tests.conftest import Run
from tests.trust.amounts import amount
from tests.trust.conftest import Tell

GOLDEN = Path(__file__).parents[1] / "golden"
# What is converted to what, and with which digest.
WRITTEN: dict[str, tuple[str, str, Options, str]] = {
    "a .mdl": ("inputs/llama_tied", "cs", Options(), "xxh3"),
    "shards and their index": ("llava/tiny_llava_hf", "cs", Options("safetensors", max_shard_size=200_000), "xxh3"),
    "LLaVA's two folders": ("llava/tiny_llava_hf", "llava", Options(max_shard_size=200_000), "xxh3"),
    "llava-hf": ("llava/tiny_src", "llava-hf", Options(), "xxh3"),
    "a .mdl by SHA-256": ("llava/tiny_src", "cs", Options(), "sha256"),
}


def write(name: str, folder: Path) -> Path:
    source, to, options, digest = WRITTEN[name]
    api.convert(GOLDEN / source, folder, to, options=options, digest=digest, fsync=False)
    return folder


@pytest.fixture(scope="module", params=WRITTEN)
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as it was written; whoever damages it makes it whole again."""
    return write(request.param, tmp_path_factory.mktemp("written") / "folder")


@pytest.fixture(params=["shards and their index", "LLaVA's two folders"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A folder of several files of weights, one with its documents below and one with its weights, to be damaged."""
    return write(request.param, tmp_path / "folder")


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def flip(path: Path, bit: int) -> None:
    """Flip one bit of a file; done twice, the file is what it was."""
    with path.open("r+b") as file:
        file.seek(bit // 8)
        (byte,) = file.read(1)
        file.seek(bit // 8)
        file.write(bytes([byte ^ 1 << bit % 8]))


def flips(folder: Path, count: int) -> list[tuple[Path, int]]:
    """Bits to flip: half of them of any file, so that small ones come up, and half of them of any byte."""
    draw = Random(folder.name)
    paths = [path for path in files(folder) if path.stat().st_size]
    sizes = [path.stat().st_size for path in paths]
    drawn = draw.choices(paths, k=count // 2) + draw.choices(paths, sizes, k=count - count // 2)
    return [(path, draw.randrange(path.stat().st_size * 8)) for path in drawn]


def test_every_flipped_bit_is_found_and_its_file_is_named(written: Path, tell: Tell) -> None:
    count = amount(1_000, 10_000) // len(WRITTEN) + 1
    assert not api.verify(written).problems
    for path, bit in flips(written, count):
        flip(path, bit)
        problems = api.verify(written).problems
        flip(path, bit)
        name = path.relative_to(written).as_posix()
        assert problems, (name, bit)
        assert all(problem.startswith(f"{name}: ") for problem in problems), (name, bit, problems)
    assert not api.verify(written).problems
    tell("single flipped bits found by verify DIR", count)


def test_the_command_finds_them_too(written: Path, in_process: Callable[..., Run], tell: Tell) -> None:
    verify = in_process(main, "mmconvert")
    assert verify("verify", written).returncode == 0
    for path in files(written):
        bit = Random(path.name).randrange(path.stat().st_size * 8)
        flip(path, bit)
        ran = verify("verify", written)
        flip(path, bit)
        assert (ran.returncode, ran.stderr.count("\n")) == (6, 1), (path, bit, ran.stderr)
        assert path.relative_to(written).as_posix() in ran.stdout
    tell("single flipped bits found by the command", len(files(written)))


@pytest.fixture
def patience() -> Iterator[None]:
    """Whatever waits for more than half a minute, as for somebody to write into a pipe, fails."""

    def fail(number: int, frame: FrameType | None) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(30)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


# By what it is called: which file of a folder is damaged.
VICTIMS: dict[str, Callable[[Path], Path]] = {
    "weights": lambda folder: max(files(folder), key=lambda path: path.stat().st_size),
    "a document": lambda folder: min(files(folder), key=lambda path: path.stat().st_size),
    "the manifest": lambda folder: folder / NAME,
}


def folder_of(path: Path) -> Path:
    """The written folder that a file lies in or below."""
    return next(parent for parent in path.parents if (parent / NAME).exists())


def replaced(by: Callable[[Path, Path], object]) -> Callable[[Path], None]:
    """The file is moved out of its folder, and `by` puts something in its place, given that and where it went."""

    def damage(path: Path) -> None:
        elsewhere = folder_of(path).parent / "elsewhere"
        path.rename(elsewhere)
        by(path, elsewhere)

    return damage


def link_to_a_pipe(path: Path, elsewhere: Path) -> None:
    elsewhere.unlink()
    os.mkfifo(elsewhere)
    path.symlink_to(elsewhere)


# By what the file is then: what is done to it.
DAMAGE: dict[str, Callable[[Path], object]] = {
    "a byte shorter": lambda path: os.truncate(path, path.stat().st_size - 1),
    "empty": lambda path: os.truncate(path, 0),
    "a byte longer": lambda path: path.write_bytes(path.read_bytes() + b"\n"),
    "turned round": lambda path: path.write_bytes(path.read_bytes()[::-1]),
    "half a document": lambda path: path.write_bytes(b"{"),
    "a link to what it was": replaced(lambda path, elsewhere: path.symlink_to(elsewhere)),
    "a link to nothing": replaced(lambda path, elsewhere: path.symlink_to("nothing")),
    "a link to itself": replaced(lambda path, elsewhere: path.symlink_to(path)),
    "a pipe": replaced(lambda path, elsewhere: os.mkfifo(path)),
    "a link to a pipe": replaced(link_to_a_pipe),
    "a folder": replaced(lambda path, elsewhere: path.mkdir()),
}


@pytest.mark.usefixtures("patience")
@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("victim", VICTIMS)
def test_a_file_that_is_another_is_found(folder: Path, victim: str, damage: str) -> None:
    path = VICTIMS[victim](folder)
    DAMAGE[damage](path)
    found = api.verify(folder).problems
    assert any(path.relative_to(folder).as_posix() in problem for problem in found), found


@pytest.mark.parametrize("victim", ["weights", "a document"])
def test_a_file_that_is_gone_is_found(folder: Path, victim: str) -> None:
    path = VICTIMS[victim](folder)
    path.unlink()
    assert api.verify(folder).problems == [f"{path.relative_to(folder).as_posix()}: is missing"]


def test_without_its_manifest_a_folder_is_none_that_can_be_checked(folder: Path) -> None:
    (folder / NAME).unlink()
    with pytest.raises(UsageError, match=rf"has no {NAME}; `mmconvert verify A B` compares it"):
        api.verify(folder)


MORE: dict[str, Callable[[Path], object]] = {
    "a file": lambda path: path.touch(),
    "a pipe": os.mkfifo,
    "a link": lambda path: path.symlink_to(path.parent),
    "a dangling link": lambda path: path.symlink_to("nothing"),
}


@pytest.mark.usefixtures("patience")
@pytest.mark.parametrize("what", MORE)
@pytest.mark.parametrize("name", ["more", ".hidden", "sub/more", "model.safetensors.bak", "a\nb", "\udcff"])
def test_what_is_there_beside_is_found_and_its_name_can_be_printed(folder: Path, name: str, what: str) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    MORE[what](folder / name)
    (problem,) = api.verify(folder).problems
    assert problem.startswith(f"{printable(name)}: is ")
    assert problem.isprintable()


def test_two_files_that_were_exchanged_are_both_found(folder: Path) -> None:
    others = [path for path in files(folder) if path.name != NAME]
    for first, second in pairwise(others):
        exchange(first, second)
        found = {problem.partition(": ")[0] for problem in api.verify(folder).problems}
        exchange(first, second)
        assert found == {path.relative_to(folder).as_posix() for path in (first, second)}
    assert not api.verify(folder).problems


def exchange(first: Path, second: Path) -> None:
    between = first.parent / "between"
    first.rename(between)
    second.rename(first)
    between.rename(second)


def test_the_manifest_of_another_folder_is_no_good(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    api.convert(GOLDEN / "inputs/clip_proj", other, "cs", fsync=False)
    shutil.copyfile(other / NAME, folder / NAME)
    assert api.verify(folder).problems
