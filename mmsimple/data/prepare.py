"""LLaVA's annotations and pictures into training files: the same files for the same input, however often stopped.

Every so many records become a file of their own. A file that is done has a note beside it; a run that is stopped leaves
both, and the next one goes on from there. Records are made into samples by other processes, and only the one that holds
the folder writes.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import xxhash

from mmconvert import __version__
from mmconvert.documents import dump_json, parse_json
from mmconvert.errors import InputRefused
from mmconvert.progress import Progress, Silent
from mmconvert.staging import UNFINISHED, staged, write_whole
from mmsimple.data.annotations import read_annotations
from mmsimple.data.conversation import BadRecord, FittedSample, Record, read_record, row_of
from mmsimple.data.h5 import file_bytes
from mmsimple.data.job import Job
from mmsimple.data.maker import SampleMaker
from mmsimple.data.templates import Turn, render
from mmsimple.data.tokenizer import ALL_FILES, load_tokenizer
from mmsimple.data.workers import in_order, worker_errors

PARAMS = "data_params.json"
# Beside the files while they are made: what they are made of, and what a write has not finished.
PLAN = "plan.json"
# Records of a file, and those that a worker is given at a time.
RECORDS = 2000
PIECE = 50
# How many of the records that were skipped are named, for each reason.
NAMED = 5


@dataclass
class Counts:
    """What became of the records of a file; `named` are the numbers of some that were skipped, by reason.

    `pictures` tells whether the pictures are still what they were: sizes and times of change.
    """

    pictures: str
    samples: int = 0
    tokens: int = 0
    learned: int = 0
    truncated: int = 0
    skipped: dict[str, int] = field(default_factory=dict)
    named: dict[str, list[int]] = field(default_factory=dict)

    def add(self, sample: FittedSample) -> None:
        self.samples += 1
        self.tokens += len(sample.ids) - 1
        self.learned += int(sample.weights[1:].astype(bool).sum())
        self.truncated += sample.is_cut

    def skip(self, number: int, reason: str) -> None:
        self.skipped[reason] = self.skipped.get(reason, 0) + 1
        numbers = self.named.setdefault(reason, [])
        if len(numbers) < NAMED:
            numbers.append(number)


@dataclass(frozen=True)
class Prepared:
    """A dataset that is complete; `params` is what `data_params.json` says."""

    out: Path
    params: Mapping[str, Any]


@dataclass(frozen=True)
class _File:
    """One of the files to be made: its number, and its records with that of the first."""

    number: int
    first: int
    records: Sequence[Any]

    @property
    def name(self) -> str:
        return f"data-{self.number:05d}.h5"

    @property
    def note(self) -> str:
        return f"data-{self.number:05d}.json"


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
    Raises InputRefused for input that is no such thing, or of which nothing is left, with the reasons; OutputRefused,
    DiskError and WorkerDied.
    """
    tokenizer = load_tokenizer(job.tokenizer)
    if tokenizer.pad_id >= job.vocab_size:
        rows = f"the model's vocabulary has {job.vocab_size} rows"
        raise InputRefused(f"{job.tokenizer}: the tokenizer pads with id {tokenizer.pad_id}, but {rows}")
    # What a template needs of the tokenizer shows here, and not in every record.
    render(job.template, tokenizer, [Turn("user", "a"), Turn("assistant", "b")])
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
        "tokenizer": {"xxh3": _digest(path for name in ALL_FILES if (path := job.tokenizer / name).is_file())},
        "records": len(records),
    }
    starts = range(0, len(records), RECORDS)
    files = [_File(number, first, records[first : first + RECORDS]) for number, first in enumerate(starts)]
    least = 4 * len(records)
    sources = (annotations, job.images, job.tokenizer, job.config)
    stage = staged(out, overwrite=overwrite, fsync=True, bytes_needed=least, sources=sources, resumable=True)
    # Outside of it, to which that is no reason not to go on another time.
    with worker_errors(), stage as staging:
        # What nobody else needs to know, but a run that goes on does.
        _take_up(staging.path, {**facts, "images": str(job.images.resolve()), "transforms": repr(job.transforms)})
        counts = _make_all(staging.path, files, job, tokenizer.pad_id, workers, progress or Silent())
        params = _conclude(staging.path, facts, files, counts)
    return Prepared(out, params)


def _take_up(folder: Path, plan: Mapping[str, Any]) -> None:
    """Leave in a staging folder what a run with the same input has done, and nothing else."""
    said, place = dump_json(plan), folder / PLAN
    is_ours = place.is_file() and place.read_bytes() == said
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif not is_ours or path.suffix == UNFINISHED:
            path.unlink()
    write_whole(place, said)


def _make_all(
    folder: Path, files: Sequence[_File], job: Job, pad_id: int, workers: int, progress: Progress
) -> list[Counts]:
    """What became of the records of each file; those that a run before has made are left as they are."""
    progress.start(sum(len(file.records) for file in files))
    try:
        found: dict[int, Counts] = {}
        left: list[tuple[_File, list[Record | str], str]] = []
        for file in files:
            read = [_read(record) for record in file.records]
            pictures = _state_of_pictures(read, job.images)
            done = _noted(folder / file.note)
            if done is not None and done.pictures == pictures:
                found[file.number] = done
                progress.advance(len(file.records))
            else:
                left.append((file, read, pictures))
        pieces = ((read[at : at + PIECE],) for _, read, _ in left for at in range(0, len(read), PIECE))
        made = chain.from_iterable(in_order(SampleMaker, (job,), pieces, workers))
        for file, read, pictures in left:
            counts, samples = Counts(pictures), []
            for number in range(file.first, file.first + len(read)):
                sample = next(made)
                progress.advance(1)
                if isinstance(sample, str):
                    counts.skip(number, sample)
                else:
                    counts.add(sample)
                    samples.append(sample)
            (folder / file.name).unlink(missing_ok=True)
            if samples:
                rows = (row_of(sample, job.layout, pad_id) for sample in samples)
                write_whole(folder / file.name, file_bytes(job.layout, rows, len(samples)))
            # Last: what has a note is complete.
            write_whole(folder / file.note, dump_json(asdict(counts)))
            found[file.number] = counts
    finally:
        progress.finish()
    return [found[file.number] for file in files]


def _read(record: Any) -> Record | str:
    """A record, or what is wrong with it."""
    try:
        return read_record(record)
    except BadRecord as error:
        return error.reason


def _noted(note: Path) -> Counts | None:
    return Counts(**parse_json(note.read_bytes(), str(note))) if note.is_file() else None


def _state_of_pictures(records: Iterable[Record | str], images: Path) -> str:
    """A digest of the sizes and times of change of all pictures that some records name; those may come and go."""
    digest = xxhash.xxh3_64()
    for name in dict.fromkeys(name for each in records if isinstance(each, Record) for name in each.images):
        try:
            status = os.stat(images / name)
            state = f"{status.st_size} {status.st_mtime_ns}"
        except (OSError, ValueError):
            state = "missing"
        digest.update(f"{name}\0{state}\0".encode())
    return digest.hexdigest()


def _conclude(
    folder: Path, facts: Mapping[str, Any], files: Sequence[_File], counts: Sequence[Counts]
) -> dict[str, Any]:
    """Put the counts of all files into one, and take the notes away. Raises InputRefused if no sample is left."""
    skipped: Counter[str] = Counter()
    named: dict[str, list[int]] = {}
    for each in counts:
        skipped.update(each.skipped)
        for reason, numbers in each.named.items():
            named[reason] = (named.get(reason, []) + numbers)[:NAMED]
    samples = sum(each.samples for each in counts)
    if not samples:
        raise InputRefused(f"{facts['annotations']['file']}: no record is left: {reasons(skipped)}")
    params = {
        **facts,
        "samples": samples,
        "tokens": sum(each.tokens for each in counts),
        "learned_tokens": sum(each.learned for each in counts),
        "truncated": sum(each.truncated for each in counts),
        "skipped": {reason: {"count": skipped[reason], "records": named[reason]} for reason in sorted(skipped)},
        "files": {file.name: each.samples for file, each in zip(files, counts, strict=True) if each.samples},
    }
    write_whole(folder / PARAMS, dump_json(params))
    for file in files:
        (folder / file.note).unlink()
    (folder / PLAN).unlink()
    return params


def reasons(skipped: Mapping[str, int]) -> str:
    """Why records were left out, the most frequent reason first."""
    ordered = sorted(skipped.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count:,} {reason}" for reason, count in ordered)


def _digest(paths: Iterable[Path]) -> str:
    """Of the names and contents of files, one after the other."""
    digest = xxhash.xxh3_64()
    for path in paths:
        digest.update(path.name.encode())
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
