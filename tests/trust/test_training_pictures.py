"""Pictures that are damaged, or exchanged for something else while a run reads them."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from mmconvert.errors import InputRefused
from mmsimple.cli import main
from mmsimple.train import checkpoint
from mmsimple.train.metrics import METRICS, read_metrics
from mmsimple.train.reading import read_run_file
from mmsimple.train.run import run
from tests.trust.amounts import amount
from tests.trust.conftest import Tell
from tests.trust.training_runs import good, reading_here, unfinished, write_run

if TYPE_CHECKING:
    from tests.conftest import Run

STEPS = 6
# Of seven samples, every other one has this picture; three updates use all of them but one.
PICTURE = "images/sub/a.png"
TOLD_AT = 2


def bomb() -> bytes:
    """A PNG that says to be of 40,000 pixels squared."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1 << 20)))


def link(path: Path, _: bytes) -> None:
    path.unlink()
    path.symlink_to("/etc/passwd")


def make_folder(path: Path, _: bytes) -> None:
    path.unlink()
    path.mkdir()


Damage = Callable[[Path, bytes], object]
DAMAGES: dict[str, tuple[Damage, str]] = {
    "cut off": (lambda path, content: path.write_bytes(content[: len(content) // 2]), "is damaged: "),
    "other bytes": (lambda path, content: path.write_bytes(bytes(len(content))), "holds no JPEG, PNG"),
    "changed bytes": (
        lambda path, content: path.write_bytes(content[:900] + b"\xff" * 200 + content[1100:]),
        "is damaged: ",
    ),
    "empty": (lambda path, _: path.write_bytes(b""), "holds no JPEG, PNG"),
    "bomb": (lambda path, _: path.write_bytes(bomb()), "has more than 67,108,864 pixels"),
    "program": (lambda path, _: path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n"), "holds no JPEG, PNG"),
    "gone": (lambda path, _: path.unlink(), "is missing, or no regular file"),
    "link": (link, "is a link out of"),
    "folder": (make_folder, "is missing, or no regular file"),
}


@pytest.fixture(autouse=True)
def quick() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with reading_here():
        yield
    torch.set_num_threads(threads)


def train(folder: Path, name: str, damage: Callable[[], object] = lambda: None) -> None:
    """A run in which something happens after its second update."""

    def say(text: str) -> None:
        if text.startswith(f"update {TOLD_AT} "):
            damage()

    run(read_run_file(folder / "run.yaml"), folder / name, say=say)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    write_run(folder, STEPS, init__callbacks=[])
    with reading_here():
        train(folder, "whole")
    return folder


@pytest.mark.parametrize("name", list(DAMAGES)[: amount(4, len(DAMAGES))])
def test_a_picture_that_is_spoilt_meanwhile_ends_a_run_that_goes_on_when_it_is_back(
    name: str, folder: Path, tell: Tell
) -> None:
    damage, said = DAMAGES[name]
    picture = folder / PICTURE
    content = picture.read_bytes()
    try:
        with pytest.raises(InputRefused) as caught:
            train(folder, name, lambda: damage(picture, content))
    finally:
        if picture.is_dir() and not picture.is_symlink():
            picture.rmdir()
        picture.unlink(missing_ok=True)
        picture.write_bytes(content)
    text = str(caught.value)
    assert (caught.value.exit_code, "\n" in text) == (3, False)
    assert text.startswith(f"{folder / 'data'}/"), text
    assert ".h5: sample " in text
    assert str(picture) in text
    assert said in text
    saved = good(folder / name, folder / "whole")
    assert TOLD_AT <= saved[-1] < STEPS
    train(folder, name)
    assert good(folder / name, folder / "whole") == list(range(1, STEPS + 1))
    assert (folder / name / METRICS).read_bytes() == (folder / "whole" / METRICS).read_bytes()
    assert unfinished(folder / name) == []
    tell("pictures spoilt while a run read them", 1)


@pytest.mark.parametrize("what", ["skip", "blank"])
@pytest.mark.parametrize("workers", [0, 2])
def test_or_it_is_passed_over_and_counted(what: str, workers: int, tmp_path: Path, tell: Tell) -> None:
    changes: dict[str, Any] = {f"fit__{each}_dataloader__on_bad_sample": what for each in ("train", "val")}
    write_run(tmp_path, STEPS, workers=workers, init__callbacks=[], **changes)
    picture = tmp_path / PICTURE
    train(tmp_path, "model", lambda: picture.write_bytes(b"garbage"))
    assert list(checkpoint.saved(tmp_path / "model")) == list(range(1, STEPS + 1))
    updates = [each for each in read_metrics(tmp_path / "model") if "validation" not in each]
    bad = [each["bad_samples"] for each in updates]
    assert sum(bad[:TOLD_AT]) == 0
    assert sum(bad) > 0
    # A batch of nothing but bad samples is none, and the next one comes.
    assert {each["samples"] for each in updates} == ({1, 2} if what == "skip" else {2})
    tell("pictures spoilt while a run read them", 1)


def test_a_user_is_told_in_a_line(tmp_path: Path, in_process: Callable[..., Run]) -> None:
    write_run(tmp_path, STEPS)
    (tmp_path / PICTURE).write_bytes(b"garbage")
    done = in_process(main, "mmsimple")("train", tmp_path / "run.yaml", "--model-dir", tmp_path / "model")
    assert done.returncode == 3
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"error: {tmp_path}/data/")
    assert last.endswith("on_bad_sample: skip or blank passes over such samples")
    assert "Traceback" not in done.stderr
