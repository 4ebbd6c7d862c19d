"""Towers and decoders in transformers against what their conversion computes in mmsimple."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mmconvert import Options
from mmconvert.dtypes import BY_FLAG

if TYPE_CHECKING:
    from tests.conftest import Make, Tensors
    from tests.mmsimple.parity.conftest import Apart, Run, Tame, ToCS

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
LONGROPE = {
    "rope_type": "longrope",
    "factor": 4.0,
    "original_max_position_embeddings": 16,
    "short_factor": [1.0] * 6,
    "long_factor": [1.0, 1.5, 2.0, 3.0, 4.0, 6.0],
}


def add_biases(tensors: Tensors) -> None:
    for key in [key for key in tensors if "self_attn" in key or "mlp" in key]:
        tensors[key.replace("weight", "bias")] = torch.randn(tensors[key].shape[0]).to(tensors[key].dtype)


@pytest.mark.parametrize(
    "config",
    [
        {"num_key_value_heads": 4},
        {"num_key_value_heads": 1},
        {"tie_word_embeddings": True},
        {"hidden_act": "gelu"},
        {"rope_theta": 500000.0},
        {"rope_scaling": {"type": "linear", "factor": 2.0}},
        {"rope_scaling": LLAMA3},
        {"rope_scaling": YARN},
        {"rope_scaling": LONGROPE},
        {"rope_scaling": LONGROPE, "max_position_embeddings": 16},
    ],
    ids=[
        "multi-head",
        "one-kv-head",
        "tied",
        "gelu",
        "theta",
        "linear",
        "llama3",
        "yarn",
        "longrope",
        "longrope-short",
    ],
)
def test_a_llama_computes_the_same_in_both(
    config: dict[str, Any], make_llama: Make, tame: Tame, run: Run, to_cs: ToCS, apart: Apart, tmp_path: Path
) -> None:
    src = make_llama(tmp_path / "src", edit=tame, **config)
    found = apart(run(src), run(to_cs(src)))
    assert found["text logits"] < 2e-5


def test_a_llama_with_biases_computes_the_same_in_both(
    make_llama: Make, tame: Tame, run: Run, to_cs: ToCS, apart: Apart, tmp_path: Path
) -> None:
    def edit(tensors: Tensors) -> None:
        tame(tensors)
        add_biases(tensors)

    src = make_llama(tmp_path / "src", edit=edit, attention_bias=True, mlp_bias=True)
    assert apart(run(src), run(to_cs(src)))["text logits"] < 2e-5


@pytest.mark.parametrize(("container", "shards"), [("bin", 1), ("bin", 2), ("safetensors", 3)])
def test_every_container_of_a_llama_computes_the_same(
    container: str, shards: int, make_llama: Make, tame: Tame, run: Run, to_cs: ToCS, apart: Apart, tmp_path: Path
) -> None:
    src = make_llama(tmp_path / "src", edit=tame, container=container, shards=shards)
    assert apart(run(src), run(to_cs(src)))["text logits"] < 2e-5


def test_a_model_in_a_hub_cache_folder_is_run(
    make_llama: Make, tame: Tame, run: Run, apart: Apart, tmp_path: Path
) -> None:
    src = make_llama(tmp_path / "cache" / "snapshots" / "abc", edit=tame)
    assert apart(run(tmp_path / "cache"), run(src)) == {"text logits": 0}


def test_query_rows_in_the_wrong_order_are_far_off(
    make_llama: Make, tame: Tame, run: Run, to_cs: ToCS, apart: Apart, tmp_path: Path
) -> None:
    src = make_llama(tmp_path / "src", edit=tame)
    cs = to_cs(src)
    tensors = load_file(cs / "model.safetensors")
    theirs = load_file(src / "model.safetensors")["model.layers.0.self_attn.q_proj.weight"]
    tensors["transformer_decoder.layers.0.self_attn.proj_q_dense_layer.weight"] = theirs
    save_file(tensors, cs / "model.safetensors")
    assert apart(run(src), run(cs))["text logits"] > 1e-3


def test_longrope_needs_inputs_past_the_original_length(make_llama: Make, run: Run, tmp_path: Path) -> None:
    assert run(make_llama(tmp_path / "long", rope_scaling=LONGROPE)).sizes.needed_length == 17
    short = make_llama(tmp_path / "short", rope_scaling=LONGROPE, max_position_embeddings=16)
    assert run(short).sizes.needed_length == 0


def test_a_sliding_window_wants_inputs_that_are_longer(
    make_llama: Make, tame: Tame, run: Run, to_cs: ToCS, apart: Apart, tmp_path: Path
) -> None:
    config = {"model_type": "mistral", "architectures": ["MistralForCausalLM"], "sliding_window": 6}
    src = make_llama(tmp_path / "src", edit=tame, **config)
    theirs, ours = run(src), run(to_cs(src))
    assert theirs.sizes == ours.sizes
    assert theirs.sizes.sliding_window == 6
    assert apart(theirs, ours)["text logits"] < 2e-5


@pytest.mark.parametrize("tied", [True, False])
def test_a_decoder_without_a_head_is_compared_by_what_it_has(
    tied: bool, make_llama: Make, tame: Tame, run: Run, apart: Apart, tmp_path: Path, to_cs: ToCS
) -> None:
    def edit(tensors: Tensors) -> None:
        tame(tensors)
        tensors.pop("lm_head.weight", None)
        for key in list(tensors):
            tensors[key.removeprefix("model.")] = tensors.pop(key)

    src = make_llama(tmp_path / "src", edit=edit, architectures=["LlamaModel"], tie_word_embeddings=tied)
    options = Options(container="safetensors", init={} if tied else {"lm_head": 1})
    found = apart(run(src), run(to_cs(src, options)))
    assert found.keys() == ({"text hidden states", "text logits"} if tied else {"text hidden states"})
    assert max(found.values()) < 2e-5


def test_a_tower_with_its_projection_computes_the_same_in_both(
    make_clip: Make, tame: Tame, run: Run, to_cs: ToCS, apart: Apart, tmp_path: Path
) -> None:
    src = make_clip(tmp_path / "src", edit=tame)
    found = apart(run(src), run(to_cs(src)))
    assert found.keys() == {"image features", "image embeds"}
    assert max(found.values()) < 2e-5


def test_the_tower_of_a_whole_clip_is_run(
    golden_input: Callable[[str], Path], run: Run, to_cs: ToCS, apart: Apart
) -> None:
    src = golden_input("mmsimple_noproj/image_model")
    found = apart(run(src), run(to_cs(src)))
    assert found.keys() == {"image features", "image embeds"}
    assert max(found.values()) < 2e-5


def test_a_whole_clips_config_says_how_wide_its_projection_is(
    make_clip: Make, tame: Tame, run: Run, to_cs: ToCS, apart: Apart, tmp_path: Path
) -> None:
    src = make_clip(tmp_path / "src", edit=tame)
    tower = json.loads((src / "config.json").read_text("utf-8"))
    whole = {"model_type": "clip", "projection_dim": tower.pop("projection_dim"), "vision_config": tower}
    (src / "config.json").write_text(json.dumps(whole), "utf-8")
    found = apart(run(src), run(to_cs(src)))
    assert found.keys() == {"image features", "image embeds"}
    assert max(found.values()) < 2e-5


def test_one_encoder_of_a_multimodal_model_is_the_whole_tower(
    golden_input: Callable[[str], Path], run: Run, to_cs: ToCS, apart: Apart
) -> None:
    src = golden_input("mmsimple")
    encoder = run(to_cs(src), encoder=0)
    found = apart(run(src / "image_model", model="clip-encoder"), encoder)
    assert found.keys() == {"image features"}
    assert max(found.values()) < 2e-5


def test_a_tower_without_a_projection_has_features_alone(
    make_clip: Make, tame: Tame, run: Run, to_cs: ToCS, apart: Apart, tmp_path: Path
) -> None:
    def edit(tensors: Tensors) -> None:
        tame(tensors)
        del tensors["visual_projection.weight"]

    src = make_clip(tmp_path / "src", edit=edit)
    found = apart(run(src), run(to_cs(src, Options(container="safetensors", init={"classifier": 1}))))
    assert found.keys() == {"image features"}
    assert max(found.values()) < 2e-5


@pytest.mark.parametrize("name", ["llama_gqa", "clip_proj"])
def test_a_cast_model_agrees_once_the_source_is_rounded_too(
    name: str, golden_input: Callable[[str], Path], run: Run, to_cs: ToCS, apart: Apart
) -> None:
    src, rounding = golden_input(name), {"": BY_FLAG["bf16"]}
    cs = to_cs(src)
    cast = run(to_cs(src, Options(container="safetensors", dtype=rounding)))
    for uncast in (src, cs):
        assert max(apart(run(uncast, rounding), cast).values()) < 2e-5
        assert min(apart(run(uncast), cast).values()) > 1e-4
