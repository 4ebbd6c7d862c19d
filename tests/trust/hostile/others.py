"""The other commands, given hostile input: manifests, checkpoints to look at or compare, configs to read."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from typing import Any

from tests.trust.hostile import configs, mdl, mdl_damaged, safetensors_files, torch_files, yaml_files
from tests.trust.hostile.case import Case, Cases, Place

WHAT = "other commands"
MANIFEST = "mmconvert.json"
VERIFY = "verify {source}"


def manifest(make: Callable[[], bytes]) -> Callable[[Place], None]:
    """A CS checkpoint whose manifest is these bytes."""

    def build(place: Place) -> None:
        (place.copy("cs") / MANIFEST).write_bytes(make())

    return build


def signed(change: Callable[[dict[str, Any]], object]) -> Callable[[Place], None]:
    """A manifest that says something else, and has the right digest of it: an attacker can compute one, too."""

    def build(place: Place) -> None:
        from mmconvert.manifest import _signed, render

        file = place.copy("cs") / MANIFEST
        document = json.loads(file.read_text())
        del document["self"]
        change(document)
        file.write_bytes(render(_signed(document)))

    return build


def first(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda document: document["tensors"][0].update(changes)


def renamed(name: str) -> Callable[[dict[str, Any]], None]:
    """A document of the folder has another name in the manifest."""
    return lambda document: document["documents"].update({name: document["documents"].pop("config.yaml")})


def a_pipe(place: Place) -> None:
    (place.copy("cs") / MANIFEST).unlink()
    os.mkfifo(place.source / MANIFEST)


def with_a_pipe(place: Place) -> None:
    os.mkfifo(place.copy("cs") / "stray")


def linked_out(place: Place) -> None:
    """A file that the manifest lists is a link to another of the same bytes."""
    file = place.copy("cs") / "config.yaml"
    file.rename(place.foreign / "secret")
    file.symlink_to("../foreign/secret")


def tower(value: Any) -> Callable[[Place], None]:
    def build(place: Place) -> None:
        place.copy("llava")
        place.rewrite_config(place.source / "text_model_llava", mm_vision_tower=value)

    return build


BRACKETS = b"[" + b"[]," * 20_000_000 + b"[]]"

CASES: Cases = {
    "verify, 60 MB of brackets": Case(manifest(lambda: BRACKETS), [MANIFEST], VERIFY, code=6),
    "verify, deep brackets": Case(manifest(lambda: b"[" * 1_000_000), [MANIFEST, "damaged"], VERIFY, code=6),
    "verify, an empty manifest": Case(manifest(lambda: b""), [MANIFEST, "damaged"], VERIFY, code=6),
    "verify, a manifest of no text": Case(manifest(lambda: b"\xff" * 1000), [MANIFEST, "damaged"], VERIFY, code=6),
    "verify, a manifest that is a pipe": Case(a_pipe, [MANIFEST], VERIFY, code=6),
    "verify, a name that leads up": Case(signed(renamed("../foreign/secret")), ["../foreign/secret"], VERIFY, code=6),
    "verify, an absolute name": Case(signed(renamed("/etc/passwd")), ["/etc/passwd"], VERIFY, code=6),
    "verify, a name that clears the terminal": Case(signed(renamed("\x1b[2J")), ["is missing"], VERIFY, code=6),
    "verify, a file that links out": Case(linked_out, ["config.yaml", "a link or a device"], VERIFY, code=6),
    "verify, a pipe among the files": Case(with_a_pipe, ["stray", "a link or a device"], VERIFY, code=6),
    "verify, an offset of 2^63": Case(
        signed(first(offset=1 << 63)), [MANIFEST, "ends behind its file"], VERIFY, code=6
    ),
    "verify, a size of 2^63": Case(signed(first(bytes=1 << 63)), [MANIFEST, "ends behind its file"], VERIFY, code=6),
    "verify, an offset below zero": Case(signed(first(offset=-1)), [MANIFEST, "no number of bytes"], VERIFY, code=6),
    "verify, a digest that nobody knows": Case(
        signed(lambda document: document["tensors"][0].update(digest=[])), ["is not what was written"], VERIFY, code=6
    ),
    "verify, a file that the manifest has not": Case(
        signed(first(file="../foreign/secret")), [MANIFEST, "damaged"], VERIFY, code=6
    ),
    "inspect, a pickle that calls os.system": Case(
        torch_files.CASES["a pickle that calls os.system"].build, ["'posix.system'"], "inspect {source}"
    ),
    "inspect, a virtual dataset": Case(mdl.CASES["a virtual dataset"].build, ["model.mdl"], "inspect {source} --scan"),
    "inspect, LZ4 that lies": Case(
        mdl_damaged.CASES["LZ4 that is none"].build, ["model.mdl", "is damaged"], "inspect {source} --scan"
    ),
    "inspect, a view of a terabyte": Case(
        torch_files.CASES["a view of a terabyte with strides of 0"].build, ["'t0'"], "inspect {source} --keys --scan"
    ),
    "inspect, 2^40 layers": Case(
        configs.CASES["num_hidden_layers of 2^40"].build, ["llama"], "inspect {source}", code=0
    ),
    "inspect, a bomb of aliases": Case(
        yaml_files.CASES["a bomb of aliases"].build, ["config.yaml"], "inspect {source}"
    ),
    "diff, a header that is deep": Case(
        safetensors_files.CASES["a header that is deep"].build, ["model.safetensors"], "diff {source} {source}"
    ),
    "diff, an external link": Case(mdl.CASES["an external link"].build, ["model.mdl"], "diff {source} {source}"),
    "inspect, a pipe for a config": Case(configs.CASES["a pipe"].build, ["config.json"], "inspect {source}"),
    "keys, 2^40 layers": Case(
        configs.CASES["num_hidden_layers of 2^40"].build, ["config.json"], "keys llama --config {source}/config.json"
    ),
    "keys, a tag": Case(
        yaml_files.CASES["a call of os.system"].build, ["tag"], "keys llama --config {source}/config.yaml"
    ),
    "synth, 2^40 layers": Case(
        configs.CASES["num_hidden_layers of 2^40"].build,
        ["config.json"],
        "synth llama --config {source}/config.json --out {out} --sparse",
    ),
    "verify A B, a pickle that calls os.system": Case(
        torch_files.CASES["a pickle that calls os.system"].build, ["'posix.system'"], "verify {source} {source}"
    ),
    "doctor, deep JSON": Case(
        configs.CASES["a depth of 90,000"].build, ["config.json"], "doctor {source} --for transformers", code=6
    ),
    "doctor, a header that is deep": Case(
        safetensors_files.CASES["a header that is deep"].build,
        ["model.safetensors"],
        "doctor {source} --for transformers",
        code=6,
    ),
    "relocate, deep JSON": Case(configs.CASES["a depth of 90,000"].build, ["config.json"], "relocate {source}"),
    "relocate, 60 MB of brackets": Case(configs.CASES["60 MB of brackets"].build, ["config.json"], "relocate {source}"),
    "relocate, a tower whose name has a megabyte": Case(
        lambda place: lost_tower(place, "x" * 1_000_000), ["is not found", "--tower-path"], "relocate {source}"
    ),
    "doctor, a tower whose name has a megabyte": Case(
        tower("x" * 1_000_000), [], "doctor {source} --for llava", code=6
    ),
    "validate, a pattern that runs away": Case(
        lambda place: freezing(place),
        ["freeze", "may search for ever"],
        "validate {source}/config.yaml",
        program="mmsimple",
    ),
}


def lost_tower(place: Place, said: str) -> None:
    tower(said)(place)
    shutil.rmtree(place.source / "image_model")


def freezing(place: Place) -> None:
    file = place.copy("cs llava") / "config.yaml"
    section = file.read_text()
    assert "^image_model.image_model_list" in section
    file.write_text(section.replace("^image_model.image_model_list", "(a+)+$"))


# The cases of every run of the tests; the others are for `make trust`.
USUAL = (
    "verify, a manifest that is a pipe",
    "verify, a name that leads up",
    "verify, an offset of 2^63",
    "inspect, a pickle that calls os.system",
    "inspect, LZ4 that lies",
    "diff, an external link",
    "keys, 2^40 layers",
    "doctor, deep JSON",
    "relocate, deep JSON",
    "validate, a pattern that runs away",
)
