"""What a config demands: every tensor of a checkpoint by name, shape and part, known without any weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod

from mmconvert import mapping, registry
from mmconvert.casts import CASTABLE
from mmconvert.dtypes import BY_NAME, DType
from mmconvert.layouts.checkpoint import Checkpoint
from mmconvert.mapping import Leg, Origin
from mmconvert.paths import get
from mmconvert.releases import Release
from mmconvert.spec import Pair


@dataclass(frozen=True)
class Demands:
    """A described model in one format: `legs` lead its config there, the last one into the format.

    `release` is the one whose checkpoint is meant, for a format that has any.
    """

    checkpoint: Checkpoint
    legs: tuple[Leg, ...]
    release: Release | None

    @property
    def model(self) -> str:
        return self.checkpoint.node.model

    @property
    def format(self) -> str:
        return self.legs[-1].hop.target.name

    @cached_property
    def tensors(self) -> Mapping[str, Origin]:
        """Every tensor in the order of the tables, second copies after the one that they repeat."""
        return self.legs[-1].origins()

    @property
    def parameters(self) -> int:
        """The number of parameters; what is stored twice counts once."""
        once = {each.pair.b: prod(each.shape) for each in self.tensors.values()}
        return sum(once.values())

    @property
    def nbytes(self) -> int | None:
        """The bytes of all tensors, second copies too, of the type that the config says; None where it says none."""
        total = 0
        for each in self.tensors.values():
            dtype = self.dtype(each.pair)
            if dtype is None:
                return None
            total += prod(each.shape) * dtype.itemsize
        return total

    @cached_property
    def _first(self) -> Mapping[str, Pair]:
        """The pairs of the path's first converter, by their names on side b."""
        return {pair.b: pair for pair in self.legs[0].expansion.pairs}

    def dtype(self, pair: Pair) -> DType | None:
        """The element type that the config says for a tensor; None where it says none."""
        first = self.legs[0]
        # Side b's name is the same in all of the path; the part of the config is said by the first one's side a.
        here = self._first.get(pair.b, pair)
        part, slash, _ = here.a.partition("/")
        field = f"{part}.torch_dtype" if slash else "torch_dtype"
        name = get(first.configs.source, field) if field in first.hop.source.dtype_fields else None
        dtype = BY_NAME.get(name) if isinstance(name, str) else None
        return dtype if dtype in CASTABLE else None


def demands(checkpoint: Checkpoint, form: str | None = None, release: Release | None = None) -> Demands:
    """What the config of `checkpoint` demands in format `form`, or in its own; the checkpoint needs no tensors.

    Raises NoConversion where no path leads to the format or release, InputRefused for a config that cannot be said
    there.
    """
    node = checkpoint.node
    hops = registry.path(node.model, node.format, form or node.format)
    release = registry.release_of(hops, release)
    return Demands(checkpoint, mapping.translate(hops, checkpoint.config, frozenset(), checkpoint.config_from), release)
