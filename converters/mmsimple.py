"""LLaVA against CS `multimodal_simple` (2.4 and later): a CLIP tower, a projector and a LLaMA or Mistral decoder.

Side a is `llava_source`'s, in both of its formats; every row serves both.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from mmconvert.configs import ConfigTable, Space
from mmconvert.converter import Converter, Format
from mmconvert.paths import get, put
from mmconvert.releases import span
from mmconvert.rules import ANYTHING, ConfigRow, Rule, Values, at, const, group, renamed
from mmconvert.schema import load
from mmconvert.spec import B, Config, key, mount, table

from . import clip, decoder
from . import llava_source as source
from .llava_source import IMAGE, TEXT

CS = B
PROJECTION = "image_model_list.global_image_projection"
ENCODER = "image_model_list.image_models.0.image_encoder"
FREEZE_TOWER, FREEZE_TEXT = "^image_model.image_model_list", "^text_model"


# fmt: off
PROJECTOR = table(
    key("mm_projector.{p}",      "ffn.0.linear_layer.{p}",   "H E", when="linear", bias=True, init="projector"),
    key("mm_projector.0.{p}",    "ffn.0.linear_layer.{p}",   "H E", when="mlp",    bias=True, init="projector"),
    key("mm_projector.{2j}.{p}", "ffn.{j}.linear_layer.{p}", "H H", bias=True, init="projector"),
    sizes=source.projector_sizes,
)

# fmt: on

TABLES = (
    mount(
        clip.VISION, part="vision", a=f"{IMAGE}/vision_model.", b="image_model.image_model_list.0.0.", a_config=IMAGE
    ),
    *source.LEFT_BEHIND,
    mount(PROJECTOR, part="projector", a=f"{TEXT}/model.", b="image_model.projection."),
    mount(decoder.DECODER, part="text", a=f"{TEXT}/model.", b="text_model.", a_config=TEXT),
    mount(decoder.HEAD, part="text", a=f"{TEXT}/", b="text_model.", a_config=TEXT),
)


def _layer_to_cs(config: Config) -> Values:
    layer, layers = config[TEXT]["mm_vision_select_layer"], config[IMAGE]["num_hidden_layers"]
    if not isinstance(layer, int) or layer == 0 or not -layers <= layer <= layers:
        raise ValueError(
            f"text_model.mm_vision_select_layer is {layer}: valid are {-layers} to -1 and 1 to {layers} "
            f"(0 and {-layers - 1} are the embeddings, which CS cannot select)"
        )
    return {f"{ENCODER}.image_layer_idx": layer - 1 if layer > 0 else layer}


def _layer_to_hf(config: Config) -> Values:
    encoder = config["image_model_list"]["image_models"][0]["image_encoder"]
    index, layers = encoder["image_layer_idx"], encoder["num_hidden_layers"]
    if index is None:
        raise ValueError(
            f"{ENCODER}.image_layer_idx is absent: CS then applies the tower's final norm, which LLaVA cannot say"
        )
    if not -layers <= index < layers:
        raise ValueError(f"{ENCODER}.image_layer_idx is {index}: valid are {-layers} to {layers - 1}")
    return {f"{TEXT}.mm_vision_select_layer": index + 1 if index >= 0 else index}


def _projector_to_cs(config: Config) -> Values:
    image, text = config[IMAGE], config[TEXT]
    width, hidden = text["mm_hidden_size"], image["hidden_size"]
    if width != hidden:
        raise ValueError(f"text_model.mm_hidden_size is {width}, but image_model.hidden_size is {hidden}")
    depth = source.projector_depth(text)
    return {
        PROJECTION: {
            "name": "FeedForwardNetwork",
            "input_unit": image["hidden_size"],
            "layers_units": [text["hidden_size"]] * depth,
            "layers_activation": ["gelu"] * (depth - 1) + [None],
            "use_bias": True,
        }
    }


def _projector_to_hf(config: Config) -> Values:
    images = config["image_model_list"]
    projection = images["global_image_projection"]
    if not projection:
        raise ValueError(f"{PROJECTION} is absent: LLaVA has no model without a projector")
    depth = len(projection["layers_units"])
    return {
        f"{TEXT}.mm_projector_type": "linear" if depth == 1 else f"mlp{depth}x_gelu",
        f"{TEXT}.mm_hidden_size": images["image_models"][0]["image_encoder"]["hidden_size"],
    }


def _freeze_to_cs(config: Config) -> Values:
    tune_projector_only = config[TEXT]["tune_mm_mlp_adapter"]
    return {"freeze": [FREEZE_TOWER, FREEZE_TEXT] if tune_projector_only else [FREEZE_TOWER]}


def _freeze_to_hf(config: Config) -> Values:
    # Patterns are searched for in parameter names; one decoder weight stands for the decoder.
    weight = "text_model.transformer_decoder.layers.0.norm1.weight"
    for pattern in config["freeze"] or ():
        # A repeated group, or repeat upon repeat, can keep a search busy for years.
        if re.search(r"\)[*+{]", pattern) or sum(map(pattern.count, "*+{")) > 4:
            raise ValueError(f"freeze holds the pattern {pattern!r}, which may run away; repeat less, and no groups")
    try:
        frozen = any(re.search(pattern, weight) for pattern in config["freeze"] or ())
    except re.error as error:
        raise ValueError(f"freeze holds a pattern that is no regular expression: {error}") from error
    return {f"{TEXT}.tune_mm_mlp_adapter": frozen}


FIELDS: tuple[ConfigRow, ...] = (
    *at(clip.VISION_FIELDS, IMAGE, ENCODER),
    *at((*decoder.FIELDS, decoder.WINDOW_IF_ANY), TEXT, TEXT),
    group([f"{TEXT}.mm_vision_select_layer"], [f"{ENCODER}.image_layer_idx"], _layer_to_cs, _layer_to_hf),
    group(
        [f"{TEXT}.mm_projector_type", f"{TEXT}.mm_hidden_size"],
        [PROJECTION],
        _projector_to_cs,
        _projector_to_hf,
    ),
    renamed(
        f"{TEXT}.mm_vision_select_feature",
        "image_model_list.image_feature_select_mode",
        {"patch": "patch", "cls_patch": "cls_patch"},
    ),
    Rule((f"{TEXT}.tune_mm_mlp_adapter",), ("freeze",), _freeze_to_cs, _freeze_to_hf, also=(ANYTHING,)),
    const(CS, "name", "multimodal_simple"),
    const(CS, "loss_scaling", "num_tokens", also=[ANYTHING]),
    const(CS, "loss_weight", 1.0, also=[ANYTHING]),
    const(CS, f"{ENCODER}.name", "ViTModel", also=["vit"]),
    const(CS, f"{TEXT}.name", "LlamaModel", also=["llama"]),
)


def is_mmsimple(config: Config) -> bool:
    models = config.get("image_model_list")
    return isinstance(models, Mapping) and "text_model" in config


# How a projector starts and trains; a converted one is there already.
PROJECTOR_TRAINING = {
    "kernel_initializer",
    "bias_initializer",
    "output_layer_initializer",
    "layers_dropout_rates",
    "device",
}


def _spell_cs(config: Config, names: frozenset[str]) -> dict[str, Any]:
    spelled = dict(config)
    if isinstance(config.get(TEXT), Mapping):
        spelled[TEXT] = decoder.spell_cs(config[TEXT])
    projection = get(config, PROJECTION)
    if isinstance(projection, Mapping):
        rest = {name: value for name, value in projection.items() if name not in PROJECTOR_TRAINING}
        spelled = put(
            spelled, PROJECTION, {**rest, "name": "FeedForwardNetwork"} if rest.get("name") == "MLP" else rest
        )
    return spelled


CEREBRAS = Format("cs", parts={"": is_mmsimple}, aliases=(("model.", ""),))


def _converter(a: Format, names: source.Names, note: str) -> Converter:
    return Converter(
        model="mmsimple-llava",
        a=a,
        b=CEREBRAS,
        tables=TABLES,
        configs=ConfigTable(
            rows=(*FIELDS, *source.FIELDS, *names.rules()),
            a=source.SPACE,
            b=Space(lambda _: {"": load("cs-mmsimple-2.4")}, _spell_cs),
        ),
        b_releases=span("2.4", "2.10"),
        note=note,
        advice=source.advice,
        substitutes=(source.TOWER_IN_TEXT,),
    )


CONVERTERS = (
    _converter(
        source.COMPONENTS,
        source.COMPONENT_NAMES,
        "a CLIP tower and a LLaMA, Vicuna or Mistral as two folders, with or without a projector",
    ),
    _converter(source.LLAVA, source.LLAVA_NAMES, "LLaVA 1.5 as the LLaVA source repository saves and loads it"),
)
