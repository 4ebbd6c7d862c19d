"""Where a model computes, and in which element type, by the words of the command line."""

from __future__ import annotations

import torch

from mmconvert.errors import UsageError

DTYPES = {"keep": None, "fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def device_of(name: str) -> torch.device:
    """`cpu`, `cuda`, or `auto` for the best that there is. Raises UsageError for a GPU that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: torch finds no GPU here")
    return torch.device(name)
