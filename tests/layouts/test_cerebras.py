"""CS checkpoints: the weights, and whichever params file describes them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

import mmconvert
from mmconvert.errors import InputRefused, UsageError
from mmconvert.layouts import Hints, recognise
from mmconvert.releases import Release

Make = Callable[..., Path]


@pytest.fixture(scope="module")
def written(clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("cs") / "clip"
    mmconvert.convert(clip, out, "cs-2.4", fsync=False)
    return out


@pytest.fixture
def cs(written: Path, tmp_path: Path) -> Path:
    """A CS folder of release 2.4 that a test may change."""
    shutil.copytree(written, tmp_path / "cs")
    return tmp_path / "cs"


def test_the_release_is_the_files_own_unless_it_is_said(cs: Path) -> None:
    assert recognise(cs).node.release == Release(2, 4)
    assert recognise(cs, Hints(release=Release(2, 7))).node.release == Release(2, 7)


def test_a_mdl_alone_is_described_by_its_own_metadata(cs: Path) -> None:
    (cs / "config.yaml").unlink()
    found = recognise(cs)
    assert (found.node.model, len(found.tensors)) == ("clip-vit", 56)
    assert "metadata" in found.config_from


def test_a_single_yaml_beside_it_describes_it_whatever_its_name(cs: Path) -> None:
    (cs / "config.yaml").rename(cs / "params_train.yml")
    assert recognise(cs).config_from == str(cs / "params_train.yml")


def test_a_params_file_that_is_given_wins(cs: Path, tmp_path: Path) -> None:
    given = tmp_path / "params.yaml"
    given.write_text((cs / "config.yaml").read_text())
    (cs / "config.yaml").write_text("model: {name: other}\n")
    assert recognise(cs, Hints(config=given)).config_from == str(given)
    with pytest.raises(InputRefused, match=r"config\.yaml: model name 'other'"):
        recognise(cs)
    with pytest.raises(UsageError, match="absent: no such file"):
        recognise(cs, Hints(config=tmp_path / "absent"))


def test_settings_of_other_tools_beside_it_describe_nothing(cs: Path) -> None:
    (cs / "config.yaml").rename(cs / "params_train.yml")
    (cs / "wandb-settings.yaml").write_text("project: x\n")
    assert recognise(cs).config_from == str(cs / "params_train.yml")
    (cs / "params_train.yml").unlink()
    assert "metadata" in recognise(cs).config_from


def test_what_a_run_says_beside_its_model_does_not_stop_its_weights(cs: Path) -> None:
    params = yaml.safe_load((cs / "config.yaml").read_text("utf-8"))
    (cs / "config.yaml").write_text(yaml.safe_dump({**params, "eval_input": [1, 2], "optimizer": "none"}))
    assert recognise(cs).config["name"] == "vision_transformer"


def test_a_release_that_the_model_never_had_is_refused_where_the_user_says_it(cs: Path) -> None:
    with pytest.raises(UsageError, match=r"--from-release 1\.9: clip-vit is known from 2\.1 to 2\.10"):
        recognise(cs, Hints(release=Release(1, 9)))


def test_a_release_that_is_not_known_here_is_noted_where_the_checkpoint_says_it(cs: Path) -> None:
    shutil.rmtree(cs)
    (cs.parent / "later").mkdir()
    later = cs.parent / "later"
    manifest = {"target": {"release": "2.11", "model": "clip-vit"}}
    (later / "mmconvert.json").write_text(json.dumps(manifest))
    (later / "config.yaml").write_text("model: {name: vision_transformer}\n")
    found = recognise(later / "config.yaml")
    assert found.node.release == Release(2, 11)
    assert ["2.11" in note for note in found.notes] == [True]


def test_a_params_file_without_a_model_is_refused(cs: Path) -> None:
    (cs / "config.yaml").write_text("optimizer: {}\n")
    with pytest.raises(InputRefused, match=r"config.yaml: model is absent.* --config"):
        recognise(cs)


def test_several_mdl_files_are_the_users_to_choose_unless_one_is_called_model(cs: Path) -> None:
    shutil.copy(cs / "model.mdl", cs / "checkpoint_10.mdl")
    assert recognise(cs).node.model == "clip-vit"
    (cs / "model.mdl").rename(cs / "checkpoint_20.mdl")
    with pytest.raises(UsageError, match=r"holds 2 \.mdl files; name one"):
        recognise(cs)


def test_the_original_config_travels_in_the_assets(cs: Path) -> None:
    assert recognise(cs).original["hidden_size"] == 32
    shutil.rmtree(cs / "assets")
    assert recognise(cs).original == {}


def test_of_the_assets_only_known_files_are_read(cs: Path) -> None:
    for name in ("modeling_evil.py", "model.safetensors", "mmconvert.json", "config.yaml", "config_lmsys.json"):
        (cs / "assets" / name).write_text("{}")
    (cs / "assets" / "text_model").mkdir()
    (cs / "assets" / "text_model" / "tokenizer.json").write_text("{}")
    assert set(recognise(cs).sidecars) == {"config.json", "preprocessor_config.json"}


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "tokenizer.json"])
def test_an_asset_that_links_out_of_its_folder_is_refused(cs: Path, name: str) -> None:
    (cs / "secret").write_text("{}")
    (cs / "assets" / name).unlink(missing_ok=True)
    (cs / "assets" / name).symlink_to("../secret")
    with pytest.raises(InputRefused, match=rf"{name}: links out of its folder"):
        recognise(cs)


@pytest.mark.parametrize("target", ["../private", "/"])
def test_assets_that_are_a_link_out_of_the_checkpoint_are_refused(cs: Path, target: str) -> None:
    (cs / "assets").rename(cs.parent / "private")
    (cs / "assets").symlink_to(target)
    with pytest.raises(InputRefused, match="assets: links out of its folder"):
        recognise(cs)


def test_assets_of_a_part_that_are_a_link_out_of_the_assets_are_refused(make_llava: Make, tmp_path: Path) -> None:
    mmconvert.convert(make_llava(tmp_path / "hf"), tmp_path / "cs", "cs", fsync=False)
    part = tmp_path / "cs" / "assets" / "text_model"
    part.rename(tmp_path / "private")
    part.symlink_to("../../private")
    with pytest.raises(InputRefused, match="assets/text_model: links out of its folder"):
        recognise(tmp_path / "cs")


@pytest.mark.parametrize("name", ["config.yaml", "model.mdl", "mmconvert.json"])
def test_a_file_that_links_out_of_the_checkpoint_is_refused(cs: Path, name: str) -> None:
    (cs / name).rename(cs.parent / "private")
    (cs / name).symlink_to("../private")
    with pytest.raises(InputRefused, match=f"{name}: links out of its folder"):
        recognise(cs)
    if name != "mmconvert.json":
        with pytest.raises(InputRefused, match=f"{name}: links out of its folder"):
            recognise(cs / name)


def test_params_of_any_name_that_link_out_of_the_checkpoint_are_refused(cs: Path) -> None:
    (cs / "config.yaml").rename(cs.parent / "private")
    (cs / "params.yaml").symlink_to("../private")
    with pytest.raises(InputRefused, match=r"params\.yaml: links out of its folder"):
        recognise(cs)
    with pytest.raises(InputRefused, match=r"params\.yaml: links out of its folder"):
        recognise(cs / "model.mdl", Hints(config=cs / "params.yaml"))
