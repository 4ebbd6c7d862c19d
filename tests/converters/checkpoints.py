"""Checkpoints of random bytes: in memory, and as folders written by hand as other tools write them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from random import Random

from hypothesis import strategies as st

from mmconvert.converter import Converter
from mmconvert.dtypes import BY_NAME, DType
from mmconvert.layouts import Checkpoint
from mmconvert.paths import get
from mmconvert.plans import PlannedTensor
from mmconvert.registry import Node
from mmconvert.sources import TensorRef
from mmconvert.spec import A, Config, Side
from tests.converters.reference import Holding
from tests.converters.reference_rows import Contents

Tensors = dict[str, TensorRef]

FLOATS = [BY_NAME[name] for name in ("float32", "float16", "bfloat16")]


@dataclass(frozen=True)
class Noise:
    """So many random bytes, made when they are read: a large tensor that nobody reads costs nothing.

    Where they are `finite`, they are floating-point numbers of this many bytes between -2 and 2.
    """

    seed: str
    size: int
    finite: int | None = None

    def read_into(self, start: int, buffers: Sequence[memoryview]) -> None:
        data = bytearray(Random(self.seed).randbytes(self.size))
        if self.finite is not None:
            # Without the uppermost bit of the exponent, which lies in the last byte of a number.
            last = slice(self.finite - 1, None, self.finite)
            data[last] = bytes(byte & 0xBF for byte in data[last])
        for buffer in buffers:
            buffer[:] = data[start : start + len(buffer)]
            start += len(buffer)


@dataclass(frozen=True)
class Weights:
    """Random tensors, each with one of the `dtypes` and with bytes of its own.

    Vocabularies, of which means are taken, are of finite numbers unless they may be `broken`.
    """

    seed: int
    dtypes: tuple[DType, ...]
    broken: bool = False

    def tensor(self, key: str, shape: tuple[int, ...], finite: bool = False) -> TensorRef:
        seed = f"{self.seed}:{key}"
        dtype = Random(seed).choice(self.dtypes)
        noise = Noise(seed, prod(shape) * dtype.itemsize, dtype.itemsize if finite and not self.broken else None)
        return TensorRef(key, dtype, shape, noise, "memory")

    def held(self, holding: Holding, side: Side, *, copies: bool = True, beside: bool = False) -> Tensors:
        """The tensors of one side; with `copies` under their second names too, and with what is left `beside` them."""
        found: Tensors = {}
        for each in holding.tensors:
            name = each.name(side)
            found[name] = self.tensor(name, each.shape_on(side), each.vocabulary)
        for name, of in (holding.copies_a if side == A else holding.copies_b) if copies else ():
            found[name] = replace(found[of], key=name)
        for name, shape in (holding.only_a if side == A else holding.only_b) if beside else ():
            found[name] = self.tensor(name, shape)
        return found


@st.composite
def weights(draw: st.DrawFn) -> Weights:
    """Any mixture of the element types that checkpoints are kept in."""
    dtypes = draw(st.lists(st.sampled_from(FLOATS), min_size=1, unique=True))
    return Weights(draw(st.integers(0, 1 << 32)), tuple(dtypes))


FLOAT32 = Weights(0, (BY_NAME["float32"],))


def checkpoint(converter: Converter, side: Side, config: Config, tensors: Mapping[str, TensorRef]) -> Checkpoint:
    """A checkpoint of one side that lies nowhere."""
    return Checkpoint(
        path=Path("nowhere"),
        node=Node(converter.model, converter.format(side).name),
        config_from="nowhere/config",
        config=config,
        tensors=tensors,
        sidecars={},
        original={},
        folders=(),
    )


def contents(tensors: Iterable[TensorRef | PlannedTensor]) -> Contents:
    """Everything that the tensors are."""
    found = {}
    for each in tensors:
        data = bytearray(each.nbytes)
        each.source.read_into(0, [memoryview(data)])
        found[each.key] = (each.dtype.name, each.shape, bytes(data))
    return found


def taken(tensors: Iterable[PlannedTensor]) -> Tensors:
    """The tensors of a plan as those of a checkpoint."""
    return {each.key: TensorRef(each.key, each.dtype, each.shape, each.source, "memory") for each in tensors}


def write(folder: Path, converter: Converter, config: Config, tensors: Mapping[str, TensorRef]) -> Path:
    """A checkpoint of side a in folders, one for each part."""
    for part in converter.a.parts:
        prefix = f"{part}/" if part else ""
        here = folder / part
        here.mkdir(parents=True)
        (here / "config.json").write_text(json.dumps(get(config, part)), "utf-8")
        inside = {key.removeprefix(prefix): ref for key, ref in tensors.items() if key.startswith(prefix)}
        (here / "model.safetensors").write_bytes(safetensors(inside))
    return folder


def safetensors(tensors: Mapping[str, TensorRef]) -> bytes:
    """The format is an 8-byte length, a JSON header of that length, and the bytes that it points to."""
    header, end = {}, 0
    for key, ref in tensors.items():
        header[key] = {"dtype": ref.dtype.code, "shape": ref.shape, "data_offsets": [end, end + ref.nbytes]}
        end += ref.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + b"".join(ref.read() for ref in tensors.values())
