"""Which values of which config fields mmsimple computes; all others are refused by name, none is passed over.

A field that a dataclass of `mmsimple.config` holds is read. Every other field that Cerebras's class accepts must have
a value that changes nothing about what is computed: one that stands in the tables here, or else its class default.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from math import isfinite
from typing import Any

from mmconvert.errors import InputRefused
from mmconvert.excerpt import excerpt
from mmconvert.schema import load
from mmsimple.config import FeedForwardConfig, LlamaConfig, ViTConfig

Section = Mapping[str, Any]
# Fresh weights are within two deviations, and float16 ends at 65504.
LARGEST_RANGE = 1e4


@dataclass(frozen=True)
class Part:
    """One part of a model section: its schemas, the fields that are read, and which values fields may have.

    `values` limits fields to those that are listed; where the class default is not among them, an absent field is
    refused too. `moot` are settings of something that the part does not have, so that no value means anything.
    """

    schemas: tuple[str, ...]
    read: frozenset[str]
    values: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    moot: frozenset[str] = frozenset()

    def complete(self, section: Any, where: str, path: str) -> dict[str, Any]:
        """The section with class defaults filled in.

        Raises InputRefused, naming file and field, for a field that does not exist, with the nearest that does; for a
        value of the wrong type; and for one that is not supported.
        """
        try:
            completed: dict[str, Any] = load(*self.schemas).complete(section, path)
        except ValueError as error:
            raise InputRefused(f"{where}: {error}") from error
        for name, value in completed.items():
            at = below(path, name)
            require(_is_finite(value), where, f"{at} is {shown(value)}, which is no number that can be computed with")
            supported = self.supported(name)
            if supported is not None and not any(_same(value, each) for each in supported):
                said = "" if name in section else " by default"
                choices = " or ".join(map(shown, supported))
                hint = f"; {HINTS[name]}" if name in HINTS else ""
                raise InputRefused(f"{where}: {at} is {shown(value)}{said}; mmsimple computes {choices}{hint}")
        return completed

    def supported(self, name: str) -> tuple[Any, ...] | None:
        """The values that a field is limited to; None for one that is read, whatever it says, or that is moot."""
        if name in self.values:
            return self.values[name]
        if name in self.read | self.moot:
            return None
        return (load(*self.schemas).default(name),)


def _is_finite(value: Any) -> bool:
    """Whether a number, or every number of a list, is one that a float can hold."""
    if isinstance(value, list):
        return all(map(_is_finite, value))
    try:
        return not isinstance(value, int | float) or isfinite(value)
    except OverflowError:
        return False


def _same(a: Any, b: Any) -> bool:
    """Equal, and not as 1 is equal to true."""
    return bool(a == b) and isinstance(a, bool) == isinstance(b, bool)


def shown(value: Any) -> str:
    """A value as YAML spells it, short and in one line."""
    words = {"None": "null", "True": "true", "False": "false"}
    return words.get(str(value), excerpt(value))


def initializer_range(full: Section, where: str, path: str) -> float:
    """The deviation of fresh weights. Raises InputRefused, naming file and field, for one too large for float16."""
    value = full["initializer_range"]
    at = below(path, "initializer_range")
    require(value <= LARGEST_RANGE, where, f"{at} is {shown(value)}: weights so far from 0 come to be infinite")
    return float(value)


def below(path: str, name: str) -> str:
    """The path of a field of the section at a path."""
    return f"{path}.{name}" if path else name


def require(condition: bool, where: str, problem: str) -> None:
    """Raise InputRefused for a file in which something does not hold."""
    if not condition:
        raise InputRefused(f"{where}: {problem}")


def check_names(section: Mapping[str, Any], known: Collection[str], where: str, path: str) -> None:
    """Raise InputRefused for a field that does not exist, with the nearest that does."""
    for name in section:
        require(name in known, where, f"{below(path, excerpt(name))}: no such field{nearest(name, known)}")


def nearest(name: Any, known: Collection[str]) -> str:
    """A question after the known name that another resembles, to end a message with; empty if it resembles none."""
    near = get_close_matches(str(name), known, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _held(config: type) -> frozenset[str]:
    return frozenset(each.name for each in fields(config))


# Where to go with what a model section no longer says.
HINTS = dict.fromkeys(
    ("mixed_precision", "fp16_type"),
    "since release 2.3 it stands in trainer.init.precision, where `mmconvert cs-to-cs` moves it",
)
# What older releases kept in a model section of any kind.
OLD: dict[str, tuple[Any, ...]] = {"mixed_precision": (False, None)}
LOSS: dict[str, tuple[Any, ...]] = {**OLD, "label_smoothing": (0, None), "z_loss_eps": (0, None)}

VIT: dict[str, tuple[Any, ...]] = {
    "nonlinearity": ("gelu", "quick_gelu", "relu"),
    "use_conv_patchified_embedding": (True,),
    "use_masked_patches": (False, None),
    "extra_attention_params": ({}, None),
}
ENCODER = Part(
    ("cs-image-encoder",),
    _held(ViTConfig),
    {**VIT, "name": ("ViTModel", "vit"), "use_bias_in_output": (False,)},
    # Old files give an encoder the number of classes of a classifier, which it does not have.
    moot=frozenset({"num_classes"}),
)
CLASSIFIER = Part(
    ("cs-image-encoder", "cs-clip-vit"),
    ENCODER.read | {"num_classes", "use_bias_in_output"},
    {**VIT, **OLD, "name": ("vision_transformer",), "freeze": (None, [])},
)

LLAMA_READ = _held(LlamaConfig) - {"num_kv_heads", "static_dual_expert"} | {
    "attention_module",
    "embd_pdrop",
    "extra_attention_params",
    "extra_ffn_params",
}
LLAMA_VALUES: dict[str, tuple[Any, ...]] = {
    "nonlinearity": ("swiglu", "geglu", "reglu"),
    "norm_type": ("rmsnorm",),
    "position_embedding_type": ("rotary",),
    "norm_first": (True,),
    "use_ff_layer1_dropout": (False,),
}
DECODER = Part(("cs-decoder",), LLAMA_READ, {**LLAMA_VALUES, "name": ("LlamaModel", "llama")})
ALONE: dict[str, tuple[Any, ...]] = {**LLAMA_VALUES, **OLD, "boundary_casting": (False, None)}
LLAMA = Part(("cs-decoder", "cs-llama"), LLAMA_READ, {**ALONE, "name": ("LlamaModel", "llama")})
MISTRAL = Part(("cs-decoder", "cs-llama", "cs-mistral"), LLAMA_READ, {**ALONE, "name": ("mistral",)})

FEED_FORWARD = Part(
    ("cs-feed-forward-network",),
    _held(FeedForwardConfig),
    {
        "name": ("FeedForwardNetwork", "MLP"),
        "kernel_initializer": ("xavier_uniform", {"name": "xavier_uniform"}),
        "bias_initializer": ("zeros", {"name": "zeros"}),
    },
)
MULTIMODAL = Part(
    ("cs-mmsimple",),
    frozenset({"freeze", "image_model_list", "loss_scaling", "loss_weight", "text_model"}),
    {**LOSS, "name": ("multimodal_simple",)},
)
LLAVA = Part(
    ("cs-llava",),
    frozenset(
        {
            *("freeze", "image_feature_select_layer_idx", "image_feature_select_mode", "image_model", "projector"),
            *("loss_scaling", "loss_weight", "text_model"),
        }
    ),
    {**LOSS, "name": ("llava",)},
)
