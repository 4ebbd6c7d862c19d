"""`mmconvert keys`: what a config demands, for people and for scripts, without any weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

Run = Callable[..., CompletedProcess[str]]


def test_scripts_get_every_key_with_shape_and_part(mmconvert: Run, llama: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps({**json.loads((llama / "config.json").read_text()), "torch_dtype": "bfloat16"}))
    done = mmconvert("keys", "llama", "--config", config, "--as", "cs-2.4", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    tensors = document.pop("tensors")
    assert len(tensors) == 22
    assert tensors["transformer_decoder.layers.1.self_attn.proj_k_dense_layer.weight"] == {
        "shape": [24, 48],
        "part": "text",
    }
    parameters = 2 * 101 * 48 + 2 * (2 * 48 * 48 + 2 * 24 * 48 + 3 * 80 * 48 + 2 * 48) + 48
    assert document == {
        "schema": 1,
        "model": "llama",
        "format": "cs",
        "release": "2.4",
        "parameters": parameters,
        "bytes": 2 * (parameters + 48),
    }


def test_a_config_without_an_element_type_says_no_bytes(mmconvert: Run, llava: Path) -> None:
    document = json.loads(mmconvert("keys", "mmsimple-llava", "--config", llava, "--json").stdout)
    assert (document["format"], document["release"], document["bytes"]) == ("llava", None, None)
    assert document["tensors"]["image_model/vision_model.embeddings.class_embedding"] == {
        "shape": [32],
        "part": "vision",
    }


def test_people_get_a_table_and_a_sum(mmconvert: Run, llama: Path) -> None:
    lines = mmconvert("keys", "llama", "--config", llama / "config.json").stdout.splitlines()
    (row,) = (line.split() for line in lines if "layers.0.self_attn.k_proj.weight" in line)
    assert row == ["model.layers.0.self_attn.k_proj.weight", "24", "x", "48", "text"]
    assert lines[-1].startswith("llama, format hf: 21 tensors, ")


@pytest.mark.parametrize(
    ("arguments", "code", "why"),
    [
        (("gpt2",), 4, "'gpt2'; known: clip-encoder, clip-vit, llama"),
        (("llama", "--as", "llava"), 4, "no way from hf to llava"),
        (("llama", "--as", "cs-3.0"), 4, "release 3.0 is not known"),
        (("llama", "--as", "cs-2.4", "--to-release", "2.5"), 2, "which one?"),
        (("llama", "--to-release", "new"), 2, "--to-release"),
        (("clip-vit",), 3, "model_type 'llama' is no clip-vit"),
    ],
)
def test_what_cannot_be_told_is_refused(
    mmconvert: Run, llama: Path, arguments: tuple[str, ...], code: int, why: str
) -> None:
    done = mmconvert("keys", *arguments, "--config", llama)
    assert done.returncode == code
    assert why in done.stderr
    assert done.stdout == ""
