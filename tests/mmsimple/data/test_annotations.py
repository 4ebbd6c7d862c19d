"""Annotation files, by line or as a list."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmconvert.errors import InputRefused
from mmsimple.data.annotations import read_annotations


def test_a_list_gives_its_records_whatever_they_are(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('[{"id": 1}, 2, null, "x"]')
    assert read_annotations(tmp_path / "a.json") == [{"id": 1}, 2, None, "x"]


def test_lines_are_records_and_one_that_is_no_json_is_none(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"id": 1}\n\n{"id": \n[' + "[" * 100_000 + "\n2\n")
    assert read_annotations(tmp_path / "a.jsonl") == [{"id": 1}, None, None, 2]


def test_other_line_ends_are_part_of_a_line(tmp_path: Path) -> None:
    text = "a\u2028b\u0085c\x0cd"
    (tmp_path / "a.jsonl").write_text(json.dumps({"x": text}, ensure_ascii=False) + "\n", "utf-8")
    assert read_annotations(tmp_path / "a.jsonl") == [{"x": text}]


def test_a_number_of_thousands_of_digits_is_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(f'[{{"id": {"9" * 5000}}}, {{"id": 7}}]')
    assert read_annotations(tmp_path / "a.json") == [{"id": None}, {"id": 7}]


@pytest.mark.parametrize("data", [b"\xff\xfe", b'{"a": 1}', b"[1,", b"[" * 100_000, b""])
def test_what_is_no_list_is_refused_in_a_line(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(data)
    with pytest.raises(InputRefused, match=f"^{path}: ") as caught:
        read_annotations(path)
    assert "\n" not in str(caught.value)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputRefused):
        read_annotations(tmp_path)
