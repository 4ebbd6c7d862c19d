"""A source's headers against what its config demands: spellings, second copies, missing and foreign tensors."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import mmconvert
from mmconvert import Options
from mmconvert.errors import InputRefused
from mmconvert.plans import Plan

Make = Callable[..., Path]
Tensors = dict[str, torch.Tensor]
Contents = Callable[[Path], dict[str, tuple[str, tuple[int, ...], bytes]]]


def plan(source: Path, to: str = "cs", **options: Any) -> Plan:
    return mmconvert.plan(source, source.parent / "out", to, options=Options(**options))


def converted(source: Path, to: str = "cs", **options: Any) -> Path:
    out = source.parent / f"{source.name}-{to}"
    mmconvert.convert(source, out, to, options=Options(container="safetensors", **options), fsync=False)
    return out


def renamed(old: str, new: str) -> Callable[[Tensors], None]:
    """Give every key that starts with `old` the beginning `new`."""

    def edit(tensors: Tensors) -> None:
        for key in [key for key in tensors if key.startswith(old)]:
            tensors[new + key.removeprefix(old)] = tensors.pop(key)

    return edit


# --- spellings ------------------------------------------------------------------------------------------------------


def test_a_clip_without_its_prefix_is_the_same_clip(make_clip: Make, contents: Contents, tmp_path: Path) -> None:
    source = make_clip(tmp_path / "clip", edit=renamed("vision_model.", ""))
    assert contents(converted(source)) == contents(converted(make_clip(tmp_path / "usual")))


def test_a_cs_checkpoint_with_a_leading_model_is_the_same_checkpoint(
    make_llama: Make, contents: Contents, tmp_path: Path
) -> None:
    cs = converted(make_llama(tmp_path / "llama"))
    expected = contents(converted(cs, "hf"))
    weights = load_file(cs / "model.safetensors")
    save_file({"model." + key: tensor for key, tensor in weights.items()}, cs / "model.safetensors")
    (tmp_path / "llama-cs-hf").rename(tmp_path / "first")
    assert contents(converted(cs, "hf")) == expected


def test_one_tensor_under_two_spellings_is_refused(make_clip: Make, tmp_path: Path) -> None:
    def both(tensors: Tensors) -> None:
        tensors["post_layernorm.bias"] = tensors["vision_model.post_layernorm.bias"].clone()

    with pytest.raises(
        InputRefused, match=r"post_layernorm\.bias and vision_model\.post_layernorm\.bias|two spellings"
    ):
        plan(make_clip(tmp_path / "clip", edit=both))


# --- second copies --------------------------------------------------------------------------------------------------


def test_a_tied_head_in_the_file_must_hold_the_same_bytes(make_llama: Make, tmp_path: Path) -> None:
    def both(difference: float) -> Callable[[Tensors], None]:
        def edit(tensors: Tensors) -> None:
            tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"] + difference

        return edit

    same = make_llama(tmp_path / "same", tie_word_embeddings=True, edit=both(0))
    assert [each.subject for each in plan(same).dropped] == ["lm_head.weight"]
    converted(same)
    other = make_llama(tmp_path / "other", tie_word_embeddings=True, edit=both(1))
    with pytest.raises(InputRefused, match=r"lm_head\.weight: differs from model\.embed_tokens\.weight"):
        converted(other)
    assert not (tmp_path / "other-cs").exists()


def test_a_tied_head_is_written_to_cs_and_left_out_on_the_way_back(
    make_llama: Make, contents: Contents, tmp_path: Path
) -> None:
    cs = converted(make_llama(tmp_path / "llama", tie_word_embeddings=True))
    found = contents(cs)
    assert found["lm_head.weight"] == found["embedding_layer.word_embeddings.weight"]
    assert "lm_head.weight" not in contents(converted(cs, "hf"))


@pytest.mark.parametrize("kept", ["ln_f.weight", "transformer_decoder.norm.weight"])
def test_of_two_copies_either_one_is_enough(make_llama: Make, contents: Contents, tmp_path: Path, kept: str) -> None:
    source = make_llama(tmp_path / "llama")
    cs = converted(source)
    weights = load_file(cs / "model.safetensors")
    del weights[{"ln_f.weight", "transformer_decoder.norm.weight"}.difference({kept}).pop()]
    save_file(weights, cs / "model.safetensors")
    assert contents(converted(cs, "hf")) == contents(source)


# --- what is missing or foreign -------------------------------------------------------------------------------------


def test_buffers_are_left_behind_with_a_reason(make_llama: Make, tmp_path: Path) -> None:
    key = "model.layers.1.self_attn.rotary_emb.inv_freq"
    source = make_llama(tmp_path / "llama", edit=lambda tensors: tensors.update({key: torch.ones(6)}))
    (dropped,) = plan(source).dropped
    assert dropped.subject == key
    assert "rope_theta" in dropped.why


def test_several_missing_tensors_are_counted(make_llama: Make, tmp_path: Path) -> None:
    source = make_llama(tmp_path / "llama", num_hidden_layers=1)
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 2}))
    with pytest.raises(InputRefused, match=r"layers\.1\..* is missing \(expected .*, and 8 more\)"):
        plan(source)


def test_a_weight_of_integers_is_refused(make_clip: Make, tmp_path: Path) -> None:
    key = "vision_model.post_layernorm.bias"
    source = make_clip(tmp_path / "clip", edit=lambda t: t.update({key: torch.zeros(32, dtype=torch.int32)}))
    with pytest.raises(InputRefused, match=r"post_layernorm\.bias is int32; a weight must be a floating-point number"):
        plan(source)
