"""What becomes of the rows of a vocabulary where one side has more tokens than the other, worked out one by one."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from mmconvert.sources import TensorRef
from mmconvert.spec import A
from tests.converters.reference import Holding

Contents = dict[str, tuple[str, tuple[int, ...], bytes]]


def through_side_b(tensors: Mapping[str, TensorRef], found: Holding, written: Holding) -> Contents:
    """What tensors of side a, which are `found`, become on their way to side b and from there to what is `written`.

    Rows that side b has not are gone; rows that it must be given are the mean of the others.
    """
    source = {each.b: tensors[each.a] for each in found.tensors}
    result = {}
    for each in written.tensors:
        ref, shape = source[each.b], each.shape_on(A)
        data = ref.read()
        if each.vocabulary:
            kept = each.shape[0]
            data = data[: kept * (ref.nbytes // ref.shape[0])]
            data += mean_row(data, kept, ref.dtype.name) * (shape[0] - kept)
        result[each.a] = (ref.dtype.name, shape, data)
    return result


def mean_row(data: bytes, rows: int, dtype: str) -> bytes:
    """The mean of all rows, which are added in float32 one after the other; a NaN is the one that torch makes."""
    kind: torch.dtype = getattr(torch, dtype)
    values = torch.frombuffer(bytearray(data), dtype=kind).reshape(rows, -1).to(torch.float32)
    total = torch.zeros(values.shape[1])
    for row in values:
        total = total + row
    mean = (total / rows).to(kind)
    mean[mean.isnan()] = torch.nan
    return bytes(mean.view(torch.uint8).tolist())
