"""An added token in the words of tokenizer.json and of tokenizer_config.json, and which token a field means."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# How a token that stands for something else than its text is looked for: as it is, spaces beside it untouched.
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized")


def added_token(
    content: str, number: int, special: bool = True, like: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """An entry of tokenizer.json's `added_tokens`; its flags are false but where `like` says otherwise."""
    flags = {flag: (like or {}).get(flag) is True for flag in _FLAGS}
    return {"id": number, "content": content, **flags, "special": special}


def decoded_token(content: str) -> dict[str, Any]:
    """What tokenizer_config.json's `added_tokens_decoder` says of a special token's id."""
    return {"content": content, **dict.fromkeys(sorted(_FLAGS), False), "special": True}


def content(value: Any) -> str | None:
    """The token that a field such as `pad_token` means: it holds a token's text, or a mapping with the text in it."""
    found = value.get("content") if isinstance(value, dict) else value
    return found if isinstance(found, str) else None


def renamed(value: Any, token: str) -> Any:
    """A field such as `pad_token`, in the same words, for another token."""
    return {**value, "content": token} if isinstance(value, dict) else token


def is_of_tokens(key: str) -> bool:
    """Does a field of tokenizer_config.json or special_tokens_map.json, by its name, hold tokens?"""
    return key.endswith(("_token", "_tokens"))


def named(fields: Mapping[str, Any]) -> set[str]:
    """The tokens that have a field of their own, such as `bos_token`."""
    found = {content(value) for key, value in fields.items() if is_of_tokens(key)}
    return {token for token in found if token is not None}
