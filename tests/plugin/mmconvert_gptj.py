"""GPT-J: `GPTJForCausalLM` against CS `gptj`.

Sizes: V vocabulary, E hidden, F feed-forward, i layers.
"""

from __future__ import annotations

from typing import Any

from mmconvert.configs import ConfigTable, Space
from mmconvert.converter import Converter, Format
from mmconvert.releases import Release, span
from mmconvert.rules import ANYTHING, ConfigRow, Fallback, const, ignored, limited, renamed, same
from mmconvert.schema import Schema
from mmconvert.spec import A, B, Config, Sizes, key, only, table, twin
from mmconvert.spellings import Change

HF, CS = A, B


def sizes(config: Config) -> Sizes:
    """Sizes from the CS config, class defaults filled in."""
    return {
        "V": config["vocab_size"],
        "E": config["hidden_size"],
        "F": config["filter_size"],
        "i": config["num_hidden_layers"],
    }


H = "transformer.h.{i}."
LAYER = "transformer_decoder.layers.{i}."
NORM = "transformer_decoder.norm."
TWO_NAMES = "CS stores the final norm under two names"
MASK = "a buffer: which positions may see which"

# fmt: off
TABLE = table(
    #   Hugging Face                Cerebras                                              shape
    key("transformer.wte.weight",   "embedding_layer.word_embeddings.weight",             "V E"),
    key(H + "ln_1.{p}",             LAYER + "norm1.{p}",                                  "E",   bias=True),
    key(H + "attn.q_proj.weight",   LAYER + "self_attn.proj_q_dense_layer.weight",        "E E"),
    key(H + "attn.k_proj.weight",   LAYER + "self_attn.proj_k_dense_layer.weight",        "E E"),
    key(H + "attn.v_proj.weight",   LAYER + "self_attn.proj_v_dense_layer.weight",        "E E"),
    key(H + "attn.out_proj.weight", LAYER + "self_attn.proj_output_dense_layer.weight",   "E E"),
    key(H + "mlp.fc_in.{p}",        LAYER + "ffn.ffn.0.linear_layer.{p}",                 "F E", bias=True),
    key(H + "mlp.fc_out.{p}",       LAYER + "ffn.ffn.1.linear_layer.{p}",                 "E F", bias=True),
    key("transformer.ln_f.{p}",     NORM + "{p}",                                         "E",   bias=True),
    key("lm_head.{p}",              "lm_head.{p}",                                        "V E", bias=True),
    twin(CS, "ln_f.weight", of=NORM + "weight", why=TWO_NAMES),
    twin(CS, "ln_f.bias",   of=NORM + "bias",   why=TWO_NAMES),
    only(HF, H + "attn.bias",        why=MASK),
    only(HF, H + "attn.masked_bias", why=MASK),
    sizes=sizes, source="transformers GPTJForCausalLM against Cerebras GPTJModel",
)
# fmt: on


def fields(schema: dict[str, Any], **defaults: Any) -> dict[str, Any]:
    """Fields of one schema with their class defaults."""
    return {name: {**schema, "default": default} for name, default in defaults.items()}


SIZE = {"type": "integer", "minimum": 1, "maximum": 2**24}
NUMBER = {"type": "number", "minimum": 0}
SWITCH = {"type": "boolean"}
ANY: dict[str, Any] = {}

SCHEMA_HF = Schema(
    "hf-gptj",
    {
        "type": "object",
        "properties": {
            **fields(SIZE, vocab_size=50400, n_positions=2048, n_embd=4096, n_layer=28, n_head=16, rotary_dim=64),
            **fields(NUMBER, layer_norm_epsilon=1e-5, initializer_range=0.02),
            **fields(NUMBER, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0),
            **fields({"type": "string"}, activation_function="gelu_new"),
            **fields(SWITCH, tie_word_embeddings=False),
            "n_inner": SIZE,
        },
    },
)
SCHEMA_CS = Schema(
    "cs-gptj",
    {
        "type": "object",
        "additionalProperties": False,
        "required": ["rotary_dim"],
        "properties": {
            "name": {"enum": ["gptj"]},
            "rotary_dim": SIZE,
            **fields(SIZE, vocab_size=50257, max_position_embeddings=1024, hidden_size=768, filter_size=3072),
            **fields(SIZE, num_hidden_layers=12, num_heads=12),
            **fields(NUMBER, layer_norm_epsilon=1e-5, initializer_range=0.02, rope_theta=10000, pos_scaling_factor=1.0),
            **fields(NUMBER, residual_dropout_rate=0.1, embedding_dropout_rate=0.1, attention_dropout_rate=0.1),
            **fields({"type": "string"}, nonlinearity="gelu", norm_type="layernorm"),
            **fields({"type": "string"}, position_embedding_type="rotary", attention_type="scaled_dot_product"),
            **fields({"type": "string"}, attention_module="aiayn_attention", loss_scaling="num_tokens"),
            **fields(SWITCH, use_projection_bias_in_attention=True, use_ffn_bias_in_attention=True),
            **fields(SWITCH, use_ffn_bias=False, use_bias_in_output=False, use_untied_layer_norm=False),
            **fields(SWITCH, share_embedding_weights=True, embedding_layer_norm=False, pad_rope=False),
            **fields(SWITCH, alibi_trainable_slopes=False, attention_softmax_fp32=True, compute_eval_metrics=True),
            **fields(ANY, attention_sliding_window_length=None, num_relative_attention_buckets=None),
            **fields(ANY, extra_attention_params={}, position_embedding_offset=0, loss_weight=1.0),
            **fields(ANY, initializer=None, embedding_initializer=None, output_layer_initializer=None),
        },
    },
)


def spell_hf(config: Config, names: frozenset[str]) -> Config:
    """The one spelling that the rows know: `n_inner` said outright, the element type under its older name."""
    spelled = dict(config)
    if spelled.get("n_inner") is None:
        spelled["n_inner"] = 4 * spelled.get("n_embd", 4096)
    if "dtype" in spelled:
        spelled["torch_dtype"] = spelled.pop("dtype")
    return spelled


FIELDS: tuple[ConfigRow, ...] = (
    *same("vocab_size", "rotary_dim", "layer_norm_epsilon", "initializer_range"),
    renamed("n_positions", "max_position_embeddings"),
    renamed("n_embd", "hidden_size"),
    renamed("n_layer", "num_hidden_layers"),
    renamed("n_head", "num_heads"),
    renamed("n_inner", "filter_size"),
    renamed("activation_function", "nonlinearity", {"gelu_new": "gelu_new", "gelu": "gelu", "relu": "relu"}),
    renamed("resid_pdrop", "residual_dropout_rate"),
    renamed("embd_pdrop", "embedding_dropout_rate"),
    renamed("attn_pdrop", "attention_dropout_rate"),
    const(CS, "name", "gptj"),
    const(CS, "position_embedding_type", "rotary"),
    const(CS, "norm_type", "layernorm"),
    const(CS, "attention_type", "scaled_dot_product"),
    const(CS, "use_untied_layer_norm", False),
    const(CS, "use_projection_bias_in_attention", False),
    const(CS, "use_ffn_bias_in_attention", False),
    const(CS, "use_ffn_bias", True),
    const(CS, "use_bias_in_output", True),
    const(CS, "share_embedding_weights", False),
    const(HF, "tie_word_embeddings", False),
    const(HF, "model_type", "gptj"),
    const(HF, "architectures", ["GPTJForCausalLM"], also=[ANYTHING]),
    Fallback("bos_token_id", 50256),
    Fallback("eos_token_id", 50256),
    limited(HF, "rotary", True, why="CS computes this family with rotary embeddings"),
    limited(HF, "scale_attn_weights", True, why="CS scales attention weights"),
    limited(HF, "quantization_config", None, why="take the weights that these were made from"),
    ignored(
        CS,
        *("initializer", "embedding_initializer", "output_layer_initializer", "loss_scaling", "loss_weight"),
        *("attention_softmax_fp32", "compute_eval_metrics"),
        why="a matter of training, not of what the model computes",
    ),
)


def is_gptj(config: Config) -> bool:
    return config.get("model_type") == "gptj"


def is_cs_gptj(config: Config) -> bool:
    """Releases before 2.4 write no name; then a field tells that only this model's class has."""
    return config.get("name") == "gptj" or ("name" not in config and "use_untied_layer_norm" in config)


def without_name(config: Config) -> Config:
    return {name: value for name, value in config.items() if name != "name"}


NAMED = Change(
    Release(2, 4), "a model section has a name", newer=lambda config: {"name": "gptj", **config}, older=without_name
)

GPTJ = Converter(
    model="gptj",
    a=Format("hf", {"": is_gptj}, dtype_fields=("torch_dtype",), tokenizer=("", "vocab_size")),
    b=Format("cs", {"": is_cs_gptj}, aliases=(("model.", ""),), changes=(NAMED,)),
    tables=(TABLE,),
    configs=ConfigTable(FIELDS, a=Space(lambda _: {"": SCHEMA_HF}, spell_hf), b=Space(lambda _: {"": SCHEMA_CS})),
    b_releases=span("2.1", "2.10"),
    note="GPT-J 6B and what was tuned from it",
)


def converters() -> tuple[Converter, ...]:
    """What this package adds."""
    return (GPTJ,)
