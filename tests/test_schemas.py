"""Every schema is valid, is true to the classes that it describes, and reads what those classes accept."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from transformers import CLIPVisionConfig, LlamaConfig, MistralConfig

from mmconvert import registry
from mmconvert.configs import Space
from mmconvert.paths import put

ROOT = Path(__file__).parent.parent
SCHEMAS = {path.stem: json.loads(path.read_text("utf-8")) for path in sorted((ROOT / "schemas").glob("*.json"))}
ACCEPTED = ROOT / "tests/golden/forward_mmsimple/config_accepted.yaml"
CLASSES = {"hf-clip": CLIPVisionConfig, "hf-llama": LlamaConfig, "hf-mistral": MistralConfig}


def parts(schema: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The objects that a schema describes: its own and those under `$defs`."""
    yield schema
    yield from schema.get("$defs", {}).values()


def errors(schema: Mapping[str, Any], value: object) -> list[str]:
    return [f"{error.json_path}: {error.message}" for error in Draft202012Validator(schema).iter_errors(value)]


def accepted() -> Any:
    """The model section of a config that the reference's own classes accept."""
    return yaml.safe_load(ACCEPTED.read_text("utf-8"))["model"]


@pytest.mark.parametrize("name", SCHEMAS)
def test_is_a_valid_schema(name: str) -> None:
    Draft202012Validator.check_schema(SCHEMAS[name])


@pytest.mark.parametrize("name", SCHEMAS)
def test_fields_stand_in_alphabetical_order(name: str) -> None:
    for part in parts(SCHEMAS[name]):
        assert list(part["properties"]) == sorted(part["properties"])


@pytest.mark.parametrize("name", SCHEMAS)
def test_defaults_fit_their_own_fields(name: str) -> None:
    definitions = SCHEMAS[name].get("$defs", {})
    for part in parts(SCHEMAS[name]):
        for field, node in part["properties"].items():
            if "default" in node:
                assert errors({**node, "$defs": definitions}, node["default"]) == [], field


@pytest.mark.parametrize("name", [name for name in SCHEMAS if name.startswith("cs-")])
def test_a_cerebras_schema_refuses_unknown_fields(name: str) -> None:
    assert all(part["additionalProperties"] is False for part in parts(SCHEMAS[name]))


def mmsimple() -> Space:
    """The config space of a multimodal model, whose parts have schemas of their own."""
    return next(each.configs.b for each in registry.converters() if each.model == "mmsimple-llava")


def test_mmsimple_reads_what_the_reference_accepts() -> None:
    assert mmsimple().read(accepted())["text_model"]["vocab_size"] == 320


def test_mmsimple_reads_what_the_reference_writes_and_then_refuses() -> None:
    model = accepted()
    model |= {"label_smoothing": 0.0, "z_loss_eps": 0.0}
    model["text_model"] |= {"norm_first": True, "use_ff_layer1_dropout": False}
    model["image_model_list"]["image_models"][0]["image_encoder"] |= {"num_classes": 24, "use_bias_in_output": False}
    assert mmsimple().read(model)["z_loss_eps"] == 0


@pytest.mark.parametrize("part", ["text_model", "image_model_list.image_models.0.image_encoder"])
def test_mmsimple_refuses_what_no_class_knows_in_any_part(part: str) -> None:
    with pytest.raises(ValueError, match=rf"^{part}\.hidden_sizes: no such field; did you mean hidden_size\?"):
        mmsimple().read(put(accepted(), f"{part}.hidden_sizes", 1))


@pytest.mark.parametrize(("field", "absurd"), [("hidden_size", 2**21), ("num_hidden_layers", 0), ("vocab_size", 2**40)])
def test_absurd_sizes_are_refused(field: str, absurd: int) -> None:
    for name in ("cs-decoder", "hf-llama", "hf-mistral"):
        assert errors(SCHEMAS[name], {field: absurd}), name


@pytest.mark.parametrize("name", CLASSES)
def test_defaults_are_those_of_transformers(name: str) -> None:
    parameters = inspect.signature(CLASSES[name]).parameters
    for field, node in SCHEMAS[name]["properties"].items():
        if "default" in node and field not in ("rope_scaling", "rope_theta"):
            assert node["default"] == parameters[field].default, field


@pytest.mark.parametrize("name", ["hf-llama", "hf-mistral"])
def test_rotary_defaults_are_those_of_transformers(name: str) -> None:
    fields = SCHEMAS[name]["properties"]
    assert fields["rope_scaling"]["default"] is None
    assert CLASSES[name]().rope_parameters == {"rope_theta": fields["rope_theta"]["default"], "rope_type": "default"}
