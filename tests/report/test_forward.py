"""The drawing of what two forward passes have in common."""

from __future__ import annotations

import json
from math import inf

import pytest

from mmconvert.parity import Agreement, Parity
from mmconvert.report.forward import draw_parity, parity_document

LOGITS = Agreement((2, 3, 5), largest=4.0, max_abs=1e-6, allowed=8e-5, kl=2e-12, argmax=1.0)
FEATURES = Agreement((2, 4), largest=0.5, max_abs=0.0, allowed=2e-5)


def parity(*problems: str, **outputs: Agreement) -> Parity:
    named = {name.replace("_", " "): each for name, each in outputs.items()}
    return Parity("/a", "/b", 2e-5, 0, named, problems=problems)


def test_the_last_line_tells_of_the_output_that_a_model_is_for(capsys: pytest.CaptureFixture[str]) -> None:
    draw_parity(parity(image_features=FEATURES, text_logits=FEATURES, logits=LOGITS))
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "verified: /b computes what /a does: logits within 1.0e-06 (tolerance 8.0e-05)"


def test_nothing_is_verified_where_something_differs(capsys: pytest.CaptureFixture[str]) -> None:
    draw_parity(parity("logits: differs", "and more", logits=LOGITS))
    assert capsys.readouterr().out.splitlines()[-2:] == ["logits: differs", "and more"]


def test_sides_that_take_no_input_in_common_have_no_table(capsys: pytest.CaptureFixture[str]) -> None:
    draw_parity(parity("vocab_size: 1 in A, 2 in B"))
    assert capsys.readouterr().out == "vocab_size: 1 in A, 2 in B\n"


@pytest.mark.parametrize(("share", "shown"), [(1.0, "100 %"), (0.99999, "99.9 %"), (0.5, "50 %"), (0.0, "0 %")])
def test_a_share_is_not_rounded_up_to_all(share: float, shown: str, capsys: pytest.CaptureFixture[str]) -> None:
    draw_parity(parity(logits=Agreement((1, 2), 1.0, 0.0, 1.0, kl=0.0, argmax=share)))
    assert capsys.readouterr().out.splitlines()[2].split("nats")[1].strip() == shown


def test_infinite_differences_are_drawn_in_words_and_null_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    found = parity("logits: odd", logits=Agreement((1, 2), 1.0, inf, 1.0, nonfinite=1))
    draw_parity(found)
    assert capsys.readouterr().out.count("infinite") == 2
    (output,) = json.loads(json.dumps(parity_document(found), allow_nan=False))["outputs"]
    assert (output["max_abs"], output["max_rel"], output["kl"], output["ok"]) == (None, None, None, False)
