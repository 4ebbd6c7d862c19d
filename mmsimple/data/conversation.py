"""A LLaVA record in token ids, loss weights and image positions, and as a sample of the training files.

What is wrong with a record is a BadRecord: such records are skipped and counted by their reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, NamedTuple, TypeGuard

import numpy as np

from mmsimple.data.h5 import NO_IMAGE, ROWS, Ints, Layout, Row
from mmsimple.data.templates import Rendered, Turn
from mmsimple.data.tokenizer import IMAGE, Tokenizer

ROLES: dict[str, Literal["user", "assistant"]] = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
}


class BadRecord(Exception):
    """A record that cannot be used; `reason` is one of a few fixed texts."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Record:
    """A conversation whose `<image>`s, in order, are these images, given by their paths."""

    turns: tuple[Turn, ...]
    images: tuple[str, ...]


class FittedSample(NamedTuple):
    """A sample of which all has room: ids and weights, int32, the (start, end) of its images and their paths."""

    ids: Ints
    weights: Ints
    images: tuple[tuple[int, int], ...]
    paths: tuple[str, ...]
    is_cut: bool


@dataclass(frozen=True)
class Sample:
    """A conversation in tokens. An image is so many times pad_id; `images` are the (start, end) of each."""

    ids: list[int]
    weights: list[int]
    images: tuple[tuple[int, int], ...]


def read_record(record: Any) -> Record:
    """The conversation and the images of a record as LLaVA's JSON files have it. Raises BadRecord.

    Every `<image>` stays where it is. A single image that the text does not mention comes first, as in LLaVA.
    """
    if not isinstance(record, dict):
        raise BadRecord("not a mapping")
    conversations = record.get("conversations")
    if not isinstance(conversations, list) or not conversations:
        raise BadRecord("no conversations")
    turns = [_turn(each) for each in conversations]
    if turns[0].role != "user":
        raise BadRecord("does not begin with the user")
    if any(turn.role == after.role for turn, after in pairwise(turns)):
        raise BadRecord("two turns of one role in a row")
    if turns[-1].role != "assistant":
        raise BadRecord("no answer to the last question")
    images = _images(record)
    mentioned = sum(turn.text.count(IMAGE) for turn in turns)
    if len(images) == 1 and mentioned == 0:
        turns[0] = Turn("user", f"{IMAGE}\n{turns[0].text}")
    elif len(images) != mentioned:
        raise BadRecord("not as many images as <image>")
    return Record(tuple(turns), images)


def _turn(part: Any) -> Turn:
    if not isinstance(part, dict):
        raise BadRecord("a turn that is not a mapping")
    speaker, text = part.get("from"), part.get("value")
    if not isinstance(speaker, str) or speaker not in ROLES:
        raise BadRecord("unknown speaker")
    if not is_text(text):
        raise BadRecord("text that is no string")
    role = ROLES[speaker]
    if role == "assistant" and not text.strip():
        raise BadRecord("empty answer")
    if role == "assistant" and IMAGE in text:
        raise BadRecord("<image> in an answer")
    return Turn(role, text)


def _images(record: dict[Any, Any]) -> tuple[str, ...]:
    found = [record[key] for key in ("image", "images") if record.get(key) is not None]
    if len(found) > 1:
        raise BadRecord("both image and images")
    images = found[0] if found else []
    if isinstance(images, str):
        images = [images]
    # What stands for no picture in the files is no name for one; exports write it for a missing value.
    if not isinstance(images, list) or not all(is_text(each) and each not in ("", NO_IMAGE) for each in images):
        raise BadRecord("an image that is no path")
    return tuple(images)


def is_text(value: object) -> TypeGuard[str]:
    """Whether it is a string that can be written; JSON can hold halves of characters."""
    try:
        return isinstance(value, str) and value.encode() is not None
    except UnicodeEncodeError:
        return False


def encode(rendered: Rendered, tokenizer: Tokenizer, image_tokens: int) -> Sample:
    """The tokens of a text, `image_tokens` of them for each image; a weight of 1 for those that begin in an answer.

    The text is tokenised once, as a whole. What comes before an answer has the same ids without it, so that a
    conversation continues as it was learned, unless the tokenizer has a token that reaches from the one into the other;
    there is no loss in that token. LLaMA 3's does for an answer that begins with a newline, since the template's two
    newlines before it and the answer's own are one token.
    Raises BadRecord for words that hold a special token: the tokenizer cannot tell it from the template's.
    """
    special_tokens = [token for token in tokenizer.special_tokens if token != IMAGE]
    if any(token in words for words in rendered.words for token in special_tokens):
        raise BadRecord("special token in the text")
    # The weight of each character, and of the end of the text: a token may have no length.
    learned = bytearray(len(rendered.text) + 1)
    for start, end in rendered.answers:
        learned[start:end] = bytes([1]) * (end - start)
    tokens = tokenizer.encode(rendered.text, bos_apart=rendered.bos_apart)
    ids: list[int] = []
    weights: list[int] = []
    images = []
    for number, start in zip(tokens.ids, tokens.starts, strict=True):
        if number == tokenizer.image_id:
            images.append((len(ids), len(ids) + image_tokens))
            ids += [tokenizer.pad_id] * image_tokens
            weights += [0] * image_tokens
        else:
            ids.append(number)
            weights.append(learned[start])
    return Sample(ids, weights, tuple(images))


def fitted(
    sample: Sample, images: Sequence[str], layout: Layout, too_long: Literal["skip", "truncate"]
) -> FittedSample:
    """A sample that a layout has room for; `images` are the paths of its pictures.

    One that is too long is a BadRecord, or loses what is behind the last column: an image that does not fit in whole
    goes, and all after it. Raises BadRecord for too many images, and for a sample without loss.
    """
    if len(sample.images) > layout.image_slots:
        raise BadRecord("too many images")
    end = len(sample.ids)
    if end > layout.sequence_length + 1:
        if too_long == "skip":
            raise BadRecord("too long")
        end = layout.sequence_length + 1
    places = list(sample.images)
    # The last id is a label and no input, so that an image has to end before it.
    while places and places[-1][1] >= end:
        end = min(end, places.pop()[0])
    if not any(sample.weights[1:end]):
        raise BadRecord("nothing to learn")
    ids, weights = np.array(sample.ids[:end], np.int32), np.array(sample.weights[:end], np.int32)
    return FittedSample(ids, weights, tuple(places), tuple(images[: len(places)]), end < len(sample.ids))


def row_of(sample: FittedSample, layout: Layout, pad_id: int) -> Row:
    """A sample as the training files hold it: shifted, and padded to the layout's length and slots."""
    length, longest = len(sample.ids) - 1, layout.sequence_length
    data = np.zeros((len(ROWS), longest), np.int32)
    data[[0, 2]] = pad_id
    data[0, :length] = sample.ids[:-1]
    data[1, :length] = sample.weights[1:]
    data[2, :length] = sample.ids[1:]
    data[3, length:] = 1
    positions = np.full((layout.image_slots, layout.image_tokens), longest, np.int32)
    for slot, (start, stop) in enumerate(sample.images):
        positions[slot] = np.arange(start, stop)
        data[4, start:stop] = 1
    empty = layout.image_slots - len(sample.images)
    return Row(data, (*sample.paths, *[NO_IMAGE] * empty), positions)
