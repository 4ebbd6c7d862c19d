"""What LLaVA's loader, with transformers 4.37, makes of a language model, its tokenizer, and the lengths of inputs."""

from __future__ import annotations

from collections.abc import Iterator

from mmconvert.tokenizers import unread_config

from .traps_files import ADDED, FAST, SLOW, TOKENIZER_CONFIG, token_count, token_id, tokenizer_json_of_5
from .traps_parts import integer
from .view_llava import Llava, says

# What LLaVA's own tools take for the context where the config has no max_sequence_length.
CONTEXT = 2048


# --- tokens that are added --------------------------------------------------------------------------------------------


def patch_token(llava: Llava) -> Iterator[str]:
    name = "mm_use_im_patch_token"
    if llava.text.config.get(name, True) and token_id(llava.text, "<im_patch>") is None:
        yield from says(llava, name)


def start_and_end(llava: Llava) -> Iterator[str]:
    name = "mm_use_im_start_end"
    if llava.text.config.get(name) and token_id(llava.text, "<im_start>") is None:
        yield from says(llava, name)


def start_and_end_unsaid(llava: Llava) -> Iterator[str]:
    if "mm_use_im_start_end" not in llava.text.config:
        yield from says(llava, "mm_use_im_start_end")


def start_and_end_with_adapter(llava: Llava) -> Iterator[str]:
    if llava.text.config.get("mm_use_im_start_end") and llava.text.config.get("tune_mm_mlp_adapter"):
        yield from says(llava, "mm_use_im_start_end", "is true, and so is tune_mm_mlp_adapter")


# --- the tokenizer and the embedding ----------------------------------------------------------------------------------


def no_slow_tokenizer(llava: Llava) -> Iterator[str]:
    if not llava.mistral and not llava.mpt and SLOW not in llava.text.names:
        yield f"{llava.text.at(SLOW)} is missing"


def needs_protobuf(llava: Llava) -> Iterator[str]:
    name = "tokenizer_config.json"
    if not llava.mistral and not llava.mpt and llava.text.document(name).get("legacy") is False:
        yield f"{llava.text.at(name)}: legacy is false"


def no_tokenizer(llava: Llava) -> Iterator[str]:
    if llava.mistral and not llava.text.files(FAST, SLOW):
        yield f"{llava.text.path}: holds neither {FAST} nor {SLOW}"
    elif llava.mistral and "tokenizer_config.json" not in llava.text.names:
        yield f"{llava.text.at('tokenizer_config.json')} is missing"


def tokenizer_of_5(llava: Llava) -> Iterator[str]:
    """What transformers 4.37 does not read: a list of extra special tokens it passes over, and so is not meant."""
    config = llava.text.document(TOKENIZER_CONFIG)
    for said in unread_config({"tokenizer_class": config.get("tokenizer_class")}):
        yield f"{llava.text.at(TOKENIZER_CONFIG)}: {said}"
    if llava.mistral:
        # Of a LLaMA only tokenizer.model is loaded.
        yield from tokenizer_json_of_5(llava.text)


def rows_cut(llava: Llava) -> Iterator[str]:
    tokens, rows = _tokens_and_rows(llava)
    if tokens < rows:
        yield f"{llava.text.path}: the embedding has {rows} rows, the tokenizer {tokens} tokens"


def rows_invented(llava: Llava) -> Iterator[str]:
    tokens, rows = _tokens_and_rows(llava)
    if tokens > rows:
        yield f"{llava.text.path}: the embedding has {rows} rows, the tokenizer {tokens} tokens"


def _tokens_and_rows(llava: Llava) -> tuple[int, int]:
    """The length of the tokenizer that LLaVA loads, and the embedding's rows; both 0 where either is unknown."""
    tokens = token_count(llava.text, *([FAST] if llava.mistral else []), SLOW, ADDED)
    embedding = llava.decoder.tensors.get("model.embed_tokens.weight")
    if tokens is None or embedding is None or not embedding.shape:
        return 0, 0
    return tokens, embedding.shape[0]


# --- lengths ----------------------------------------------------------------------------------------------------------


def picture_cut(llava: Llava) -> Iterator[str]:
    limit, positions = integer(llava.text.config, "tokenizer_model_max_length"), llava.positions
    if limit is not None and positions is not None and limit <= positions:
        yield from says(llava, "tokenizer_model_max_length", f"is {limit}, and a picture takes {positions} positions")


def inputs_cut(llava: Llava) -> Iterator[str]:
    limit, most = integer(llava.text.config, "tokenizer_model_max_length"), _positions(llava)
    if limit is not None and limit < min(most, CONTEXT) and not any(picture_cut(llava)):
        yield from says(llava, "tokenizer_model_max_length", f"is {limit}, and max_position_embeddings {most}")


def context(llava: Llava) -> Iterator[str]:
    if "max_sequence_length" not in llava.text.config and _positions(llava) > CONTEXT:
        said = f"is absent, and max_position_embeddings {_positions(llava)}"
        yield from says(llava, "max_sequence_length", said)


def _positions(llava: Llava) -> int:
    return int(llava.decoder.full.get("max_position_embeddings", 0))


# --- what else the config says ----------------------------------------------------------------------------------------


def norm_eps_unsaid(llava: Llava) -> Iterator[str]:
    if "rms_norm_eps" not in llava.text.config:
        yield from says(llava, "rms_norm_eps")


def rope_refused(llava: Llava) -> Iterator[str]:
    """A scaling that LlamaConfig of transformers 4.37 refuses; its MistralConfig reads none."""
    scaling = llava.text.config.get("rope_scaling")
    if scaling is None or llava.mistral:
        return
    known = isinstance(scaling, dict) and scaling.keys() == {"type", "factor"}
    if not known or scaling["type"] not in ("linear", "dynamic") or not _is_above_one(scaling["factor"]):
        yield from says(llava, "rope_scaling")


def _is_above_one(factor: object) -> bool:
    return isinstance(factor, float) and factor > 1


def cast(llava: Llava) -> Iterator[str]:
    for folder in llava.folders:
        types = {ref.dtype.name for ref in folder.tensors.values() if ref.dtype.is_float} - {"float16"}
        if types:
            yield f"{folder.path}: holds {' and '.join(sorted(types))} weights"
