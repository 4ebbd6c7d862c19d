"""The files beside the weights of llava-hf, against those of LLaVA's two folders: tokenizer, processor, templates.

LLaVA names a picture's place in a text by no token at all; transformers does by `<image>`, and pads with a token of its
own. Both are added to the tokenizer on the way there and taken off on the way back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from mmconvert.documents import dump_json, parse_json
from mmconvert.errors import InputRefused
from mmconvert.spec import Config
from mmconvert.tokenizers import (
    Files,
    begins_first_alone,
    for_older_releases,
    ids,
    tokenizer_json,
    unsaid,
    with_tokens,
    without_tokens,
)

from . import clip
from .llava_hf_template import chat_template
from .llava_names import IMAGE, is_llavas_own, is_mistral_text
from .multimodal import TEXT

IMAGE_TOKEN, PAD_TOKEN = "<image>", "<pad>"
# In the order of their ids, from the language model's own on.
ADDED = (IMAGE_TOKEN, PAD_TOKEN)
# Where the tokenizer has that one already, for another id.
OTHER_PADS = ("[PAD]", "<|pad|>", "<image_pad>")
# Rows of the vocabulary are written up to a multiple of this, as transformers' own converter does.
MULTIPLE = 64
PROCESSOR, PREPROCESSOR = "processor_config.json", "preprocessor_config.json"
GENERATION, TEMPLATE, OLD_TEMPLATE = "generation_config.json", "chat_template.jinja", "chat_template.json"
# Files of this format alone, made anew wherever one is written.
OWN = (PROCESSOR, OLD_TEMPLATE)
# What the name of a file, such as a licence, ends with that the language model has too: the tower's, the whole's.
OF_TOWER, OF_WHOLE = ".vision_tower", ".whole"
PAD_ID = "pad_token_id"
SPECIAL_IDS = ("bos_token_id", "eos_token_id", PAD_ID)
# What a config says of the file that it stands in.
OF_A_FILE = ("architectures", "torch_dtype", "transformers_version")


def own_tokens(config: Config) -> int:
    """How many tokens are the language model's own: `<image>` is the first that is not."""
    said = config.get("image_token_index", config.get("image_token_id"))
    return said if isinstance(said, int) else 32000


def padded(tokens: int) -> int:
    """The rows of a vocabulary of `tokens` tokens of the language model's own, and `<image>` and one for padding."""
    return -(-(tokens + len(ADDED)) // MULTIPLE) * MULTIPLE


def home_config(config: Config) -> Config:
    """The configs of both parts, as far as they say more than a conversion maps."""
    text, vision = (_mapping(config.get(name)) for name in ("text_config", "vision_config"))
    own = own_tokens(config)
    # An id that is added here means nothing without the token.
    kept = {name: value for name, value in text.items() if name not in SPECIAL_IDS or _below(value, own)}
    return {
        IMAGE: {"model_type": "clip_vision_model", **vision},
        TEXT: {**kept, "model_type": text.get("model_type", "llama"), "vocab_size": own},
    }


def own_config(config: Config) -> Config:
    """Both parts' configs where transformers keeps them, without what is LLaVA's own."""
    text, vision = _mapping(config.get(TEXT)), clip.spell_hf(_mapping(config.get(IMAGE)))
    kept = {name: value for name, value in text.items() if not has_no_field(f"{TEXT}.{name}")}
    return {
        "vision_config": {name: value for name, value in vision.items() if not has_no_field(f"{IMAGE}.{name}")},
        "text_config": {**kept, "model_type": "mistral" if is_mistral_text(text) else "llama"},
    }


def has_no_field(path: str) -> bool:
    """Whether a field of the home's configs, at this path, has no place here: LLaVA's own, or who saved the part."""
    part, _, name = path.partition(".")
    return name in OF_A_FILE or (part == TEXT and is_llavas_own(name))


def apart(config: Config, files: Files) -> Files:
    """The files of one folder as those of LLaVA's two, without the tokens that are added here.

    Raises InputRefused where the first of these is not the one that the config says.
    """
    own = own_tokens(config)
    _check_tokens(files, own, config)
    parts = home_config(config)
    found = {f"{part}/config.json": dump_json(dict(document)) for part, document in parts.items()}
    processor = _mapping(parse_json(files.get(PROCESSOR, b"{}"), PROCESSOR))
    if isinstance(processor.get("image_processor"), dict):
        # transformers 5 keeps it inside; a file of its own, where there is one, counts.
        found[f"{IMAGE}/{PREPROCESSOR}"] = dump_json(processor["image_processor"])
    kept = without_tokens(files, own)
    made = _made(config, kept)
    kept = {name: data for name, data in kept.items() if data != made.get(name)}
    for name, data in kept.items():
        if name == PREPROCESSOR:
            said = _mapping(parse_json(data, PREPROCESSOR))
            own_class = {field: value for field, value in said.items() if field != "processor_class"}
            found[f"{IMAGE}/{name}"] = data if own_class == said else dump_json(own_class)
        elif name.endswith(OF_WHOLE):
            found[name.removesuffix(OF_WHOLE)] = data
        elif name.endswith(OF_TOWER):
            found[f"{IMAGE}/{name.removesuffix(OF_TOWER)}"] = data
        elif name == GENERATION:
            found[f"{TEXT}/{name}"] = _generation_apart(data, own)
        elif name not in (*OWN, "config.json"):
            found[f"{TEXT}/{name}"] = data
    old = _mapping(parse_json(files.get(OLD_TEMPLATE, b"{}"), OLD_TEMPLATE)).get("chat_template")
    if isinstance(old, str):
        found.setdefault(f"{TEXT}/{TEMPLATE}", old.encode())
    return found


def _made(config: Config, files: Files) -> dict[str, bytes]:
    """Files of this format as `together` makes them of the others: they are made again whenever they are wanted."""
    made = {TEMPLATE: _template(config, files)}
    given = {name: data for name, data in files.items() if name != "tokenizer.json"}
    if "tokenizer.model" in given and "tokenizer.json" in files:
        with suppress(InputRefused):
            made["tokenizer.json"] = tokenizer_json(given)
    return made


def together(config: Config, files: Files) -> tuple[Files, Sequence[str]]:
    """The files of LLaVA's two folders as those of one, with the tokens that are added here; and what to tell of them.

    Raises InputRefused for a tokenizer whose ids from the config's `image_token_index` on are taken.
    """
    text = {name.partition("/")[2]: data for name, data in files.items() if name.startswith(f"{TEXT}/")}
    image = {name.partition("/")[2]: data for name, data in files.items() if name.startswith(f"{IMAGE}/")}
    text = {name: data for name, data in text.items() if name not in OWN}
    found, told = _tokenizer(text, config["image_token_index"]) if ids(text) is not None else (dict(text), ())
    # What the tower's own leaves out would mean pictures of CLIP's first size.
    preprocessor = _mapping(parse_json(image.get(PREPROCESSOR, b"{}"), PREPROCESSOR))
    found[PREPROCESSOR] = dump_json(
        {**clip.preprocessor(config["vision_config"]), **preprocessor, "processor_class": "LlavaProcessor"}
    )
    found[PROCESSOR] = dump_json(_processor(config))
    found[GENERATION] = _generation_together(text.get(GENERATION), config)
    if b"image" not in text.get(TEMPLATE, b""):
        found[TEMPLATE] = _template(config, found)
    for name, data in image.items():
        if name != PREPROCESSOR:
            found.setdefault(name if name not in found else name + OF_TOWER, data)
    for name, data in files.items():
        if "/" not in name:
            found.setdefault(name if name not in found else name + OF_WHOLE, data)
    return found, told


def _tokenizer(text: Files, own: int) -> tuple[dict[str, bytes], Sequence[str]]:
    """The tokenizer's files with the tokens that are added here, for all releases, and what to tell of them."""
    files, told = for_older_releases(text), []
    if "tokenizer.json" not in files and "tokenizer.model" in files:
        # LLaVA's folders hold sentencepiece's file alone, which transformers 5 reads only where protobuf is installed.
        try:
            files["tokenizer.json"] = tokenizer_json(files)
            told = [f"tokenizer.model {does}; transformers' tokenizers do not" for does in unsaid(files)]
        except InputRefused as error:
            told = [f"no tokenizer.json is made, and transformers 5 then needs protobuf: {error}"]
    fields: dict[str, Any] = {"processor_class": "LlavaProcessor"}
    if "tokenizer.model" in files and "legacy" not in _mapping(_config(files)):
        # What a config that does not say means depends on the release.
        fields["legacy"] = True
    known = ids(files) or {}
    pad = next((each for each in (PAD_TOKEN, *OTHER_PADS) if known.get(each, own + 1) == own + 1), PAD_TOKEN)
    return dict(with_tokens(files, {IMAGE_TOKEN: own, pad: own + 1}, pad, fields)), told


def _config(files: Files) -> Any:
    return parse_json(files.get("tokenizer_config.json", b"{}"), "tokenizer_config.json")


def _template(config: Config, files: Files) -> bytes:
    said = _mapping(_config(files))
    end = said.get("eos_token")
    end = end.get("content") if isinstance(end, dict) else end
    fast = "tokenizer.json"
    # What a tokenizer.json does is what counts, whatever the config says that it should.
    first_alone = (
        begins_first_alone(parse_json(files[fast], fast)) if fast in files else said.get("legacy", True) is False
    )
    return chat_template(
        mistral=is_mistral_text(_mapping(config.get("text_config"))),
        space=first_alone,
        end=end if isinstance(end, str) else "</s>",
    )


def _check_tokens(files: Files, own: int, config: Config) -> None:
    """What the tokenizer has from `own` on must be what is added here, or rows would be cut that a token needs."""
    known, pad = ids(files), config.get("pad_token_id")
    if known is None:
        rows = _mapping(config.get("text_config")).get("vocab_size", own)
        if isinstance(rows, int) and rows > padded(own):
            raise InputRefused(
                f"config.json: image_token_index is {own}, and text_config.vocab_size {rows}: no tokenizer is here to "
                f"say that the rows from {own} on are no tokens of the language model; put its files into the folder"
            )
        return
    if known.get(IMAGE_TOKEN, own) != own:
        raise InputRefused(
            f"config.json: image_token_index is {own}, but {IMAGE_TOKEN} is {known[IMAGE_TOKEN]} in the tokenizer: "
            f"set it to {known[IMAGE_TOKEN]}"
        )
    for token, number in known.items():
        if number >= own and token not in (IMAGE_TOKEN, PAD_TOKEN) and number != pad:
            raise InputRefused(
                f"tokenizer: {token!r} is {number}, behind {IMAGE_TOKEN} ({own}): its row cannot be cut off, and LLaVA "
                "and CS have no place for one that is not the language model's own"
            )


def _processor(config: Config) -> dict[str, Any]:
    return {
        "image_token": IMAGE_TOKEN,
        # CLIP's class token, which is counted here whether it is read or not.
        "num_additional_image_tokens": 1,
        "patch_size": config["vision_config"]["patch_size"],
        "processor_class": "LlavaProcessor",
        "vision_feature_select_strategy": config["vision_feature_select_strategy"],
    }


def _generation_together(data: bytes | None, config: Config) -> bytes:
    if data is None:
        text = config["text_config"]
        said: Mapping[str, Any] = {
            "_from_model_config": True,
            **{name: text[name] for name in ("bos_token_id", "eos_token_id") if name in text},
        }
    else:
        said = _mapping(parse_json(data, GENERATION))
    return dump_json({**said, "pad_token_id": config["pad_token_id"]})


def _generation_apart(data: bytes, own: int) -> bytes:
    said = _mapping(parse_json(data, GENERATION))
    foreign = {name for name in SPECIAL_IDS if not _below(said.get(name), own)}
    # LLaVA pads with the unknown token.
    kept = {name: 0 if name in foreign else value for name, value in said.items() if name not in foreign - {PAD_ID}}
    return data if kept == said else dump_json(kept)


def _below(value: Any, own: int) -> bool:
    """Whether the id, or each of the ids, is one of the language model's own."""
    return all(not isinstance(each, int) or each < own for each in (value if isinstance(value, list) else [value]))


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
