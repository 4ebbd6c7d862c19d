"""Annotations and pictures into training files: what is in them, what is left out, and what a stop costs."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mmconvert.errors import InputRefused, OutputRefused
from mmsimple.data import prepare as module
from mmsimple.data.h5 import Files, Layout, Row, look_at
from mmsimple.data.prepare import Job, prepare
from mmsimple.data.tokenizer import load_tokenizer
from tests.mmsimple.data.pictures import draw
from tests.mmsimple.data.small_tokenizers import llama_files

LAYOUT = Layout(192, 2, 4)


def conversation(*texts: str, **more: Any) -> dict[str, Any]:
    speakers = ("human", "gpt")
    said = [{"from": speakers[at % 2], "value": text} for at, text in enumerate(texts)]
    return {"id": "1", "conversations": said, **more}


def good(number: int) -> dict[str, Any]:
    return conversation("<image>\nWhat is this?", f"A red cat, {number}.", image="a.png")


@pytest.fixture
def job(tmp_path: Path) -> Job:
    tokenizer = tmp_path / "tokenizer"
    tokenizer.mkdir()
    for name, data in llama_files().items():
        (tokenizer / name).write_bytes(data)
    for seed, name in enumerate(("a.png", "sub/b.png")):
        draw(tmp_path / "images" / name, seed)
    return Job(tokenizer, tmp_path / "images", "vicuna_v1", LAYOUT, 400, "skip")


@pytest.fixture
def write(tmp_path: Path) -> Callable[[list[Any]], Path]:
    def write(records: list[Any]) -> Path:
        path = tmp_path / "annotations.json"
        path.write_text(json.dumps(records), "utf-8")
        return path

    return write


def rows(folder: Path) -> list[Row]:
    files = Files()
    return [files.read(path, at) for path in sorted(folder.glob("*.h5")) for at in range(look_at(path)[1])]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def hidden(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


def learned(row: Row, job: Job) -> str:
    """What there is loss on, in words."""
    tokenizer = load_tokenizer(job.tokenizer)
    return tokenizer.decode(row.data[2][row.data[1] == 1].tolist(), skip_special_tokens=False)


# --- what is in the files -------------------------------------------------------------------------------------------


def test_a_conversation_becomes_a_sample(job: Job, write: Callable[[list[Any]], Path], tmp_path: Path) -> None:
    record = conversation("<image>\nWhat?", "A cat.", "And <image>?", "A dog.", image=["a.png", "sub/b.png"])
    found = prepare(write([record]), tmp_path / "out", job, phase=2)
    (row,) = rows(found.out)
    assert row.paths == ("a.png", "sub/b.png")
    assert learned(row, job) == "A cat.</s> A dog.</s>"
    length = int((row.data[3] == 0).sum())
    assert row.data[4].sum() == 8
    assert all(row.data[4][place] == 1 for place in row.positions.flatten())
    assert (found.params["samples"], found.params["tokens"]) == (1, length)
    assert found.params["learned_tokens"] == row.data[1].sum()


def test_phase_1_is_the_caption_alone(job: Job, write: Callable[[list[Any]], Path], tmp_path: Path) -> None:
    """bos, image, caption, eos; the first word of the caption follows from the image's last token."""
    plain = replace(job, template="plain")
    found = prepare(
        write([conversation("Describe it.\n<image>", "A red cat.", image="a.png")]), tmp_path / "out", plain, phase=1
    )
    (row,) = rows(found.out)
    tokenizer = load_tokenizer(job.tokenizer)
    caption = row.data[2][row.data[1] == 1].tolist()
    assert learned(row, job) == "A red cat.</s>"
    assert caption[-1] == 2
    assert row.data[0][: 5 + len(caption) - 1].tolist() == [1, *[tokenizer.pad_id] * 4, *caption[:-1]]
    assert row.positions[0].tolist() == [1, 2, 3, 4]
    assert row.data[1].nonzero()[0].tolist() == list(range(4, 4 + len(caption)))


def test_bad_records_are_counted_by_reason_and_named(
    job: Job, write: Callable[[list[Any]], Path], tmp_path: Path
) -> None:
    (tmp_path / "images" / "broken.png").write_bytes(b"no picture")
    records: list[Any] = [
        good(0),
        "x",
        conversation("<image>", "A cat.", image="none.png"),
        conversation("<image>", "A cat.", image="../tokenizer/tokenizer.model"),
        conversation("<image>", "A cat.", image="broken.png"),
        conversation("<image>", "A cat.", image="none.png"),
        conversation("<image><image><image>", "A cat.", image=["a.png"] * 3),
        conversation("Hello", "word " * 300),
        conversation("Hello", "an end</s>"),
        conversation("Hello", "Yes."),
    ]
    found = prepare(write(records), tmp_path / "out", job, phase=2)
    assert (found.params["records"], found.params["samples"]) == (10, 2)
    assert found.params["skipped"] == {
        "image cannot be decoded": {"count": 1, "records": [4]},
        "image missing": {"count": 2, "records": [2, 5]},
        "image path leaves the folder": {"count": 1, "records": [3]},
        "not a mapping": {"count": 1, "records": [1]},
        "special token in the text": {"count": 1, "records": [8]},
        "too long": {"count": 1, "records": [7]},
        "too many images": {"count": 1, "records": [6]},
    }
    assert json.loads((found.out / "data_params.json").read_text("utf-8")) == found.params


def test_what_is_too_long_may_be_cut(job: Job, write: Callable[[list[Any]], Path], tmp_path: Path) -> None:
    cut = replace(job, too_long="truncate")
    found = prepare(write([conversation("Hello", "word " * 300), good(1)]), tmp_path / "out", cut, phase=2)
    assert [int((row.data[3] == 0).sum()) == 192 for row in rows(found.out)] == [True, False]
    assert (found.params["truncated"], found.params["skipped"]) == (1, {})


def test_a_token_that_the_model_has_not_is_no_sample(
    job: Job, write: Callable[[list[Any]], Path], tmp_path: Path
) -> None:
    ids = {
        int(token)
        for row in (rows(prepare(write([good(0)]), tmp_path / "a", job, phase=2).out))
        for token in row.data[0]
    }
    small = replace(job, vocab_size=max(ids))
    with pytest.raises(InputRefused, match="1 token outside the vocabulary"):
        prepare(write([good(0)]), tmp_path / "b", small, phase=2)


def test_a_picture_of_several_records_is_looked_at_once(
    job: Job, write: Callable[[list[Any]], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Path] = []
    monkeypatch.setattr(module, "open_image", opened.append)
    prepare(write([good(number) for number in range(5)]), tmp_path / "out", job, phase=2)
    assert opened == [tmp_path / "images" / "a.png"]


# --- the same files every time --------------------------------------------------------------------------------------


@pytest.fixture
def many(write: Callable[[list[Any]], Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Annotations of five files, of which one stays empty."""
    monkeypatch.setattr(module, "RECORDS", 10)
    return write([good(number) if not 20 <= number < 30 else "x" for number in range(45)])


def test_each_so_many_records_have_a_file(job: Job, many: Path, tmp_path: Path) -> None:
    found = prepare(many, tmp_path / "out", job, phase=2)
    assert found.params["files"] == {f"data-0000{n}.h5": 5 if n == 4 else 10 for n in (0, 1, 3, 4)}
    assert sorted(contents(found.out)) == sorted([*found.params["files"], "data_params.json"])
    assert found.params["skipped"] == {"not a mapping": {"count": 10, "records": [20, 21, 22, 23, 24]}}


def test_workers_change_nothing(job: Job, many: Path, tmp_path: Path) -> None:
    one, two = (prepare(many, tmp_path / f"out{count}", job, phase=2, workers=count).out for count in (1, 2))
    assert contents(one) == contents(two)


class Stop(BaseException):
    """A user who presses Ctrl-C."""


@pytest.mark.parametrize("at", [1, 3])
def test_a_run_that_was_stopped_is_gone_on_with(
    at: int, job: Job, many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = contents(prepare(many, tmp_path / "whole", job, phase=2).out)
    out = tmp_path / "out"
    made: list[int] = []
    intact = module.Batch.__call__

    def stopping(batch: module.Batch, number: int, first: int, records: list[Any]) -> module.Done:
        if number == at:
            raise Stop
        made.append(number)
        return intact(batch, number, first, records)

    with monkeypatch.context() as patch:
        patch.setattr(module.Batch, "__call__", stopping)
        with pytest.raises(Stop):
            prepare(many, out, job, phase=2)
    assert not out.exists()
    made.clear()
    at = -1
    with monkeypatch.context() as patch:
        patch.setattr(module.Batch, "__call__", stopping)
        assert contents(prepare(many, out, job, phase=2).out) == whole
    assert made[0] > 0
    assert made[-1] == 4
    assert hidden(tmp_path) == []


def test_what_was_done_of_something_else_is_not_used(
    job: Job, many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(module, "_conclude", lambda *_: (_ for _ in ()).throw(Stop))
        with pytest.raises(Stop):
            prepare(many, tmp_path / "out", job, phase=2)
    other = replace(job, template="llama_2")
    expected = contents(prepare(many, tmp_path / "other", other, phase=2).out)
    assert contents(prepare(many, tmp_path / "out", other, phase=2).out) == expected


def test_killed_at_any_moment_the_next_run_gives_the_same(
    job: Job, write: Callable[[list[Any]], Path], tmp_path: Path
) -> None:
    many = write([good(number) for number in range(60)])
    whole = contents(prepare(many, tmp_path / "whole", job, phase=2).out)
    program = (
        "import sys, pickle; from mmsimple.data import prepare as module; module.RECORDS = 10\n"
        "module.prepare(*pickle.load(open(sys.argv[1], 'rb')), phase=2)"
    )
    out = tmp_path / "out"
    (tmp_path / "given").write_bytes(pickle.dumps((many, out, job)))
    command = [sys.executable, "-c", program, str(tmp_path / "given")]
    staging = tmp_path / ".out.mmconvert-staging"
    child = subprocess.Popen(command)
    while child.poll() is None and not list(staging.glob("*.h5")):
        time.sleep(0.001)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert not out.exists()
    subprocess.run(command, check=True)
    params = json.loads((out / "data_params.json").read_text("utf-8"))
    assert params["samples"] == 60
    assert [row.data.tolist() for row in rows(out)] == [row.data.tolist() for row in rows(tmp_path / "whole")]
    assert whole.keys() == {"data-00000.h5", "data_params.json"}


# --- what is refused ------------------------------------------------------------------------------------------------


def test_where_nothing_is_left_nothing_is_written(job: Job, write: Callable[[list[Any]], Path], tmp_path: Path) -> None:
    records = [conversation("<image>", "A cat.", image="none.png"), "x", conversation("<image>", "A.", image="no.png")]
    with pytest.raises(InputRefused) as caught:
        prepare(write(records), tmp_path / "out", job, phase=2)
    assert str(caught.value) == "annotations.json: no record is left: 2 image missing, 1 not a mapping"
    assert not (tmp_path / "out").exists()
    assert hidden(tmp_path) == []


def test_what_stands_there_is_replaced_only_if_told_to(
    job: Job, write: Callable[[list[Any]], Path], tmp_path: Path
) -> None:
    path, out = write([good(0)]), tmp_path / "out"
    prepare(path, out, job, phase=2)
    with pytest.raises(OutputRefused):
        prepare(path, out, job, phase=2)
    assert prepare(write([good(0), good(1)]), out, job, phase=2, overwrite=True).params["samples"] == 2


@pytest.mark.parametrize(
    ("text", "said"), [("{}", "must be a list"), ("[", "is not valid JSON"), ("[]", "holds no record")]
)
def test_annotations_that_are_none_are_refused(text: str, said: str, job: Job, tmp_path: Path) -> None:
    path = tmp_path / "annotations.json"
    path.write_text(text)
    with pytest.raises(InputRefused, match=f"^{path}: {said}"):
        prepare(path, tmp_path / "out", job, phase=2)


def test_a_tokenizer_that_pads_with_what_the_model_has_not_is_refused(
    job: Job, write: Callable[[list[Any]], Path], tmp_path: Path
) -> None:
    with pytest.raises(InputRefused, match="pads with id 0, but the model's vocabulary has 0 rows"):
        prepare(write([good(0)]), tmp_path / "out", replace(job, vocab_size=0), phase=2)


def test_the_output_may_not_lie_among_the_pictures(
    job: Job, write: Callable[[list[Any]], Path], tmp_path: Path
) -> None:
    with pytest.raises(OutputRefused, match="lies inside the source"):
        prepare(write([good(0)]), tmp_path / "images" / "out", job, phase=2)
