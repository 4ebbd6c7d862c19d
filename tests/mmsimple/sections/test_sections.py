"""Sections as a whole: every model by its name, files of every kind and release, and back into a section."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file

import mmsimple as library
from mmconvert import registry
from mmconvert.api import NO_HINTS, Hints
from mmconvert.errors import InputRefused, UsageError
from mmconvert.paths import ABSENT, get, put, without
from mmsimple import sections
from mmsimple.config import (
    AveragePoolingConfig,
    ClassifierConfig,
    FeedForwardConfig,
    IdentityConfig,
    ImageModelConfig,
    LlamaConfig,
    ModelConfig,
    MultimodalConfig,
    ViTConfig,
)
from tests.mmsimple.sections.examples import CLASSIFIER, ENCODER, FILE, LLAMA, LLAVA, MLP, MMSIMPLE, assert_refused
from tests.mmsimple.small import DECODER, MULTIMODAL, VIT

GOLDEN = Path(__file__).parents[2] / "golden"
CONFIGS = Path(library.__file__).parent / "configs"
MODELS, SHARED = "image_model_list.image_models", "image_model_list.global_image_projection"
FIRST = f"{MODELS}.0"

STACK = FeedForwardConfig(32, (48, 48), ("gelu", None), (0.0, 0.0))
POOLED = AveragePoolingConfig(32, 48, (1, 2), use_bias=False)
WINDOWED = replace(DECODER, attention_sliding_window_length=8)
MISTRAL: dict[str, Any] = sections.write(WINDOWED)[1]
# A section of each model, and what it describes.
READ: dict[str, tuple[dict[str, Any], ModelConfig]] = {
    "mmsimple-llava": (MMSIMPLE, MULTIMODAL),
    "llava": (LLAVA, MultimodalConfig((ImageModelConfig(replace(VIT, image_layer_idx=-1)),), DECODER, STACK)),
    "llama": (LLAMA, DECODER),
    "llama-headless": (LLAMA, DECODER),
    "mistral": (MISTRAL, WINDOWED),
    "clip-vit": (CLASSIFIER, ClassifierConfig(VIT, 24, use_bias_in_output=False)),
    "clip-encoder": (ENCODER, VIT),
}
YARN = {"original_max_position_embeddings": 32}
WRITTEN: list[tuple[str, ModelConfig]] = [
    *((name, config) for name, (_, config) in READ.items() if name not in ("llava", "llama-headless")),
    ("clip-encoder", replace(VIT, nonlinearity="quick_gelu")),
    ("llama", replace(DECODER, nonlinearity="geglu", pos_scaling_type="yarn", pos_scaling_extra_args=YARN)),
    ("clip-vit", ClassifierConfig(VIT, 10, use_bias_in_output=True)),
    ("mmsimple-llava", replace(MULTIMODAL, text_model=WINDOWED, select="full", freeze=("^text_model", "b$"))),
    ("mmsimple-llava", replace(MULTIMODAL, loss_scaling="batch_size", loss_weight=0.5, projection=POOLED)),
    (
        "mmsimple-llava",
        MultimodalConfig(
            image_models=(ImageModelConfig(VIT, POOLED), ImageModelConfig(replace(VIT, patch_size=(7, 7)), STACK)),
            text_model=DECODER,
            projection=IdentityConfig(),
        ),
    ),
    ("mmsimple-llava", MultimodalConfig((ImageModelConfig(VIT, STACK),), DECODER)),
]
# Other values that fit the rest; those of all other fields may be off by a little.
OTHERWISE: dict[str, Any] = {
    "hidden_size": 64,
    "num_heads": 2,
    "num_kv_heads": 4,
    "rotary_dim": 8,
    "attention_sliding_window_length": 8,
    "image_size": (28, 42),
    "patch_size": (14, 7),
}
# What only words can change: see `WRITTEN`.
WORDS = ("nonlinearity", "pos_scaling_type", "pos_scaling_extra_args")


def near(value: Any) -> Any:
    return not value if isinstance(value, bool) else value + (0.25 if isinstance(value, float) else 1)


def saved(folder: Path, document: Any) -> Path:
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(document), "utf-8")
    return path


def refusal(path: Path, hints: Hints = NO_HINTS) -> str:
    """What is said of a file that is refused: one line."""
    with pytest.raises(InputRefused) as caught:
        sections.read_file(path, hints)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_model_of_mmconvert_is_read() -> None:
    assert set(sections.READERS) == {converter.model for converter in registry.converters()} == set(READ)


@pytest.mark.parametrize("model", READ)
def test_a_model_is_read_by_its_name(model: str) -> None:
    section, config = READ[model]
    assert sections.read(model, section, FILE) == config


def test_a_model_that_is_not_there_is_refused_with_those_that_are() -> None:
    assert_refused("gptj", LLAMA, f"mmsimple has no gptj; it has {', '.join(READ)}")


@pytest.mark.parametrize("model", READ)
def test_a_section_of_another_model_is_refused(model: str) -> None:
    assert_refused(model, {**READ[model][0], "name": "gptj"}, "name: 'gptj' is not one of ")
    assert_refused(model, without(READ[model][0], "name"), "'name' is a required property")


@pytest.mark.parametrize(("model", "config"), WRITTEN)
def test_what_is_written_reads_back_the_same(model: str, config: ModelConfig, tmp_path: Path) -> None:
    name, section = sections.write(config)
    assert name == model
    assert sections.read(name, section, FILE) == config
    assert sections.read_file(saved(tmp_path, {"model": section})) == config


@pytest.mark.parametrize(
    ("config", "name"),
    [(config, each.name) for config in (VIT, DECODER) for each in fields(config) if each.name not in WORDS],
)
def test_each_field_is_written_and_reads_back(config: ViTConfig | LlamaConfig, name: str) -> None:
    changes: dict[str, Any] = {name: OTHERWISE[name] if name in OTHERWISE else near(getattr(config, name))}
    other = replace(config, **changes)
    assert sections.read(*sections.write(other), FILE) == other
    assert other != config


@pytest.mark.parametrize(
    ("model", "path", "near"),
    [
        ("clip-vit", "num_clases", "num_classes"),
        ("mmsimple-llava", "loss_wieght", "loss_weight"),
        ("mmsimple-llava", "image_model_list.image_model", "image_models"),
        ("mmsimple-llava", f"{FIRST}.projection_layers", "projection_layer"),
        ("mmsimple-llava", f"{FIRST}.image_encoder.patchsize", "patch_size"),
        ("llava", "image_feature_select_layer", "image_feature_select_layer_idx"),
        ("llava", "projector.image_modl", "image_model"),
    ],
)
def test_an_unknown_field_is_refused_at_its_depth_with_the_nearest(model: str, path: str, near: str) -> None:
    assert_refused(model, put(READ[model][0], path, 1), f": {path}: no such field; did you mean {near}?")


# --- files ----------------------------------------------------------------------------------------------------------


def before_2_4(section: dict[str, Any]) -> dict[str, Any]:
    """Without a name, and with encoder and projection of an image model in one list."""
    section, models = without(section, "name"), get(section, MODELS)
    return section if models is ABSENT else put(section, MODELS, [{"image_model": [*each.values()]} for each in models])


def before_2_0(section: dict[str, Any]) -> dict[str, Any]:
    return {**without(before_2_4(section), "norm_type"), "use_rms_norm": True, "use_position_embedding": True}


NAMELESS = ("mmsimple-llava", "llava", "llama", "mistral", "clip-vit")
FLAT = {"optimizer": {"learning_rate": 1e-3}, "runconfig": {"max_steps": 1}, "train_input": {"batch_size": 2}}
OWN = put(without(MMSIMPLE, SHARED), f"{FIRST}.projection_layer", MLP)


@pytest.mark.parametrize("style", ["flat", "trainer", "model alone"])
@pytest.mark.parametrize(
    ("section", "config"),
    [
        *(READ[name] for name in (*NAMELESS, "clip-encoder")),
        *((before_2_4(READ[name][0]), READ[name][1]) for name in NAMELESS),
        (before_2_0(LLAMA), DECODER),
        (OWN, MultimodalConfig((ImageModelConfig(VIT, STACK),), DECODER)),
        (before_2_4(OWN), MultimodalConfig((ImageModelConfig(VIT, STACK),), DECODER)),
    ],
)
def test_a_file_of_any_style_and_release_is_read(
    section: dict[str, Any], config: ModelConfig, style: str, tmp_path: Path
) -> None:
    documents = {"flat": {"model": section, **FLAT}, "trainer": {"trainer": {"init": {"model": section}}}}
    assert sections.read_file(saved(tmp_path, documents.get(style, {"model": section}))) == config


def test_a_precision_is_the_runs_in_a_flat_file_and_refused_under_a_trainer(tmp_path: Path) -> None:
    section = {**MMSIMPLE, "mixed_precision": True, "fp16_type": "bfloat16"}
    assert sections.read_file(saved(tmp_path, {"model": section})) == MULTIMODAL
    path = saved(tmp_path, {"trainer": {"init": {"model": section}}})
    assert refusal(path).startswith(f"{path}: fp16_type is bfloat16; mmsimple computes null; since release 2.3 it ")


def test_the_params_beside_a_checkpoint_are_read_or_those_that_are_named(tmp_path: Path) -> None:
    save_file({"lm_head.weight": torch.zeros(1)}, tmp_path / "model.safetensors")
    saved(tmp_path, {"model": LLAMA})
    assert sections.read_file(tmp_path) == sections.read_file(tmp_path / "model.safetensors") == DECODER
    (tmp_path / "config.yaml").rename(tmp_path / "other.yml")
    saved(tmp_path, {"model": MISTRAL})
    assert sections.read_file(tmp_path) == WINDOWED
    assert sections.read_file(tmp_path, Hints(config=tmp_path / "other.yml")) == DECODER


def test_a_user_may_say_which_model_or_which_encoder(tmp_path: Path) -> None:
    encoders = [{"image_encoder": ENCODER}, {"image_encoder": {**ENCODER, "image_layer_idx": 0}}]
    path = saved(tmp_path, {"model": put(MMSIMPLE, MODELS, encoders)})
    assert sections.read_file(path, Hints(encoder=1)) == replace(VIT, image_layer_idx=0)
    path = saved(tmp_path, {"model": put(MMSIMPLE, f"{FIRST}.image_encoder.image_layer_idx", 3)})
    said = f"{path} at {FIRST}.image_encoder: image_layer_idx is 3; num_hidden_layers 3 has -3 to 2"
    assert refusal(path, Hints(encoder=0)).startswith(said)
    path = saved(tmp_path, {"model": LLAMA})
    assert sections.read_file(path, Hints(model="llama-headless")) == DECODER


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"model": {**LLAMA, "rotary_dim": 5}}, "rotary_dim is 5: it must be even"),
        ({"trainer": {"init": {"model": {**LLAMA, "rotary_dim": 5}}}}, "rotary_dim is 5: it must be even"),
        ({"model": {"name": "gptj"}}, "model name 'gptj' is none that is known here"),
        ({"optimizer": {}}, "model is absent"),
        ({"trainer": {"init": {}}}, "trainer.init.model is absent"),
        ({"trainer": [{"init": {"model": LLAMA}}]}, "trainer is "),
    ],
)
def test_a_file_that_is_refused_is_named(document: Any, said: str, tmp_path: Path) -> None:
    path = saved(tmp_path, document)
    assert refusal(path).startswith(f"{path}: {said}")


def test_a_checkpoint_of_another_format_is_refused_with_the_way_out() -> None:
    path = GOLDEN / "inputs" / "llama_tied"
    assert refusal(path) == f"{path}: is a llama hf checkpoint; `mmconvert convert` makes a CS one of it"


def test_a_file_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.yaml"):
        sections.read_file(tmp_path / "none.yaml")


TOWER = replace(VIT, filter_size=64, nonlinearity="quick_gelu", use_embed_proj_bias=False, dropout_rate=0.0)
NO_DROPOUT = replace(DECODER, embedding_dropout_rate=0.0, dropout_rate=0.0, attention_dropout_rate=0.0)
NO_BIAS = replace(
    NO_DROPOUT, use_projection_bias_in_attention=False, use_ffn_bias_in_attention=False, use_ffn_bias=False
)


def test_what_modelzoo_accepts_is_read(tmp_path: Path) -> None:
    document = yaml.safe_load((GOLDEN / "forward_mmsimple" / "config_accepted.yaml").read_text("utf-8"))
    text = replace(NO_BIAS, vocab_size=320, num_kv_heads=4, max_position_embeddings=256)
    expected = replace(MULTIMODAL, image_models=(ImageModelConfig(TOWER),), text_model=text)
    # Its pattern is a known fault: it freezes the projector too.
    assert sections.read_file(saved(tmp_path, without(document, "model.freeze"))) == expected


@pytest.mark.parametrize(("phase", "frozen_too"), [(1, ("^text_model",)), (2, ())])
def test_the_configs_that_come_along_are_a_llava_of_7b(phase: int, frozen_too: tuple[str, ...]) -> None:
    tower = replace(
        TOWER, hidden_size=1024, num_hidden_layers=24, num_heads=16, filter_size=4096, image_size=(336, 336)
    )
    text = replace(NO_BIAS, vocab_size=32000, hidden_size=4096, num_hidden_layers=32, num_heads=32, num_kv_heads=32)
    assert sections.read_file(CONFIGS / f"params_mm_llava_llama2_7b_phase{phase}.yaml") == MultimodalConfig(
        image_models=(ImageModelConfig(tower),),
        text_model=replace(text, filter_size=11008, rotary_dim=128, max_position_embeddings=2048),
        projection=FeedForwardConfig(1024, (4096, 4096), ("gelu", None), (0.0, 0.0), use_bias=True),
        freeze=("^image_model.image_model_list", *frozen_too),
    )
