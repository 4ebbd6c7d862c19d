"""llava-hf: transformers' own LLaVA, `LlavaForConditionalGeneration`, which keeps all parts in one folder.

The names of tensors that are written are those of transformers 4, which every release loads; those of models built in
transformers 5, and those of memory, are read too. The vocabulary has more tokens than the language model's own:
`<image>`, whose embedding is looked up before a picture takes its place, and one for padding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmconvert.configs import Space
from mmconvert.converter import Binding, Format
from mmconvert.paths import ABSENT, get
from mmconvert.rules import (
    ANYTHING,
    ConfigRow,
    Fallback,
    Rule,
    Values,
    const,
    derived,
    group,
    ignored,
)
from mmconvert.schema import Schema, load
from mmconvert.spec import A, B, Config

from . import clip, decoder, llava_hf_files, projector, rope, usage
from .hugging_face import UNTRUSTED, rename_dtype
from .llava_names import Names, is_joined, is_llava_text, is_mistral_text
from .llava_source import LLAVA
from .multimodal import TEXT, Multimodal, Partner

HF, CS = A, B
VISION_CONFIG, TEXT_CONFIG = "vision_config", "text_config"
# What a config that describes no tower means: CLIP-L/14 at 336 pixels.
TOWER: dict[str, Any] = {
    "model_type": "clip_vision_model",
    "hidden_size": 1024,
    "image_size": 336,
    "intermediate_size": 4096,
    "num_attention_heads": 16,
    "num_hidden_layers": 24,
    "patch_size": 14,
    "projection_dim": 768,
}


def is_llava_hf(config: Config) -> bool:
    return config.get("model_type") == "llava" and is_joined(config)


def image_tokens(vision: Config, with_class_token: bool) -> int:
    """How many places in a text a picture takes."""
    side, patch = vision["image_size"], vision["patch_size"]
    return int((side // patch) ** 2) + with_class_token


def _spell(config: Config, names: frozenset[str]) -> dict[str, Any]:
    """The config in canonical form: both parts there, each in the canonical form of its own."""
    spelled = rename_dtype(dict(config))
    if "image_token_id" in spelled:
        spelled.setdefault("image_token_index", spelled.pop("image_token_id"))
    text, vision = spelled.get(TEXT_CONFIG), spelled.get(VISION_CONFIG)
    text, vision = {} if text is None else text, TOWER if vision is None else vision
    for name, part in ((TEXT_CONFIG, text), (VISION_CONFIG, vision)):
        if not isinstance(part, Mapping):
            raise ValueError(f"{name} is no mapping")
    kind = text.get("model_type", "llama")
    if kind not in ("llama", "mistral"):
        raise ValueError(f"{TEXT_CONFIG}.model_type is {kind!r}, which has no counterpart; known: llama, mistral")
    tower = vision.get("model_type", "clip_vision_model")
    if tower != "clip_vision_model":
        raise ValueError(f"{VISION_CONFIG}.model_type is {tower!r}: CLIP is the one tower that is known here")
    spelled[TEXT_CONFIG] = {"model_type": kind, **decoder.spell_hf(text, mistral=kind == "mistral")}
    spelled[VISION_CONFIG] = {"model_type": tower, **clip.spell_hf(vision)}
    return spelled


def _schemas(config: Config) -> Mapping[str, Schema]:
    mistral = is_mistral_text(config[TEXT_CONFIG])
    return {
        "": load("llava-hf"),
        TEXT_CONFIG: load("hf-mistral" if mistral else "hf-llama"),
        VISION_CONFIG: load("hf-clip"),
    }


SPACE = Space(_schemas, _spell)
NAMES = Names(("llama", "LlamaForCausalLM"), ("mistral", "MistralForCausalLM"), path=TEXT_CONFIG)


# --- config rows ------------------------------------------------------------------------------------------------------


def _tokens_to_cs(config: Config) -> Values:
    own, rows = config["image_token_index"], config[TEXT_CONFIG]["vocab_size"]
    if own >= rows:
        raise ValueError(
            f"image_token_index is {own}, but {TEXT_CONFIG}.vocab_size is {rows}: <image> has no row of its own; "
            "give it one with transformers' resize_token_embeddings"
        )
    return {f"{TEXT}.vocab_size": own}


def _tokens_to_hf(config: Config) -> Values:
    return {"image_token_index": config[TEXT]["vocab_size"]}


def _projector(cs: Multimodal) -> Rule:
    def to_cs(config: Config) -> Values:
        if config["projector_hidden_act"] != "gelu":
            raise ValueError(f"projector_hidden_act is {config['projector_hidden_act']!r}; known: gelu")
        inputs, hidden = config[VISION_CONFIG]["hidden_size"], config[TEXT_CONFIG]["hidden_size"]
        return {cs.projection: projector.network(inputs, hidden, 2, config["multimodal_projector_bias"])}

    def to_hf(config: Config) -> Values:
        projection = cs.one_projection(config)
        depth = len(projection["layers_units"])
        if depth != 2:
            kind = "linear" if depth == 1 else f"mlp{depth}x_gelu"
            raise ValueError(
                f"{cs.projection}.layers_units has {depth} linear layers ({kind}), and llava-hf has two: "
                "keep it in LLaVA's layout (`mmconvert convert --to llava`) or in CS's"
            )
        return {"projector_hidden_act": "gelu", "multimodal_projector_bias": projection["use_bias"]}

    return group(["projector_hidden_act", "multimodal_projector_bias"], [cs.projection], to_cs, to_hf)


def _rows(cs: Multimodal) -> tuple[ConfigRow, ...]:
    def sequence(config: Config) -> int:
        tower = get(config, cs.tower)
        square = {name: tower[name][0] for name in ("image_size", "patch_size")}
        return image_tokens(square, with_class_token=get(config, cs.mode) == "cls_patch")

    return (
        group(["image_token_index"], [f"{TEXT}.vocab_size"], _tokens_to_cs, _tokens_to_hf),
        # Its rows follow from the tokens, and some checkpoints have more or fewer.
        derived(
            HF, f"{TEXT_CONFIG}.vocab_size", lambda cs: llava_hf_files.padded(cs[TEXT]["vocab_size"]), also=[ANYTHING]
        ),
        derived(HF, "pad_token_id", lambda cs: cs[TEXT]["vocab_size"] + 1, also=[ANYTHING]),
        # Some configs of 4.x say 575: the patches of the tower less one.
        derived(HF, "image_seq_length", sequence, also=[ANYTHING]),
        # Up to 4.x this was true by default and read nowhere; the decoder's own counts.
        derived(HF, "tie_word_embeddings", lambda cs: cs[TEXT]["share_embedding_weights"], also=[None, ABSENT]),
        _projector(cs),
        Rule((), ("freeze",), lambda _: {"freeze": [cs.freeze]}, lambda _: {}, also=(ANYTHING,)),
        *NAMES.rules(),
        const(HF, "model_type", "llava"),
        const(HF, "architectures", ["LlavaForConditionalGeneration"], also=[ANYTHING]),
        *UNTRUSTED,
        ignored(HF, "ignore_index", "vocab_size", why="no release reads it any more, or it follows from the others"),
        ignored(HF, f"{TEXT_CONFIG}.pad_token_id", why="the token for padding is one that is added here"),
        Fallback(f"{TEXT_CONFIG}.bos_token_id", 1),
        Fallback(f"{TEXT_CONFIG}.eos_token_id", 2),
        Fallback(f"{TEXT_CONFIG}.use_cache", True),
    )


def advice(config: Config, carried: Config) -> Sequence[str]:
    """What a user should know of a model that comes to stand here; `carried` is what it was made from."""
    told = list(rope.advice(config[TEXT_CONFIG], {}))
    original = carried.get(TEXT) or {}
    if not is_llava_text(original) or original.get("image_aspect_ratio") == "pad":
        told.append(
            "LLaVA 1.5 pads pictures to squares and transformers crops them: pictures that are not square are seen "
            "otherwise, unless they are padded before"
        )
    return told


PIECES = "it cuts a picture into several, and CS and LLaVA 1.5 see each in one piece"
LLAVA_HF = Format(
    "llava-hf",
    parts={"": is_llava_hf},
    strangers={
        "llava_next": f"LLaVA 1.6 is not converted: {PIECES}",
        "llava_next_video": "LLaVA-NeXT-Video is not converted: CS and LLaVA 1.5 see pictures, and no films",
        "llava_onevision": f"LLaVA-OneVision is not converted: {PIECES}",
        "video_llava": "Video-LLaVA is not converted: CS and LLaVA 1.5 see pictures, and no films",
        "vipllava": "ViP-LLaVA is not converted: it joins several layers of the tower, and CS and LLaVA read one",
    },
    aliases=(
        ("model.language_model.", "language_model.model."),
        ("lm_head.", "language_model.lm_head."),
        ("model.vision_tower.vision_model.", "vision_tower.vision_model."),
        ("model.vision_tower.", "vision_tower.vision_model."),
        ("vision_tower.", "vision_tower.vision_model."),
        ("model.multi_modal_projector.", "multi_modal_projector."),
    ),
    dtype_fields=("torch_dtype",),
    settle=NAMES.settle,
    usage=usage.llava_hf,
    needs=lambda _: {"tokenizer_config.json": "transformers loads no processor without a tokenizer; pass --tokenizer"},
    binding=Binding(
        home_config=llava_hf_files.home_config,
        own_config=llava_hf_files.own_config,
        has_no_field=llava_hf_files.has_no_field,
        apart=llava_hf_files.apart,
        together=llava_hf_files.together,
    ),
)

PARTNER = Partner(
    form=LLAVA_HF,
    space=SPACE,
    note="LLaVA 1.5 as transformers saves and loads it (LlavaForConditionalGeneration)",
    image=VISION_CONFIG,
    text=TEXT_CONFIG,
    layer="vision_feature_layer",
    mode="vision_feature_select_strategy",
    modes={"default": "patch", "full": "cls_patch"},
    tower_keys="vision_tower.vision_model.",
    projector_table=projector.LLAVA_HF,
    projector_keys="multi_modal_projector.",
    decoder_keys="language_model.model.",
    head_keys="language_model.",
    rows=_rows,
    decoder_rows=[
        row
        for row in (*decoder.FIELDS, decoder.WINDOW_IF_ANY)
        if not (isinstance(row, Rule) and row.a == ("vocab_size",))
    ],
    a_sizes={"V": f"{TEXT_CONFIG}.vocab_size"},
    advice=advice,
    origin=LLAVA,
)
