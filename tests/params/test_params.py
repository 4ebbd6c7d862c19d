"""Whole params files from release to release."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from mmconvert.params import convert
from mmconvert.params.carry import Move
from mmconvert.params.moves import ROWS
from mmconvert.params.values import AS_IT_IS
from mmconvert.paths import put
from mmconvert.releases import Release

CASES = Path(__file__).parent.parent / "golden" / "cases"
V19, V20, V21, V22, V23, V24, V210 = (
    Release.parse(text) for text in ["1.9", "2.0", "2.1", "2.2", "2.3", "2.4", "2.10"]
)

FLAT_22 = {"model": {"size": 1}, "runconfig": {"max_steps": 2}}
NESTED = {"trainer": {"init": {"model": {"size": 1}, "loop": {"max_steps": 2}}}}


def recorded(case: str) -> dict[str, Any]:
    """The params file that the reference system wrote in a case."""
    (text,) = json.loads((CASES / f"{case}.json").read_text("utf-8"))["written_configs"].values()
    document: dict[str, Any] = yaml.safe_load(text)
    return document


# --- recorded -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["llama_gqa", "clip_proj"])
def test_a_flat_file_moves_as_the_reference_moves_it(model: str) -> None:
    flat, nested = recorded(f"{model}__hf_to_cs-2.2"), recorded(f"{model}__cs-2.2_to_cs-2.3")
    assert convert(flat, V22, V23) == (nested, ())
    assert convert(nested, V23, V22) == (flat, ())


@pytest.mark.parametrize("case", ["llava__cs-2.2_to_cs-2.3", "mmsimple__trainerlike_cs-2.4"])
def test_a_recorded_trainer_comes_down_and_goes_up_again(case: str) -> None:
    nested = recorded(case)
    flat, dropped = convert(nested, V24, V22)
    assert not dropped
    assert flat["model"] == nested["trainer"]["init"]["model"]
    assert convert(flat, V22, V24) == (nested, ())


@pytest.mark.parametrize("model", ["llama_gqa", "clip_proj", "mmsimple"])
def test_a_trainer_stays_as_it_is_from_2_3_on(model: str) -> None:
    nested = recorded(f"{model}__trainerlike_cs-2.4")
    assert convert(nested, V24, Release(2, 5)) == (nested, ())
    assert nested == recorded(f"{model}__trainerlike_cs-2.4__to_cs-2.5")


# --- which way ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "source", "target", "wanted"),
    [
        (FLAT_22, V22, V22, FLAT_22),
        (FLAT_22, V21, V22, FLAT_22),
        (FLAT_22, V22, V23, NESTED),
        (FLAT_22, V22, V210, NESTED),
        (FLAT_22, V23, V210, FLAT_22),
        (FLAT_22, V210, V23, FLAT_22),
        (FLAT_22, V24, V22, FLAT_22),
        (NESTED, V23, V210, NESTED),
        (NESTED, V210, V23, NESTED),
        (NESTED, V23, V22, FLAT_22),
        (NESTED, V210, V19, FLAT_22),
        (NESTED, V22, V23, NESTED),
        (NESTED, V19, V20, FLAT_22),
    ],
)
def test_the_shape_follows_from_where_a_file_stands_and_where_it_goes(
    params: dict[str, Any], source: Release, target: Release, wanted: dict[str, Any]
) -> None:
    assert convert(params, source, target) == (wanted, ())


def test_all_steps_are_taken_in_turn() -> None:
    older = {
        "model": {"size": 1, "use_bfloat16": True},
        "optimizer": {"optimizer_type": "AdamW", "beta1": 0.9, "beta2": 0.95},
        "runconfig": {"use_cs_grad_accum": True, "keep_checkpoint_max": 2},
        "train_input": {"data_processor": "LlavaHDF5MapDataProcessor", "image_size": [28, 28]},
    }
    newer = {
        "trainer": {
            "init": {
                "model": {"size": 1},
                "precision": {"fp16_type": "bfloat16"},
                "optimizer": {"AdamW": {"betas": [0.9, 0.95]}},
                "callbacks": [
                    {"ScopedTrainFlags": {"csx.performance.micro_batch_size": "auto"}},
                    {"KeepNCheckpoints": {"n": 2}},
                ],
            },
            "fit": {
                "train_dataloader": {"data_processor": "LlavaHDF5MapDataProcessor", "image_data_size": [3, 28, 28]}
            },
        }
    }
    assert convert(older, V19, V210) == (newer, ())
    # Optimizers of 1.9 could be spelled as those of 2.1.
    kept = {"optimizer_type": "AdamW", "betas": [0.9, 0.95]}
    assert convert(newer, V210, V19) == ({**older, "optimizer": kept}, ())


def test_a_trainer_of_an_older_release_is_one_of_2_3() -> None:
    data = {"data_processor": "MultimodalSimpleHDF5MapDataProcessor", "image_data_size": [3, 28, 28]}
    flat, _ = convert({"trainer": {"fit": {"train_dataloader": data}}}, V20, V21)
    assert flat["train_input"]["image_size"] == [28, 28]


def test_remarks_of_all_steps_are_given() -> None:
    params = {"runconfig": {"service_dir": "x", "mode": "train", "autogen_policy": 1}}
    document, remarks = convert(params, V20, V23)
    assert document == {"trainer": {}}
    assert [remark.subject for remark in remarks] == [
        "runconfig.service_dir",
        "runconfig.autogen_policy",
        "runconfig.mode",
    ]


@pytest.mark.parametrize(
    ("params", "path"),
    [
        ({"trainer": [{"init": {}}]}, "trainer is"),
        ({"trainer": None}, "trainer is"),
        ({"trainer": {"init": 3}}, r"trainer\.init is"),
        ({"runconfig": 3}, "runconfig is"),
        ({"model": ["x"]}, "model is"),
        ({"optimizer": {"learning_rate": [3]}}, r"optimizer\.learning_rate\.0 is"),
    ],
)
def test_another_shape_is_refused_by_its_path(params: dict[str, Any], path: str) -> None:
    source, target = (V24, V22) if "trainer" in params else (V22, V24)
    with pytest.raises(ValueError, match=path):
        convert(params, source, target)


# --- any file -------------------------------------------------------------------------------------------------------


NAMES = st.sampled_from(["alpha", "beta", "a.b", "0", "gamma_delta"])
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.sampled_from(["", "x"])
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAMES, inner, max_size=2), max_leaves=4
)
SECTIONS = st.dictionaries(NAMES, VALUES, min_size=1, max_size=3)
SCHEDULERS = st.builds(
    lambda name, arguments: {"scheduler": name, **arguments},
    st.sampled_from(["Linear", "CosineDecay", "Step"]),
    SECTIONS,
)
RATES = (
    st.floats(0, 1)
    | st.lists(SCHEDULERS, min_size=1, max_size=3)
    | st.lists(SCHEDULERS, min_size=1, max_size=3).map(
        lambda rates: [{**rates[0], "main_scheduler": "chained"}, *rates[1:]]
    )
)
SWITCHES = {str(row.flat) for row in ROWS if isinstance(row, Move) and row.spelling is not AS_IT_IS}
FIELDS = {
    str(row.flat): st.booleans() if str(row.flat) in SWITCHES else VALUES for row in ROWS if isinstance(row, Move)
} | {"optimizer.learning_rate": RATES, "optimizer.adjust_learning_rate": SECTIONS}


@st.composite
def flat_files(draw: st.DrawFn) -> dict[str, Any]:
    """A flat file of 2.2: some fields of the table, and some of the sections that move whole."""
    params: dict[str, Any] = {
        "model": draw(SECTIONS),
        "optimizer": {"optimizer_type": "AdamW", **draw(SECTIONS)},
        "train_input": draw(SECTIONS),
    }
    if draw(st.booleans()):
        params["sparsity"] = draw(SECTIONS)
    if draw(st.booleans()):
        size = draw(st.lists(st.integers(1, 999), min_size=2, max_size=2))
        params["eval_input"] = {"data_processor": "LlavaHDF5MapDataProcessor", "image_size": size}
    for path in draw(st.lists(st.sampled_from(sorted(FIELDS)), unique=True)):
        if path != "eval_input.micro_batch_size" or "eval_input" in params:
            params = put(params, path, draw(FIELDS[path]))
    return params


@given(flat_files())
@settings(max_examples=200, deadline=None)
def test_any_flat_file_comes_back_from_under_trainer(flat: dict[str, Any]) -> None:
    before = copy.deepcopy(flat)
    nested, dropped = convert(flat, V22, V23)
    assert not dropped
    assert nested.keys() == {"trainer"}
    untouched = copy.deepcopy(nested)
    assert convert(nested, V23, V22) == (before, ())
    assert (flat, nested) == (before, untouched)


@given(flat_files())
@settings(max_examples=200, deadline=None)
def test_any_trainer_that_was_flat_comes_back_from_flat(flat: dict[str, Any]) -> None:
    nested, _ = convert(flat, V22, V210)
    assert convert(convert(nested, V210, V22)[0], V22, V210) == (nested, ())


@pytest.mark.parametrize("path", sorted(FIELDS))
def test_every_field_of_the_table_comes_back(path: str) -> None:
    value: Any = 0.5 if path == "optimizer.learning_rate" else True if path in SWITCHES else {"deep": [1, None]}
    base = {"model": {"size": 1}, "optimizer": {"optimizer_type": "SGD"}, "train_input": {"a": 1}}
    flat = put(base, path, value)
    nested, dropped = convert(flat, V22, V23)
    assert not dropped
    assert convert(nested, V23, V22) == (flat, ())
