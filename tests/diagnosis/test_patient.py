"""A folder as it is examined: nothing raises for what is wrong with a file, and everything wrong is noted once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmconvert.diagnosis import Patient


def test_what_a_folder_holds_is_read_when_asked_for(clip: Path) -> None:
    patient = Patient(clip)
    assert patient.names == {"config.json", "model.safetensors", "preprocessor_config.json"}
    assert patient.config["model_type"] == "clip_vision_model"
    assert patient.weight_files == ["model.safetensors"]
    assert patient.tensors["vision_model.post_layernorm.bias"].shape == (32,)
    assert patient.files("config.json", "tokenizer.json") == {"config.json": clip / "config.json"}
    assert not patient.troubles


def test_what_is_not_there_looks_empty_and_is_no_trouble(tmp_path: Path) -> None:
    patient = Patient(tmp_path)
    assert not any((patient.config, patient.tensors, patient.folders, patient.names, patient.weight_files))
    assert not patient.troubles


@pytest.mark.parametrize(("text", "trouble"), [("{", "is not valid JSON"), ("[]", "holds no mapping")])
def test_a_document_that_cannot_be_read_is_noted_once(text: str, trouble: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    patient = Patient(tmp_path)
    assert patient.config == patient.document("config.json") == {}
    assert len(patient.troubles) == 1
    assert trouble in next(iter(patient.troubles))


def test_weights_that_cannot_be_read_are_noted(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 100)
    patient = Patient(tmp_path)
    assert patient.tensors == {}
    assert list(patient.troubles) != []


def test_an_absent_shard_is_noted_by_its_name(tmp_path: Path) -> None:
    index = {"metadata": {}, "weight_map": {"a": "model-00001-of-00001.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    patient = Patient(tmp_path)
    assert patient.tensors == {}
    assert "model-00001-of-00001.safetensors: is missing" in next(iter(patient.troubles))


def test_a_file_linked_from_elsewhere_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "secret.json").write_text('{"a": 1}')
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "config.json").symlink_to(tmp_path / "secret.json")
    patient = Patient(tmp_path / "folder")
    assert patient.config == {}
    assert "links out of its folder" in next(iter(patient.troubles))


def test_folders_share_their_troubles_and_are_told_by_their_place(tmp_path: Path) -> None:
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "config.json").write_text("{")
    patient = Patient(tmp_path)
    inner = patient.folders["text"]
    assert inner.at("config.json") == "text/config.json"
    assert inner.config == {}
    assert len(patient.troubles) == 1
    assert inner.led_to(Path("/elsewhere")).at("config.json") == "/elsewhere/config.json"


def test_a_hub_cache_folder_inside_stands_for_its_snapshot(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--a--b" / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    assert Patient(tmp_path).folders["models--a--b"].path == snapshot
    (snapshot.parent / "4567").mkdir()
    patient = Patient(tmp_path)
    assert patient.folders == {}
    assert "2 snapshots" in next(iter(patient.troubles))


def test_a_folder_that_cannot_be_listed_is_noted(tmp_path: Path) -> None:
    patient = Patient(tmp_path / "gone")
    assert not any((patient.names, patient.folders, patient.tensors))
    assert list(patient.troubles) == [f"{tmp_path / 'gone'}: cannot be read: No such file or directory"]
