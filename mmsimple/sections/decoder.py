"""Decoders in a Cerebras section: `LlamaModel`, alone or inside a multimodal model."""

from __future__ import annotations

from collections.abc import Mapping
from sys import float_info
from typing import Any

from mmconvert.excerpt import excerpt
from mmsimple.config import BETA_FAST, BETA_SLOW, LlamaConfig
from mmsimple.sections.supported import DECODER, Part, Section, below, initializer_range, require, shown

# The arguments that each scaling needs, and those that it may have; see `rotary.py` for what they do.
ORIGINAL = "original_max_position_embeddings"
SCALINGS: dict[str, tuple[set[str], set[str]]] = {
    "linear": (set(), set()),
    "llama3": ({"low_freq_factor", "high_freq_factor", ORIGINAL}, set()),
    "yarn": ({ORIGINAL}, {"beta_fast", "beta_slow", "mscale_a", "mscale_b", "extrapolation_factor"}),
    "longrope": ({"short_factor", "long_factor", ORIGINAL}, set()),
}
# These give every rotated pair a factor of its own.
PER_PAIR = ("short_factor", "long_factor")
# One field of CS with two names.
EMBEDDING_DROPOUT = ("embd_pdrop", "embedding_dropout_rate")


def read_decoder(section: Any, where: str, path: str, part: Part = DECODER) -> LlamaConfig:
    """The decoder that a section at a path describes. Raises InputRefused, naming file and field."""
    full = part.complete(section, where, path)
    window = full["attention_sliding_window_length"]
    at = below(path, "attention_sliding_window_length")
    require(window is None or window > 0, where, f"{at} is {shown(window)}: a token sees itself at least")
    rate = full["dropout_rate"]
    rotary_dim = _rotary_dim(full, where, path)
    return LlamaConfig(
        vocab_size=full["vocab_size"],
        hidden_size=full["hidden_size"],
        num_hidden_layers=full["num_hidden_layers"],
        num_heads=full["num_heads"],
        num_kv_heads=_kv_heads(full, where, path),
        filter_size=full["filter_size"],
        rotary_dim=rotary_dim,
        max_position_embeddings=full["max_position_embeddings"],
        nonlinearity=full["nonlinearity"],
        layer_norm_epsilon=float(full["layer_norm_epsilon"]),
        rope_theta=float(full["rope_theta"]),
        pos_scaling_factor=float(full["pos_scaling_factor"]),
        pos_scaling_type=full["pos_scaling_type"].lower(),
        pos_scaling_extra_args=_scaling_arguments(full, rotary_dim // 2, where, path),
        attention_sliding_window_length=window,
        share_embedding_weights=full["share_embedding_weights"],
        static_dual_expert=_is_dual_expert(full, where, path),
        use_projection_bias_in_attention=full["use_projection_bias_in_attention"],
        use_ffn_bias_in_attention=full["use_ffn_bias_in_attention"],
        use_ffn_bias=full["use_ffn_bias"],
        use_bias_in_output=full["use_bias_in_output"],
        embedding_dropout_rate=float(_given(_embedding_dropout(full, where, path), rate)),
        dropout_rate=float(rate),
        attention_dropout_rate=float(_given(full["attention_dropout_rate"], rate)),
        initializer_range=initializer_range(full, where, path),
    )


def _given(rate: float | None, otherwise: float) -> float:
    """A dropout rate; null means that of all other dropout."""
    return otherwise if rate is None else rate


def _embedding_dropout(full: Section, where: str, path: str) -> float | None:
    given = {name: full[name] for name in EMBEDDING_DROPOUT if full.get(name) is not None}
    names = " and ".join(f"{below(path, name)} {rate}" for name, rate in given.items())
    require(len(set(given.values())) < 2, where, f"{names} are two names of one field; give one of them")
    return next(iter(given.values()), None)


def _rotary_dim(full: Section, where: str, path: str) -> int:
    """How many entries of each head are rotated; null for all."""
    hidden, heads = int(full["hidden_size"]), int(full["num_heads"])
    at = below(path, "hidden_size")
    require(hidden % heads == 0, where, f"{at} is {hidden}, which is not a multiple of num_heads {heads}")
    head_size = hidden // heads
    rotated = head_size if full["rotary_dim"] is None else int(full["rotary_dim"])
    said = "the head size " if full["rotary_dim"] is None else ""
    require(
        rotated % 2 == 0 and rotated <= head_size,
        where,
        f"{below(path, 'rotary_dim')} is {said}{rotated}: it must be even and at most the head size {head_size}",
    )
    return rotated


def _kv_heads(full: Section, where: str, path: str) -> int:
    """How many key/value heads there are, which CS calls the number of groups."""
    at, heads = below(path, "extra_attention_params"), int(full["num_heads"])
    extra = _only(full["extra_attention_params"], {"num_kv_groups"}, where, at)
    groups = extra.get("num_kv_groups")
    said = f"{below(at, 'num_kv_groups')} is {shown(groups)}"
    if full["attention_module"] == "aiayn_attention":
        same = groups is None or (isinstance(groups, int) and groups == heads)
        require(same, where, f"{said}, but attention_module aiayn_attention has one per head; say multiquery_attention")
        return heads
    count = groups if isinstance(groups, int) and not isinstance(groups, bool) and groups > 0 else 0
    divides = count > 0 and heads % count == 0
    require(divides, where, f"{said}: it must be a number of key/value heads that divides num_heads {heads}")
    return count


def _is_dual_expert(full: Section, where: str, path: str) -> bool:
    at = below(path, "extra_ffn_params")
    chosen = _only(full["extra_ffn_params"], {"static_dual_expert"}, where, at).get("static_dual_expert", False)
    problem = f"{below(at, 'static_dual_expert')} is {shown(chosen)}: it must be true or false"
    require(isinstance(chosen, bool), where, problem)
    return bool(chosen)


def _scaling_arguments(full: Section, pairs: int, where: str, path: str) -> dict[str, Any]:
    at, kind = below(path, "pos_scaling_extra_args"), full["pos_scaling_type"].lower()
    required, optional = SCALINGS[kind]
    extra = _only(full["pos_scaling_extra_args"] or {}, required | optional, where, at)
    missing = sorted(required - extra.keys())
    require(not missing, where, f"{at} lacks {', '.join(missing)}, which pos_scaling_type {kind} needs")
    for name, value in extra.items():
        if name in PER_PAIR:
            is_right = isinstance(value, list) and len(value) == pairs and all(map(_is_positive, value))
            wanted = f"a list of {pairs} numbers above 0, one for each rotated pair"
        elif name.startswith("mscale") or name == "extrapolation_factor":
            is_right, wanted = _is_number(value), "a number"
        elif name == ORIGINAL:
            is_right, wanted = _is_number(value) and value > 1, "a number above 1"
        else:
            is_right, wanted = _is_positive(value), "a number above 0"
        require(is_right, where, f"{below(at, name)} is {shown(value)}: it must be {wanted}")
    if kind == "llama3":
        low, high = extra["low_freq_factor"], extra["high_freq_factor"]
        said = f"low_freq_factor {shown(low)} must be below high_freq_factor {shown(high)}"
        require(low < high, where, f"{at}: {said}")
    if kind == "yarn":
        theta, fast, slow = full["rope_theta"], extra.get("beta_fast", BETA_FAST), extra.get("beta_slow", BETA_SLOW)
        said = f"{below(path, 'rope_theta')} is {shown(theta)}: it must be above 1 for pos_scaling_type yarn"
        require(theta > 1, where, said)
        said = f"beta_fast {shown(fast)} must be at least beta_slow {shown(slow)}"
        require(fast >= slow, where, f"{at}: {said}")
    return extra


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= float_info.max


def _is_positive(value: Any) -> bool:
    return _is_number(value) and value > 0


def _only(extra: Mapping[str, Any], known: set[str], where: str, path: str) -> dict[str, Any]:
    """Arguments of CS that no schema lists, if mmsimple reads all of them."""
    for name in extra:
        choices = ", ".join(sorted(known)) or "none"
        at = below(path, excerpt(name))
        require(name in known, where, f"{at} is nothing that mmsimple computes; it reads {choices}")
    return dict(extra)


def write_decoder(config: LlamaConfig, name: str) -> dict[str, Any]:
    """The section of a decoder under one of its names; `read_decoder` reads it back."""
    from_several = {"attention_module", "extra_attention_params", "extra_ffn_params", "pos_scaling_extra_args"}
    plain = DECODER.read - from_several - {"embd_pdrop", "attention_sliding_window_length"}
    section: dict[str, Any] = {
        "name": name,
        **{field: getattr(config, field) for field in sorted(plain)},
        "attention_module": "aiayn_attention",
        "attention_type": "scaled_dot_product",
        "embedding_layer_norm": False,
        "norm_type": "rmsnorm",
        "position_embedding_type": "rotary",
    }
    if config.num_kv_heads != config.num_heads:
        section["attention_module"] = "multiquery_attention"
        section["extra_attention_params"] = {"num_kv_groups": config.num_kv_heads}
    if config.static_dual_expert:
        section["extra_ffn_params"] = {"static_dual_expert": True}
    if config.pos_scaling_extra_args:
        section["pos_scaling_extra_args"] = dict(config.pos_scaling_extra_args)
    if config.attention_sliding_window_length is not None:
        section["attention_sliding_window_length"] = config.attention_sliding_window_length
    return section
