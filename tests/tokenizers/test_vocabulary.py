"""Which ids a tokenizer has, and how many, from its files alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mmconvert.errors import InputRefused
from mmconvert.tokenizers import at_or_above, ids, length, vocabulary

VOCAB = {"a": 0, "b": 1, "c": 2}


def files(folder: Path, **documents: Any) -> dict[str, Path]:
    found = {}
    for stem, document in documents.items():
        name = f"{stem}.json"
        (folder / name).write_text(document if isinstance(document, str) else json.dumps(document))
        found[name] = folder / name
    return found


def test_a_sentencepiece_model_has_its_pieces(tokenizer: bytes, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(tokenizer)
    assert length({"tokenizer.model": tmp_path / "tokenizer.model"}) == 101


def test_added_tokens_count_once(tokenizer: bytes, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(tokenizer)
    added = files(tmp_path, added_tokens={"<image>": 101, "</s>": 2})
    assert length({"tokenizer.model": tmp_path / "tokenizer.model", **added}) == 102


@pytest.mark.parametrize("vocabulary", [VOCAB, [["a", 0.0], ["b", -1.0], ["c", -2.0]]])
def test_a_fast_tokenizer_has_its_vocabulary_and_added_tokens(tmp_path: Path, vocabulary: object) -> None:
    document = {"model": {"vocab": vocabulary}, "added_tokens": [{"id": 2, "content": "c"}, {"id": 3, "content": "d"}]}
    assert length(files(tmp_path, tokenizer=document)) == 4


@pytest.mark.parametrize("document", ["", "[]", "{}", '{"model": {"vocab": 3}}'])
def test_a_file_that_does_not_say_gives_no_number(tmp_path: Path, document: str) -> None:
    assert length(files(tmp_path, tokenizer=document)) is None


@pytest.mark.parametrize("data", [b"", b"garbage", b"\x0a\xff\xff"])
def test_a_damaged_sentencepiece_model_gives_no_number(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "tokenizer.model").write_bytes(data)
    assert length({"tokenizer.model": tmp_path / "tokenizer.model"}) is None


def test_no_tokenizer_gives_no_number() -> None:
    assert length({}) is None


def test_tokens_are_those_of_the_vocabulary_and_those_added_beside_it(tokenizer: bytes) -> None:
    config = b'{"added_tokens_decoder": {"102": {"content": "<pad>"}}}'
    found = ids(
        {"tokenizer.model": tokenizer, "added_tokens.json": b'{"<image>": 101}', "tokenizer_config.json": config}
    )
    assert found is not None
    assert (found["</s>"], found["<image>"], found["<pad>"]) == (2, 101, 102)
    assert len(found) == 103


def test_a_slow_tokenizer_has_the_ids_of_its_vocabulary() -> None:
    assert ids({"vocab.json": b'{"a": 0, "b": 1}', "merges.txt": b""}) == {"a": 0, "b": 1}


def test_the_tokens_from_an_id_on_come_in_the_order_of_their_ids() -> None:
    files = {"vocab.json": b'{"c": 2, "a": 0, "b": 1}', "added_tokens.json": b'{"e": 4, "d": 3}'}
    assert list(at_or_above(files, 2).items()) == [("c", 2), ("d", 3), ("e", 4)]
    assert at_or_above({}, 2) == {}


def test_files_without_a_vocabulary_give_no_ids() -> None:
    assert ids({"added_tokens.json": b'{"<image>": 101}', "merges.txt": b""}) is None


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("tokenizer.json", b'{"model": {"vocab": {"a": "0"}}}'),
        ("tokenizer.json", b'{"model": {"vocab": {"a": -1}}}'),
        ("tokenizer.json", b'{"model": {"vocab": {"a": true}}}'),
        ("tokenizer.json", b'{"model": {"vocab": [["a", 0], []]}}'),
        ("tokenizer.json", b'{"model": {"vocab": {}}, "added_tokens": [{"id": 1, "content": []}]}'),
        ("tokenizer.json", b'{"model": {"vocab": {}}, "added_tokens": [3]}'),
        ("added_tokens.json", b'["a"]'),
        ("vocab.json", b"null"),
        ("tokenizer_config.json", b'{"added_tokens_decoder": {"x": {"content": "a"}}}'),
        ("tokenizer_config.json", b'{"added_tokens_decoder": {"1000000000": {"content": "a"}}}'),
        ("tokenizer_config.json", b'{"added_tokens_decoder": {"%s": {"content": "a"}}}' % (b"1" * 5000)),
        ("tokenizer_config.json", b'{"added_tokens_decoder": {"1": {"content": null}}}'),
        ("tokenizer_config.json", b'{"added_tokens_decoder": null}'),
        ("tokenizer_config.json", b"[" * 100_000),
    ],
)
def test_a_damaged_file_is_refused_by_name(name: str, data: bytes) -> None:
    with pytest.raises(InputRefused, match=name):
        ids({name: data})


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("tokenizer.json", b'{"model": {"vocab": {"a": 0, "b": 1, "c": 2}}}'),
        ("tokenizer.json", b'{"model": {"vocab": [["a", 0.0], ["b", 0.0], ["c", 0.0]]}}'),
        ("vocab.json", b'{"a": 0, "b": 1, "c": 2}'),
    ],
)
def test_more_tokens_than_any_vocabulary_has_are_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, data: bytes
) -> None:
    monkeypatch.setattr(vocabulary, "MAX_TOKENS", 3)
    assert len(ids({name: data}) or {}) == 3
    monkeypatch.setattr(vocabulary, "MAX_TOKENS", 2)
    with pytest.raises(InputRefused, match=rf"{name}: has 3 tokens; at most 2"):
        ids({name: data})
