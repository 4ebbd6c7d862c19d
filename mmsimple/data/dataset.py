"""Samples of training files, with their pictures as tensors."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain
from pathlib import Path
from typing import NamedTuple

from torch import Tensor
from torch.utils.data import Dataset

from mmconvert.errors import InputRefused
from mmsimple.data.h5 import NO_IMAGE, Files, Layout, Row, read_layout, read_names
from mmsimple.data.h5_guard import check_files
from mmsimple.data.images import BadImage, locate
from mmsimple.data.section import DataConfig, Source


@dataclass(frozen=True)
class BadSample:
    """Why a sample could not be had, in a few words that are counted and in one line that names file and sample."""

    reason: str
    message: str


class Loaded(NamedTuple):
    """A sample as it lies in its file, and its pictures by slot: empty slots have none.

    `bad` says what was wrong; such a sample has a blank picture where that is wanted, and otherwise no row.
    """

    row: Row | None
    pictures: dict[int, Tensor]
    bad: BadSample | None = None


class MultimodalDataset(Dataset[Loaded]):
    """All samples of all sources, in the order of their files' paths; `lengths` has the number of each source's.

    Raises InputRefused for folders without training files, and files that do not fit together or into the config.
    """

    def __init__(self, config: DataConfig) -> None:
        self.config = config
        self._pictures = config.pictures
        self._blank = config.pictures.blank() if config.on_bad_sample == "blank" else None
        self._files = Files()
        self._paths: list[Path] = []
        # For each sample that is in a range: the first index of each stretch of one file, and where it stands there.
        self._stretches: list[tuple[Path, range]] = []
        self.lengths: list[int] = []
        layouts: dict[Layout, Path] = {}
        found = [_paths(source) for source in config.sources]
        check_files(chain.from_iterable(found))
        for source, paths in zip(config.sources, found, strict=True):
            files = [(path, read_layout(path)) for path in paths]
            for path, (layout, _) in files:
                layouts.setdefault(layout, path)
            stretches = list(_stretches(source, [(path, length) for path, (_, length) in files]))
            self._stretches += stretches
            self.lengths.append(sum(len(each) for _, each in stretches))
            if not self.lengths[-1]:
                raise InputRefused(f"{', '.join(map(str, source.folders))}: there is no sample in the data_subset")
        self._ends = list(accumulate(len(each) for _, each in self._stretches))
        self.layout = _common_layout(layouts, config)

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> Loaded:
        """A sample. What is wrong with it is told in its `bad`, for an exception would reach us without its kind."""
        at = bisect_right(self._ends, index)
        path, numbers = self._stretches[at]
        number = numbers[index - self._ends[at]]
        try:
            row = self._files.read(path, number)
        except InputRefused as error:
            return Loaded(None, {}, BadSample("sample cannot be read", str(error)))
        pictures: dict[int, Tensor] = {}
        bad = None
        for slot, name in enumerate(row.paths):
            if name == NO_IMAGE:
                continue
            try:
                pictures[slot] = self._pictures.read(locate(self.config.image_folder, name))
            except BadImage as error:
                bad = BadSample(error.reason, f"{path}: sample {number}: {_spelled(name, error)}")
                if self._blank is None:
                    return Loaded(None, {}, bad)
                pictures[slot] = self._blank
        return Loaded(row, pictures, bad)

    def picture_names(self) -> Iterator[str]:
        """The names of all pictures of all samples. Raises InputRefused for a file that cannot be read."""
        for path, numbers in self._stretches:
            yield from read_names(path, numbers)


def _spelled(name: str, error: BadImage) -> str:
    """What is wrong with a picture, with its name, which what transforms raise does not have."""
    return str(error) if name in str(error) else f"{name!r:.200}: {error}"


def _paths(source: Source) -> list[Path]:
    """A source's files, sorted by path."""
    found: list[Path] = []
    for folder in source.folders:
        if not folder.is_dir():
            raise InputRefused(f"{folder}: data_dir is no folder; `mmsimple prepare` makes one of annotations")
        found += folder.glob("*.h5")
    if not found:
        raise InputRefused(f"{', '.join(map(str, source.folders))}: data_dir holds no *.h5 file")
    return sorted(found)


def _stretches(source: Source, files: Sequence[tuple[Path, int]]) -> Iterator[tuple[Path, range]]:
    """The samples of each file that are in a range of the source's, in order."""
    total = sum(length for _, length in files)
    for start, end in source.ranges:  # rounded down, as CS has it
        first, last = int(start * total), int(end * total)
        before = 0
        for path, length in files:
            numbers = range(max(0, first - before), min(length, last - before))
            if numbers:
                yield path, numbers
            before += length


def _common_layout(layouts: dict[Layout, Path], config: DataConfig) -> Layout:
    """The layout that all files have, if it is the one that the config asks for."""
    (layout, path), *others = layouts.items()
    for other, odd in others:
        raise InputRefused(f"{odd}: has {other}, but {path} has {layout}: files of one dataset are alike")
    for name, wanted, found in (
        ("max_num_img", config.max_num_img, layout.image_slots),
        ("num_patches", config.num_patches, layout.image_tokens),
    ):
        if wanted not in (None, found):
            raise InputRefused(f"{path}: has {layout}, but {name} is {wanted}")
    return layout
