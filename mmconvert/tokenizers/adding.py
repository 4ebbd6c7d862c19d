"""Tokens added to a tokenizer's files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmconvert.tokenizers.vocabulary import Files


def with_tokens(
    files: Files, added: Mapping[str, int], pad: str | None = None, fields: Mapping[str, Any] | None = None
) -> dict[str, bytes]:
    """The files with tokens added, `pad` as pad token, and `fields` in tokenizer_config.json."""
    raise NotImplementedError
