"""Annotations and pictures into training files: what is in them, what is left out, and what a stop costs."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest

from mmconvert.errors import InputRefused, OutputRefused
from mmconvert.staging import write_whole
from mmsimple.data import maker
from mmsimple.data import prepare as module
from mmsimple.data.conversation import Sample, encode, read_record
from mmsimple.data.h5 import Files, Layout, Row, read_layout
from mmsimple.data.job import Job
from mmsimple.data.maker import SampleMaker
from mmsimple.data.prepare import prepare
from mmsimple.data.templates import Rendered
from mmsimple.data.tokenizer import load_tokenizer
from mmsimple.data.transforms import ExpandToSquare, ToTensor, Transforms
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
    (tmp_path / "params").mkdir()
    (tmp_path / "params" / "params.yaml").touch()
    return Job(tmp_path / "params" / "params.yaml", tokenizer, tmp_path / "images", "vicuna_v1", LAYOUT, 400)


@pytest.fixture
def write(tmp_path: Path) -> Callable[[list[Any]], Path]:
    def write(records: list[Any]) -> Path:
        path = tmp_path / "annotations.json"
        path.write_text(json.dumps(records), "utf-8")
        return path

    return write


def rows(folder: Path) -> list[Row]:
    files = Files()
    return [files.read(path, at) for path in sorted(folder.glob("*.h5")) for at in range(read_layout(path)[1])]


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
    monkeypatch.setattr(maker, "open_image", opened.append)
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


def stop_at(patch: pytest.MonkeyPatch, name: str) -> list[str]:
    """Let a run stop when it comes to write a file of this name; gives the names of those that it writes."""
    written: list[str] = []
    intact = write_whole

    def write(path: Path, data: bytes) -> None:
        if path.name == name:
            raise Stop
        written.append(path.name)
        intact(path, data)

    patch.setattr(module, "write_whole", write)
    return written


def stopped(patch: pytest.MonkeyPatch, name: str, many: Path, out: Path, job: Job, phase: int = 2) -> None:
    with patch.context() as context, pytest.raises(Stop):
        stop_at(context, name)
        prepare(many, out, job, phase=phase)
    assert not out.exists()


@pytest.mark.parametrize("at", ["data-00001.h5", "data-00001.json", "data-00003.h5", "data_params.json"])
def test_a_run_that_was_stopped_is_gone_on_with(
    at: str, job: Job, many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = contents(prepare(many, tmp_path / "whole", job, phase=2).out)
    stopped(monkeypatch, at, many, tmp_path / "out", job)
    with monkeypatch.context() as patch:
        written = stop_at(patch, "none")
        assert contents(prepare(many, tmp_path / "out", job, phase=2).out) == whole
    assert "data-00000.h5" not in written
    assert hidden(tmp_path) == []


CHANGES: dict[str, dict[str, Any]] = {
    "template": {"template": "llama_2"},
    "layout": {"layout": Layout(191, 3, 4)},
    "vocab_size": {"vocab_size": 401},
    "too_long": {"too_long": "truncate"},
    "transforms": {"transforms": Transforms(())},
}


@pytest.mark.parametrize("change", [*CHANGES, "images", "tokenizer", "annotations"])
def test_what_was_done_of_something_else_is_not_used(
    change: str, job: Job, many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped(monkeypatch, "data-00003.h5", many, tmp_path / "out", job)
    other = replace(job, **CHANGES.get(change, {}))
    if change == "images":
        shutil.copytree(job.images, tmp_path / "others")
        (tmp_path / "others" / "a.png").unlink()
        other = replace(job, images=tmp_path / "others")
        draw(tmp_path / "others" / "a.png", 9)
    if change == "tokenizer":
        (job.tokenizer / "added_tokens.json").write_text("{}")
    if change == "annotations":
        many.write_text(json.dumps(json.loads(many.read_text())[:-1]))
    with monkeypatch.context() as patch:
        written = stop_at(patch, "none")
        found = contents(prepare(many, tmp_path / "out", other, phase=2).out)
    assert "data-00000.h5" in written
    assert found == contents(prepare(many, tmp_path / "other", other, phase=2).out)


def test_pictures_that_have_come_meanwhile_are_seen(
    job: Job, many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = job.images / "a.png"
    aside = picture.rename(tmp_path / "aside.png")
    with monkeypatch.context() as patch, pytest.raises(Stop):
        stop_at(patch, "data-00003.json")
        prepare(many, tmp_path / "out", job, phase=2)
    aside.rename(picture)
    assert prepare(many, tmp_path / "out", job, phase=2).params["samples"] == 35


def test_what_another_program_left_there_is_cleared_up(job: Job, many: Path, tmp_path: Path) -> None:
    (tmp_path / ".out.mmconvert-staging" / "assets").mkdir(parents=True)
    (tmp_path / ".out.mmconvert-staging" / "data-00009.h5").touch()
    assert sorted(contents(prepare(many, tmp_path / "out", job, phase=2).out))[-1] == "data_params.json"


def test_what_a_write_has_not_finished_is_cleared_up(
    job: Job, many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped(monkeypatch, "data-00003.h5", many, tmp_path / "out", job)
    (tmp_path / ".out.mmconvert-staging" / "data-00003.h5.new").write_bytes(b"half")
    assert not any(name.endswith(".new") for name in contents(prepare(many, tmp_path / "out", job, phase=2).out))


def test_what_is_on_the_disk_was_synced_before_it_got_its_name(
    job: Job, many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    fsync, replace_file = os.fsync, os.replace

    def syncing(fd: int) -> None:
        done.append("fsync")
        fsync(fd)

    def replacing(old: Path, new: Path) -> None:
        done.append("replace")
        replace_file(old, new)

    monkeypatch.setattr(os, "fsync", syncing)
    monkeypatch.setattr(os, "replace", replacing)
    prepare(many, tmp_path / "out", job, phase=2)
    places = [at for at, each in enumerate(done) if each == "replace"]
    assert places
    assert all(done[at - 1] == done[at + 1] == "fsync" for at in places)


def test_killed_at_any_moment_the_next_run_gives_the_same(
    job: Job, write: Callable[[list[Any]], Path], tmp_path: Path
) -> None:
    many = write([good(number) for number in range(60)])
    prepare(many, tmp_path / "whole", job, phase=2)
    program = (
        "import sys, pickle; from mmsimple.data import prepare as module; module.RECORDS = module.PIECE = 10\n"
        "module.prepare(*pickle.load(open(sys.argv[1], 'rb')), phase=2, workers=2)"
    )
    out = tmp_path / "out"
    (tmp_path / "given").write_bytes(pickle.dumps((many, out, job)))
    command = [sys.executable, "-c", program, str(tmp_path / "given")]
    staging = tmp_path / ".out.mmconvert-staging"
    # Its workers have its pipe too: it is closed when all of them are gone.
    child = subprocess.Popen(command, stdout=subprocess.PIPE)
    while child.poll() is None and not list(staging.glob("*.h5")):
        time.sleep(0.001)
    os.kill(child.pid, signal.SIGKILL)
    child.communicate(timeout=30)
    assert not out.exists()
    subprocess.run(command, check=True)
    assert json.loads((out / "data_params.json").read_text("utf-8"))["samples"] == 60
    assert [row.data.tolist() for row in rows(out)] == [row.data.tolist() for row in rows(tmp_path / "whole")]


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


def test_what_the_template_needs_is_missed_before_anything_is_made(
    job: Job, write: Callable[[list[Any]], Path], tmp_path: Path
) -> None:
    with pytest.raises(InputRefused, match="the template llava_llama_3 takes"):
        prepare(write([good(0)]), tmp_path / "out", replace(job, template="llava_llama_3"), phase=2)
    assert hidden(tmp_path) == []


def test_a_record_that_the_chat_template_refuses_is_left_out(
    job: Job, write: Callable[[list[Any]], Path], tmp_path: Path
) -> None:
    template = (
        "{% for m in messages %}{% if not m['content'] %}{{ raise_exception('empty') }}{% endif %}"
        "{{ m['role'] }}: {{ m['content'] }}{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
    )
    config = job.tokenizer / "tokenizer_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "chat_template": template}))
    records = [good(0), conversation("", "Yes."), good(1)]
    found = prepare(write(records), tmp_path / "out", replace(job, template="tokenizer"), phase=2)
    assert found.params["skipped"] == {"the chat template refuses it": {"count": 1, "records": [1]}}
    assert found.params["samples"] == 2


def test_a_picture_that_the_transforms_refuse_is_left_out(
    job: Job, write: Callable[[list[Any]], Path], tmp_path: Path
) -> None:
    draw(job.images / "line.png", 0, (1, 60_000))
    narrow = conversation("<image>", "A line.", image="line.png")
    square = replace(job, transforms=Transforms((ExpandToSquare((0, 0, 0)), ToTensor())))
    assert prepare(write([good(0), narrow]), tmp_path / "a", job, phase=2).params["samples"] == 2
    found = prepare(write([good(0), narrow]), tmp_path / "b", square, phase=2)
    assert found.params["skipped"] == {"image too large": {"count": 1, "records": [1]}}


def test_a_record_may_be_nested_and_have_what_it_likes_beside(
    job: Job, write: Callable[[list[Any]], Path], tmp_path: Path
) -> None:
    deep: Any = 1
    for _ in range(900):
        deep = [deep]
    assert prepare(write([{**good(0), "more": deep}]), tmp_path / "out", job, phase=2, workers=2).params["samples"] == 1


def test_the_params_file_is_not_written_over(job: Job, write: Callable[[list[Any]], Path], tmp_path: Path) -> None:
    with pytest.raises(OutputRefused, match="holds the source"):
        prepare(write([good(0)]), job.config.parent, job, phase=2, overwrite=True)
    assert job.config.is_file()


def test_memory_does_not_grow_with_the_length_of_a_sample(
    job: Job, write: Callable[[list[Any]], Path], tmp_path: Path
) -> None:
    long = replace(job, layout=Layout(100_000, 2, 4))
    tracemalloc.start()
    prepare(write([good(number) for number in range(200)]), tmp_path / "out", long, phase=2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # Of 200 rows of 2 MB, a few at a time.
    assert peak < 50e6


def test_the_output_may_not_lie_among_the_pictures(
    job: Job, write: Callable[[list[Any]], Path], tmp_path: Path
) -> None:
    with pytest.raises(OutputRefused, match="lies inside the source"):
        prepare(write([good(0)]), tmp_path / "images" / "out", job, phase=2)


# --- what is much too long --------------------------------------------------------------------------------------------

LONG = {
    "one long answer": conversation("<image>\nWhat?", "A red cat. " * 30_000, image="a.png"),
    "a long question": conversation("What is a cat? " * 30_000, "A red cat."),
    "many turns": conversation(*["What?", "A cat."] * 2_000),
    "one long word": conversation("What?", "cat" * 100_000),
}


@pytest.mark.parametrize("too_long", ["skip", "truncate"])
@pytest.mark.parametrize("name", LONG)
def test_what_is_much_too_long_is_hardly_looked_at_and_ends_as_if_it_were(
    name: str, too_long: Literal["skip", "truncate"], job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths = []

    def measured(rendered: Rendered, *given: Any) -> Sample:
        lengths.append(len(rendered.text))
        return encode(rendered, *given)

    monkeypatch.setattr(maker, "encode", measured)
    record = read_record(LONG[name])
    job = replace(job, too_long=too_long)
    (quick,) = SampleMaker(job)([record])
    slow_maker = SampleMaker(job)
    slow_maker._most_characters = slow_maker._most_turns = 1 << 30
    (slow,) = slow_maker([record])
    assert lengths[0] <= 64 * (LAYOUT.sequence_length + 2)
    assert 1.5 * lengths[0] < lengths[1]
    if isinstance(slow, str):
        assert quick == slow
        assert slow == ("too long" if too_long == "skip" else "nothing to learn")
    else:
        assert not isinstance(quick, str)
        assert quick.ids.tolist() == slow.ids.tolist()
        assert quick.weights.tolist() == slow.weights.tolist()
        assert quick[2:] == slow[2:]


def test_what_is_cut_off_and_fits_nonetheless_is_too_long(job: Job) -> None:
    """Or a sample would end where no text does."""
    make = SampleMaker(job)
    make._most_characters = 200
    assert make([read_record(conversation("<image>\nWhat?", "A red cat. " * 20, image="a.png"))]) == ["too long"]
