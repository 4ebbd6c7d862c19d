"""Random checkpoints of odd shapes go to CS and come back bit for bit."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import mmconvert
from mmconvert import Options

Make = Callable[..., Path]
Contents = Callable[[Path], dict[str, tuple[str, tuple[int, ...], bytes]]]


def shape(heads: int, head_dim: int, **config: Any) -> dict[str, Any]:
    return {"num_attention_heads": heads, "num_key_value_heads": heads, "hidden_size": heads * head_dim, **config}


SHAPES: dict[str, tuple[torch.dtype, dict[str, Any]]] = {
    "head size 12": (torch.float16, shape(3, 12, num_hidden_layers=1)),
    "head size 20, grouped keys": (torch.bfloat16, shape(6, 20, num_key_value_heads=2, num_hidden_layers=3)),
    "head size 96, one key": (torch.float32, shape(2, 96, num_key_value_heads=1)),
    "head size 2": (torch.float32, shape(5, 2, vocab_size=7)),
    "tied": (torch.bfloat16, shape(4, 12, tie_word_embeddings=True, vocab_size=33)),
    "odd feed-forward": (torch.float16, shape(1, 24, intermediate_size=71, num_hidden_layers=3)),
}


def interleaved(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """The rows of a query or key as CS has them, said with torch."""
    rows, inner = weight.shape
    return weight.view(heads, 2, rows // heads // 2, inner).transpose(1, 2).reshape(rows, inner)


@pytest.mark.parametrize("name", SHAPES)
def test_a_llama_comes_back_bit_for_bit(make_llama: Make, contents: Contents, tmp_path: Path, name: str) -> None:
    dtype, config = SHAPES[name]
    kept: dict[str, torch.Tensor] = {}
    source = make_llama(tmp_path / "source", dtype=dtype, edit=kept.update, **config)
    mmconvert.convert(source, tmp_path / "cs", "cs", options=Options(container="safetensors"), fsync=False)
    mmconvert.convert(tmp_path / "cs", tmp_path / "back", "hf", fsync=False)
    assert contents(tmp_path / "back") == contents(source)
    there = contents(tmp_path / "cs")
    for part, heads in (("q", config["num_attention_heads"]), ("k", config["num_key_value_heads"])):
        expected = interleaved(kept[f"model.layers.0.self_attn.{part}_proj.weight"], heads)
        found = there[f"transformer_decoder.layers.0.self_attn.proj_{part}_dense_layer.weight"]
        assert found[2] == expected.contiguous().view(torch.uint8).numpy().tobytes()


@pytest.mark.parametrize("kind", ["Llama", "Mistral", "CLIPVision"])
def test_what_transformers_saves_it_loads_again_after_the_journey(tmp_path: Path, kind: str) -> None:
    transformers: Any = importlib.import_module("transformers")  # slow to import, and one test needs it
    if kind == "CLIPVision":
        sizes = {"hidden_size": 32, "num_hidden_layers": 2, "image_size": 28, "patch_size": 14, "projection_dim": 20}
        name = "CLIPVisionModelWithProjection"
    else:
        sizes = {"vocab_size": 51, "hidden_size": 40, "num_hidden_layers": 2, "num_key_value_heads": 2}
        name = f"{kind}ForCausalLM"
    config = getattr(transformers, f"{kind}Config")(**sizes, intermediate_size=64, num_attention_heads=4)
    model = getattr(transformers, name)(config)
    model.save_pretrained(tmp_path / "source", max_shard_size="50KB")
    mmconvert.convert(tmp_path / "source", tmp_path / "cs", "cs", fsync=False)
    mmconvert.convert(tmp_path / "cs", tmp_path / "back", "hf", fsync=False)
    before, after = model.state_dict(), getattr(transformers, name).from_pretrained(tmp_path / "back").state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize("release", ["2.1", "2.4", "2.10"])
def test_every_release_leads_back(make_llama: Make, contents: Contents, tmp_path: Path, release: str) -> None:
    source = make_llama(tmp_path / "source")
    mmconvert.convert(source, tmp_path / "cs", f"cs-{release}", fsync=False)
    mmconvert.convert(tmp_path / "cs", tmp_path / "back", "hf", fsync=False)
    assert contents(tmp_path / "back") == contents(source)


def test_a_cast_there_and_back_is_the_cast(make_llama: Make, contents: Contents, tmp_path: Path) -> None:
    float32 = make_llama(tmp_path / "float32", dtype=torch.float32)
    bfloat16 = make_llama(tmp_path / "bfloat16", dtype=torch.bfloat16)  # the same seed: the same values, rounded
    options = mmconvert.Options(dtype={"": mmconvert.open(bfloat16)["lm_head.weight"].dtype})
    mmconvert.convert(float32, tmp_path / "cs", "cs", options=options, fsync=False)
    mmconvert.convert(tmp_path / "cs", tmp_path / "back", "hf", fsync=False)
    assert contents(tmp_path / "back") == contents(bfloat16)
