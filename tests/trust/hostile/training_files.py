"""Training files, in HDF5, that lead elsewhere, burst when they are unpacked, or claim what they do not hold."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import h5py

from tests.mmsimple.data.test_h5_guard import PATCHES, REFUSED, ROWS
from tests.mmsimple.data.worked_example import file_of
from tests.mmsimple.train.runs import write_params
from tests.trust.hostile.case import Case, Cases, Place

WHAT = "training file"
TRAIN = "train {source}/run.yaml --model-dir {out} --max-steps 1"

Change = Callable[[Place, h5py.File], object]


def run(place: Place, change: Change, patch: Callable[[Path], object] = lambda path: None) -> None:
    """The params file of a run, beside a training file that was changed."""
    place.source.mkdir()
    write_params(place.source)
    path = min((place.source / "data").glob("*.h5"))
    path.write_bytes(file_of(ROWS))
    with h5py.File(path, "r+") as file:
        change(place, file)
    patch(path)


def external(place: Place, file: h5py.File) -> None:
    del file["img_data_loc"]
    file.create_dataset("img_data_loc", (3, 2, 4), "i4", external=[(str(place.foreign / "secret"), 0, 96)])


def virtual(place: Place, file: h5py.File) -> None:
    del file["data"]
    layout = h5py.VirtualLayout((3, 5, 16), "i4")
    layout[0, 0, :] = h5py.VirtualSource(str(place.foreign / "other.h5"), "w", (24,))[:16]
    file.create_virtual_dataset("data", layout)


def linked(place: Place, file: h5py.File) -> None:
    del file["data"]
    file["data"] = h5py.ExternalLink(str(place.foreign / "other.h5"), "w")


def refused(name: str) -> Case:
    """A case of the unit tests, met by the command."""
    change, _ = REFUSED[name]
    patch, dataset = PATCHES.get(name, (lambda path, name: None, ""))
    build = partial(run, change=lambda place, file: change(file), patch=lambda path: patch(path, dataset))
    return Case(build, [".h5: ", *WORDS[name]], TRAIN, program="mmsimple")


# What the message has to say.
WORDS = {
    "soft link": ["has no dataset data"],
    "a chunk over the end": ["data has a chunk that reaches over the end of the file"],
    "a name that is elsewhere": ["cannot be read as HDF5: "],
    "a huge sample in small chunks": ["data has 1.3 GB in one sample"],
    "names that burst": ["img_path has 400.0 MB in one chunk"],
    "more chunks than bytes": ["img_data_loc claims 100,000,000 chunks"],
    "more samples than bytes": ["claims 1,000,000 samples"],
}
ELSEWHERE: dict[str, tuple[Change, str]] = {
    "external storage": (external, "img_data_loc lies in other files"),
    "a virtual dataset": (virtual, "data lies in other files"),
    "an external link": (linked, "has no dataset data"),
}
CASES: Cases = {
    **{
        name: Case(partial(run, change=change), [".h5: ", said], TRAIN, program="mmsimple")
        for name, (change, said) in ELSEWHERE.items()
    },
    **{name: refused(name) for name in WORDS},
}

# The cases of every run of the tests; the others are for `make trust`.
USUAL = ("names that burst",)
