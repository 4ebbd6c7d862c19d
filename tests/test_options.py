"""What users may write for an option, and what the manifest keeps of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mmconvert.dtypes import BY_NAME
from mmconvert.errors import UsageError
from mmconvert.options import Options, parse_dtype, parse_init

BF16, F32 = BY_NAME["bfloat16"], BY_NAME["float32"]


def test_a_dtype_is_for_all_parts_or_for_some() -> None:
    assert parse_dtype("keep") == {}
    assert parse_dtype("bf16") == {"": BF16}
    assert parse_dtype("text=bf16, vision=fp32") == {"text": BF16, "vision": F32}
    assert parse_dtype("bf16,projector=keep") == {"": BF16, "projector": None}
    with pytest.raises(UsageError, match="names text twice"):
        parse_dtype("text=bf16,text=fp16")


@pytest.mark.parametrize("text", ["", "bfloat16", "text=", "text:bf16"])
def test_what_is_no_dtype_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--dtype"):
        parse_dtype(text)


def test_an_init_is_a_part_and_a_seed() -> None:
    assert parse_init("projector=uniform:7") == ("projector", 7)


def test_a_seed_has_no_more_digits_than_anybody_needs() -> None:
    assert parse_init(f"projector=uniform:{'9' * 20}") == ("projector", 10**20 - 1)
    for digits in (21, 5000, 10**6):
        with pytest.raises(UsageError, match="a seed has at most 20 digits") as refusal:
            parse_init(f"projector=uniform:{'9' * digits}")
        assert len(str(refusal.value)) < 200


@pytest.mark.parametrize(
    "said",
    [
        {"init": [1]},
        {"init": {"projector": "uniform:" + "9" * 5000}},
        {"dtype": {"text": ["x"]}},
        {"dtype": {"text": {}}},
        {"dtype": {"text": "float8"}},
        [],
        "x",
        None,
    ],
)
def test_a_record_without_sense_raises_what_those_who_read_manifests_expect(said: Any) -> None:
    with pytest.raises((UsageError, LookupError, TypeError, AttributeError)):
        Options.from_record(said)


def test_what_is_no_text_where_one_belongs_was_not_said() -> None:
    assert Options.from_record({"tower": {"a": 1}, "only": 10**300}) == Options()


def test_the_manifest_keeps_what_changes_bytes_and_nothing_of_the_machine() -> None:
    options = Options(
        container="safetensors",
        dtype={"": F32, "text": BF16},
        init={"projector": 3},
        take="text",
        tokenizer=Path("/home/me"),
        params=Path("/home/me/params.yaml"),
    )
    said = options.recorded()
    assert said == {
        "dtype": {"all": "float32", "text": "bfloat16"},
        "init": {"projector": "uniform:3"},
        "tower": "text",
    }
    again = Options.from_record(said)
    assert (again.dtype, again.init, again.take) == (options.dtype, options.init, options.take)


def test_defaults_leave_no_record() -> None:
    assert Options().recorded() == {}
    assert Options.from_record({}) == Options()
