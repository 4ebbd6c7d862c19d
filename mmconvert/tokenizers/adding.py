"""Tokens added to a tokenizer's files, so that transformers 4.37, 4.57 and 5 find them at the same ids.

A fast tokenizer of 4.x goes by tokenizer.json; a slow one, and that of 5, by the `added_tokens_decoder` of
tokenizer_config.json, and where there is none by added_tokens.json, special_tokens_map.json and tokenizer.json. 4.37
breaks on an added_tokens.json without a decoder. So whatever is there says it, and a decoder is made with that file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmconvert.documents import dump_json, parse_json
from mmconvert.errors import InputRefused
from mmconvert.tokenizers.members import Members
from mmconvert.tokenizers.tokens import added_token, decoded_token, named, renamed
from mmconvert.tokenizers.vocabulary import (
    ADDED,
    CONFIG,
    DECODER,
    FAST,
    SENTENCEPIECE,
    SLOW,
    SPECIAL,
    VOCABULARIES,
    Files,
    by_file,
)

# What LLaMA's tokenizer does where no config says it: by default in 4.x, in 5 only where it is said.
_LLAMA = {"add_bos_token": True, "legacy": True, "tokenizer_class": "LlamaTokenizer"}


def with_tokens(
    files: Files, added: Mapping[str, int], pad: str | None = None, fields: Mapping[str, Any] | None = None
) -> dict[str, bytes]:
    """The files with special tokens added at the ids given, `pad` the pad token, `fields` set in tokenizer_config.json.

    A token that stands at its id already stays as it is. Where tokenizer_config.json is missing it is made, and so is
    added_tokens.json for a tokenizer that can be loaded slowly; tokenizer.json is not.

    Raises InputRefused where no file lists the vocabulary or one is damaged, where a token has another id or an id
    another token, and where an id below the added ones is free: transformers would give them that one.
    """
    _check_room(files, added)
    new = dict(files)
    if FAST in files:
        new[FAST] = _fast(files[FAST], added)
    new[CONFIG] = _config(files, added, pad, fields or {})
    if ADDED in files or _loads_slowly(files):
        listed = Members(files[ADDED], ADDED) if ADDED in files else None
        new[ADDED] = dump_json(dict(added)) if listed is None else _all_set(listed, added)
    if SPECIAL in files and pad is not None:
        special = Members(files[SPECIAL], SPECIAL)
        like = special.get("pad_token") or special.get("unk_token")
        new[SPECIAL] = _all_set(special, {"pad_token": renamed(like, pad)})
    return new


def _loads_slowly(files: Files) -> bool:
    return bool(files.keys() & {SENTENCEPIECE, SLOW})


def _check_room(files: Files, added: Mapping[str, int]) -> None:
    tokens_of = by_file(files)
    if not tokens_of.keys() & VOCABULARIES:
        raise InputRefused(f"the tokenizer has none of {', '.join(sorted(VOCABULARIES))}; give one that has")
    taken = {number: token for tokens in tokens_of.values() for token, number in tokens.items()}
    for token, number in added.items():
        for file, tokens in tokens_of.items():
            if tokens.get(token, number) != number:
                raise InputRefused(
                    f"{file}: {token!r} has the id {tokens[token]}, but must have {number}; give a tokenizer without it"
                )
        if taken.get(number, token) != token:
            file = next(file for file, tokens in tokens_of.items() if number in tokens.values())
            raise InputRefused(
                f"{file}: the id {number} is that of {taken[number]!r:.60}, but {token!r} must have it; "
                f"give a tokenizer of {number} ids"
            )
    new = set(added.values()) - taken.keys()
    free = sorted(set(range(max(new, default=0))) - taken.keys() - new)
    if free:
        token = next(token for token, number in added.items() if number > free[0])
        raise InputRefused(
            f"{' and '.join(tokens_of)}: no token has the id {free[0]}, where loaders would put {token!r}, which must "
            f"have {added[token]}; give a tokenizer of {min(new)} ids"
        )


def _fast(data: bytes, added: Mapping[str, int]) -> bytes:
    document = Members(data, FAST)
    listed = document.get("added_tokens", [])
    there = {token["content"] for token in listed}
    entries = [added_token(token, number) for token, number in added.items() if token not in there]
    document.set("added_tokens", listed + sorted(entries, key=lambda entry: int(entry["id"])))
    return document.to_bytes()


def _config(files: Files, added: Mapping[str, int], pad: str | None, fields: Mapping[str, Any]) -> bytes:
    config = Members(files.get(CONFIG) or dump_json(_LLAMA if SENTENCEPIECE in files else {}), CONFIG)
    with_decoder = config.get(DECODER) is not None or _loads_slowly(files)
    if with_decoder and config.get(DECODER) is None and SPECIAL in files:
        # Beside a decoder it is not read any more.
        said = Members(files[SPECIAL], SPECIAL).values
        _all_set(config, {key: value for key, value in said.items() if config.get(key) is None})
    if pad is not None:
        config.set("pad_token", renamed(config.get("pad_token"), pad))
    if with_decoder:
        config.set(DECODER, _decoder(files, config, added))
    return _all_set(config, fields)


def _decoder(files: Files, config: Members, added: Mapping[str, int]) -> dict[str, Any]:
    """The decoder with the added tokens, and with those of other files, which loaders pass over beside a decoder.

    Of the latter, those that fields name, such as bos and eos, need no entry: every loader adds them. So they get none,
    and a decoder that was made can go again when the tokens that are added here go.
    """
    listed = config.get(DECODER) or {}
    others: dict[str, Any] = {}
    if ADDED in files:
        others |= {str(number): decoded_token(token) for token, number in Members(files[ADDED], ADDED).values.items()}
    if FAST in files:
        for token in parse_json(files[FAST], FAST).get("added_tokens", []):
            others[str(token["id"])] = {key: value for key, value in token.items() if key != "id"}
    there = {token["content"] for token in listed.values()}
    known = there | named(config.values) | ({"<unk>", "<s>", "</s>"} if SENTENCEPIECE in files else set())
    more = {number: token for number, token in others.items() if token["content"] not in known | added.keys()}
    more |= {str(number): decoded_token(token) for token, number in added.items() if token not in there}
    return dict(sorted((listed | more).items(), key=lambda entry: int(entry[0]))) if more else listed


def _all_set(document: Members, members: Mapping[str, Any]) -> bytes:
    for key, value in members.items():
        document.set(key, value)
    return document.to_bytes()
