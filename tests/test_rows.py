"""Row rules: one list of rows, its inverse, and one after the other."""

from __future__ import annotations

import random

import pytest

from mmconvert.rows import compose, inverse, is_identity, is_permutation, roll_cls, roll_index, rotary, rotary_index


def test_a_head_goes_from_halves_to_pairs() -> None:
    assert list(rotary_index(12, 2, 6)) == [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]


def test_rows_past_the_rotary_ones_stay() -> None:
    assert list(rotary_index(10, 1, 4)) == [0, 2, 1, 3, 4, 5, 6, 7, 8, 9]


@pytest.mark.parametrize("rotary_dim", [12, 20, 96, 8])
@pytest.mark.parametrize("head_dim", [12, 20, 96])
def test_an_interleave_is_a_permutation_within_each_head(head_dim: int, rotary_dim: int) -> None:
    rotary_dim = min(rotary_dim, head_dim)
    index = rotary_index(3 * head_dim, 3, rotary_dim)
    assert is_permutation(index)
    assert all(source // head_dim == target // head_dim for target, source in enumerate(index))
    assert is_identity(index) == (rotary_dim <= 2)


def test_a_rule_says_in_words_what_it_was_given() -> None:
    index, words = rotary("heads", "size").for_rows(8, {"heads": 2, "size": 4, "other": 7})
    assert list(index) == [0, 2, 1, 3, 4, 6, 5, 7]
    assert "2" in words
    assert "heads" in words


def test_the_class_token_moves_from_first_to_last() -> None:
    assert list(roll_cls.for_rows(4, {})[0]) == [1, 2, 3, 0]


def test_the_inverse_undoes() -> None:
    shuffled = random.Random(0).sample(range(50), 50)
    for index in (rotary_index(60, 3, 20), roll_index(7), shuffled):
        assert compose(index, inverse(index), len(index)) is None
        assert compose(inverse(index), index, len(index)) is None


def test_composition_takes_rows_through_both() -> None:
    first, second = [2, 0, 1], [1, 0, 2]
    rows = ["a", "b", "c"]
    between = [rows[at] for at in first]
    composed = compose(first, second, 3)
    assert composed is not None
    assert [rows[at] for at in composed] == [between[at] for at in second]


def test_nothing_composed_with_something_is_that_thing() -> None:
    assert compose(None, None, 2) is None
    assert compose([1, 0], None, 2) == [1, 0]
    assert compose(None, [1, 0], 2) == [1, 0]
    assert compose(None, [0, 1], 2) is None


@pytest.mark.parametrize(
    ("index", "expected"), [([0, 1, 2], True), ([2, 0, 1], True), ([0, 0, 1], False), ([1, 2], False)]
)
def test_a_permutation_has_every_row_once(index: list[int], expected: bool) -> None:
    assert is_permutation(index) is expected
