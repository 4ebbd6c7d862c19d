"""CS multimodal models: one encoder or several, with projections of their own, and one taken out by itself."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import yaml
from safetensors.numpy import save_file

from mmconvert import Hints, api, registry, spellings
from mmconvert.errors import InputRefused, UsageError
from mmconvert.releases import NEWEST, Release
from mmconvert.spec import expand

if TYPE_CHECKING:
    from tests.converters.conftest import Reader, Workshop

ENCODER = "image_model.image_model_list.{}.0."
PROJECTION = {"name": "FeedForwardNetwork", "input_unit": 24, "layers_units": [40, 32], "use_bias": True}


@pytest.fixture
def two_encoders(golden: Path, workshop: Workshop) -> Path:
    """A CS model of two encoders of different sizes, the second with a projection of its own to the first one's."""
    base = workshop.convert(golden / "inputs/mmsimple", "cs-2.10")
    section = yaml.safe_load((base / "config.yaml").read_text("utf-8"))["model"]
    models = section["image_model_list"]["image_models"]
    second = {**models[0]["image_encoder"], "hidden_size": 24, "num_hidden_layers": 2, "num_heads": 3}
    models.append({"image_encoder": second, "projection_layer": PROJECTION})
    return write(workshop.new(), section)


def write(folder: Path, section: dict[str, Any]) -> Path:
    """A checkpoint of this section, of random numbers."""
    (hop,) = registry.path("mmsimple-llava", "cs", "cs")
    expansion = expand(hop.converter.tables, hop.converter.configs.b.read(section))
    draw = np.random.default_rng(0)
    tensors = {pair.b: draw.standard_normal(pair.shape).astype("float32") for pair in expansion.pairs}
    tensors |= {twin.key: tensors[twin.of] for twin in expansion.twins if twin.side == "b"}
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.yaml").write_text(yaml.safe_dump({"model": section}))
    return folder


def test_each_encoder_of_a_list_has_keys_and_sizes_of_its_own(two_encoders: Path) -> None:
    tensors = api.open(two_encoders)
    shapes = {key: ref.shape for key, ref in tensors.items()}
    assert shapes[ENCODER.format(0) + "embedding_layer.cls_embedding"] == (32,)
    assert shapes[ENCODER.format(1) + "embedding_layer.cls_embedding"] == (24,)
    assert shapes["image_model.image_model_list.1.1.ffn.0.linear_layer.weight"] == (40, 24)
    assert shapes["image_model.image_model_list.1.1.ffn.1.linear_layer.weight"] == (32, 40)
    assert not [key for key in shapes if key.startswith(ENCODER.format(1) + "encoder.transformer_encoder.layers.2.")]


@pytest.mark.parametrize("release", ["2.3", "2.10"])
def test_several_encoders_go_from_release_to_release(
    two_encoders: Path, release: str, workshop: Workshop, facts: Reader
) -> None:
    out = workshop.convert(two_encoders, f"cs-{release}")
    assert facts(out) == facts(two_encoders)
    written = yaml.safe_load((out / "config.yaml").read_text("utf-8"))["model"]
    (changes,) = {each.b.changes for each in registry.converters() if each.model == "mmsimple-llava"}
    source = yaml.safe_load((two_encoders / "config.yaml").read_text("utf-8"))["model"]
    assert written == spellings.write(changes, source, Release.parse(release))
    assert api.verify(two_encoders, out).problems == []


def test_a_tensor_that_one_of_several_encoders_lacks_is_named(two_encoders: Path, workshop: Workshop) -> None:
    key = ENCODER.format(1) + "embedding_layer.cls_embedding"
    workshop.edit(two_encoders).change_tensors(lambda tensors: tensors.pop(key))
    with pytest.raises(InputRefused, match=rf"{key} is missing \(expected 24\)"):
        workshop.convert(two_encoders, f"cs-{NEWEST}")


@pytest.mark.parametrize("form", ["hf", "llava"])
def test_several_encoders_have_no_place_in_llava(two_encoders: Path, form: str, workshop: Workshop) -> None:
    with pytest.raises(InputRefused, match=r"image_models has 2 encoders, and LLaVA one tower; .*--encoder 0"):
        workshop.convert(two_encoders, form)


@pytest.mark.parametrize("number", [0, 1])
def test_one_encoder_is_taken_out_as_a_clip_tower(
    two_encoders: Path, number: int, workshop: Workshop, facts: Reader
) -> None:
    out = workshop.convert(two_encoders, "hf", encoder=number)
    config = workshop.read_json(out / "config.json")
    assert (config["architectures"], config["hidden_size"]) == (["CLIPVisionModel"], (32, 24)[number])
    found, source = facts(out), facts(two_encoders)
    prefix = ENCODER.format(number)
    norm = "encoder.layers.1.layer_norm1.weight"
    assert found[f"vision_model.{norm}"] == source[f"{prefix}encoder.transformer_encoder.layers.1.norm1.weight"]
    assert len(found) == len([key for key in source if key.startswith(prefix)])
    dropped = {each["subject"]: each["why"] for each in workshop.read_json(out / "mmconvert.json")["dropped"]}
    assert dropped["text_model.ln_f.weight"] == "belongs to another part of the model"
    assert not [key for key in dropped if key.startswith(prefix)]
    again = workshop.convert(out, "cs", model="clip-encoder")
    assert facts(again) == {key.removeprefix(prefix): fact for key, fact in source.items() if key.startswith(prefix)}


def test_the_first_tower_keeps_the_preprocessor_that_it_came_with(golden: Path, workshop: Workshop) -> None:
    source = workshop.draft("inputs/mmsimple")
    preprocessor = source.path / "image_model/preprocessor_config.json"
    preprocessor.write_text('{"image_mean": [0, 0, 0]}')
    out = workshop.convert(workshop.convert(source.path, "cs"), "hf", encoder=0)
    assert (out / "preprocessor_config.json").read_bytes() == preprocessor.read_bytes()


def test_an_encoder_that_is_not_there_is_said(two_encoders: Path, golden: Path, workshop: Workshop) -> None:
    with pytest.raises(UsageError, match=r"--encoder 2: .* has 2, counted from 0"):
        api.inspect(two_encoders, hints=Hints(encoder=2))
    llama = workshop.convert(golden / "inputs/llama_mha", "cs")
    with pytest.raises(UsageError, match=r"--encoder: .* is a llama, which has no list of encoders"):
        api.inspect(llama, hints=Hints(encoder=0))
    with pytest.raises(UsageError, match="--encoder is for CS sources"):
        workshop.convert(golden / "inputs/llama_mha", "cs", encoder=0)


def test_inspect_says_which_ways_are_open(two_encoders: Path) -> None:
    found = api.inspect(two_encoders)
    assert (list(found.converts_to), set(found.refused)) == (["cs"], {"hf", "llava", "llava-hf"})
    assert all("LLaVA one tower" in why for why in found.refused.values())


@pytest.mark.parametrize("release", ["2.3", "2.10"])
def test_an_encoder_may_be_asked_for_by_its_model_s_name_too(
    two_encoders: Path, release: str, workshop: Workshop, facts: Reader
) -> None:
    source = workshop.convert(two_encoders, f"cs-{release}")
    named = workshop.convert(source, "hf", encoder=1, model="clip-encoder")
    assert facts(named) == facts(workshop.convert(two_encoders, "hf", encoder=1))


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda images: images.pop("image_models"), r"image_encoder is absent|has 0 encoders"),
        (
            lambda images: images.update(image_models=[{}]),
            "image_encoder.* is a required property|image_encoder is absent",
        ),
        (lambda images: images["image_models"].__setitem__(0, {"image_encoder": None}), "image_encoder"),
        (lambda images: images["image_models"][0]["image_encoder"].update(patch_size=None), "patch_size is null"),
    ],
)
def test_a_list_of_encoders_that_makes_no_sense_is_refused(
    damage: Any, why: str, golden: Path, workshop: Workshop
) -> None:
    folder = workshop.convert(golden / "inputs/mmsimple", "cs-2.10")
    params = yaml.safe_load((folder / "config.yaml").read_text("utf-8"))
    damage(params["model"]["image_model_list"])
    (folder / "config.yaml").write_text(yaml.safe_dump(params))
    with pytest.raises(InputRefused, match=why):
        workshop.convert(folder, "hf")
    with pytest.raises((InputRefused, UsageError)):
        workshop.convert(folder, "hf", encoder=0)
    assert api.inspect(folder).refused
