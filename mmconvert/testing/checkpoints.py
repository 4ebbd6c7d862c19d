"""Random checkpoints through the whole engine, and folders against what a reference made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from random import Random

from mmconvert import api, registry
from mmconvert.converter import Converter
from mmconvert.documents import dump_json, dump_yaml
from mmconvert.errors import MMConvertError
from mmconvert.layouts import NO_HINTS, Hints
from mmconvert.options import Options
from mmconvert.paths import get
from mmconvert.spec import A, B, Config, Side
from mmconvert.testing.check import expansion_of, translated

# A tensor of a golden file: its shape, its element type ("bfloat16"), and the SHA-256 of its bytes in hex.
Recorded = tuple[Sequence[int], str, str]
# A checkpoint to test with is small; one of a config that leaves its sizes to the class defaults would fill the disk.
LIMIT = 64 << 20


def write_checkpoint(converter: Converter, side: Side, config: Config, folder: Path, seed: int = 0) -> Path:
    """Write a small checkpoint of `side` with random bytes for weights, from a config of side a, and return `folder`.

    It is in float32, in one safetensors file for each part. Raises AssertionError for a config that is not small.
    """
    form, translation = converter.format(side), translated(converter, A, config)
    expansion = expansion_of(converter, translation)
    held = {name: pair for name, pair in expansion.by_name[side].items() if side == B or not pair.b_only}
    shapes = {name: pair.shape_on(side) for name, pair in held.items()}
    if 4 * sum(map(prod, shapes.values())) > LIMIT:
        raise AssertionError(f"{converter.model}: the config is not of a small model; give all of its sizes")
    draw = Random(seed)
    tensors = {name: (shape, draw.randbytes(4 * prod(shape))) for name, shape in shapes.items()}
    for twin in expansion.twins:
        if twin.side == side and (twin.written or not twin.optional):
            tensors[twin.key] = tensors[twin.of]
    if side == B:
        _write(folder, "config.yaml", dump_yaml({"model": dict(translation.target)}), tensors)
        return folder
    folders = form.folders(translation.source)
    for part in form.parts:
        prefix = f"{part}/" if part else ""
        inside = {name.removeprefix(prefix): each for name, each in tensors.items() if name.startswith(prefix)}
        _write(folder / folders[part], "config.json", dump_json(get(config, part)), inside)
    return folder


def _write(folder: Path, name: str, config: bytes, tensors: Mapping[str, tuple[tuple[int, ...], bytes]]) -> None:
    """A config, and the tensors in the format of safetensors, which is simple enough to be written here once more."""
    header, end = {}, 0
    for key, (shape, data) in tensors.items():
        header[key] = {"dtype": "F32", "shape": shape, "data_offsets": [end, end + len(data)]}
        end += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(config)
    data = b"".join(data for _, data in tensors.values())
    (folder / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + data)


def round_trip(converter: Converter, config: Config, folder: Path) -> None:
    """Take small random checkpoints of a config of side a, one of each side, there and back through the public api.

    They are written below `folder`. Raises AssertionError where a tensor does not come back bit for bit, or where
    `verify` sees a difference. The converter must be registered.
    """
    if converter.model not in {each.model for each in registry.converters()}:
        raise AssertionError(
            f"{converter.model} is not registered: install its package, with an entry point in {registry.GROUP}"
        )
    expansion = expansion_of(converter, translated(converter, A, config))
    # What side a never holds is made on the way there; it cannot be what it was.
    init = {pair.init: 0 for pair in expansion.pairs if pair.b_only and pair.init}
    options = Options(container="safetensors", init=init)
    # Rows that side a has alone are made anew on the way back.
    shared: dict[Side, dict[str, tuple[int, ...]]] = {
        A: {pair.a: pair.shape for pair in expansion.pairs if pair.a_rows is not None},
        B: {},
    }
    for side, other in ((A, B), (B, A)):
        here, there = converter.format(side), converter.format(other)
        source = write_checkpoint(converter, side, config, folder / here.name / "source")
        away, back = folder / here.name / there.name, folder / here.name / "back"
        seen_here, seen_there = (Hints(model=converter.model) if each.by_name else NO_HINTS for each in (here, there))
        try:
            api.convert(source, away, there.name, options=options, hints=seen_here, fsync=False)
            api.convert(away, back, here.name, options=options, hints=seen_there, fsync=False)
            problems = list(api.verify(source, away, hints_a=seen_here, hints_b=seen_there).problems)
            problems += api.verify(away, back, hints_a=seen_there, hints_b=seen_here).problems
            before, after = (_facts(each, seen_here, shared[side]) for each in (source, back))
        except MMConvertError as error:
            raise AssertionError(f"{converter.model}: {here.name} to {there.name} and back: {error}") from error
        changed = [key for key in {**before, **after} if before.get(key) != after.get(key)]
        problems += [f"{key} does not come back" for key in changed if expansion.dropped(side, key) is None]
        if problems:
            raise AssertionError(f"{converter.model}: {here.name} to {there.name} and back: {problems[0]}")


def matches_golden(folder: Path, recorded: Mapping[str, Recorded], hints: Hints = NO_HINTS) -> None:
    """Compare the tensors of a checkpoint with recorded ones, by name. Raises AssertionError, naming one that differs.

    A recording is worth something where another program made it: the system whose files a converter writes or reads.
    """
    found = _facts(folder, hints)
    expected = {key: (tuple(shape), dtype, digest) for key, (shape, dtype, digest) in recorded.items()}
    for key in {**expected, **found}:
        if found.get(key) != expected.get(key):
            what, wanted = (_said(each.get(key)) for each in (found, expected))
            raise AssertionError(f"{folder}: {key} is {what}, expected {wanted}")


def _facts(
    path: Path, hints: Hints, shared: Mapping[str, tuple[int, ...]] | None = None
) -> dict[str, tuple[tuple[int, ...], str, str]]:
    """Shape, element type and digest of each tensor; of those in `shared`, of what begins them and has that shape."""
    found = {}
    for key, ref in api.open(path, hints=hints).items():
        shape = (shared or {}).get(key, ref.shape)
        data = ref.read()[: prod(shape) * ref.dtype.itemsize]
        found[key] = (shape, ref.dtype.name, hashlib.sha256(data).hexdigest())
    return found


def _said(fact: tuple[tuple[int, ...], str, str] | None) -> str:
    if fact is None:
        return "absent"
    shape, dtype, digest = fact
    return f"{dtype} {list(shape)} with the digest {digest[:12]}..."
