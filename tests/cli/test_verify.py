"""`mmconvert verify`: B is A converted, or a folder is what its manifest says."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from safetensors.torch import load_file, save_file

Make = Callable[..., Path]
Run = Callable[..., CompletedProcess[str]]


@pytest.fixture
def converted(mmconvert: Run, clip: Path, tmp_path: Path) -> Path:
    out = tmp_path / "cs"
    assert mmconvert("hf-to-cs", "--src", clip, "--out", out, "--container", "safetensors").returncode == 0
    return out


def flip_a_byte(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


def test_a_conversion_verifies_against_its_source_and_its_manifest(shell: Run, clip: Path, converted: Path) -> None:
    done = shell("verify", clip, converted)
    assert done.returncode == 0
    assert f"verified: {converted} is {clip}, converted: 56 tensors" in done.stdout
    done = shell("verify", converted)
    assert done.returncode == 0
    assert f"verified: {converted} is what its manifest says: 56 tensors" in done.stdout


def test_the_same_holds_the_other_way_round(mmconvert: Run, clip: Path, converted: Path) -> None:
    assert mmconvert("verify", converted, clip).returncode == 0


def test_scripts_get_one_document(mmconvert: Run, clip: Path, converted: Path) -> None:
    nbytes = sum(tensor.nbytes for tensor in load_file(clip / "model.safetensors").values())
    assert json.loads(mmconvert("verify", clip, converted, "--json").stdout) == {
        "schema": 1,
        "a": str(clip),
        "b": str(converted),
        "ok": True,
        "tensors": 56,
        "bytes": nbytes,
        "problems": [],
        "notes": [],
    }
    alone = json.loads(mmconvert("verify", converted, "--json").stdout)
    assert (alone["ok"], alone["b"], alone["tensors"]) == (True, None, 56)


def test_one_flipped_byte_is_found_by_the_manifest(mmconvert: Run, converted: Path) -> None:
    flip_a_byte(converted / "model.safetensors")
    done = mmconvert("verify", converted, "--json")
    assert done.returncode == 6
    (problem,) = json.loads(done.stdout)["problems"]
    assert problem == "model.safetensors: classifier.classifier.ffn.0.linear_layer.weight: is not what was written"


def test_one_flipped_byte_is_found_against_the_source(mmconvert: Run, clip: Path, converted: Path) -> None:
    flip_a_byte(converted / "model.safetensors")
    done = mmconvert("verify", clip, converted)
    assert done.returncode == 6
    assert "classifier.classifier.ffn.0.linear_layer.weight: differs from A's visual_projection.weight" in done.stdout
    assert "1 differences" in done.stderr


def test_a_changed_config_and_a_stray_file_are_found(mmconvert: Run, converted: Path) -> None:
    (converted / "stray").touch()
    with (converted / "config.yaml").open("a") as file:
        file.write(" ")
    done = mmconvert("verify", converted)
    assert done.returncode == 6
    assert "config.yaml: has" in done.stdout
    assert "stray: is not in the manifest" in done.stdout


def test_a_config_that_says_something_else_is_found(mmconvert: Run, clip: Path, converted: Path) -> None:
    config = converted / "config.yaml"
    config.write_text(config.read_text().replace("initializer_range: 0.02", "initializer_range: 0.5"))
    done = mmconvert("verify", clip, converted)
    assert done.returncode == 6
    assert "config: initializer_range is 0.5, expected 0.02" in done.stdout


def test_tensors_only_here_or_only_there_are_named(mmconvert: Run, clip: Path, converted: Path) -> None:
    weights = load_file(converted / "model.safetensors")
    del weights["vit_model.embedding_layer.cls_embedding"]
    weights["stray"] = next(iter(weights.values())).clone()
    save_file(weights, converted / "model.safetensors")
    done = mmconvert("verify", clip, converted)
    assert done.returncode == 6
    assert "vit_model.embedding_layer.cls_embedding: missing in B" in done.stdout
    assert "stray: only in B" in done.stdout


def test_values_that_are_not_finite_are_noted(mmconvert: Run, make_clip: Make, tmp_path: Path) -> None:
    source = make_clip(tmp_path / "tower", edit=lambda tensors: tensors["visual_projection.weight"].fill_(float("nan")))
    mmconvert("hf-to-cs", "--src", source, "--out", tmp_path / "cs", "--container", "safetensors")
    done = mmconvert("verify", source, tmp_path / "cs")
    assert done.returncode == 0
    assert "NaN or infinite values, equal on both sides: classifier.classifier" in done.stderr


def test_a_cast_is_compared_after_that_cast(mmconvert: Run, clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "cs"
    mmconvert("hf-to-cs", "--src", clip, "--out", out, "--container", "safetensors", "--dtype", "bf16")
    assert mmconvert("verify", clip, out).returncode == 0
    # Without a manifest the folder's own element types are taken as wanted.
    (out / "mmconvert.json").unlink()
    done = mmconvert("verify", clip, out)
    assert done.returncode == 0
    assert "note: B holds bfloat16 where A holds float32; compared after that cast" in done.stderr


def test_different_models_cannot_be_compared(mmconvert: Run, clip: Path, llama: Path) -> None:
    done = mmconvert("verify", clip, llama)
    assert done.returncode == 4
    assert "clip-vit" in done.stderr
    assert "llama" in done.stderr


def test_a_folder_without_a_manifest_needs_its_source(mmconvert: Run, clip: Path) -> None:
    done = mmconvert("verify", clip)
    assert done.returncode == 2
    assert "has no mmconvert.json" in done.stderr


# --- what a user says of a side -------------------------------------------------------------------------------------


@pytest.fixture
def alone(converted: Path, tmp_path: Path) -> Path:
    """The weights of a CS checkpoint, away from its params."""
    (tmp_path / "alone").mkdir()
    return Path(shutil.copy(converted / "model.safetensors", tmp_path / "alone"))


def test_config_describes_the_side_that_has_no_params(mmconvert: Run, clip: Path, converted: Path, alone: Path) -> None:
    config = converted / "config.yaml"
    for a, b in ((clip, alone), (alone, clip), (converted, alone), (alone, converted), (alone, alone)):
        assert mmconvert("verify", a, b).returncode == 2
        done = mmconvert("verify", a, b, "--config", config)
        assert (done.returncode, done.stderr) == (0, "")


def test_config_replaces_what_lies_beside_a_cs_side(mmconvert: Run, clip: Path, converted: Path) -> None:
    other = converted.parent / "other.yaml"
    text = (converted / "config.yaml").read_text()
    other.write_text(text.replace("initializer_range: 0.02", "initializer_range: 0.5"))
    for a, b, found in (
        (clip, converted, "initializer_range is 0.5, expected 0.02"),
        (converted, clip, "initializer_range is 0.02, expected 0.5"),
        (converted, converted, "initializer_range is 0.02, expected 0.5"),
    ):
        done = mmconvert("verify", a, b, "--config", other)
        assert done.returncode == 6
        assert f"config: {found}" in done.stdout


def test_config_for_no_cs_checkpoint_is_a_usage_error(mmconvert: Run, clip: Path, converted: Path) -> None:
    done = mmconvert("verify", clip, clip, "--config", converted / "config.yaml")
    assert done.returncode == 2
    assert "--config is for CS checkpoints" in done.stderr


def test_an_encoder_that_was_taken_out_is_verified(mmconvert: Run, llava: Path, tmp_path: Path) -> None:
    cs, tower = tmp_path / "cs", tmp_path / "tower"
    assert mmconvert("hf-to-cs", "--src", llava, "--out", cs, "--to-release", "2.4").returncode == 0
    assert mmconvert("cs-to-hf", "--src", cs, "--encoder", "0", "--out", tower).returncode == 0
    done = mmconvert("verify", cs, tower, "--encoder", "0", "--from-release", "2.4")
    assert (done.returncode, done.stderr) == (0, "")
    # The other way round, and where both are CS, it is B's or both's.
    assert mmconvert("verify", tower, cs, "--encoder", "0").returncode == 0
    assert mmconvert("verify", cs, cs, "--encoder", "0").returncode == 0
    assert mmconvert("verify", tower, tower, "--encoder", "0").returncode == 2
    flip_a_byte(tower / "model.safetensors")
    assert mmconvert("verify", cs, tower, "--encoder", "0").returncode == 6
    assert mmconvert("verify", tower, cs, "--encoder", "0").returncode == 6


def test_the_release_of_a_is_what_the_user_says(mmconvert: Run, clip: Path, converted: Path) -> None:
    done = mmconvert("verify", converted, clip, "--from-release", "1.0")
    assert done.returncode == 2
    assert "--from-release 1.0" in done.stderr


def test_of_one_folder_there_is_nothing_to_say(mmconvert: Run, converted: Path) -> None:
    done = mmconvert("verify", converted, "--encoder", "0")
    assert done.returncode == 2
    assert "name A and B" in done.stderr
