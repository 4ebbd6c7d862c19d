"""Rotary position scaling: `rope_scaling` (or transformers 5's `rope_parameters`) against CS `pos_scaling_*`.

The canonical Hugging Face form is `rope_theta` and `rope_scaling`, where `rope_scaling` is null or a dict with
`rope_type`, `factor` and only what that type reads. No scaling has three spellings that mean the same: null, type
`default`, and a linear factor of 1.
"""

from __future__ import annotations

from typing import Any

from mmconvert.rules import Values
from mmconvert.spec import Config

# What each type reads besides its factor: (required, optional).
FIELDS: dict[str, tuple[set[str], set[str]]] = {
    "linear": (set(), set()),
    "llama3": ({"low_freq_factor", "high_freq_factor", "original_max_position_embeddings"}, set()),
    "yarn": ({"original_max_position_embeddings"}, {"attention_factor", "beta_fast", "beta_slow"}),
    "longrope": ({"original_max_position_embeddings", "short_factor", "long_factor"}, set()),
}


def spell_hf(config: Config, max_position_embeddings: int) -> dict[str, Any]:
    """The config with `rope_theta` and `rope_scaling` in canonical form and no `rope_parameters`.

    `max_position_embeddings` is the class default, for configs that leave theirs out.
    Raises ValueError, naming the type or field, for scalings that CS has no words for.
    """
    spelled = unpacked(config)
    spelled["rope_scaling"] = _canonical(
        spelled.get("rope_scaling"), {"max_position_embeddings": max_position_embeddings, **spelled}
    )
    return spelled


def unpacked(config: Config) -> dict[str, Any]:
    """The config with transformers 5's `rope_parameters` under the names of transformers 4; nothing is added."""
    spelled = dict(config)
    parameters = spelled.pop("rope_parameters", None)
    if parameters is None:
        return spelled
    if not isinstance(parameters, dict):
        raise ValueError("rope_parameters is no mapping")
    scaling = dict(parameters)
    for name in ("rope_theta", "partial_rotary_factor"):
        value = scaling.pop(name, None)
        if value is not None:
            spelled[name] = value
    return {**spelled, "rope_scaling": scaling}


def _canonical(scaling: Any, config: Config) -> dict[str, Any] | None:
    if not scaling:
        return None
    if not isinstance(scaling, dict):
        raise ValueError("rope_scaling is no mapping")
    named = {name: value for name, value in scaling.items() if value is not None}
    kind = named.pop("rope_type", None) or named.get("type") or "default"
    named.pop("type", None)
    kind = "longrope" if kind == "su" else kind
    if kind == "default":
        left = sorted(name for name, value in named.items() if (name, value) != ("factor", 1))
        if left:
            raise ValueError(f"rope_scaling holds {left[0]}, but no type that would read it")
        return None
    if not isinstance(kind, str) or kind not in FIELDS:
        raise ValueError(f"rope_scaling type {kind!r} has no CS counterpart; known: {', '.join(FIELDS)}")
    # transformers falls back on these where the scaling itself is silent.
    maximum = config["max_position_embeddings"]
    original = named.get("original_max_position_embeddings", config.get("original_max_position_embeddings"))
    if kind == "yarn" and original is None:
        original = maximum
    if original is not None and "original_max_position_embeddings" in FIELDS[kind][0]:
        named["original_max_position_embeddings"] = original
    for name, value in named.items():
        _check_number(name, value)
    if kind == "longrope" and "factor" not in named and original:
        named["factor"] = maximum / original
    required, optional = FIELDS[kind]
    missing = sorted(({"factor"} | required) - named.keys())
    if missing:
        raise ValueError(f"rope_scaling of type {kind!r} lacks {', '.join(missing)}")
    if named.get("truncate") is True:
        del named["truncate"]
    unknown = sorted(named.keys() - {"factor"} - required - optional)
    if unknown:
        raise ValueError(f"rope_scaling.{unknown[0]} has no CS counterpart in type {kind!r}")
    if kind == "linear" and named["factor"] == 1:
        return None
    return {"rope_type": kind, **dict(sorted(named.items()))}


def _check_number(name: str, value: Any) -> None:
    """Every argument of a scaling is a number, but for the switch `truncate` and longrope's lists of factors."""
    numbers = value if isinstance(value, list) and name in ("short_factor", "long_factor") else [value]
    plain = all(isinstance(each, int | float) and not isinstance(each, bool) for each in numbers)
    if name != "truncate" and not (plain and numbers):
        raise ValueError(f"rope_scaling.{name} is {value!r}, which is no number")


def to_cs(config: Config) -> Values:
    scaling = config["rope_scaling"]
    if scaling is None:
        return {"pos_scaling_factor": 1.0}
    extra = {name: value for name, value in scaling.items() if name not in ("rope_type", "factor")}
    if "attention_factor" in extra:
        # CS scales by mscale_a * ln(factor) + mscale_b and knows no attention_factor.
        extra.update(mscale_a=0.0, mscale_b=extra.pop("attention_factor"))
    values = {"pos_scaling_factor": scaling["factor"], "pos_scaling_type": scaling["rope_type"]}
    return {**values, "pos_scaling_extra_args": dict(sorted(extra.items()))} if extra else values


def to_hf(config: Config) -> Values:
    kind, factor = config["pos_scaling_type"], config["pos_scaling_factor"]
    if factor == 1 and kind == "linear":
        return {"rope_scaling": None}
    if kind == "linear":
        # The only spelling of a linear scaling that every release of transformers reads.
        return {"rope_scaling": {"type": "linear", "factor": factor}}
    extra = dict(config["pos_scaling_extra_args"] or {})
    if kind == "yarn" and extra.get("mscale_a") == 0 and "mscale_b" in extra:
        del extra["mscale_a"]
        extra["attention_factor"] = extra.pop("mscale_b")
    return {"rope_scaling": {"rope_type": kind, "factor": factor, **dict(sorted(extra.items()))}}


def spell_cs(config: Config) -> dict[str, Any]:
    """The CS config with its scaling in canonical form: `yarn` in lower case, no defaults and no empty extras."""
    spelled = dict(config)
    kind = spelled.get("pos_scaling_type")
    if kind == "YaRN":
        kind = spelled["pos_scaling_type"] = "yarn"
    extra = spelled.get("pos_scaling_extra_args")
    if isinstance(extra, dict):
        defaults = {"mscale_a": 0.1, "mscale_b": 1.0, "extrapolation_factor": 1.0} if kind == "yarn" else {}
        if all(extra.get(name, defaults.get(name)) == defaults.get(name) for name in ("mscale_a", "mscale_b")):
            extra = {name: value for name, value in extra.items() if name not in ("mscale_a", "mscale_b")}
        if extra.get("extrapolation_factor") == defaults.get("extrapolation_factor"):
            extra = {name: value for name, value in extra.items() if name != "extrapolation_factor"}
        spelled["pos_scaling_extra_args"] = dict(extra) or None
    if spelled.get("pos_scaling_factor", 1.0) == 1 and kind in (None, "linear"):
        spelled.pop("pos_scaling_extra_args", None)
    return spelled


def advice(config: Config, carried: Config) -> list[str]:
    """What a user should know of a scaling that both sides can say and do not compute alike."""
    if (config.get("rope_scaling") or {}).get("rope_type") == "longrope":
        return [
            "rope_scaling longrope: CS always uses long_factor once max_position_embeddings exceeds the original, "
            "transformers only for inputs that are longer; compare past the switch"
        ]
    return []
