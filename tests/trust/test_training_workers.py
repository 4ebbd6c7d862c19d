"""A worker process that is killed ends a run, or `prepare`, in a line; nothing is lost, and the next one goes on."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from mmconvert.staging import write_whole
from mmsimple.data import prepare as module
from mmsimple.data.job import Job
from mmsimple.data.prepare import prepare
from mmsimple.data.workers import WorkerDied
from tests.mmsimple.data.pictures import draw
from tests.mmsimple.data.small_tokenizers import llama_files
from tests.mmsimple.data.test_prepare import LAYOUT, contents
from tests.mmsimple.data.test_prepare import good as good_record
from tests.mmsimple.train.runs import write_params
from tests.mmsimple.train.test_resume import assert_told_alike, started, undisturbed, wait_for
from tests.trust.amounts import amount
from tests.trust.conftest import Tell
from tests.trust.training_runs import good, unfinished

# Long enough to be disturbed in the middle.
LONG = {"max_steps": 25, "eval_frequency": 7}


def children(parent: int) -> list[int]:
    """The processes that a process has started, or copied itself into."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            # Behind the name, which may hold anything: the state and the parent.
            if int(path.read_text().rpartition(")")[2].split()[1]) == parent:
                found.append(int(path.parent.name))
        except OSError:  # gone by now
            continue
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc to find the worker")
@pytest.mark.skipif(not amount(0, 1), reason="takes as long as 300 others: make trust does it")
def test_a_run_whose_worker_is_killed_ends_in_a_line_and_goes_on_to_the_bit(tmp_path: Path, tell: Tell) -> None:
    params = write_params(tmp_path, 2, init__loop=LONG, init__checkpoint__steps=1)
    process = started(params, tmp_path / "parts")
    wait_for(process, "update 3 ")
    os.kill(children(process.pid)[0], signal.SIGKILL)
    said = process.communicate(timeout=60)[1].splitlines()
    assert process.returncode == 2, said
    undisturbed(params, tmp_path / "whole")
    saved = good(tmp_path / "parts", tmp_path / "whole")
    assert 2 <= len(saved) < 25
    assert [line for line in said if not line.startswith(("update ", "validation "))] == [
        "error: a worker process was killed, for want of memory perhaps: try fewer workers; "
        f"the last good checkpoint is checkpoint_{saved[-1]}.mdl"
    ]
    assert unfinished(tmp_path / "parts") == []
    undisturbed(params, tmp_path / "parts")
    assert good(tmp_path / "parts", tmp_path / "whole") == list(range(1, 26))
    assert_told_alike(tmp_path / "parts", tmp_path / "whole")
    tell("workers killed, of training runs and of prepare", 1)


@pytest.fixture
def job(tmp_path: Path) -> Job:
    (tmp_path / "tokenizer").mkdir()
    for name, data in llama_files().items():
        (tmp_path / "tokenizer" / name).write_bytes(data)
    draw(tmp_path / "images" / "a.png", 0)
    (tmp_path / "params").mkdir()
    (tmp_path / "params" / "params.yaml").touch()
    return Job(
        tmp_path / "params" / "params.yaml", tmp_path / "tokenizer", tmp_path / "images", "vicuna_v1", LAYOUT, 400
    )


def test_prepare_whose_workers_are_killed_ends_in_a_line_and_goes_on_to_the_byte(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tell: Tell
) -> None:
    monkeypatch.setattr(module, "RECORDS", 20)
    monkeypatch.setattr(module, "PIECE", 2)
    annotations = tmp_path / "annotations.json"
    annotations.write_text(json.dumps([good_record(number) for number in range(80)]), "utf-8")
    prepare(annotations, tmp_path / "whole", job, phase=2)
    made: list[str] = []
    again: list[str] = []

    def killing(path: Path, data: bytes) -> None:
        """After the first file, there are no workers left: of one that had nothing to do at the time none is missed."""
        write_whole(path, data)
        made.append(path.name)
        if made[-1] == "data-00000.json":
            for worker in multiprocessing.active_children():
                worker.kill()

    def counting(path: Path, data: bytes) -> None:
        again.append(path.name)
        write_whole(path, data)

    with monkeypatch.context() as patch, pytest.raises(WorkerDied, match="a worker process was killed") as caught:
        patch.setattr(module, "write_whole", killing)
        prepare(annotations, tmp_path / "out", job, phase=2, workers=2)
    assert (caught.value.exit_code, "\n" in str(caught.value)) == (2, False)
    assert not (tmp_path / "out").exists()
    with monkeypatch.context() as patch:
        patch.setattr(module, "write_whole", counting)
        prepare(annotations, tmp_path / "out", job, phase=2)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    # What was done is not done again.
    assert "data-00000.h5" in made
    assert "data-00000.h5" not in again
    assert multiprocessing.active_children() == []
    tell("workers killed, of training runs and of prepare", 1)
