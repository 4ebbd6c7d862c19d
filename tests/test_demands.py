"""What a config demands is what checkpoints of it hold, in every format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from mmconvert import api
from mmconvert.demands import Demands
from mmconvert.errors import InputRefused, NoConversion
from mmconvert.releases import Release

Shapes = dict[str, tuple[int, ...]]

GOLDEN = Path(__file__).parent / "golden"
INPUTS = sorted(path.name for path in (GOLDEN / "inputs").iterdir())
# The reference's CS table of each input; the release changes no key.
CASES = {
    name: json.loads((GOLDEN / f"cases/{name}__hf_to_cs-2.{4 if name != 'llama_mha' else 1}.json").read_text())
    for name in INPUTS
}


def shapes(found: Demands) -> Shapes:
    return {key: origin.pair.shape for key, origin in found.tensors.items()}


def held(folder: Path) -> Shapes:
    return {key: ref.shape for key, ref in api.open(folder).items()}


def put(file: Path, document: object) -> Path:
    file.write_text(json.dumps(document) if file.suffix == ".json" else yaml.safe_dump(document))
    return file


def section_of(source: Path) -> dict[str, Any]:
    """The CS model section that a checkpoint becomes."""
    document: dict[str, Any] = yaml.safe_load(api.plan(source, None, "cs").documents["config.yaml"])["model"]
    return document


@pytest.fixture
def two_towers(llava: Path, tmp_path: Path) -> Path:
    """A CS model section with two image encoders, which no other format has room for."""
    section = section_of(llava)
    section["image_model_list"]["image_models"] *= 2
    return put(tmp_path / "two.yaml", section)


@pytest.mark.parametrize("name", [name for name in INPUTS if name != "mmsimple_noproj"])
def test_hugging_face_checkpoints_hold_what_their_config_demands(name: str) -> None:
    folder = GOLDEN / "inputs" / name
    found, real = api.keys(CASES[name]["model"], folder), api.inspect(folder)
    assert shapes(found) == held(folder)
    assert (found.parameters, found.nbytes) == (real.parameters, real.nbytes)


@pytest.mark.parametrize("name", ["tiny_src", "tiny_src_gqa"])
def test_llava_checkpoints_hold_what_their_config_demands(name: str) -> None:
    found = api.keys("mmsimple-llava", GOLDEN / "llava" / name)
    assert (found.format, shapes(found)) == ("llava", held(GOLDEN / "llava" / name))


@pytest.mark.parametrize("name", INPUTS)
def test_cs_checkpoints_hold_what_a_config_demands_there(name: str) -> None:
    recorded = {key: tuple(entry["shape"]) for key, entry in CASES[name]["tensors"].items()}
    if name == "llama_tied":
        # The reference leaves it out, and cannot load its own file.
        recorded["lm_head.weight"] = recorded["embedding_layer.word_embeddings.weight"]
    assert shapes(api.keys(CASES[name]["model"], GOLDEN / "inputs" / name, "cs")) == recorded


@pytest.mark.parametrize("name", INPUTS)
def test_every_format_demands_the_same_of_the_same_model(name: str, tmp_path: Path) -> None:
    model, folder = CASES[name]["model"], GOLDEN / "inputs" / name
    section = dict(api.keys(model, folder, "cs").legs[-1].configs.target)
    config = put(tmp_path / "section.yaml", section)
    forms = ["hf", "cs", "llava"] if CASES[name]["input"] == "mmsimple" else ["hf", "cs"]
    for form in forms:
        assert shapes(api.keys(model, config, form)) == shapes(api.keys(model, folder, form))


def test_every_tensor_has_the_part_that_options_call_it_by(llava: Path) -> None:
    found = api.keys("mmsimple-llava", llava, "cs").tensors
    assert {origin.pair.part for origin in found.values()} == {"vision", "projector", "text"}
    assert found["image_model.projection.ffn.0.linear_layer.weight"].pair.part == "projector"


def test_a_second_copy_takes_room_and_is_no_parameter(make_llama: Any, tmp_path: Path) -> None:
    source = make_llama(tmp_path / "tied", tie_word_embeddings=True, torch_dtype="bfloat16")
    hf, cs = api.keys("llama", source), api.keys("llama", source, "cs")
    assert cs.tensors.keys() >= {"lm_head.weight", "ln_f.weight"}
    assert hf.parameters == cs.parameters == api.inspect(source).parameters
    assert hf.nbytes == 2 * hf.parameters
    assert cs.nbytes == 2 * (cs.parameters + 101 * 48 + 48)


def test_bytes_are_those_of_each_parts_type_and_unknown_where_a_part_says_none(llava: Path, tmp_path: Path) -> None:
    both = {
        part: json.loads((llava / folder / "config.json").read_text())
        for part, folder in (("image_model", "image_model"), ("text_model", "text_model_llava"))
    }
    both["image_model"]["torch_dtype"] = "float32"
    assert api.keys("llava", put(tmp_path / "both.json", both)).nbytes is None
    both["text_model"]["dtype"] = "bfloat16"
    found = api.keys("llava", put(tmp_path / "both.json", both))
    vision = sum(ref.nbytes for key, ref in api.open(llava).items() if key.startswith("image_model/vision_model"))
    text = sum(ref.nbytes for key, ref in api.open(llava).items() if key.startswith("text_model"))
    assert found.nbytes == vision + text


def test_a_type_that_nothing_can_be_drawn_in_is_none(llama: Path, tmp_path: Path) -> None:
    config = json.loads((llama / "config.json").read_text())
    assert api.keys("llama", put(tmp_path / "config.json", {**config, "torch_dtype": "auto"})).nbytes is None


def test_cs_alone_has_releases_and_means_the_newest(llama: Path) -> None:
    assert api.keys("llama", llama).release is None
    assert api.keys("llama", llama, "cs").release == Release(2, 10)
    assert api.keys("llama", llama, "cs-2.4").release == Release(2, 4)
    with pytest.raises(NoConversion, match=r"release 3\.0 is not known"):
        api.keys("llama", llama, "cs", release=Release(3, 0))
    with pytest.raises(NoConversion, match="hf has no releases"):
        api.keys("llama", llama, release=Release(2, 4))


def test_a_format_that_the_model_does_not_have_is_refused(llama: Path) -> None:
    with pytest.raises(NoConversion, match="no way from hf to llava"):
        api.keys("llama", llama, "llava")


def test_a_config_that_cannot_be_said_is_refused_with_its_file(llama: Path, tmp_path: Path) -> None:
    config = json.loads((llama / "config.json").read_text())
    with pytest.raises(InputRefused, match=r"odd\.json: head_dim is 20"):
        api.keys("llama", put(tmp_path / "odd.json", {**config, "head_dim": 20}))


def test_what_only_one_format_can_say_is_known_there(two_towers: Path) -> None:
    one = api.keys("mmsimple-llava", two_towers)
    second = [key for key in one.tensors if key.startswith("image_model.image_model_list.1.0.")]
    assert len(second) == len([key for key in one.tensors if key.startswith("image_model.image_model_list.0.0.")]) > 0
    with pytest.raises(InputRefused, match="has 2 encoders"):
        api.keys("mmsimple-llava", two_towers, "hf")


def test_a_head_that_only_cs_has_is_demanded_there_alone(make_llama: Any, tmp_path: Path) -> None:
    source = make_llama(tmp_path / "headless", architectures=["LlamaModel"])
    assert "lm_head.weight" not in api.keys("llama-headless", source).tensors
    assert "lm_head.weight" in api.keys("llama-headless", source, "cs").tensors
    section = put(tmp_path / "section.yaml", section_of(make_llama(tmp_path / "whole")))
    assert "lm_head.weight" in api.keys("llama-headless", section).tensors
