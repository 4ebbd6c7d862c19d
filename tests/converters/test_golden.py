"""Every golden case: the same keys, shapes, element types and bytes as the reference systems, both ways."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from mmconvert import Hints, Options, api
from mmconvert.paths import ABSENT, get
from mmconvert.releases import Release

if TYPE_CHECKING:
    from tests.converters.conftest import Facts, Reader, Workshop

CASES = Path(__file__).parents[1] / "golden/cases"
TO_CS = sorted(path.stem for path in CASES.glob("*__hf_to_cs-*.json"))
TO_HF = sorted(path.stem for path in CASES.glob("*__cs-*_to_hf.json"))
BETWEEN = sorted(path.stem for path in CASES.glob("*__cs-*_to_cs-*.json"))
# The container changes no tensor; these few show it.
AS_MDL = (
    "clip_proj__hf_to_cs-2.9",
    "llama_gqa_bf16__hf_to_cs-2.4",
    "llama_tied__hf_to_cs-2.4",
    "mmsimple__hf_to_cs-2.4",
)
LLAVA = ("tiny_src", "tiny_src_gqa", "tiny_src_sharded", "tiny_src_tower_tuned")

SAFETENSORS = Options(container="safetensors")
# The reference draws a missing projector at random.
DRAWN = {"mmsimple_noproj": Options(container="safetensors", init={"projector": 0})}

# Fields that the reference writes and its own config classes then refuse, or that mean what nobody wants (`freeze`
# holds the projector too).
DECODER_FAULTS = ("norm_first", "use_ff_layer1_dropout")
ENCODER_FAULTS = ("num_classes", "use_bias_in_output")
MULTIMODAL_FAULTS = (
    *("freeze", "label_smoothing", "z_loss_eps"),
    *(f"text_model.{name}" for name in DECODER_FAULTS),
    *(f"image_model.{name}" for name in ENCODER_FAULTS),
    *(f"image_model_list.image_models.0.image_encoder.{name}" for name in ENCODER_FAULTS),
    *(f"image_model_list.image_models.0.image_model.0.{name}" for name in ENCODER_FAULTS),
)
FAULTS = {
    "clip-vit": (),
    "llama": DECODER_FAULTS,
    "llava": MULTIMODAL_FAULTS,
    "mmsimple-llava": MULTIMODAL_FAULTS,
}


def read_case(name: str) -> dict[str, Any]:
    case: dict[str, Any] = json.loads((CASES / f"{name}.json").read_text("utf-8"))
    return case


def recorded(tensors: dict[str, Any], prefix: str = "") -> dict[str, Facts]:
    return {
        prefix + key: (entry["shape"], entry["dtype"].removeprefix("torch."), entry["sha256"])
        for key, entry in tensors.items()
    }


def without_faults(case: dict[str, Any]) -> Any:
    """The params that the reference wrote, without what its own classes refuse."""
    params = yaml.safe_load(next(iter(case["written_configs"].values())))
    for path in FAULTS[case["model"]]:
        for root in ("model", "trainer.init.model"):
            if get(params, f"{root}.{path}") is not ABSENT:
                remove(params, f"{root}.{path}")
    return params


def without_freeze(params: Any) -> Any:
    """The patterns are ours: those of the reference freeze the projector too."""
    section = get(params, "trainer.init.model" if "trainer" in params else "model")
    section.pop("freeze", None)
    return params


def remove(section: Any, path: str) -> None:
    *above, name = path.split(".")
    for step in above:
        section = section[int(step) if isinstance(section, list) else step]
    del section[name]


def without_digests(facts: dict[str, Facts]) -> dict[str, tuple[list[int], str]]:
    return {key: (shape, dtype) for key, (shape, dtype, _) in facts.items()}


@pytest.mark.parametrize(
    ("name", "container"), [*((name, "safetensors") for name in TO_CS), *((name, "mdl") for name in AS_MDL)]
)
def test_cs_tensors_are_the_reference_s(
    name: str, container: Any, golden: Path, workshop: Workshop, facts: Reader
) -> None:
    case = read_case(name)
    init = DRAWN.get(case["input"], SAFETENSORS).init
    options = Options(container=container, init=init)
    out = workshop.convert(golden / "inputs" / case["input"], case["to"], options, model=case["model"])
    ours, theirs = facts(out), recorded(case["tensors"])
    if case["input"] == "llama_tied":
        # The reference leaves it out, and cannot load its own file.
        assert ours.pop("lm_head.weight") == theirs["embedding_layer.word_embeddings.weight"]
    assert without_digests(ours) == without_digests(theirs)
    assert {key for key in ours if ours[key] != theirs[key]} <= set(case["random_keys"])


@pytest.mark.parametrize("name", TO_CS)
def test_cs_config_is_the_reference_s_without_its_faults(name: str, golden: Path, workshop: Workshop) -> None:
    case = read_case(name)
    source = golden / "inputs" / case["input"]
    options, hints = DRAWN.get(case["input"], SAFETENSORS), Hints(model=case["model"])
    planned = api.plan(source, workshop.new(), case["to"], options=options, hints=hints)
    assert without_freeze(yaml.safe_load(planned.documents["config.yaml"])) == without_faults(case)


@pytest.mark.parametrize("name", TO_HF)
def test_hf_tensors_are_the_reference_s(
    name: str, golden: Path, workshop: Workshop, facts: Reader, tmp_path: Path
) -> None:
    case = read_case(name)
    options = DRAWN.get(case["input"], SAFETENSORS)
    release = case["from"]
    if "cs-2.4t" in name:
        # The `t` cases start from a trainer's params file.
        params, release = tmp_path / "params.yaml", "cs-2.4"
        params.write_text("trainer: {init: {seed: 1}}\n")
        options = Options(container="safetensors", params=params)
    cs = workshop.convert(golden / "inputs" / case["input"], release, options, model=case["model"])
    ours = facts(workshop.convert(cs, "hf"))
    folders = case["tensors"]
    theirs: dict[str, Facts] = {}
    for folder, tensors in folders.items():
        theirs |= recorded(tensors, f"{folder}/" if len(folders) > 1 else "")
    drawn = {key for key in theirs if "mm_projector" in key and case["input"] in DRAWN}
    assert without_digests(ours) == without_digests(theirs)
    assert {key for key in ours if ours[key] != theirs[key]} == drawn


@pytest.mark.parametrize("name", BETWEEN)
def test_from_one_release_to_another_as_the_reference(
    name: str, golden: Path, workshop: Workshop, facts: Reader, tmp_path: Path
) -> None:
    case = read_case(name)
    release, options = case["from"], SAFETENSORS
    if "cs-2.3t" in name:
        params = tmp_path / "params.yaml"
        params.write_text("trainer: {init: {}}\n")
        options = Options(container="safetensors", params=params)
    source = workshop.convert(golden / "inputs" / case["input"], release, options, model=case["model"])
    out = workshop.convert(source, case["to"])
    assert facts(out) == recorded(case["tensors"])
    ours = yaml.safe_load((out / "config.yaml").read_text("utf-8"))
    assert without_freeze(ours) == without_faults(case)
    assert api.verify(source, out).problems == []


@pytest.mark.parametrize("name", ["llama_gqa", "clip_proj", "mmsimple"])
def test_what_a_trainer_saved_goes_to_another_release_and_home(
    name: str, golden: Path, workshop: Workshop, facts: Reader, tmp_path: Path
) -> None:
    saved, base = read_case(f"{name}__trainerlike_cs-2.4"), read_case(f"{name}__hf_to_cs-2.4")
    params = tmp_path / "params.yaml"
    params.write_text(next(iter(saved["written_configs"].values())))
    plain = workshop.convert(golden / "inputs" / name, "cs-2.4")
    folder = workshop.edit(workshop.new())
    folder.path.mkdir()
    folder.write_tensors({f"model.{key}": tensor for key, tensor in workshop.edit(plain).tensors().items()})
    source = folder.path / "model.safetensors"
    upgraded = workshop.convert(source, "cs-2.5", config=params)
    assert facts(upgraded) == recorded(base["tensors"])
    written = yaml.safe_load((upgraded / "config.yaml").read_text("utf-8"))
    expected = read_case(f"{name}__trainerlike_cs-2.4__to_cs-2.5")
    assert without_freeze(written) == without_faults(expected)
    assert facts(workshop.convert(source, "hf", config=params)) == facts(golden / "inputs" / name)


@pytest.mark.parametrize(
    ("checkpoint", "case", "target"),
    [
        ("llama_tied_cs-2.4.mdl", "llama_tied__hf_to_cs-2.4", "hf"),
        ("clip_proj_cs-2.4.mdl", "clip_proj__hf_to_cs-2.4", "hf"),
        ("mmsimple_trainer_checkpoint_3.mdl", "mmsimple__hf_to_cs-2.4", "llava"),
        ("mmsimple_trainer_checkpoint_3.mdl", "mmsimple__hf_to_cs-2.4", "hf"),
    ],
)
def test_mdl_files_of_the_reference_give_their_input_back(
    checkpoint: str, case: str, target: str, golden: Path, workshop: Workshop, facts: Reader, tmp_path: Path
) -> None:
    recorded_case = read_case(case)
    params = golden / "mdl/mmsimple_trainer_params.yaml"
    if "trainer" not in checkpoint:
        params = tmp_path / "params.yaml"
        params.write_text(next(iter(recorded_case["written_configs"].values())))
    out = workshop.convert(golden / "mdl" / checkpoint, target, config=params)
    assert facts(out) == facts(golden / "inputs" / recorded_case["input"])


def test_what_a_trainer_saves_beside_the_model_is_set_aside_by_name(golden: Path, workshop: Workshop) -> None:
    hints = Hints(config=golden / "mdl/mmsimple_trainer_params.yaml", release=Release(2, 4))
    source = golden / "mdl/mmsimple_trainer_checkpoint_3.mdl"
    assert all(key.startswith("model.") for key in api.open(source, hints=hints))
    dropped = {each.subject: each.why for each in api.plan(source, workshop.new(), "hf", hints=hints).dropped}
    assert any("optimizer" in subject for subject in dropped)
    assert all(dropped.values())


@pytest.mark.parametrize("name", LLAVA)
def test_llava_folders_come_back_bit_for_bit(name: str, golden: Path, workshop: Workshop, facts: Reader) -> None:
    source = golden / "llava" / name
    cs = workshop.convert(source, "cs-2.10")
    assert api.verify(source, cs).problems == []
    back = workshop.convert(cs, "llava")
    assert api.verify(cs, back).problems == []
    expected = facts(source)
    inside = "text_model/model.vision_tower.vision_tower."
    # A tower trained into the text file is the one that counts; it comes back in the image folder.
    trained = {key: expected.pop(key) for key in list(expected) if key.startswith(inside)}
    expected |= {"image_model/" + key.removeprefix(inside): value for key, value in trained.items()}
    assert bool(trained) == (name == "tiny_src_tower_tuned")
    assert facts(back) == expected
