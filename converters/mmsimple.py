"""LLaVA against CS `multimodal_simple` (2.4 and later): a CLIP tower, a projector and a LLaMA or Mistral decoder.

Side a has two parts, `image_model` and `text_model`, with a config each: either as the LLaVA source repository wants
them (format `llava`), or as folders that transformers loads one by one (format `hf`). Both share every row.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from mmconvert.configs import (
    ABSENT,
    ANYTHING,
    ConfigRow,
    ConfigTable,
    Fallback,
    Rule,
    Space,
    Values,
    at,
    const,
    derived,
    group,
    renamed,
)
from mmconvert.converter import Converter, Format, Substitute
from mmconvert.releases import span
from mmconvert.schema import Schema, load
from mmconvert.spec import A, B, Config, Sizes, key, mount, only, table

from . import clip, decoder, rope
from .llama import is_llama
from .mistral import is_mistral

HF, CS = A, B
IMAGE, TEXT = "image_model", "text_model"
ENCODER = "image_model_list.image_models.0.image_encoder"
FREEZE_TOWER, FREEZE_TEXT = "^image_model.image_model_list", "^text_model"


def projector_depth(text: Config) -> int:
    """The number of linear layers that `mm_projector_type` stands for. Raises ValueError for other kinds."""
    kind = text["mm_projector_type"]
    match = re.fullmatch(r"mlp(\d{1,2})x_gelu", str(kind))
    if kind == "linear":
        return 1
    if match is None or not int(match[1]):
        raise ValueError(
            f"mm_projector_type {kind!r} has no CS counterpart; known: linear, mlp2x_gelu, mlp3x_gelu, ..."
        )
    return int(match[1])


def projector_sizes(config: Config) -> Sizes:
    """E vision hidden, H text hidden; j ranges over the layers after the first."""
    text = config[TEXT]
    depth = projector_depth(text)
    linear = text["mm_projector_type"] == "linear"
    return {
        "E": config[IMAGE]["hidden_size"],
        "H": text["hidden_size"],
        "j": range(1, depth),
        "linear": linear,
        "mlp": not linear,
    }


# fmt: off
PROJECTOR = table(
    key("mm_projector.{p}",      "ffn.0.linear_layer.{p}",   "H E", when="linear", bias=True, init="projector"),
    key("mm_projector.0.{p}",    "ffn.0.linear_layer.{p}",   "H E", when="mlp",    bias=True, init="projector"),
    key("mm_projector.{2j}.{p}", "ffn.{j}.linear_layer.{p}", "H H", bias=True, init="projector"),
    sizes=projector_sizes,
)

NO_CLASSIFIER = table(
    only(HF, "visual_projection.weight", why="CLIP's own projection; LLaVA reads the tower's hidden states"),
    sizes=clip.sizes,
)
# fmt: on

TABLES = (
    mount(
        clip.VISION, part="vision", a=f"{IMAGE}/vision_model.", b="image_model.image_model_list.0.0.", a_config=IMAGE
    ),
    mount(clip.TEXT_HALF, part="vision", a=f"{IMAGE}/", a_config=IMAGE),
    mount(NO_CLASSIFIER, part="vision", a=f"{IMAGE}/", a_config=IMAGE),
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
    depth = projector_depth(text)
    return {
        "image_model_list.global_image_projection": {
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
        raise ValueError("image_model_list.global_image_projection is absent: LLaVA has no model without a projector")
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
    try:
        frozen = any(re.search(pattern, weight) for pattern in config["freeze"] or ())
    except re.error as error:
        raise ValueError(f"freeze holds a pattern that is no regular expression: {error}") from error
    return {f"{TEXT}.tune_mm_mlp_adapter": frozen}


def _is_windowed(config: Config) -> bool:
    return config[TEXT].get("attention_sliding_window_length") is not None


def _window_to_cs(config: Config) -> Values:
    return {"attention_sliding_window_length": config.get("sliding_window", ABSENT) or ABSENT}


def _window_to_hf(config: Config) -> Values:
    return {"sliding_window": config["attention_sliding_window_length"] or ABSENT}


# The text part is a Mistral where it has a window, and a LLaMA, which has no field for one, where it has not.
WINDOW = group(["sliding_window"], ["attention_sliding_window_length"], _window_to_cs, _window_to_hf)


def _text_names(llama: tuple[str, str], mistral: tuple[str, str]) -> tuple[Rule, Rule]:
    """`model_type` and `architectures` of the text part; only a sliding window tells a Mistral from a LLaMA in CS."""
    return (
        derived(HF, f"{TEXT}.model_type", lambda cs: (mistral if _is_windowed(cs) else llama)[0], also=[ANYTHING]),
        derived(HF, f"{TEXT}.architectures", lambda cs: [(mistral if _is_windowed(cs) else llama)[1]], also=[ANYTHING]),
    )


FIELDS: tuple[ConfigRow, ...] = (
    *at(clip.VISION_FIELDS, IMAGE, ENCODER),
    *at((*decoder.FIELDS, WINDOW), TEXT, TEXT),
    group([f"{TEXT}.mm_vision_select_layer"], [f"{ENCODER}.image_layer_idx"], _layer_to_cs, _layer_to_hf),
    group(
        [f"{TEXT}.mm_projector_type", f"{TEXT}.mm_hidden_size"],
        ["image_model_list.global_image_projection"],
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
    const(HF, f"{IMAGE}.architectures", ["CLIPVisionModel"], also=[ANYTHING]),
    const(HF, f"{TEXT}.mm_use_im_start_end", False),
    const(HF, f"{TEXT}.mm_use_im_patch_token", False),
    # A tower trained into the text checkpoint is read from there; exports always put it into the image folder.
    const(HF, f"{TEXT}.unfreeze_mm_vision_tower", False, also=[True]),
    derived(HF, f"{TEXT}.mm_vision_tower", lambda _: ABSENT, also=[ANYTHING]),
    *(
        Fallback(f"{TEXT}.{name}", value)
        for name, value in (("bos_token_id", 1), ("eos_token_id", 2), ("pad_token_id", 0))
    ),
    *(
        Fallback(f"{TEXT}.{name}", value)
        for name, value in (
            ("image_aspect_ratio", "pad"),
            ("freeze_mm_mlp_adapter", False),
            ("freeze_mm_vision_resampler", False),
            ("tune_mm_vision_resampler", False),
            ("use_cache", True),
            ("use_mm_proj", True),
        )
    ),
)


def is_llava_text(config: Config) -> bool:
    """A LLaVA text config: by its type, or a LLaMA or Mistral that names its tower."""
    kind = config.get("model_type")
    return kind in ("llava", "llava_llama", "llava_mistral") and "text_config" not in config


def is_plain_text(config: Config) -> bool:
    return is_llama(config) or is_mistral(config)


def is_mmsimple(config: Config) -> bool:
    models = config.get("image_model_list")
    return isinstance(models, Mapping) and "text_model" in config


def _is_mistral_text(text: Config) -> bool:
    return text.get("model_type") in ("mistral", "llava_mistral")


def _hf_schemas(config: Config) -> Mapping[str, Schema]:
    decoder_defaults = "hf-mistral" if _is_mistral_text(config[TEXT]) else "hf-llama"
    return {IMAGE: load("hf-clip"), TEXT: load("llava", decoder_defaults)}


_PROJECTOR_KEY = re.compile(rf"{TEXT}/model\.mm_projector\.(?:(\d+)\.)?weight")


def _spell_hf(config: Config, names: frozenset[str]) -> dict[str, Any]:
    """Both configs in canonical form.

    A plain LLaMA or Mistral says nothing of the tower; it is given what every LLaVA 1.5 has, with as many projector
    layers as there are tensors for.
    """
    text = decoder.spell_hf(config[TEXT], mistral=_is_mistral_text(config[TEXT]))
    image = clip.spell_hf(config[IMAGE])
    text.setdefault("mm_hidden_size", image.get("hidden_size", 768))
    # A loader takes the absence of this for true and adds a random row; the checkpoint itself has none.
    text.setdefault("mm_use_im_patch_token", False)
    if is_plain_text(config[TEXT]) and "mm_projector_type" not in text:
        layers = [match[1] for match in map(_PROJECTOR_KEY.fullmatch, names) if match]
        depth = len(layers) or 2
        text["mm_projector_type"] = "linear" if layers == [None] else f"mlp{depth}x_gelu"
        text.setdefault("mm_vision_select_layer", -2)
        text.setdefault("mm_vision_select_feature", "patch")
    return {IMAGE: image, TEXT: text}


def _spell_cs(config: Config, names: frozenset[str]) -> dict[str, Any]:
    spelled = dict(config)
    if isinstance(config.get(TEXT), Mapping):
        spelled[TEXT] = decoder.spell_cs(config[TEXT])
    return spelled


def advice(config: Config, carried: Config) -> Sequence[str]:
    return [*clip.advice(config[IMAGE], carried.get(IMAGE) or {}), *rope.advice(config[TEXT], {})]


def _documents(config: Config) -> Mapping[str, Any]:
    return {f"{IMAGE}/preprocessor_config.json": clip.preprocessor(config[IMAGE])}


def _llava_folders(config: Config) -> Mapping[str, str]:
    mistral = config[TEXT]["model_type"] == "llava_mistral"
    return {IMAGE: "image_model", TEXT: "text_model_llava_mistral" if mistral else "text_model_llava"}


def _llava_needs(config: Config) -> Mapping[str, str]:
    if config[TEXT]["model_type"] == "llava_mistral":
        return {f"{TEXT}/tokenizer_config.json": "LLaVA loads a Mistral's tokenizer by it; pass --tokenizer DIR"}
    return {
        f"{TEXT}/tokenizer.model": "LLaVA 1.2 loads no other tokenizer for a LLaMA; pass --tokenizer DIR "
        "(a LLaMA 3 has none: use it through llava-hf or LLaVA-NeXT)"
    }


ALIASES = (("image_model/", "image_model/vision_model."),)
# Beside a LLaVA config, the seed layout keeps the language model's own under this name. It may differ in what the
# LLaVA config is there to change.
COMPANIONS = {
    TEXT: ("config_lmsys.json", frozenset({"max_position_embeddings", "initializer_range", "tie_word_embeddings"}))
}
DTYPES = (f"{IMAGE}.torch_dtype", f"{TEXT}.torch_dtype")
TOWER_IN_TEXT = Substitute(
    prefix=f"{TEXT}/model.vision_tower.vision_tower.",
    instead_of=f"{IMAGE}/",
    flag=f"{TEXT}.unfreeze_mm_vision_tower",
    option="--tower",
    choices=("text", "image"),
)
CEREBRAS = Format("cs", parts={"": is_mmsimple}, aliases=(("model.", ""),))


def _converter(a: Format, names: tuple[Rule, Rule], note: str) -> Converter:
    return Converter(
        model="mmsimple-llava",
        a=a,
        b=CEREBRAS,
        tables=TABLES,
        configs=ConfigTable(
            rows=(*FIELDS, *names),
            a=Space(_hf_schemas, _spell_hf),
            b=Space(lambda _: {"": load("cs-mmsimple-2.4")}, _spell_cs),
        ),
        b_releases=span("2.4", "2.10"),
        note=note,
        advice=advice,
        substitutes=(TOWER_IN_TEXT,),
    )


CONVERTERS = (
    _converter(
        Format(
            "hf",
            parts={IMAGE: clip.is_clip, TEXT: is_plain_text},
            folders=lambda _: {IMAGE: "image_model", TEXT: "text_model"},
            aliases=ALIASES,
            dtype_fields=DTYPES,
            companions=COMPANIONS,
            documents=_documents,
            tokenizer=(TEXT, f"{TEXT}.vocab_size"),
        ),
        _text_names(("llama", "LlamaForCausalLM"), ("mistral", "MistralForCausalLM")),
        "a CLIP tower and a LLaMA, Vicuna or Mistral as two folders, with or without a projector",
    ),
    _converter(
        Format(
            "llava",
            parts={IMAGE: clip.is_clip, TEXT: is_llava_text},
            folders=_llava_folders,
            aliases=ALIASES,
            links={f"{TEXT}.mm_vision_tower": IMAGE},
            needs=_llava_needs,
            dtype_fields=DTYPES,
            companions=COMPANIONS,
            documents=_documents,
            tokenizer=(TEXT, f"{TEXT}.vocab_size"),
        ),
        _text_names(("llava_llama", "LlavaLlamaForCausalLM"), ("llava_mistral", "LlavaMistralForCausalLM")),
        "LLaVA 1.5 as the LLaVA source repository saves and loads it",
    ),
)
