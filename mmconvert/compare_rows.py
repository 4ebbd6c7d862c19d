"""Comparing tensors of which one side has more rows than the other, as a vocabulary that grew has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from mmconvert.assembly import Assembly
from mmconvert.findings import Findings
from mmconvert.mapping import Leg
from mmconvert.rows import own_rows
from mmconvert.sources import TensorRef


def against_config(found: Mapping[str, TensorRef], leg: Leg) -> Iterator[str]:
    """Where B's own config demands another number of rows than B has: A's says nothing of those that it has not."""
    for key, pair in leg.expected().items():
        ref, demanded = found.get(key), pair.shape_on(leg.hop.side)
        if pair.a_rows is not None and ref is not None and ref.shape != demanded:
            yield f"{key}: {ref.shape[0] if ref.shape else 0} rows, and B's config demands {demanded[0]}"


def without_rows_made(
    assembly: Assembly, found: Mapping[str, TensorRef], result: Findings
) -> tuple[Assembly, dict[str, TensorRef]]:
    """Both sides without the rows that A has not, for a B of another program: what it fills them with is its affair."""
    tensors, cut = [], dict(found)
    for tensor in assembly.tensors:
        index = (tensor.journey.index if tensor.journey else None) or ()
        own, ref = own_rows(index), found.get(tensor.key)
        if own < len(index):
            tensor = replace(tensor, shape=(own, *tensor.shape[1:]))
            if ref is not None and ref.shape and ref.shape[0] > own:
                cut[tensor.key] = replace(ref, shape=(own, *ref.shape[1:]))
                result.notes.append(f"{tensor.key}: rows {own} to {ref.shape[0] - 1} are not A's, so not compared")
        tensors.append(tensor)
    return replace(assembly, tensors=tuple(tensors)), cut
