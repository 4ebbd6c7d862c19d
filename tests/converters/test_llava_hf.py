"""llava-hf against what transformers itself saved: the same tensors, names of every release, and the config written."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from mmconvert import api
from mmconvert.errors import InputRefused

if TYPE_CHECKING:
    from tests.converters.conftest import Arrays, Draft, Reader, Workshop

# One LLaVA: as its source repository saved it, and as transformers 5 and 4.57 did.
SOURCE = "llava/tiny_src"
JOINED = ("llava/tiny_llava_hf", "llava/tiny_llava_hf_457")
EMBEDDING, HEAD = "language_model.model.embed_tokens.weight", "language_model.lm_head.weight"
# The tokens of its decoder.
OWN = 320

# What the parts are called in memory, and so in files of `save_original_format=False`, by what they are called here.
IN_MEMORY = {
    "language_model.model.": "model.language_model.",
    "language_model.lm_head.": "lm_head.",
    "multi_modal_projector.": "model.multi_modal_projector.",
}
SPELLINGS = {
    "built in 5": {"vision_tower.vision_model.": "vision_tower."},
    "in the memory of 4": {**IN_MEMORY, "vision_tower.": "model.vision_tower."},
    "in the memory of 5": {**IN_MEMORY, "vision_tower.vision_model.": "model.vision_tower."},
}


def renamed(tensors: Arrays, prefixes: dict[str, str]) -> Arrays:
    def name(key: str) -> str:
        found = [ours for ours in prefixes if key.startswith(ours)]
        return prefixes[found[0]] + key.removeprefix(found[0]) if found else key

    return {name(key): array for key, array in tensors.items()}


# --- tensors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", JOINED)
@pytest.mark.parametrize("target", ["cs-2.10", "llava"])
def test_what_transformers_saved_becomes_what_it_was_made_from(
    name: str, target: str, golden: Path, workshop: Workshop, facts: Reader
) -> None:
    expected = golden / SOURCE if target == "llava" else workshop.convert(golden / SOURCE, target)
    found = workshop.convert(golden / name, target)
    assert facts(found) == facts(expected)
    assert api.verify(golden / name, found).problems == []
    assert api.verify(golden / SOURCE, found).problems == []


@pytest.mark.parametrize("through", [None, "cs-2.10", "cs-2.3"])
def test_an_export_is_what_transformers_saved_but_for_the_rows_that_are_new(
    through: str | None, golden: Path, workshop: Workshop
) -> None:
    source = golden / SOURCE if through is None else workshop.convert(golden / SOURCE, through)
    ours = workshop.edit(workshop.convert(source, "llava-hf")).tensors()
    theirs = workshop.draft(JOINED[1]).tensors()
    assert ours.keys() == theirs.keys()
    for key, array in ours.items():
        assert (array.shape, array.dtype) == (theirs[key].shape, theirs[key].dtype), key
        own = OWN if key in (EMBEDDING, HEAD) else len(array)
        assert array[:own].tobytes() == theirs[key][:own].tobytes(), key


def test_rows_that_are_new_are_the_mean_of_the_others(golden: Path, workshop: Workshop) -> None:
    tensors = workshop.edit(workshop.convert(golden / SOURCE, "llava-hf")).tensors()
    for key in (EMBEDDING, HEAD):
        total = np.zeros(64, np.float32)
        for row in tensors[key][:OWN]:
            total += row
        assert len(tensors[key]) == 384
        assert (tensors[key][OWN:] == total / np.float32(OWN)).all()


def test_an_export_comes_back_bit_for_bit(golden: Path, workshop: Workshop, facts: Reader) -> None:
    joined = workshop.convert(golden / SOURCE, "llava-hf")
    back = workshop.convert(joined, "llava")
    assert facts(back) == facts(golden / SOURCE)
    for file in (
        *("image_model/preprocessor_config.json", "text_model_llava/generation_config.json"),
        *("text_model_llava/special_tokens_map.json", "text_model_llava/tokenizer.model"),
        "text_model_llava/tokenizer_config.json",
    ):
        assert (back / file).read_bytes() == (golden / SOURCE / file).read_bytes(), file
    again = workshop.convert(back, "llava-hf")
    assert facts(again) == facts(joined)
    assert (again / "config.json").read_bytes() == (joined / "config.json").read_bytes()


@pytest.mark.parametrize("name", ["tiny_src_gqa", "tiny_src_sharded", "tiny_src_tower_tuned"])
def test_every_llava_goes_there_and_comes_back(name: str, golden: Path, workshop: Workshop, facts: Reader) -> None:
    source = golden / "llava" / name
    joined = workshop.convert(source, "llava-hf")
    assert api.verify(source, joined).problems == []
    back = workshop.convert(joined, "llava")
    assert api.verify(joined, back).problems == []
    assert facts(back) == facts(workshop.convert(source, "llava"))


def test_rows_that_are_cut_and_rows_that_are_new_are_told(golden: Path, workshop: Workshop) -> None:
    cut = api.plan(golden / JOINED[1], workshop.new(), "cs-2.10").dropped
    assert [each.why for each in cut if each.subject == EMBEDDING] == [
        "rows 320 to 383: text_model.embedding_layer.word_embeddings.weight has no more than 320"
    ]
    new = api.plan(golden / SOURCE, workshop.new(), "llava-hf").invented
    assert [(each.subject, each.why) for each in new] == [
        (key, "rows 320 to 383 are new: each is the mean of the others") for key in (EMBEDDING, HEAD)
    ]


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefixes", SPELLINGS.values(), ids=SPELLINGS)
def test_names_of_every_release_are_read_and_those_of_4_written(
    prefixes: dict[str, str], joined: Draft, workshop: Workshop, facts: Reader
) -> None:
    usual = workshop.convert(joined.path, "llava-hf")
    tensors = joined.tensors()
    joined.write_tensors(renamed(tensors, prefixes))
    assert joined.tensors().keys() != tensors.keys()
    assert facts(workshop.convert(joined.path, "llava-hf")) == facts(usual)
    assert facts(usual).keys() == tensors.keys()


def test_a_tensor_under_two_names_is_refused(joined: Draft, workshop: Workshop) -> None:
    joined.change_tensors(lambda tensors: tensors.update({"lm_head.weight": tensors[HEAD]}))
    assert "are the same tensor under two spellings" in workshop.refusal(joined.path)


# --- the config that is written ---------------------------------------------------------------------------------------


def test_an_export_says_what_transformers_4_reads_and_no_more(golden: Path, workshop: Workshop) -> None:
    config = workshop.read_json(workshop.convert(golden / SOURCE, "llava-hf") / "config.json")
    text, vision = config.pop("text_config"), config.pop("vision_config")
    assert config == {
        "architectures": ["LlavaForConditionalGeneration"],
        "image_seq_length": 4,
        "image_token_index": OWN,
        "model_type": "llava",
        "multimodal_projector_bias": True,
        "pad_token_id": OWN + 1,
        "projector_hidden_act": "gelu",
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default",
    }
    theirs = workshop.draft(JOINED[1]).config()
    # The token for padding is the added one; who is asked for these ids is this part.
    ours = {"architectures": ["LlamaForCausalLM"], "bos_token_id": 1, "eos_token_id": 2, "tie_word_embeddings": False}
    del theirs["text_config"]["pad_token_id"]
    assert text == theirs["text_config"] | ours
    assert vision == theirs["vision_config"]


@pytest.mark.parametrize("name", JOINED)
def test_what_5_says_is_written_as_4_does(name: str, golden: Path, workshop: Workshop) -> None:
    config = workshop.read_json(workshop.convert(golden / name, "llava-hf") / "config.json")
    assert (config["torch_dtype"], config["text_config"]["rope_theta"]) == ("float32", 10000.0)
    assert config["text_config"]["rope_scaling"] is None
    for part in (config, config["text_config"], config["vision_config"]):
        assert {"dtype", "rope_parameters", "image_token_id"}.isdisjoint(part)


def test_the_image_token_is_the_tokenizer_s(golden: Path, workshop: Workshop) -> None:
    out = workshop.convert(golden / SOURCE, "llava-hf")
    tokens = {each["content"]: each["id"] for each in workshop.read_json(out / "tokenizer.json")["added_tokens"]}
    config = workshop.read_json(out / "config.json")
    assert (tokens["<image>"], tokens["<pad>"]) == (config["image_token_index"], config["pad_token_id"])


@pytest.mark.parametrize(
    ("tokens", "rows"), [(62, 64), (63, 128), (126, 128), (127, 192), (320, 384), (32000, 32064), (128256, 128320)]
)
def test_rows_are_a_multiple_of_64_with_room_for_two_tokens(
    mmsimple: Any, llava_hf: Any, llava_config: Any, tokens: int, rows: int
) -> None:
    config = llava_hf.to_hf(mmsimple.to_cs(llava_config(vocab_size=tokens)))
    assert config["text_config"]["vocab_size"] == rows
    assert (config["image_token_index"], config["pad_token_id"]) == (tokens, tokens + 1)


@pytest.mark.parametrize(("feature", "strategy", "places"), [("patch", "default", 4), ("cls_patch", "full", 5)])
def test_a_picture_takes_as_many_places_as_features_are_read(
    mmsimple: Any, llava_hf: Any, llava_config: Any, feature: str, strategy: str, places: int
) -> None:
    config = llava_hf.to_hf(mmsimple.to_cs(llava_config(mm_vision_select_feature=feature)))
    assert (config["vision_feature_select_strategy"], config["image_seq_length"]) == (strategy, places)


@pytest.mark.parametrize("tied", [True, False])
def test_whether_the_head_is_tied_is_said_above_and_inside(
    mmsimple: Any, llava_hf: Any, llava_config: Any, tied: bool
) -> None:
    config = llava_hf.to_hf(mmsimple.to_cs(llava_config(tie_word_embeddings=tied)))
    assert (config["tie_word_embeddings"], config["text_config"]["tie_word_embeddings"]) == (tied, tied)


@pytest.mark.parametrize(("said", "told"), [("pad", True), ("square", False), (None, True)])
def test_pictures_are_told_of_unless_llava_s_own_config_says_that_it_crops_them(
    said: str | None, told: bool, llava: Draft, workshop: Workshop
) -> None:
    """A CS checkpoint that lost the config it was made from is LLaVA 1.5, which pads."""
    llava.part("text_model_llava").set(image_aspect_ratio=said or "square")
    cs = workshop.convert(llava.path, "cs-2.10")
    if said is None:
        shutil.rmtree(cs / "assets")
    warnings = api.plan(cs, workshop.new(), "llava-hf").warnings
    assert any("pads pictures to squares and transformers crops them" in each for each in warnings) is told


@pytest.mark.parametrize("name", ["image_token_id", "image_token_index"])
def test_files_are_parted_by_the_image_token_under_either_name(
    name: str, joined: Draft, golden: Path, workshop: Workshop
) -> None:
    config = joined.config()
    joined.write_config({name: config.pop("image_token_index"), **config})
    text = workshop.convert(joined.path, "llava") / "text_model_llava"
    tokens = workshop.read_json(text / "tokenizer.json")["added_tokens"]
    assert [each["content"] for each in tokens] == ["<unk>", "<s>", "</s>"]
    assert workshop.read_json(text / "generation_config.json")["pad_token_id"] == 0


def test_a_picture_cut_into_several_is_refused(llava: Draft, workshop: Workshop) -> None:
    llava.part("text_model_llava").set(image_aspect_ratio="anyres")
    with pytest.raises(InputRefused, match=r"image_aspect_ratio is 'anyres': .*keep this model in LLaVA's own"):
        workshop.convert(llava.path, "llava-hf")


@pytest.mark.parametrize(("kind", "depth"), [("linear", 1), ("mlp3x_gelu", 3)])
def test_a_projector_of_another_depth_is_refused_with_where_it_may_stay(
    kind: str, depth: int, golden: Path, llava: Draft, workshop: Workshop
) -> None:
    text = llava.part("text_model_llava")
    text.set(mm_projector_type=kind)
    numbers = [".0", ".2", ".4"][:depth] if depth > 1 else [""]

    def reshape(tensors: Arrays) -> None:
        for key in [key for key in tensors if "mm_projector" in key]:
            del tensors[key]
        for layer, number in enumerate(numbers):
            tensors[f"model.mm_projector{number}.weight"] = np.ones((64, 64 if layer else 32), np.float32)
            tensors[f"model.mm_projector{number}.bias"] = np.ones(64, np.float32)

    text.change_tensors(reshape)
    assert api.verify(llava.path, workshop.convert(llava.path, "cs-2.10")).problems == []
    with pytest.raises(InputRefused, match=rf"{depth} linear layers \({kind}\).*--to llava"):
        workshop.convert(llava.path, "llava-hf")
