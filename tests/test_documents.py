"""JSON and YAML: what is refused, what is kept, and that what is written reads back the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from mmconvert.documents import Limits, dump_json, dump_yaml, file_size, parse_json, read_json, read_yaml
from mmconvert.errors import InputRefused

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
# A YAML text has no place for control characters, and no reader has one for halves of surrogate pairs.
TEXT = st.text(st.characters(exclude_categories=["Cc", "Cs", "Cn", "Co", "Zl", "Zp"], exclude_characters="\ufeff"))
DOCUMENTS = st.recursive(
    SCALARS | TEXT, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4), max_leaves=12
)


def yaml_of(tmp_path: Path, text: str) -> Any:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return read_yaml(path)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b'{"a": {"b": 1, "b": 2}}', "'b' is given twice"),
        (b"[NaN]", "NaN is not a finite number"),
        (b"[-Infinity]", "-Infinity is not a finite number"),
        (b"[1e999]", "1e999 is not a finite number"),
        (b'"\xff"', "utf-8"),
        (b"\xef\xbb\xbf1", "BOM"),
        (b"[" * 1_000_000, "deeper than 64"),
        (b"[" * 65 + b"]" * 65, "deeper than 64"),
        (b'{"a":' * 65 + b"1" + b"}" * 65, "deeper than 64"),
        (b'["\\ud800"]', "surrogate"),
        (b"1" * 5000, "value has 5000 digits$"),
        (b"", "not valid JSON"),
        (b'{"a": 1} x', "Extra data"),
    ],
)
def test_json_that_is_ambiguous_or_malformed_is_refused_by_name(data: bytes, reason: str) -> None:
    with pytest.raises(InputRefused, match=reason) as caught:
        parse_json(data, "config.json")
    assert str(caught.value).startswith("config.json: ")


def test_json_may_nest_to_the_limit() -> None:
    depth = 0
    document = parse_json(b"[" * 64 + b"]" * 64, "config.json")
    while document:
        document, depth = document[0], depth + 1
    assert depth == 63


def test_a_file_over_the_limit_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(b"[1, 2, 3]")
    assert read_json(path, Limits(9, 4, 4)) == [1, 2, 3]
    with pytest.raises(InputRefused, match=r"config\.json: has 9 bytes"):
        read_json(path, Limits(8, 4, 4))


@pytest.mark.parametrize(
    "data", [b"[" + b"1," * 9 + b"1]", b"[" + b"[]," * 4 + b"{}]", b'[{"a":[]},{"a":[]},{"a":[]}, 1]']
)
def test_values_are_counted_before_they_are_made(data: bytes) -> None:
    assert parse_json(data, "config.json", limits=Limits(99, 10, 3)) == json.loads(data)
    with pytest.raises(InputRefused, match=r"config\.json: holds more than 9 values"):
        parse_json(data, "config.json", limits=Limits(99, 9, 3))


def test_keys_are_counted_before_they_are_made() -> None:
    data = b'[{"a": 1, "b": 2}, {"a": 1}]'
    assert len(parse_json(data, "config.json", limits=Limits(99, 99, 3))) == 2
    with pytest.raises(InputRefused, match=r"config\.json: holds more than 2 keys"):
        parse_json(data, "config.json", limits=Limits(99, 99, 2))


def test_the_largest_tokenizers_are_read() -> None:
    fields = ("content", "single_word", "lstrip", "rstrip", "normalized", "special")
    document = {
        "added_tokens": [{"id": number} | dict.fromkeys(fields, False) for number in range(6400)],
        "model": {"vocab": {f"t{number}": number for number in range(262_000)}, "merges": [["a", "b"]] * 515_000},
    }
    assert len(parse_json(json.dumps(document).encode(), "tokenizer.json")["model"]["vocab"]) == 262_000


def test_what_is_no_regular_file_is_refused_without_waiting_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, reason in [
        (tmp_path / "pipe", "not a regular file"),
        (tmp_path, "not a regular file"),
        (tmp_path / "absent", "No such file"),
    ]:
        with pytest.raises(InputRefused, match=reason):
            file_size(path)


@settings(deadline=None)
@given(DOCUMENTS)
def test_json_reads_back_as_it_was(document: Any) -> None:
    assert parse_json(dump_json(document), "x") == document


def test_json_keeps_order_and_text_and_ends_in_a_newline() -> None:
    assert dump_json({"b": "é", "a": [1]}) == '{\n  "b": "é",\n  "a": [\n    1\n  ]\n}\n'.encode()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_json_cannot_say_what_is_not_finite(value: float) -> None:
    with pytest.raises(InputRefused, match=r"a\.1\.b: is not a finite number"):
        dump_json({"a": [1.0, {"b": value}]})


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1E5", 1e5),
        ("-.5e+3", -500.0),
        ("1.e-05", 1e-5),
        ("1.0e-05", 1e-5),
        ("12", 12),
        ("'1e-4'", "1e-4"),
        ("2024-01-31", "2024-01-31"),
        ("e4", "e4"),
        ("true", True),
        ("null", None),
    ],
)
def test_yaml_scalars(tmp_path: Path, text: str, value: object) -> None:
    read = yaml_of(tmp_path, f"key: {text}")["key"]
    assert read == value
    assert type(read) is type(value)


def test_yaml_anchors_and_merge_keys_work_and_own_keys_win(tmp_path: Path) -> None:
    text = "base: &b {lr: 1, wd: 2}\nlist: [*b, *b]\nmine: {<<: *b, lr: 3}\nagain: {<<: *b}"
    base = {"lr": 1, "wd": 2}
    assert yaml_of(tmp_path, text) == {"base": base, "list": [base, base], "mine": {"lr": 3, "wd": 2}, "again": base}


BOMB = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12))
LADDER = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 100))
MERGES = "a0: &a0 {k: 1}\n" + "".join(f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 10)}]}}\n" for i in range(1, 12))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (BOMB, "more than 20,000 nodes"),
        (MERGES, "more than 20,000 nodes"),
        (LADDER, "deeper than 64"),
        ("a: &a [*a]", r"\*a refers to itself"),
        ("&a {b: *a}", r"\*a refers to itself"),
        ("a: " + "[" * 100_000, "deeper than 64"),
        ("- " * 100 + "x", "deeper than 64"),
        ("a:\n  b: 1\n  b: 2", "line 3: key 'b' is given twice"),
        ("{<<: {a: 1}, <<: {b: 1}}", "'<<' is given twice"),
        ("a: !!python/object/apply:os.system [exit 1]", "python/object/apply:os.system is not allowed"),
        ("a: !local 1", "!local is not allowed"),
        ("? [1]\n: 2", "a key is a list or a mapping"),
        ("a: *nowhere", "nowhere"),
        ("a: 1\n---\na: 2", "another document"),
        ("a: 0b_", "cannot be read as YAML"),
        ("a: [", "cannot be read as YAML"),
        ('a: "\\ud800"', "surrogate"),
    ],
)
def test_yaml_that_is_hostile_or_malformed_is_refused_by_name(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(InputRefused, match=reason) as caught:
        yaml_of(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path / 'config.yaml'}: ")


def test_yaml_that_is_not_utf8_or_too_long_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(b"a: \xff")
    with pytest.raises(InputRefused, match="utf-8"):
        read_yaml(path)
    with pytest.raises(InputRefused, match="has 4 bytes"):
        read_yaml(path, max_bytes=3)


@settings(deadline=None)
@given(DOCUMENTS)
def test_yaml_reads_back_as_it_was_here_and_in_pyyaml(tmp_path_factory: pytest.TempPathFactory, document: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "document.yaml"
    path.write_bytes(dump_yaml(document))
    assert read_yaml(path) == document
    assert yaml.safe_load(path.read_bytes()) == document


def test_yaml_is_written_sorted_without_aliases_and_with_floats_that_are_floats() -> None:
    shared = ["x"]
    document = {"b": shared, "a": {"lr": 1e-05, "text": "1e-4", "again": shared}}
    assert dump_yaml(document) == b"a:\n    again:\n    - x\n    lr: 1.0e-05\n    text: '1e-4'\nb:\n- x\n"


def test_importing_the_module_does_not_import_yaml() -> None:
    program = "import sys, mmconvert.documents; sys.exit('yaml' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parents[1], check=False).returncode == 0


def test_a_number_of_thousands_of_digits_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(f"a: 0x{'f' * 5000}")
    with pytest.raises(InputRefused, match=r"a\.yaml: holds a number of thousands of digits"):
        read_yaml(tmp_path / "a.yaml")
