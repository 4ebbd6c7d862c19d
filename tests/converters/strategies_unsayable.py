"""Values that one side's config may hold and the other side has no words for, or that are no values at all.

Each list gives the path of a field with a strategy for what must not stand there in a config of this sample.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

from mmconvert.converter import Converter
from mmconvert.spec import A, Side
from tests.converters.properties import (
    IMAGE,
    JOINED,
    MULTIMODAL,
    TEXT,
    TEXT_CONFIG,
    VISION_CONFIG,
    Decoder,
    Sample,
    Tower,
)

Field = tuple[str, st.SearchStrategy[Any]]

WORDS = st.text("abcdefghijklmnopqrstuvwxyz_", min_size=1)
NO_COUNT: st.SearchStrategy[Any] = st.sampled_from([0, -1, 2.0, True, "2", None, [2], {}])
NO_NUMBER = st.sampled_from([-1.0, float("nan"), True, "0.1", None, [0.1]])
NO_BOOLEAN = st.sampled_from([0, 1, "true", None])
NO_RATE = st.one_of(NO_NUMBER, st.just(1.5))


def other_than(*known: Any) -> st.SearchStrategy[str]:
    """Any word but those that are known."""
    return WORDS.filter(lambda word: word not in known)


def unsayable(converter: Converter, side: Side, sample: Sample) -> list[Field]:
    """The fields of one side's config with what must be refused there."""
    if sample.model not in MULTIMODAL:
        return [*_parts(converter, side, sample)]
    if side == A and sample.form == JOINED:
        text, image = f"{TEXT_CONFIG}.", f"{VISION_CONFIG}."
        parts = {"": _joined_a(sample), text: _decoder_a(sample.text), image: _tower_a(sample.tower)}
    elif side == A:
        parts = {"": _llava_a(sample), f"{TEXT}.": _decoder_a(sample.text), f"{IMAGE}.": _tower_a(sample.tower)}
    else:
        listed = sample.model == "mmsimple-llava"
        encoder = "image_model_list.image_models.0.image_encoder" if listed else IMAGE
        parts = {"": _llava_b(sample), f"{TEXT}.": _decoder_b(sample.text), f"{encoder}.": _tower_b()}
    return [(prefix + path, values) for prefix, fields in parts.items() for path, values in fields]


def _parts(converter: Converter, side: Side, sample: Sample) -> Iterator[Field]:
    if sample.tower is not None:
        yield from _tower_a(sample.tower) if side == A else _tower_b()
    else:
        yield from _decoder_a(sample.text) if side == A else _decoder_b(sample.text)
        if sample.model == "mistral" and side == A:
            yield "sliding_window", st.sampled_from([0, -1, 2.5, "4096", True])
        elif side != A and sample.model != "mistral":
            yield "attention_sliding_window_length", st.integers(1, 4096)
    if side != A:
        yield "name", other_than(converter.model)


def _decoder_a(facts: Decoder | None) -> Iterator[Field]:
    assert facts is not None
    heads, head_dim = facts.heads, facts.head_dim
    yield "head_dim", st.integers(1, 512).filter(lambda size: size != head_dim)
    yield "num_key_value_heads", st.integers(1, 64).filter(lambda count: heads % count != 0)
    yield "partial_rotary_factor", st.floats(0.0, 1.0, exclude_min=True, exclude_max=True)
    yield "hidden_act", other_than("silu", "relu", "gelu")
    yield "quantization_config", st.sampled_from([{"quant_method": "gptq"}, {}])
    unknown = other_than("default", "linear", "llama3", "yarn", "longrope", "su")
    yield "rope_scaling", unknown.map(lambda word: {"type": word, "factor": 2.0})
    yield "rope_scaling", unknown.map(lambda word: {"rope_type": word, "factor": 2.0})
    yield "rope_scaling", st.sampled_from(["linear", "llama3", "yarn", "longrope"]).map(lambda kind: {"type": kind})
    yield "rope_scaling", other_than("factor", "type").map(lambda word: {"type": "linear", "factor": 2.0, word: 1.0})
    yield "rope_scaling", st.sampled_from([{"factor": 2.0}, [2.0], "linear", {"type": "linear", "factor": "2"}])
    for name in ("hidden_size", "intermediate_size", "num_attention_heads", "num_hidden_layers", "vocab_size"):
        yield name, NO_COUNT
    yield "max_position_embeddings", NO_COUNT
    yield "num_key_value_heads", st.sampled_from([0, -1, 2.0, True, "2"])
    for name in ("rms_norm_eps", "initializer_range", "rope_theta"):
        yield name, NO_NUMBER
    yield "tie_word_embeddings", NO_BOOLEAN


def _tower_a(facts: Tower | None) -> Iterator[Field]:
    assert facts is not None
    hidden = facts.hidden
    yield "layer_norm_eps", st.floats(0.0, 1.0).filter(lambda eps: eps != 1e-5)
    yield "hidden_act", other_than("quick_gelu", "gelu")
    yield "num_attention_heads", st.integers(1, 64).filter(lambda count: hidden % count != 0)
    yield "image_size", st.tuples(st.integers(1, 64), st.integers(65, 128)).map(list)
    yield "quantization_config", st.just({"quant_method": "bitsandbytes"})
    for name in ("hidden_size", "intermediate_size", "num_attention_heads", "num_channels", "num_hidden_layers"):
        yield name, NO_COUNT
    for name in ("image_size", "patch_size"):
        yield name, NO_COUNT.filter(lambda value: not isinstance(value, list))
    for name in ("attention_dropout", "initializer_range"):
        yield name, NO_RATE if name == "attention_dropout" else NO_NUMBER


def _no_layer(layers: int) -> st.SearchStrategy[Any]:
    """What selects no hidden state of a tower of so many layers, or one that CS cannot select."""
    outside = st.integers(-300, 300).filter(lambda layer: layer == 0 or abs(layer) > layers)
    return st.one_of(outside, st.sampled_from([True, -2.0, "-2", None]))


def _joined_a(sample: Sample) -> Iterator[Field]:
    assert sample.text is not None
    assert sample.tower is not None
    assert sample.rows is not None
    yield "image_token_index", st.one_of(st.integers(sample.rows, 1 << 20), NO_COUNT)
    yield "multimodal_projector_bias", NO_BOOLEAN
    yield "projector_hidden_act", other_than("gelu")
    yield "quantization_config", st.sampled_from([{"quant_method": "gptq"}, {}])
    yield "tie_word_embeddings", st.just(not sample.text.tied)
    yield "vision_feature_layer", st.one_of(_no_layer(sample.tower.layers), st.just([-2, -1]))
    yield "vision_feature_select_strategy", other_than("default", "full")
    yield f"{TEXT_CONFIG}.model_type", other_than("llama", "mistral")
    yield f"{VISION_CONFIG}.model_type", other_than("clip_vision_model")
    for name in (TEXT_CONFIG, VISION_CONFIG):
        yield name, st.sampled_from([[], "llama", 3])


def _llava_a(sample: Sample) -> Iterator[Field]:
    assert sample.tower is not None
    layers, hidden = sample.tower.layers, sample.tower.hidden
    for name, values in (
        ("image_aspect_ratio", other_than("pad", "square")),
        ("mm_hidden_size", st.integers(1, 4096).filter(lambda width: width != hidden)),
        ("mm_patch_merge_type", other_than("flat")),
        (
            "mm_projector_type",
            st.one_of(other_than("linear"), st.sampled_from(["mlp1x_gelu", "mlp2x_relu", "mlpx_gelu"])),
        ),
        ("mm_use_im_patch_token", st.just(True)),
        ("mm_use_im_start_end", st.just(True)),
        ("mm_vision_select_feature", other_than("patch", "cls_patch")),
        ("mm_vision_select_layer", _no_layer(layers)),
        ("s2", st.just(True)),
    ):
        yield f"{TEXT}.{name}", values


def _decoder_b(facts: Decoder | None) -> Iterator[Field]:
    assert facts is not None
    head_dim = facts.head_dim
    yield "rotary_dim", st.integers(1, 512).filter(lambda size: size != head_dim)
    yield "nonlinearity", other_than("swiglu", "reglu", "geglu")
    yield "norm_type", other_than("rmsnorm")
    yield "position_embedding_type", st.sampled_from(["learned", "fixed", "relative", "alibi", None])
    yield "pos_scaling_type", other_than("linear", "yarn", "llama3", "longrope")
    yield "attention_type", st.just("dot_product")
    yield "attention_module", other_than("aiayn_attention", "multiquery_attention")
    yield "attention_logits_alpha", st.floats(2.0, 3.0)
    for name in ("use_projection_bias_in_attention", "use_ffn_bias_in_attention"):
        yield name, st.just(not facts.attention_bias)
    for name in ("embedding_layer_norm", "use_bias_in_output", "alibi_trainable_slopes", "use_sink_token"):
        yield name, st.just(True)
    yield "colour", WORDS
    for name in ("filter_size", "hidden_size", "num_heads", "num_hidden_layers", "vocab_size"):
        yield name, NO_COUNT
    for name in ("layer_norm_epsilon", "rope_theta", "pos_scaling_factor"):
        yield name, NO_NUMBER


def _tower_b() -> Iterator[Field]:
    yield "image_size", st.tuples(st.integers(1, 64), st.integers(65, 128)).map(list)
    yield "layer_norm_epsilon", st.floats(0.0, 1.0).filter(lambda eps: eps != 1e-5)
    yield "nonlinearity", other_than("quick_gelu", "gelu")
    yield "position_embedding_type", st.sampled_from(["fixed", "relative", "rotary", "alibi", None])
    yield "attention_module", st.just("multiquery_attention")
    yield "attention_type", st.just("dot_product")
    yield "layerscale_value", st.floats(0.1, 1.0)
    yield "use_embed_proj_bias", st.just(True)
    for name in ("use_post_embed_layer_norm", "norm_first", "prepend_cls_token", "use_final_layer_norm"):
        yield name, st.just(False)
    yield "colour", WORDS
    for name in ("num_heads", "num_hidden_layers"):
        yield name, NO_COUNT


def _llava_b(sample: Sample) -> Iterator[Field]:
    assert sample.tower is not None
    layers = sample.tower.layers
    listed = sample.model == "mmsimple-llava"
    above = "image_model_list." if listed else ""
    layer = "image_models.0.image_encoder.image_layer_idx" if listed else "image_feature_select_layer_idx"
    projection = above + ("global_image_projection" if listed else "projector.image_model")
    outside = st.integers(-300, 300).filter(lambda index: not -layers <= index < layers)
    yield above + layer, st.one_of(outside, st.none())
    yield above + "image_feature_select_mode", other_than("patch", "cls_patch")
    yield projection, st.none()
    if sample.form == JOINED:
        assert sample.text is not None
        hidden = sample.text.hidden
        yield f"{projection}.layers_units", st.sampled_from([1, 3, 4]).map(lambda depth: [hidden] * depth)
    else:
        yield f"{projection}.use_bias", st.just(False)
    yield f"{projection}.layers_activation", st.just(["relu"] * sample.depth)
    yield f"{projection}.static_dual_expert", st.just(True)
    if sample.form != "llava-hf":
        # That says nothing of what stands still, so that patterns are not looked at.
        yield "freeze", st.sampled_from([["("], ["(a+)+$"]])
    yield "colour", WORDS
