"""LLaVA as the source repository knows it: two folders, one with CLIP's tower, one with the projector and the decoder.

This is side a of every CS model that joins the two. It has two formats: `llava`, what the LLaVA source repository saves
and loads, and `hf`, the same two folders as transformers loads them one by one, with or without a projector.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mmconvert.configs import Space
from mmconvert.converter import Format, Substitute
from mmconvert.paths import ABSENT
from mmconvert.rules import ANYTHING, ConfigRow, Fallback, Rule, const, derived, limited
from mmconvert.schema import Schema, load
from mmconvert.spec import A, Config, mount

from . import clip, decoder, rope
from .llama import is_llama
from .mistral import is_mistral

HF = A
IMAGE, TEXT = "image_model", "text_model"


def is_llava_text(config: Config) -> bool:
    """A LLaVA text config, by its type; llava-hf says `llava` too, but keeps its parts in one config."""
    kind = config.get("model_type")
    return kind in ("llava", "llava_llama", "llava_mistral") and "text_config" not in config


def is_plain_text(config: Config) -> bool:
    return is_llama(config) or is_mistral(config)


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


# What a CLIP folder may hold beside its tower.
LEFT_BEHIND = (
    mount(clip.TEXT_HALF, part="vision", a=f"{IMAGE}/"),
    mount(clip.NO_CLASSIFIER, part="vision", a=f"{IMAGE}/"),
)


FIELDS: tuple[ConfigRow, ...] = (
    const(HF, f"{IMAGE}.architectures", ["CLIPVisionModel"], also=[ANYTHING]),
    const(HF, f"{TEXT}.mm_use_im_start_end", False),
    const(HF, f"{TEXT}.mm_use_im_patch_token", False),
    # A tower trained into the text checkpoint is read from there; exports always put it into the image folder.
    const(HF, f"{TEXT}.unfreeze_mm_vision_tower", False, also=[True]),
    derived(HF, f"{TEXT}.mm_vision_tower", lambda _: ABSENT, also=[ANYTHING]),
    # LLaVA 1.6 cuts a picture into several and joins their features; CS sees each picture once.
    limited(HF, f"{TEXT}.image_aspect_ratio", None, "pad", "square", why="CS sees each picture once, in one piece"),
    limited(
        HF, f"{TEXT}.mm_patch_merge_type", None, "", "flat", why="CS knows no other order of the patches than flat"
    ),
    limited(HF, f"{TEXT}.s2", None, False, why="CS has no tower of several scales"),
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


@dataclass(frozen=True)
class Names:
    """What the text part is called: (`model_type`, `architectures`) of a LLaMA and of a Mistral."""

    llama: tuple[str, str]
    mistral: tuple[str, str]

    def rules(self) -> tuple[Rule, Rule]:
        """In CS only a sliding window tells a Mistral from a LLaMA."""

        def chosen(cs: Config) -> tuple[str, str]:
            return self.llama if cs[TEXT].get("attention_sliding_window_length") is None else self.mistral

        return (
            derived(HF, f"{TEXT}.model_type", lambda cs: chosen(cs)[0], also=[ANYTHING]),
            derived(HF, f"{TEXT}.architectures", lambda cs: [chosen(cs)[1]], also=[ANYTHING]),
        )

    def settle(self, config: Config, original: Config) -> Config:
        """A Mistral without a window looks like a LLaMA in CS, and is one; the original still knows its name.

        Its window must then be said to be null: left out, it would mean 4096.
        """
        text = config[TEXT]
        if text.get("sliding_window") is not None or not _is_mistral_text(original.get(TEXT) or {}):
            return config
        kind, architecture = self.mistral
        named = {"model_type": kind, "architectures": [architecture], "sliding_window": None}
        return {**config, TEXT: {**text, **named}}


COMPONENT_NAMES = Names(("llama", "LlamaForCausalLM"), ("mistral", "MistralForCausalLM"))
LLAVA_NAMES = Names(("llava_llama", "LlavaLlamaForCausalLM"), ("llava_mistral", "LlavaMistralForCausalLM"))


def _is_mistral_text(text: Config) -> bool:
    return text.get("model_type") in ("mistral", "llava_mistral")


def _schemas(config: Config) -> Mapping[str, Schema]:
    decoder_defaults = "hf-mistral" if _is_mistral_text(config[TEXT]) else "hf-llama"
    return {IMAGE: load("hf-clip"), TEXT: load("llava", decoder_defaults)}


_PROJECTOR_KEY = re.compile(rf"{TEXT}/model\.mm_projector\.(?:(\d+)\.)?(weight|bias)")


def _spell(config: Config, names: frozenset[str]) -> dict[str, Any]:
    """Both configs in canonical form.

    A plain LLaMA or Mistral says nothing of the tower; it is given what every LLaVA 1.5 has, with as many projector
    layers as there are tensors for.
    """
    text = decoder.spell_hf(config[TEXT], mistral=_is_mistral_text(config[TEXT]))
    image = clip.spell_hf(config[IMAGE])
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
    return [*clip.advice(config[IMAGE], carried.get(IMAGE) or {}), *rope.advice(config[TEXT], {})]


def _documents(config: Config) -> Mapping[str, Any]:
    return {f"{IMAGE}/preprocessor_config.json": clip.preprocessor(config[IMAGE])}


def _llava_folders(config: Config) -> Mapping[str, str]:
    mistral = config[TEXT]["model_type"] == "llava_mistral"
    return {IMAGE: "image_model", TEXT: "text_model_llava_mistral" if mistral else "text_model_llava"}


def _llava_needs(config: Config) -> Mapping[str, str]:
    if config[TEXT]["model_type"] == "llava_mistral":
        return {f"{TEXT}/tokenizer_config.json": "LLaVA loads a Mistral's tokenizer by it; pass --tokenizer DIR"}
    return {
        f"{TEXT}/tokenizer.model": "LLaVA 1.2 loads no other tokenizer for a LLaMA; pass --tokenizer DIR "
        "(a LLaMA 3 has none: use it through llava-hf or LLaVA-NeXT)"
    }


ALIASES = (("image_model/", "image_model/vision_model."),)
# What does not touch the weights may differ between a LLaVA config and its language model's own.
MAY_DIFFER = {"max_position_embeddings", "initializer_range"}
# What says which file this is, rather than what the model is.
IDENTITY = {"architectures", "model_type", "transformers_version", "torch_dtype", "dtype", "_name_or_path", "auto_map"}
DECODER_FIELDS = tuple(path for row in decoder.FIELDS if isinstance(row, Rule) for path in row.a)


def _with_own_config(llava: Config, own: Config) -> tuple[dict[str, Any], list[str]]:
    """A LLaVA config with what the language model's own config, kept beside it, says of the decoder and it does not."""
    llava, own = rope.unpacked(llava), rope.unpacked(own)
    merged = {**{name: own[name] for name in own if name not in IDENTITY}, **llava}
    ours, theirs = (decoder.spell_hf(config, _is_mistral_text(llava)) for config in (merged, own))
    differing = [path for path in DECODER_FIELDS if path in own and ours[path] != theirs[path]]
    for path in differing:
        if path not in MAY_DIFFER:
            raise ValueError(f"{path} is {ours[path]!r} in the one and {theirs[path]!r} in the other")
    return merged, [f"its {path} {theirs[path]!r} is not used, but {ours[path]!r}" for path in differing]


# Beside a LLaVA config, the seed layout keeps the language model's own under this name.
COMPANIONS = {TEXT: ("config_lmsys.json", _with_own_config)}
FRAGMENTS = {"mm_projector.bin": "only a projector; put it together with its language model in LLaVA first"}
DTYPES = (f"{IMAGE}.torch_dtype", f"{TEXT}.torch_dtype")
TOKENIZER = (TEXT, f"{TEXT}.vocab_size")
TOWER_IN_TEXT = Substitute(
    prefix=f"{TEXT}/model.vision_tower.vision_tower.",
    instead_of=f"{IMAGE}/",
    flag=f"{TEXT}.unfreeze_mm_vision_tower",
    option="--tower",
    choices=("text", "image"),
)

COMPONENTS = Format(
    "hf",
    parts={IMAGE: clip.is_clip, TEXT: is_plain_text},
    folders=lambda _: {IMAGE: "image_model", TEXT: "text_model"},
    aliases=ALIASES,
    dtype_fields=DTYPES,
    companions=COMPANIONS,
    fragments=FRAGMENTS,
    tower=IMAGE,
    documents=_documents,
    tokenizer=TOKENIZER,
    settle=COMPONENT_NAMES.settle,
)

LLAVA = replace(
    COMPONENTS,
    name="llava",
    parts={IMAGE: clip.is_clip, TEXT: is_llava_text},
    folders=_llava_folders,
    links={f"{TEXT}.mm_vision_tower": IMAGE},
    needs=_llava_needs,
    casts_to_float16=True,
    settle=LLAVA_NAMES.settle,
)

# Both formats of the two folders, what their text part is called, and what they are to people.
FORMATS = (
    (
        COMPONENTS,
        COMPONENT_NAMES,
        "a CLIP tower and a LLaMA, Vicuna or Mistral as two folders, with or without a projector",
    ),
    (LLAVA, LLAVA_NAMES, "LLaVA 1.5 as the LLaVA source repository saves and loads it"),
)
