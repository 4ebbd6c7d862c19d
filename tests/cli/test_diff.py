"""`mmconvert diff`: two checkpoints of one format, and what is different."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

Make = Callable[..., Path]
Run = Callable[..., CompletedProcess[str]]
Tensors = dict[str, torch.Tensor]

NORM, HEAD, EMBED = "model.norm.weight", "lm_head.weight", "model.embed_tokens.weight"


@pytest.fixture
def pair(make_llama: Make, tmp_path: Path) -> tuple[Path, Path]:
    """Two LLaMAs that differ in everything that can differ."""

    def edit(tensors: Tensors) -> None:
        del tensors[NORM]
        tensors["extra"] = torch.ones(1)
        tensors[HEAD] = tensors[HEAD][:50].clone()
        tensors[EMBED] = tensors[EMBED].float()
        tensors["model.layers.0.mlp.up_proj.weight"][1, 2] += 2
        tensors["model.layers.1.mlp.up_proj.weight"][0, 3] = float("nan")

    def start(tensors: Tensors) -> None:
        tensors["model.layers.0.mlp.up_proj.weight"].zero_()

    def both(tensors: Tensors) -> None:
        start(tensors)
        edit(tensors)

    return make_llama(tmp_path / "a", edit=start), make_llama(tmp_path / "b", edit=both, rms_norm_eps=1e-6, new=None)


def test_scripts_get_everything_that_differs(mmconvert: Run, pair: tuple[Path, Path]) -> None:
    a, b = pair
    done = mmconvert("diff", a, b, "--json")
    assert done.returncode == 6
    document: dict[str, Any] = json.loads(done.stdout, parse_constant=pytest.fail)
    nbytes = document.pop("bytes")
    assert document == {
        "schema": 1,
        "a": str(a),
        "b": str(b),
        "equal": False,
        "only_a": [NORM],
        "only_b": ["extra"],
        "shapes": [{"key": HEAD, "a": [101, 48], "b": [50, 48]}],
        "dtypes": [{"key": EMBED, "a": "bfloat16", "b": "float32"}],
        "values": [
            {"key": "model.layers.0.mlp.up_proj.weight", "max_abs": 2.0, "first": 50, "nan": 0},
            {"key": "model.layers.1.mlp.up_proj.weight", "max_abs": None, "first": 3, "nan": 1},
        ],
        "config": [{"path": "rms_norm_eps", "a": 1e-5, "b": 1e-6}, {"path": "new", "b": None}],
        "tensors": 19,
        "notes": [],
    }
    layers = 2 * (2 * 48 * 48 + 2 * 24 * 48 + 3 * 80 * 48 + 2 * 48)
    assert nbytes == 2 * layers + 4 * 101 * 48


def test_people_get_tables_and_one_line_of_sum(shell: Run, pair: tuple[Path, Path]) -> None:
    a, b = pair
    done = shell("diff", a, b)
    assert done.returncode == 6
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    for expected in (
        "rms_norm_eps 1e-05 1e-06",
        "new - None",
        NORM,
        "extra",
        f"{HEAD} 101 x 48 50 x 48",
        f"{EMBED} bfloat16 float32",
        "model.layers.0.mlp.up_proj.weight 2 50",
        "model.layers.1.mlp.up_proj.weight infinite: 1 NaN on one side only 3",
    ):
        assert expected in lines
    assert done.stderr == (
        f"error: {b} differs from {a}: only in A: 1, only in B: 1, other shape: 1, other element type: 1, "
        "other values: 2, config fields: 2\n"
    )


def test_nothing_that_differs_is_exit_0(mmconvert: Run, clip: Path) -> None:
    done = mmconvert("diff", clip, clip)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{clip} and {clip} are the same: 56 tensors, ")
    assert json.loads(mmconvert("diff", clip, clip, "--json").stdout)["equal"] is True


def test_bytes_that_differ_without_their_values_are_told_as_0(mmconvert: Run, tmp_path: Path) -> None:
    save_file({"w": torch.tensor([0.0])}, tmp_path / "a.safetensors")
    save_file({"w": torch.tensor([-0.0])}, tmp_path / "b.safetensors")
    done = mmconvert("diff", tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert done.returncode == 6
    assert "0: bytes differ, values do not" in done.stdout
    assert "note: no configs are compared" in done.stdout


def test_an_infinity_against_a_number_is_told_as_infinite(mmconvert: Run, tmp_path: Path) -> None:
    save_file({"w": torch.tensor([1.0])}, tmp_path / "a.safetensors")
    save_file({"w": torch.tensor([float("inf")])}, tmp_path / "b.safetensors")
    done = mmconvert("diff", tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert ["w", "infinite", "0"] in [line.split() for line in done.stdout.splitlines()]


def test_two_formats_are_for_verify(mmconvert: Run, clip: Path, tmp_path: Path) -> None:
    mmconvert("hf-to-cs", "--src", clip, "--out", tmp_path / "cs")
    done = mmconvert("diff", clip, tmp_path / "cs")
    assert done.returncode == 4
    assert f"`mmconvert verify {clip} {tmp_path / 'cs'}`" in done.stderr


def test_files_away_from_their_params_are_read_with_config(mmconvert: Run, clip: Path, tmp_path: Path) -> None:
    mmconvert("hf-to-cs", "--src", clip, "--out", tmp_path / "cs", "--container", "safetensors")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "w.safetensors").write_bytes((tmp_path / "cs" / "model.safetensors").read_bytes())
    paths = [tmp_path / name / "w.safetensors" for name in ("a", "b")]
    done = mmconvert("diff", *paths, "--config", tmp_path / "cs" / "config.yaml", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["notes"] == []
    bare = mmconvert("diff", *paths, "--json")
    assert len(json.loads(bare.stdout)["notes"]) == 1


def test_a_path_that_is_not_there_is_a_usage_error(mmconvert: Run, clip: Path, tmp_path: Path) -> None:
    done = mmconvert("diff", clip, tmp_path / "absent")
    assert done.returncode == 2
    assert "absent: no such file or folder" in done.stderr


def test_encoders_are_compared_by_themselves(mmconvert: Run, llava: Path, make_llava: Make, tmp_path: Path) -> None:
    other = make_llava(tmp_path / "other", hidden_act="silu", edit=lambda tensors: tensors[EMBED].add_(1))
    for name, source in (("a", llava), ("b", other)):
        assert mmconvert("hf-to-cs", "--src", source, "--out", tmp_path / name).returncode == 0
    assert mmconvert("diff", tmp_path / "a", tmp_path / "b").returncode == 6
    options = ("--encoder", "0", "--from-release", "2.10")
    done = mmconvert("diff", tmp_path / "a", tmp_path / "b", *options)
    assert (done.returncode, done.stderr) == (0, "")
