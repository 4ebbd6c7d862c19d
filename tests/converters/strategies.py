"""Random configs of every family, as they are found: fields left out, renamed, moved, or said twice.

Each is drawn as facts first (`Decoder`, `Tower`), which say what its checkpoint holds whatever the converters think,
and then written down twice: `plain`, with every field stated, and `config`, in one of the ways that mean the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from mmconvert.converter import Converter
from mmconvert.schema import Schema
from tests.converters.properties import IMAGE, TEXT, Config, Decoder, Sample, Tower
from tests.converters.strategies_rope import scalings, written

Draw = st.DrawFn

# Heads and their size; even sizes, as rotary embeddings need them.
HEADS = [(1, 2), (1, 96), (2, 12), (2, 20), (3, 20), (4, 2), (4, 12), (5, 4), (6, 2), (6, 6), (8, 2), (8, 6)]
FRACTIONS = st.one_of(st.sampled_from([0, 0.0, 1e-5, 1e-6, 0.02]), st.floats(0.0, 1.0, allow_subnormal=False))
# What a config may hold besides, which no converter reads.
STRANGERS: dict[str, st.SearchStrategy[Any]] = {
    "transformers_version": st.just("4.46.0"),
    "use_cache": st.booleans(),
    "pad_token_id": st.sampled_from([None, 0, 2]),
    "eos_token_id": st.sampled_from([2, [2, 5]]),
    "_name_or_path": st.just("/home/someone/model"),
    "quantization_config": st.none(),
}
_SOMETIMES = st.sampled_from([False, False, False, True])
# What says which model this is.
IDENTITY = ("architectures", "model_type")


def samples(converter: Converter, large: bool = False) -> st.SearchStrategy[Sample]:
    """Configs of a converter's side a; `large` ones may be of the class's own size, too large to be written.

    A new model needs an entry.
    """
    known = {
        "clip-encoder": _towers,
        "clip-vit": _towers,
        "llama": _decoders,
        "llama-headless": _decoders,
        "llava": _llavas,
        "mistral": _decoders,
        "mmsimple-llava": _llavas,
    }
    return known[converter.model](converter, large)


# --- decoders --------------------------------------------------------------------------------------------------------


@st.composite
def _decoders(draw: Draw, converter: Converter, large: bool) -> Sample:
    mistral = converter.model == "mistral"
    facts, plain, found = draw(_decoder(mistral, large))
    architecture = {"mistral": "MistralForCausalLM", "llama": "LlamaForCausalLM", "llama-headless": "LlamaModel"}
    name = {"model_type": "mistral" if mistral else "llama", "architectures": [architecture[converter.model]]}
    spelled = draw(_left_out(found, converter.configs.a.schemas({**name, **plain})[""]))
    # The oldest configs have no type; all but a LLaMA without its head are known without their architecture.
    spare = [(), ("model_type",)] if converter.model == "llama-headless" else [(), *((each,) for each in IDENTITY)]
    unsaid: Sequence[str] = draw(st.sampled_from(spare))
    said = {field: value for field, value in name.items() if field not in unsaid}
    strangers = draw(st.fixed_dictionaries({}, optional=STRANGERS))
    return Sample(converter.model, {**strangers, **said, **spelled}, {**name, **plain}, text=facts)


@st.composite
def _decoder(draw: Draw, mistral: bool, large: bool) -> tuple[Decoder, Config, Config]:
    """A decoder's facts, its config with every field stated, and the same with some of them otherwise spelled."""
    whole = large and draw(_SOMETIMES)
    heads, head_dim = (32, 128) if whole else draw(st.sampled_from(HEADS))
    own_bias = st.just(False) if mistral else st.booleans()
    facts = Decoder(
        layers=32 if whole else draw(st.integers(1, 4)),
        heads=heads,
        kv_heads=draw(st.sampled_from([count for count in range(1, heads + 1) if heads % count == 0])),
        head_dim=head_dim,
        inner=(14336 if mistral else 11008) if whole else draw(st.integers(1, 64)),
        vocab=32000 if whole else draw(st.integers(1, 200)),
        tied=draw(st.booleans()),
        attention_bias=draw(own_bias),
        mlp_bias=draw(own_bias),
    )
    theta = draw(st.one_of(st.sampled_from([10000.0, 10000, 500000.0]), st.floats(1.0, 1e8)))
    maximum = draw(st.one_of(st.sampled_from([2048, 131072]), st.integers(1, 1 << 20)))
    scaling = draw(scalings(maximum))
    stated = {
        "attention_bias": facts.attention_bias,
        "hidden_act": draw(st.sampled_from(["silu", "relu", "gelu"])),
        "hidden_size": facts.hidden,
        "initializer_range": draw(FRACTIONS),
        "intermediate_size": facts.inner,
        "max_position_embeddings": maximum,
        "mlp_bias": facts.mlp_bias,
        "num_attention_heads": heads,
        "num_hidden_layers": facts.layers,
        "rms_norm_eps": draw(FRACTIONS),
        "tie_word_embeddings": facts.tied,
        "vocab_size": facts.vocab,
    }
    if mistral:
        stated["sliding_window"] = draw(st.one_of(st.none(), st.just(4096), st.integers(1, 1 << 20)))
    plain = stated | {"head_dim": head_dim, "num_key_value_heads": facts.kv_heads}
    plain |= {"rope_theta": theta, "rope_scaling": scaling}
    found = stated | draw(written(scaling, theta, maximum, 10000.0))
    found["num_key_value_heads"] = None if facts.kv_heads == heads and draw(st.booleans()) else facts.kv_heads
    found |= draw(st.fixed_dictionaries({}, optional={"head_dim": st.sampled_from([head_dim, None])}))
    found |= draw(st.fixed_dictionaries({}, optional={"partial_rotary_factor": st.sampled_from([1.0, 1, None])}))
    if mistral:
        # Its classes read no biases, whatever a stray field says.
        found |= {"attention_bias": draw(st.booleans()), "mlp_bias": draw(st.booleans())}
    return facts, plain, found | draw(_dtypes)


_dtypes = st.sampled_from([{}, {"torch_dtype": "bfloat16"}, {"dtype": "float16"}])


@st.composite
def _left_out(draw: Draw, config: Config, schema: Schema, kept: Sequence[str] = ()) -> Config:
    """The config without some of the fields whose values are their class's own."""
    own = [
        name
        for name, value in config.items()
        if name not in (*IDENTITY, *kept) and value is not None and value == schema.default(name)
    ]
    own += [name for name, value in config.items() if value is None and schema.default(name) is None]
    gone = draw(st.sets(st.sampled_from(sorted(set(own))))) if own else set()
    return {name: value for name, value in config.items() if name not in gone}


# --- towers ----------------------------------------------------------------------------------------------------------


@st.composite
def _towers(draw: Draw, converter: Converter, large: bool) -> Sample:
    facts, plain, found = draw(_tower(converter.configs.a.schemas({})[""], large))
    return Sample(converter.model, found, plain, tower=facts)


@st.composite
def _tower(draw: Draw, schema: Schema, large: bool, least: int = 1) -> tuple[Tower, Config, Config]:
    """A tower of `least` layers or more: its facts, its config with every field stated, and one as it is found."""
    whole = large and draw(_SOMETIMES)
    heads = 12 if whole else draw(st.integers(1, 4))
    patch = 32 if whole else draw(st.sampled_from([1, 2, 3, 7, 14]))
    # A picture need not be a whole number of patches; what is left over belongs to none.
    grid = 7 if whole else draw(st.integers(0, 4))
    over = 0 if whole else draw(st.integers(0 if grid else 1, max(patch - 1, 0 if grid else 1)))
    facts = Tower(
        layers=12 if whole else draw(st.integers(least, 4)),
        hidden=768 if whole else heads * draw(st.integers(1, 8)),
        inner=3072 if whole else draw(st.integers(1, 48)),
        channels=3 if whole else draw(st.integers(1, 4)),
        patch=patch,
        positions=((patch * grid + over) // patch) ** 2 + 1,
        classes=512 if whole else draw(st.integers(1, 40)),
    )
    stated = {
        "attention_dropout": draw(FRACTIONS),
        "hidden_act": draw(st.sampled_from(["quick_gelu", "gelu"])),
        "hidden_size": facts.hidden,
        "image_size": patch * grid + over,
        "initializer_range": draw(FRACTIONS),
        "intermediate_size": facts.inner,
        "layer_norm_eps": 1e-5,
        "num_attention_heads": heads,
        "num_channels": facts.channels,
        "num_hidden_layers": facts.layers,
        "patch_size": patch,
        "projection_dim": facts.classes,
    }
    plain = {"model_type": "clip_vision_model", **stated}
    found = draw(_left_out(stated, schema)) | draw(_dtypes)
    found |= draw(st.fixed_dictionaries({}, optional={"initializer_factor": st.just(1.0), "dropout": st.just(0.0)}))
    if not draw(st.booleans()):
        return facts, plain, {"model_type": "clip_vision_model", **found}
    # A whole CLIPModel has its projection's size beside the tower's config.
    outside = {name: found.pop(name) for name in ("projection_dim", "torch_dtype", "dtype") if name in found}
    whole_model = {"model_type": "clip", "vision_config": found, "text_config": {"hidden_size": 8}}
    return facts, plain, whole_model | outside


# --- both, and what joins them ---------------------------------------------------------------------------------------


@st.composite
def _llavas(draw: Draw, converter: Converter, large: bool) -> Sample:
    llava, mistral = converter.a.name == "llava", draw(st.booleans())
    kind = ("llava_" if llava else "") + ("mistral" if mistral else "llama")
    says_depth = llava or draw(st.booleans())
    text, plain_text, found = draw(_decoder(mistral, large))
    schemas = converter.configs.a.schemas({TEXT: {"model_type": kind}})
    tower, plain_image, image = draw(_tower(schemas[IMAGE], large, least=1 if says_depth else 2))
    depth = draw(st.integers(1, 4))
    layers = [layer for layer in range(-tower.layers, tower.layers + 1) if layer]
    joined = {
        "mm_hidden_size": tower.hidden,
        "mm_projector_type": "linear" if depth == 1 else f"mlp{depth}x_gelu",
        "mm_use_im_patch_token": False,
        "mm_use_im_start_end": False,
        "mm_vision_select_feature": draw(st.sampled_from(["patch", "cls_patch"])) if says_depth else "patch",
        # A plain config says nothing of the tower, and means what every LLaVA 1.5 has.
        "mm_vision_select_layer": draw(st.sampled_from(layers)) if says_depth else -2,
        "tune_mm_mlp_adapter": draw(st.booleans()) if says_depth else False,
    }
    if says_depth:
        unsaid = draw(st.sets(st.sampled_from(["mm_hidden_size", "mm_use_im_patch_token"])))
        found |= {name: value for name, value in joined.items() if name not in unsaid}
        found |= draw(st.fixed_dictionaries({}, optional=_LLAVA_STRANGERS))
    kept = () if llava else ("mm_projector_type",)
    name = {"model_type": kind}
    found = name | draw(st.fixed_dictionaries({}, optional=STRANGERS)) | draw(_left_out(found, schemas[TEXT], kept))
    return Sample(
        converter.model,
        {IMAGE: image, TEXT: found},
        {IMAGE: plain_image, TEXT: {**name, **plain_text, **joined}},
        text=text,
        tower=tower,
        depth=depth,
        says_depth=says_depth,
    )


_LLAVA_STRANGERS: dict[str, st.SearchStrategy[Any]] = {
    "freeze_mm_mlp_adapter": st.booleans(),
    "image_aspect_ratio": st.sampled_from([None, "pad", "square"]),
    "mm_patch_merge_type": st.sampled_from(["flat", ""]),
    "mm_vision_tower": st.sampled_from(["../image_model", "openai/clip-vit-large-patch14-336", None]),
    "s2": st.just(False),
    "unfreeze_mm_vision_tower": st.just(False),
}
