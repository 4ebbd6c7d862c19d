"""transformers as a reader, 4.36 to 5: LLaMA, Mistral, CLIP's vision tower, and llava-hf, which joins them.

A checkpoint that one release reads rightly may come out random in another. It is an error where the newest releases
fail, or where any fails in silence; where only early ones fail, and say so, it is a warning.
"""

from __future__ import annotations

from collections.abc import Iterator

from mmconvert.diagnosis import Patient, Reader, Trap, error, every, warning

from ..llava_names import is_llava_text
from . import traps_files, traps_llava_hf, traps_parts, traps_tower
from .traps_files import FAST, SLOW
from .traps_parts import Part
from .view_cs import holds_cs
from .view_transformers import Joined, Models

LAYOUT = "`mmconvert convert --src {path} --to hf --out NEW`"
JOINED = "`mmconvert convert --src {path} --to llava-hf --out NEW`"
TOWER = "`mmconvert convert --src {path} --model clip-encoder --to hf --out NEW`"


def claims(patient: Patient) -> bool:
    """A folder with a config that is not LLaVA's own."""
    return "config.json" in patient.names and not holds_cs(patient) and not is_llava_text(patient.config)


def folders(models: Models) -> Iterator[Patient]:
    yield from models.folders


def tower_folders(models: Models) -> Iterator[Patient]:
    return models.tower_folders


def joined(models: Models) -> Iterator[Joined]:
    yield from models.joined


def decoders(models: Models) -> Iterator[Part]:
    yield from models.decoders


def parts(models: Models) -> Iterator[Part]:
    yield from models.decoders
    yield from models.towers


# --- small looks ------------------------------------------------------------------------------------------------------


def _cs(models: Models) -> Iterator[str]:
    if holds_cs(models.patient):
        yield f"{models.patient.path}: is a CS checkpoint"


def _llava_source(models: Models) -> Iterator[str]:
    for folder in models.folders:
        if is_llava_text(folder.config):
            kind = folder.config["model_type"]
            yield f"{folder.at('config.json')}: model_type {kind!r} of the LLaVA source repository"


def _adapter(models: Models) -> Iterator[str]:
    for folder in models.folders:
        if not folder.weight_files and "adapter_config.json" in folder.names:
            yield f"{folder.path}: is a LoRA adapter"


def _unknown(models: Models) -> Iterator[str]:
    known = [*models.decoder_folders, *models.tower_folders, *(each.folder for each in models.joined)]
    for folder in models.folders:
        if folder not in known:
            yield f"{folder.at('config.json')}: model_type is {folder.config.get('model_type')!r}"


def _new_dtype(folder: Patient) -> Iterator[str]:
    if "dtype" in folder.config and "torch_dtype" not in folder.config:
        yield f"{folder.at('config.json')}: has dtype in place of torch_dtype"


def _talking_folders(models: Models) -> Iterator[Patient]:
    yield from _decoder_folders(models)
    yield from _joined_folders(models)


def _decoder_folders(models: Models) -> Iterator[Patient]:
    yield from models.decoder_folders


def _joined_folders(models: Models) -> Iterator[Patient]:
    yield from (each.folder for each in models.joined)


def _no_tokenizer(folder: Patient) -> Iterator[str]:
    if not folder.files(FAST, SLOW):
        yield f"{folder.path}: holds neither {FAST} nor {SLOW}"


def _slow_tokenizer(folder: Patient) -> Iterator[str]:
    if SLOW in folder.names and FAST not in folder.names:
        yield f"{folder.at(SLOW)} lies there without {FAST}"


def _tokens_past_rows(folder: Patient) -> Iterator[str]:
    tokens = traps_files.token_count(folder, FAST, SLOW, traps_files.ADDED)
    embedding = folder.tensors.get("model.embed_tokens.weight")
    if tokens is not None and embedding is not None and embedding.shape and tokens > embedding.shape[0]:
        yield f"{folder.path}: the tokenizer has {tokens} tokens, the embedding {embedding.shape[0]} rows"


def _crop(models: Models) -> Iterator[str]:
    for folder, tower in zip(models.tower_folders, models.towers, strict=False):
        name = traps_files.PREPROCESSOR
        yield from traps_tower.wrong_crop(folder.at(name), folder.document(name), tower)


# --- the table --------------------------------------------------------------------------------------------------------

# fmt: off
KIND: tuple[Trap[Models], ...] = (
    error("cs-checkpoint", _cs,
          why="transformers reads no such files",
          mend="`mmconvert cs-to-hf --src {path} --out NEW`",
          decisive=True),
    error("llava-source", _llava_source,
          why="transformers does not know it, or takes it for its own LLaVA and builds another model",
          mend="`mmconvert llava-to-hf --src {path} --out NEW`",
          decisive=True),
    error("lora", _adapter,
          why="transformers loads it together with its base model only",
          mend="merge it into its base model with peft, and save the whole",
          decisive=True),
    warning("unknown-model", _unknown,
          why="its traps are not known here, and only its files were looked at",
          mend="load it with transformers once, and look for warnings of missing weights"),
)

FILES: tuple[Trap[Models], ...] = (
    error("no-weights", every(folders, traps_files.no_weights),
          why="transformers stops there",
          mend="copy model.safetensors, or its shards and index, from where the model was saved"),
    warning("safetensors-metadata", every(folders, traps_files.foreign_safetensors),
          why='early releases of transformers 4, such as 4.37, stop at a header without {"format": "pt"}',
          mend=f"{LAYOUT} (of a tower alone with --model clip-encoder)"),
    error("index-metadata", every(folders, traps_files.index_without_metadata),
          why="transformers stops at an index without it",
          mend='add "metadata": {} to the index'),
    warning("second-weights", every(folders, traps_files.second_weights),
          why="the safetensors are read, and the other file is not",
          mend="remove the file that is not meant"),
)

LLAVA_HF: tuple[Trap[Models], ...] = (
    error("tower-without-prefix", every(joined, traps_llava_hf.tower_without_prefix),
          why="transformers 4 does not find them, and fills the tower with random numbers with no more than a warning",
          mend=f"{JOINED}, or use transformers 5 alone"),
    error("names-of-memory", every(joined, traps_llava_hf.names_of_memory),
          why="the first releases with LLaVA, such as 4.37, do not find them, and fill the model with random numbers",
          mend=JOINED),
    warning("tensors-of-no-part", every(joined, traps_llava_hf.of_no_part),
          why="transformers drops them with a warning",
          mend="remove them, or load the folder as the model that they belong to"),
    error("image-token", every(joined, traps_llava_hf.image_token_past_rows),
          why="transformers looks the image token up in the embedding before it puts features in its place, and fails",
          mend="add the token to the tokenizer and a row to the embedding, and set image_token_index to its id"),
    error("image-token-unknown", every(joined, traps_llava_hf.image_token_unknown),
          why="no place is kept for a picture's features, and transformers fails at the first one",
          mend="add the token to the tokenizer, and set image_token_index in config.json to its id"),
    error("processor-absent", every(joined, traps_llava_hf.no_processor),
          why="later releases of transformers 4, and 5, cannot count a picture's placeholders without it",
          mend=JOINED),
    error("processor-without-tokenizer", every(_joined_folders, _no_tokenizer),
          why="transformers loads no processor without a tokenizer",
          mend="`mmconvert convert --src {path} --to llava-hf --tokenizer DIR --out NEW`, where DIR holds the language "
          "model's"),
    error("tokenizer-too-new", every(_joined_folders, traps_files.tokenizer_of_5),
          why="transformers 4 stops at the tokenizer",
          mend=JOINED),
    warning("tokenizer-json-too-new", every(_joined_folders, traps_files.tokenizer_json_of_5),
          why="early releases of transformers 4, such as 4.37, stop at the tokenizer",
          mend=JOINED),
    error("image-processor-absent", every(joined, traps_llava_hf.no_image_processor),
          why="transformers stops at the image processor",
          mend=f"{JOINED} writes CLIP's own"),
    warning("image-processor-inside", every(joined, traps_llava_hf.image_processor_inside),
          why="early releases of transformers 4, such as 4.37, do not look for it there, and stop",
          mend=JOINED),
    error("additional-image-tokens", every(joined, traps_llava_hf.additional_tokens),
          why="a picture gets another number of placeholders than CLIP, with its class token, gives features",
          mend=JOINED),
    error("processor-differs", every(joined, traps_llava_hf.other_processor),
          why="a picture gets another number of placeholders than features",
          mend=JOINED),
    error("feature-layer", every(joined, traps_llava_hf.layer_out_of_range),
          why="transformers fails at the first picture",
          mend="set vision_feature_layer in config.json to the layer that the projector was trained on, usually -2"),
    error("feature-strategy", every(joined, traps_llava_hf.unknown_strategy),
          why="transformers knows default and full, and stops",
          mend="set vision_feature_select_strategy to default in config.json"),
    warning("image-sequence-length", every(joined, traps_llava_hf.other_sequence),
          why="programs that count on it keep the wrong number of places for a picture",
          mend=JOINED),
    error("projector-depth", every(joined, traps_llava_hf.projector_of_other_depth),
          why="transformers builds two layers, fills what is missing with random numbers, and drops the rest",
          mend="use a model with another projector through LLaVA's own repository"),
    error("projector-shape", every(joined, traps_llava_hf.projector_misshapen),
          why="transformers stops, or fills it with random numbers",
          mend="take the projector that was trained with this tower and this language model"),
    error("head-tied", every(joined, traps_llava_hf.tied_above),
          why="transformers 4 overwrites it by the embedding; 5 keeps both where they differ",
          mend="set tie_word_embeddings to false in config.json, which is right even where both are equal"),
    error("tokens-past-rows", every(joined, traps_llava_hf.tokens_past_rows),
          why="transformers fails at the first token that has no row",
          mend="copy the tokenizer that the model was trained with, or add rows to the embedding"),
    error("crop-size", every(joined, traps_llava_hf.wrong_crop),
          why="transformers fails at the first picture",
          mend="set size and crop_size of the image processor to the tower's image_size"),
)

PARTS: tuple[Trap[Models], ...] = (
    error("tower-without-prefix", every(tower_folders, traps_tower.unprefixed),
          why="transformers 4 does not find them, and fills the tower with random numbers with no more than a warning",
          mend=f"{TOWER}, or use transformers 5 alone"),
    warning("preprocessor-absent", every(tower_folders, traps_tower.no_preprocessor),
          why="the tower loads, but no image processor does",
          mend="copy preprocessor_config.json from the model that the tower was made from"),
    error("crop-size", _crop,
          why="transformers fails at the first picture",
          mend="set size and crop_size in preprocessor_config.json to the tower's image_size"),
    warning("tokenizer-absent", every(_decoder_folders, _no_tokenizer),
          why="the model loads, but no tokenizer does",
          mend="copy the tokenizer's files from the model that this one was made from"),
    warning("tokenizer-slow", every(_talking_folders, _slow_tokenizer),
          why="transformers 5 reads it only where protobuf is installed",
          mend="install protobuf, or save the tokenizer again to get a tokenizer.json"),
    error("tokenizer-too-new", every(_decoder_folders, traps_files.tokenizer_of_5),
          why="transformers 4 stops at the tokenizer",
          mend="in tokenizer_config.json, set tokenizer_class to PreTrainedTokenizerFast, and rename "
          "extra_special_tokens to additional_special_tokens, which 5 reads too"),
    warning("tokenizer-json-too-new", every(_decoder_folders, traps_files.tokenizer_json_of_5),
          why="early releases of transformers 4, such as 4.37, stop at the tokenizer",
          mend="use a later release, such as 4.57"),
    error("tokens-past-rows", every(_talking_folders, _tokens_past_rows),
          why="transformers fails at the first token that has no row",
          mend="copy the tokenizer that the model was trained with, or add rows to the embedding"),
    error("rope-parameters", every(decoders, traps_parts.rope_lost),
          why="transformers 4 does not read that and rotates otherwise",
          mend="set rope_theta and rope_scaling in config.json as well"),
    warning("head-dim", every(decoders, traps_parts.other_head_dim),
          why="early releases of transformers 4 do not read head_dim and fail",
          mend="use a release that reads it"),
    error("key-value-heads", every(decoders, traps_parts.grouped_in_silence),
          why="transformers stops at the shapes",
          mend="set num_key_value_heads in config.json"),
    error("head-tied", every(decoders, traps_parts.tied_head),
          why="transformers 4 overwrites it by the embedding; 5 keeps both where they differ",
          mend="set tie_word_embeddings to false in config.json, which is right even where both are equal"),
    warning("new-spelling", every(decoders, traps_parts.new_spelling),
          why="transformers 4 does not read that; its defaults happen to say the same",
          mend="set rope_theta and rope_scaling in config.json as well"),
    warning("new-dtype", every(folders, _new_dtype),
          why="early releases of transformers 4, such as 4.37, do not read that",
          mend="rename dtype to torch_dtype in config.json, which all releases read"),
    error("config-invalid", every(parts, traps_parts.unsound),
          why="no model can be built from that",
          mend="correct the field in config.json"),
    error("tensors-missing", every(parts, traps_parts.missing),
          why="transformers fills them with random numbers, with no more than a warning",
          mend="copy the weights again from where the model was saved, or correct the sizes in config.json"),
    error("tensor-shapes", every(parts, traps_parts.misshapen),
          why="transformers stops there",
          mend="correct the sizes in config.json, or copy the weights that belong to it"),
    error("tensor-types", every(parts, traps_parts.not_floats),
          why="a quantised model needs its scales, and the config to say so",
          mend="take the weights that they were made from"),
    warning("tensors-unused", every(parts, traps_parts.unexpected),
          why="transformers drops them with a warning",
          mend="remove them, or correct the sizes in config.json if they are meant"),
)
# fmt: on

READERS = (Reader("transformers", "transformers (4.36 to 5)", claims, Models, (*KIND, *FILES, *LLAVA_HF, *PARTS)),)
