"""What a reader built on transformers asks of the files of a folder, whatever the model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mmconvert import tokenizers
from mmconvert.containers import safetensors
from mmconvert.diagnosis import Patient
from mmconvert.errors import InputRefused

FAST, SLOW, ADDED = "tokenizer.json", "tokenizer.model", "added_tokens.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
PREPROCESSOR = "preprocessor_config.json"


def no_weights(folder: Patient) -> Iterator[str]:
    if not folder.weight_files:
        yield f"{folder.path}: holds no weights"


def foreign_safetensors(folder: Patient) -> Iterator[str]:
    """Files whose header does not say that torch wrote them."""
    for name in sorted({Path(ref.file).name for ref in folder.tensors.values()}):
        if name.endswith(".safetensors"):
            try:
                metadata = safetensors.read_metadata(folder.path / name)
            except InputRefused:
                # Changed since its tensors were listed; whoever reads it next will say so.
                continue
            if metadata.get("format") != "pt":
                said = f"says format {metadata['format']!r}" if "format" in metadata else "says no format"
                yield f"{folder.at(name)}: its header {said}"


def index_without_metadata(folder: Patient) -> Iterator[str]:
    for name in folder.weight_files[:1]:
        if name.endswith(".index.json") and "metadata" not in folder.document(name):
            yield f"{folder.at(name)}: has no metadata"


def second_weights(folder: Patient) -> Iterator[str]:
    """Pickles that lie beside safetensors."""
    pickles = [name for name in folder.weight_files if name.startswith("pytorch_model")]
    if pickles and len(pickles) < len(folder.weight_files):
        yield f"{folder.at(pickles[0])} lies beside {folder.weight_files[0]}"


def token_count(folder: Patient, *names: str) -> int | None:
    """The length of the tokenizer that is loaded from the named files; None where they do not say."""
    count = tokenizers.length(folder.files(*names))
    if count is None:
        return None
    # Loading a tokenizer adds these, where its own files do not have them yet.
    listed = folder.document("tokenizer_config.json").get("added_tokens_decoder")
    ids = {_number(each) for each in listed} if isinstance(listed, dict) else set()
    return count + sum(each is not None and each >= count for each in ids)


def token_id(folder: Patient, token: str) -> int | None:
    """The id of a token that was added to the tokenizer; None where no file says one."""
    found = folder.document(ADDED).get(token)
    listed = folder.document(FAST).get("added_tokens")
    for each in listed if isinstance(listed, list) else ():
        if isinstance(each, dict) and each.get("content") == token:
            found = each.get("id")
    decoder = folder.document("tokenizer_config.json").get("added_tokens_decoder")
    for number, each in decoder.items() if isinstance(decoder, dict) else ():
        if isinstance(each, dict) and each.get("content") == token:
            found = _number(number)
    return found if isinstance(found, int) else None


def tokenizer_of_5(folder: Patient) -> Iterator[str]:
    """What a tokenizer's config says in words that only transformers 5 has."""
    for said in tokenizers.unread_config(folder.document(TOKENIZER_CONFIG)):
        yield f"{folder.at(TOKENIZER_CONFIG)}: {said}"


def tokenizer_json_of_5(folder: Patient) -> Iterator[str]:
    """What a tokenizer.json says in forms that the `tokenizers` of early releases of 4, such as 4.37, do not read."""
    for said in tokenizers.unread_fast(folder.document(FAST)):
        yield f"{folder.at(FAST)}: {said}"


def _number(text: str) -> int | None:
    return int(text) if text.isdecimal() and len(text) < 10 else None
