"""Annotations whose pictures lie elsewhere, burst when they are unpacked, or are none."""

from __future__ import annotations

import json
import os
import struct
import zlib
from pathlib import Path

import yaml

from tests.mmsimple.data.pictures import draw
from tests.mmsimple.sections import examples
from tests.trust.hostile.case import Case, Cases, Place

WHAT = "pictures"
TOKENIZER = Path(__file__).parents[2] / "golden" / "llava" / "tiny_src" / "text_model_llava"


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb() -> bytes:
    """A PNG of 100,000 by 100,000 pixels, 10 GB, in 10 kB."""
    header = struct.pack(">2I5B", 100_000, 100_000, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(10_000_000), 9))


def folder(place: Place) -> None:
    """One sound picture, and one of each kind of hostile ones."""
    images = place.source / "images"
    images.mkdir(parents=True)
    draw(images / "sound.png", 0)
    (images / "bomb.png").write_bytes(bomb())
    (images / "program.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(marker) (w) file\n")
    (images / "cut.png").write_bytes((images / "sound.png").read_bytes()[:100])
    (images / "link.png").symlink_to("../../foreign/secret")
    os.mkfifo(images / "pipe.png")
    names = ["../../foreign/secret", str(place.foreign / "secret"), "/dev/zero", "a\0b", "x" * 5000]
    said = [{"from": "human", "value": "<image>\na"}, {"from": "gpt", "value": "b"}]
    names += sorted(each.name for each in images.iterdir())
    records = [{"image": name, "conversations": said} for name in names]
    (place.source / "annotations.json").write_text(json.dumps(records))
    model = {**examples.MMSIMPLE, "text_model": {**examples.TEXT, "vocab_size": 320, "max_position_embeddings": 400}}
    params = {"trainer": {"init": {"model": model}, "fit": {"train_dataloader": {"max_num_img": 3}}}}
    (place.source / "params.yaml").write_text(yaml.safe_dump(params))


PREPARE = (
    "prepare --annotations {source}/annotations.json --images {source}/images --config {source}/params.yaml --phase 1 "
    f"--tokenizer {TOKENIZER} --out {{out}}"
)
SKIPPED = ["4 image path leaves the folder", "1 image too large", "2 image cannot be decoded", "image missing"]

CASES: Cases = {
    "that lie elsewhere, burst, or are none": Case(
        folder, ["1 samples of 11 records", *SKIPPED], PREPARE, code=0, program="mmsimple"
    )
}

# The cases of every run of the tests; the others are for `make trust`.
USUAL = tuple(CASES)
