"""Weights files, laid out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mmconvert.containers.layout import FileLayout
from mmconvert.options import SHARD_SIZE, Options
from mmconvert.plans import OutputFile, PlannedTensor


def safetensors(
    tensors: Sequence[PlannedTensor], options: Options, name: str = "model"
) -> tuple[list[FileLayout], bytes | None]:
    """One file, or shards and their index."""
    from mmconvert.containers import safetensors as container

    outlines = [tensor.outline for tensor in tensors]
    return container.lay_out_shards(name, outlines, options.max_shard_size or SHARD_SIZE)


def torch_bin(tensors: Sequence[PlannedTensor], name: str) -> FileLayout:
    """One file, as torch saves it."""
    from mmconvert.containers import torch_bin_write

    return torch_bin_write.lay_out(f"{name}.bin", [tensor.outline for tensor in tensors])


def outputs(layouts: Iterable[FileLayout], tensors: Sequence[PlannedTensor]) -> tuple[OutputFile, ...]:
    by_key = {tensor.key: tensor for tensor in tensors}
    return tuple(OutputFile(layout, tuple(by_key[key] for key in layout.slots)) for layout in layouts)
