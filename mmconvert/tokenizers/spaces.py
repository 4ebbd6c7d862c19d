"""How a LLaMA tokenizer.json turns spaces into `▁` before a text is cut, and back after pieces are joined."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SPACE = "▁"


def before(config: Mapping[str, Any]) -> dict[str, Any]:
    """The normalizer and pre-tokenizer that a tokenizer_config.json asks for.

    A `legacy` tokenizer, the default, puts a space in front of every text between special tokens; any other one in
    front of the first only.
    """
    prefix = config.get("add_prefix_space") is not False
    if config.get("legacy") is False:
        scheme = {
            "type": "Metaspace",
            "replacement": SPACE,
            # tokenizers 0.15 reads no file without it, the newer ones take it or leave it.
            "add_prefix_space": prefix,
            "prepend_scheme": "first" if prefix else "never",
            "split": False,
        }
        return {"normalizer": None, "pre_tokenizer": scheme}
    prepend = [{"type": "Prepend", "prepend": SPACE}] if prefix else []
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    return {"normalizer": {"type": "Sequence", "normalizers": [*prepend, replace]}, "pre_tokenizer": None}


def after(config: Mapping[str, Any]) -> dict[str, Any]:
    """The decoder: the space that was put in front goes."""
    strip = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
    return {
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                *([strip] if config.get("add_prefix_space") is not False else []),
            ],
        }
    }
