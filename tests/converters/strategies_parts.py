"""Random configs of decoders and towers, the parts that every family is made of, as they are found.

Each is drawn as facts first, and then written down twice: with every field stated, and in one of the ways that mean the
same: fields left out, renamed, moved, or said twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from mmconvert.schema import Schema
from tests.converters.properties import Config, Decoder, Tower
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
DTYPES = st.sampled_from([{}, {"torch_dtype": "bfloat16"}, {"dtype": "float16"}])
SOMETIMES = st.sampled_from([False, False, False, True])
# What says which model this is.
IDENTITY = ("architectures", "model_type")


@st.composite
def decoder(draw: Draw, mistral: bool, large: bool) -> tuple[Decoder, Config, Config]:
    """A decoder's facts, its config with every field stated, and the same with some of them otherwise spelled."""
    whole = large and draw(SOMETIMES)
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
    return facts, plain, found | draw(DTYPES)


@st.composite
def left_out(draw: Draw, config: Config, schema: Schema, kept: Sequence[str] = ()) -> Config:
    """The config without some of the fields whose values are their class's own."""
    own = [
        name
        for name, value in config.items()
        if name not in (*IDENTITY, *kept) and value is not None and value == schema.default(name)
    ]
    own += [name for name, value in config.items() if value is None and schema.default(name) is None]
    gone = draw(st.sets(st.sampled_from(sorted(set(own))))) if own else set()
    return {name: value for name, value in config.items() if name not in gone}


@st.composite
def tower(draw: Draw, schema: Schema, large: bool, least: int = 1) -> tuple[Tower, Config, Config]:
    """A tower of `least` layers or more: its facts, its config with every field stated, and one as it is found."""
    whole = large and draw(SOMETIMES)
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
    found = draw(left_out(stated, schema)) | draw(DTYPES)
    found |= draw(st.fixed_dictionaries({}, optional={"initializer_factor": st.just(1.0), "dropout": st.just(0.0)}))
    return facts, {"model_type": "clip_vision_model", **stated}, {"model_type": "clip_vision_model", **found}


@st.composite
def alone_or_in_clip(draw: Draw, tower: Config) -> Config:
    """A tower's config, or that of a whole CLIPModel with this tower, which has the projection's size beside it."""
    if not draw(st.booleans()):
        return tower
    found = dict(tower)
    outside = {name: found.pop(name) for name in ("projection_dim", "torch_dtype", "dtype") if name in found}
    del found["model_type"]
    return {"model_type": "clip", "vision_config": found, "text_config": {"hidden_size": 8}} | outside
