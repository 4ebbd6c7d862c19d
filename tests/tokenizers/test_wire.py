"""The numbers of a protobuf message, up to the largest that it may hold."""

from __future__ import annotations

import pytest

from mmconvert.tokenizers import wire
from mmconvert.tokenizers.wire import fields

TAG = b"\x08"  # field 1, a number


def test_a_number_of_64_bits_takes_ten_bytes() -> None:
    assert list(fields(TAG + b"\xff" * 9 + b"\x01")) == [(1, (1 << 64) - 1)]


@pytest.mark.parametrize("data", [b"\x80" * 10 + b"\x00", b"\xff" * 10 + b"\x01", b"\xff" * 9])
def test_a_number_that_goes_on_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="a number does not end"):
        list(fields(TAG + data))


def test_a_message_of_more_fields_than_a_vocabulary_has_tokens_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MAX_FIELDS", 3)
    assert len(list(fields((TAG + b"\x00") * 3))) == 3
    with pytest.raises(ValueError, match="more than 3 fields"):
        list(fields((TAG + b"\x00") * 4))
