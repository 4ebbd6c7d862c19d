"""Targets that must not be written to, and disks that do not take what is written."""

from __future__ import annotations

import fcntl
from collections.abc import Callable

from tests.trust.hostile.case import CONVERT, Case, Cases, Place

WHAT = "output"
TO_SAFETENSORS = CONVERT + " --container safetensors"


def sound(place: Place) -> None:
    place.copy("llama")


def link(target: str) -> Callable[[Place], None]:
    def build(place: Place) -> None:
        sound(place)
        place.out.symlink_to(target)

    return build


def not_empty(place: Place) -> None:
    sound(place)
    place.out.mkdir()
    (place.out / "thesis.txt").write_text("my only copy")


def a_file(place: Place) -> None:
    sound(place)
    place.out.write_text("my only copy")


def read_only(place: Place) -> None:
    sound(place)
    place.out.parent.chmod(0o555)


def locked(place: Place) -> None:
    """Another run is at work."""
    sound(place)
    lock = (place.out.parent / ".out.mmconvert-lock").open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    place.held.append(lock)


def locked_by_link(place: Place) -> None:
    """The lock's name is a link: opening it would make a file elsewhere."""
    sound(place)
    (place.out.parent / ".out.mmconvert-lock").symlink_to("../foreign/made")


CASES: Cases = {
    "a link to a folder": Case(link("../foreign"), ["out: is a symbolic link"], code=5),
    "a link to nothing": Case(link("nowhere"), ["out: is a symbolic link"], code=5),
    "a link, to be overwritten": Case(
        link("../foreign"), ["out: is a symbolic link"], CONVERT + " --overwrite", code=5
    ),
    "in the source": Case(sound, ["lies inside the source"], "hf-to-cs --src {source} --out {source}/below", code=5),
    "in the source, in a roundabout way": Case(
        sound, ["lies inside the source"], "hf-to-cs --src {source} --out {out}/../../source/below", code=5
    ),
    "the source": Case(sound, ["is the source"], "hf-to-cs --src {source} --out {source} --overwrite", code=5),
    "around the source": Case(
        sound, ["holds the source"], "hf-to-cs --src {source} --out {source}/.. --overwrite", code=5
    ),
    "not empty": Case(not_empty, ["exists and is not empty", "--overwrite"], code=5),
    "a file": Case(a_file, ["exists and is not a folder"], CONVERT + " --overwrite", code=5),
    "below a file": Case(a_file, ["is not a folder"], "hf-to-cs --src {source} --out {out}/below", code=5),
    "read-only": Case(read_only, ["Permission denied"], code=7, needs="an ordinary user"),
    "locked": Case(locked, ["another run is writing here"], code=5),
    "a lock that is a link": Case(locked_by_link, [".out.mmconvert-lock"], code=7),
    "a disk that takes no larger files, .mdl": Case(sound, ["File too large"], code=7, file_size=1 << 16),
    "a disk that takes no larger files, safetensors": Case(
        sound, ["File too large"], TO_SAFETENSORS, code=7, file_size=1 << 16
    ),
    "a disk that takes no larger files, --overwrite": Case(
        not_empty, ["File too large"], CONVERT + " --overwrite", code=7, file_size=1 << 16
    ),
    "a name of 300 letters": Case(
        sound, ["File name too long"], "hf-to-cs --src {source} --out {out}" + "t" * 300, code=5
    ),
}

# The cases of every run of the tests; the others are for `make trust`.
USUAL = (
    "a link to a folder",
    "in the source",
    "the source",
    "not empty",
    "read-only",
    "locked",
    "a disk that takes no larger files, .mdl",
    "a disk that takes no larger files, safetensors",
)
