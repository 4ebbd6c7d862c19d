"""Read and write `.mdl` files with Cerebras' own library. Runs in its environment.

Usage: python states.py read JOBS, with a JSON list of pairs: a `.mdl` file, and the JSON file to write, which gets
every leaf of the file: tensors by their bytes, the rest as it is. Or python states.py write FOLDER, which writes files
of all sorts, each with such a list of what was put into it. Or python states.py copy FROM TO, which loads and saves.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import sys
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

DTYPES = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "uint8", "bool")


def flattened(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, Mapping | list | tuple):
        for name, child in node.items() if isinstance(node, Mapping) else enumerate(node):
            yield from flattened(child, f"{key}.{name}" if key else str(name))
    elif isinstance(node, torch.Tensor):
        # What the library loads is read from the file when it is first used, by this too.
        tensor = node.detach().contiguous()
        digest = hashlib.sha256(tensor.reshape(-1).view(torch.uint8).numpy().tobytes()).hexdigest()
        yield key, {"dtype": str(tensor.dtype), "shape": list(tensor.shape), "sha256": digest}
    else:
        yield key, node


def states() -> dict[str, dict[str, Any]]:
    """What a training program might save, and what none would: every element type, nesting, and a tied tensor."""
    draw = torch.Generator().manual_seed(0)
    numbers = torch.randn(300, 70, generator=draw)
    typed = {name: (numbers * 50).to(getattr(torch, name)) for name in DTYPES}
    tied = torch.randn(12, 8, generator=draw)
    model = {"embedding.weight": tied, "lm_head.weight": tied, "norm.weight": torch.ones(8)}
    moments = {name: {"exp_avg": value + 1, "exp_avg_sq": value * 2, "step": 3} for name, value in model.items()}
    groups = [{"params": list(model), "lr": 1e-3, "betas": (0.9, 0.999), "eps": None, "name": "all"}]
    return {
        "element types": {"model": typed},
        "shapes": {
            "model": {
                "scalar": torch.tensor(2.5),
                "empty": torch.empty(0, 4),
                # Larger than a chunk of the file, and so flat that it can be compressed.
                "zeros": torch.zeros(1500, 700),
                "large": torch.randn(1500, 700, generator=draw),
                "strided": numbers.T[::3],
                "infinite": torch.tensor([float("inf"), float("-inf"), 0.0, -0.0, 1e-45]),
            }
        },
        "a training run": {
            "model": model,
            "optimizer": {"state": moments, "param_groups": groups},
            "lr_scheduler": [{"last_epoch": 3, "_last_lr": [1e-3]}],
            "global_step": 3,
            "dataloader": OrderedDict(epoch=0, shuffled=True),
            "__metadata__": [{"version": "2.10.0", "model_name": "llama", "params": {"a": [1, "x", None]}}],
        },
    }


def main(what: str, *arguments: str) -> None:
    cerebras: Any = importlib.import_module("cerebras.pytorch")
    if what == "read":
        for file, target in json.loads(Path(arguments[0]).read_text("utf-8")):
            Path(target).write_text(json.dumps(dict(flattened(cerebras.load(file)))), "utf-8")
    elif what == "copy":
        cerebras.save(cerebras.load(arguments[0]), arguments[1])
    else:
        for name, state in states().items():
            file = Path(arguments[0], f"{name}.mdl")
            cerebras.save(state, str(file))
            file.with_suffix(".json").write_text(json.dumps(dict(flattened(state))), "utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
