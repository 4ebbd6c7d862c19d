"""Texts in token ids and back, by a fast Hugging Face tokenizer that knows the placeholder of an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from mmconvert.errors import InputRefused
from mmsimple.quiet import in_its_words
from mmsimple.temporary import temporary_folder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

IMAGE = "<image>"
FILES = ("tokenizer.json", "tokenizer.model")
# All that makes a tokenizer what it is.
ALL_FILES = (
    *FILES,
    *("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt"),
    *("chat_template.jinja", "chat_template.json"),
)
# What ends a turn beside eos: in LLaMA 3's conversations, and in ChatML.
END_OF_TURN = ("<|eot_id|>", "<|im_end|>")


class Encoded(NamedTuple):
    """The tokens of a text: their ids, and where in the text each begins and ends, in characters.

    Where a character takes several tokens, all of them are in its place; the space that sentencepiece puts in front of
    a first word is in the place of the word's first letter.
    """

    ids: list[int]
    starts: list[int]
    ends: list[int]


class Tokenizer:
    """A tokenizer to which `<image>` is one token, whether its files have that or not.

    `where` says to a user where it is from. `bos` and `eos` are texts, empty where there is none; `special_tokens` are
    texts too, and `<image>` is one of them. After one of `eos_ids`, an answer is over.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, where: str) -> None:
        from tokenizers import AddedToken

        self.where = where
        self._tokenizer = tokenizer
        # In memory only: the id never reaches a model. Spaces beside the placeholder remain what they are.
        placeholder = AddedToken(IMAGE, normalized=False, lstrip=False, rstrip=False)
        tokenizer.add_tokens([placeholder], special_tokens=True)
        self.image_id = self._id(IMAGE)
        self.bos: str = tokenizer.bos_token or ""
        self.eos: str = tokenizer.eos_token or ""
        added = tokenizer.added_tokens_decoder.values()
        self.special_tokens = tuple(token.content for token in added if token.special)
        self.eos_ids = frozenset(self._id(end) for end in (self.eos, *END_OF_TURN) if end in self.special_tokens)
        # What stands in the padding and in an image's place. The embedding is looked up all the same, so that it must
        # be an id of the model's. LLaMA has no pad token, and LLaVA takes unk for it; LLaMA 3 has no unk either.
        candidates = (tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.eos_token_id, 0)
        self.pad_id: int = next(each for each in candidates if each is not None)

        backend = tokenizer.backend_tokenizer
        # It would only take spaces out of the tokens' places: the special tokens that it adds are in the texts already.
        backend.post_processor = None
        # A tokenizer's files can ask for each of these.
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = False

    @property
    def has_chat_template(self) -> bool:
        return self._tokenizer.chat_template is not None

    def longest_token(self) -> int:
        """The most characters of a text that a token of the vocabulary spells, or more."""
        return max(map(len, self._tokenizer.get_vocab()))

    def encode(self, text: str, *, bos_apart: bool = False) -> Encoded:
        """The tokens of a text, special ones where the text has them; none is added.

        With `bos_apart`, the bos that the text begins with gets its id apart from the rest, which is how tokenizers add
        one and models were trained: some put a space in front of a text's first word, but not of a word after a bos.
        """
        begin = len(self.bos) if bos_apart else 0
        tokens = self._tokenizer.backend_tokenizer.encode(text[begin:], add_special_tokens=False)
        ids = tokens.ids
        starts, ends = ([begin + place[side] for place in tokens.offsets] for side in (0, 1))
        if bos_apart:
            return Encoded([self._id(self.bos), *ids], [0, *starts], [begin, *ends])
        return Encoded(ids, starts, ends)

    def decode(self, ids: Sequence[int], skip_special_tokens: bool) -> str:
        """The text of tokens, as it is: some tokenizers' files ask for spaces to be taken out of it afterwards."""
        text: str = self._tokenizer.backend_tokenizer.decode(list(ids), skip_special_tokens=skip_special_tokens)
        return text

    def render(self, messages: Sequence[Mapping[str, str]], add_generation_prompt: bool) -> str:
        """The text that the chat template makes of messages. Raises InputRefused for what it does not take."""
        with in_its_words(self.where, "its chat template fails"):
            text = self._tokenizer.apply_chat_template(
                [dict(message) for message in messages], tokenize=False, add_generation_prompt=add_generation_prompt
            )
        assert isinstance(text, str)
        return text

    def _id(self, token: str) -> int:
        number = self._tokenizer.convert_tokens_to_ids(token)
        assert isinstance(number, int)
        return number


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a folder. Raises InputRefused where there is none, or none that tells the places of tokens."""
    if not any((folder / name).is_file() for name in FILES):
        raise InputRefused(f"{folder}: holds no tokenizer, neither {' nor '.join(FILES)}")
    return _load(folder, str(folder))


def tokenizer_of(assets: Mapping[str, bytes], where: str) -> Tokenizer:
    """The tokenizer among the files that travel with a checkpoint, `MultimodalModel.assets`.

    `where` names the checkpoint to a user. Raises InputRefused as `load_tokenizer` does.
    """
    # Not the image model's: CLIP has a tokenizer of its own.
    for prefix in ("text_model/", ""):
        if any(prefix + name in assets for name in FILES):
            files = {name.removeprefix(prefix): data for name, data in assets.items() if name.startswith(prefix)}
            with temporary_folder({name: data for name, data in files.items() if "/" not in name}) as folder:
                return _load(folder, where)
    raise InputRefused(f"{where}: no tokenizer came with it, neither {' nor '.join(FILES)}")


def _load(folder: Path, where: str) -> Tokenizer:
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    with in_its_words(where, "transformers does not load its tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        kind = type(tokenizer).__name__
        raise InputRefused(f"{where}: its tokenizer, a {kind}, does not tell the places of tokens, as fast ones do")
    return Tokenizer(tokenizer, where)
