"""Random configs of LLaVA: in two folders, as its source repository and transformers' parts are, and in llava-hf's one.

A tower and a decoder are drawn, then what joins them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from mmconvert.converter import Converter
from tests.converters.properties import IMAGE, JOINED, TEXT, TEXT_CONFIG, VISION_CONFIG, Config, Sample, Tower
from tests.converters.strategies_parts import (
    DTYPES,
    SOMETIMES,
    STRANGERS,
    Draw,
    alone_or_in_clip,
    decoder,
    left_out,
    tower,
)

# --- two folders ------------------------------------------------------------------------------------------------------


@st.composite
def in_two_folders(draw: Draw, converter: Converter, large: bool) -> Sample:
    llava, mistral = converter.a.name == "llava", draw(st.booleans())
    kind = ("llava_" if llava else "") + ("mistral" if mistral else "llama")
    says_depth = llava or draw(st.booleans())
    text, plain_text, found = draw(decoder(mistral, large))
    schemas = converter.configs.a.schemas({TEXT: {"model_type": kind}})
    vision, plain_image, image = draw(tower(schemas[IMAGE], large, least=1 if says_depth else 2))
    depth = draw(st.integers(1, 4))
    joined = {
        "mm_hidden_size": vision.hidden,
        "mm_projector_type": "linear" if depth == 1 else f"mlp{depth}x_gelu",
        "mm_use_im_patch_token": False,
        "mm_use_im_start_end": False,
        "mm_vision_select_feature": draw(st.sampled_from(["patch", "cls_patch"])) if says_depth else "patch",
        # A plain config says nothing of the tower, and means what every LLaVA 1.5 has.
        "mm_vision_select_layer": draw(_layers(vision)) if says_depth else -2,
        "tune_mm_mlp_adapter": draw(st.booleans()) if says_depth else False,
    }
    if says_depth:
        unsaid = draw(st.sets(st.sampled_from(["mm_hidden_size", "mm_use_im_patch_token"])))
        found |= {name: value for name, value in joined.items() if name not in unsaid}
        found |= draw(st.fixed_dictionaries({}, optional=_LLAVA_STRANGERS))
    kept = () if llava else ("mm_projector_type",)
    name = {"model_type": kind}
    found = name | draw(st.fixed_dictionaries({}, optional=STRANGERS)) | draw(left_out(found, schemas[TEXT], kept))
    return Sample(
        converter.model,
        {IMAGE: draw(alone_or_in_clip(image)), TEXT: found},
        {IMAGE: plain_image, TEXT: {**name, **plain_text, **joined}},
        form=converter.a.name,
        text=text,
        tower=vision,
        depth=depth,
        says_depth=says_depth,
    )


def _layers(vision: Tower) -> st.SearchStrategy[int]:
    """Hidden states of the tower that may be read: all but the embeddings, counted from either end."""
    return st.sampled_from([layer for layer in range(-vision.layers, vision.layers + 1) if layer])


_LLAVA_STRANGERS: dict[str, st.SearchStrategy[Any]] = {
    "freeze_mm_mlp_adapter": st.booleans(),
    "image_aspect_ratio": st.sampled_from([None, "pad", "square"]),
    "mm_patch_merge_type": st.sampled_from(["flat", ""]),
    "mm_vision_tower": st.sampled_from(["../image_model", "openai/clip-vit-large-patch14-336", None]),
    "s2": st.just(False),
    "unfreeze_mm_vision_tower": st.just(False),
}


# --- llava-hf ---------------------------------------------------------------------------------------------------------

# CLIP-L/14 at 336 pixels, which a config that describes no tower means.
_LARGE = Tower(layers=24, hidden=1024, inner=4096, channels=3, patch=14, positions=577, classes=768)
_LARGE_CONFIG: Config = {
    "model_type": "clip_vision_model",
    "attention_dropout": 0.0,
    "hidden_act": "quick_gelu",
    "hidden_size": 1024,
    "image_size": 336,
    "initializer_range": 0.02,
    "intermediate_size": 4096,
    "layer_norm_eps": 1e-5,
    "num_attention_heads": 16,
    "num_channels": 3,
    "num_hidden_layers": 24,
    "patch_size": 14,
    "projection_dim": 768,
}
# The fields of its top that it has for nobody, or that follow from others; some releases wrote other values.
_JOINED_STRANGERS: dict[str, st.SearchStrategy[Any]] = {
    "architectures": st.just(["LlavaForConditionalGeneration"]),
    "ignore_index": st.just(-100),
    "image_seq_length": st.sampled_from([None, 575, 576]),
    "pad_token_id": st.sampled_from([None, 0, 32001]),
    "quantization_config": st.none(),
    "transformers_version": st.sampled_from(["4.36.0.dev0", "4.57.6", "5.23.0"]),
    "vocab_size": st.sampled_from([32000, 32064]),
    "_name_or_path": st.just("/home/someone/model"),
}


@st.composite
def in_one_folder(draw: Draw, converter: Converter, large: bool) -> Sample:
    """Its vocabulary has a row for `<image>`, and any number behind it."""
    kind = draw(st.sampled_from(["llama", "mistral"]))
    text, plain_text, found_text = draw(decoder(kind == "mistral", large))
    more = draw(st.one_of(st.sampled_from([1, 2, 64]), st.integers(1, 130)))
    if text.vocab > 32000 - more and draw(st.booleans()):
        # So many rows that the decoder's class has as many.
        text = replace(text, vocab=32000 - more)
    rows = {"vocab_size": text.vocab + more}
    schemas = converter.configs.a.schemas({TEXT_CONFIG: {"model_type": kind}})
    vision, plain_image, image = draw(tower(schemas[VISION_CONFIG], large))
    no_tower = large and draw(SOMETIMES)
    if no_tower:
        vision, plain_image = _LARGE, _LARGE_CONFIG
    stated: Config = {
        "image_token_index": text.vocab,
        "multimodal_projector_bias": draw(st.booleans()),
        "projector_hidden_act": "gelu",
        "vision_feature_layer": draw(_layers(vision)),
        "vision_feature_select_strategy": draw(st.sampled_from(["default", "full"])),
    }
    found = draw(left_out(stated, schemas[""]))
    if "image_token_index" in found and draw(st.booleans()):
        found["image_token_id"] = found.pop("image_token_index")
    # Only the decoder's own is always right.
    found |= draw(st.fixed_dictionaries({}, optional={"tie_word_embeddings": st.sampled_from([text.tied, None])}))
    found |= draw(DTYPES) | draw(st.fixed_dictionaries({}, optional=_JOINED_STRANGERS))
    # What is left out of either part's config means its class's own; so does a type.
    found_text = draw(left_out(found_text | rows, schemas[TEXT_CONFIG]))
    found_text |= draw(st.fixed_dictionaries({}, optional=STRANGERS))
    named: Config = {"architectures": ["LlamaForCausalLM"]} if draw(st.booleans()) else {}
    named |= {"model_type": kind} if kind == "mistral" or draw(st.booleans()) else {}
    if draw(st.booleans()):
        del image["model_type"]
    if not no_tower:
        found[VISION_CONFIG] = image
    elif draw(st.booleans()):
        found[VISION_CONFIG] = None
    return Sample(
        converter.model,
        {"model_type": "llava", TEXT_CONFIG: named | found_text, **found},
        {
            "model_type": "llava",
            TEXT_CONFIG: {"model_type": kind, **plain_text, **rows},
            VISION_CONFIG: plain_image,
            **stated,
        },
        form=JOINED,
        text=text,
        tower=vision,
        depth=2,
        projector_bias=stated["multimodal_projector_bias"],
        rows=rows["vocab_size"],
    )
