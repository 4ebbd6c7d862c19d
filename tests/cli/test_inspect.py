"""`mmconvert inspect`: what lies at a path, from headers alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import torch

from mmconvert.units import human_bytes

Make = Callable[..., Path]
Run = Callable[..., CompletedProcess[str]]
Inspect = Callable[..., dict[str, Any]]
Tensors = dict[str, torch.Tensor]


@pytest.fixture
def inspect(mmconvert: Run) -> Inspect:
    """The JSON document for a path."""

    def run(*arguments: object) -> dict[str, Any]:
        done = mmconvert("inspect", "--json", *arguments)
        assert done.returncode == 0, done.stderr
        document: dict[str, Any] = json.loads(done.stdout)
        return document

    return run


def test_scripts_get_counts_sizes_and_what_can_be_done(inspect: Inspect, llama: Path) -> None:
    embedding, layer = 101 * 48, 2 * 48 * 48 + 2 * 24 * 48 + 3 * 80 * 48 + 2 * 48
    parameters = 2 * embedding + 2 * layer + 48
    assert inspect(llama) == {
        "schema": 1,
        "path": str(llama),
        "model": "llama",
        "format": "hf",
        "release": None,
        "release_from": "",
        "known_by": str(llama / "config.json"),
        "tensors": 21,
        "parameters": parameters,
        "bytes": 2 * parameters,
        "dtypes": {"bfloat16": 21},
        "sidecars": ["config.json", "tokenizer.model"],
        "set_aside": {},
        "notes": [],
        "problem": None,
        "converts_to": ["cs"],
        "refused": {},
    }


def test_people_get_the_same_in_words(shell: Run, llava: Path) -> None:
    done = shell("inspect", llava)
    assert done.returncode == 0
    assert f"{llava}: mmsimple-llava, format llava" in done.stdout
    assert "converts to: cs, hf" in done.stdout


def test_keys_are_told_when_asked_for(inspect: Inspect, mmconvert: Run, clip: Path) -> None:
    key = "vision_model.embeddings.position_embedding.weight"
    assert inspect("--keys", clip)["keys"][key] == {
        "shape": [5, 32],
        "dtype": "float32",
        "file": str(clip / "model.safetensors"),
    }
    assert any(key in line and "5 x 32" in line for line in mmconvert("inspect", "--keys", clip).stdout.splitlines())


def test_a_weights_file_is_read_with_the_config_beside_it(inspect: Inspect, clip: Path) -> None:
    found = inspect(clip / "model.safetensors")
    assert (found["model"], found["tensors"]) == ("clip-vit", 56)


def test_a_cs_folder_and_its_file_are_the_same_checkpoint(
    inspect: Inspect, mmconvert: Run, clip: Path, tmp_path: Path
) -> None:
    mmconvert("hf-to-cs", "--src", clip, "--out", tmp_path / "cs", "--to-release", "2.4")
    folder, file = inspect(tmp_path / "cs"), inspect(tmp_path / "cs" / "model.mdl")
    assert (folder["model"], folder["format"], folder["release"]) == ("clip-vit", "cs", "2.4")
    assert folder["tensors"] == file["tensors"] == 56


def test_a_file_away_from_its_params_is_read_with_config(
    inspect: Inspect, mmconvert: Run, clip: Path, tmp_path: Path
) -> None:
    mmconvert("hf-to-cs", "--src", clip, "--out", tmp_path / "cs", "--container", "safetensors")
    (tmp_path / "alone").mkdir()
    weights = shutil.copy(tmp_path / "cs" / "model.safetensors", tmp_path / "alone")
    refused = mmconvert("inspect", weights)
    assert refused.returncode == 2
    assert "--config" in refused.stderr
    assert inspect(weights, "--config", tmp_path / "cs" / "config.yaml")["model"] == "clip-vit"


def test_a_hub_cache_folder_is_followed_through_its_links(inspect: Inspect, clip: Path, tmp_path: Path) -> None:
    cache = tmp_path / "models--openai--clip"
    snapshot = cache / "snapshots" / "0123abcd"
    for folder in (cache / "blobs", snapshot, cache / "refs"):
        folder.mkdir(parents=True)
    (cache / "refs" / "main").write_text("0123abcd")
    for number, file in enumerate(sorted(clip.iterdir())):
        shutil.copy(file, cache / "blobs" / f"{number:040x}")
        (snapshot / file.name).symlink_to(f"../../blobs/{number:040x}")
    for path in (cache, snapshot):
        found = inspect(path)
        assert (found["model"], found["tensors"], found["problem"]) == ("clip-vit", 56, None)


def test_a_lora_folder_is_called_by_its_name(mmconvert: Run, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    done = mmconvert("inspect", tmp_path)
    assert done.returncode == 3
    assert "LoRA adapter; merge it" in done.stderr


def test_a_projector_alone_is_called_by_its_name(mmconvert: Run, tmp_path: Path) -> None:
    (tmp_path / "mm_projector.bin").touch()
    done = mmconvert("inspect", tmp_path)
    assert done.returncode == 3
    assert "only a projector" in done.stderr


def test_nothing_there_is_a_usage_error(mmconvert: Run, tmp_path: Path) -> None:
    done = mmconvert("inspect", tmp_path / "absent")
    assert done.returncode == 2
    assert "absent: no such file or folder" in done.stderr


def test_an_incomplete_checkpoint_is_described_with_what_is_wrong(
    inspect: Inspect, make_llama: Make, tmp_path: Path
) -> None:
    make_llama(tmp_path / "llama", edit=lambda tensors: tensors.pop("model.norm.weight"))
    found = inspect(tmp_path / "llama")
    assert found["tensors"] == 20
    assert "model.norm.weight is missing" in found["problem"]


def break_two(tensors: Tensors) -> None:
    tensors["model.norm.weight"][:3] = float("nan")
    tensors["model.norm.weight"][3] = float("inf")
    tensors["lm_head.weight"][0, 0] = -float("inf")


def test_a_scan_counts_what_is_not_finite(inspect: Inspect, mmconvert: Run, make_llama: Make, tmp_path: Path) -> None:
    path = make_llama(tmp_path / "llama", edit=break_two)
    found = inspect(path, "--scan")
    assert found["scan"] == {
        "nan": {"model.norm.weight": 3},
        "infinite": {"model.norm.weight": 1, "lm_head.weight": 1},
        "bytes": found["bytes"],
    }
    done = mmconvert("inspect", path, "--scan")
    assert done.returncode == 0
    assert "not every value is finite in 2 tensors:" in done.stdout
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["model.norm.weight", "3", "1"] in lines
    assert ["lm_head.weight", "0", "1"] in lines


def test_a_scan_says_when_every_value_is_finite(inspect: Inspect, mmconvert: Run, clip: Path) -> None:
    found = inspect(clip, "--scan")
    assert found["scan"] == {"nan": {}, "infinite": {}, "bytes": found["bytes"]}
    done = mmconvert("inspect", clip, "--scan")
    assert f"scanned {human_bytes(found['bytes'])}: every value is finite" in done.stdout


def test_without_scan_no_data_is_read(inspect: Inspect, mmconvert: Run, make_llama: Make, tmp_path: Path) -> None:
    path = make_llama(tmp_path / "llama", edit=break_two)
    assert "scan" not in inspect(path)
    assert "finite" not in mmconvert("inspect", path).stdout


def test_one_encoder_and_its_release_are_looked_at(
    inspect: Inspect, mmconvert: Run, llava: Path, tmp_path: Path
) -> None:
    assert mmconvert("hf-to-cs", "--src", llava, "--out", tmp_path / "cs").returncode == 0
    found = inspect(tmp_path / "cs", "--encoder", "0", "--from-release", "2.4")
    assert (found["model"], found["release"], found["release_from"]) == ("clip-encoder", "2.4", "--from-release")


def test_second_copies_are_no_parameters_of_their_own(mmconvert: Run, llama: Path, tmp_path: Path) -> None:
    mmconvert("hf-to-cs", "--src", llama, "--out", tmp_path / "cs", "--container", "safetensors")
    counts = [
        json.loads(mmconvert("inspect", path, "--json").stdout)["parameters"] for path in (llama, tmp_path / "cs")
    ]
    assert counts[0] == counts[1]
