"""The files of a target: what is restored, what is carried, what must not travel."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import mmconvert
from mmconvert import Options
from mmconvert.errors import InputRefused

Make = Callable[..., Path]


def config_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return found


def to_cs(source: Path, out: Path) -> dict[str, Any]:
    return mmconvert.convert(source, out, "cs", options=Options(container="safetensors"), fsync=False)


def to_hf(cs: Path, out: Path) -> dict[str, Any]:
    return mmconvert.convert(cs, out, "hf", fsync=False)


def test_fields_that_cs_does_not_know_come_back_from_the_original(make_llama: Make, tmp_path: Path) -> None:
    source = make_llama(tmp_path / "llama", pretraining_tp=4, custom={"deep": [1, {"x": None}]}, eos_token_id=[2, 5])
    manifest = to_cs(source, tmp_path / "cs")
    assert {"pretraining_tp", "custom", "eos_token_id"} <= set(manifest["config"]["carried"])
    to_hf(tmp_path / "cs", tmp_path / "back")
    back = config_of(tmp_path / "back")
    assert (back["pretraining_tp"], back["custom"], back["eos_token_id"]) == (4, {"deep": [1, {"x": None}]}, [2, 5])


def test_what_cs_says_wins_over_the_original(llama: Path, tmp_path: Path) -> None:
    to_cs(llama, tmp_path / "cs")
    params = tmp_path / "cs" / "config.yaml"
    document = yaml.safe_load(params.read_text())
    document["model"]["max_position_embeddings"] = 128
    params.write_text(yaml.safe_dump(document))
    to_hf(tmp_path / "cs", tmp_path / "back")
    assert config_of(tmp_path / "back")["max_position_embeddings"] == 128


def test_without_an_original_the_usual_values_are_written_and_said(llama: Path, tmp_path: Path) -> None:
    to_cs(llama, tmp_path / "cs")
    shutil.rmtree(tmp_path / "cs" / "assets")
    manifest = to_hf(tmp_path / "cs", tmp_path / "back")
    back = config_of(tmp_path / "back")
    assert (back["bos_token_id"], back["eos_token_id"], back["use_cache"]) == (1, 2, True)
    assert any("no original config travelled" in warning for warning in manifest["warnings"])


@pytest.mark.parametrize(
    ("field", "value"), [("rope_scaling", "x"), ("rope_scaling", {"a": 1}), ("", 1), ("vocab_size.x", 1)]
)
def test_an_original_without_sense_is_refused(llama: Path, tmp_path: Path, field: str, value: object) -> None:
    to_cs(llama, tmp_path / "cs")
    original = tmp_path / "cs" / "assets" / "config.json"
    original.write_text(json.dumps({**json.loads(original.read_text()), field: value}))
    with pytest.raises(InputRefused, match=r"cs: the config\.json that it was made from: "):
        to_hf(tmp_path / "cs", tmp_path / "back")


def test_code_that_a_config_names_does_not_travel(make_llama: Make, tmp_path: Path) -> None:
    source = make_llama(tmp_path / "llama", auto_map={"AutoModel": "evil.Model"}, _name_or_path="/home/me")
    manifest = to_cs(source, tmp_path / "cs")
    assert {each["field"] for each in manifest["config"]["dropped"]} >= {"auto_map", "_name_or_path"}
    to_hf(tmp_path / "cs", tmp_path / "back")
    for folder in (tmp_path / "cs" / "assets", tmp_path / "back"):
        assert not {"auto_map", "_name_or_path"} & set(config_of(folder))


def test_code_that_any_config_of_a_pair_names_does_not_travel_and_is_told(make_llava: Make, tmp_path: Path) -> None:
    named = {"AutoModel": "evil.Model"}
    source = make_llava(tmp_path / "llava", auto_map=named)
    text = source / "text_model_llava"
    own = {**config_of(text), "model_type": "llama", "_name_or_path": "/home/me"}
    (text / "config_lmsys.json").write_text(json.dumps(own))
    manifest = to_cs(source, tmp_path / "cs")
    (warning,) = manifest["warnings"]
    assert warning.startswith("text_model.auto_map is dropped: names code")
    carried = tmp_path / "cs" / "assets" / "text_model"
    for name in ("config.json", "config_lmsys.json"):
        assert not {"auto_map", "_name_or_path"} & set(json.loads((carried / name).read_text()))
    assert "evil" not in "".join(path.read_text() for path in carried.glob("*.json"))


@pytest.mark.parametrize("to", ["llava", "hf"])
def test_what_matters_to_cs_alone_is_dropped_with_its_reason(llava: Path, tmp_path: Path, to: str) -> None:
    to_cs(llava, tmp_path / "cs")
    params = tmp_path / "cs" / "config.yaml"
    document = yaml.safe_load(params.read_text())
    document["model"] |= {"freeze": ["^image_model"], "loss_scaling": "batch_size"}
    document["model"]["text_model"]["dropout_rate"] = 0.1
    params.write_text(yaml.safe_dump(document))
    manifest = mmconvert.convert(tmp_path / "cs", tmp_path / "back", to, fsync=False)
    dropped = {each["field"]: each["why"] for each in manifest["config"]["dropped"]}
    assert set(dropped) == {"freeze", "loss_scaling", "text_model.dropout_rate"}
    assert "['^image_model']" in dropped["freeze"]
    assert "'batch_size'" in dropped["loss_scaling"]
    assert "0.1" in dropped["text_model.dropout_rate"]


def test_the_element_type_is_that_of_the_weights(make_llama: Make, tmp_path: Path) -> None:
    source = make_llama(tmp_path / "llama", dtype=torch.float16, torch_dtype="float32")
    to_cs(source, tmp_path / "cs")
    to_hf(tmp_path / "cs", tmp_path / "back")
    assert config_of(tmp_path / "back")["torch_dtype"] == "float16"


def test_shards_lie_in_the_folder_of_their_part_with_an_index_of_their_own(llava: Path, tmp_path: Path) -> None:
    plan = mmconvert.plan(llava, tmp_path / "out", "hf", options=Options(max_shard_size=100_000))
    names = [output.layout.name for output in plan.outputs]
    for part in ("image_model", "text_model"):
        inside = [name for name in names if name.startswith(f"{part}/")]
        count = len(inside)
        assert count > 1
        assert inside == [f"{part}/model-{n:05d}-of-{count:05d}.safetensors" for n in range(1, count + 1)]
        index = json.loads(plan.documents[f"{part}/model.safetensors.index.json"])
        assert set(index["weight_map"].values()) == {name.partition("/")[2] for name in inside}


def test_the_params_of_a_mdl_are_inside_it_and_beside_it(llama: Path, tmp_path: Path) -> None:
    mmconvert.convert(llama, tmp_path / "cs", "cs", fsync=False)
    beside = mmconvert.inspect(tmp_path / "cs")
    (tmp_path / "cs" / "config.yaml").unlink()
    inside = mmconvert.inspect(tmp_path / "cs")
    assert (inside.model, inside.release, inside.problem) == (beside.model, beside.release, None)


@pytest.mark.parametrize("model", ["llama", "clip"])
def test_files_of_the_source_travel_there_and_back(request: pytest.FixtureRequest, tmp_path: Path, model: str) -> None:
    source: Path = request.getfixturevalue(model)
    to_cs(source, tmp_path / "cs")
    to_hf(tmp_path / "cs", tmp_path / "back")
    name = "tokenizer.model" if model == "llama" else "preprocessor_config.json"
    assert (tmp_path / "back" / name).read_bytes() == (source / name).read_bytes()


def test_a_tower_without_a_preprocessor_gets_clips_own(make_clip: Make, tmp_path: Path) -> None:
    source = make_clip(tmp_path / "clip")
    (source / "preprocessor_config.json").unlink()
    to_cs(source, tmp_path / "cs")
    to_hf(tmp_path / "cs", tmp_path / "back")
    made = json.loads((tmp_path / "back" / "preprocessor_config.json").read_text())
    assert made["crop_size"] == {"height": 28, "width": 28}
    assert made["image_mean"] == [0.48145466, 0.4578275, 0.40821073]
