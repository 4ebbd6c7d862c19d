"""A config without weights: known wherever it lies and however it is wrapped."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from mmconvert import api
from mmconvert.errors import InputRefused, NoConversion, UsageError
from mmconvert.layouts.described import describe


def config_of(folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return config


def put(file: Path, document: object) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(document) if file.suffix == ".json" else yaml.safe_dump(document))
    return file


@pytest.fixture
def section(llama: Path) -> dict[str, Any]:
    """The model section of the small LLaMA."""
    document: dict[str, Any] = yaml.safe_load(api.plan(llama, None, "cs").documents["config.yaml"])["model"]
    return document


def test_a_config_is_known_by_itself_or_by_its_folder(llama: Path, tmp_path: Path) -> None:
    named = describe("llama", put(tmp_path / "small.json", config_of(llama)))
    held = describe("llama", llama)
    assert named.config == held.config == config_of(llama)
    assert (named.node.format, named.tensors) == ("hf", {})
    # Whatever the file is called, it travels as what it is.
    assert named.sidecars == {"config.json": tmp_path / "small.json"}


def test_parts_are_known_by_their_configs_whatever_their_folders_are_called(llava: Path, tmp_path: Path) -> None:
    put(tmp_path / "eye/config.json", config_of(llava / "image_model"))
    put(tmp_path / "mouth/config.json", config_of(llava / "text_model_llava"))
    (tmp_path / "empty").mkdir()
    found = describe("mmsimple-llava", tmp_path)
    assert found.node.format == "llava"
    assert found.config["image_model"] == config_of(llava / "image_model")
    assert found.sidecars["text_model/config.json"] == tmp_path / "mouth/config.json"


def test_one_file_may_hold_both_parts(llava: Path, tmp_path: Path) -> None:
    both = {"image_model": config_of(llava / "image_model"), "text_model": config_of(llava / "text_model_llava")}
    found = describe("llava", put(tmp_path / "both.json", both))
    assert (found.node.model, found.node.format) == ("llava", "llava")
    assert found.config == both


def test_a_config_beside_a_parts_own_is_read_with_it(llava: Path, tmp_path: Path) -> None:
    shutil.copytree(llava, tmp_path / "llava")
    text = tmp_path / "llava/text_model_llava"
    own = {**config_of(text), "model_type": "llama", "rope_theta": 5e5}
    put(text / "config_lmsys.json", own)
    found = describe("llava", tmp_path / "llava")
    assert found.config["text_model"]["rope_theta"] == 5e5
    assert found.sidecars["text_model/config_lmsys.json"] == text / "config_lmsys.json"
    put(text / "config_lmsys.json", {**own, "hidden_size": 64})
    with pytest.raises(InputRefused, match="disagree: hidden_size"):
        describe("llava", tmp_path / "llava")


@pytest.mark.parametrize(
    "wrap",
    [
        lambda section: section,
        lambda section: {"model": section},
        lambda section: {"model": section, "runconfig": {"max_steps": 1}},
        lambda section: {"trainer": {"init": {"model": section}}},
    ],
    ids=["alone", "flat", "old", "trainer"],
)
def test_a_model_section_is_found_in_any_params_file(section: dict[str, Any], wrap: Any, tmp_path: Path) -> None:
    found = describe("llama", put(tmp_path / "params.yaml", wrap(section)))
    assert found.node.format == "cs"
    assert found.config == section


def test_a_section_of_an_old_release_is_read_in_todays_words(section: dict[str, Any], tmp_path: Path) -> None:
    old = {name: value for name, value in section.items() if name not in ("name", "norm_type")}
    found = describe("llama", put(tmp_path / "params.yaml", {"model": {**old, "use_rms_norm": True}}))
    assert found.config == section


def test_a_cs_folder_is_known_by_its_params_file(section: dict[str, Any], tmp_path: Path) -> None:
    put(tmp_path / "config.yaml", {"model": section})
    assert describe("llama", tmp_path).config == section


def test_an_unknown_model_is_refused_with_those_that_are_known(llama: Path) -> None:
    with pytest.raises(NoConversion, match=r"'gpt2'; known: clip-encoder, clip-vit, llama,"):
        describe("gpt2", llama)


def test_a_file_that_is_not_there_is_a_mistake_of_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        describe("llama", tmp_path / "config.json")


def test_a_config_of_another_model_is_refused_by_its_type(clip: Path) -> None:
    with pytest.raises(InputRefused, match=r"config\.json: model_type 'clip_vision_model' is no llama"):
        describe("llama", clip)


def test_one_part_alone_is_no_model_of_two(llava: Path) -> None:
    with pytest.raises(InputRefused, match="image_model and text_model; name the folder that holds both"):
        describe("llava", llava / "text_model_llava")


def test_a_part_that_is_there_twice_is_refused(llava: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        put(tmp_path / name / "config.json", config_of(llava / "image_model"))
    with pytest.raises(InputRefused, match="has 2 of its image_model"):
        describe("llava", tmp_path)


@pytest.mark.parametrize(
    ("name", "document", "why"),
    [
        ("config.json", [], "holds no mapping"),
        ("params.yaml", [], "holds no mapping"),
        ("params.yaml", {"trainer": {"init": {}}}, "trainer.init.model is absent"),
        ("params.yaml", {"trainer": []}, "trainer is"),
    ],
)
def test_a_file_without_a_config_is_refused(tmp_path: Path, name: str, document: object, why: str) -> None:
    with pytest.raises(InputRefused, match=why):
        describe("llama", put(tmp_path / name, document))
