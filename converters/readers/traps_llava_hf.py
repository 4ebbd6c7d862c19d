"""What transformers makes of a llava-hf checkpoint: names, the image token, the processor, and the projector."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from . import traps_tower
from .traps_files import FAST, PREPROCESSOR, SLOW, token_count, token_id
from .traps_parts import by, features, integer
from .view_transformers import DECODER, PROJECTOR, TOWER_NAMES, Joined

EMBEDDING = "model.embed_tokens.weight"
# What a config that does not say means.
SEQUENCE = 576


# --- names ------------------------------------------------------------------------------------------------------------


def tower_without_prefix(joined: Joined) -> Iterator[str]:
    bare = [
        key for key in joined.folder.tensors if key.startswith(TOWER_NAMES[2:]) and not key.startswith(TOWER_NAMES[:2])
    ]
    if bare:
        yield f"{joined.folder.path}: {bare[0]} and {len(bare) - 1} more lack vision_model. after vision_tower."


def names_of_memory(joined: Joined) -> Iterator[str]:
    found = [key for key in joined.folder.tensors if key.startswith((DECODER[1], PROJECTOR[1], "model.vision_tower."))]
    if found:
        yield f"{joined.folder.path}: {found[0]} and {len(found) - 1} more begin with model."


def of_no_part(joined: Joined) -> Iterator[str]:
    if joined.others:
        more = f" and {len(joined.others) - 1} more" if len(joined.others) > 1 else ""
        yield f"{joined.folder.path}: {joined.others[0]}{more}: no part of the model"


# --- the image token --------------------------------------------------------------------------------------------------


def _rows(joined: Joined) -> int | None:
    embedding = joined.decoder.tensors.get(EMBEDDING) if joined.decoder else None
    return embedding.shape[0] if embedding is not None and embedding.shape else None


def image_token_past_rows(joined: Joined) -> Iterator[str]:
    token, rows = joined.image_token, _rows(joined)
    if token is not None and rows is not None and token >= rows:
        yield f"{joined.where}: image_token_index is {token}, and the embedding has {rows} rows"


def image_token_unknown(joined: Joined) -> Iterator[str]:
    word = str(joined.processor.get("image_token", "<image>"))
    found = token_id(joined.folder, word)
    tokenizer = joined.folder.files(FAST, SLOW)
    if tokenizer and found is None:
        yield f"{joined.folder.path}: the tokenizer has no token {word}"
    elif found is not None and joined.image_token is not None and found != joined.image_token:
        yield f"{joined.where}: image_token_index is {joined.image_token}, but {word} is {found} in the tokenizer"


# --- the processor ----------------------------------------------------------------------------------------------------


def no_processor(joined: Joined) -> Iterator[str]:
    if "processor_config.json" not in joined.folder.names:
        yield f"{joined.folder.at('processor_config.json')} is missing"


def no_image_processor(joined: Joined) -> Iterator[str]:
    if PREPROCESSOR not in joined.folder.names and "image_processor" not in joined.processor:
        yield f"{joined.folder.at(PREPROCESSOR)} is missing"


def image_processor_inside(joined: Joined) -> Iterator[str]:
    if PREPROCESSOR not in joined.folder.names and "image_processor" in joined.processor:
        yield f"{joined.folder.at('processor_config.json')}: alone holds the image processor, without {PREPROCESSOR}"


def additional_tokens(joined: Joined) -> Iterator[str]:
    said = joined.processor.get("num_additional_image_tokens", 0)
    # The class token of CLIP is the one that there is.
    if joined.processor and joined.tower is not None and said != 1:
        yield f"{joined.folder.at('processor_config.json')}: num_additional_image_tokens is {said}"


def other_processor(joined: Joined) -> Iterator[str]:
    if not joined.processor or joined.tower is None:
        return
    patch = joined.tower.full.get("patch_size", [None])[0]
    wanted: dict[str, Any] = {"patch_size": patch, "vision_feature_select_strategy": joined.strategy}
    for name, value in wanted.items():
        if value is not None and joined.processor.get(name) != value:
            said = joined.processor.get(name)
            yield f"{joined.folder.at('processor_config.json')}: {name} is {said!r}, and {value!r} in config.json"


def wrong_crop(joined: Joined) -> Iterator[str]:
    if joined.tower is not None:
        inside = joined.processor.get("image_processor")
        name = PREPROCESSOR if PREPROCESSOR in joined.folder.names else "processor_config.json"
        processor = joined.folder.document(name) if name == PREPROCESSOR else inside
        yield from traps_tower.wrong_crop(joined.folder.at(name), processor, joined.tower)


# --- features ---------------------------------------------------------------------------------------------------------


def layer_out_of_range(joined: Joined) -> Iterator[str]:
    layers = joined.tower.full.get("num_hidden_layers") if joined.tower else None
    if joined.feature_layers is None:
        yield f"{joined.where}: vision_feature_layer is {joined.config.get('vision_feature_layer')!r}"
    elif layers is not None and not all(-layers - 1 <= each <= layers for each in joined.feature_layers):
        said = f"vision_feature_layer is {joined.config.get('vision_feature_layer', -2)}"
        yield f"{joined.where}: {said}, and a tower of {layers} layers has {-layers - 1} to {layers}"


def unknown_strategy(joined: Joined) -> Iterator[str]:
    if joined.strategy not in ("default", "full"):
        yield f"{joined.where}: vision_feature_select_strategy is {joined.strategy!r}"


def other_sequence(joined: Joined) -> Iterator[str]:
    patches = features(joined.tower) if joined.tower else None
    said = integer({"image_seq_length": SEQUENCE, **joined.config}, "image_seq_length")
    if patches is not None and joined.strategy in ("default", "full"):
        taken = patches + (joined.strategy == "full")
        if said != taken:
            yield f"{joined.where}: image_seq_length is {said}, and a picture gives {taken} features"


# --- the projector ----------------------------------------------------------------------------------------------------


def projector_of_other_depth(joined: Joined) -> Iterator[str]:
    found = {key.rpartition(".")[0] for key in joined.projector}
    if joined.folder.tensors and found != {"linear_1", "linear_2"}:
        held = ", ".join(sorted(found)) or "nothing"
        yield f"{joined.folder.path}: multi_modal_projector.* is {held}, where linear_1 and linear_2 should be"


def projector_misshapen(joined: Joined) -> Iterator[str]:
    hidden = joined.decoder.full.get("hidden_size") if joined.decoder else None
    width = joined.tower.full.get("hidden_size") if joined.tower else None
    if hidden is None or width is None or not joined.feature_layers or any(projector_of_other_depth(joined)):
        return
    bias = joined.config.get("multimodal_projector_bias", True)
    wide = width * len(joined.feature_layers)
    for layer, shape in (("linear_1", (hidden, wide)), ("linear_2", (hidden, hidden))):
        for name, expected in (("weight", shape), *([("bias", (hidden,))] if bias else [])):
            ref = joined.projector.get(f"{layer}.{name}")
            if joined.folder.tensors and (ref is None or ref.shape != expected):
                found = "missing" if ref is None else by(ref.shape)
                yield f"multi_modal_projector.{layer}.{name}: {found}, where {by(expected)} is demanded"


def tied_above(joined: Joined) -> Iterator[str]:
    head = joined.decoder.tensors.get("lm_head.weight") if joined.decoder else None
    if joined.config.get("tie_word_embeddings") is True and head is not None:
        yield f"{joined.where}: tie_word_embeddings is true, but there is {head.key}"


def tokens_past_rows(joined: Joined) -> Iterator[str]:
    tokens, rows = token_count(joined.folder, FAST, SLOW, "added_tokens.json"), _rows(joined)
    if tokens is not None and rows is not None and tokens > rows:
        yield f"{joined.folder.path}: the tokenizer has {tokens} tokens, the embedding {rows} rows"
