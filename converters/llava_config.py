"""The configs of LLaVA's two folders against CS's: config rows, the canonical form, and what a user should know."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from mmconvert.configs import Space
from mmconvert.paths import ABSENT, get
from mmconvert.rules import ANYTHING, ConfigRow, Fallback, Rule, Values, const, derived, group, limited
from mmconvert.schema import Schema, load
from mmconvert.spec import A, Config

from . import clip, decoder, projector, rope
from .llava_names import IMAGE, KEEP, is_llava_text, is_mistral_text, is_plain_text
from .multimodal import TEXT, Multimodal

HF = A
FREEZE_TEXT = "^text_model"
FIELDS: tuple[ConfigRow, ...] = (
    const(HF, f"{IMAGE}.architectures", ["CLIPVisionModel"], also=[ANYTHING]),
    const(HF, f"{TEXT}.mm_use_im_start_end", False),
    const(HF, f"{TEXT}.mm_use_im_patch_token", False),
    # A tower trained into the text checkpoint is read from there; exports always put it into the image folder.
    const(HF, f"{TEXT}.unfreeze_mm_vision_tower", False, also=[True]),
    derived(HF, f"{TEXT}.mm_vision_tower", lambda _: ABSENT, also=[ANYTHING]),
    # LLaVA 1.6 cuts a picture into several and joins their features; CS sees each picture once.
    limited(
        HF,
        f"{TEXT}.image_aspect_ratio",
        *(None, "pad", "square"),
        why=f"CS and llava-hf see each picture once, in one piece; {KEEP}",
    ),
    limited(
        HF,
        f"{TEXT}.mm_patch_merge_type",
        *(None, "", "flat"),
        why=f"CS and llava-hf know no other order of the patches than flat; {KEEP}",
    ),
    limited(HF, f"{TEXT}.s2", None, False, why=f"CS and llava-hf have no tower of several scales; {KEEP}"),
    Fallback(f"{TEXT}.bos_token_id", 1),
    Fallback(f"{TEXT}.eos_token_id", 2),
    Fallback(f"{TEXT}.pad_token_id", 0),
    Fallback(f"{TEXT}.image_aspect_ratio", "pad"),
    Fallback(f"{TEXT}.freeze_mm_mlp_adapter", False),
    Fallback(f"{TEXT}.freeze_mm_vision_resampler", False),
    Fallback(f"{TEXT}.tune_mm_vision_resampler", False),
    Fallback(f"{TEXT}.use_cache", True),
    Fallback(f"{TEXT}.use_mm_proj", True),
)


def projector_depth(text: Config) -> int:
    """The number of linear layers that `mm_projector_type` stands for. Raises ValueError for other kinds."""
    kind = text["mm_projector_type"]
    match = re.fullmatch(r"mlp(\d{1,2})x_gelu", str(kind))
    if kind == "linear":
        return 1
    if match is None or not int(match[1]):
        raise ValueError(
            f"mm_projector_type {kind!r} has no CS counterpart; known: linear, mlp2x_gelu, mlp3x_gelu, ..."
        )
    return int(match[1])


def _projector(cs: Multimodal) -> Rule:
    def to_cs(config: Config) -> Values:
        image, text = config[IMAGE], config[TEXT]
        width, hidden = text["mm_hidden_size"], image["hidden_size"]
        if width != hidden:
            raise ValueError(f"text_model.mm_hidden_size is {width}, but image_model.hidden_size is {hidden}")
        return {cs.projection: projector.network(hidden, text["hidden_size"], projector_depth(text))}

    def to_hf(config: Config) -> Values:
        projection = cs.one_projection(config)
        depth = len(projection["layers_units"])
        if projection["use_bias"] is False:
            raise ValueError(
                f"{cs.projection}.use_bias is False (multimodal_projector_bias in llava-hf), and LLaVA's projector has "
                "biases: keep this model in llava-hf or in CS"
            )
        return {
            f"{TEXT}.mm_projector_type": "linear" if depth == 1 else f"mlp{depth}x_gelu",
            f"{TEXT}.mm_hidden_size": get(config, cs.tower)["hidden_size"],
        }

    return group([f"{TEXT}.mm_projector_type", f"{TEXT}.mm_hidden_size"], [cs.projection], to_cs, to_hf)


def _freeze(cs: Multimodal) -> Rule:
    """Which parts stood still in training: LLaVA says it of the decoder, CS by patterns of names."""

    def to_cs(config: Config) -> Values:
        tune_projector_only = config[TEXT]["tune_mm_mlp_adapter"]
        return {"freeze": [cs.freeze, FREEZE_TEXT] if tune_projector_only else [cs.freeze]}

    return Rule((f"{TEXT}.tune_mm_mlp_adapter",), ("freeze",), to_cs, _freeze_to_hf, also=(ANYTHING,))


def _freeze_to_hf(config: Config) -> Values:
    # Patterns are searched for in parameter names; one decoder weight stands for the decoder.
    weight = "text_model.transformer_decoder.layers.0.norm1.weight"
    for pattern in config["freeze"] or ():
        # A repeated group, or repeat upon repeat, can keep a search busy for years.
        if re.search(r"\)[*+{]", pattern) or sum(map(pattern.count, "*+{")) > 4:
            raise ValueError(f"freeze holds the pattern {pattern!r}, which may run away; repeat less, and no groups")
    try:
        frozen = any(re.search(pattern, weight) for pattern in config["freeze"] or ())
    except re.error as error:
        raise ValueError(f"freeze holds a pattern that is no regular expression: {error}") from error
    return {f"{TEXT}.tune_mm_mlp_adapter": frozen}


def rows(cs: Multimodal) -> tuple[ConfigRow, ...]:
    """All rows but those that say what the text part is called."""
    return (_projector(cs), _freeze(cs), *FIELDS)


def _schemas(config: Config) -> Mapping[str, Schema]:
    decoder_defaults = "hf-mistral" if is_mistral_text(config[TEXT]) else "hf-llama"
    return {IMAGE: load("hf-clip"), TEXT: load("llava", decoder_defaults)}


_PROJECTOR_KEY = re.compile(rf"{TEXT}/model\.mm_projector\.(?:(\d+)\.)?(weight|bias)")


def _spell(config: Config, names: frozenset[str]) -> dict[str, Any]:
    """Both configs in canonical form.

    A plain LLaMA or Mistral says nothing of the tower; it is given what every LLaVA 1.5 has, with as many projector
    layers as there are tensors for.
    """
    text = decoder.spell_hf(config[TEXT], mistral=is_mistral_text(config[TEXT]))
    image = clip.spell_hf(config[IMAGE])
    if isinstance(text.get("mm_vision_select_layer"), list):
        raise ValueError(
            f"{TEXT}.mm_vision_select_layer is a list: CS and llava-hf read one layer of the tower; {KEEP}"
        )
    text.setdefault("mm_hidden_size", image.get("hidden_size", 768))
    # A loader takes the absence of this for true and adds a random row; the checkpoint itself has none.
    text.setdefault("mm_use_im_patch_token", False)
    if is_plain_text(config[TEXT]) and "mm_projector_type" not in text:
        found = [match.groups() for match in map(_PROJECTOR_KEY.fullmatch, names) if match]
        # By weights or by biases, for one of them may have been given another name: that one is to be missed.
        depth = max(sum(end == each for _, end in found) for each in ("weight", "bias")) or 2
        is_linear = bool(found) and all(number is None for number, _ in found)
        text["mm_projector_type"] = "linear" if is_linear else f"mlp{depth}x_gelu"
        text.setdefault("mm_vision_select_layer", -2)
        text.setdefault("mm_vision_select_feature", "patch")
    return {IMAGE: image, TEXT: text}


SPACE = Space(_schemas, _spell)


def advice(config: Config, carried: Config) -> Sequence[str]:
    told = [*clip.advice(config[IMAGE], carried.get(IMAGE) or {}), *rope.advice(config[TEXT], {})]
    original = carried.get(TEXT) or {}
    if is_llava_text(original) and "image_aspect_ratio" not in original:
        told.append(
            "the source's config says no image_aspect_ratio, which LLaVA takes for cropping; what is written for LLaVA "
            "says pad, as LLaVA 1.5 was trained: say square in its config.json if this model was not"
        )
    return told


# What does not touch the weights may differ between a LLaVA config and its language model's own.
MAY_DIFFER = {"max_position_embeddings", "initializer_range"}
# What says which file this is, rather than what the model is.
IDENTITY = {"architectures", "model_type", "transformers_version", "torch_dtype", "dtype", "_name_or_path", "auto_map"}
DECODER_FIELDS = tuple(path for row in decoder.FIELDS if isinstance(row, Rule) for path in row.a)


def with_own_config(llava: Config, own: Config) -> tuple[dict[str, Any], list[str]]:
    """A LLaVA config with what the language model's own config, kept beside it, says of the decoder and it does not."""
    llava, own = rope.unpacked(llava), rope.unpacked(own)
    merged = {**{name: own[name] for name in own if name not in IDENTITY}, **llava}
    ours, theirs = (decoder.spell_hf(config, is_mistral_text(llava)) for config in (merged, own))
    differing = [path for path in DECODER_FIELDS if path in own and ours[path] != theirs[path]]
    for path in differing:
        if path not in MAY_DIFFER:
            raise ValueError(f"{path} is {ours[path]!r} in the one and {theirs[path]!r} in the other")
    return merged, [f"its {path} {theirs[path]!r} is not used, but {ours[path]!r}" for path in differing]
