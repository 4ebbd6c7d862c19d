"""Every trap of LLaVA's loader is sprung by one change to a sound checkpoint, and by that change alone."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from mmconvert import api
from mmconvert.diagnosis import Diagnosis, readers

if TYPE_CHECKING:
    from tests.conftest import Run
    from tests.converters.conftest import Draft, Workshop

READER = next(each for each in readers() if each.name == "llava")
TEXT, IMAGE = "text_model_llava", "image_model"
TOWER = "model.vision_tower.vision_tower."


@pytest.fixture
def sound(workshop: Workshop) -> Draft:
    """A LLaVA of two folders with which nothing is wrong: in float16, leading to its tower by an absolute path."""
    draft = workshop.draft("llava/tiny_src")
    for name in (TEXT, IMAGE):
        draft.part(name).change_tensors(to_half)
    draft.part(TEXT).set(mm_vision_tower=str(draft.path / IMAGE))
    tokenizer(draft, legacy=True)
    return draft


def tokenizer(draft: Draft, **values: Any) -> None:
    file = draft.path / TEXT / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def to_half(tensors: dict[str, Any]) -> None:
    for key, array in tensors.items():
        tensors[key] = array.astype(np.float16)


def examine(draft: Draft) -> Diagnosis:
    return api.doctor(draft.path, "llava")


def traps(found: Diagnosis) -> set[str]:
    return {each.trap for each in found.symptoms}


def test_nothing_is_wrong_with_a_sound_checkpoint(sound: Draft) -> None:
    assert examine(sound).symptoms == ()


def test_the_text_folder_alone_is_examined_with_the_tower_beside_it(sound: Draft) -> None:
    assert examine(sound.part(TEXT)).symptoms == ()
    shutil.move(sound.path / IMAGE / "preprocessor_config.json", sound.path)
    assert traps(examine(sound.part(TEXT))) == {"tower-without-preprocessor"}


@dataclass(frozen=True)
class Case:
    """A trap, a change that springs it, part of what is said, and what else cannot but be found."""

    trap: str
    change: Callable[[Draft], object]
    says: str
    also: frozenset[str] = frozenset()
    name: str = ""


Change = Callable[["Draft"], object]


def case(trap: str, change: Change, says: str, *also: str, name: str = "") -> Case:
    return Case(trap, change, says, frozenset(also), name)


# --- changes ----------------------------------------------------------------------------------------------------------


def fields(**values: Any) -> Change:
    return lambda draft: draft.part(TEXT).set(**values)


def without(*names: str) -> Change:
    return lambda draft: draft.part(TEXT).drop(*names)


def both(*changes: Change) -> Change:
    return lambda draft: [change(draft) for change in changes]


def unlink(name: str) -> Change:
    return lambda draft: (draft.path / name).unlink()


def write(name: str, document: Any) -> Change:
    return lambda draft: (draft.path / name).write_text(json.dumps(document))


def tensors(part: str, change: Callable[[dict[str, Any]], object]) -> Change:
    return lambda draft: draft.part(part).change_tensors(change)


def rename(name: str) -> Change:
    return lambda draft: (draft.path / TEXT).rename(draft.path / name)


def cut(part: str, key: str, rows: int) -> Change:
    return tensors(part, lambda found: found.update({key: found[key][:rows]}))


def tower(**values: Any) -> Change:
    return lambda draft: draft.part(IMAGE).set(**values)


def tower_in_text(draft: Draft) -> None:
    copies = {TOWER + key: array for key, array in draft.part(IMAGE).tensors().items()}
    draft.part(TEXT).change_tensors(lambda found: found.update(copies))


def shard(metadata: bool) -> Change:
    """Lead to the text weights by an index."""

    def change(draft: Draft) -> None:
        folder = draft.path / TEXT
        (folder / "model.safetensors").rename(folder / "one.safetensors")
        weight_map = dict.fromkeys(draft.part(TEXT).tensors(), "one.safetensors")
        index = {"weight_map": weight_map} | ({"metadata": {}} if metadata else {})
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    return change


def without_metadata(part: str) -> Change:
    def change(draft: Draft) -> None:
        save_file(draft.part(part).tensors(), draft.path / part / "model.safetensors")

    return change


def move_tower_away(draft: Draft) -> None:
    shutil.copytree(draft.path / IMAGE, draft.path.parent / "elsewhere")
    draft.part(TEXT).set(mm_vision_tower=str(draft.path.parent / "elsewhere"))


def unprefix(found: dict[str, Any]) -> None:
    for key in list(found):
        found[key.removeprefix("vision_model.")] = found.pop(key)


def adapter(name: str, *files: str, kind: str = "llava_llama") -> Change:
    """Nothing but a LoRA adapter, in a folder of that name."""

    def change(draft: Draft) -> None:
        shutil.rmtree(draft.path / IMAGE)
        for each in (draft.path / TEXT).iterdir():
            if each.name != "config.json":
                each.unlink()
        draft.part(TEXT).set(model_type=kind)
        for each_name in files:
            (draft.path / TEXT / each_name).write_text("{}")
        rename(name)(draft)

    return change


def replace_by_cs(draft: Draft) -> None:
    for name in (IMAGE, TEXT):
        shutil.rmtree(draft.path / name)
    (draft.path / "model.mdl").touch()


def replace_by_llava_hf(draft: Draft) -> None:
    fields(model_type="llava", text_config={})(draft)


def tokenizer_json_of_5(draft: Draft) -> None:
    model = {"vocab": {f"t{number}": number for number in range(320)}, "merges": [["t", "1"]]}
    (draft.path / TEXT / "tokenizer.json").write_text(json.dumps({"model": model}))


def widen_tokenizer(draft: Draft) -> None:
    write(f"{TEXT}/added_tokens.json", {"<a>": 320, "<b>": 321})(draft)


WIDE = {"vision_model.post_layernorm.bias": np.zeros(32, np.float32)}
TRAINABLES = "non_lora_trainables.bin"
CASES = [
    # --- what kind of folder it is
    case("cs-checkpoint", replace_by_cs, "is a CS checkpoint"),
    case("llava-hf", replace_by_llava_hf, "has a text_config"),
    case("lora", adapter("llava-lora", "adapter_config.json", TRAINABLES), "is a LoRA adapter"),
    case("lora-name", adapter("my-llava", "adapter_config.json", TRAINABLES), "both words, llava and lora", "lora"),
    case("lora-without-projector", adapter("llava-lora", "adapter_config.json"), f"{TRAINABLES} is missing", "lora"),
    case(
        "lora-of-mistral",
        adapter("llava-lora", "adapter_config.json", TRAINABLES, kind="llava_mistral"),
        '"llava_mistral"',
        "lora",
    ),
    case("projector-only", adapter("llava", "mm_projector.bin"), "holds a projector alone"),
    case("no-llava", lambda draft: shutil.rmtree(draft.path / TEXT), "has no config.json of a language model"),
    # --- names
    case("name-without-llava", rename("text_model"), "'text_model', without the word llava"),
    case("name-without-llava", rename("checkpoint-10"), "checkpoint-10', without the word llava", name="checkpoint"),
    case("name-with-mpt", rename("llava-prompt-tuned"), "with the letters mpt"),
    case("name-with-lora", rename("llava-lora-merged"), "with the word lora"),
    case(
        "name-of-another-class",
        fields(model_type="llava_mistral"),
        "without the word mistral, and model_type 'llava_mistral'",
    ),
    case(
        "name-of-another-class",
        rename("llava_mistral"),
        "with the word mistral, and model_type 'llava_llama'",
        name="llama",
    ),
    case(
        "name-of-another-class-alike",
        fields(model_type="llava_mistral", sliding_window=None),
        "without the word mistral",
    ),
    case("model-type-llava", fields(model_type="llava"), '"llava"'),
    case("model-type", fields(model_type="llama"), '"llama"'),
    case("model-type", without("model_type"), "model_type is absent", name="absent"),
    # --- the tower
    case("tower-unnamed", without("mm_vision_tower"), "mm_vision_tower is absent"),
    case("tower-not-found", fields(mm_vision_tower="/nowhere/image_model"), "'/nowhere/image_model', which does not"),
    case("tower-not-found", fields(mm_vision_tower="google/siglip"), "'google/siglip'", name="unknown-hub-name"),
    case("tower-on-hub", fields(mm_vision_tower="openai/clip-vit-large-patch14-336"), "openai/clip-vit-large"),
    case("tower-relative", fields(mm_vision_tower="../image_model"), "found only by a program started in"),
    case("tower-elsewhere", move_tower_away, "and another tower lies at"),
    case("tower-of-another-kind", tower(model_type="siglip_vision_model"), "says 'siglip_vision_model'"),
    case("tower-without-prefix", tensors(IMAGE, unprefix), "and 54 more lack the prefix vision_model."),
    case("tower-without-preprocessor", unlink(f"{IMAGE}/preprocessor_config.json"), "is missing"),
    case("crop-size", write(f"{IMAGE}/preprocessor_config.json", {"crop_size": 336}), "336 x 336"),
    case("crop-size", write(f"{IMAGE}/preprocessor_config.json", {"size": 28}), "224 x 224", name="default"),
    case("unfrozen-tower-missing", fields(unfreeze_mm_vision_tower=True), f"the weights hold no {TOWER}*"),
    case("tower-in-text-ignored", tower_in_text, f"55 tensors {TOWER}*"),
    case("select-layer-absent", without("mm_vision_select_layer"), "mm_vision_select_layer is absent"),
    case("select-layer-absent", fields(mm_vision_select_layer="-2"), 'is "-2"', name="text"),
    case("select-layer-range", fields(mm_vision_select_layer=4), "a tower of 3 layers has -4 to 3"),
    case("select-layer-range", fields(mm_vision_select_layer=-5), "a tower of 3 layers has -4 to 3", name="negative"),
    case("select-feature", fields(mm_vision_select_feature="cls"), '"cls"'),
    case("hidden-size-absent", without("mm_hidden_size"), "mm_hidden_size is absent"),
    case("hidden-size-wrong", fields(mm_hidden_size=48), "is 48, and the tower's hidden_size 32"),
    case("several-scales", fields(s2=True), "s2 is true"),
    case("grid-absent", fields(image_aspect_ratio="anyres"), "there are no image_grid_pinpoints"),
    case("aspect-ratio-absent", without("image_aspect_ratio"), "image_aspect_ratio is absent"),
    case("newline-missing", fields(mm_patch_merge_type="spatial_unpad"), "the weights hold no model.image_newline"),
    # --- the projector
    case("projector-type-absent", without("mm_projector_type"), "a projector of 2 layers"),
    case("projector-type-unknown", fields(mm_projector_type="qformer"), '"qformer"'),
    case("projector-depth", fields(mm_projector_type="mlp3x_gelu"), "'mlp3x_gelu', but the weights hold"),
    case("projector-depth", fields(mm_projector_type="linear"), "'linear', but the weights hold", name="linear"),
    case("projector-depth", fields(mm_projector_type="identity"), "'identity', but", name="identity"),
    case(
        "projector-missing",
        tensors(TEXT, lambda found: [found.pop(key) for key in list(found) if "mm_projector" in key]),
        "the weights hold no model.mm_projector.*",
    ),
    case(
        "projector-shape",
        tensors(TEXT, lambda found: found.update({"model.mm_projector.0.weight": np.zeros((64, 48), np.float16)})),
        "model.mm_projector.0.weight: 64 x 48, where 64 x 32",
    ),
    case(
        "projector-shape",
        tensors(TEXT, lambda found: found.pop("model.mm_projector.2.bias")),
        "model.mm_projector.2.bias: missing",
        name="bias",
    ),
    # --- tokens and lengths
    case("im-patch-token", without("mm_use_im_patch_token"), "mm_use_im_patch_token is absent"),
    case("im-patch-token", fields(mm_use_im_patch_token=True), "mm_use_im_patch_token is true", name="true"),
    case("im-start-end", fields(mm_use_im_start_end=True), "mm_use_im_start_end is true"),
    case("im-start-end-absent", without("mm_use_im_start_end"), "mm_use_im_start_end is absent"),
    case(
        "im-start-end-with-adapter",
        fields(mm_use_im_start_end=True, tune_mm_mlp_adapter=True),
        "so is tune_mm_mlp_adapter",
        "im-start-end",
    ),
    case("tokenizer-model", unlink(f"{TEXT}/tokenizer.model"), "tokenizer.model is missing"),
    case(
        "tokenizer-not-legacy", lambda draft: tokenizer(draft, legacy=False), "tokenizer_config.json: legacy is false"
    ),
    case(
        "tokenizer-of-mistral",
        both(unlink(f"{TEXT}/tokenizer.model"), fields(model_type="llava_mistral"), rename("llava_mistral")),
        "holds neither tokenizer.json nor tokenizer.model",
    ),
    case(
        "tokenizer-of-mistral",
        both(unlink(f"{TEXT}/tokenizer_config.json"), fields(model_type="llava_mistral"), rename("llava_mistral")),
        "tokenizer_config.json is missing",
        name="config",
    ),
    case(
        "rows-cut",
        both(
            fields(vocab_size=384),
            tensors(
                TEXT,
                lambda found: found.update(
                    {key: np.resize(found[key], (384, 64)) for key in ("model.embed_tokens.weight", "lm_head.weight")}
                ),
            ),
        ),
        "384 rows, the tokenizer 320 tokens",
    ),
    case(
        "tokenizer-too-new",
        lambda draft: tokenizer(draft, tokenizer_class="TokenizersBackend", extra_special_tokens=["<s>"]),
        "tokenizer_config.json: tokenizer_class is TokenizersBackend",
    ),
    case(
        "tokenizer-too-new",
        both(tokenizer_json_of_5, fields(model_type="llava_mistral", num_key_value_heads=4), rename("llava_mistral")),
        "tokenizer.json: merges are pairs",
        name="mistral",
    ),
    case("rows-invented", widen_tokenizer, "320 rows, the tokenizer 322 tokens"),
    case(
        "rows-invented",
        write(f"{TEXT}/tokenizer_config.json", {"added_tokens_decoder": {"0": {}, "320": {"content": "<pad>"}}}),
        "320 rows, the tokenizer 321 tokens",
        name="decoder",
    ),
    case("picture-cut", fields(tokenizer_model_max_length=4), "a picture takes 4 positions"),
    case("inputs-cut", fields(tokenizer_model_max_length=64), "is 64, and max_position_embeddings 256"),
    case("context", fields(max_position_embeddings=4096, tokenizer_model_max_length=2048), "4096"),
    # --- the language model's config
    case("norm-eps-absent", without("rms_norm_eps"), "rms_norm_eps is absent"),
    case("rope-scaling", fields(rope_scaling={"rope_type": "llama3", "factor": 8.0}), "llama3"),
    case("rope-scaling", fields(rope_scaling={"type": "linear", "factor": 2}), '"factor": 2', name="integer"),
    case(
        "rope-parameters",
        both(without("rope_theta"), fields(rope_parameters={"rope_theta": 5e5, "rope_type": "default"})),
        "500000",
    ),
    case(
        "new-spelling",
        both(without("rope_theta"), fields(rope_parameters={"rope_theta": 10000.0, "rope_type": "default"})),
        "rope_parameters in place of rope_theta",
    ),
    case("new-dtype", both(without("torch_dtype"), fields(dtype="float16")), "dtype in place of torch_dtype"),
    case("head-dim", fields(head_dim=32), "head_dim is 32, but hidden_size / num_attention_heads is 16"),
    case(
        "key-value-heads",
        both(
            without("num_key_value_heads"),
            *(
                cut(TEXT, f"model.layers.{layer}.self_attn.{name}_proj.weight", 32)
                for layer in range(3)
                for name in "kv"
            ),
        ),
        "means 64 rows, but model.layers.0.self_attn.k_proj.weight has 32",
    ),
    case("head-tied", fields(tie_word_embeddings=True), "but there is lm_head.weight"),
    # --- files and tensors
    case("no-weights", unlink(f"{TEXT}/model.safetensors"), "holds no weights"),
    case("no-weights", unlink(f"{IMAGE}/model.safetensors"), "image_model: holds no weights", name="tower"),
    case("safetensors-metadata", without_metadata(TEXT), "text_model_llava/model.safetensors: its header says no"),
    case("safetensors-metadata", without_metadata(IMAGE), "image_model/model.safetensors", name="tower"),
    case("index-metadata", shard(metadata=False), "model.safetensors.index.json: has no metadata"),
    case(
        "second-weights",
        lambda draft: (draft.path / TEXT / "pytorch_model.bin").touch(),
        "pytorch_model.bin lies beside model.safetensors",
    ),
    case("config-invalid", fields(num_hidden_layers="three"), "num_hidden_layers: 'three' is not of type"),
    case("config-invalid", tower(patch_size=0), "image_model/config.json: patch_size", name="tower"),
    case(
        "tensors-missing",
        tensors(TEXT, lambda found: [found.pop(key) for key in ("model.norm.weight", "lm_head.weight")]),
        "model.norm.weight and 1 more: demanded by text_model_llava/config.json",
    ),
    case(
        "tensors-missing",
        tensors(IMAGE, lambda found: found.pop("vision_model.post_layernorm.bias")),
        "vision_model.post_layernorm.bias: demanded by image_model/config.json",
        name="tower",
    ),
    case(
        "tensor-shapes",
        cut(TEXT, "model.layers.1.mlp.up_proj.weight", 40),
        "model.layers.1.mlp.up_proj.weight: 40 x 64 in the weights, 112 x 64 by",
    ),
    case("tensor-shapes", tower(image_size=56), "position_embedding.weight: 5 x 32", "crop-size", name="tower"),
    case(
        "tensor-types",
        tensors(TEXT, lambda found: found.update({"model.norm.weight": np.zeros(64, np.int8)})),
        "model.norm.weight: int8",
    ),
    case(
        "tensors-unused",
        tensors(TEXT, lambda found: found.update({"model.stray": np.zeros(1, np.float16)})),
        "model.stray: no part of the model",
    ),
    case("cast", tensors(IMAGE, lambda found: found.update(WIDE)), "image_model: holds float32 weights"),
]


@pytest.mark.parametrize("each", CASES, ids=lambda each: "-".join(filter(None, (each.trap, each.name))))
def test_one_change_springs_one_trap(each: Case, sound: Draft) -> None:
    each.change(sound)
    found = examine(sound)
    assert traps(found) == {each.trap} | each.also
    (what,) = {symptom.what for symptom in found.symptoms if symptom.trap == each.trap}
    assert each.says in what


def test_every_trap_is_sprung() -> None:
    assert {each.trap for each in CASES} == {trap.name for trap in READER.traps}


# --- mending ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "trap",
    [
        *("tower-without-prefix", "tower-without-preprocessor", "tower-in-text-ignored", "projector-missing"),
        *("tokenizer-model", "rows-invented", "safetensors-metadata", "cast"),
        "tokenizer-too-new",
    ],
)
def test_the_command_that_is_named_mends(
    trap: str, sound: Draft, mmconvert: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is run as it is told; where it asks for a tokenizer, it gets the sound one's."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(sound.path / TEXT, tmp_path / "DIR")
    next(each for each in CASES if each.trap == trap).change(sound)
    mend = next(symptom.mend for symptom in examine(sound).symptoms if symptom.trap == trap)
    command = re.search(r"`mmconvert (.*?)`", mend)
    assert command is not None
    done = mmconvert(*shlex.split(command[1]), "--no-fsync")
    assert done.returncode == 0, done.stderr
    assert trap not in traps(api.doctor(tmp_path / "NEW"))


@pytest.mark.parametrize(
    "trap", ["tower-unnamed", "tower-not-found", "tower-on-hub", "tower-relative", "tower-elsewhere"]
)
@pytest.mark.parametrize("named", ["", TEXT], ids=["both folders", "the text folder"])
def test_relocating_mends_where_the_tower_is(trap: str, named: str, sound: Draft, mmconvert: Run) -> None:
    """The first command that is told is run; where it asks for a tower, it gets the one beside."""
    next(each for each in CASES if each.trap == trap).change(sound)
    found = api.doctor(sound.path / named, "llava")
    assert traps(found) == {trap}
    command = re.search(r"`mmconvert (relocate .*?)`", found.symptoms[0].mend)
    assert command is not None
    done = mmconvert(*shlex.split(command[1].replace("DIR", str(sound.path / IMAGE))))
    assert done.returncode == 0, done.stderr
    assert api.doctor(sound.path / named, "llava").symptoms == ()


def test_transformers_own_llava_is_mended_by_its_command(
    workshop: Workshop, mmconvert: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    joined = workshop.convert(workshop.golden / "llava/tiny_src", "llava-hf")
    (symptom,) = api.doctor(joined, "llava").symptoms
    assert symptom.mend == f"`mmconvert hf-to-llava --src {joined} --out NEW`"
    monkeypatch.chdir(workshop.root)
    mmconvert("hf-to-llava", "--src", joined, "--out", "NEW", "--no-fsync")
    assert not [each for each in api.doctor("NEW", "llava").symptoms if each.severity == "error"]


def test_a_cs_checkpoint_is_mended_by_its_command(sound: Draft, workshop: Workshop, mmconvert: Run) -> None:
    cs = workshop.convert(sound.path, "cs")
    (symptom,) = api.doctor(cs, "llava").symptoms
    assert symptom.mend == f"`mmconvert cs-to-llava --src {cs} --out NEW`"
    out = workshop.new()
    mmconvert("cs-to-llava", "--src", cs, "--out", out, "--no-fsync")
    assert api.doctor(out).symptoms == ()


# --- which folders are LLaVA's ----------------------------------------------------------------------------------------


def test_two_folders_or_a_text_folder_are_examined_for_llava(sound: Draft) -> None:
    assert api.doctor(sound.path).reader == api.doctor(sound.part(TEXT).path).reader == "llava"


def test_a_tower_beside_a_plain_language_model_is_too(sound: Draft) -> None:
    sound.part(TEXT).set(model_type="llama")
    assert api.doctor(sound.path).reader == "llava"


def test_a_tower_or_a_plain_language_model_alone_are_not(sound: Draft) -> None:
    assert api.doctor(sound.part(IMAGE).path).reader == "transformers"
    sound.part(TEXT).set(model_type="llama")
    assert api.doctor(sound.part(TEXT).path).reader == "transformers"


# --- finer points -----------------------------------------------------------------------------------------------------


def test_a_trainers_checkpoint_has_its_parents_name(sound: Draft) -> None:
    run = sound.path / "my-llava-run"
    run.mkdir()
    (sound.path / TEXT).rename(run / "checkpoint-10")
    assert "name-without-llava" not in traps(api.doctor(run / "checkpoint-10", "llava"))


def test_a_hub_snapshot_has_its_repositorys_name(sound: Draft) -> None:
    snapshots = sound.path / "models--me--llava-tiny" / "snapshots"
    snapshots.mkdir(parents=True)
    (sound.path / TEXT).rename(snapshots / "0123")
    assert "name-without-llava" not in traps(api.doctor(snapshots.parent.parent / "models--me--llava-tiny", "llava"))


def test_a_token_that_the_tokenizer_has_is_not_added(sound: Draft) -> None:
    added = {"<im_patch>": 317, "<im_start>": 318, "<im_end>": 319}
    write(f"{TEXT}/added_tokens.json", added)(sound)
    fields(mm_use_im_patch_token=True, mm_use_im_start_end=True)(sound)
    assert examine(sound).symptoms == ()


def test_a_flagged_tower_in_the_text_file_is_checked_like_the_other(sound: Draft) -> None:
    tower_in_text(sound)
    fields(unfreeze_mm_vision_tower=True)(sound)
    assert examine(sound).symptoms == ()
    tensors(TEXT, lambda found: found.pop(f"{TOWER}vision_model.post_layernorm.bias"))(sound)
    (symptom,) = examine(sound).symptoms
    assert f"{TOWER}vision_model.post_layernorm.bias" in symptom.what


def test_a_whole_clip_model_is_a_tower(sound: Draft) -> None:
    part = sound.part(IMAGE)
    part.write_config({"model_type": "clip", "vision_config": part.config()})
    half = {"text_model.embeddings.token_embedding.weight": np.zeros((2, 2), np.float16)}
    part.change_tensors(lambda found: found.update(half))
    assert examine(sound).symptoms == ()


def test_class_token_features_take_one_position_more(sound: Draft) -> None:
    fields(mm_vision_select_feature="cls_patch", tokenizer_model_max_length=5)(sound)
    assert "takes 5 positions" in next(each.what for each in examine(sound).symptoms)


def test_a_linear_projector_needs_no_type(sound: Draft) -> None:
    def flatten(found: dict[str, Any]) -> None:
        for name in ("weight", "bias"):
            del found[f"model.mm_projector.2.{name}"]
            found[f"model.mm_projector.{name}"] = found.pop(f"model.mm_projector.0.{name}")

    tensors(TEXT, flatten)(sound)
    without("mm_projector_type")(sound)
    assert examine(sound).symptoms == ()


JUNK = [None, 0, 1.5, "", [1], {"a": 1}, 2**70, "\0"]


@pytest.mark.parametrize("part", [TEXT, IMAGE])
def test_no_value_of_a_field_makes_it_stumble(part: str, sound: Draft) -> None:
    config = sound.part(part).config()
    extra = ("model_type", "rope_parameters", "rope_scaling", "s2", "image_grid_pinpoints", "head_dim", "text_config")
    for name in {*config, *extra, "vision_config", "dtype", "sliding_window"}:
        for junk in JUNK:
            sound.part(part).write_config({**config, name: junk})
            examine(sound)


@pytest.mark.parametrize(
    "name", ["preprocessor_config.json", "tokenizer_config.json", "added_tokens.json", "tokenizer.json"]
)
def test_no_small_file_makes_it_stumble(name: str, sound: Draft) -> None:
    inner = ("added_tokens_decoder", "added_tokens", "crop_size", "model", "<im_patch>")
    documents: list[Any] = [{key: junk} for key in inner for junk in JUNK]
    for junk in [*JUNK, *documents, {"added_tokens_decoder": {"9" * 5000: {}}}]:
        for part in (TEXT, IMAGE):
            write(f"{part}/{name}", junk)(sound)
        examine(sound)
