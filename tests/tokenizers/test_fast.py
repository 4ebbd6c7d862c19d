"""A tokenizer.json made of a sentencepiece model does what the model does, and what transformers makes of it."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import tokenizers
import transformers

from mmconvert.errors import InputRefused
from mmconvert.tokenizers import Files, tokenizer_json, unsaid
from tests.mmsimple.data.small_tokenizers import SENTENCES, sentencepiece_model
from tests.tokenizers.samples import as_json, bare, fast, load, old_vicuna, token, vicuna

TINY = Path(__file__).parents[1] / "golden" / "llava" / "tiny_src" / "text_model_llava"
SNIPPETS = (
    "é",
    "日本",
    "😀",
    "e\u0301",
    "\u200b",
    "▁",
    "\n",
    "\t",
    " ",
    "  ",
    "    ",
    "a",
    "the",
    " dog",
    "<0x41>",
    "\x00",
)
SPECIAL = ("<s>", "</s>", "<unk>")


def trained(**options: Any) -> bytes:
    model = BytesIO()
    settings = {
        "model_type": "bpe",
        "byte_fallback": True,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "allow_whitespace_only_pieces": True,
        "minloglevel": 2,
        **options,
    }
    lines = [each.replace(" ", "    ", number % 3) for number, each in enumerate(SENTENCES * 20)]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=model, vocab_size=400, **settings
    )
    return model.getvalue()


def texts(*more: str) -> Iterator[str]:
    draw = random.Random(0)
    words = [*SNIPPETS, *" ".join(SENTENCES).split(), *more]
    for _ in range(400):
        any_letter = chr(draw.choice((draw.randrange(0x20, 0x3000), draw.randrange(0x10000, 0x1FFFF))))
        yield "".join(draw.choice((*draw.choices(words, k=6), any_letter, " ")) for _ in range(draw.randint(0, 12)))


@pytest.mark.parametrize("model", [sentencepiece_model(), trained()])
def test_it_encodes_and_decodes_as_sentencepiece_does(model: bytes) -> None:
    mine = tokenizers.Tokenizer.from_str(tokenizer_json({"tokenizer.model": model}).decode())
    theirs = sentencepiece.SentencePieceProcessor(model_proto=model)
    for text in texts():
        expected = theirs.encode(text)
        assert mine.encode(text, add_special_tokens=False).ids == expected, text
        assert mine.decode(expected) == theirs.decode(expected), text


@pytest.mark.parametrize(
    "files",
    [
        bare(),
        vicuna(),
        vicuna(legacy=True),
        vicuna(add_prefix_space=False),
        vicuna(add_bos_token=False, add_eos_token=True),
        old_vicuna(),
        {**vicuna(), "tokenizer.model": (TINY / "tokenizer.model").read_bytes()},
    ],
)
def test_transformers_reads_it_as_what_it_makes_of_the_model_itself(files: Files) -> None:
    theirs, mine = load(files), load({name: data for name, data in fast(files).items() if name != "tokenizer.model"})
    if files.keys() == {"tokenizer.model"} and tuple(map(int, transformers.__version__.split(".")[:2])) < (5, 24):
        pytest.skip("before 5.24 transformers reads one without a config in another way")
    if files.keys() == {"tokenizer.model"}:
        # Where no config says it, transformers 5 puts no bos before a text, and 4.x does.
        theirs.add_bos_token = True
    assert len(theirs) == len(mine)
    for text in texts(*SPECIAL):
        expected = theirs(text).input_ids
        assert mine(text).input_ids == expected, text
        assert mine.decode(expected) == theirs.decode(expected), text


def test_the_whole_file_says_what_the_config_asks_for() -> None:
    """Transformers 4.x reads all of it, and 5 the vocabulary, the merges and the template."""
    theirs, mine = load(vicuna()), load(fast(vicuna()))
    expected, found = (json.loads(each.backend_tokenizer.to_str()) for each in (theirs, mine))
    assert found == expected
    written = json.loads(fast(vicuna())["tokenizer.json"])
    for part in ("added_tokens", "normalizer", "post_processor", "decoder"):
        assert written[part] == expected[part]
    assert written["pre_tokenizer"] == {**expected["pre_tokenizer"], "add_prefix_space": True}
    assert [merge.split(" ") for merge in written["model"]["merges"]] == expected["model"]["merges"]


def test_a_legacy_tokenizer_puts_a_space_after_special_tokens_and_others_do_not() -> None:
    text = "</s>The dog"
    for legacy, expected in ((True, "▁The"), (False, "T")):
        mine = tokenizers.Tokenizer.from_str(fast(vicuna(legacy=legacy))["tokenizer.json"].decode())
        assert expected.startswith(mine.encode(text).tokens[2])


def test_added_tokens_are_matched_whole_with_the_flags_that_they_have() -> None:
    listed = {"380": token("<image>", special=True) | {"rstrip": True}}
    files = {**vicuna(added_tokens_decoder=listed), "added_tokens.json": as_json({"<pad>": 381})}
    entries = json.loads(tokenizer_json(files))["added_tokens"]
    assert [(entry["id"], entry["content"], entry["rstrip"]) for entry in entries] == [
        (0, "<unk>", False),
        (1, "<s>", False),
        (2, "</s>", False),
        (380, "<image>", True),
        (381, "<pad>", False),
    ]


def test_a_piece_that_a_user_defined_is_matched_whole_and_stays_in_the_text() -> None:
    model = trained(user_defined_symbols=["<sep>"])
    theirs = sentencepiece.SentencePieceProcessor(model_proto=model)
    mine = tokenizers.Tokenizer.from_str(tokenizer_json({"tokenizer.model": model}).decode())
    found = mine.encode("a<sep>", add_special_tokens=False).ids
    assert found == theirs.encode("a<sep>")
    assert found[-1] == theirs.piece_to_id("<sep>")
    assert mine.decode(found, skip_special_tokens=True) == "a<sep>"


def test_the_same_model_gives_the_same_bytes() -> None:
    assert tokenizer_json(vicuna()) == tokenizer_json(vicuna())


def test_what_it_leaves_out_is_told() -> None:
    assert unsaid(bare()) == ()
    model = trained(normalization_rule_name="nmt_nfkc", remove_extra_whitespaces=True)
    assert unsaid({"tokenizer.model": model}) == (
        "normalizes characters",
        "takes out spaces at the ends, and doubled ones",
    )


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"tokenizer.model": trained(model_type="unigram", hard_vocab_limit=False)}, "is a unigram model"),
        ({"tokenizer.model": trained(add_dummy_prefix=False)}, "puts no space in front"),
        ({"tokenizer.model": b"garbage"}, "is no sentencepiece model"),
        ({**bare(), "tokenizer_config.json": b"[]"}, "tokenizer_config.json"),
        (vicuna(bos_token="<bos>"), "bos_token is '<bos>', which is no token"),
        (vicuna(added_tokens_decoder={"5": token("<image>")}), "gives '<image>' the id 5, which in tokenizer.model is"),
    ],
)
def test_what_it_cannot_say_is_refused(files: Files, message: str) -> None:
    with pytest.raises(InputRefused, match=message):
        tokenizer_json(files)
