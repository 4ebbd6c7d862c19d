"""Reading a `.mdl` checkpoint of a format before 0.5, as cerebras_pytorch saved them up to release 2.0 and some later.

The nesting of such a file is a pickle in `__spec__`, which is never read: the scopes of a key, joined with dots, are
its name in the root, percent-encoded, and say enough. Leaves are datasets whose attributes tell what they are.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote

from mmconvert.containers.mdl_dataset import (
    NONE,
    NOT_MODEL,
    OTHER,
    PICKLED,
    PLAIN_VALUE,
    location,
    open_dataset,
    scalar,
    stored_type,
    unread,
)
from mmconvert.containers.mdl_write import FORMAT_VERSION, RTFX_CODES
from mmconvert.errors import InputRefused

# The formats, and the release that each came with. Releases after 2.0 wrote 0.4 too, with `__cstorch_version__`.
FORMATS = {0.1: "1.7", 0.2: "1.8", 0.3: "1.9", 0.4: "2.0"}
# What a file without `__version__` is.
OLDEST = 0.1

# The `__H5_TYPE__` of leaves. Formats up to 0.3 may call tensors arrays, and 1.9 had other names for its classes.
TENSORS = ("TorchTensorH5Type", "NumpyArrayH5Type", "StoredTensorH5Type")
FULL = ("DeferredFullTensor", "FullTensorH5Type")
PLAIN = ("ScalarH5Type", "StringH5Type")
PICKLES = ("ObjectH5Type", "ApplianceInfoH5Type")
LINK = "DeferredH5Tensor"
# Before 1.9 leaves had no `__H5_TYPE__` but one of these attributes, looked for in this order, or none if a tensor.
MARKS = {
    "filepath": "DeferredFileTensor",
    "is_constructible": "DeferredFullTensor",
    "is_none": "NoneH5Type",
    "is_string": "StringH5Type",
    "is_scalar": "ScalarH5Type",
}

# Scopes that no model has at its top, for files that hold a model without a scope of its own.
TRAINING = ("optimizer", "lr_scheduler", "grad_scaler", "grad_scalar", "dataloader")
# What is said directly in an entry of the user's metadata, such as its `version`.
ENTRY = re.compile(r"__metadata__\.(\d{1,4})\.(\w+)")
CONFIG = "a config whose nesting only a pickle tells, which is never loaded"
# More dimensions than HDF5 lets a dataset have.
MAX_RANK = 32


class LegacyCheckpoint:
    """An open checkpoint file, whose leaves are the datasets of its root: `<percent-encoded key>`."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._names: dict[str, str] = {}
        self._tensors: list[dict[str, Any]] = []
        self._set_aside: dict[str, str] = {}

    def document(self) -> dict[str, Any]:
        """What `mdl_read` asks for, as of the newer format; the tensors are in the file's order, which is by name."""
        self._read_names()
        version = self._version()
        release = scalar(self._file.id, "__cstorch_version__", "__cstorch_version__")
        named = re.match(r"[1-9]\.\d{1,3}", str(release))
        scoped = [key for key in self._names if key.startswith("model.")]
        model = dict.fromkeys(scoped or filter(self._is_weight, self._names))
        entries: dict[int, dict[str, str]] = {}
        for key in self._names:
            entry = ENTRY.fullmatch(key)
            if key in model:
                self._take(key, key.removeprefix("model."))
            elif entry and (text := self._text(key)) is not None:
                entries.setdefault(int(entry[1]), {})[entry[2]] = text
            else:
                self._set_aside[key] = self._why_outside(key)
        return {
            "format": version,
            "release": release or FORMATS[version],
            "saved_by": named[0] if named else FORMATS[version],
            "tensors": self._tensors,
            "metadata": [entries[at] for at in sorted(entries)],
            "set_aside": self._set_aside,
        }

    def _read_names(self) -> None:
        for name in self._file:
            key = unquote(name)
            if key in self._names:
                raise InputRefused(f"{key}: two of its entries have this key")
            self._names[key] = name

    def _version(self) -> float:
        """The format. Raises `InputRefused` for one that is not known, and for what is no such file."""
        from h5py import h5a

        version: Any = scalar(self._file.id, "__version__", "__version__")
        if version is not None and version not in FORMATS:
            raise InputRefused(f"checkpoint format {version!r} is not known")
        if h5a.exists(self._file.id, b"__SUCCESS__"):
            said = "no __version__" if version is None else f"checkpoint format {version}"
            raise InputRefused(f"is damaged: it has {said}, but __SUCCESS__, which came with {FORMAT_VERSION}")
        if version is None and not h5a.exists(self._file.id, b"__spec__") and not any(map(self._is_told, self._names)):
            raise InputRefused("is no checkpoint: it has no __version__, no __spec__ and no dataset of one")
        return OLDEST if version is None else float(version)

    def _is_told(self, key: str) -> bool:
        """Whether the dataset says by an attribute that it is a leaf of a checkpoint."""
        try:
            return _told(open_dataset(self._file, self._names[key], key), key) is not None
        except InputRefused:
            return False

    def _is_weight(self, key: str) -> bool:
        """Whether the leaf is the model's in a file where the model has no scope of its own."""
        if key.startswith("__") or key.partition(".")[0] in TRAINING:
            return False
        kind, _ = self._leaf(self._names[key], key)
        return kind not in PLAIN + PICKLES

    def _leaf(self, name: str, called: str) -> tuple[str, Any]:
        """What a leaf is, and its dataset; one that says nothing is a tensor of the oldest releases."""
        dataset = open_dataset(self._file, name, called)
        return _told(dataset, called) or TENSORS[0], dataset

    def _take(self, key: str, name: str) -> None:
        """Take the leaf `key` for the model's tensor `name`."""
        called = key
        kind, dataset = self._leaf(self._names[key], key)
        if kind == LINK and scalar(dataset, "link_to_self", f"{key}: link_to_self"):
            holder = str(scalar(dataset, "key", f"{key}: key"))
            called = f"{key}, linked to {holder}"
            kind, dataset = self._leaf(holder, called)
            if kind == LINK:
                raise InputRefused(f"{key}: linked to {holder}, which is a link itself")
        if kind in TENSORS:
            self._tensors.append({"key": name, **_stored(dataset, called)})
        elif kind in FULL:
            self._tensors.append({"key": name, **_full(dataset, called)})
        elif kind == "NoneH5Type":
            self._set_aside[key] = NONE
        elif kind in PLAIN:
            self._set_aside[key] = PLAIN_VALUE
        else:
            raise unread(called, kind)

    def _text(self, key: str) -> str | None:
        """The string that a leaf outside the model is; None for any other leaf."""
        try:
            kind, dataset = self._leaf(self._names[key], key)
        except InputRefused:
            return None
        if kind != "StringH5Type":
            return None
        value = scalar(dataset, "string_value", f"{key}: string_value")
        return value if isinstance(value, str) else None

    def _why_outside(self, key: str) -> str:
        """Why a leaf outside the model is set aside. What it is matters little, so even a damaged one is no refusal."""
        scope = key.partition(".")[0]
        try:
            kind, _ = self._leaf(self._names[key], key)
        except InputRefused:
            kind = ""
        if kind in PICKLES:
            return PICKLED
        return CONFIG if scope == "__metadata__" else NOT_MODEL.get(scope, OTHER)


def _told(dataset: Any, called: str) -> str | None:
    """What a dataset says that it is, if it does."""
    kind = scalar(dataset, "__H5_TYPE__", f"{called}: __H5_TYPE__")
    if kind is not None:
        return str(kind)
    return next((kind for mark, kind in MARKS.items() if scalar(dataset, mark, f"{called}: {mark}")), None)


def _stored(dataset: Any, called: str) -> dict[str, Any]:
    """A tensor whose elements are those of the dataset."""
    if dataset.shape is None:
        raise InputRefused(f"{called}: is called a tensor but has no shape")
    return {"dtype": _dtype(dataset, called), "shape": list(dataset.shape), **location(dataset, called)}


def _full(dataset: Any, called: str) -> dict[str, Any]:
    """A tensor that is one value throughout; the dataset tells its element type and holds nothing."""
    fill = scalar(dataset, "fill_value", f"{called}: fill_value")
    if fill is None:
        raise InputRefused(f"{called}: is one value throughout, but has no fill_value")
    return {"dtype": _dtype(dataset, called), "shape": _shape(dataset, called), "fill": fill}


def _dtype(dataset: Any, called: str) -> str:
    """The element type by its torch name; bfloat16 is kept in 16-bit integers, of either kind, that are marked."""
    held = dataset.get_type()
    stored = next((name for name in RTFX_CODES if name != "bfloat16" and held == stored_type(name)), None)
    if scalar(dataset, "is_bfloat16", f"{called}: is_bfloat16"):
        if stored not in ("int16", "uint16"):
            raise InputRefused(f"{called}: described as bfloat16 but stored as {dataset.dtype}")
        return "bfloat16"
    if stored is None:
        raise InputRefused(f"{called}: stored as {dataset.dtype}, which is not an element type of this format")
    return stored


def _shape(dataset: Any, called: str) -> list[int]:
    """The list of sizes in the attribute `shape`."""
    import numpy
    from h5py import h5a, h5t

    if not h5a.exists(dataset, b"shape"):
        raise InputRefused(f"{called}: has no shape")
    attribute = h5a.open(dataset, b"shape")
    # An empty list has no element type of its own: h5py makes it one of floats.
    if attribute.shape == (0,):
        return []
    known = attribute.get_type().get_class() == h5t.INTEGER
    if not known or len(attribute.shape or ()) != 1 or attribute.shape[0] > MAX_RANK:
        raise InputRefused(f"{called}: shape: not a list of sizes")
    sizes = numpy.empty(attribute.shape, attribute.dtype)
    attribute.read(sizes)
    return [int(size) for size in sizes]
