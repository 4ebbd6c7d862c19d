"""What the reference gets wrong, and what is promised instead: one test or more for each of its faults."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import yaml

from mmconvert import Hints, Options, api
from mmconvert.errors import InputRefused, OutputRefused

if TYPE_CHECKING:
    from tests.converters.conftest import Arrays, Configs, Draft, LeafPaths, Reader, Workshop


def section(folder: Path) -> dict[str, Any]:
    model: dict[str, Any] = yaml.safe_load((folder / "config.yaml").read_text("utf-8"))["model"]
    return model


# --- configs ----------------------------------------------------------------------------------------------------------


def test_configs_written_hold_only_keys_that_the_config_classes_accept(
    golden: Path, workshop: Workshop, leaf_paths: LeafPaths
) -> None:
    accepted = yaml.safe_load((golden / "forward_mmsimple/config_accepted.yaml").read_text("utf-8"))["model"]
    ours = section(workshop.convert(golden / "inputs/mmsimple", "cs-2.4"))
    # How many patterns freeze what is another matter.
    del ours["freeze"], accepted["freeze"]
    assert leaf_paths(ours) == leaf_paths(accepted)


@pytest.mark.parametrize("tune", [True, False])
def test_freeze_never_holds_the_projector(workshop: Workshop, llava: Draft, facts: Reader, tune: bool) -> None:
    llava.part("text_model_llava").set(tune_mm_mlp_adapter=tune)
    out = workshop.convert(llava.path, "cs-2.10")
    patterns = section(out)["freeze"]
    trained = {key for key in facts(out) if not any(re.search(pattern, key) for pattern in patterns)}
    assert {key for key in trained if key.startswith("image_model.")} == {
        f"image_model.projection.ffn.{layer}.linear_layer.{kind}" for layer in (0, 1) for kind in ("weight", "bias")
    }
    assert any(key.startswith("text_model.") for key in trained) is not tune


def test_tune_mm_mlp_adapter_true_comes_back_true(workshop: Workshop, llava: Draft) -> None:
    llava.part("text_model_llava").set(tune_mm_mlp_adapter=True)
    back = workshop.convert(workshop.convert(llava.path, "cs-2.10"), "llava")
    assert workshop.read_json(back / "text_model_llava/config.json")["tune_mm_mlp_adapter"] is True


def test_head_dim_other_than_hidden_over_heads_is_refused_before_a_byte_moves(workshop: Workshop, gqa: Draft) -> None:
    def widen(tensors: Arrays) -> None:
        for key in list(tensors):
            if "_proj" in key and "self_attn" in key:
                rows, columns = tensors[key].shape
                wide = (rows, 64) if "o_proj" in key else (rows // 12 * 16, columns)
                tensors[key] = np.zeros(wide, "float32")

    gqa.change_tensors(widen)
    gqa.set(head_dim=16)
    message = "head_dim is 16, but hidden_size 48 / num_attention_heads 4 is 12"
    assert message in workshop.refusal(gqa.path)
    with pytest.raises(InputRefused, match=message):
        api.plan(gqa.path, workshop.new(), "cs-2.10")


@pytest.mark.parametrize("attention", [True, False])
@pytest.mark.parametrize("mlp", [True, False])
def test_bias_flags_follow_tensors_and_config_both_ways(
    workshop: Workshop, gqa: Draft, facts: Reader, attention: bool, mlp: bool
) -> None:
    wanted = ["self_attn"] * attention + ["mlp"] * mlp

    def add_biases(tensors: Arrays) -> None:
        for key, weight in list(tensors.items()):
            if any(f".{name}." in key for name in wanted):
                tensors[key.replace("weight", "bias")] = np.arange(weight.shape[0], dtype="float32")

    gqa.change_tensors(add_biases)
    gqa.set(attention_bias=attention, mlp_bias=mlp)
    cs = workshop.convert(gqa.path, "cs-2.10")
    written = section(cs)
    assert written["use_projection_bias_in_attention"] is written["use_ffn_bias_in_attention"] is attention
    assert written["use_ffn_bias"] is mlp
    assert sum(key.endswith(".bias") for key in facts(cs)) == 3 * (4 * attention + 3 * mlp)
    back = workshop.convert(cs, "hf")
    assert facts(back) == facts(gqa.path)
    config = workshop.read_json(back / "config.json")
    assert (config["attention_bias"], config["mlp_bias"]) == (attention, mlp)


def test_biases_that_the_config_does_not_know_of_are_refused(workshop: Workshop, gqa: Draft) -> None:
    key = "model.layers.0.self_attn.q_proj.bias"
    gqa.change_tensors(lambda tensors: tensors.update({key: np.zeros(48, "float32")}))
    assert key in workshop.refusal(gqa.path)


def test_num_key_value_heads_is_always_written(golden: Path, workshop: Workshop) -> None:
    back = workshop.convert(workshop.convert(golden / "inputs/llama_mha", "cs-2.10"), "hf")
    assert workshop.read_json(back / "config.json")["num_key_value_heads"] == 4


def test_fields_without_a_counterpart_are_carried_and_come_back(golden: Path, workshop: Workshop, gqa: Draft) -> None:
    gqa.set(eos_token_id=[2, 5], pad_token_id=7, note="kept")
    cs = workshop.convert(gqa.path, "cs-2.10")
    assert {"eos_token_id", "pad_token_id", "note"} <= set(
        workshop.read_json(cs / "mmconvert.json")["config"]["carried"]
    )
    config = workshop.read_json(workshop.convert(cs, "hf") / "config.json")
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config["torch_dtype"] == "float32"
    assert (config["bos_token_id"], config["eos_token_id"], config["pad_token_id"]) == (1, [2, 5], 7)
    assert config["note"] == "kept"


def test_token_ids_are_the_usual_ones_where_nothing_was_carried(golden: Path, workshop: Workshop) -> None:
    out = workshop.new()
    params = golden / "mdl/mmsimple_trainer_params.yaml"
    manifest = api.convert(golden / "mdl/mmsimple_trainer_checkpoint_3.mdl", out, "llava", hints=Hints(config=params))
    text = workshop.read_json(out / "text_model_llava/config.json")
    assert (text["bos_token_id"], text["eos_token_id"], text["pad_token_id"]) == (1, 2, 0)
    assert sum("no original config" in warning for warning in manifest["warnings"]) == 1


@pytest.mark.parametrize("kind", ["gemma", "gpt2", "llama4", "mixtral", "qwen2"])
def test_a_text_backbone_that_is_not_supported_is_refused_by_name(workshop: Workshop, gqa: Draft, kind: str) -> None:
    gqa.set(model_type=kind)
    assert repr(kind) in workshop.refusal(gqa.path)


@pytest.mark.parametrize("kind", ["llava_mpt", "qwen2"])
def test_such_a_backbone_beside_a_tower_is_refused_by_name(workshop: Workshop, llava: Draft, kind: str) -> None:
    llava.part("text_model_llava").set(model_type=kind)
    assert kind in workshop.refusal(llava.path)


def test_yarn_extras_come_back(workshop: Workshop, gqa: Draft) -> None:
    scaling = {"rope_type": "yarn", "factor": 4.0, "attention_factor": 1.25, "beta_fast": 16.0, "beta_slow": 2.0}
    scaling["original_max_position_embeddings"] = 64
    gqa.set(rope_scaling=scaling)
    back = workshop.convert(workshop.convert(gqa.path, "cs-2.10"), "hf")
    assert workshop.read_json(back / "config.json")["rope_scaling"] == scaling


def test_the_caller_s_config_is_left_as_it_was(llava_config: Callable[..., Any], mmsimple: Configs) -> None:
    config = llava_config(rope_scaling={"type": "linear", "factor": 2.0}, dtype="float32")
    before = deepcopy(config)
    written = mmsimple.to_cs(config)
    assert config == before
    before = deepcopy(written)
    mmsimple.to_hf(written)
    assert written == before


@pytest.mark.parametrize("layer", [0, -4, 9])
def test_a_select_layer_that_is_no_encoder_layer_is_refused_with_the_valid_range(
    workshop: Workshop, llava: Draft, layer: int
) -> None:
    llava.part("text_model_llava").set(mm_vision_select_layer=layer)
    assert "valid are -3 to -1 and 1 to 3" in workshop.refusal(llava.path)


# --- config against tensors -------------------------------------------------------------------------------------------


def test_a_missing_weight_is_refused_by_name(workshop: Workshop, gqa: Draft) -> None:
    key = "model.layers.1.mlp.gate_proj.weight"
    gqa.change_tensors(lambda tensors: tensors.pop(key))
    assert f"{key} is missing (expected 96 x 48)" in workshop.refusal(gqa.path)


@pytest.mark.parametrize(
    ("fields", "key", "expected", "found"),
    [
        ({"num_key_value_heads": None}, "self_attn.k_proj.weight", "48 x 48", "24 x 48"),
        ({"num_key_value_heads": 1}, "self_attn.k_proj.weight", "12 x 48", "24 x 48"),
        ({"hidden_size": 96, "head_dim": 24}, "weight", "96", "48"),
        ({"intermediate_size": 80}, "mlp.", "80", "96"),
        ({"vocab_size": 321}, "weight", "321 x 48", "320 x 48"),
    ],
)
def test_a_config_that_disagrees_with_the_tensors_is_refused(
    workshop: Workshop, gqa: Draft, fields: Mapping[str, Any], key: str, expected: str, found: str
) -> None:
    gqa.set(**fields)
    message = workshop.refusal(gqa.path)
    assert re.search(rf"{re.escape(key)}.* is .*{found}.*, but the config demands .*{expected}", message)


@pytest.mark.parametrize(("layers", "message"), [(2, "no tensor of this name"), (4, "is missing")])
def test_a_wrong_number_of_layers_is_refused(workshop: Workshop, gqa: Draft, layers: int, message: str) -> None:
    gqa.set(num_hidden_layers=layers)
    told = workshop.refusal(gqa.path)
    assert message in told
    assert f"model.layers.{min(layers, 3)}." in told


def test_an_mlp3x_projector_with_two_layers_of_weights_is_refused(workshop: Workshop, llava: Draft) -> None:
    llava.part("text_model_llava").set(mm_projector_type="mlp3x_gelu")
    assert "model.mm_projector.4.weight is missing" in workshop.refusal(llava.path)


# --- output heads -----------------------------------------------------------------------------------------------------


def test_a_tied_head_is_written_to_cs_and_dropped_on_the_way_back(
    golden: Path, workshop: Workshop, facts: Reader
) -> None:
    source = golden / "inputs/llama_tied"
    cs = workshop.convert(source, "cs-2.10")
    written = facts(cs)
    assert written["lm_head.weight"] == written["embedding_layer.word_embeddings.weight"]
    assert facts(workshop.convert(cs, "hf")) == facts(source)


def test_a_tied_head_that_differs_is_refused(golden: Path, workshop: Workshop) -> None:
    cs = workshop.convert(golden / "inputs/llama_tied", "cs-2.10")
    draft = workshop.edit(cs)
    draft.change_tensors(lambda tensors: tensors.update({"lm_head.weight": tensors["lm_head.weight"] + 1}))
    out = workshop.new()
    with pytest.raises(InputRefused, match=r"lm_head\.weight: differs from embedding_layer"):
        api.convert(cs, out, "hf")
    assert not out.exists()


def test_a_missing_head_is_refused_unless_asked_for(workshop: Workshop, gqa: Draft) -> None:
    gqa.change_tensors(lambda tensors: tensors.pop("lm_head.weight"))
    assert "--init lm_head=uniform:SEED" in workshop.refusal(gqa.path)
    out = workshop.convert(gqa.path, "cs-2.10", Options(container="safetensors", init={"lm_head": 1}))
    assert api.open(out)["lm_head.weight"].shape == (320, 48)


# --- sources that the reference cannot read ---------------------------------------------------------------------------


def test_a_whole_clip_model_gives_its_vision_half(golden: Path, workshop: Workshop, facts: Reader) -> None:
    source = golden / "inputs/mmsimple_noproj/image_model"
    cs = workshop.convert(source, "cs-2.10")
    dropped = {each["subject"]: each["why"] for each in workshop.read_json(cs / "mmconvert.json")["dropped"]}
    kept = {key: value for key, value in facts(source).items() if key not in dropped}
    assert all("text half" in why for key, why in dropped.items() if not key.endswith("position_ids"))
    assert {"logit_scale", "text_projection.weight"} <= dropped.keys()
    assert facts(workshop.convert(cs, "hf")) == kept


def test_a_tower_without_projection_needs_its_classifier_invented(workshop: Workshop) -> None:
    draft = workshop.draft("inputs/clip_proj")
    draft.change_tensors(lambda tensors: tensors.pop("visual_projection.weight"))
    draft.set(architectures=["CLIPVisionModel"])
    assert "--init classifier=uniform:SEED" in workshop.refusal(draft.path)
    out = workshop.convert(draft.path, "cs-2.10", Options(container="safetensors", init={"classifier": 1}))
    assert api.open(out)["classifier.classifier.ffn.0.linear_layer.weight"].shape == (24, 32)


@pytest.mark.parametrize("name", ["clip_proj", "llama_gqa", "mmsimple"])
def test_what_a_trainer_saves_is_read(golden: Path, workshop: Workshop, facts: Reader, name: str) -> None:
    source = golden / "inputs" / name
    cs = workshop.convert(source, "cs-2.4")
    params = cs / "config.yaml"
    params.write_text(yaml.safe_dump({"trainer": {"init": {"model": section(cs), "seed": 1}}}))
    draft = workshop.edit(cs)
    draft.write_tensors({f"model.{key}": array for key, array in draft.tensors().items()})
    assert facts(workshop.convert(cs, "hf")) == facts(source)


def test_a_single_safetensors_file_is_read(workshop: Workshop, gqa: Draft, facts: Reader) -> None:
    sharded = facts(gqa.path)
    gqa.write_tensors(gqa.tensors())
    assert [file.name for file in gqa.path.glob("*.safetensors*")] == ["model.safetensors"]
    assert facts(workshop.convert(workshop.convert(gqa.path, "cs-2.10"), "hf")) == sharded


def test_our_mdl_says_its_release(golden: Path, workshop: Workshop) -> None:
    for release in ("2.1", "2.10"):
        out = workshop.convert(golden / "inputs/llama_gqa", f"cs-{release}", Options())
        assert api.inspect(out / "model.mdl").release == release


# --- how it is done ---------------------------------------------------------------------------------------------------


def test_existing_output_is_refused_before_anything_is_read(golden: Path, workshop: Workshop) -> None:
    source, out = golden / "inputs/llama_gqa", workshop.new()
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    with pytest.raises(OutputRefused):
        api.plan(source, out, "cs-2.10")
    assert [each.name for each in out.iterdir()] == ["mine.txt"]


def test_every_tensor_is_written_once(golden: Path, workshop: Workshop) -> None:
    class Counting:
        written = 0

        def start(self, total: int) -> None:
            self.total = total

        def advance(self, count: int) -> None:
            self.written += count

        def finish(self) -> None:
            pass

    source, out, progress = golden / "inputs/llama_gqa", workshop.new(), Counting()
    api.convert(source, out, "hf", options=Options(max_shard_size=10**5), fsync=False, progress=progress)
    tensors = api.open(source)
    assert progress.written == progress.total == sum(ref.nbytes for ref in tensors.values())
    files = [file.stat().st_size for file in out.glob("*.safetensors")]
    assert len(files) > 1
    assert sum(files) < 1.1 * progress.written


def test_a_conversion_prints_nothing(golden: Path, workshop: Workshop, capfd: pytest.CaptureFixture[str]) -> None:
    workshop.convert(golden / "inputs/mmsimple", "cs-2.10")
    assert capfd.readouterr() == ("", "")


def test_torch_is_never_imported(golden: Path, workshop: Workshop, gqa: Draft) -> None:
    import torch
    from safetensors.torch import load_file

    binary = workshop.draft("inputs/llama_gqa")
    tensors = {key: each for file in sorted(binary.path.glob("*.safetensors")) for key, each in load_file(file).items()}
    for file in binary.path.glob("model*"):
        file.unlink()
    torch.save(tensors, binary.path / "pytorch_model.bin")
    mdl = workshop.convert(gqa.path, "cs-2.10", Options())
    sources = [(gqa.path, "cs"), (binary.path, "cs"), (mdl, "hf")]
    program = "import sys; from mmconvert import api\n"
    program += "".join(f"api.convert({str(src)!r}, {str(workshop.new())!r}, {to!r})\n" for src, to in sources)
    program += "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=golden.parents[1])
