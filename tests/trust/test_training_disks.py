"""A disk that fails at any call that writes, or is full, ends a run with exit 7, and all that was saved is there."""

from __future__ import annotations

import errno
import re
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from itertools import product
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch

from mmconvert.errors import DiskError
from mmsimple.model import MultimodalModel
from mmsimple.train import checkpoint
from mmsimple.train.metrics import METRICS, THROUGHPUT, read_lines
from mmsimple.train.reading import read_run_file
from mmsimple.train.run import run
from tests.mmsimple.small import MULTIMODAL, drawn
from tests.trust.amounts import amount
from tests.trust.conftest import Tell
from tests.trust.faults import Disk, failing, watched
from tests.trust.training_runs import good, reading_here, unfinished, write_run

STEPS = 3
ERRORS = {errno.ENOSPC: "No space left on device", errno.EIO: "Input/output error"}
AMOUNTS = re.compile(r"[\d.]+ (B|kB|MB|GB) needed, [\d.]+ (B|kB|MB|GB|TB|PB) free")
# Of the calls of a run that write to files already open, which are nearly all of them.
PLACES = amount(3, 150)
# Of all others, and of those of a checkpoint.
STRIDE = amount(12, 1)
STRIDE_IN_ONE = amount(13, 1)


@pytest.fixture(autouse=True)
def quick() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with reading_here():
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A params file, the weights that it begins with, and files that came with them."""
    folder = tmp_path_factory.mktemp("disks")
    model = drawn(MultimodalModel(MULTIMODAL))
    model.assets = {"tokenizer_config.json": b"{}"}
    model.save(folder / "weights")
    frozen: dict[str, Any] = {"init__model__freeze": ["^image_model.image_model_list"], "init__callbacks": []}
    write_run(folder, STEPS, init__performance={"cache": "features"}, **frozen)
    return folder


def train(folder: Path, name: str, disk: AbstractContextManager[Disk] | None = None) -> tuple[list[str], str | None]:
    """What a run says, and the error that it ends with, if it does."""
    config = read_run_file(folder / "run.yaml")
    said: list[str] = []
    try:
        with disk or nullcontext():
            run(config, folder / name, init_from=folder / "weights", say=said.append)
    except DiskError as error:
        return said, str(error)
    return said, None


@pytest.fixture(scope="module")
def whole(folder: Path) -> tuple[Path, list[str]]:
    """An undisturbed run, and the calls of it that wrote."""
    calls: list[str] = []
    with reading_here():
        train(folder, "whole", watched(lambda number, name: calls.append(name)))
    written = {path.relative_to(folder / "whole").parts[0] for path in (folder / "whole").rglob("*") if path.is_file()}
    # All that a run may write is among it.
    assert written >= {METRICS, THROUGHPUT, "assets", "features", "tensorboard", "checkpoint_1.mdl"}
    return folder / "whole", calls


def places(calls: list[str]) -> list[int]:
    """The calls to have fail."""
    within = [at for at, name in enumerate(calls) if name == "pwrite"]
    others = [at for at, name in enumerate(calls) if name != "pwrite"]
    return sorted([*others[::STRIDE], *Random(0).sample(within, min(PLACES, len(within)))])


# A thread of TensorBoard's tells of it in a traceback.
@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_wherever_it_fails_a_run_ends_with_what_is_saved_and_goes_on_to_the_bit(
    folder: Path, whole: tuple[Path, list[str]], tell: Tell
) -> None:
    expected, undisturbed = whole
    told = harmless = 0
    for number, at in enumerate(places(undisturbed)):
        # In turns; a full disk stays full.
        code = list(ERRORS)[number % 2]
        shutil.rmtree(folder / "parts", ignore_errors=True)
        said, error = train(folder, "parts", failing(code, at, lasts=code == errno.ENOSPC))
        if error is None:
            # Nobody needs TensorBoard.
            assert len([line for line in said if line.startswith("warning: no event files")]) == 1, (at, said)
            harmless += 1
        else:
            assert ERRORS[code] in error
            assert AMOUNTS.search(error), error
            assert "\n" not in error
            kept = [path.name for path in checkpoint.saved(folder / "parts").values()]
            last = f"the last good checkpoint is {kept[-1]}" if kept else "no checkpoint has been saved"
            assert error.endswith(f"; {last}"), error
            told += 1
        if (folder / "parts").exists():
            saved = good(folder / "parts", expected)
            assert saved == list(range(1, len(saved) + 1))
            assert all(each["step"] <= len(saved) + 1 for each in read_lines(folder / "parts" / METRICS))
        assert train(folder, "parts")[1] is None
        assert good(folder / "parts", expected) == list(range(1, STEPS + 1))
        assert (folder / "parts" / METRICS).read_bytes() == (expected / METRICS).read_bytes()
        assert unfinished(folder / "parts") == []
    assert told > harmless > 0
    tell("calls of a training run at which the disk failed, after which it went on to the bit", told + harmless)


def test_wherever_it_fails_a_checkpoint_is_there_whole_or_not_at_all(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tell: Tell
) -> None:
    given: list[Any] = []
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", lambda *arguments: given.append(arguments))
        train(folder, "none")
    _, *rest = given[-1]
    (folder / "saved").mkdir()
    path = checkpoint.path_of(folder / "saved", 1)
    with failing(errno.EIO, None) as disk:
        checkpoint.save(path, *rest)
    content = path.read_bytes()
    failures = list(product(range(len(disk.calls)), ERRORS))[::STRIDE_IN_ONE]
    for number, (at, code) in enumerate(failures):
        # One that is there already is what it was.
        old = b"old" if number % 3 else None
        path.unlink() if old is None else path.write_bytes(old)
        with pytest.raises(DiskError, match=ERRORS[code]) as caught, failing(code, at, lasts=code == errno.ENOSPC):
            checkpoint.save(path, *rest)
        assert AMOUNTS.search(str(caught.value))
        found = path.read_bytes() if path.exists() else None
        if found == content:
            # It has taken its place, and only whether that will last is not known.
            assert disk.calls[at] == "fsync"
        else:
            assert found == old, at
        assert [each.name for each in path.parent.iterdir()] == ([path.name] if found else [])
        if found is None:
            path.touch()
    tell("calls of writing a trainer's checkpoint at which the disk failed", len(failures))
