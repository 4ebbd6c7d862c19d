"""`.mdl` files: HDF5 that leads elsewhere, claims more than there is, or names code."""

from __future__ import annotations

import json
import os
import pickle
import struct
import zlib
from collections.abc import Callable
from typing import Any

import h5py
import numpy as np

from tests.trust.hostile.case import CONVERT_CS, Case, Cases, Place

WHAT = ".mdl"
FILE = "model.mdl"
KEY = "model.ln_f.weight"
NAMED = "ln_f.weight"
LEAF: dict[str, Any] = {"type": None, "context": None, "children_spec": []}

Edit = Callable[[h5py.File, Place], object]


def edited(change: Edit) -> Callable[[Place], None]:
    """A sound checkpoint, changed with h5py."""

    def build(place: Place) -> None:
        with h5py.File(place.copy("mdl") / FILE, "r+") as file:
            change(file, place)

    return build


def described(**description: Any) -> Edit:
    """The final norm's description is another one."""

    def change(file: h5py.File, place: Place) -> None:
        file.attrs[f"{KEY}.__metadata__"] = json.dumps({f"{KEY}.__metadata__": description})

    return change


def nested(root: Any) -> Edit:
    """The nesting is another one."""

    def change(file: h5py.File, place: Place) -> None:
        file.attrs["__spec__"] = json.dumps([None, json.dumps([1, root])])

    return change


def node(kind: str | None, context: str | None, *children: Any) -> dict[str, Any]:
    return {"type": kind, "context": context, "children_spec": list(children)}


def stored(**how: Any) -> Edit:
    """The final norm's dataset, of 48 numbers in bfloat16, is made anew."""

    def change(file: h5py.File, place: Place) -> None:
        del file[KEY]
        file.create_dataset(KEY, **{"shape": (48,), "dtype": "<i2", **how})

    return change


def external(file: h5py.File, place: Place) -> None:
    stored(external=[(str(place.foreign / "secret"), 0, 96)])(file, place)


def external_device(file: h5py.File, place: Place) -> None:
    stored(external=[("/dev/zero", 0, 96)])(file, place)


def external_link(file: h5py.File, place: Place) -> None:
    del file[KEY]
    file[KEY] = h5py.ExternalLink(str(place.foreign / "other.h5"), "w")


def soft_link(file: h5py.File, place: Place) -> None:
    del file[KEY]
    file[KEY] = h5py.SoftLink("/model.lm_head.weight")


def soft_link_through_another(file: h5py.File, place: Place) -> None:
    """A soft link whose path leads through an external one."""
    external_link(file, place)
    file.move(KEY, "other")
    file[KEY] = h5py.SoftLink("/other")


def virtual(file: h5py.File, place: Place) -> None:
    del file[KEY]
    layout = h5py.VirtualLayout((24,), "<i8")
    layout[:] = h5py.VirtualSource(str(place.foreign / "other.h5"), "w", (24,))
    file.create_virtual_dataset(KEY, layout)


def shape_bomb(file: h5py.File, place: Place) -> None:
    """A tensor of an exabyte, of which nothing was ever written."""
    described(__TYPE__="TorchTensorSerializer", shapes=[[1 << 59]], dtypes=["torch.bfloat16"])(file, place)
    stored(shape=(1 << 59,), chunks=(1 << 20,))(file, place)


def chunk_bomb(file: h5py.File, place: Place) -> None:
    """Half a gigabyte of zeros in one chunk of half a megabyte."""
    described(__TYPE__="TorchTensorSerializer", shapes=[[1 << 28]], dtypes=["torch.bfloat16"])(file, place)
    stored(shape=(1 << 28,), chunks=(1 << 28,), compression="gzip")(file, place)
    file[KEY].id.write_direct_chunk((0,), zlib.compress(bytes(1 << 29)))


def one_value(size: int, **more: Any) -> Edit:
    """A tensor that is a shape and a value alone."""
    return described(__TYPE__="DeferredFullTensor", shape=[size], dtype="torch.bfloat16", fill_value=1.0, **more)


def deferred(kind: str) -> Edit:
    return described(__TYPE__=kind, filepath="/etc/passwd", key="secret", graph="payload.run")


def object_leaf(file: h5py.File, place: Place) -> None:
    described(__TYPE__="ObjectSerializer")(file, place)
    file[KEY].attrs["object"] = np.void(pickle.dumps(os.system))


def legacy_spec(file: h5py.File, place: Place) -> None:
    """A file of an older format, whose nesting is a pickle."""
    payload = b"cposix\nsystem\n(X" + struct.pack("<I", 5) + b"touch" + b"tR."
    del file.attrs["__SUCCESS__"], file.attrs["__cstorch_version__"]
    file.attrs["__version__"] = 0.4
    file.attrs["__spec__"] = np.void(payload)
    for name in [name for name in file.attrs if name.endswith(".__metadata__")]:
        del file.attrs[name]
    file[KEY].attrs["__H5_TYPE__"] = "ObjectH5Type"


def attributes(count: int) -> Edit:
    def change(file: h5py.File, place: Place) -> None:
        for at in range(count):
            file.attrs[f"a{at}"] = at

    return change


def entries(count: int) -> Edit:
    """A nesting of more leaves than are there."""
    return nested(node("builtins.dict", json.dumps([f"k{at}" for at in range(count)]), *[LEAF] * count))


def deep(levels: int) -> Edit:
    def change(file: h5py.File, place: Place) -> None:
        root = LEAF
        for _ in range(levels):
            root = node("builtins.dict", '["a"]', root)
        nested(root)(file, place)

    return change


def spec_of(text: str | Callable[[], str]) -> Edit:
    def change(file: h5py.File, place: Place) -> None:
        file.attrs["__spec__"] = text() if callable(text) else text

    return change


def spec_of_brackets(file: h5py.File, place: Place) -> None:
    spec_of(lambda: json.dumps([None, "[1,[" + "[]," * 4_000_000 + "[]]]"]))(file, place)


def linked_in_a_circle(file: h5py.File, place: Place) -> None:
    described(__TYPE__="LinkedObject", key=KEY)(file, place)


NOT_READ = "which is not read: it may name code or other files"

CASES: Cases = {
    name: Case(build, words, CONVERT_CS)
    for name, (build, words) in {
        "a pickled object": (edited(object_leaf), [FILE, NAMED, "ObjectSerializer", NOT_READ]),
        "a nesting that is a pickle": (edited(legacy_spec), [FILE, NAMED, "ObjectH5Type", NOT_READ]),
        "a nesting with a defaultdict": (
            edited(nested(node("collections.defaultdict", '["payload.run", ["a"]]', LEAF))),
            [FILE, "'collections.defaultdict'", "only dictionaries"],
        ),
        "a nesting with an enum": (
            edited(nested(node("builtins.dict", '[{"__enum__": true, "fqn": "payload.run", "name": "A"}]', LEAF))),
            [FILE, "payload.run", "does not have it"],
        ),
        "a nesting of a class": (edited(nested(node("payload.run", "null", LEAF))), [FILE, "'payload.run'"]),
        "a nesting that is deep": (edited(deep(70)), [FILE, "levels deep"]),
        "a nesting of brackets": (edited(spec_of_brackets), [FILE, "more memory", "is it damaged?"]),
        "a nesting that nests without end": (edited(spec_of(lambda: "[" * 1_000_000)), [FILE, "__spec__"]),
        "a nesting that is no JSON": (edited(spec_of("{")), [FILE, "__spec__"]),
        "a nesting of leaves that are not there": (edited(entries(100_000)), [FILE, "k0"]),
        "two entries of one name": (
            edited(nested(node("builtins.dict", '["a.b", "a"]', LEAF, node("builtins.dict", '["b"]', LEAF)))),
            [FILE, "same flattened key"],
        ),
        "external storage": (edited(external), [FILE, NAMED, "lies in another file"]),
        "external storage on a device": (edited(external_device), [FILE, NAMED, "lies in another file"]),
        "an external link": (edited(external_link), [FILE, NAMED, "a soft or external link"]),
        "a soft link": (edited(soft_link), [FILE, NAMED, "a soft or external link"]),
        "a soft link to an external one": (edited(soft_link_through_another), [FILE, NAMED, "a soft or external link"]),
        "a virtual dataset": (edited(virtual), [FILE, NAMED, "lies in another file"]),
        "a shape of an exabyte": (edited(shape_bomb), [FILE, NAMED, "only 0 of its"]),
        "a chunk of half a gigabyte": (edited(chunk_bomb), [FILE, NAMED, "more than 64 MiB to decode"]),
        "a value repeated an exabyte": (edited(one_value(1 << 59)), [FILE, NAMED, "more than 64 GiB"]),
        "a value repeated a gigabyte": (edited(one_value(1 << 29)), [NAMED, "differs in shape"]),
        "a deferred file": (edited(deferred("DeferredFileTensor")), [FILE, NAMED, "DeferredFileTensor", NOT_READ]),
        "a deferred graph": (edited(deferred("DeferredGraphTensor")), [FILE, NAMED, "DeferredGraphTensor", NOT_READ]),
        "a deferred object": (edited(deferred("DeferredObject")), [FILE, NAMED, "DeferredObject", NOT_READ]),
        "a leaf linked to itself": (edited(linked_in_a_circle), [FILE, NAMED, "a link itself"]),
        "a leaf of another shape": (edited(stored(shape=(47,))), [FILE, NAMED, "described as [48]"]),
        "a leaf of another type": (
            edited(stored(dtype=h5py.string_dtype())),
            [FILE, NAMED, "described as torch.bfloat16"],
        ),
        "a leaf whose description is damaged": (edited(described()), [FILE, NAMED, "description is damaged"]),
        "a leaf that is a folder": (
            edited(lambda file, place: (file.__delitem__(KEY), file.create_group(KEY))),
            [FILE, NAMED, "dataset"],
        ),
        "no __SUCCESS__": (
            edited(lambda file, place: file.attrs.__delitem__("__SUCCESS__")),
            [FILE, "__SUCCESS__", "partially written"],
        ),
        "__SUCCESS__ that is false": (
            edited(lambda file, place: file.attrs.modify("__SUCCESS__", False)),
            [FILE, "__SUCCESS__", "partially written"],
        ),
        "a format that nobody knows": (
            edited(lambda file, place: file.attrs.modify("__version__", 0.45)),
            [FILE, "format 0.45"],
        ),
    }.items()
} | {"20,000 attributes that nobody asks for": Case(edited(attributes(20_000)), ["tensors"], CONVERT_CS, code=0)}

# The cases of every run of the tests; the others are for `make trust`.
USUAL = (
    "a pickled object",
    "a nesting that is a pickle",
    "a nesting with a defaultdict",
    "a nesting with an enum",
    "a nesting of brackets",
    "external storage",
    "an external link",
    "a soft link",
    "a virtual dataset",
    "a shape of an exabyte",
    "a value repeated an exabyte",
    "a deferred file",
    "no __SUCCESS__",
)
