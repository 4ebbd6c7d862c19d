"""A CS folder of tensors that a program gives: planned, staged, digested and checked like any conversion.

No table has a say in it, so a model may be written here that nothing converts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from mmconvert import registry
from mmconvert.containers.layout import FileLayout, Outline
from mmconvert.documents import dump_yaml
from mmconvert.errors import UsageError
from mmconvert.layouts.checkpoint import ASSETS
from mmconvert.options import CONTAINER, DEFAULTS, SHARD_SIZE, Options
from mmconvert.plans import OutputFile, Plan, PlannedTensor
from mmconvert.releases import NEWEST
from mmconvert.sources import TensorRef, stamp
from mmconvert.staging import check_target


def plan_writing(
    out: Path,
    model: str,
    section: Mapping[str, Any],
    tensors: Sequence[TensorRef],
    *,
    assets: Mapping[str, bytes],
    options: Options = DEFAULTS,
    overwrite: bool = False,
) -> Plan:
    """The plan to write the tensors of a CS `model` at `out`, under the names that they have.

    `section` is the model's, in the spelling of the newest release; it is written as it stands. `assets` are files that
    travel along, by their names below `assets/`. Raises OutputRefused for a place that cannot be written to,
    NoConversion for a model that is not known, UsageError for names or options that have no sense here, and
    InputRefused for a tensor that the container cannot hold.
    """
    registry.check_model(model)
    _check(tensors, assets, options)
    files = {path: stamp(path) for ref in tensors if (path := ref.path) is not None}
    check_target(out, overwrite, tuple(files))
    planned = tuple(PlannedTensor(ref.key, ref.dtype, ref.shape, ref.source, ref.key, "copied") for ref in tensors)
    outlines = [each.outline for each in planned]
    document = {"model": dict(section)}
    documents = {"config.yaml": dump_yaml(document)}
    documents |= {f"{ASSETS}/{name}": data for name, data in assets.items()}
    layouts: Sequence[FileLayout]
    if (options.container or CONTAINER) == "safetensors":
        from mmconvert.containers import safetensors

        layouts, index = safetensors.lay_out_shards("model", outlines, options.max_shard_size or SHARD_SIZE)
        documents |= {} if index is None else {"model.safetensors.index.json": index}
    else:
        layouts = [_mdl(outlines, document, str(section.get("name", model)))]
    by_key = {tensor.key: tensor for tensor in planned}
    return Plan(
        out=out,
        outputs=tuple(OutputFile(layout, tuple(by_key[key] for key in layout.slots)) for layout in layouts),
        documents=documents,
        carried=tuple(f"{ASSETS}/{name}" for name in assets),
        facts={
            "source": {"model": model, "format": "memory", "release": None},
            "target": {"model": model, "format": "cs", "release": str(NEWEST)},
            "path": [],
            "options": {},
        },
        sources=tuple(files),
        files=files,
    )


def _check(tensors: Sequence[TensorRef], assets: Mapping[str, bytes], options: Options) -> None:
    keys = [ref.key for ref in tensors]
    if len(set(keys)) < len(keys):
        raise UsageError(f"{next(key for key in keys if keys.count(key) > 1)}: is given twice")
    for name in assets:
        if ".." in PurePosixPath(name).parts or name.startswith("/"):
            raise UsageError(f"{name}: an asset lies below {ASSETS}/")
    if replace(options, container=None, max_shard_size=None) != DEFAULTS:
        raise UsageError("tensors are written as they are given: only container and max_shard_size can be chosen")
    if options.max_shard_size is not None and (options.container or CONTAINER) == "mdl":
        raise UsageError("max_shard_size is for safetensors")


def _mdl(outlines: Sequence[Outline], document: Mapping[str, Any], name: str) -> FileLayout:
    from mmconvert.containers import mdl_write

    metadata = {"version": f"{NEWEST}.0", "model_name": name, "params": document}
    return mdl_write.lay_out("model.mdl", outlines, metadata)
