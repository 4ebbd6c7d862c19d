"""LLaVA as the source repository knows it: two folders, one with CLIP's tower, one with the projector and the decoder.

This is side a of every CS model that joins the two. It has two formats: `llava`, what the LLaVA source repository saves
and loads, and `hf`, the same two folders as transformers loads them one by one, with or without a projector.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mmconvert.converter import Alone, Format, Substitute
from mmconvert.spec import Config, mount
from mmconvert.tokenizers import for_older_releases

from . import clip, llava_config, projector, usage
from .llava_names import (
    COMPONENT_NAMES,
    IMAGE,
    LLAVA_NAMES,
    Names,
    is_llava_text,
    is_llavas_own,
    is_mistral_text,
    is_plain_text,
)
from .multimodal import TEXT, Partner

# What a CLIP folder may hold beside its tower.
LEFT_BEHIND = (
    mount(clip.TEXT_HALF, part="vision", a=f"{IMAGE}/"),
    mount(clip.NO_CLASSIFIER, part="vision", a=f"{IMAGE}/"),
)


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
# Beside a LLaVA config, the seed layout keeps the language model's own under this name.
COMPANIONS = {TEXT: ("config_lmsys.json", llava_config.with_own_config)}
ONLY_A_PROJECTOR = "only a projector; put it together with its language model in LLaVA first"
FRAGMENTS = dict.fromkeys(("mm_projector.bin", "mm_projector.safetensors"), ONLY_A_PROJECTOR)
DTYPES = (f"{IMAGE}.torch_dtype", f"{TEXT}.torch_dtype")
TOKENIZER = (TEXT, f"{TEXT}.vocab_size")
TOWER_IN_TEXT = Substitute(
    prefix=f"{TEXT}/model.vision_tower.vision_tower.",
    instead_of=f"{IMAGE}/",
    flag=f"{TEXT}.unfreeze_mm_vision_tower",
    option="--tower",
    choices=("text", "image"),
)


def _language_model(config: Config) -> Config:
    """The decoder's own config, as transformers knows it."""
    text = {name: value for name, value in config[TEXT].items() if not is_llavas_own(name)}
    return {**text, **_named(config, COMPONENT_NAMES)}


def _for_projector(config: Config) -> Config:
    """LLaVA's config, which it reads beside a projector alone."""
    return {**config[TEXT], **_named(config, LLAVA_NAMES)}


def _named(config: Config, names: Names) -> Config:
    kind, architecture = names.mistral if is_mistral_text(config[TEXT]) else names.llama
    return {"model_type": kind, "architectures": [architecture]}


ALONE = {
    "vision": Alone(IMAGE, lambda config: config[IMAGE], usage=usage.tower),
    "text": Alone(TEXT, _language_model, usage=usage.decoder),
    # As LLaVA's trainer saves it, and loads it together with its language model.
    "projector": Alone(
        TEXT,
        _for_projector,
        weights="mm_projector",
        container="bin",
        whole=False,
        tower="mm_vision_tower",
        beside="../image_model",
        usage=usage.projector,
    ),
}

COMPONENTS = Format(
    "hf",
    parts={IMAGE: clip.is_clip, TEXT: is_plain_text},
    folders=lambda _: {IMAGE: "image_model", TEXT: "text_model"},
    aliases=ALIASES,
    dtype_fields=DTYPES,
    companions=COMPANIONS,
    fragments=FRAGMENTS,
    tower=IMAGE,
    alone=ALONE,
    usage=usage.components,
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
    tokenizer_files=for_older_releases,
    casts_to_float16=True,
    usage=usage.llava,
    settle=LLAVA_NAMES.settle,
)


def _partner(form: Format, names: Names, note: str) -> Partner:
    return Partner(
        form=form,
        space=llava_config.SPACE,
        note=note,
        image=IMAGE,
        text=TEXT,
        layer=f"{TEXT}.mm_vision_select_layer",
        mode=f"{TEXT}.mm_vision_select_feature",
        modes={"patch": "patch", "cls_patch": "cls_patch"},
        tower_keys=f"{IMAGE}/vision_model.",
        projector_table=projector.LLAVA,
        projector_keys=f"{TEXT}/model.",
        decoder_keys=f"{TEXT}/model.",
        head_keys=f"{TEXT}/",
        rows=lambda cs: (*llava_config.rows(cs), *names.rules()),
        left_behind=LEFT_BEHIND,
        advice=llava_config.advice,
        substitutes=(TOWER_IN_TEXT,),
    )


# Both formats of the two folders, and what they are to people.
PARTNERS = (
    _partner(
        COMPONENTS,
        COMPONENT_NAMES,
        "a CLIP tower and a LLaMA, Vicuna or Mistral as two folders, with or without a projector",
    ),
    _partner(LLAVA, LLAVA_NAMES, "LLaVA 1.5 as the LLaVA source repository saves and loads it"),
)
