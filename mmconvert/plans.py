"""A plan: everything that a conversion will do, known before a byte moves.

The planner makes it from headers and configs alone; `execute` carries it out; `verify` compares a folder with it;
`report` prints it. It holds no open file and reads nothing by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmconvert.casts import Overflow
from mmconvert.containers.layout import FileLayout, Outline
from mmconvert.dtypes import DType
from mmconvert.remark import Remark
from mmconvert.rows import Index
from mmconvert.sources import Source, Stamp, TensorRef

if TYPE_CHECKING:
    from mmconvert.layouts import Checkpoint
    from mmconvert.registry import Hop


@dataclass(frozen=True)
class Step:
    """What one converter of a path makes of a tensor: its names before and after, how, and where that is known from."""

    hop: str
    before: str
    after: str
    rule: str
    source: str


@dataclass(frozen=True)
class Journey:
    """How a tensor of the target comes about: the source's own, the order of its rows, and each step on the way."""

    ref: TensorRef
    index: Index | None
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class PlannedTensor:
    """One tensor of the target: where it goes, what its bytes are, and where they come from.

    `origin` is the key in the source (`file:key` where it has several files), None for an invented tensor; `rule` says
    in words what happens on the way ("copied", "rotary rows interleaved (heads: 32)", "uniform ±0.0313, seed 7").
    `journey` is None for an invented tensor.
    """

    key: str
    dtype: DType
    shape: tuple[int, ...]
    source: Source
    origin: str | None
    rule: str
    journey: Journey | None = None

    @property
    def outline(self) -> Outline:
        return Outline(self.key, self.dtype, self.shape)

    @property
    def nbytes(self) -> int:
        return self.outline.nbytes


@dataclass(frozen=True)
class OutputFile:
    """One weights file of the target, laid out, with its tensors in the order in which they lie in it."""

    layout: FileLayout
    tensors: tuple[PlannedTensor, ...]

    def name_of(self, tensor: PlannedTensor) -> str:
        """What a tensor of it is called: with its folder in front, where the target has several."""
        folder, slash, _ = self.layout.name.rpartition("/")
        return f"{folder}{slash}{tensor.key}"


@dataclass(frozen=True)
class Twins:
    """Two tensors of the source that must hold the same bytes, because the target has room for only one of them."""

    kept: TensorRef
    twin: TensorRef
    why: str

    @property
    def complaint(self) -> str:
        """What to say where they do not."""
        return f"{self.twin.key}: differs from {self.kept.key}, but {self.why}"


@dataclass(frozen=True)
class Plan:
    """A whole conversion.

    `documents` are the small files that are written whole (configs, indices, carried tokenizers), by their path below
    the target. `facts` is what the manifest says about the conversion itself (formats, path of edges, options).
    `tallies` count values while the bytes move, by what is odd about them. `sources` are the folders and files that the
    user named, where nothing may be written; `files` those that tensors are read from, as they were when their headers
    were. `checkpoint` is the source as it was recognised, and `hops` lead from it; a plan whose tensors are drawn or
    given has none.
    """

    out: Path
    outputs: tuple[OutputFile, ...]
    documents: Mapping[str, bytes]
    twins: tuple[Twins, ...] = ()
    dropped: tuple[Remark, ...] = ()
    invented: tuple[Remark, ...] = ()
    carried: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    tallies: Mapping[str, Overflow] = field(default_factory=dict)
    sources: tuple[Path, ...] = ()
    files: Mapping[Path, Stamp] = field(default_factory=dict)
    checkpoint: Checkpoint | None = None
    hops: tuple[Hop, ...] = ()

    @property
    def tensors(self) -> tuple[PlannedTensor, ...]:
        return tuple(tensor for output in self.outputs for tensor in output.tensors)

    @property
    def bytes_to_write(self) -> int:
        return sum(o.layout.size for o in self.outputs) + sum(len(data) for data in self.documents.values())
