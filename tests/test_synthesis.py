"""A random checkpoint depends on its config and seed alone, and is one model in every format."""

from __future__ import annotations

import json
from collections.abc import Callable
from math import sqrt
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from mmconvert import api
from mmconvert.dtypes import BY_NAME
from mmconvert.errors import InputRefused, OutputRefused
from mmconvert.options import Options
from mmconvert.plans import Plan
from mmconvert.synthesis import plan_synthesis

Make = Callable[..., Path]
Contents = Callable[[Path], dict[str, tuple[str, tuple[int, ...], bytes]]]

NORM = "model.layers.0.input_layernorm.weight"
BF16, FP32 = BY_NAME["bfloat16"], BY_NAME["float32"]


@pytest.fixture
def plan(tmp_path: Path) -> Callable[..., Plan]:
    """`plan(model, config, format, seed=…, **options)`: the plan to write a random checkpoint."""

    def make(model: str, config: Path, form: str | None = None, *, seed: int | None = 0, **options: Any) -> Plan:
        return plan_synthesis(api.keys(model, config, form), tmp_path / "out", seed, Options(**options))

    return make


def values(plan: Plan) -> dict[str, torch.Tensor]:
    """The tensors that a plan would write."""
    found = {}
    for tensor in plan.tensors:
        data = bytearray(tensor.nbytes)
        tensor.source.read_into(0, [memoryview(data)])
        found[tensor.key] = torch.frombuffer(data, dtype=getattr(torch, tensor.dtype.name)).view(tensor.shape)
    return found


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def put(file: Path, document: object) -> Path:
    file.write_text(json.dumps(document) if file.suffix == ".json" else yaml.safe_dump(document))
    return file


def test_the_values_are_the_seeds(llama: Path, plan: Callable[..., Plan]) -> None:
    once, again = values(plan("llama", llama, seed=7)), values(plan("llama", llama, seed=7))
    assert equal(once, again)
    other = values(plan("llama", llama, seed=8))
    assert not any(torch.equal(once[key], other[key]) for key in once)


def test_no_two_tensors_are_alike(llama: Path, plan: Callable[..., Plan]) -> None:
    drawn = values(plan("llama", llama))
    assert len({tensor.numpy().tobytes() for tensor in drawn.values()}) == len(drawn)


def test_weights_are_uniform_by_fan_in_and_those_of_norms_lie_around_one(clip: Path, plan: Callable[..., Plan]) -> None:
    drawn = values(plan("clip-vit", clip))
    layer = "vision_model.encoder.layers.0."
    for key, centre, bound in (
        (f"{layer}mlp.fc2.weight", 0, sqrt(1 / 56)),
        (f"{layer}mlp.fc2.bias", 0, sqrt(1 / 56)),
        (f"{layer}layer_norm1.weight", 1, sqrt(1 / 32)),
        (f"{layer}layer_norm1.bias", 0, sqrt(1 / 32)),
        ("vision_model.embeddings.class_embedding", 0, sqrt(1 / 32)),
        ("vision_model.embeddings.patch_embedding.weight", 0, sqrt(1 / (3 * 14 * 14))),
    ):
        assert 0.8 * bound < (drawn[key] - centre).abs().max() <= bound, key


def test_another_element_type_is_the_cast_of_the_same_values(llama: Path, plan: Callable[..., Plan]) -> None:
    single = values(plan("llama", llama, dtype={"": FP32}))
    half = values(plan("llama", llama, dtype={"": BF16}))
    assert NORM in single
    assert equal(half, {key: tensor.to(torch.bfloat16) for key, tensor in single.items()})


def test_each_part_has_the_type_that_its_config_says(llava: Path, tmp_path: Path, plan: Callable[..., Plan]) -> None:
    both = {
        part: json.loads((llava / folder / "config.json").read_text())
        for part, folder in (("image_model", "image_model"), ("text_model", "text_model_llava"))
    }
    both["text_model"]["torch_dtype"] = "bfloat16"
    config = put(tmp_path / "both.json", both)
    drawn = {tensor.key: tensor.dtype.name for tensor in plan("mmsimple-llava", config, "cs").tensors}
    # Where none is said, transformers reads float32.
    assert {drawn[key] for key in drawn if key.startswith("image_model.image_model_list")} == {"float32"}
    assert {drawn[key] for key in drawn if key.startswith(("image_model.projection", "text_model"))} == {"bfloat16"}
    wanted = plan("mmsimple-llava", config, "cs", dtype={"": FP32, "text": BY_NAME["float16"]})
    assert {tensor.dtype.name for tensor in wanted.tensors} == {"float32", "float16"}


def test_encoders_of_a_list_are_drawn_apart_and_ordered_alike(
    llava: Path, tmp_path: Path, plan: Callable[..., Plan]
) -> None:
    section = dict(api.keys("mmsimple-llava", llava, "cs").legs[-1].configs.target)
    one = values(plan("mmsimple-llava", put(tmp_path / "one.yaml", section)))
    assert equal(one, values(plan("mmsimple-llava", llava, "cs")))
    section["image_model_list"]["image_models"] *= 2
    two = values(plan("mmsimple-llava", put(tmp_path / "two.yaml", section)))
    assert equal(one, {key: tensor for key, tensor in two.items() if key in one})
    first = "image_model.image_model_list.0.0.embedding_layer.position_embeddings.weight"
    assert not torch.equal(two[first], two[first.replace("list.0", "list.1")])


def test_what_a_source_lacks_is_made_from_the_same_seed(
    make_llama: Make, tmp_path: Path, contents: Contents, plan: Callable[..., Plan]
) -> None:
    config = make_llama(tmp_path / "headless", architectures=["LlamaModel"])
    api.synth("llama-headless", config, tmp_path / "drawn", seed=5, fsync=False)
    options = Options(container="safetensors", init={"lm_head": 5})
    api.convert(tmp_path / "drawn", tmp_path / "cs", "cs", options=options, fsync=False)
    head = values(plan("llama-headless", config, "cs", seed=5))["lm_head.weight"]
    assert contents(tmp_path / "cs")["lm_head.weight"][2] == head.numpy().tobytes()


def test_without_a_seed_all_is_zero(llama: Path, plan: Callable[..., Plan]) -> None:
    drawn = plan("llama", llama, "cs", seed=None, dtype={"": BF16})
    assert all(not tensor.any() for tensor in values(drawn).values())
    assert {tensor.rule for tensor in drawn.tensors} == {"zeros"}


def test_a_plan_says_how_each_tensor_is_drawn(llama: Path, plan: Callable[..., Plan]) -> None:
    rules = {tensor.key: tensor.rule for tensor in plan("llama", llama, "cs", seed=7).tensors}
    query = rules["transformer_decoder.layers.0.self_attn.proj_q_dense_layer.weight"]
    assert query == "uniform ±0.144338, seed 7; rotary rows interleaved (heads: 4)"
    assert rules["ln_f.weight"] == rules["transformer_decoder.norm.weight"] == "uniform 1 ± 0.144338, seed 7"
    assert all(tensor.origin is None for tensor in plan("llama", llama, "cs").tensors)


def test_nobody_is_warned_of_a_tokenizer_that_random_weights_cannot_have(
    llava: Path, tmp_path: Path, plan: Callable[..., Plan]
) -> None:
    section = dict(api.keys("mmsimple-llava", llava, "cs").legs[-1].configs.target)
    assert plan("mmsimple-llava", put(tmp_path / "section.yaml", section), "llava").warnings == ()


def test_a_field_that_must_not_travel_is_told_of(llama: Path, tmp_path: Path, plan: Callable[..., Plan]) -> None:
    config = {**json.loads((llama / "config.json").read_text()), "auto_map": {"AutoModel": "code.Model"}}
    found = plan("llama", put(tmp_path / "config.json", config))
    assert any("auto_map is dropped" in warning for warning in found.warnings)
    assert b"auto_map" not in found.documents["config.json"]


@pytest.mark.parametrize("fields", [{"num_heads": 96}, {"num_heads": 5}, {"rotary_dim": 100}, {"rotary_dim": 7}])
def test_heads_that_cannot_be_turned_are_refused(
    llama: Path, tmp_path: Path, plan: Callable[..., Plan], fields: dict[str, int]
) -> None:
    section = {**api.keys("llama", llama, "cs").legs[-1].configs.target, **fields}
    with pytest.raises(InputRefused, match=r"odd\.yaml: (its heads make no sense|sizes that tensors follow from)"):
        plan("llama", put(tmp_path / "odd.yaml", section))


def test_a_target_that_holds_the_config_is_refused(llama: Path, tmp_path: Path) -> None:
    config = put(tmp_path / "config.json", json.loads((llama / "config.json").read_text()))
    with pytest.raises(OutputRefused, match="holds the source"):
        plan_synthesis(api.keys("llama", config), tmp_path, 0, overwrite=True)
