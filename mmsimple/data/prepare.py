"""LLaVA's annotations and pictures into training files: the same files for the same input, however often stopped.

Records are taken in batches of a fixed size, each of which becomes a file of its own. A batch that is done says so in a
small note beside its file; a run that is stopped leaves both, and the next one goes on from there.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import xxhash

from mmconvert import __version__
from mmconvert.documents import dump_json, parse_json
from mmconvert.errors import InputRefused
from mmconvert.progress import Progress, Silent
from mmconvert.staging import disk_errors, staged, sync_folder
from mmsimple.data.annotations import read_annotations
from mmsimple.data.conversation import BadRecord, encode, read_record, row_of
from mmsimple.data.h5 import NO_IMAGE, Layout, Row, file_bytes
from mmsimple.data.images import BadImage, locate, open_image
from mmsimple.data.templates import render
from mmsimple.data.tokenizer import Tokenizer, load_tokenizer
from mmsimple.data.workers import in_order

PARAMS = "data_params.json"
# Beside the files while they are made: what they are made of, and what a write has not finished.
PLAN = "plan.json"
UNFINISHED = ".new"
# Records of a file: a few megabytes, and little to do again after an interruption.
RECORDS = 2000
# How many of the records that were skipped are named, for each reason.
NAMED = 5

TooLong = Literal["skip", "truncate"]


@dataclass(frozen=True)
class Job:
    """What is made of a record, the same for all; `vocab_size` is the model's."""

    tokenizer: Path
    images: Path
    template: str
    layout: Layout
    vocab_size: int
    too_long: TooLong


@dataclass(frozen=True)
class Done:
    """What became of a batch of records: as many samples, and the others by reason, with the numbers of some."""

    samples: int
    tokens: int
    learned: int
    truncated: int
    skipped: dict[str, int]
    named: dict[str, list[int]]


@dataclass(frozen=True)
class Prepared:
    """A dataset that is complete; `params` is what `data_params.json` says."""

    out: Path
    params: Mapping[str, Any]


def prepare(
    annotations: Path,
    out: Path,
    job: Job,
    *,
    phase: int,
    workers: int = 1,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Prepared:
    """Write the training files of all good records to the folder `out`, which appears whole or not at all.

    Bad records are left out and counted. A run that is stopped is gone on with by the next one with the same input.
    Raises InputRefused for input that is no such thing, or of which nothing is left, with the reasons; OutputRefused
    and DiskError.
    """
    tokenizer = load_tokenizer(job.tokenizer)
    if tokenizer.pad_id >= job.vocab_size:
        rows = f"the model's vocabulary has {job.vocab_size} rows"
        raise InputRefused(f"{job.tokenizer}: the tokenizer pads with id {tokenizer.pad_id}, but {rows}")
    if not job.images.is_dir():
        raise InputRefused(f"{job.images}: is no folder of pictures")
    records = read_annotations(annotations)
    if not records:
        raise InputRefused(f"{annotations}: holds no record")
    facts = {
        "schema": 1,
        "tool": f"mmsimple {__version__}",
        "phase": phase,
        "template": job.template,
        "max_sequence_length": job.layout.sequence_length,
        "max_num_img": job.layout.image_slots,
        "num_patches": job.layout.image_tokens,
        "pad_token_id": tokenizer.pad_id,
        "vocab_size": job.vocab_size,
        "too_long": job.too_long,
        "annotations": {"file": annotations.name, "xxh3": _digest([annotations])},
        "tokenizer": {"xxh3": _digest(sorted(path for path in job.tokenizer.iterdir() if path.is_file()))},
        "records": len(records),
    }
    firsts = range(0, len(records), RECORDS)
    batches = [(number, first, records[first : first + RECORDS]) for number, first in enumerate(firsts)]
    least = 4 * len(records)
    sources = (annotations, job.images, job.tokenizer)
    with staged(out, overwrite=overwrite, fsync=True, bytes_needed=least, sources=sources, resumable=True) as staging:
        folder = staging.path
        _take_up(folder, facts)
        done = dict(_write_all(folder, batches, job, workers, progress or Silent()))
        params = _conclude(folder, facts, done)
    return Prepared(out, params)


def _take_up(folder: Path, facts: Mapping[str, Any]) -> None:
    """Leave in a staging folder what a run with the same input has done, and nothing else."""
    said, plan = dump_json(facts), folder / PLAN
    is_ours = plan.is_file() and plan.read_bytes() == said
    for path in folder.iterdir():
        if not is_ours or path.suffix == UNFINISHED:
            path.unlink()
    _write(plan, said)


def _write_all(
    folder: Path, batches: Sequence[tuple[int, int, list[Any]]], job: Job, workers: int, progress: Progress
) -> Iterator[tuple[int, Done]]:
    """What became of each batch, those included that a run before has done."""
    left = []
    progress.start(sum(len(records) for *_, records in batches))
    try:
        for number, first, records in batches:
            if _note(folder, number).is_file():
                yield number, Done(**parse_json(_note(folder, number).read_bytes(), "note"))
                progress.advance(len(records))
            else:
                left.append((number, first, records))
        made = in_order(Batch, (job, folder), left, workers)
        for (number, _, records), done in zip(left, made, strict=True):
            yield number, done
            progress.advance(len(records))
    finally:
        progress.finish()


class Batch:
    """Makes files of batches, in whatever process; loads the tokenizer once."""

    def __init__(self, job: Job, folder: Path) -> None:
        self.job, self.folder = job, folder
        self.tokenizer = load_tokenizer(job.tokenizer)

    def __call__(self, number: int, first: int, records: Sequence[Any]) -> Done:
        """Make the file of a batch; `first` is the number of its first record."""
        rows: list[Row] = []
        truncated = 0
        skipped: Counter[str] = Counter()
        named: dict[str, list[int]] = {}
        pictures: dict[str, str | None] = {}
        for at, record in enumerate(records, first):
            try:
                row, is_cut = sample_of(record, self.job, self.tokenizer, pictures)
            except BadRecord as error:
                skipped[error.reason] += 1
                named.setdefault(error.reason, []).append(at)
                continue
            rows.append(row)
            truncated += is_cut
        if rows:
            _write(_file(self.folder, number), file_bytes(rows))
        done = Done(
            samples=len(rows),
            tokens=sum(int((row.data[3] == 0).sum()) for row in rows),
            learned=sum(int((row.data[1] != 0).sum()) for row in rows),
            truncated=truncated,
            skipped=dict(sorted(skipped.items())),
            named={reason: numbers[:NAMED] for reason, numbers in sorted(named.items())},
        )
        # Last: what has a note is complete.
        _write(_note(self.folder, number), dump_json(asdict(done)))
        return done


def sample_of(record: Any, job: Job, tokenizer: Tokenizer, pictures: dict[str, str | None]) -> tuple[Row, bool]:
    """A record as a row of a training file, and whether it was cut. Raises BadRecord.

    `pictures` remembers of each picture what is wrong with it, None for nothing: several records may share one.
    """
    read = read_record(record)
    rendered = render(job.template, tokenizer, read.turns)
    sample = encode(rendered, tokenizer, job.layout.image_tokens)
    row = row_of(sample, read.images, job.layout, tokenizer.pad_id, job.too_long)
    if max(sample.ids) >= job.vocab_size:
        raise BadRecord("token outside the vocabulary")
    for name in row.paths:
        if name == NO_IMAGE:
            continue
        if name not in pictures:
            pictures[name] = _what_is_wrong(job.images, name)
        if (reason := pictures[name]) is not None:
            raise BadRecord(reason)
    return row, len(sample.ids) > job.layout.sequence_length + 1


def _what_is_wrong(images: Path, name: str) -> str | None:
    try:
        open_image(locate(images, name))
    except BadImage as error:
        return error.reason
    return None


def _conclude(folder: Path, facts: dict[str, Any], done: Mapping[int, Done]) -> dict[str, Any]:
    """Put the counts of all batches into one file, and take the notes away.

    Raises InputRefused if no sample is left, and then leaves nothing to go on with.
    """
    skipped: Counter[str] = Counter()
    named: dict[str, list[int]] = {}
    for each in done.values():
        skipped.update(each.skipped)
        for reason, numbers in each.named.items():
            named[reason] = (named.get(reason, []) + numbers)[:NAMED]
    samples = sum(each.samples for each in done.values())
    if not samples:
        shutil.rmtree(folder)
        raise InputRefused(f"{facts['annotations']['file']}: no record is left: {reasons(skipped)}")
    params = {
        **facts,
        "samples": samples,
        "tokens": sum(each.tokens for each in done.values()),
        "learned_tokens": sum(each.learned for each in done.values()),
        "truncated": sum(each.truncated for each in done.values()),
        "skipped": {reason: {"count": count, "records": named[reason]} for reason, count in sorted(skipped.items())},
        "files": {_file(folder, number).name: each.samples for number, each in sorted(done.items()) if each.samples},
    }
    _write(folder / PARAMS, dump_json(params))
    for number in done:
        _note(folder, number).unlink()
    (folder / PLAN).unlink()
    return params


def reasons(skipped: Mapping[str, int]) -> str:
    """Why records were left out, the most frequent reason first."""
    ordered = sorted(skipped.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count:,} {reason}" for reason, count in ordered)


def _file(folder: Path, number: int) -> Path:
    return folder / f"data-{number:05d}.h5"


def _note(folder: Path, number: int) -> Path:
    return folder / f"data-{number:05d}.json"


def _write(path: Path, data: bytes) -> None:
    """Write a file that is there whole or not at all, and on the disk."""
    with disk_errors(path, len(data)):
        new = path.with_suffix(f"{path.suffix}{UNFINISHED}")
        with new.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)
        sync_folder(path.parent)


def _digest(paths: Sequence[Path]) -> str:
    """Of the contents of files, one after the other."""
    digest = xxhash.xxh3_64()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
