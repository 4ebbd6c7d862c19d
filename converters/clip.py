"""CLIP's vision tower: Hugging Face `CLIPVisionModel[WithProjection]` and `CLIPModel` against CS `ViTModel`.

Sizes: E hidden, M feed-forward, C channels, Y x X a patch, N positions (patches + class token), D classes, i layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmconvert.configs import ConfigTable, Space
from mmconvert.converter import Converter, Format
from mmconvert.rows import roll_cls
from mmconvert.rules import ANYTHING, ConfigRow, Values, const, group, ignored, renamed, same
from mmconvert.schema import load
from mmconvert.spec import A, B, Config, Sizes, key, mount, only, table

from . import usage
from .hugging_face import UNTRUSTED, rename_dtype
from .releases import SINCE_2_1, named

HF, CS = A, B


def sizes(config: Config) -> Sizes:
    """Sizes from a CS image encoder's config."""
    (height, width), (patch_height, patch_width) = config["image_size"], config["patch_size"]
    return {
        "E": config["hidden_size"],
        "M": config["filter_size"],
        "C": config["num_channels"],
        "Y": patch_height,
        "X": patch_width,
        "N": (height // patch_height) * (width // patch_width) + 1,
        "i": config["num_hidden_layers"],
    }


def classifier_sizes(config: Config) -> Sizes:
    """Sizes from a CS classifier's section."""
    return {"D": config["num_classes"], "E": config["hidden_size"]}


SOURCE = "Hugging Face CLIPVisionModel against Cerebras ViTModel; checked by forward passes of both"
LAYER = "encoder.layers.{i}."
BLOCK = "encoder.transformer_encoder.layers.{i}."
# fmt: off
VISION = table(
    #   Hugging Face                            Cerebras                                         shape     rows
    key("embeddings.class_embedding",           "embedding_layer.cls_embedding",                 "E"),
    key("embeddings.position_embedding.weight", "embedding_layer.position_embeddings.weight",    "N E",    roll_cls),
    key("embeddings.patch_embedding.{p}",       "embedding_layer.linear_proj.{p}",               "E C Y X"),
    key("pre_layrnorm.{p}",                     "embedding_layer.post_embed_ln.{p}",             "E",      bias=True),
    key(LAYER + "layer_norm1.{p}",              BLOCK + "norm1.{p}",                             "E",      bias=True),
    key(LAYER + "self_attn.q_proj.{p}",         BLOCK + "self_attn.proj_q_dense_layer.{p}",      "E E",    bias=True),
    key(LAYER + "self_attn.k_proj.{p}",         BLOCK + "self_attn.proj_k_dense_layer.{p}",      "E E",    bias=True),
    key(LAYER + "self_attn.v_proj.{p}",         BLOCK + "self_attn.proj_v_dense_layer.{p}",      "E E",    bias=True),
    key(LAYER + "self_attn.out_proj.{p}",       BLOCK + "self_attn.proj_output_dense_layer.{p}", "E E",    bias=True),
    key(LAYER + "layer_norm2.{p}",              BLOCK + "norm2.{p}",                             "E",      bias=True),
    key(LAYER + "mlp.fc1.{p}",                  BLOCK + "ffn.ffn.0.linear_layer.{p}",            "M E",    bias=True),
    key(LAYER + "mlp.fc2.{p}",                  BLOCK + "ffn.ffn.1.linear_layer.{p}",            "E M",    bias=True),
    key("post_layernorm.{p}",                   "encoder.transformer_encoder.norm.{p}",          "E",      bias=True),
    only(HF, "embeddings.position_ids", why="a buffer: the numbers from 0 on"),
    sizes=sizes, source=SOURCE,
)


CLASSIFIER = table(
    key("visual_projection.weight", "classifier.classifier.ffn.0.linear_layer.weight", "D E", init="classifier"),
    sizes=classifier_sizes, source=SOURCE,
)

NO_CLASSIFIER = table(
    only(HF, "visual_projection.weight", why="CLIP's own projection; a multimodal model reads hidden states"),
)

TEXT_HALF = table(
    only(HF, "text_model.*",           why="the text half of a CLIPModel has no CS counterpart"),
    only(HF, "text_projection.weight", why="the text half of a CLIPModel has no CS counterpart"),
    only(HF, "logit_scale",            why="the text half of a CLIPModel has no CS counterpart"),
)
# fmt: on


def _square(name: str) -> tuple[Any, Any]:
    def to_cs(config: Config) -> Values:
        return {name: [config[name], config[name]]}

    def to_hf(config: Config) -> Values:
        if config[name] is None:
            raise ValueError(f"{name} is null: how large is it?")
        height, width = config[name]
        if height != width:
            raise ValueError(f"{name} is {height} x {width}: CLIP configs know squares only")
        return {name: height}

    return to_cs, to_hf


def _heads_to_cs(config: Config) -> Values:
    heads, hidden = config["num_attention_heads"], config["hidden_size"]
    if hidden % heads:
        raise ValueError(f"hidden_size {hidden} is not a multiple of num_attention_heads {heads}")
    return {"num_heads": heads}


def _layer_norm_eps(config: Config) -> Values:
    eps = config["layer_norm_eps"]
    if eps != 1e-5:
        raise ValueError(f"layer_norm_eps is {eps}: CS fixes the first norm's at 1e-5, so no other value can be said")
    return {"layer_norm_epsilon": eps}


def _layer_norm_epsilon(config: Config) -> Values:
    epsilon = config["layer_norm_epsilon"]
    if epsilon != 1e-5:
        raise ValueError(
            f"layer_norm_epsilon is {epsilon}, but CS fixes the first norm's at 1e-5: Hugging Face has one for all"
        )
    return {"layer_norm_eps": epsilon}


VISION_FIELDS: tuple[ConfigRow, ...] = (
    *same("hidden_size", "num_hidden_layers", "num_channels", "initializer_range"),
    group(["num_attention_heads"], ["num_heads"], _heads_to_cs, lambda cs: {"num_attention_heads": cs["num_heads"]}),
    renamed("intermediate_size", "filter_size"),
    renamed("attention_dropout", "attention_dropout_rate"),
    renamed("hidden_act", "nonlinearity", {"quick_gelu": "quick_gelu", "gelu": "gelu"}),
    group(["layer_norm_eps"], ["layer_norm_epsilon"], _layer_norm_eps, _layer_norm_epsilon),
    group(["image_size"], ["image_size"], *_square("image_size")),
    group(["patch_size"], ["patch_size"], *_square("patch_size")),
    const(CS, "use_post_embed_layer_norm", True),
    const(CS, "use_embed_proj_bias", False),
    const(CS, "position_embedding_type", "learned"),
    const(CS, "norm_first", True),
    const(CS, "prepend_cls_token", True),
    const(CS, "use_conv_patchified_embedding", True),
    const(CS, "use_encoder_pooler_layer", False),
    const(CS, "attention_type", "scaled_dot_product"),
    const(CS, "use_projection_bias_in_attention", True),
    const(CS, "use_ffn_bias_in_attention", True),
    const(CS, "use_ffn_bias", True),
    const(CS, "dropout_rate", 0.0, also=[ANYTHING]),
    const(HF, "model_type", "clip_vision_model", also=[None]),
    *UNTRUSTED,
    ignored(
        CS,
        *("attention_initializer", "cls_token_initializer", "default_initializer", "ffn_initializer"),
        *("pooler_initializer", "position_embedding_initializer", "projection_initializer"),
        *("embedding_dropout_rate", "stochastic_depth_drop_prob", "stochastic_depth_drop_prob_schedule"),
        *("stochastic_depth_mode", "attention_softmax_fp32", "compute_eval_metrics", "freeze", "pooler_nonlinearity"),
        why="a matter of training or of the machine, not of what the model computes",
    ),
)


def spell_hf(config: Config) -> dict[str, Any]:
    """The vision config; a `CLIPConfig` holds it under `vision_config`, and the projection's size beside it."""
    spelled = dict(config)
    inner = config.get("vision_config")
    if config.get("model_type") == "clip" or isinstance(inner, dict):
        if not isinstance(inner, dict | None):
            raise ValueError("vision_config is no mapping")
        spelled = dict(inner or {})
        spelled["model_type"] = "clip_vision_model"
        for name in ("projection_dim", "dtype", "torch_dtype"):
            if name in config:
                spelled[name] = config[name]
    return rename_dtype(spelled)


def is_clip(config: Config) -> bool:
    """Whether a Hugging Face config is CLIP's: of the tower alone or of the whole model."""
    return config.get("model_type") in ("clip_vision_model", "clip")


def is_classifier(config: Config) -> bool:
    """Whether a CS model section is a ViT classifier; releases before 2.4 write no name."""
    name = config.get("name")
    return name == "vision_transformer" or (
        name is None and "patch_size" in config and "image_model_list" not in config
    )


def preprocessor(config: Config) -> dict[str, Any]:
    """CLIP's own image preprocessing at the tower's size, for a tower whose preprocessor did not travel with it."""
    side = config["image_size"]
    return {
        "crop_size": {"height": side, "width": side},
        "do_center_crop": True,
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_processor_type": "CLIPImageProcessor",
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "resample": 3,
        "rescale_factor": 1 / 255,
        "size": {"shortest_edge": side},
    }


def documents(config: Config) -> dict[str, Any]:
    return {"preprocessor_config.json": preprocessor(config)}


def advice(config: Config, carried: Config) -> Sequence[str]:
    if carried.get("text_config"):
        return [
            "the source was a whole CLIPModel: its text half is not part of the vision tower and does not come along"
        ]
    return []


SPACE = Space(lambda _: {"": load("hf-clip")}, lambda config, _: spell_hf(config))

CONVERTERS = (
    Converter(
        model="clip-vit",
        a=Format(
            "hf",
            parts={"": is_clip},
            aliases=(("", "vision_model."),),
            dtype_fields=("torch_dtype",),
            usage=usage.tower,
            documents=documents,
        ),
        b=Format(
            "cs",
            {"": is_classifier},
            aliases=(("model.", ""),),
            changes=(named("vision_transformer"),),
            of_training=("freeze",),
        ),
        tables=(
            mount(VISION, part="vision", a="vision_model.", b="vit_model."),
            mount(CLASSIFIER, part="vision"),
            mount(TEXT_HALF, part="vision"),
        ),
        configs=ConfigTable(
            rows=(
                *VISION_FIELDS,
                renamed("projection_dim", "num_classes"),
                const(CS, "use_bias_in_output", False),
                const(CS, "name", "vision_transformer"),
                const(HF, "architectures", ["CLIPVisionModelWithProjection"], also=[ANYTHING]),
            ),
            a=SPACE,
            b=Space(lambda _: {"": load("cs-image-encoder", "cs-clip-vit")}),
        ),
        b_releases=SINCE_2_1,
        note="CLIP's vision tower as an image classifier; from a whole CLIPModel, its vision half",
        advice=advice,
    ),
)
