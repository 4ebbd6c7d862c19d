"""Torch's files: pickles that are programs, and zip files that are not what they say."""

from __future__ import annotations

import io
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable, Mapping

import torch

from tests.trust.hostile.case import Case, Cases, Place

WHAT = ".bin"
FILE = "pytorch_model.bin"
NOTHING: Mapping[str, bytes] = {}


def called(name: str, *arguments: bytes) -> bytes:
    """A call as opcodes."""
    return b"c" + name.replace(" ", "\n").encode() + b"\n(" + b"".join(arguments) + b"tR"


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def integer(value: int) -> bytes:
    return pickle.dumps(value, 2)[2:-1]


def integers(values: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(map(integer, values)) + b"t"


def storage(length: int) -> bytes:
    return b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + integer(length) + b"tQ"


def tensor(length: int, shape: tuple[int, ...], strides: tuple[int, ...], offset: int = 0) -> bytes:
    flags = b"\x89" + called("collections OrderedDict")
    arguments = (storage(length), integer(offset), integers(shape), integers(strides), flags)
    return called("torch._utils _rebuild_tensor_v2", *arguments)


def state(*values: bytes) -> bytes:
    """A state dict, its tensors called t0, t1 and so on."""
    items = b"".join(text(f"t{at}") + value for at, value in enumerate(values))
    return b"\x80\x02}(" + items + b"u."


def zipped(pickled: bytes, compression: int = zipfile.ZIP_STORED, more: Mapping[str, bytes] = NOTHING) -> bytes:
    """torch's zip file with this pickle, and one storage of four numbers."""
    file = io.BytesIO()
    entries = {"data.pkl": pickled, "byteorder": b"little", "data/0": bytes(16), "version": b"3\n", **more}
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, data in entries.items():
            archive.writestr(f"archive/{name}", data)
    return file.getvalue()


def shared(place: Place) -> None:
    """A megabyte that would become a gigabyte."""
    whole = tensor(1 << 18, (1 << 18,), (1,))
    data = zipped(state(*[whole] * 1000), more={"data/0": bytes(1 << 20)})
    (place.copy("bin") / FILE).write_bytes(data)


def raw(make: Callable[[], bytes]) -> Callable[[Place], None]:
    def build(place: Place) -> None:
        (place.copy("bin") / FILE).write_bytes(make())

    return build


def pickled(data: bytes | Callable[[], bytes]) -> Callable[[Place], None]:
    return raw(lambda: zipped(data() if callable(data) else data))


def payload(name: str, *arguments: str) -> Callable[[Place], None]:
    return pickled(state(called(name, *map(text, arguments))))


def with_marker(name: str, pattern: str) -> Callable[[Place], None]:
    """As `payload`, with an argument that has the place of a marker, which the target's folder is not to have."""

    def build(place: Place) -> None:
        payload(name, pattern.format(place.out.parent / "marker"))(place)

    return build


def compressed() -> bytes:
    return zipped(state(tensor(4, (4,), (1,))), zipfile.ZIP_DEFLATED)


def bomb() -> bytes:
    """A pickle of 128 MB in 128 kB."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("archive/data.pkl", "w") as entry:
        for _ in range(128):
            entry.write(bytes(1 << 20))
    return file.getvalue()


def overlapping() -> bytes:
    """Two entries of the directory that have the same bytes: the storage lies in the pickle."""
    data = bytearray(zipped(state(tensor(4, (4,), (1,)))))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        pickle_at = archive.getinfo("archive/data.pkl").header_offset
        storage_at = archive.getinfo("archive/data/0").header_offset
    place = data.index(struct.pack("<I", storage_at) + b"archive/data/0")
    data[place : place + 4] = struct.pack("<I", pickle_at)
    return bytes(data)


def directory(entries: int) -> bytes:
    """A zip file of entries without number, all of them empty."""
    one = struct.pack("<4s6H3I5H2I", b"PK\1\2", 20, 20, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0)
    listed = (one + b"a") * entries
    count = min(entries, 0xFFFF)
    local = struct.pack("<4s5H3I2H", b"PK\3\4", 20, 0, 0, 0, 0, 0, 0, 0, 1, 0) + b"a"
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, count, count, len(listed), len(local), 0)
    return local + listed + end


def huge_directory() -> bytes:
    """A directory said to be of four gigabytes."""
    return b"PK\3\4" + bytes(60) + struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 1, 1, 0xFFFFFFF0, 4, 0)


def legacy(kind: str) -> Callable[[], bytes]:
    def make() -> bytes:
        file = io.BytesIO()
        if kind == "tar":
            with tarfile.open(fileobj=file, mode="w") as archive:
                archive.addfile(tarfile.TarInfo("pickle"))
        else:
            torch.save({"w": torch.zeros(4)}, file, _use_new_zipfile_serialization=False)
        return file.getvalue()

    return make


NO_NAME = "which is not among the names of plain tensors"

CASES: Cases = {
    "a pickle that calls os.system": Case(with_marker("posix system", "touch {}"), [FILE, "'posix.system'", NO_NAME]),
    "a pickle that calls os.system by its other name": Case(
        with_marker("os system", "touch {}"), [FILE, "'os.system'", NO_NAME]
    ),
    "a pickle that calls eval": Case(
        with_marker("builtins eval", "open({!r}, 'w')"), [FILE, "'builtins.eval'", NO_NAME]
    ),
    "a pickle that calls a loader of torch": Case(
        payload("torch.serialization load", "secret"), [FILE, "'torch.serialization.load'", NO_NAME]
    ),
    "a pickle that calls torch's compiler": Case(
        payload("torch._inductor.codecache load_by_key_path", "payload"), [FILE, "torch._inductor", NO_NAME]
    ),
    "a pickle that imports a module": Case(payload("payload run"), [FILE, "'payload.run'", NO_NAME]),
    "a pickle that imports by a name it makes": Case(
        pickled(b"\x80\x04\x8c\x07payload\x8c\x03run\x93)R."), [FILE, "'payload.run'", NO_NAME]
    ),
    "a pickle that sets attributes of what it was given": Case(
        pickled(b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}" + text("__code__") + b"Nsb."),
        [FILE, "gives attributes"],
    ),
    "a pickle that makes an object of a class": Case(pickled(b"\x80\x02cos\nsystem\n)\x81."), [FILE, "'os.system'"]),
    "a pickle of protocol 0": Case(pickled(b"cos\nsystem\n(S'true'\ntR."), [FILE, "'os.system'"]),
    "a pickle with an instruction of old": Case(pickled(b"(S'true'\nios\nsystem\n."), [FILE, "opcode"]),
    "a pickle that refers to an extension": Case(pickled(b"\x80\x02\x82\x01."), [FILE, "opcode"]),
    "a pickle that contains itself": Case(pickled(b"\x80\x02}q\0(" + text("a") + b"h\0u."), [FILE, "'a'"]),
    "a list that contains itself": Case(pickled(b"\x80\x02}(" + text("a") + b"]q\0h\0au."), [FILE, "'a'"]),
    "a pickle with a memo index of 2^31": Case(
        pickled(state(b"]r" + struct.pack("<I", (1 << 31) - 1))), [FILE, "'t0'"]
    ),
    "a pickle that ends early": Case(pickled(b"\x80\x02}("), [FILE, "not a well-formed pickle"]),
    "a pickle that claims a text of a gigabyte": Case(
        pickled(b"\x80\x02X" + struct.pack("<I", 1 << 30)), [FILE, "not a well-formed pickle"]
    ),
    "an empty pickle": Case(pickled(b""), [FILE, "not a well-formed pickle"]),
    "a pickle of deep tuples": Case(
        pickled(lambda: b"\x80\x02" + b")" + b"\x85" * 3_000_000 + b"."), [FILE, "opcodes"]
    ),
    "a pickle of millions of empty lists": Case(
        pickled(lambda: b"\x80\x02" + b"]" * 3_900_000 + b"."), [FILE, "opcodes"]
    ),
    "a pickle of 16 MB of empty lists": Case(
        pickled(lambda: b"\x80\x02" + b"]" * 16_000_000 + b"."), [FILE, "at most"]
    ),
    "a pickle of empty dicts, each remembered": Case(
        pickled(lambda: b"\x80\x02" + b"".join(b"}r" + struct.pack("<I", at) for at in range(490_000)) + b"."),
        ["is missing"],
    ),
    "a pickle of tuples of one another": Case(
        pickled(lambda: b"\x80\x02)" + b"q\0h\0\x86" * 330_000 + b"."), [FILE, "no dict"]
    ),
    "a pickle of a million calls": Case(
        pickled(lambda: b"\x80\x02ccollections\nOrderedDict\nq\0" + b"h\0)R" * 330_000 + b"."), ["is missing"]
    ),
    "a thousand tensors of one storage": Case(shared, [FILE, "'t", "8 times the file"]),
    "a view of a terabyte with strides of 0": Case(
        pickled(state(tensor(4, (1 << 20, 1 << 20), (0, 0)))), [FILE, "'t0'", "repeats elements"]
    ),
    "a view past its storage": Case(pickled(state(tensor(4, (4,), (1,), 1))), [FILE, "'t0'", "past the end"]),
    "a view from before its storage": Case(pickled(state(tensor(4, (2,), (1,), -1))), [FILE, "plain view"]),
    "a view with negative strides": Case(pickled(state(tensor(4, (2,), (-1,)))), [FILE, "plain view"]),
    "a view whose size overflows": Case(
        pickled(state(tensor(4, (1 << 32, 1 << 32), (0, 0)))), [FILE, "larger than any tensor"]
    ),
    "a storage that claims a terabyte": Case(
        pickled(state(tensor(1 << 38, (1 << 38,), (1,)))), [FILE, "'t0'", "its storage should have"]
    ),
    "compressed entries": Case(raw(compressed), [FILE, "compressed or encrypted"]),
    "a zip bomb": Case(raw(bomb), [FILE, "compressed or encrypted"]),
    "entries that overlap": Case(raw(overlapping), [FILE, "not where, or not what"]),
    "a directory of a million entries": Case(raw(lambda: directory(1_000_000)), [FILE, "directory"]),
    "a directory of 80,000 entries": Case(raw(lambda: directory(80_000)), [FILE]),
    "a directory that claims four gigabytes": Case(raw(huge_directory), [FILE, "zip file"]),
    "two pickles": Case(raw(lambda: zipped(state(tensor(4, (4,), (1,))), more={"../archive/data.pkl": b"."})), [FILE]),
    "no pickle": Case(raw(lambda: zipped(b"").replace(b"data.pkl", b"data.pki")), [FILE, "no data.pkl"]),
    "big-endian bytes": Case(
        raw(lambda: zipped(state(tensor(4, (4,), (1,)))).replace(b"little", b"_big__")), [FILE, "big-endian"]
    ),
    "a legacy tar": Case(raw(legacy("tar")), [FILE, "re-save it with"]),
    "a plain legacy pickle": Case(raw(legacy("pickle")), [FILE, "re-save it with"]),
    "a file cut in half": Case(lambda place: cut(place), [FILE, "zip file"]),
}


def cut(place: Place) -> None:
    file = place.copy("bin") / FILE
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


# The cases of every run of the tests; the others are for `make trust`.
USUAL = (
    "a pickle that calls os.system",
    "a pickle that calls eval",
    "a pickle that calls a loader of torch",
    "a pickle that imports by a name it makes",
    "a pickle that contains itself",
    "a pickle of millions of empty lists",
    "a pickle of empty dicts, each remembered",
    "a view of a terabyte with strides of 0",
    "compressed entries",
    "a zip bomb",
    "entries that overlap",
    "a directory of a million entries",
    "a legacy tar",
    "a plain legacy pickle",
)
