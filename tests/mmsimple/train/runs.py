"""Small runs in a folder: pictures, training files and a params file that trains on them in a moment."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from mmconvert import api
from mmconvert.paths import put
from mmconvert.sources import TensorRef
from mmsimple.checkpoint import read_tensor
from tests.mmsimple.data.pictures import make_dataset
from tests.mmsimple.data.test_loader import numbered
from tests.mmsimple.data.test_section import SECTION
from tests.mmsimple.sections import examples

SAMPLES = 7


def params_of(folder: Path, workers: int = 0, **changes: Any) -> dict[str, Any]:
    """A run with dropout, so that its random numbers show; `changes` are of `trainer`, two underscores for a dot."""
    if not (folder / "data").exists():
        make_dataset(folder, numbered(SAMPLES), batch_size=2)
    loader = {**SECTION, "data_dir": str(folder / "data"), "img_data_dir": str(folder / "images"), "batch_size": 2}
    loader |= {"shuffle": True, "shuffle_seed": 3, "num_workers": workers}
    text = {**examples.TEXT, "embedding_dropout_rate": 0.1, "dropout_rate": 0.1}
    schedule = {"initial_learning_rate": 1e-2, "end_learning_rate": 1e-3, "total_iters": 10}
    trainer: Any = {
        "init": {
            "seed": 1,
            "backend": {"backend_type": "CPU"},
            "model": {**examples.MMSIMPLE, "text_model": text},
            "optimizer": {"AdamW": {"weight_decay": 0.01}},
            "schedulers": [{"CosineDecayLR": schedule}],
            "precision": {"enabled": False, "max_gradient_norm": 1.0},
            "loop": {"max_steps": 10},
            "checkpoint": {"steps": 3},
            "callbacks": [{"ComputeNorm": {}}],
        },
        "fit": {"train_dataloader": loader, "val_dataloader": loader},
    }
    for path, value in changes.items():
        trainer = put(trainer, path.replace("__", "."), value)
    return {"trainer": trainer}


def write_params(folder: Path, workers: int = 0, **changes: Any) -> Path:
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(params_of(folder, workers, **changes)), "utf-8")
    return path


def tensors(path: Path) -> dict[str, Any]:
    """All that a checkpoint holds but for its params, flat: tensors and numbers by their paths."""
    state = api.read_state(path)
    del state["__metadata__"]
    return dict(_leaves(state, ""))


def assert_equal(found: Path, expected: Path) -> None:
    """To the bit, the random numbers included."""
    ours, theirs = tensors(found), tensors(expected)
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        if isinstance(value, Tensor):
            assert torch.equal(ours[name], value), name
        else:
            assert ours[name] == value, name


def _leaves(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict | list):
        for name, child in node.items() if isinstance(node, dict) else enumerate(node):
            yield from _leaves(child, f"{path}/{name}")
    else:
        yield path, read_tensor(node) if isinstance(node, TensorRef) else node
