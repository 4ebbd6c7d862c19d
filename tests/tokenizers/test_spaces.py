"""Where a LLaMA tokenizer.json puts spaces: said by its config, and read from a file of whoever made it."""

from __future__ import annotations

from typing import Any

import pytest

from mmconvert.tokenizers.spaces import before, begins_first_alone

# Puts a space in front of every text between special tokens.
PREPEND = {"type": "Prepend", "prepend": "▁"}


@pytest.mark.parametrize(
    ("config", "first_alone"),
    [
        ({}, False),
        ({"legacy": True}, False),
        ({"legacy": False}, True),
        ({"legacy": False, "add_prefix_space": False}, False),
    ],
)
def test_a_file_of_ours_is_read_as_it_was_meant(config: dict[str, Any], first_alone: bool) -> None:
    assert begins_first_alone(before(config)) is first_alone


@pytest.mark.parametrize(
    ("document", "first_alone"),
    [
        ({"pre_tokenizer": {"type": "Metaspace", "prepend_scheme": "first"}}, True),
        (
            {
                "pre_tokenizer": {
                    "type": "Sequence",
                    "pretokenizers": [{"type": "Metaspace", "prepend_scheme": "first"}],
                }
            },
            True,
        ),
        ({"pre_tokenizer": {"type": "Metaspace", "prepend_scheme": "always"}}, False),
        ({"normalizer": PREPEND, "pre_tokenizer": {"type": "Metaspace", "prepend_scheme": "first"}}, False),
        (
            {
                "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}, PREPEND]},
                "pre_tokenizer": {"type": "Metaspace", "prepend_scheme": "first"},
            },
            False,
        ),
        ({"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True}}, False),
        ({"pre_tokenizer": None, "normalizer": None}, False),
        ({"pre_tokenizer": "Metaspace", "normalizer": [1]}, False),
        ({"pre_tokenizer": {"type": "Sequence", "pretokenizers": {"type": "Metaspace"}}}, False),
        ([], False),
    ],
)
def test_any_other_file_is_read_by_what_it_does(document: object, first_alone: bool) -> None:
    assert begins_first_alone(document) is first_alone
