"""The LLaVA source repository as a reader: its `load_pretrained_model`, LLaVA 1.2.2 with transformers 4.37.2.

It fills what is missing with random numbers and only warns, checks no shape, and casts everything to float16; so what
it would not notice is noticed here.
"""

from __future__ import annotations

from collections.abc import Iterator

from mmconvert.diagnosis import Patient, Reader, Trap, error, every, warning

from .. import clip
from ..llava_names import is_llava_text, is_plain_text
from . import traps_files, traps_parts, traps_tower
from . import traps_llava_folder as folder
from . import traps_llava_text as text
from . import traps_llava_vision as vision
from .traps_parts import Part
from .view_cs import holds_cs
from .view_llava import Llava

AGAIN = "`mmconvert convert --src {path} --to llava --out NEW`"
TOKENIZER = "`mmconvert convert --src {path} --to llava --tokenizer DIR --out NEW`"
RELOCATE = "`mmconvert relocate {path}`"
NAME_TOWER = "`mmconvert relocate {path} --tower-path DIR`, where DIR is the folder of CLIP's vision tower"


def claims(patient: Patient) -> bool:
    """A LLaVA text folder, or a folder that holds a tower and a language model side by side."""
    if holds_cs(patient):
        return False
    if "config.json" in patient.names:
        return is_llava_text(patient.config)
    configs = [folder.config for folder in patient.folders.values() if "config.json" in folder.names]
    texts = [config for config in configs if is_llava_text(config) or is_plain_text(config)]
    return any(map(is_llava_text, texts)) or (bool(texts) and any(map(clip.is_clip, configs)))


def folders(llava: Llava) -> Iterator[Patient]:
    return llava.folders


def tower_folders(llava: Llava) -> Iterator[Patient]:
    if llava.tower is not None and llava.tower_folder is not None:
        yield llava.tower_folder


def decoder(llava: Llava) -> Iterator[Part]:
    yield llava.decoder


def parts(llava: Llava) -> Iterator[Part]:
    yield llava.decoder
    yield from llava.towers


# fmt: off
KIND: tuple[Trap[Llava], ...] = (
    error("cs-checkpoint", folder.is_cs,
          why="LLaVA reads no such files",
          mend="`mmconvert cs-to-llava --src {path} --out NEW`",
          decisive=True),
    error("lora-of-mistral", folder.adapter_of_mistral,
          why="LLaVA puts adapters and projectors on a LLaMA only",
          mend="merge it into its base model where it was trained"),
    error("lora-name", folder.adapter_name,
          why="LLaVA then looks for an mm_projector.bin and stops",
          mend="rename the folder, such as to llava-lora"),
    error("lora-without-projector", folder.adapter_without_trainables,
          why="LLaVA asks the hub for it",
          mend="copy it from where the adapter was trained"),
    error("lora", folder.is_adapter,
          why="LLaVA loads it together with its base model only",
          mend="pass --model-base to LLaVA; or merge the adapter with LLaVA's merge_lora_weights.py",
          decisive=True),
    error("projector-only", folder.is_projector,
          why="LLaVA loads it together with its language model only",
          mend="pass --model-base to LLaVA; or load it so and save the whole model",
          decisive=True),
    error("llava-hf", folder.is_joined,
          why="LLaVA finds neither its fields nor its tensors there",
          mend="`mmconvert hf-to-llava --src {path} --out NEW`",
          decisive=True),
    error("no-llava", folder.is_no_llava,
          why="LLaVA has nothing to load",
          mend="`mmconvert convert --src BOTH --to llava --out NEW`, where BOTH holds a tower and a language model",
          decisive=True),
)

NAMES: tuple[Trap[Llava], ...] = (
    error("name-without-llava", folder.name_without_llava,
          why="LLaVA then loads a language model without a tower, or nothing",
          mend="rename the folder, such as to text_model_llava"),
    error("name-with-mpt", folder.name_with_mpt,
          why="LLaVA then builds an MPT",
          mend="rename the folder, such as to text_model_llava"),
    error("name-of-another-class", folder.other_class,
          why="LLaVA chooses LLaMA or Mistral by the name alone; they differ in defaults and past the sliding window",
          mend="rename the folder: text_model_llava_mistral for a Mistral, text_model_llava for a LLaMA"),
    warning("name-of-another-class-alike", folder.other_class_alike,
          why="LLaVA chooses the class and its tokenizer by the name alone; these weights compute the same in either",
          mend="rename the folder: text_model_llava_mistral for a Mistral, text_model_llava for a LLaMA"),
    warning("name-with-lora", folder.name_with_lora,
          why="LLaVA takes whole models of that name for adapters once --model-base is given, and warns without",
          mend="rename the folder without the word lora"),
    warning("model-type-llava", folder.type_of_transformers,
          why="that is the name of transformers' own LLaVA: whatever loads by it builds another model",
          mend="set model_type to llava_llama, or llava_mistral, in config.json"),
    warning("model-type", folder.other_type,
          why="LLaVA's loader does not mind, but whatever loads by it builds a plain language model or stops",
          mend="set model_type to llava_llama, or llava_mistral, in config.json"),
)

VISION: tuple[Trap[Llava], ...] = (
    error("tower-unnamed", vision.no_name,
          why="LLaVA then builds no tower and no projector, and stops",
          mend=NAME_TOWER),
    error("tower-not-found", vision.not_found,
          why='LLaVA stops at it with "Unknown vision tower"',
          mend=f"{RELOCATE} if it lies beside, or {NAME_TOWER}"),
    warning("tower-on-hub", vision.on_hub,
          why="LLaVA takes it for a name on the hub: it fails offline, and no tower beside the folder is used",
          mend=f"{RELOCATE} if it lies beside, or {NAME_TOWER}"),
    warning("tower-relative", vision.relative,
          why="LLaVA looks from the directory that it was started in",
          mend=RELOCATE),
    warning("tower-elsewhere", vision.elsewhere,
          why="LLaVA uses the one that is named, even where the folder is a copy that has its own",
          mend=f"{RELOCATE} takes the one beside; remove that if it is not meant"),
    error("tower-of-another-kind", vision.no_tower,
          why="LLaVA loads CLIP's vision model and fills what it misses with random numbers, or stops",
          mend=NAME_TOWER),
    error("tower-without-prefix", every(tower_folders, traps_tower.unprefixed),
          why="transformers before 5 does not find them, and LLaVA gets a random tower with no more than a warning",
          mend=AGAIN),
    error("tower-without-preprocessor", every(tower_folders, traps_tower.no_preprocessor),
          why="LLaVA stops at the image processor",
          mend=f"{AGAIN} writes CLIP's own"),
    error("crop-size", vision.wrong_crop,
          why="LLaVA fails at the first picture",
          mend="set size and crop_size in preprocessor_config.json to the tower's image_size"),
    error("unfrozen-tower-missing", vision.unfrozen_without,
          why="LLaVA then leaves the tower as uninitialised memory, whatever its own folder holds",
          mend="set unfreeze_mm_vision_tower to false in config.json"),
    warning("tower-in-text-ignored", vision.ignored_in_text,
          why="LLaVA uses the tower in its own folder, even where this one was trained",
          mend="`mmconvert convert --src {path} --to llava --tower text --out NEW` if it was, `--tower image` if not"),
    error("select-layer-absent", vision.no_layer,
          why="LLaVA stops without it",
          mend="set mm_vision_select_layer in config.json to the layer that the projector was trained on, usually -2"),
    error("select-layer-range", vision.layer_out_of_range,
          why="LLaVA fails at the first picture",
          mend="set mm_vision_select_layer in config.json to the layer that the projector was trained on, usually -2"),
    error("select-feature", vision.unknown_feature,
          why="LLaVA knows patch and cls_patch, and fails at the first picture",
          mend="set mm_vision_select_feature to patch in config.json"),
    error("hidden-size-absent", vision.no_width,
          why="LLaVA cannot build the projector and stops",
          mend="set mm_hidden_size in config.json to the tower's hidden_size"),
    warning("hidden-size-wrong", vision.other_width,
          why="LLaVA checks no shape and uses the projector as it lies; what checks shapes refuses it",
          mend="set mm_hidden_size in config.json to the tower's hidden_size"),
    warning("several-scales", vision.several_scales,
          why="LLaVA needs the package s2wrapper for a tower of several scales",
          mend="install s2wrapper, or set s2 to false in config.json if the projector was not trained so"),
    error("grid-absent", vision.no_grid,
          why="LLaVA fails at the first picture",
          mend="set image_grid_pinpoints in config.json, or image_aspect_ratio to pad"),
    warning("aspect-ratio-absent", vision.no_aspect_ratio,
          why="LLaVA then crops pictures, where LLaVA 1.5 was trained on padded ones",
          mend="set image_aspect_ratio to pad in config.json, if the model was trained so"),
    error("newline-missing", vision.no_newline,
          why="LLaVA leaves it as uninitialised memory",
          mend="set mm_patch_merge_type to flat in config.json, or copy the tensor from where the model was trained"),
    error("projector-type-absent", vision.projector_unsaid,
          why="LLaVA then builds a random linear one and drops these",
          mend="set mm_projector_type in config.json, such as to mlp2x_gelu for two layers"),
    error("projector-type-unknown", vision.projector_unknown,
          why="LLaVA knows linear, identity and mlp2x_gelu, mlp3x_gelu, ..., and stops",
          mend="set mm_projector_type in config.json, such as to mlp2x_gelu for two layers"),
    error("projector-depth", vision.projector_of_other_depth,
          why="LLaVA fills layers that are missing with random numbers and drops those that are too many",
          mend="set mm_projector_type in config.json, such as to mlp2x_gelu for two layers"),
    error("projector-missing", vision.projector_missing,
          why="LLaVA fills it with random numbers",
          mend="`mmconvert convert --src {path} --to llava --init projector=uniform:0 --out NEW` to start a training"),
    error("projector-shape", vision.projector_misshapen,
          why="LLaVA fails at the first picture, or computes with random numbers",
          mend="take the projector that was trained with this tower and this language model"),
)

TEXT: tuple[Trap[Llava], ...] = (
    error("im-patch-token", text.patch_token,
          why="LLaVA takes that for true and adds the token <im_patch>, with random rows",
          mend="set mm_use_im_patch_token to false in config.json"),
    error("im-start-end", text.start_and_end,
          why="LLaVA adds the tokens <im_start> and <im_end>, which the tokenizer lacks, with random rows",
          mend="set mm_use_im_start_end to false in config.json, or copy the tokenizer it was trained with"),
    warning("im-start-end-absent", text.start_and_end_unsaid,
          why="the loader does not mind, but LLaVA's cli.py and run_llava.py stop without it",
          mend="set mm_use_im_start_end to false in config.json"),
    error("im-start-end-with-adapter", text.start_and_end_with_adapter,
          why="LLaVA raises NotImplementedError at the first picture",
          mend="set tune_mm_mlp_adapter to false in config.json"),
    error("tokenizer-model", text.no_slow_tokenizer,
          why="LLaVA loads no other tokenizer for a LLaMA (a LLaMA 3 has none: use it through llava-hf)",
          mend=f"{TOKENIZER}, where DIR holds a tokenizer.model"),
    warning("tokenizer-not-legacy", text.needs_protobuf,
          why="LLaVA then needs the package protobuf, which it does not install",
          mend="install protobuf"),
    error("tokenizer-of-mistral", text.no_tokenizer,
          why="LLaVA cannot load the tokenizer",
          mend=f"{TOKENIZER}, where DIR holds a Mistral's tokenizer files"),
    error("tokenizer-too-new", text.tokenizer_of_5,
          why="transformers 4.37 does not know that, and LLaVA stops at the tokenizer",
          mend=AGAIN),
    warning("rows-cut", text.rows_cut,
          why="LLaVA cuts off the rows past the tokenizer's tokens without a word",
          mend=f"{TOKENIZER}, where DIR holds the tokenizer that the model was trained with"),
    error("rows-invented", text.rows_invented,
          why="LLaVA adds random rows without a word",
          mend=f"{TOKENIZER}, where DIR holds the tokenizer that the model was trained with"),
    error("picture-cut", text.picture_cut,
          why="LLaVA cuts inputs there, and no text after a picture is left",
          mend="set tokenizer_model_max_length in config.json to max_position_embeddings"),
    warning("inputs-cut", text.inputs_cut,
          why="LLaVA cuts inputs there, pictures included",
          mend="set tokenizer_model_max_length in config.json to max_position_embeddings"),
    warning("context", text.context,
          why=f"LLaVA's tools then take {text.CONTEXT} for the context",
          mend="set max_sequence_length in config.json to max_position_embeddings"),
    warning("norm-eps-absent", text.norm_eps_unsaid,
          why="that means 1e-6, where LLaVA 1.5 and LLaMA 2 have 1e-5",
          mend="set rms_norm_eps in config.json to what the language model was trained with"),
    error("rope-scaling", text.rope_refused,
          why="transformers 4.37 stops at all but a type (linear or dynamic) with a factor (a float above 1)",
          mend="spell a linear scaling as type and factor in config.json; use others through llava-hf"),
    error("rope-parameters", every(decoder, traps_parts.rope_lost),
          why="transformers before 5 does not read that and rotates otherwise",
          mend="set rope_theta and rope_scaling in config.json"),
    error("head-dim", every(decoder, traps_parts.other_head_dim),
          why="transformers 4.37 does not read head_dim, and LLaVA fails at the first input",
          mend="use the model through a newer transformers"),
    error("key-value-heads", every(decoder, traps_parts.grouped_in_silence),
          why="LLaVA checks no shape and fails at the first input",
          mend="set num_key_value_heads in config.json"),
    error("head-tied", every(decoder, traps_parts.tied_head),
          why="transformers overwrites it by the embedding",
          mend="set tie_word_embeddings to false in config.json, which is right even where both are equal"),
    warning("new-spelling", every(decoder, traps_parts.new_spelling),
          why="transformers before 5 does not read that; its defaults happen to say the same",
          mend="set rope_theta and rope_scaling in config.json"),
    warning("new-dtype", every(decoder, traps_parts.new_dtype),
          why="transformers 4.37 does not read that; LLaVA casts to float16 in any case",
          mend="rename dtype to torch_dtype in config.json"),
)

WEIGHTS: tuple[Trap[Llava], ...] = (
    error("no-weights", every(folders, traps_files.no_weights),
          why="LLaVA stops there",
          mend="copy model.safetensors, or its shards and index, from where the model was saved"),
    error("safetensors-metadata", every(folders, traps_files.foreign_safetensors),
          why='transformers 4.37 stops at a header without the metadata {"format": "pt"}',
          mend=AGAIN),
    error("index-metadata", every(folders, traps_files.index_without_metadata),
          why="transformers stops at an index without it",
          mend='add "metadata": {} to the index'),
    warning("second-weights", every(folders, traps_files.second_weights),
          why="the safetensors are read, and the other file is not",
          mend="remove the file that is not meant"),
    error("config-invalid", every(parts, traps_parts.unsound),
          why="no model can be built from that",
          mend="correct the field in config.json"),
    error("tensors-missing", every(parts, traps_parts.missing),
          why="LLaVA fills them with random numbers or leaves uninitialised memory, with no more than a warning",
          mend="copy the weights again from where the model was saved, or correct the sizes in config.json"),
    error("tensor-shapes", every(parts, traps_parts.misshapen),
          why="LLaVA checks no shape, and fails or computes wrong numbers at the first input",
          mend="correct the sizes in config.json, or copy the weights that belong to it"),
    error("tensor-types", every(parts, traps_parts.not_floats),
          why="LLaVA casts them to float16 as they are; a quantised model needs its scales",
          mend="take the weights that they were made from"),
    warning("tensors-unused", every(parts, traps_parts.unexpected),
          why="LLaVA drops them with a warning",
          mend="remove them, or correct the sizes in config.json if they are meant"),
    warning("cast", text.cast,
          why="LLaVA casts to float16: digits are lost, and what is above 65504 becomes infinite",
          mend="`mmconvert convert --src {path} --to llava --dtype fp16 --out NEW` counts what becomes infinite"),
)
# fmt: on

READERS = (
    Reader(
        "llava",
        "the LLaVA source repository (LLaVA 1.2, transformers 4.37)",
        claims,
        Llava,
        (*KIND, *NAMES, *VISION, *TEXT, *WEIGHTS),
    ),
)
