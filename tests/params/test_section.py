"""The model's own section of a params file, taken out and put back."""

from __future__ import annotations

from typing import Any

import pytest

from mmconvert.params import model_fields, model_section, with_section


@pytest.mark.parametrize(
    ("document", "section"),
    [
        ({"model": {"a": 1}}, {"a": 1}),
        ({"trainer": {"init": {"model": {"a": 2}}}, "model": {"a": 1}}, {"a": 2}),
        ({"model": {"a": 1, "mixed_precision": True, "use_bfloat16": True, "lora_params": {}}}, {"a": 1}),
        ({"trainer": {"init": {"model": {"a": 2, "mixed_precision": True}}}}, {"a": 2, "mixed_precision": True}),
    ],
)
def test_it_is_flat_or_the_trainers_and_fields_of_the_run_are_no_part_of_a_flat_one(
    document: Any, section: Any
) -> None:
    assert model_section(document) == section


@pytest.mark.parametrize(
    ("document", "why"),
    [
        ({"trainer": {"init": {}}}, r"trainer\.init\.model is absent"),
        ({"model": "llama"}, "model is 'llama', but must be a mapping"),
        ({"trainer": [{"init": {}}]}, r"trainer is \[.*put one run into a file of its own"),
        ([], r"the file is \[\]"),
        (7, "the file is 7, but must be a mapping"),
        ({"optimizer": {}}, "model is absent"),
    ],
)
def test_where_it_is_missing_the_place_is_named(document: Any, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        model_section(document)


def test_fields_of_the_run_stay_when_another_section_takes_its_place() -> None:
    flat = {"model": {"a": 1, "mixed_precision": True}, "optimizer": {"b": 2}}
    assert with_section(flat, {"c": 3}) == {"model": {"mixed_precision": True, "c": 3}, "optimizer": {"b": 2}}
    assert with_section({"trainer": {"fit": 1}}, {"c": 3}) == {"trainer": {"fit": 1, "init": {"model": {"c": 3}}}}
    assert with_section({}, {"c": 3}) == {"model": {"c": 3}}
    assert flat["model"] == {"a": 1, "mixed_precision": True}


def test_of_some_fields_those_that_it_says_are_given_null_or_not() -> None:
    flat = {"model": {"freeze": None, "hidden_size": 8}}
    for document in (flat, {"trainer": {"init": flat}}):
        assert model_fields(document, ("freeze", "loss_weight")) == {"freeze": None}
    assert model_fields({"trainer": {}}, ("freeze",)) == {}


def test_a_document_without_a_place_for_it_is_refused() -> None:
    with pytest.raises(ValueError, match=r"trainer\.init is \[1\], but must be a mapping"):
        with_section({"trainer": {"init": [1]}}, {})
