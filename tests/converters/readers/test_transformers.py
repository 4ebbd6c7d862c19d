"""Every trap of transformers is sprung by one change to a sound checkpoint, and by that change alone."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from mmconvert import api
from mmconvert.diagnosis import Diagnosis, readers

if TYPE_CHECKING:
    from tests.conftest import Run
    from tests.converters.conftest import Draft, Workshop

Change = Callable[["Draft"], object]
READER = next(each for each in readers() if each.name == "transformers")
NAMES = {
    "model.mm_projector.0.": "multi_modal_projector.linear_1.",
    "model.mm_projector.2.": "multi_modal_projector.linear_2.",
    "model.": "language_model.model.",
    "lm_head.": "language_model.lm_head.",
}
ROWS = ("language_model.model.embed_tokens.weight", "language_model.lm_head.weight")
IMAGE_SIZES = (
    "hidden_size",
    "image_size",
    "intermediate_size",
    "num_attention_heads",
    "num_hidden_layers",
    "patch_size",
)
TEXT_SIZES = ("hidden_size", "intermediate_size", "num_attention_heads", "num_hidden_layers", "rms_norm_eps")


def write_tokenizer(draft: Draft, tokens: int, **added: int) -> None:
    document = {
        "model": {"vocab": {f"t{number}": number for number in range(tokens)}},
        "added_tokens": [{"content": word, "id": number} for word, number in added.items()],
    }
    (draft.path / "tokenizer.json").write_text(json.dumps(document))


@pytest.fixture
def joined(workshop: Workshop) -> Draft:
    """The small LLaVA as llava-hf: one folder, with two more tokens and 64 more rows."""
    draft = workshop.draft("llava/tiny_src")
    image, text = draft.part("image_model"), draft.part("text_model_llava")
    tensors = {f"vision_tower.{key}": array for key, array in image.tensors().items()}
    for key, array in text.tensors().items():
        old = next(name for name in NAMES if key.startswith(name))
        tensors[NAMES[old] + key.removeprefix(old)] = array
    tensors |= {key: np.resize(tensors[key], (384, 64)) for key in ROWS}
    draft.write_tensors(tensors)
    config = {
        "architectures": ["LlavaForConditionalGeneration"],
        "model_type": "llava",
        "image_token_index": 320,
        "image_seq_length": 4,
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default",
        "torch_dtype": "float32",
        "text_config": {name: text.config()[name] for name in TEXT_SIZES} | {"model_type": "llama", "vocab_size": 384},
        "vision_config": {name: image.config()[name] for name in IMAGE_SIZES},
    }
    draft.write_config(config)
    (image.path / "preprocessor_config.json").rename(draft.path / "preprocessor_config.json")
    processor = {"num_additional_image_tokens": 1, "patch_size": 14, "vision_feature_select_strategy": "default"}
    (draft.path / "processor_config.json").write_text(json.dumps(processor))
    write_tokenizer(draft, 320, **{"<image>": 320, "<pad>": 321})
    for part in (image, text):
        shutil.rmtree(part.path)
    return draft


@pytest.fixture
def gqa(gqa: Draft) -> Draft:
    """A LLaMA with fewer key/value heads than heads, its tokenizer, and the names of transformers 4."""
    config = gqa.config()
    gqa.write_config({"torch_dtype": config.pop("dtype"), **config})
    write_tokenizer(gqa, config["vocab_size"])
    return gqa


@pytest.fixture
def tower(workshop: Workshop) -> Draft:
    return workshop.draft("llava/tiny_src/image_model")


def examine(draft: Draft) -> Diagnosis:
    return api.doctor(draft.path, "transformers")


def traps(found: Diagnosis) -> set[str]:
    return {each.trap for each in found.symptoms}


def test_nothing_is_wrong_with_sound_checkpoints(joined: Draft, gqa: Draft, tower: Draft) -> None:
    for draft in (joined, gqa, tower):
        assert examine(draft).symptoms == ()
        assert api.doctor(draft.path).reader == "transformers"


@dataclass(frozen=True)
class Case:
    """A trap, the sound checkpoint and the change that spring it, part of what is said, and what else is found."""

    trap: str
    base: str
    change: Change
    says: str
    also: frozenset[str] = frozenset()
    name: str = ""


def case(trap: str, base: str, change: Change, says: str, *also: str, name: str = "") -> Case:
    return Case(trap, base, change, says, frozenset(also), name or base)


# --- changes ----------------------------------------------------------------------------------------------------------


def fields(**values: Any) -> Change:
    return lambda draft: draft.set(**values)


def without(*names: str) -> Change:
    return lambda draft: draft.drop(*names)


def inner(part: str, **values: Any) -> Change:
    return lambda draft: draft.set(**{part: {**draft.config()[part], **values}})


def unlink(name: str) -> Change:
    return lambda draft: (draft.path / name).unlink()


def write(name: str, document: Any) -> Change:
    return lambda draft: (draft.path / name).write_text(json.dumps(document))


def tokenizer_json(merges: Any = (), **steps: Any) -> Change:
    def change(draft: Draft) -> None:
        file = draft.path / "tokenizer.json"
        said = json.loads(file.read_text())
        file.write_text(json.dumps({**said, "model": {**said["model"], "merges": merges}, **steps}))

    return change


def processor(**values: Any) -> Change:
    def change(draft: Draft) -> None:
        file = draft.path / "processor_config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **values}))

    return change


def tensors(change: Callable[[dict[str, Any]], object]) -> Change:
    return lambda draft: draft.change_tensors(change)


def renamed(old: str, new: str) -> Change:
    def change(found: dict[str, Any]) -> None:
        for key in list(found):
            found[re.sub(old, new, key)] = found.pop(key)

    return tensors(change)


def put(key: str, *shape: int, dtype: Any = np.float32) -> Change:
    return tensors(lambda found: found.update({key: np.zeros(shape, dtype)}))


def pop(key: str) -> Change:
    return tensors(lambda found: found.pop(key))


def both(*changes: Change) -> Change:
    return lambda draft: [change(draft) for change in changes]


def without_metadata(draft: Draft) -> None:
    save_file(draft.tensors(), draft.path / "model.safetensors")


def index_without_metadata(draft: Draft) -> None:
    file = draft.path / "model.safetensors.index.json"
    file.write_text(json.dumps({"weight_map": json.loads(file.read_text())["weight_map"]}))


def empty(*files: str) -> Change:
    """Leave nothing in the folder but these files."""

    def change(draft: Draft) -> None:
        for each in draft.path.iterdir():
            each.unlink()
        for name in files:
            (draft.path / name).write_text("{}")

    return change


def image_processor_inside(draft: Draft) -> None:
    file = draft.path / "preprocessor_config.json"
    processor(image_processor=json.loads(file.read_text()))(draft)
    file.unlink()


ROPE = {"rope_theta": 5e5, "rope_type": "default"}
PLAIN_ROPE = {"rope_theta": 10000.0, "rope_type": "default"}
EMBEDDING = "model.embed_tokens.weight"
CASES = [
    # --- what kind of folder it is
    case("cs-checkpoint", "gqa", empty("model.mdl"), "is a CS checkpoint"),
    case("llava-source", "gqa", fields(model_type="llava_llama"), "'llava_llama' of the LLaVA source"),
    case("llava-source", "gqa", fields(model_type="llava"), "'llava' of the LLaVA source", name="llava"),
    case("lora", "gqa", empty("config.json", "adapter_config.json"), "is a LoRA adapter"),
    case("unknown-model", "gqa", fields(model_type="qwen2"), "model_type is 'qwen2'"),
    # --- files
    case("no-weights", "tower", unlink("model.safetensors"), "holds no weights"),
    case("safetensors-metadata", "tower", without_metadata, "model.safetensors: its header says no format"),
    case("index-metadata", "gqa", index_without_metadata, "model.safetensors.index.json: has no metadata"),
    case("second-weights", "tower", lambda draft: (draft.path / "pytorch_model.bin").touch(), "pytorch_model.bin lies"),
    # --- llava-hf
    case(
        "tower-without-prefix",
        "joined",
        renamed(r"^vision_tower\.vision_model\.", "vision_tower."),
        "and 54 more lack vision_model. after vision_tower.",
    ),
    case(
        "names-of-memory",
        "joined",
        both(
            renamed(r"^language_model\.model\.", "model.language_model."),
            renamed(r"^language_model\.lm_head\.", "lm_head."),
            renamed(r"^(vision_tower|multi_modal_projector)\.", r"model.\1."),
        ),
        "begin with model.",
    ),
    case("tensors-of-no-part", "joined", put("image_newline", 64), "image_newline: no part of the model"),
    case(
        "image-token",
        "joined",
        both(fields(image_token_index=384), unlink("tokenizer.json")),
        "is 384",
        *["processor-without-tokenizer"],
    ),
    case(
        "image-token",
        "joined",
        both(without("image_token_index"), unlink("tokenizer.json")),
        "image_token_index is 32000, and the embedding has 384 rows",
        "processor-without-tokenizer",
        name="default",
    ),
    case("image-token-unknown", "joined", fields(image_token_index=319), "is 319, but <image> is 320"),
    case(
        "image-token-unknown",
        "joined",
        lambda draft: write_tokenizer(draft, 320),
        "the tokenizer has no token <image>",
        name="absent",
    ),
    case("processor-absent", "joined", unlink("processor_config.json"), "processor_config.json is missing"),
    case("image-processor-absent", "joined", unlink("preprocessor_config.json"), "preprocessor_config.json is missing"),
    case("image-processor-inside", "joined", image_processor_inside, "alone holds the image processor"),
    case("additional-image-tokens", "joined", processor(num_additional_image_tokens=0), "is 0"),
    case("processor-differs", "joined", processor(patch_size=16), "patch_size is 16, and 14 in config.json"),
    case(
        "processor-differs",
        "joined",
        processor(vision_feature_select_strategy="full"),
        "vision_feature_select_strategy is 'full', and 'default'",
        name="strategy",
    ),
    case("feature-layer", "joined", fields(vision_feature_layer=4), "is 4, and a tower of 3 layers has -4 to 3"),
    case("feature-layer", "joined", fields(vision_feature_layer="last"), "'last'", name="text"),
    case(
        "feature-strategy",
        "joined",
        both(fields(vision_feature_select_strategy="cls"), processor(vision_feature_select_strategy="cls")),
        "'cls'",
    ),
    case("image-sequence-length", "joined", fields(image_seq_length=576), "is 576, and a picture gives 4 features"),
    case("image-sequence-length", "joined", without("image_seq_length"), "is 576, and a picture", name="default"),
    case(
        "image-sequence-length",
        "joined",
        both(fields(vision_feature_select_strategy="full"), processor(vision_feature_select_strategy="full")),
        "is 4, and a picture gives 5 features",
        name="full",
    ),
    case(
        "projector-depth",
        "joined",
        put("multi_modal_projector.linear_3.weight", 64, 64),
        "linear_1, linear_2, linear_3",
    ),
    case(
        "projector-depth",
        "joined",
        tensors(lambda found: [found.pop(f"multi_modal_projector.linear_2.{name}") for name in ("weight", "bias")]),
        "is linear_1, where",
        name="one-layer",
    ),
    case(
        "projector-shape",
        "joined",
        put("multi_modal_projector.linear_1.weight", 64, 48),
        "multi_modal_projector.linear_1.weight: 64 x 48, where 64 x 32",
    ),
    case(
        "projector-shape", "joined", pop("multi_modal_projector.linear_2.bias"), "linear_2.bias: missing", name="bias"
    ),
    case(
        "projector-shape", "joined", fields(vision_feature_layer=[-2, -1]), "where 64 x 64 is demanded", name="layers"
    ),
    case("head-tied", "joined", fields(tie_word_embeddings=True), "but there is language_model.lm_head.weight"),
    case("head-tied", "joined", inner("text_config", tie_word_embeddings=True), "text_config: tie_word", name="text"),
    case("tokens-past-rows", "joined", lambda draft: write_tokenizer(draft, 400, **{"<image>": 320}), "400 tokens"),
    case(
        "crop-size", "joined", write("preprocessor_config.json", {"crop_size": {"height": 36, "width": 36}}), "36 x 36"
    ),
    # --- decoders and towers
    case(
        "tower-without-prefix",
        "tower",
        renamed(r"^vision_model\.", ""),
        "and 54 more lack the prefix vision_model.",
    ),
    case("preprocessor-absent", "tower", unlink("preprocessor_config.json"), "preprocessor_config.json is missing"),
    case("crop-size", "tower", write("preprocessor_config.json", {"crop_size": 336}), "336 x 336"),
    case("processor-without-tokenizer", "joined", unlink("tokenizer.json"), "holds neither tokenizer.json"),
    *(
        case("tokenizer-too-new", base, write("tokenizer_config.json", said), says, name=f"{base} {says}")
        for base in ("joined", "gqa")
        for said, says in (
            ({"tokenizer_class": "TokenizersBackend"}, "tokenizer_class is TokenizersBackend"),
            ({"extra_special_tokens": ["t1"]}, "extra_special_tokens is a list"),
        )
    ),
    *(
        case("tokenizer-json-too-new", base, tokenizer_json(**said), says, name=f"{base} {says}")
        for base in ("joined", "gqa")
        for said, says in (
            ({"pre_tokenizer": {"type": "Metaspace"}}, "tokenizer.json: a Metaspace has no add_prefix_space"),
            ({"merges": [["t", "1"]]}, "tokenizer.json: merges are pairs"),
        )
    ),
    case("tokenizer-absent", "gqa", unlink("tokenizer.json"), "holds neither tokenizer.json nor tokenizer.model"),
    case(
        "tokenizer-slow",
        "gqa",
        lambda draft: (draft.path / "tokenizer.json").rename(draft.path / "tokenizer.model"),
        "tokenizer.model lies there without tokenizer.json",
    ),
    case("tokens-past-rows", "gqa", lambda draft: write_tokenizer(draft, 1000), "1000 tokens"),
    case("rope-parameters", "gqa", both(without("rope_theta"), fields(rope_parameters=ROPE)), "500000"),
    case(
        "rope-parameters",
        "joined",
        inner("text_config", rope_parameters=ROPE),
        "text_config: rope_parameters says",
        name="joined",
    ),
    case(
        "new-spelling",
        "gqa",
        both(without("rope_theta"), fields(rope_parameters=PLAIN_ROPE)),
        "rope_parameters in place of",
    ),
    case("new-dtype", "gqa", both(without("torch_dtype"), fields(dtype="float32")), "dtype in place of torch_dtype"),
    case("head-dim", "gqa", fields(head_dim=999), "head_dim is 999"),
    case("key-value-heads", "gqa", without("num_key_value_heads"), "num_key_value_heads is absent"),
    case("head-tied", "gqa", fields(tie_word_embeddings=True), "but there is lm_head.weight"),
    case("config-invalid", "gqa", fields(hidden_size="wide"), "hidden_size: 'wide' is not of type"),
    case("tensors-missing", "gqa", pop("model.norm.weight"), "model.norm.weight: demanded by config.json"),
    case(
        "tensors-missing",
        "joined",
        pop("language_model.model.norm.weight"),
        "language_model.model.norm.weight: demanded by config.json: text_config",
        name="joined",
    ),
    case("tensor-shapes", "gqa", fields(vocab_size=9), "9 x 48 by config.json"),
    case(
        "tensor-shapes",
        "joined",
        inner("vision_config", intermediate_size=8),
        "8 x 32 by config.json: vision_config",
        name="tower",
    ),
    case("tensor-types", "tower", put("vision_model.post_layernorm.bias", 32, dtype=np.int8), "int8"),
    case("tensors-unused", "gqa", put("model.stray", 1), "model.stray: no part of the model"),
]


@pytest.mark.parametrize("each", CASES, ids=lambda each: f"{each.trap}-{each.name}")
def test_one_change_springs_one_trap(each: Case, request: pytest.FixtureRequest) -> None:
    draft: Draft = request.getfixturevalue(each.base)
    each.change(draft)
    found = examine(draft)
    assert traps(found) == {each.trap} | each.also
    assert each.says in " ".join(symptom.what for symptom in found.symptoms if symptom.trap == each.trap)


def test_every_trap_is_sprung() -> None:
    assert {each.trap for each in CASES} == {trap.name for trap in READER.traps}


# --- mending ----------------------------------------------------------------------------------------------------------


MENDED = (
    *("names-of-memory", "processor-absent", "image-processor-absent", "image-processor-inside"),
    *("additional-image-tokens", "processor-differs", "image-sequence-length", "tower-without-prefix"),
    *("tokenizer-too-new", "tokenizer-json-too-new"),
)


def run_mend(found: Diagnosis, trap: str, mmconvert: Run) -> Diagnosis:
    """The diagnosis after the command that is told for a trap has been run, where it writes its folder NEW."""
    mend = next(symptom.mend for symptom in found.symptoms if symptom.trap == trap)
    command = re.search(r"`mmconvert (.*?)`", mend)
    assert command is not None
    done = mmconvert(*shlex.split(command[1]), "--no-fsync")
    assert done.returncode == 0, done.stderr
    return api.doctor("NEW", "transformers")


@pytest.mark.parametrize(
    ("base", "trap"),
    [("gqa", "safetensors-metadata"), ("tower", "tower-without-prefix"), *(("joined", trap) for trap in MENDED)],
)
def test_the_command_that_is_named_mends(
    base: str, trap: str, request: pytest.FixtureRequest, mmconvert: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    draft: Draft = request.getfixturevalue(base)
    monkeypatch.chdir(draft.path.parent)
    draft.write_tensors(draft.tensors())
    next(each for each in CASES if each.trap == trap and base in (each.base, "gqa")).change(draft)
    assert trap not in traps(run_mend(examine(draft), trap, mmconvert))


def test_llavas_own_folders_are_mended_by_their_command(
    workshop: Workshop, mmconvert: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = workshop.draft("llava/tiny_src")
    monkeypatch.chdir(workshop.root)
    assert run_mend(examine(source), "llava-source", mmconvert).symptoms == ()


# --- finer points -----------------------------------------------------------------------------------------------------


def test_the_folders_of_a_folder_are_examined_one_by_one(workshop: Workshop) -> None:
    draft = workshop.draft("llava/tiny_src")
    draft.part("text_model_llava").set(model_type="llama", tie_word_embeddings=True)
    draft.part("image_model").set(image_size=56)
    found = {each.trap: each.what for each in examine(draft).symptoms}
    assert "text_model_llava/config.json" in found["head-tied"]
    assert "image_model/config.json" in found["tensor-shapes"]


def test_a_mistral_decoder_is_known_by_its_own_defaults(joined: Draft) -> None:
    inner("text_config", model_type="mistral")(joined)
    assert traps(examine(joined)) == {"key-value-heads"}
    inner("text_config", num_key_value_heads=4)(joined)
    assert examine(joined).symptoms == ()


def test_parts_of_models_that_are_not_known_are_left_alone(joined: Draft) -> None:
    inner("text_config", model_type="qwen2")(joined)
    inner("vision_config", model_type="siglip_vision_model")(joined)
    assert examine(joined).symptoms == ()


def test_a_config_without_a_tower_means_the_large_one(joined: Draft) -> None:
    joined.drop("vision_config")
    shapes = next(each.what for each in examine(joined).symptoms if each.trap == "tensor-shapes")
    assert "1024" in shapes


def test_a_tied_decoder_without_a_head_is_sound(gqa: Draft) -> None:
    gqa.set(tie_word_embeddings=True)
    gqa.change_tensors(lambda found: found.pop("lm_head.weight"))
    assert examine(gqa).symptoms == ()


JUNK = [None, 0, 1.5, "", [1], {"a": 1}, 2**70]


@pytest.mark.parametrize("base", ["joined", "gqa", "tower"])
def test_no_value_of_a_field_makes_it_stumble(base: str, request: pytest.FixtureRequest) -> None:
    draft: Draft = request.getfixturevalue(base)
    config = draft.config()
    names = {*config, "text_config", "vision_config", "rope_parameters", "head_dim", "tie_word_embeddings"}
    for name in names | ({"image_token_id", "multimodal_projector_bias"} if base == "joined" else set()):
        for junk in JUNK:
            draft.write_config({**config, name: junk})
            examine(draft)


@pytest.mark.parametrize("name", ["processor_config.json", "preprocessor_config.json", "tokenizer.json"])
def test_no_small_file_makes_it_stumble(name: str, joined: Draft) -> None:
    keys = ("image_processor", "image_token", "patch_size", "crop_size", "added_tokens", "model")
    for junk in [*JUNK, *({key: junk} for key in keys for junk in JUNK)]:
        write(name, junk)(joined)
        examine(joined)
