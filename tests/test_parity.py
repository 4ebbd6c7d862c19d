"""How far two outputs are apart, on examples that can be computed by hand."""

from __future__ import annotations

from math import inf, log, nan

import numpy as np
import pytest
from numpy.typing import NDArray

from mmconvert import parity
from mmconvert.parity import Agreement, Parity, agreement, only_one_side


def array(*rows: list[float]) -> NDArray[np.float32]:
    return np.array(rows, np.float32)


def test_differences_are_absolute_and_relative_to_the_largest_value() -> None:
    found = agreement(array([1, -8], [0, 4]), array([1, -8], [0.5, 2]), 0.01)
    assert found == Agreement((2, 2), largest=8, max_abs=2, allowed=0.08)
    assert found.max_rel == 0.25
    assert not found.ok
    assert found.complaint == "differs by 2.0e+00, and 8.0e-02 is allowed"


def test_small_outputs_are_allowed_what_one_would_be() -> None:
    found = agreement(array([0.25]), array([0.25 + 2**-7]), 2**-7)
    assert found.allowed == 2**-7
    assert found.ok
    assert not agreement(array([0.25]), array([0.25 + 2**-6]), 2**-7).ok


@pytest.mark.parametrize(("b", "share"), [(0, 0), (1, inf)])
def test_where_a_is_zero_any_difference_is_infinitely_large(b: float, share: float) -> None:
    assert agreement(array([0]), array([b]), 1).max_rel == share


def test_divergence_and_likeliest_tokens_are_means_over_positions() -> None:
    # A is evenly split, B is 3 to 1: KL = ln(1/2 / 3/4) / 2 + ln(1/2 / 1/4) / 2. The other position is equal.
    a, b = array([0, 0], [1, 5]), array([log(1), log(3)], [1, 5])
    found = agreement(a, b, 1, logits=True)
    assert found.kl == pytest.approx((log(2 / 3) / 2 + log(2) / 2) / 2)
    assert found.argmax == 0.5
    # The other way round it is another number: 3/4 ln(3/4 / 1/2) + 1/4 ln(1/4 / 1/2).
    assert agreement(b, a, 1, logits=True).kl == pytest.approx((0.75 * log(1.5) + 0.25 * log(0.5)) / 2)
    assert agreement(a, b, 1).kl is None


def test_large_logits_do_not_overflow() -> None:
    found = agreement(array([3e4, 0]), array([3e4, 0]), 1, logits=True)
    assert (found.kl, found.argmax) == (0, 1)


@pytest.mark.parametrize("odd", [nan, inf, -inf])
def test_what_is_not_finite_on_one_side_fails(odd: float) -> None:
    for a, b in ((odd, 1), (1, odd)):
        found = agreement(array([a, 2]), array([b, 2]), 1e9, logits=True)
        assert (found.max_abs, found.ok, found.kl) == (inf, False, None)
        assert "NaN or infinite" in found.complaint


def test_infinities_of_two_signs_are_not_the_same() -> None:
    assert not agreement(array([inf]), array([-inf]), 1).ok


@pytest.mark.parametrize("odd", [nan, inf])
def test_what_is_not_finite_and_the_same_on_both_sides_is_counted(odd: float) -> None:
    both = array([odd, 2], [1, 2])
    assert agreement(both, both, 1, logits=True) == Agreement((2, 2), 2, 0, 2, nonfinite=1, kl=0, argmax=1)


def test_pieces_add_up_to_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(0)
    a, b = (draw.standard_normal((2, 5, 7)).astype(np.float32) for _ in range(2))
    whole = agreement(a, b, 1, logits=True)
    monkeypatch.setattr(parity, "PIECE", 15)
    pieces = agreement(a, b, 1, logits=True)
    assert (pieces.max_abs, pieces.largest, pieces.argmax) == (whole.max_abs, whole.largest, whole.argmax)
    assert pieces.max_abs == float(np.abs(a.astype(np.float64) - b).max())
    assert pieces.kl == pytest.approx(whole.kl)


def test_what_only_one_side_gives_is_told_with_the_reason() -> None:
    whole = {"text logits", "image features", "projected image features", "logits"}
    assert list(only_one_side({"text logits", "image features"}, whole)) == [
        "no projector in A: the parts are compared apart, without logits, projected image features"
    ]
    assert list(only_one_side({"image features", "image embeds"}, {"image features"})) == [
        "no image projection in B, without image embeds"
    ]
    assert list(only_one_side({"image features", "new"}, {"image features"})) == [
        "new: not compared, B does not give it"
    ]


def test_hidden_states_need_no_word_where_their_logits_are_compared() -> None:
    assert list(only_one_side({"text logits", "text hidden states"}, {"text logits"})) == []
    assert list(only_one_side({"image embeds", "text hidden states"}, {"image embeds"})) != []


def test_parity_is_ok_without_problems() -> None:
    assert Parity("a", "b", 1, 0, {}).ok
    assert not Parity("a", "b", 1, 0, {}, problems=("one",)).ok
