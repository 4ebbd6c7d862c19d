"""The projector: LLaVA's `mm_projector` and llava-hf's `multi_modal_projector` against Cerebras `FeedForwardNetwork`.

Sizes: U[j] and I[j] are what layer j gives and takes, E what the first one takes, j layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmconvert.spec import Config, Sizes, key, table

# How a projector starts and trains; a converted one is there already.
TRAINING = {
    "kernel_initializer",
    "bias_initializer",
    "output_layer_initializer",
    "layers_dropout_rates",
    "device",
}


def sizes(config: Config) -> Sizes:
    """Sizes from a CS FeedForwardNetwork's config."""
    units = config["layers_units"]
    # One layer alone is a `linear` projector to LLaVA, which names its tensors otherwise.
    linear = len(units) == 1
    return {
        "U": units,
        "I": [config["input_unit"], *units],
        "U0": units[0],
        "U1": units[-1],
        "E": config["input_unit"],
        "j": 0 if linear else len(units),
        "linear": linear,
        "bias": config["use_bias"],
    }


# fmt: off
LLAVA = table(
    key("mm_projector.{p}",      "ffn.0.linear_layer.{p}",   "U0 E",      when="linear", bias="bias", init="projector"),
    key("mm_projector.{2j}.{p}", "ffn.{j}.linear_layer.{p}", "U[j] I[j]",                bias="bias", init="projector"),
    sizes=sizes, source="LLaVA's mm_projector against Cerebras FeedForwardNetwork; checked by forward passes",
)

# Two layers always.
LLAVA_HF = table(
    key("linear_1.{p}", "ffn.0.linear_layer.{p}", "U0 E",  bias="bias", init="projector"),
    key("linear_2.{p}", "ffn.1.linear_layer.{p}", "U1 U0", bias="bias", init="projector"),
    sizes=sizes, source="LLaVA of transformers against Cerebras FeedForwardNetwork; checked by forward passes",
)
# fmt: on


def network(inputs: int, hidden: int, depth: int, use_bias: bool = True) -> dict[str, Any]:
    """The CS config of a projector of `depth` linear layers, with a GELU between each two."""
    return {
        "name": "FeedForwardNetwork",
        "input_unit": inputs,
        "layers_units": [hidden] * depth,
        "layers_activation": ["gelu"] * (depth - 1) + [None],
        "use_bias": use_bias,
    }


def spell(projection: Mapping[str, Any]) -> dict[str, Any]:
    """A CS projector's config in canonical form."""
    rest = {name: value for name, value in projection.items() if name not in TRAINING}
    return {**rest, "name": "FeedForwardNetwork"} if rest.get("name") == "MLP" else rest
