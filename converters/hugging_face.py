"""What Hugging Face configs of every family have in common."""

from __future__ import annotations

from typing import Any

from mmconvert.rules import ConfigRow, ignored, limited
from mmconvert.spec import A, Config

HF = A

# What a config may hold that is not the model's.
UNTRUSTED: tuple[ConfigRow, ...] = (
    limited(
        HF, "quantization_config", None, why="quantised weights cannot be converted; take those they were made from"
    ),
    ignored(
        HF, "auto_map", why="names code that its reader would run; nothing of it is imported or carried", aloud=True
    ),
    ignored(HF, "_name_or_path", why="a path or name of the machine that saved the file"),
)


def is_called(config: Config, model_type: str, architecture: str) -> bool:
    """Whether a config says that it is this model; the oldest say so by their architecture alone."""
    if "model_type" in config:
        return bool(config["model_type"] == model_type)
    architectures = config.get("architectures")
    return isinstance(architectures, list) and architecture in architectures


def rename_dtype(config: dict[str, Any]) -> dict[str, Any]:
    """The config with its element type under `torch_dtype`, the one name that every release reads."""
    if "dtype" not in config:
        return config
    rest = {name: value for name, value in config.items() if name != "dtype"}
    return {"torch_dtype": config["dtype"], **rest}
