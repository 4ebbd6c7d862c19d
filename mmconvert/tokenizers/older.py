"""A tokenizer's files in the spelling that transformers 4.37, 4.57 and 5 all read, and in which they lack it.

transformers 5, and the `tokenizers` that it comes with, write names and forms that no 4.x knows: these stop at a class
`TokenizersBackend`, at a list of `extra_special_tokens`, and 4.37 with its `tokenizers` 0.15 at merges that are pairs
and at a Metaspace that does not say `add_prefix_space`. All of it can be said in the old words, which 5 reads as well.
No `added_tokens_decoder` is made: without one, every release takes the added tokens of tokenizer.json.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mmconvert.errors import InputRefused
from mmconvert.tokenizers.members import Members
from mmconvert.tokenizers.tokens import content
from mmconvert.tokenizers.vocabulary import CONFIG, FAST, SENTENCEPIECE, Files

BACKEND, GENERIC, LLAMA = "TokenizersBackend", "PreTrainedTokenizerFast", "LlamaTokenizer"
EXTRA, ADDITIONAL = "extra_special_tokens", "additional_special_tokens"
# How and from where a tokenizer was loaded when it was saved.
_OF_THE_WRITER = ("backend", "is_local", "local_files_only")
# The tokens with fields of their own that lists of special tokens may repeat.
_ENDS = ("bos_token", "eos_token", "unk_token", "pad_token")
# The steps of a tokenizer.json that may be Metaspace, and what a Sequence of them calls its own.
_STEPS = {"pre_tokenizer": "pretokenizers", "decoder": "decoders"}


def for_older_releases(files: Files) -> dict[str, bytes]:
    """The files as releases from 4.37 on read them; those that they read already stay byte for byte.

    Merges of tokens with a space in them stay pairs, for they cannot be said otherwise. Raises InputRefused for a
    tokenizer.json or tokenizer_config.json that is damaged.
    """
    new = dict(files)
    if CONFIG in files:
        new[CONFIG] = _config(files[CONFIG], SENTENCEPIECE in files)
    if FAST in files:
        new[FAST] = _fast(files[FAST])
    return new


def unread_config(config: Any) -> Iterator[str]:
    """What a tokenizer_config.json says that no release before 5 reads, each in a few words."""
    if isinstance(config, dict):
        if config.get("tokenizer_class") == BACKEND:
            yield f"tokenizer_class is {BACKEND}"
        if isinstance(config.get(EXTRA), list):
            yield f"{EXTRA} is a list"


def unread_fast(document: Any) -> Iterator[str]:
    """What a tokenizer.json says that early releases of 4, such as 4.37, do not read, each in a few words."""
    model = document.get("model") if isinstance(document, dict) else None
    merges = model.get("merges") if isinstance(model, dict) else None
    if isinstance(merges, list) and any(isinstance(merge, list) for merge in merges[:1]):
        yield "merges are pairs"
    steps = [document.get(name) for name in _STEPS] if isinstance(document, dict) else []
    if any(_with_prefix(step) != step for step in steps):
        yield "a Metaspace has no add_prefix_space"


def _config(data: bytes, has_sentencepiece: bool) -> bytes:
    config = Members(data, CONFIG)
    if config.get("tokenizer_class") == BACKEND:
        config.set("tokenizer_class", LLAMA if has_sentencepiece else GENERIC)
    for name in _OF_THE_WRITER:
        config.drop(name)
    extra = config.get(EXTRA)
    if isinstance(extra, list):
        config.drop(EXTRA)
        tokens = _additional(config, extra)
        if tokens:
            config.set(ADDITIONAL, tokens)
    if config.get("tokenizer_class") == GENERIC and config.get("model_input_names") is None:
        # By default a generic tokenizer of 4 makes token_type_ids too, at which a model stops.
        config.set("model_input_names", ["input_ids", "attention_mask"])
    return config.to_bytes()


def _additional(config: Members, extra: list[Any]) -> list[Any]:
    """The special tokens that have no field of their own: those that are listed already, and the extra ones."""
    listed = config.get(ADDITIONAL) or []
    if not isinstance(listed, list) or any(content(token) is None for token in [*listed, *extra]):
        raise InputRefused(f"{CONFIG}: {EXTRA} and {ADDITIONAL} must list tokens")
    known = {content(config.get(name)) for name in _ENDS} | {content(token) for token in listed}
    return listed + [token for token in extra if content(token) not in known]


def _fast(data: bytes) -> bytes:
    document = Members(data, FAST)
    model = document.get("model")
    if isinstance(model, dict) and "merges" in model:
        document.set("model", {**model, "merges": _joined(model["merges"])})
    for name in _STEPS:
        if name in document.values:
            document.set(name, _with_prefix(document.get(name)))
    return document.to_bytes()


def _joined(merges: Any) -> Any:
    """Merges as strings, where they are pairs and no token has a space in it."""
    if not isinstance(merges, list) or all(isinstance(merge, str) for merge in merges):
        return merges
    for merge in merges:
        if not (isinstance(merge, list) and len(merge) == 2 and all(isinstance(part, str) for part in merge)):
            raise InputRefused(f"{FAST}: model.merges must list pairs of tokens, but has {merge!r:.60}")
    return merges if any(" " in part for merge in merges for part in merge) else [" ".join(merge) for merge in merges]


def _with_prefix(step: Any) -> Any:
    """A pre-tokenizer or decoder in which every Metaspace says whether a space is put in front."""
    if not isinstance(step, dict):
        return step
    if step.get("type") == "Metaspace" and "add_prefix_space" not in step:
        return {**step, "add_prefix_space": step.get("prepend_scheme") != "never"}
    inner = {name: list(map(_with_prefix, step[name])) for name in _STEPS.values() if isinstance(step.get(name), list)}
    return {**step, **inner}
