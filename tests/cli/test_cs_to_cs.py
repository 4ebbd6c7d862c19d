"""`mmconvert cs-to-cs`: a checkpoint and its params file, from one release or container to another."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import yaml

Run = Callable[..., CompletedProcess[str]]

FLAT: dict[str, Any] = {
    "runconfig": {"max_steps": 100, "seed": 3, "mode": "train"},
    "optimizer": {
        "optimizer_type": "AdamW",
        "learning_rate": [{"scheduler": "Linear", "initial_learning_rate": 0.0, "total_iters": 10}],
    },
    "train_input": {"batch_size": 8, "data_dir": "train"},
}


@pytest.fixture
def cs_2_2(mmconvert: Run, llama: Path, tmp_path: Path) -> Path:
    """A LLaMA of release 2.2, beside a whole params file."""
    params = tmp_path / "params.yaml"
    params.write_text(yaml.safe_dump({"model": {"mixed_precision": True}, **FLAT}))
    done = mmconvert("hf-to-cs", "--src", llama, "--out", tmp_path / "cs", "--to-release", "2.2", "--params", params)
    assert done.returncode == 0
    return tmp_path / "cs"


def written(folder: Path) -> Any:
    return yaml.safe_load((folder / "config.yaml").read_text("utf-8"))


def test_a_whole_params_file_moves_under_trainer_and_back(mmconvert: Run, cs_2_2: Path, tmp_path: Path) -> None:
    up = mmconvert("cs-to-cs", "--src", cs_2_2, "--out", tmp_path / "new")
    assert up.returncode == 0
    new = written(tmp_path / "new")["trainer"]
    assert new["init"]["model"]["name"] == "llama"
    assert (new["init"]["loop"]["max_steps"], new["init"]["seed"]) == (100, 3)
    assert new["init"]["optimizer"] == {"AdamW": {}}
    assert new["init"]["schedulers"] == [{"LinearLR": {"initial_learning_rate": 0.0, "total_iters": 10}}]
    assert new["fit"]["train_dataloader"] == {"batch_size": 8, "data_dir": "train"}
    down = mmconvert("cs-to-cs", "--src", tmp_path / "new", "--out", tmp_path / "old", "--to-release", "2.2")
    assert down.returncode == 0
    old, first = written(tmp_path / "old"), written(cs_2_2)
    del first["runconfig"]["mode"]
    assert old == first


def test_what_has_no_place_in_the_new_params_file_is_said(mmconvert: Run, cs_2_2: Path, tmp_path: Path) -> None:
    done = mmconvert("cs-to-cs", "--src", cs_2_2, "--out", tmp_path / "new")
    assert "warning: runconfig.mode is dropped" in done.stderr
    dropped = json.loads((tmp_path / "new/mmconvert.json").read_text())["config"]["dropped"]
    assert "runconfig.mode" in {each["field"] for each in dropped}


def test_the_tensors_stay_and_verify_says_so(
    mmconvert: Run, cs_2_2: Path, tmp_path: Path, contents: Callable[[Path], Any]
) -> None:
    options = ("--to-release", "1.9", "--container", "safetensors")
    done = mmconvert("cs-to-cs", "--src", cs_2_2, "--out", tmp_path / "old", *options)
    assert done.returncode == 0
    assert contents(tmp_path / "old") == contents(cs_2_2)
    assert mmconvert("verify", cs_2_2, tmp_path / "old").returncode == 0
    assert mmconvert("verify", tmp_path / "old").returncode == 0


def test_the_manifest_names_both_releases(mmconvert: Run, cs_2_2: Path, tmp_path: Path) -> None:
    mmconvert("cs-to-cs", "--src", cs_2_2, "--out", tmp_path / "new", "--to-release", "2.5")
    facts = json.loads((tmp_path / "new/mmconvert.json").read_text())
    assert (facts["source"]["release"], facts["target"]["release"]) == ("2.2", "2.5")
    assert facts["path"] == ["llama: cs -> cs"]


def test_carried_files_travel_on(mmconvert: Run, cs_2_2: Path, tmp_path: Path, llama: Path) -> None:
    mmconvert("cs-to-cs", "--src", cs_2_2, "--out", tmp_path / "new")
    mmconvert("cs-to-hf", "--src", tmp_path / "new", "--out", tmp_path / "hf")
    assert (tmp_path / "hf/tokenizer.model").read_bytes() == (llama / "tokenizer.model").read_bytes()


def test_a_hugging_face_folder_is_not_for_this_command(mmconvert: Run, llama: Path, tmp_path: Path) -> None:
    done = mmconvert("cs-to-cs", "--src", llama, "--out", tmp_path / "out")
    assert done.returncode == 4
    assert "this command reads cs" in done.stderr


def test_a_params_file_alone_goes_to_another_release_too(mmconvert: Run, cs_2_2: Path, tmp_path: Path) -> None:
    mmconvert("cs-to-cs", "--src", cs_2_2, "--out", tmp_path / "whole")
    source = cs_2_2 / "config.yaml"
    done = mmconvert("cs-to-cs", "--src", source, "--from-release", "2.2", "--out", tmp_path / "alone")
    assert done.returncode == 0
    assert {file.name for file in (tmp_path / "alone").iterdir()} == {"config.yaml", "mmconvert.json"}
    assert written(tmp_path / "alone") == written(tmp_path / "whole")
    assert mmconvert("verify", tmp_path / "alone").returncode == 0


def test_a_params_file_alone_is_no_model(mmconvert: Run, cs_2_2: Path, tmp_path: Path) -> None:
    done = mmconvert("cs-to-hf", "--src", cs_2_2 / "config.yaml", "--out", tmp_path / "hf")
    assert done.returncode == 3
    assert "a params file alone holds no weights" in done.stderr
    assert not (tmp_path / "hf").exists()
