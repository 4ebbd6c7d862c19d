"""What a `.mdl` file holds, as JSON that a client can be asked for, too: tensors by their bytes, the rest as it is."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mmconvert
from mmconvert.sources import TensorRef


def leaves(path: Path) -> dict[str, Any]:
    """Every leaf by its flattened key, as mmconvert reads it; `inside/states.py` does the same by Cerebras' reader."""
    return dict(_flattened(mmconvert.read_state(path), ""))


def _flattened(node: Any, key: str) -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict | list):
        for name, child in node.items() if isinstance(node, dict) else enumerate(node):
            yield from _flattened(child, f"{key}.{name}" if key else str(name))
    elif isinstance(node, TensorRef):
        digest = hashlib.sha256(node.read()).hexdigest()
        yield key, {"dtype": f"torch.{node.dtype}", "shape": list(node.shape), "sha256": digest}
    else:
        yield key, node
