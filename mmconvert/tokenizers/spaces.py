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


def begins_first_alone(document: Any) -> bool:
    """Whether a tokenizer.json puts a space in front of the first text alone, and of none after a special token."""
    steps = [*_steps(document, "normalizer", "normalizers"), *_steps(document, "pre_tokenizer", "pretokenizers")]
    schemes = [step.get("prepend_scheme") for step in steps if step.get("type") == "Metaspace"]
    return "first" in schemes and not any(step.get("type") == "Prepend" for step in steps)


def _steps(document: Any, name: str, inner: str) -> list[Mapping[str, Any]]:
    """What a normalizer or pre-tokenizer does, one after the other."""
    step = document.get(name) if isinstance(document, Mapping) else None
    listed = step.get(inner, [step]) if isinstance(step, Mapping) else []
    return [each for each in listed if isinstance(each, Mapping)] if isinstance(listed, list) else []
