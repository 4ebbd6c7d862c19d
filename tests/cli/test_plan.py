"""`mmconvert plan`, and any conversion's `--dry-run`: the whole mapping, and nothing written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

Make = Callable[..., Path]
Run = Callable[..., CompletedProcess[str]]


def plan(run: Run, *arguments: object) -> dict[str, Any]:
    done = run("plan", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


@pytest.mark.parametrize("container", ["mdl", "safetensors"])
def test_a_plan_is_the_dry_run_of_the_conversion(mmconvert: Run, llama: Path, tmp_path: Path, container: str) -> None:
    arguments = ("--src", llama, "--out", tmp_path / "out", "--container", container)
    planned = plan(mmconvert, "hf-to-cs", *arguments)
    assert planned == plan(mmconvert, "--to", "cs", *arguments)
    assert planned == json.loads(mmconvert("hf-to-cs", *arguments, "--dry-run", "--json").stdout)
    assert planned == json.loads(mmconvert("convert", "--to", "cs", *arguments, "--dry-run", "--json").stdout)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("container", ["mdl", "safetensors"])
def test_the_bytes_to_write_are_the_bytes_written(mmconvert: Run, llama: Path, tmp_path: Path, container: str) -> None:
    sharded = ("--max-shard-size", "20kB") if container == "safetensors" else ()
    arguments = ("--src", llama, "--out", tmp_path / "out", "--container", container, *sharded)
    promised = plan(mmconvert, "hf-to-cs", *arguments)["bytes_to_write"]
    assert mmconvert("hf-to-cs", *arguments).returncode == 0
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file() and path.name != "mmconvert.json"]
    assert promised == sum(path.stat().st_size for path in files)


def test_every_tensor_is_listed_with_its_source_and_rule(mmconvert: Run, llama: Path) -> None:
    tensors = {each["key"]: each for each in plan(mmconvert, "hf-to-cs", "--src", llama)["tensors"]}
    assert len(tensors) == 22
    assert tensors["transformer_decoder.layers.1.self_attn.proj_k_dense_layer.weight"] == {
        "key": "transformer_decoder.layers.1.self_attn.proj_k_dense_layer.weight",
        "file": "model.mdl",
        "source": "model.layers.1.self_attn.k_proj.weight",
        "shape": [24, 48],
        "dtype": "bfloat16",
        "rule": "rotary rows interleaved (heads: 2)",
        "bytes": 24 * 48 * 2,
    }
    assert tensors["ln_f.weight"]["source"] == "model.norm.weight"


def test_what_is_dropped_is_listed_with_its_reason(mmconvert: Run, llava: Path) -> None:
    (dropped,) = plan(mmconvert, "hf-to-cs", "--src", llava)["dropped"]
    assert dropped["subject"] == "image_model/visual_projection.weight"
    assert "CLIP's own projection" in dropped["why"]


def test_what_is_invented_is_listed_with_its_seed(mmconvert: Run, make_clip: Make, tmp_path: Path) -> None:
    source = make_clip(tmp_path / "tower", edit=lambda tensors: tensors.pop("visual_projection.weight"))
    planned = plan(mmconvert, "hf-to-cs", "--src", source, "--init", "classifier=uniform:7")
    (invented,) = planned["invented"]
    assert invented["subject"] == "classifier.classifier.ffn.0.linear_layer.weight"
    assert "seed 7" in invented["why"]
    assert [each["key"] for each in planned["tensors"] if each["source"] is None] == [invented["subject"]]


def test_people_get_a_table_and_a_sum(mmconvert: Run, llama: Path) -> None:
    done = mmconvert("plan", "hf-to-cs", "--src", llama)
    assert done.returncode == 0
    row = next(line for line in done.stdout.splitlines() if "layers.0.self_attn.q_proj.weight" in line)
    assert "48 x 48" in row
    assert "rotary rows interleaved (heads: 4)" in row
    assert "22 tensors" in done.stdout.splitlines()[-1]


@pytest.mark.parametrize("arguments", [(), ("hf-to-cs", "--to", "cs")])
def test_a_plan_needs_one_conversion(mmconvert: Run, llama: Path, arguments: tuple[str, ...]) -> None:
    done = mmconvert("plan", *arguments, "--src", llama)
    assert done.returncode == 2
    assert "plan what?" in done.stderr


def test_a_plan_without_a_place_does_not_mind_what_stands_beside_the_source(
    mmconvert: Run, make_llama: Make, tmp_path: Path
) -> None:
    source = make_llama(tmp_path / "llama")
    (tmp_path / "llama-cs").mkdir()
    (tmp_path / "llama-cs" / "file").touch()
    assert plan(mmconvert, "hf-to-cs", "--src", source)["bytes_to_write"] > 0
    # A place that was named is looked at.
    assert mmconvert("plan", "hf-to-cs", "--src", source, "--out", tmp_path / "llama-cs").returncode == 5
