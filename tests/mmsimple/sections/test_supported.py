"""No field that CS accepts is passed over: each is read, or refused at a value that is not computed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from mmconvert.errors import InputRefused
from mmconvert.paths import put
from mmconvert.schema import Schema, load
from mmsimple import sections
from mmsimple.sections import supported
from mmsimple.sections.projection import read_projection
from mmsimple.sections.supported import Part
from tests.mmsimple.sections import examples
from tests.mmsimple.sections.examples import FILE, assert_refused

Read = Callable[[Any], Any]


def reader(model: str) -> Read:
    return lambda section: sections.read(model, section, FILE)


# Each part with a section of it, and what reads that.
PARTS: dict[str, tuple[Part, dict[str, Any], Read]] = {
    "encoder": (supported.ENCODER, examples.ENCODER, reader("clip-encoder")),
    "classifier": (supported.CLASSIFIER, examples.CLASSIFIER, reader("clip-vit")),
    "decoder": (
        supported.DECODER,
        examples.TEXT,
        lambda section: reader("mmsimple-llava")({**examples.MMSIMPLE, "text_model": section}),
    ),
    "llama": (supported.LLAMA, {**examples.LLAMA, "name": "llama"}, reader("llama")),
    "mistral": (supported.MISTRAL, {**examples.LLAMA, "name": "mistral"}, reader("mistral")),
    "projection": (supported.FEED_FORWARD, examples.MLP, lambda section: read_projection(section, FILE, "projector")),
    "multimodal": (supported.MULTIMODAL, examples.MMSIMPLE, reader("mmsimple-llava")),
    "llava": (supported.LLAVA, examples.LLAVA, reader("llava")),
}
PROJECTION = "image_model_list__global_image_projection"
FIELDS = [(part, name) for part, (each, _, _) in PARTS.items() for name in load(*each.schemas).document["properties"]]
NUMBERS = (0, 1, 3, 7, 0.25, 4.5, -1)
ANYTHING: tuple[Any, ...] = (
    *(True, False, None, *NUMBERS, "relu", "geglu"),
    *([], [2], ["x"], [8, 8], ["relu", "tanh"], {}),
)
MAPPINGS = ({"name": "x"}, {"num_kv_groups": 4}, {"static_dual_expert": True}, {"image_model": None})


def valid(schema: Schema, section: Mapping[str, Any], name: str) -> list[Any]:
    """Values that the class accepts for a field."""
    values = [*ANYTHING, [0.5, 0.5], [7, 48], *MAPPINGS, *schema.choices(name)]
    return [value for value in values if schema.problem({**section, name: value}) is None]


def outcome(read: Read, section: dict[str, Any]) -> Any:
    try:
        return read(section)
    except InputRefused as refused:
        return str(refused)


@pytest.mark.parametrize(("part", "name"), FIELDS)
def test_no_field_is_ignored(part: str, name: str) -> None:
    which, section, read = PARTS[part]
    plain = read(section)
    values = valid(load(*which.schemas), section, name)
    outcomes = [(value, outcome(read, {**section, name: value})) for value in values]
    if name in which.read:
        assert any(each != plain for _, each in outcomes)
        return
    if name in which.moot:
        assert all(each == plain for _, each in outcomes)
        return
    accepted = [value for value, each in outcomes if not isinstance(each, str)]
    allowed = which.supported(name)
    assert allowed is not None
    assert all(value in allowed for value in accepted)
    refused = [each for _, each in outcomes if isinstance(each, str)]
    assert all(f"{name} is " in each for each in refused)
    # Only what a model is called has no other value.
    assert refused or name == "name"


def test_what_means_nothing_is_known() -> None:
    moot = {part: which.moot for part, (which, _, _) in PARTS.items() if which.moot}
    assert moot == {"encoder": {"num_classes"}}


@pytest.mark.parametrize(
    ("part", "name"),
    # Sorted, for the workers that share the tests must all see them in one order.
    [
        (part, name)
        for part, (which, _, _) in PARTS.items()
        for name in sorted({*which.values, *which.read, *which.moot})
    ],
)
def test_the_tables_name_fields_that_exist(part: str, name: str) -> None:
    assert name in load(*PARTS[part][0].schemas).document["properties"]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("image_model_list.image_feature_select_mode", "cls_patch"),
        ("image_model_list.global_image_projection", None),
        ("image_model_list.image_models", []),
        ("image_model_list.image_models.0.image_encoder", {**examples.ENCODER, "num_heads": 2}),
        ("image_model_list.image_models.0.projection_layer", {"name": "Identity"}),
        ("text_model", {**examples.TEXT, "num_heads": 2}),
    ],
)
def test_no_place_of_a_part_is_ignored(path: str, value: Any) -> None:
    read = reader("mmsimple-llava")
    assert outcome(read, put(examples.MMSIMPLE, path, value)) != read(examples.MMSIMPLE)


@pytest.mark.parametrize(
    ("model", "section", "absent", "default"),
    [
        ("llama", examples.LLAMA, "norm_type", "layernorm"),
        ("llama", examples.LLAMA, "position_embedding_type", "learned"),
        ("llama", examples.LLAMA, "nonlinearity", "gelu"),
        ("clip-encoder", examples.ENCODER, "use_conv_patchified_embedding", "false"),
    ],
)
def test_a_field_left_out_is_its_class_default_and_refused_as_such(
    model: str, section: dict[str, Any], absent: str, default: str
) -> None:
    left = {name: value for name, value in section.items() if name != absent}
    assert_refused(model, left, f"{absent} is {default} by default; mmsimple computes ")


def test_a_field_that_does_not_exist_is_refused_with_the_nearest() -> None:
    section = examples.changed(examples.MMSIMPLE, text_model__filter_sise=1)
    assert_refused("mmsimple-llava", section, "text_model.filter_sise: no such field; did you mean filter_size?")


def test_a_refusal_says_field_and_value_and_what_is_supported() -> None:
    path = "image_model_list.image_models.0.image_encoder"
    section = put(examples.MMSIMPLE, f"{path}.nonlinearity", "gelu_new")
    assert_refused(
        "mmsimple-llava", section, f"{path}.nonlinearity is gelu_new; mmsimple computes gelu or quick_gelu or relu"
    )


def test_one_is_not_true() -> None:
    assert supported.DECODER.supported("attention_logits_alpha") == (1.0,)
    assert_refused("llama", {**examples.LLAMA, "loop_dim": True}, "loop_dim")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 10**400])
def test_a_number_that_is_none_is_refused(value: float) -> None:
    assert_refused("llama", {**examples.LLAMA, "rope_theta": value}, "rope_theta is ", "which is no number")


def test_a_number_that_is_none_is_refused_in_a_list_too() -> None:
    section = examples.changed(
        examples.MMSIMPLE, **{PROJECTION: {**examples.MLP, "layers_dropout_rates": [float("nan"), 0.0]}}
    )
    assert_refused("mmsimple-llava", section, "layers_dropout_rates", "which is no number")


def test_a_field_that_is_no_text_is_refused() -> None:
    assert_refused("llama", {**examples.LLAMA, 1: 2}, "1: no such field")  # type: ignore[dict-item]


def test_a_precision_in_the_model_section_is_sent_where_it_belongs() -> None:
    section = {**examples.MMSIMPLE, "mixed_precision": True}
    assert_refused("mmsimple-llava", section, "mixed_precision is true", "trainer.init.precision", "mmconvert cs-to-cs")
