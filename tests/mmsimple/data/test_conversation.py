"""Records in and rows out: what is refused, and what is cut."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest

from mmsimple.data.conversation import BadRecord, Sample, fitted, read_record, row_of
from mmsimple.data.h5 import NO_IMAGE, Layout, Row
from mmsimple.data.templates import Turn
from tests.mmsimple.data.small_tokenizers import turns

P = 4


def record(*texts: str, **more: Any) -> dict[str, Any]:
    speakers = ("human", "gpt")
    return {
        "id": "1",
        "conversations": [{"from": speakers[at % 2], "value": text} for at, text in enumerate(texts)],
        **more,
    }


def test_a_record_has_its_turns_and_images() -> None:
    read = read_record(record("<image>\nWho?", "A cat.", "And <image>?", " A dog ", image=["a.png", "sub/b.png"]))
    assert read.turns == turns("<image>\nWho?", "A cat.", "And <image>?", " A dog ")
    assert read.images == ("a.png", "sub/b.png")


@pytest.mark.parametrize(
    "more", [{"image": "a.png"}, {"image": ["a.png"]}, {"images": ["a.png"]}, {"images": "a.png", "image": None}]
)
def test_a_single_image_is_a_string_or_a_list(more: dict[str, Any]) -> None:
    assert read_record(record("<image>", "A cat.", **more)).images == ("a.png",)


@pytest.mark.parametrize("more", [{}, {"image": None}, {"image": []}])
def test_a_record_may_have_no_image(more: dict[str, Any]) -> None:
    assert read_record(record("Hello", "Hi", **more)).images == ()


def test_both_spellings_of_the_speakers_are_known() -> None:
    spelled = {"conversations": [{"from": "user", "value": "a"}, {"from": "assistant", "value": "b"}]}
    assert read_record(spelled).turns == (Turn("user", "a"), Turn("assistant", "b"))


def test_a_single_image_that_is_not_mentioned_comes_first() -> None:
    read = read_record(record("Who?", "A cat.", "And?", "A dog.", image="a.png"))
    assert read.turns == turns("<image>\nWho?", "A cat.", "And?", "A dog.")


def test_an_image_stays_where_it_is() -> None:
    texts = ("Look: <image> and<image>", "Yes.", "Here\n<image>", "No.")
    assert read_record(record(*texts, image=["a", "b", "c"])).turns == turns(*texts)


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ([], "not a mapping"),
        ({}, "no conversations"),
        ({"conversations": []}, "no conversations"),
        ({"conversations": "a"}, "no conversations"),
        ({"conversations": ["a"]}, "a turn that is not a mapping"),
        ({"conversations": [{"from": "system", "value": "a"}]}, "unknown speaker"),
        ({"conversations": [{"from": ["human"], "value": "a"}]}, "unknown speaker"),
        ({"conversations": [{"value": "a"}]}, "unknown speaker"),
        ({"conversations": [{"from": "human"}]}, "text that is no string"),
        ({"conversations": [{"from": "human", "value": "\ud83d"}]}, "text that is no string"),
        ({"conversations": [{"from": "gpt", "value": "a"}]}, "does not begin with the user"),
        ({"conversations": record("a", "b")["conversations"][:1] * 2}, "two turns of one role in a row"),
        (record("a", "b", "c"), "no answer to the last question"),
        (record("a"), "no answer to the last question"),
        (record("a", " \n"), "empty answer"),
        (record("a", "b", "c", ""), "empty answer"),
        (record("a", "a <image>", image="a"), "<image> in an answer"),
        (record("<image>", "b"), "not as many images as <image>"),
        (record("<image>", "b", image=["a", "b"]), "not as many images as <image>"),
        (record("<image><image>", "b", image="a"), "not as many images as <image>"),
        (record("a", "b", image=["a", "b"]), "not as many images as <image>"),
        (record("<image>", "b", image="a", images=["a"]), "both image and images"),
        (record("<image>", "b", image=3), "an image that is no path"),
        (record("<image>", "b", image=[None]), "an image that is no path"),
        (record("<image>", "b", image=""), "an image that is no path"),
        (record("<image>", "b", image=["\ud83d"]), "an image that is no path"),
    ],
)
def test_a_malformed_record_has_a_reason(broken: Any, reason: str) -> None:
    with pytest.raises(BadRecord) as caught:
        read_record(broken)
    assert caught.value.reason == reason


def sample_of(*segments: tuple[list[int], int] | None) -> Sample:
    """A sample of (ids, weight), and None for an image."""
    ids: list[int] = []
    weights: list[int] = []
    images = []
    for segment in segments:
        if segment is None:
            images.append((len(ids), len(ids) + P))
        part, weight = segment or ([0] * P, 0)
        ids += part
        weights += [weight] * len(part)
    return Sample(ids, weights, tuple(images))


def fit(sample: Sample, length: int, too_long: Literal["skip", "truncate"] = "skip", slots: int = 2) -> Row:
    names = [f"{number}.png" for number in range(len(sample.images))]
    layout = Layout(length, slots, P)
    return row_of(fitted(sample, names, layout, too_long), layout, 0)


A = sample_of(([1, 11], 0), None, ([12, 13], 0), ([21, 22, 2], 1))
B = sample_of(([1], 0), None, ([14], 0), None, ([15], 0), ([23, 2], 1))


def test_sample_a_of_the_worked_example() -> None:
    row = fit(A, 16)
    assert row.data.tolist() == [
        [1, 11, 0, 0, 0, 0, 12, 13, 21, 22, 0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0, 0],
        [11, 0, 0, 0, 0, 12, 13, 21, 22, 2, 0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1],
        [0, 0, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    ]
    assert row.positions.tolist() == [[2, 3, 4, 5], [16, 16, 16, 16]]
    assert row.paths == ("0.png", NO_IMAGE)
    assert {row.data.dtype, row.positions.dtype} == {np.dtype(np.int32)}


def test_sample_b_of_the_worked_example() -> None:
    row = fit(B, 16)
    assert row.data.tolist() == [
        [1, 0, 0, 0, 0, 14, 0, 0, 0, 0, 15, 23, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0],
        [0, 0, 0, 0, 14, 0, 0, 0, 0, 15, 23, 2, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1],
        [0, 1, 1, 1, 1, 0, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0],
    ]
    assert row.positions.tolist() == [[1, 2, 3, 4], [6, 7, 8, 9]]
    assert row.paths == ("0.png", "1.png")


def test_padding_has_the_pad_id_in_ids_and_labels_alone() -> None:
    row = row_of(fitted(A, ["a.png"], Layout(12, 1, P), "skip"), Layout(12, 1, P), 7)
    assert row.data[:, 10:].tolist() == [[7, 7], [0, 0], [7, 7], [1, 1], [0, 0]]


def test_a_sample_without_images_has_empty_slots_or_none() -> None:
    text = sample_of(([1, 12], 0), ([21, 2], 1))
    assert fit(text, 4).positions.tolist() == [[4] * P, [4] * P]
    assert fit(text, 4, slots=0).positions.shape == (0, P)


def test_a_sample_of_one_id_more_than_columns_fits() -> None:
    row = fit(A, len(A.ids) - 1)
    assert row.data[2].tolist() == A.ids[1:]
    assert not row.data[3].any()
    with pytest.raises(BadRecord) as caught:
        fit(A, len(A.ids) - 2)
    assert caught.value.reason == "too long"


def test_more_images_than_slots_are_a_bad_record() -> None:
    with pytest.raises(BadRecord) as caught:
        fit(B, 16, slots=1)
    assert caught.value.reason == "too many images"


@pytest.mark.parametrize(
    ("sample", "length"),
    [
        (sample_of(([1, 2, 3], 0)), 8),
        # A loss on the first id is on no label.
        (sample_of(([1], 1), ([2], 0)), 8),
        (A, 7),
        (sample_of(None, ([5], 1)), 3),
    ],
    ids=["no answer", "first id", "cut before the answer", "cut to nothing"],
)
def test_a_sample_without_loss_is_a_bad_record(sample: Sample, length: int) -> None:
    with pytest.raises(BadRecord) as caught:
        fit(sample, length, "truncate")
    assert caught.value.reason == "nothing to learn"


# Answers before, between and after the images, which are at 3 to 6, 8 to 11 and 12 to 15.
LONG = sample_of(([1], 0), ([31, 32], 1), None, ([33], 1), None, None, ([34, 2], 1))


@pytest.mark.parametrize(
    ("length", "left", "images"),
    [
        (2, 3, 0),  # before the first image
        (3, 3, 0),  # behind its first token
        (5, 3, 0),
        (6, 3, 0),  # its last token is the last id, of which the model sees the label alone
        (7, 8, 1),
        (8, 8, 1),
        (11, 8, 1),
        (12, 8, 1),  # the label of the second's last token is of the third
        (13, 8, 1),
        (16, 17, 3),
        (17, 18, 3),
        (20, 18, 3),
    ],
)
def test_what_is_too_long_is_cut_without_halving_an_image(length: int, left: int, images: int) -> None:
    row = fit(LONG, length, "truncate", slots=3)
    assert sum(path != NO_IMAGE for path in row.paths) == images
    kept = left - 1
    padding = [0] * (length - kept)
    assert row.data[0].tolist() == LONG.ids[:kept] + padding
    assert row.data[1].tolist() == LONG.weights[1:left] + padding
    assert row.data[2].tolist() == LONG.ids[1:left] + padding
    assert row.data[3].tolist() == [0] * kept + [1] * len(padding)
    places = [list(range(start, end)) for start, end in LONG.images[:images]]
    assert row.positions.tolist() == places + [[length] * P] * (3 - images)
    assert np.flatnonzero(row.data[4]).tolist() == [at for place in places for at in place]
