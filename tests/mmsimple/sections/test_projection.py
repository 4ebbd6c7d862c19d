"""Projectors in a section: by which names, with which layers, and what they take and give."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mmconvert.errors import InputRefused
from mmsimple.config import AveragePoolingConfig, FeedForwardConfig, IdentityConfig, ProjectorConfig
from mmsimple.sections.projection import check_grid, output_width, read_projection, write_projection
from tests.mmsimple.sections.examples import FILE, MLP, MMSIMPLE, assert_refused, changed

PATH = "image_model_list.global_image_projection"
BARE = {"name": "FeedForwardNetwork", "input_unit": 32, "layers_units": [40, 48]}
POOLING: dict[str, Any] = {"name": "AveragePooling", "input_unit": 32, "output_unit": 48, "grid": [1, 2]}
NAMES = "FeedForwardNetwork, MLP, Identity, AveragePooling"
ACTIVATIONS = "gelu, quick_gelu, relu, silu, tanh, sigmoid, swish, linear and null"
POOLED = AveragePoolingConfig(32, 48, (1, 2))
STACKED = FeedForwardConfig(32, (40, 48), ("gelu", None), (0.0, 0.0))


def read(section: Any) -> ProjectorConfig | None:
    return read_projection(section, FILE, PATH)


def refuse(section: Any, *said: str) -> None:
    assert_refused("mmsimple-llava", changed(MMSIMPLE, image_model_list__global_image_projection=section), *said)


def test_null_is_no_projection() -> None:
    assert read(None) is None


@pytest.mark.parametrize("name", ["FeedForwardNetwork", "MLP"])
def test_a_stack_of_layers_has_two_names(name: str) -> None:
    section = {
        "name": name,
        "input_unit": 32,
        "layers_units": [40, 44, 48],
        "layers_activation": ["gelu", "tanh", None],
        "layers_dropout_rates": [0.25, 1, 0.5],
        "use_bias": True,
    }
    expected = FeedForwardConfig(32, (40, 44, 48), ("gelu", "tanh", None), (0.25, 1.0, 0.5), use_bias=True)
    assert read(section) == expected


@pytest.mark.parametrize("nulls", [{}, {"layers_activation": None, "layers_dropout_rates": None}])
def test_layers_alone_have_no_activation_dropout_or_bias(nulls: dict[str, None]) -> None:
    assert read({**BARE, **nulls}) == FeedForwardConfig(32, (40, 48), (None, None), (0.0, 0.0), use_bias=False)


def test_a_rate_that_is_null_is_no_dropout() -> None:
    config = read({**BARE, "layers_dropout_rates": [None, 0.5]})
    assert isinstance(config, FeedForwardConfig)
    assert config.layers_dropout_rates == (0.0, 0.5)


@pytest.mark.parametrize(
    ("spelled", "meant"),
    [
        *((name, name) for name in ("gelu", "quick_gelu", "relu", "silu", "tanh", "sigmoid")),
        *(("swish", "silu"), ("linear", None), (None, None)),
    ],
)
def test_an_activation_is_read_under_one_name(spelled: str | None, meant: str | None) -> None:
    config = read({**BARE, "layers_activation": ["relu", spelled]})
    assert isinstance(config, FeedForwardConfig)
    assert config.layers_activation == ("relu", meant)


@pytest.mark.parametrize("name", ["gelu_new", "GELU", "swiglu", ""])
def test_an_unknown_activation_is_refused_with_those_there_are(name: str) -> None:
    said = f"{PATH}.layers_activation has {name}; mmsimple computes {ACTIVATIONS}"
    refuse({**MLP, "layers_activation": [None, name]}, said)


def test_what_is_told_of_an_activation_or_a_field_is_short_and_in_one_line() -> None:
    refuse({**MLP, "layers_activation": [None, "x\n" * 99]}, f"{PATH}.layers_activation has x\\nx\\n", "x\\n; mmsimple")
    refuse({**MLP, "x\n" * 99: 1}, f"{PATH}.x\\nx\\n", "x\\n: no such field")
    refuse({**POOLING, "x\n" * 99: 1}, f"{PATH}.x\\nx\\n", "x\\n: no such field")


@pytest.mark.parametrize("field", ["layers_activation", "layers_dropout_rates"])
@pytest.mark.parametrize("values", [[], [None], [None, None, None]])
def test_what_layers_have_must_be_said_of_each(field: str, values: list[None]) -> None:
    refuse({**MLP, field: values}, f"{PATH}.{field} is {values}: layers_units has 2 layers")


@pytest.mark.parametrize(
    ("section", "shown"),
    [
        ({"name": "Resampler"}, "Resampler"),
        ({"name": "feedforwardnetwork"}, "feedforwardnetwork"),
        ({"name": None}, "null"),
        ({"name": ["MLP"]}, "['MLP']"),
        ({}, "null"),
    ],
)
def test_an_unknown_projector_is_refused_with_those_there_are(section: dict[str, Any], shown: str) -> None:
    refuse(section, f"{PATH}.name is {shown}; registered projectors are {NAMES}")


def test_an_identity_has_nothing_but_its_name() -> None:
    assert read({"name": "Identity"}) == IdentityConfig()


@pytest.mark.parametrize(("given", "bias"), [({}, True), ({"use_bias": True}, True), ({"use_bias": False}, False)])
def test_a_pooling_has_a_grid_of_rows_and_columns_and_a_bias_by_default(given: dict[str, bool], bias: bool) -> None:
    assert read({**POOLING, **given}) == AveragePoolingConfig(input_unit=32, output_unit=48, grid=(1, 2), use_bias=bias)


@pytest.mark.parametrize("value", [None, 0, -1, True, 32.0, "32"])
@pytest.mark.parametrize("field", ["input_unit", "output_unit"])
def test_the_widths_of_a_pooling_are_integers_above_0(field: str, value: Any) -> None:
    shown = {None: "null", True: "true"}.get(value, value)
    refuse({**POOLING, field: value}, f"{PATH}.{field} is {shown}: it must be an integer of at least 1")


@pytest.mark.parametrize("grid", [2, [2], [1, 1, 1], [0, 1], [1, -1], [1, True], [1, 1.0], "12"])
def test_a_grid_that_is_not_two_counts_is_refused(grid: Any) -> None:
    refuse({**POOLING, "grid": grid}, f"{PATH}.grid is {grid}: it must be [rows, columns], each at least 1")


def test_a_pooling_without_a_grid_is_refused() -> None:
    section = {name: value for name, value in POOLING.items() if name != "grid"}
    refuse(section, f"{PATH}.grid is null: it must be [rows, columns], each at least 1")


@pytest.mark.parametrize(("value", "shown"), [(None, "null"), (1, "1"), ("yes", "yes")])
def test_the_bias_of_a_pooling_is_a_switch(value: Any, shown: str) -> None:
    refuse({**POOLING, "use_bias": value}, f"{PATH}.use_bias is {shown}: it must be true or false")


@pytest.mark.parametrize(
    ("section", "field", "hint"),
    [
        (MLP, "layers_unit", "; did you mean layers_units?"),
        (POOLING, "output_units", "; did you mean output_unit?"),
        (POOLING, "layers_activation", ""),
        ({"name": "Identity"}, "nam", "; did you mean name?"),
        ({"name": "Identity"}, "input_unit", ""),
    ],
)
def test_an_unknown_field_is_refused_with_the_nearest(section: dict[str, Any], field: str, hint: str) -> None:
    with pytest.raises(InputRefused) as caught:
        read({**section, field: 1})
    assert str(caught.value) == f"{FILE}: {PATH}.{field}: no such field{hint}"


@pytest.mark.parametrize(
    "config",
    [
        IdentityConfig(),
        POOLED,
        AveragePoolingConfig(8, 16, (3, 2), use_bias=False),
        STACKED,
        FeedForwardConfig(8, (16,), ("silu",), (0.25,), use_bias=True),
        FeedForwardConfig(8, (16, 4, 2), (None, "relu", "tanh"), (0.0, 0.0, 0.5)),
    ],
)
def test_what_is_written_reads_back_the_same(config: ProjectorConfig) -> None:
    assert read(write_projection(config)) == config


def test_dropout_is_written_only_where_there_is_some() -> None:
    assert "layers_dropout_rates" not in write_projection(STACKED)


@pytest.mark.parametrize(
    ("projection", "width"), [(None, 32), (IdentityConfig(), 32), (STACKED, 48), (POOLED, 48)], ids=str
)
def test_features_come_out_as_wide_as_the_last_layer(projection: ProjectorConfig | None, width: int) -> None:
    assert output_width(projection, 32, FILE, PATH) == width


@pytest.mark.parametrize("projection", [STACKED, POOLED], ids=str)
@pytest.mark.parametrize("width", [31, 48])
def test_features_of_another_width_are_refused(projection: ProjectorConfig, width: int) -> None:
    with pytest.raises(InputRefused) as caught:
        output_width(projection, width, FILE, PATH)
    assert str(caught.value) == f"{FILE}: {PATH}.input_unit is 32, but it gets features of width {width}"


@pytest.mark.parametrize("patches", [(2, 3), (4, 4)])
def test_a_grid_may_be_that_of_the_patches_or_smaller(patches: tuple[int, int]) -> None:
    check_grid(replace(POOLED, grid=(2, 3)), patches, FILE, PATH)


@pytest.mark.parametrize("patches", [(1, 3), (2, 2)])
def test_a_grid_with_more_rows_or_columns_than_the_patches_is_refused(patches: tuple[int, int]) -> None:
    with pytest.raises(InputRefused) as caught:
        check_grid(replace(POOLED, grid=(2, 3)), patches, FILE, PATH)
    assert str(caught.value) == f"{FILE}: {PATH}.grid is [2, 3], but the encoder's is {list(patches)}"


@pytest.mark.parametrize("projection", [None, IdentityConfig(), STACKED], ids=str)
def test_only_a_pooling_needs_a_grid(projection: ProjectorConfig | None) -> None:
    check_grid(projection, None, FILE, PATH)
    with pytest.raises(InputRefused, match=r"AveragePooling needs the grid of one encoder's patches"):
        check_grid(POOLED, None, FILE, PATH)
