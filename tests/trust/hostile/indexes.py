"""Indexes of shards that lead elsewhere, or do not agree with their shards; and folders that link out of themselves."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from typing import Any

from tests.trust.hostile.case import CONVERT, CONVERT_CS, Case, Cases, Place

WHAT = "shards"
INDEX = "model.safetensors.index.json"
FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
SINGLE = "model.safetensors"
NORM = "model.norm.weight"


def indexed(change: Callable[[dict[str, Any]], object]) -> Callable[[Place], None]:
    """A sound checkpoint of two shards whose index is changed."""

    def build(place: Place) -> None:
        file = place.copy("shards") / INDEX
        index = json.loads(file.read_text())
        change(index)
        file.write_text(json.dumps(index))

    return build


def said_to_be_in(file: str) -> Callable[[Place], None]:
    """All that the first shard holds is said to lie in `file`."""

    def change(index: dict[str, Any]) -> None:
        names = index["weight_map"]
        names.update({key: file for key, name in names.items() if name == FIRST})

    return indexed(change)


def absolute(place: Place) -> None:
    said_to_be_in(str(place.foreign / "secret"))(place)


def linked(name: str) -> Callable[[Place], None]:
    """A file of the folder is a link to one outside it."""

    def build(place: Place) -> None:
        place.copy("shards")
        (place.source / name).rename(place.foreign / "secret")
        (place.source / name).symlink_to("../foreign/secret")

    return build


def linked_twice(place: Place) -> None:
    """A link to a link in the same folder, which leads out of it."""
    linked(FIRST)(place)
    (place.source / FIRST).rename(place.source / "inner")
    (place.source / FIRST).symlink_to("inner")


def linked_to_itself(place: Place) -> None:
    place.copy("shards")
    (place.source / FIRST).unlink()
    (place.source / FIRST).symlink_to(FIRST)


def snapshot(place: Place) -> None:
    """A hub's cache, whose snapshot is links into the `blobs` beside it."""
    blobs, revision = place.source / "blobs", place.source / "snapshots" / "0123abc"
    blobs.mkdir(parents=True)
    revision.mkdir(parents=True)
    for file in place.bases["shards"].iterdir():
        shutil.copy(file, blobs / f"blob-{file.name}")
        (revision / file.name).symlink_to(f"../../blobs/blob-{file.name}")


def snapshot_that_leads_out(place: Place) -> None:
    """As `snapshot`, but one link leads to the blobs of another model."""
    snapshot(place)
    (place.source / "snapshots" / "0123abc" / FIRST).unlink()
    (place.source / "blobs" / f"blob-{FIRST}").rename(place.foreign / "secret")
    (place.source / "snapshots" / "0123abc" / FIRST).symlink_to("../../../foreign/secret")


def foreign_folder(place: Place) -> None:
    """What nobody may open, under the names that files of checkpoints have."""
    for name in ("LICENSE", "id_rsa", "config.json", "config.yaml"):
        (place.foreign / name).write_bytes(b"secret")


def blobs_elsewhere(place: Place) -> None:
    """As `snapshot`, but its `blobs` is a link to a folder whose files are then asked for."""
    snapshot(place)
    foreign_folder(place)
    revision = place.source / "snapshots" / "0123abc"
    for file in list(revision.iterdir()):
        data = file.read_bytes()
        file.unlink()
        file.write_bytes(data)
    shutil.rmtree(place.source / "blobs")
    (place.source / "blobs").symlink_to("../foreign")
    (revision / "LICENSE").symlink_to("../../blobs/id_rsa")


def blob_that_leads_on(place: Place) -> None:
    snapshot(place)
    foreign_folder(place)
    (place.source / "blobs" / "f00").symlink_to("../../foreign/id_rsa")
    (place.source / "snapshots" / "0123abc" / "LICENSE").symlink_to("../../blobs/f00")


def moved_out(name: str, base: str = "") -> Callable[[Place], None]:
    """A file or folder of a checkpoint is a link to where it was moved to, outside; without base, of a hub's cache."""

    def build(place: Place) -> None:
        if base:
            place.copy(base)
        else:
            snapshot(place)
        (place.source / name).rename(place.foreign / "moved")
        (place.source / name).symlink_to(place.foreign / "moved")

    return build


def overlong(name: str) -> Callable[[Place], None]:
    """A file is a link to a name that no file can have: to look at it is an error."""

    def build(place: Place) -> None:
        (place.copy("llama") / name).unlink()
        (place.source / name).symlink_to("x" * 300)

    return build


def other_key(place: Place) -> None:
    indexed(lambda index: index["weight_map"].pop(NORM))(place)


def in_both(place: Place) -> None:
    place.copy("shards")
    shutil.copy(place.source / FIRST, place.source / SECOND)


def without_shard(place: Place) -> None:
    (place.copy("shards") / SECOND).unlink()


def stale(place: Place) -> None:
    shutil.copy(place.bases["llama"] / "model.safetensors", place.copy("shards"))


def text(data: Callable[[], bytes]) -> Callable[[Place], None]:
    def build(place: Place) -> None:
        (place.copy("shards") / INDEX).write_bytes(data())

    return build


def listed_twice() -> bytes:
    return b'{"weight_map": {"%s": "%s", "%s": "%s"}}' % (NORM.encode(), FIRST.encode(), NORM.encode(), SECOND.encode())


CASES: Cases = {
    "a name that leads up": Case(
        said_to_be_in("../foreign/secret"), ["index.json: 'model.", "'../foreign/secret' is not a plain file name"]
    ),
    # Of a long path the end is not shown.
    "an absolute name": Case(absolute, [INDEX, "is not a plain file name"]),
    "a name for Windows": Case(said_to_be_in("C:\\secret"), [INDEX, "is not a plain file name"]),
    "a name with a NUL": Case(said_to_be_in("a\0b"), ["\\x00", "is not a plain file name"]),
    "a name that is a device": Case(said_to_be_in("/dev/zero"), [INDEX, "is not a plain file name"]),
    "the folder itself": Case(said_to_be_in("."), [INDEX, "is not a plain file name"]),
    "a file of another kind": Case(said_to_be_in("config.json"), ["config.json"]),
    "the index itself": Case(said_to_be_in(INDEX), [INDEX]),
    "a shard that links out": Case(linked(FIRST), [FIRST, "links out of its folder"]),
    "a shard that links out in two steps": Case(linked_twice, [FIRST, "links out of its folder"]),
    "a shard that links to itself": Case(linked_to_itself, [FIRST, "is missing or cannot be read"]),
    "an index that links out": Case(linked(INDEX), [INDEX, "links out of its folder"]),
    "a config that links out": Case(linked("config.json"), ["config.json", "links out of its folder"]),
    "a tokenizer that links out": Case(linked("tokenizer.model"), ["tokenizer.model", "links out of its folder"]),
    "a hub's snapshot": Case(snapshot, ["22 tensors"], code=0),
    "a hub's snapshot that leads out": Case(snapshot_that_leads_out, [FIRST, "links out of its folder"]),
    "a hub's blobs that are a link": Case(blobs_elsewhere, ["LICENSE", "links out of its folder"]),
    "a hub's blob that leads on": Case(blob_that_leads_on, ["LICENSE", "links out of its folder"]),
    "a hub's snapshots that are a link": Case(moved_out("snapshots"), ["snapshots", "links out of its folder"]),
    "a hub's snapshot that is a link": Case(moved_out("snapshots/0123abc"), ["0123abc", "links out of its folder"]),
    **{
        f"CS, {name} that links out": Case(moved_out(name, base), [name, "links out of its folder"], CONVERT_CS)
        for name, base in (
            ("assets", "cs"),
            ("assets/text_model", "cs llava"),
            ("config.yaml", "cs"),
            ("mmconvert.json", "cs"),
            ("model.mdl", "mdl"),
        )
    },
    **{f"{name} that links to a name too long": Case(overlong(name), [name]) for name in ("config.json", SINGLE)},
    "a key that is not in its shard": Case(
        indexed(
            lambda index: index["weight_map"].update({NORM: FIRST if index["weight_map"][NORM] == SECOND else SECOND})
        ),
        [INDEX, NORM, "should be in"],
    ),
    "a key that no shard has": Case(
        indexed(lambda index: index["weight_map"].update(stray=FIRST)), [INDEX, "'stray'", "not there"]
    ),
    "a key that the index does not list": Case(other_key, [INDEX, NORM, "does not list"]),
    "a shard that is missing": Case(without_shard, [SECOND, "missing"]),
    "a tensor in two shards": Case(in_both, [INDEX, FIRST, SECOND, "lies in"]),
    "no weight_map": Case(indexed(lambda index: index.pop("weight_map")), [INDEX, "no weight_map"]),
    "an empty weight_map": Case(indexed(lambda index: index.update(weight_map={})), [INDEX, "no weight_map"]),
    "a weight_map that is a list": Case(indexed(lambda index: index.update(weight_map=[1])), [INDEX, "no weight_map"]),
    "a file name that is a number": Case(
        indexed(lambda index: index["weight_map"].update({NORM: 1})), [INDEX, NORM, "not a name"]
    ),
    "a key given twice": Case(text(listed_twice), [INDEX, NORM, "is given twice"]),
    "a single file beside it": Case(stale, [INDEX, "stale: remove it"]),
    "60 MB of names": Case(
        text(lambda: b'{"weight_map":{' + b",".join(b'"%d":"f"' % at for at in range(4_000_000)) + b"}}"),
        [INDEX, "at most"],
    ),
    "60 MB of brackets": Case(text(lambda: b'{"weight_map":[' + b"[]," * 20_000_000 + b"[]]}"), [INDEX, "at most"]),
    "as many names as are read": Case(
        text(lambda: b'{"weight_map":{' + b",".join(b'"%d":"f"' % at for at in range(199_000)) + b"}}"),
        [INDEX, "at most 100,000"],
    ),
    "shards without number": Case(
        indexed(lambda index: index.update(weight_map={f"t{at}": f"f{at}" for at in range(100_000)})), ["f0", "missing"]
    ),
    "an index of .bin that leads up": Case(
        lambda place: bin_index(place, "../foreign/secret"),
        ["index.json: 'model.", "'../foreign/secret' is not a plain file name"],
    ),
    "a folder of folders that link out": Case(
        lambda place: folder_of_links(place), ["tensors"], command=CONVERT + " --init projector=uniform:1", code=0
    ),
}


def bin_index(place: Place, name: str) -> None:
    file = place.copy("bin shards") / "pytorch_model.bin.index.json"
    index = json.loads(file.read_text())
    index["weight_map"] = dict.fromkeys(index["weight_map"], name)
    file.write_text(json.dumps(index))


def folder_of_links(place: Place) -> None:
    """What users make to name two folders at once: they lead where the user says."""
    place.source.mkdir()
    for name, target in (("image_model", place.bases["llava"] / "image_model"), ("text_model", place.bases["llama"])):
        (place.source / name).symlink_to(target)


# The cases of every run of the tests; the others are for `make trust`.
USUAL = (
    "a name that leads up",
    "an absolute name",
    "a shard that links out",
    "a hub's snapshot",
    "a hub's snapshot that leads out",
    "a hub's blobs that are a link",
    "a hub's snapshot that is a link",
    "CS, assets that links out",
    "CS, config.yaml that links out",
    "a key that is not in its shard",
    "a key that the index does not list",
    "a shard that is missing",
    "a tensor in two shards",
    "no weight_map",
    "a single file beside it",
)
