"""A tokenizer.json made of a sentencepiece model, which loads where sentencepiece and protobuf are not installed.

It says what LLaMA's tokenizer does, as transformers' own conversion has it: a space is `▁`, one more stands before the
text, what no piece covers is spelled in bytes, and control pieces are matched before all else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmconvert.documents import dump_json, parse_json
from mmconvert.errors import InputRefused
from mmconvert.tokenizers import spaces
from mmconvert.tokenizers.merges import merges
from mmconvert.tokenizers.pieces import Model, Type, parse
from mmconvert.tokenizers.tokens import added_token, content
from mmconvert.tokenizers.vocabulary import ADDED, CONFIG, DECODER, SENTENCEPIECE, Files, by_file

_MATCHED_WHOLE = (Type.UNKNOWN, Type.CONTROL, Type.USER_DEFINED)


def tokenizer_json(files: Files) -> bytes:
    """The tokenizer.json of a LLaMA tokenizer, from tokenizer.model and, where it is there, tokenizer_config.json.

    Of the config, `legacy`, `add_prefix_space`, `add_bos_token` and `add_eos_token` count, and the added tokens, which
    added_tokens.json may list too. Raises InputRefused for a model that is damaged, is of another algorithm than BPE,
    or puts no space in front of the text. What it does beside that is left out: `unsaid` tells.
    """
    model = parse(files[SENTENCEPIECE])
    _refuse_others(model)
    config = parse_json(files.get(CONFIG, b"{}"), CONFIG)
    if not isinstance(config, dict):
        raise InputRefused(f"{CONFIG}: must be a mapping")
    beside = by_file({name: files[name] for name in (CONFIG, ADDED) if name in files})
    whole = _added_tokens(model, config, beside)
    vocabulary = {piece.text: number for number, piece in enumerate(model.pieces)}
    return dump_json(
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": whole,
            **spaces.before(config),
            "post_processor": _template(config, vocabulary | {token["content"]: token["id"] for token in whole}),
            **spaces.after(config),
            "model": {
                "type": "BPE",
                "dropout": None,
                "unk_token": next((piece.text for piece in model.pieces if piece.type == Type.UNKNOWN), None),
                "continuing_subword_prefix": None,
                "end_of_word_suffix": None,
                "fuse_unk": True,
                "byte_fallback": model.byte_fallback,
                "vocab": vocabulary,
                # One string each: tokenizers 0.15, which transformers 4.37 comes with, reads no pairs.
                "merges": [f"{left} {right}" for left, right in merges(model.pieces)],
            },
        }
    )


def unsaid(files: Files) -> tuple[str, ...]:
    """What tokenizer.model does to a text that the tokenizer.json, and transformers' own conversion, does not.

    Raises InputRefused for a model that is damaged.
    """
    model = parse(files[SENTENCEPIECE])
    said = {
        "normalizes characters": model.normalizes,
        "takes out spaces at the ends, and doubled ones": model.remove_extra_whitespaces,
    }
    return tuple(what for what, does in said.items() if does)


def _refuse_others(model: Model) -> None:
    if model.algorithm != "bpe":
        raise InputRefused(f"tokenizer.model: is a {model.algorithm} model; a tokenizer.json is made of a bpe one only")
    if not model.add_dummy_prefix or not model.escape_whitespaces or model.whitespace_as_suffix:
        raise InputRefused(
            "tokenizer.model: puts no space in front of the text, which LLaMA's does; give a tokenizer.json beside it"
        )


def _added_tokens(
    model: Model, config: Mapping[str, Any], beside: Mapping[str, Mapping[str, int]]
) -> list[dict[str, Any]]:
    """What is matched before the text is cut into pieces, in the order of the ids."""
    whole = {
        number: (piece.text, piece.type != Type.USER_DEFINED)
        for number, piece in enumerate(model.pieces)
        if piece.type in _MATCHED_WHOLE
    }
    for name, tokens in beside.items():
        for token, number in tokens.items():
            if number < len(model.pieces) and model.pieces[number].text != token:
                piece = model.pieces[number].text
                raise InputRefused(
                    f"{name}: gives {token!r:.60} the id {number}, which in {SENTENCEPIECE} is {piece!r:.60}; "
                    f"give a tokenizer.json beside them"
                )
            whole.setdefault(number, (token, True))
    listed = config.get(DECODER, {})
    return [
        added_token(token, number, special, like=listed.get(str(number)))
        for number, (token, special) in sorted(whole.items())
    ]


def _template(config: Mapping[str, Any], vocabulary: Mapping[str, int]) -> dict[str, Any]:
    """The tokens put around one text, and around two."""
    around = {}
    for name, default, wanted in (("bos", "<s>", True), ("eos", "</s>", False)):
        if config.get(f"add_{name}_token", wanted) is not True:
            continue
        around[name] = content(config.get(f"{name}_token", default))
        if around[name] not in vocabulary:
            raise InputRefused(f"{CONFIG}: {name}_token is {around[name]!r:.60}, which is no token of tokenizer.model")

    def text(letter: str, number: int) -> list[dict[str, Any]]:
        piece = {"Sequence": {"id": letter, "type_id": number}}
        ends = {name: {"SpecialToken": {"id": token, "type_id": number}} for name, token in around.items()}
        return [each for each in (ends.get("bos"), piece, ends.get("eos")) if each]

    return {
        "type": "TemplateProcessing",
        "single": text("A", 0),
        "pair": text("A", 0) + text("B", 1),
        "special_tokens": {
            token: {"id": token, "ids": [vocabulary[token]], "tokens": [token]} for token in around.values() if token
        },
    }
