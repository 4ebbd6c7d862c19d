"""The LLaMA decoder: Hugging Face `LlamaModel` and `MistralModel` against CS `LlamaModel`, tensors and config.

Sizes: V vocabulary, H hidden, F feed-forward, K = key/value heads x head size, i layers.
"""

from __future__ import annotations

from typing import Any

from mmconvert.paths import ABSENT
from mmconvert.rows import rotary
from mmconvert.rules import (
    ANYTHING,
    ConfigRow,
    Fallback,
    Values,
    const,
    derived,
    group,
    ignored,
    limited,
    renamed,
    same,
)
from mmconvert.schema import load
from mmconvert.spec import A, B, Config, Sizes, key, only, table, twin

from . import rope
from .hugging_face import UNTRUSTED, rename_dtype

HF, CS = A, B
# How the loss is weighed.
LOSS = ("loss_scaling", "loss_weight")


def sizes(config: Config) -> Sizes:
    """Sizes from a CS decoder's config."""
    heads = config["num_heads"]
    kv_heads = heads if config["attention_module"] == "aiayn_attention" else _kv_groups(config)
    return {
        "V": config["vocab_size"],
        "H": config["hidden_size"],
        "F": config["filter_size"],
        "K": kv_heads * (config["hidden_size"] // heads),
        "i": config["num_hidden_layers"],
        "heads": heads,
        "kv_heads": kv_heads,
        "rotary_dim": config["rotary_dim"],
        "qkv_bias": config["use_projection_bias_in_attention"],
        "output_bias": config["use_ffn_bias_in_attention"],
        "ffn_bias": config["use_ffn_bias"],
        "head_bias": config["use_bias_in_output"],
        "tied": config["share_embedding_weights"],
        "untied": not config["share_embedding_weights"],
    }


def _kv_groups(config: Config) -> int:
    groups = config["extra_attention_params"].get("num_kv_groups")
    if not is_count(groups):
        raise ValueError(f"extra_attention_params.num_kv_groups is {groups!r}: how many key/value heads are there?")
    return int(groups)


SOURCE = "Hugging Face LlamaForCausalLM against Cerebras LlamaModel; checked by forward passes of both"
LAYER = "layers.{i}."
BLOCK = "transformer_decoder.layers.{i}."
ATTN = BLOCK + "self_attn."
FFN = BLOCK + "ffn.ffn."
EMBEDDING = "embedding_layer.word_embeddings.weight"
Q_ROWS = rotary("heads", "rotary_dim")
K_ROWS = rotary("kv_heads", "rotary_dim")
QKV, OUT, MLP = "qkv_bias", "output_bias", "ffn_bias"

# fmt: off
DECODER = table(
    #   Hugging Face                               Cerebras                              shape  rows
    key("embed_tokens.weight",                     EMBEDDING,                            "V H"),
    key(LAYER + "input_layernorm.weight",          BLOCK + "norm1.weight",               "H"),
    key(LAYER + "self_attn.q_proj.{p}",            ATTN + "proj_q_dense_layer.{p}",      "H H", Q_ROWS, bias=QKV),
    key(LAYER + "self_attn.k_proj.{p}",            ATTN + "proj_k_dense_layer.{p}",      "K H", K_ROWS, bias=QKV),
    key(LAYER + "self_attn.v_proj.{p}",            ATTN + "proj_v_dense_layer.{p}",      "K H", bias=QKV),
    key(LAYER + "self_attn.o_proj.{p}",            ATTN + "proj_output_dense_layer.{p}", "H H", bias=OUT),
    key(LAYER + "post_attention_layernorm.weight", BLOCK + "norm3.weight",               "H"),
    key(LAYER + "mlp.up_proj.{p}",                 FFN + "0.linear_layer.{p}",           "F H", bias=MLP),
    key(LAYER + "mlp.gate_proj.{p}",               FFN + "0.linear_layer_for_glu.{p}",   "F H", bias=MLP),
    key(LAYER + "mlp.down_proj.{p}",               FFN + "1.linear_layer.{p}",           "H F", bias=MLP),
    key("norm.weight",                             "transformer_decoder.norm.weight",    "H"),
    twin(CS, "ln_f.weight", of="transformer_decoder.norm.weight", why="CS stores the final norm under two names"),
    only(HF, LAYER + "self_attn.rotary_emb.inv_freq", why="a buffer, recomputed from rope_theta"),
    sizes=sizes, source=SOURCE,
)

# fmt: on
TIED_HEAD = twin(
    CS,
    "lm_head.weight",
    of=EMBEDDING,
    when="tied",
    why="the config ties the output head to the embedding; CS loads both names",
)

# fmt: off
HEAD = table(
    key("lm_head.weight", "lm_head.weight", "V H", when="untied", init="lm_head"),
    key("lm_head.bias", "lm_head.bias", "V", when="head_bias"),
    TIED_HEAD,
    twin(HF, "lm_head.weight", of="model.embed_tokens.weight", when="tied", written=False,
         why="the config ties the output head to the embedding, and the file holds both"),
    sizes=sizes, source=SOURCE,
)
# fmt: on


def is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _kv_heads_to_cs(config: Config) -> Values:
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    if heads % kv_heads:
        raise ValueError(f"num_attention_heads {heads} is not a multiple of num_key_value_heads {kv_heads}")
    if kv_heads == heads:
        return {"attention_module": "aiayn_attention"}
    return {"attention_module": "multiquery_attention", "extra_attention_params": {"num_kv_groups": kv_heads}}


def _kv_heads_to_hf(config: Config) -> Values:
    if config["attention_module"] == "aiayn_attention":
        return {"num_key_value_heads": config["num_heads"]}
    return {"num_key_value_heads": _kv_groups(config)}


def _head_dim_to_cs(config: Config) -> Values:
    hidden, heads, head_dim = config["hidden_size"], config["num_attention_heads"], config["head_dim"]
    if hidden % heads or head_dim != hidden // heads:
        raise ValueError(
            f"head_dim is {head_dim}, but hidden_size {hidden} / num_attention_heads {heads} is {hidden / heads:g}: "
            "CS has no field for another head size"
        )
    if head_dim % 2:
        raise ValueError(f"head_dim is {head_dim}: rotary embeddings need an even number")
    return {"rotary_dim": head_dim}


def _head_dim_to_hf(config: Config) -> Values:
    hidden, heads, rotary_dim = config["hidden_size"], config["num_heads"], config["rotary_dim"]
    if hidden % heads or rotary_dim != hidden // heads:
        raise ValueError(
            f"rotary_dim is {rotary_dim}, but hidden_size {hidden} / num_heads {heads} is {hidden / heads:g}: "
            "Hugging Face rotates whole heads"
        )
    return {"head_dim": rotary_dim}


def _attention_bias_to_hf(config: Config) -> Values:
    names = ("use_projection_bias_in_attention", "use_ffn_bias_in_attention")
    projections, output = (config[name] for name in names)
    if projections != output:
        raise ValueError(
            f"{names[0]} is {projections} and {names[1]} is {output}: Hugging Face has one attention_bias for both"
        )
    return {"attention_bias": projections}


def _attention_bias_to_cs(config: Config) -> Values:
    return dict.fromkeys(("use_projection_bias_in_attention", "use_ffn_bias_in_attention"), config["attention_bias"])


def _window_to_cs(config: Config) -> Values:
    return {"attention_sliding_window_length": config.get("sliding_window") or ABSENT}


def _window_to_hf(config: Config) -> Values:
    return {"sliding_window": config["attention_sliding_window_length"]}


def _window_if_any_to_hf(config: Config) -> Values:
    return {"sliding_window": config["attention_sliding_window_length"] or ABSENT}


FIELDS: tuple[ConfigRow, ...] = (
    *same(
        "vocab_size", "hidden_size", "num_hidden_layers", "max_position_embeddings", "initializer_range", "rope_theta"
    ),
    renamed("num_attention_heads", "num_heads"),
    renamed("intermediate_size", "filter_size"),
    renamed("rms_norm_eps", "layer_norm_epsilon"),
    renamed("tie_word_embeddings", "share_embedding_weights"),
    renamed("hidden_act", "nonlinearity", {"silu": "swiglu", "relu": "reglu", "gelu": "geglu"}),
    group(["num_key_value_heads"], ["attention_module", "extra_attention_params"], _kv_heads_to_cs, _kv_heads_to_hf),
    group(["head_dim"], ["rotary_dim"], _head_dim_to_cs, _head_dim_to_hf),
    group(
        ["attention_bias"],
        ["use_projection_bias_in_attention", "use_ffn_bias_in_attention"],
        _attention_bias_to_cs,
        _attention_bias_to_hf,
    ),
    renamed("mlp_bias", "use_ffn_bias"),
    group(
        ["rope_scaling"], ["pos_scaling_factor", "pos_scaling_type", "pos_scaling_extra_args"], rope.to_cs, rope.to_hf
    ),
    const(CS, "position_embedding_type", "rotary"),
    const(CS, "norm_type", "rmsnorm"),
    const(CS, "attention_type", "scaled_dot_product"),
    const(CS, "embedding_layer_norm", False),
    const(CS, "use_bias_in_output", False),
    # Dropout acts in training only; whatever a CS run used, the converted model computes the same.
    const(CS, "dropout_rate", 0.0, also=[ANYTHING]),
    const(CS, "attention_dropout_rate", 0.0, also=[ANYTHING]),
    const(CS, "embedding_dropout_rate", 0.0, also=[ANYTHING]),
    limited(HF, "partial_rotary_factor", None, 1.0, why="CS rotates whole heads here, and has no field for a part"),
    *UNTRUSTED,
    limited(CS, "extra_ffn_params", {}, {"static_dual_expert": False}, why="Hugging Face has one expert, not two"),
    ignored(
        CS,
        *("initializer", "embedding_initializer", "output_layer_initializer"),
        *("ffn_initializer", "ffn_output_layer_initializer"),
        *("lr_adjustment_groups", "compute_eval_metrics", *LOSS, "attention_kernel"),
        *("attention_softmax_fp32", "dtype", "boundary_casting", "use_experimental_flex_api", "fold_rope_consts"),
        *("start_token", "stop_sequences", "temperature", "top_k", "top_p", "max_tokens", "loop_dim"),
        why="a matter of training or of the machine, not of what the model computes",
    ),
)

# Mistral says its window, null for none: a field left out would mean 4096.
WINDOW = group(["sliding_window"], ["attention_sliding_window_length"], _window_to_cs, _window_to_hf)
# Where either may stand, a window makes a Mistral, and none a LLaMA, which has no field for one.
WINDOW_IF_ANY = group(["sliding_window"], ["attention_sliding_window_length"], _window_to_cs, _window_if_any_to_hf)
# LLaMA has none.
NO_WINDOW = derived(CS, "attention_sliding_window_length", lambda _: ABSENT)

TOKEN_IDS = (Fallback("bos_token_id", 1), Fallback("eos_token_id", 2), Fallback("use_cache", True))


def spell_hf(config: Config, mistral: bool) -> dict[str, Any]:
    """A Hugging Face decoder config in canonical form: every fact stated, each in one place.

    `num_key_value_heads` and `head_dim` follow from the heads where they are absent or null. LLaMA has no sliding
    window and Mistral no biases, whatever a stray field says: their classes read none.
    """
    default = load("hf-mistral" if mistral else "hf-llama").default
    spelled = rope.spell_hf(config, default("max_position_embeddings"))
    heads, hidden, kv_heads = (
        spelled.get(name, default(name)) for name in ("num_attention_heads", "hidden_size", "num_key_value_heads")
    )
    # What is no number yet is left for the schema to refuse under its own name.
    if kv_heads is None and is_count(heads):
        spelled["num_key_value_heads"] = heads
    if spelled.get("head_dim") is None and is_count(heads) and is_count(hidden):
        spelled["head_dim"] = hidden // heads
    if mistral:
        spelled.update(attention_bias=False, mlp_bias=False)
    else:
        spelled.pop("sliding_window", None)
    return rename_dtype(spelled)


def spell_cs(config: Config) -> dict[str, Any]:
    """A CS decoder config in canonical form. `embd_pdrop` and `embedding_dropout_rate` are one field with two names."""
    spelled = rope.spell_cs(config)
    for name in ("extra_attention_params", "extra_ffn_params"):
        if spelled.get(name, {}) is None:
            del spelled[name]
    if "embd_pdrop" in spelled:
        spelled.setdefault("embedding_dropout_rate", spelled["embd_pdrop"])
        del spelled["embd_pdrop"]
    default = load("cs-decoder").default
    heads, hidden = (spelled.get(name, default(name)) for name in ("num_heads", "hidden_size"))
    if spelled.get("rotary_dim") is None and is_count(heads) and is_count(hidden):
        spelled["rotary_dim"] = hidden // heads
    extra = spelled.get("extra_attention_params") or {}
    spelled["extra_attention_params"] = extra
    if isinstance(extra, dict) and extra.get("num_kv_groups") == heads:
        spelled["attention_module"] = "aiayn_attention"
    if spelled.get("attention_module") == "aiayn_attention" and isinstance(extra, dict):
        spelled["extra_attention_params"] = {name: value for name, value in extra.items() if name != "num_kv_groups"}
    return spelled
