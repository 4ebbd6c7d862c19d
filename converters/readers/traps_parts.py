"""Decoders and towers: what their config makes transformers build, against what the files hold.

Names and shapes are those of the converters' tables. A reader need not have a checkpoint that can be converted, only
one that it can load; so sizes are taken from the config here, without translating it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from mmconvert.errors import InputRefused
from mmconvert.schema import load
from mmconvert.sources import TensorRef
from mmconvert.spec import A, Config, Expansion, TooMany, expand, mount

from .. import clip, llama

Shape = tuple[int, ...]
# What transformers takes the base of rotary embeddings for, where a config does not say.
ROPE_THETA = 10000.0
# The tower, and what a CLIP folder may hold beside it.
TOWER_TABLES = tuple(mount(each, part="vision") for each in (clip.VISION, clip.NO_CLASSIFIER, clip.TEXT_HALF))
KEYS = "model.layers.0.self_attn.k_proj.weight"


@dataclass(frozen=True)
class Kind:
    """What a part is: how its config is completed (ValueError where it makes no sense), and its tables written out."""

    complete: Callable[[Config], Config]
    write_out: Callable[[Config], Expansion]


def _decoder(full: Config) -> Expansion:
    hidden, heads = full["hidden_size"], full["num_attention_heads"]
    cs = {
        "vocab_size": full["vocab_size"],
        "hidden_size": hidden,
        "filter_size": full["intermediate_size"],
        "num_hidden_layers": full["num_hidden_layers"],
        "num_heads": heads,
        "attention_module": "multiquery_attention",
        "extra_attention_params": {"num_kv_groups": full["num_key_value_heads"] or heads},
        "rotary_dim": hidden // heads,
        "use_projection_bias_in_attention": full["attention_bias"],
        "use_ffn_bias_in_attention": full["attention_bias"],
        "use_ffn_bias": full["mlp_bias"],
        "use_bias_in_output": False,
        "share_embedding_weights": full["tie_word_embeddings"],
    }
    return expand(llama.TABLES, cs)


def _complete_decoder(schema: str, config: Config) -> dict[str, Any]:
    full: dict[str, Any] = load(schema).complete(config)
    hidden, heads = full["hidden_size"], full["num_attention_heads"]
    if hidden % heads:
        raise ValueError(f"hidden_size {hidden} is not a multiple of num_attention_heads {heads}")
    return full


def _complete_llama(config: Config) -> Config:
    return _complete_decoder("hf-llama", config)


def _complete_mistral(config: Config) -> Config:
    # The class has neither bias, whatever a stray field says.
    return {**_complete_decoder("hf-mistral", config), "attention_bias": False, "mlp_bias": False}


def _tower(full: Config) -> Expansion:
    cs = {
        "hidden_size": full["hidden_size"],
        "filter_size": full["intermediate_size"],
        "num_channels": full["num_channels"],
        "num_hidden_layers": full["num_hidden_layers"],
        "image_size": full["image_size"],
        "patch_size": full["patch_size"],
    }
    return expand(TOWER_TABLES, cs)


def _complete_tower(config: Config) -> Config:
    full = load("hf-clip").complete(clip.spell_hf(config))
    return {**full, **{name: _pair(full[name]) for name in ("image_size", "patch_size")}}


def _pair(size: Any) -> Sequence[int]:
    return size if isinstance(size, list) else [size, size]


LLAMA = Kind(_complete_llama, _decoder)
MISTRAL = Kind(_complete_mistral, _decoder)
TOWER = Kind(_complete_tower, _tower)


@dataclass(frozen=True)
class Part:
    """A decoder or a tower in a checkpoint.

    `where` is what people are told of its config. `tensors` are those of this part by the names of the tables, without
    the `prefix` that they have here.
    """

    where: str
    config: Config
    tensors: Mapping[str, TensorRef]
    prefix: str
    kind: Kind

    @cached_property
    def full(self) -> Config:
        """The config with defaults filled in; empty where it makes no sense, which `unsound` says."""
        try:
            return self.kind.complete(self.config)
        except ValueError:
            return {}

    @cached_property
    def demand(self) -> Expansion:
        """What the config demands; nothing where it makes no sense. Raises InputRefused where that is too much."""
        full = self.full
        try:
            return self.kind.write_out(full) if full else Expansion(())
        except TooMany as error:
            raise InputRefused(f"{self.where}: {error}") from error

    @cached_property
    def shapes(self) -> dict[str, Shape]:
        found = {each.a: each.shape for each in self.demand.pairs if not each.b_only}
        if any(other_head_dim(self)):
            # Whether they fit depends on the release, which is a trap of its own.
            return {key: shape for key, shape in found.items() if ".self_attn." not in key}
        return found


def integer(config: Config, name: str) -> int | None:
    """A field that is an integer; None where it is absent or anything else."""
    value = config.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def below(tensors: Mapping[str, TensorRef], *prefixes: str) -> dict[str, TensorRef]:
    """The tensors under a prefix, without it; of several prefixes, the first that a name has."""
    found = {}
    for key, ref in tensors.items():
        prefix = next((each for each in prefixes if key.startswith(each)), None)
        if prefix is not None:
            found[key[len(prefix) :]] = ref
    return found


def features(tower: Part) -> int | None:
    """The number of patches that a tower cuts a picture into."""
    full = tower.full
    if not full:
        return None
    (height, width), (patch_height, patch_width) = full["image_size"], full["patch_size"]
    return int(height // patch_height * (width // patch_width))


# --- what is there, and what is not -----------------------------------------------------------------------------------


def unsound(part: Part) -> Iterator[str]:
    try:
        part.kind.complete(part.config)
    except ValueError as wrong:
        yield f"{part.where}: {wrong}"


def missing(part: Part) -> Iterator[str]:
    lacking = [key for key in part.shapes if key not in part.tensors]
    # Where there are no tensors at all, that is said once and elsewhere.
    if lacking and part.tensors:
        yield f"{some(part, lacking)}: demanded by {part.where} and missing from the weights"


def misshapen(part: Part) -> Iterator[str]:
    wrong = {
        key: shape for key, shape in part.shapes.items() if key in part.tensors and part.tensors[key].shape != shape
    }
    if any(grouped_in_silence(part)):
        wrong = {key: shape for key, shape in wrong.items() if not key.endswith(("k_proj.weight", "v_proj.weight"))}
    for key in list(wrong)[:1]:
        found = by(part.tensors[key].shape)
        yield f"{some(part, list(wrong))}: {found} in the weights, {by(wrong[key])} by {part.where}"


def not_floats(part: Part) -> Iterator[str]:
    found = [key for key in part.shapes if key in part.tensors and not part.tensors[key].dtype.is_float]
    if found:
        yield f"{some(part, found)}: {part.tensors[found[0]].dtype}, no floating-point numbers"


def unexpected(part: Part) -> Iterator[str]:
    demand = part.demand
    known = {each.a for each in demand.pairs} | {each.key for each in demand.twins if each.side == A}
    strangers = [key for key in part.tensors if key not in known and demand.dropped(A, key) is None]
    if known and strangers:
        yield f"{some(part, strangers)}: no part of the model that {part.where} describes"


def some(part: Part, keys: Sequence[str]) -> str:
    """The first of several tensors by its full name, and how many more there are."""
    first = part.tensors[keys[0]].key if keys[0] in part.tensors else part.prefix + keys[0]
    return first + (f" and {len(keys) - 1} more" if len(keys) > 1 else "")


def by(shape: Shape) -> str:
    return " x ".join(map(str, shape)) or "a scalar"


# --- what a decoder's config says -------------------------------------------------------------------------------------


def grouped_in_silence(part: Part) -> Iterator[str]:
    """Key/value heads that the tensors have and the config does not speak of."""
    if part.config.get("num_key_value_heads") is not None or KEYS not in part.tensors:
        return
    rows, expected = part.tensors[KEYS].shape[:1], part.shapes.get(KEYS, ())[:1]
    if expected and rows != expected:
        said = f"num_key_value_heads is absent, which means {expected[0]} rows"
        yield f"{part.where}: {said}, but {part.tensors[KEYS].key} has {by(rows)}"


def other_head_dim(part: Part) -> Iterator[str]:
    """A head size that does not follow from the number of heads."""
    hidden, heads, size = (integer(part.full, name) for name in ("hidden_size", "num_attention_heads", "head_dim"))
    if hidden and heads and size and size * heads != hidden:
        yield f"{part.where}: head_dim is {size}, but hidden_size / num_attention_heads is {hidden // heads}"


def tied_head(part: Part) -> Iterator[str]:
    if part.config.get("tie_word_embeddings") is True and "lm_head.weight" in part.tensors:
        yield f"{part.where}: tie_word_embeddings is true, but there is {part.tensors['lm_head.weight'].key}"


def rope_lost(part: Part) -> Iterator[str]:
    """Rotary embeddings that only transformers 5's field describes, and that are not the default."""
    parameters = part.config.get("rope_parameters")
    if isinstance(parameters, dict) and _rope(part.config) != _new_rope(parameters):
        yield f"{part.where}: rope_parameters says {parameters}, and rope_theta and rope_scaling do not"


def _rope(config: Config) -> tuple[Any, Any]:
    return config.get("rope_theta", ROPE_THETA), config.get("rope_scaling") or None


def _new_rope(parameters: Mapping[str, Any]) -> tuple[Any, Any]:
    scaling = {name: value for name, value in parameters.items() if name != "rope_theta"}
    plain = scaling.get("rope_type", scaling.get("type", "default")) == "default"
    return parameters.get("rope_theta", ROPE_THETA), None if plain else scaling


def new_spelling(part: Part) -> Iterator[str]:
    """Fields that only transformers 5 reads, where the defaults of transformers 4 say the same."""
    if part.config.get("rope_parameters") is not None and not any(rope_lost(part)):
        yield f"{part.where}: has rope_parameters in place of rope_theta and rope_scaling"


def new_dtype(part: Part) -> Iterator[str]:
    if "dtype" in part.config and "torch_dtype" not in part.config:
        yield f"{part.where}: has dtype in place of torch_dtype"
