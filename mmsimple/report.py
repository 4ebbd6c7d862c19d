"""What `mmsimple validate` found, `prepare` made and `train` came to, for scripts and for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mmconvert.report import SCHEMA, table
from mmconvert.units import human_bytes

if TYPE_CHECKING:
    from mmsimple.data.prepare import Prepared
    from mmsimple.size import Sized
    from mmsimple.train.run import Done


def size_document(found: Sized) -> dict[str, Any]:
    size = found.size
    return {
        "schema": SCHEMA,
        "path": found.path,
        "model": found.model,
        "parameters": size.freezing.parameters,
        "trained": size.freezing.trained,
        "parts": [vars(part) for part in size.freezing.parts],
        "batch_size": size.workload.batch_size,
        "sequence_length": size.workload.sequence_length,
        "images_per_sample": size.workload.images_per_sample,
        "computed_in": size.workload.half or "float32",
        "bytes": {
            "weights": size.weights,
            "gradients": size.gradients,
            "optimizer": size.optimizer,
            "activations": size.activations,
            "total": size.total,
        },
        "assumptions": list(found.assumptions),
    }


def draw_size(found: Sized) -> None:
    size = found.size
    print(f"{found.path}: {found.model}, {size.freezing}")
    rows = [
        (part.name, f"{part.parameters:,}", _trained(part.parameters, part.trained)) for part in size.freezing.parts
    ]
    table("", ("part", "parameters", "trained"), rows)
    memory = {
        "weights": size.weights,
        "gradients": size.gradients,
        "optimizer": size.optimizer,
        "activations": size.activations,
        "together": size.total,
    }
    table("", ("memory of a step", "bytes"), [(what, human_bytes(nbytes)) for what, nbytes in memory.items()])
    for assumption in found.assumptions:
        print(f"assumed: {assumption}")


def _trained(parameters: int, trained: int) -> str:
    return "all" if trained == parameters else f"{trained:,}" if trained else "none"


def draw_prepared(found: Prepared) -> None:
    params = found.params
    learned = f"{params['learned_tokens']:,} of {params['tokens']:,} tokens are learned"
    cut = f", {params['truncated']:,} of them cut" if params["truncated"] else ""
    print(f"{found.out}: {params['samples']:,} samples of {params['records']:,} records{cut}; {learned}")
    for reason, each in sorted(params["skipped"].items(), key=lambda item: -item[1]["count"]):
        shown, more = ", ".join(map(str, each["records"])), " ..." if each["count"] > len(each["records"]) else ""
        print(f"  skipped: {each['count']:,} {reason} (records {shown}{more})")


def run_document(done: Done) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "step": done.step,
        "checkpoint": None if done.checkpoint is None else str(done.checkpoint),
        "validation": [{**vars(each), "perplexity": each.perplexity} for each in done.validation],
    }


def draw_run(done: Done) -> None:
    if done.step is None:
        for each in done.validation:
            print(f"{done.checkpoint}: {each}")
    else:
        print(f"{done.checkpoint}: update {done.step}")
