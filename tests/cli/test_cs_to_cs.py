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


# Fields of the run that a flat file keeps in its model section.
RUN: dict[str, Any] = {"mixed_precision": True, "fp16_type": "cbfloat16"}


@pytest.fixture
def cs_2_2(mmconvert: Run, llama: Path, tmp_path: Path) -> Path:
    """A LLaMA of release 2.2 whose config.yaml is a whole params file."""
    done = mmconvert("hf-to-cs", "--src", llama, "--out", tmp_path / "cs", "--to-release", "2.2")
    assert done.returncode == 0
    params = written(tmp_path / "cs")
    (tmp_path / "cs/config.yaml").write_text(yaml.safe_dump({"model": {**params["model"], **RUN}, **FLAT}))
    return tmp_path / "cs"


def written(folder: Path) -> Any:
    return yaml.safe_load((folder / "config.yaml").read_text("utf-8"))


def test_a_whole_params_file_moves_under_trainer_and_back(mmconvert: Run, cs_2_2: Path, tmp_path: Path) -> None:
    up = mmconvert("cs-to-cs", "--src", cs_2_2, "--out", tmp_path / "new")
    assert up.returncode == 0
    new = written(tmp_path / "new")["trainer"]
    assert new["init"]["model"]["name"] == "llama"
    assert not new["init"]["model"].keys() & RUN.keys()
    assert new["init"]["precision"] == {"enabled": True, "fp16_type": "cbfloat16"}
    assert (new["init"]["loop"]["max_steps"], new["init"]["seed"]) == (100, 3)
    assert new["init"]["optimizer"] == {"AdamW": {}}
    assert new["init"]["schedulers"] == [{"LinearLR": {"initial_learning_rate": 0.0, "total_iters": 10}}]
    assert new["fit"]["train_dataloader"] == {"batch_size": 8, "data_dir": "train"}
    down = mmconvert("cs-to-cs", "--src", tmp_path / "new", "--out", tmp_path / "old", "--to-release", "2.2")
    assert down.returncode == 0
    old, first = written(tmp_path / "old"), written(cs_2_2)
    del first["runconfig"]["mode"]
    assert old == first
    assert RUN.items() <= old["model"].items()


@pytest.mark.parametrize("release", ["2.0", "2.1", "2.2"])
def test_fields_of_the_run_stay_in_a_flat_file(mmconvert: Run, cs_2_2: Path, tmp_path: Path, release: str) -> None:
    params = written(cs_2_2)
    params["model"]["fp16_type"] = "bfloat16"
    (cs_2_2 / "config.yaml").write_text(yaml.safe_dump(params))
    assert mmconvert("cs-to-cs", "--src", cs_2_2, "--out", tmp_path / "out", "--to-release", release).returncode == 0
    said = {"use_bfloat16": True} if release == "2.0" else {"fp16_type": "bfloat16"}
    assert {"mixed_precision": True, **said}.items() <= written(tmp_path / "out")["model"].items()


def test_old_spellings_tell_a_release_that_nobody_says(mmconvert: Run, cs_2_2: Path, tmp_path: Path) -> None:
    params = written(cs_2_2)
    params["optimizer"] = {"optimizer_type": "AdamW", "beta1": 0.9, "beta2": 0.95, "weight_decay_rate": 0.1}
    params["runconfig"]["keep_checkpoint_max"] = 3
    (tmp_path / "old.yaml").write_text(yaml.safe_dump(params))
    assert mmconvert("cs-to-cs", "--src", tmp_path / "old.yaml", "--out", tmp_path / "new").returncode == 0
    new = written(tmp_path / "new")["trainer"]["init"]
    assert new["optimizer"] == {"AdamW": {"betas": [0.9, 0.95], "weight_decay": 0.1}}
    assert {"KeepNCheckpoints": {"n": 3}} in new["callbacks"]
    found = json.loads(mmconvert("inspect", tmp_path / "old.yaml", "--json").stdout)
    assert (found["release"], "before 2.1 there is what" in found["release_from"]) == ("2.0", True)


def test_a_flat_file_whose_model_has_a_name_is_flat_all_the_same(mmconvert: Run, cs_2_2: Path, tmp_path: Path) -> None:
    params = written(cs_2_2)
    params["model"]["name"] = "llama"
    (tmp_path / "named.yaml").write_text(yaml.safe_dump(params))
    assert mmconvert("cs-to-cs", "--src", tmp_path / "named.yaml", "--out", tmp_path / "new").returncode == 0
    assert written(tmp_path / "new")["trainer"]["init"]["loop"] == {"max_steps": 100}


def test_a_params_file_of_the_user_is_brought_to_the_release_that_is_written(
    mmconvert: Run, llama: Path, cs_2_2: Path, tmp_path: Path
) -> None:
    done = mmconvert("hf-to-cs", "--src", llama, "--out", tmp_path / "new", "--params", cs_2_2 / "config.yaml")
    assert "warning: runconfig.mode is dropped" in done.stderr
    mmconvert("cs-to-cs", "--src", cs_2_2, "--out", tmp_path / "other")
    assert written(tmp_path / "new") == written(tmp_path / "other")


def test_another_tokenizer_takes_the_carried_ones_place(mmconvert: Run, cs_2_2: Path, tmp_path: Path) -> None:
    (tmp_path / "tokens").mkdir()
    (tmp_path / "tokens/tokenizer.json").write_text("{}")
    out = tmp_path / "new"
    assert mmconvert("cs-to-cs", "--src", cs_2_2, "--out", out, "--tokenizer", tmp_path / "tokens").returncode == 0
    assert {file.name for file in (out / "assets").iterdir() if "token" in file.name} == {"tokenizer.json"}


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
    again = mmconvert("cs-to-cs", "--src", tmp_path / "alone", "--to-release", "2.2", "--out", tmp_path / "again")
    assert again.returncode == 0


def test_a_params_file_alone_is_no_model(mmconvert: Run, cs_2_2: Path, tmp_path: Path) -> None:
    done = mmconvert("cs-to-hf", "--src", cs_2_2 / "config.yaml", "--out", tmp_path / "hf")
    assert done.returncode == 3
    assert "a params file alone holds no weights" in done.stderr
    assert not (tmp_path / "hf").exists()


@pytest.mark.parametrize(
    ("option", "why"),
    [
        (("--dtype", "fp16"), "this is a params file alone"),
        (("--container", "mdl"), "this is a params file alone"),
        (("--config", "other.yaml"), "the source is a params file itself"),
    ],
)
def test_what_is_for_weights_has_nothing_to_act_on_in_a_params_file(
    mmconvert: Run, cs_2_2: Path, tmp_path: Path, option: tuple[str, str], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other.yaml").write_text("{}")
    done = mmconvert("cs-to-cs", "--src", cs_2_2 / "config.yaml", "--out", tmp_path / "out", *option)
    assert (done.returncode, why in done.stderr) == (2, True), done.stderr


def test_a_format_that_the_source_is_not_in_is_refused(mmconvert: Run, cs_2_2: Path, tmp_path: Path) -> None:
    done = mmconvert("convert", "--from", "llava", "--to", "hf", "--src", cs_2_2, "--out", tmp_path / "out")
    assert (done.returncode, "--from llava" in done.stderr) == (2, True)


def test_a_model_that_nobody_knows_is_no_conversion(mmconvert: Run, cs_2_2: Path, llama: Path, tmp_path: Path) -> None:
    for source, command in ((cs_2_2, "cs-to-hf"), (llama, "hf-to-cs")):
        done = mmconvert(command, "--src", source, "--out", tmp_path / "out", "--model", "gpt2")
        assert (done.returncode, "known: clip-encoder, clip-vit" in done.stderr) == (4, True)


def test_a_params_file_of_the_user_says_how_the_model_trains(mmconvert: Run, cs_2_2: Path, tmp_path: Path) -> None:
    loss = {"loss_scaling": "batch_size", "loss_weight": 0.25}
    (tmp_path / "flat.yaml").write_text(yaml.safe_dump({"model": {"vocab_size": 7, **loss, **RUN}, **FLAT}))
    done = mmconvert("cs-to-cs", "--src", cs_2_2, "--out", tmp_path / "new", "--params", tmp_path / "flat.yaml")
    assert done.returncode == 0, done.stderr
    model = written(tmp_path / "new")["trainer"]["init"]["model"]
    assert {name: model[name] for name in (*loss, "vocab_size")} == {**loss, "vocab_size": 101}
    # It is the same model all the same.
    found = mmconvert("verify", cs_2_2, tmp_path / "new")
    assert found.returncode == 0
    assert "loss_weight is 0.25 in B, not 1.0: a matter of training" in found.stderr
