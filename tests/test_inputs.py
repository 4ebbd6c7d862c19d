"""Random inputs fit the sizes that they are drawn for, and one seed gives the same ones."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest

from mmconvert.inputs import LONGEST, Inputs, Sizes, disagreements, draw_inputs, together

IMAGE = (3, 4, 5)
WHOLE = Sizes(vocab_size=50, image=IMAGE, image_tokens=6, max_length=64)


def test_one_seed_gives_the_same_inputs_and_another_gives_others() -> None:
    first, again, other = (draw_inputs(WHOLE, seed)[0] for seed in (3, 3, 4))
    for each in fields(Inputs):
        assert np.array_equal(getattr(first, each.name), getattr(again, each.name))
    for name in ("input_ids", "pixel_values", "joined_ids", "joined_pixels"):
        assert not np.array_equal(getattr(first, name), getattr(other, name))


def test_a_model_is_given_only_what_it_takes() -> None:
    text, _ = draw_inputs(Sizes(vocab_size=50), 0)
    assert [each.name for each in fields(Inputs) if getattr(text, each.name) is not None] == ["input_ids"]
    image, _ = draw_inputs(Sizes(image=IMAGE), 0)
    assert [each.name for each in fields(Inputs) if getattr(image, each.name) is not None] == ["pixel_values"]
    apart, notes = draw_inputs(Sizes(vocab_size=50, image=IMAGE), 0)
    assert (apart.joined_ids, apart.image_positions, apart.joined_pixels, notes) == (None, None, None, ())


def test_texts_and_images_have_their_shapes_and_types() -> None:
    inputs, _ = draw_inputs(WHOLE, 0)
    assert inputs.input_ids is not None
    assert inputs.pixel_values is not None
    assert (inputs.input_ids.shape, inputs.pixel_values.shape) == ((2, 32), (2, *IMAGE))
    assert (str(inputs.input_ids.dtype), str(inputs.pixel_values.dtype)) == ("int64", "float32")
    assert inputs.input_ids.min() >= 0
    assert inputs.input_ids.max() < 50


def test_two_images_stand_in_the_first_sample_and_one_in_the_second() -> None:
    inputs, notes = draw_inputs(WHOLE, 0)
    ids, positions, pixels = inputs.joined_ids, inputs.image_positions, inputs.joined_pixels
    assert ids is not None
    assert positions is not None
    assert pixels is not None
    assert (ids.shape, positions.shape, pixels.shape, notes) == ((2, 44), (2, 2, 6), (2, 2, *IMAGE), ())
    assert (str(positions.dtype), str(pixels.dtype)) == ("int64", "float32")
    assert (positions[1, 1] == 44).all()
    for sample, held in ((0, 2), (1, 1)):
        taken = [places.tolist() for places in positions[sample, :held]]
        assert all(places == list(range(places[0], places[0] + 6)) for places in taken)
        # Text before, between and after.
        edges = [0, *(edge for places in taken for edge in (places[0], places[-1] + 1)), 44]
        assert all(end - start >= 1 for start, end in zip(edges[::2], edges[1::2], strict=True))
        assert not ids[sample, np.concatenate(positions[sample, :held])].any()


@pytest.mark.parametrize(("longest", "images"), [(15, 2), (14, 1), (8, 1)])
def test_a_text_has_as_many_images_as_there_is_room_for(longest: int, images: int) -> None:
    inputs, notes = draw_inputs(Sizes(50, IMAGE, image_tokens=6, max_length=longest), 0)
    assert inputs.image_positions is not None
    assert inputs.joined_ids is not None
    assert (inputs.image_positions.shape, inputs.joined_ids.shape, notes) == ((2, images, 6), (2, longest), ())
    assert (inputs.image_positions[0] < longest).all()


def test_text_with_images_is_left_out_where_there_is_no_room_for_one() -> None:
    inputs, notes = draw_inputs(Sizes(50, IMAGE, image_tokens=6, max_length=7), 0)
    assert inputs.joined_ids is None
    assert inputs.input_ids is not None
    assert notes == ("text with images is not compared: an image takes 6 tokens, a text at most 7",)


@pytest.mark.parametrize(
    ("sizes", "length", "noted"),
    [
        (Sizes(50, max_length=20), 20, False),
        (Sizes(50, sliding_window=10), 32, False),
        (Sizes(50, sliding_window=92), 100, False),
        (Sizes(50, sliding_window=511), 512, False),
        (Sizes(50, sliding_window=512), 512, True),
        (Sizes(50, sliding_window=92, max_length=90), 90, True),
        (Sizes(50, needed_length=4097, sliding_window=600), 4097, False),
    ],
)
def test_texts_are_as_long_as_is_asked_for(sizes: Sizes, length: int, noted: bool) -> None:
    inputs, notes = draw_inputs(sizes, 0)
    assert inputs.input_ids is not None
    assert inputs.input_ids.shape == (2, length)
    assert [f"the texts have {length}, so that it does not show" in note for note in notes] == [True] * noted


@pytest.mark.parametrize("sizes", [Sizes(50, max_length=99, needed_length=100), Sizes(50, needed_length=LONGEST + 1)])
def test_no_text_is_drawn_where_none_is_long_enough(sizes: Sizes) -> None:
    inputs, (note,) = draw_inputs(sizes, 0)
    assert inputs.input_ids is None
    assert f"below {sizes.needed_length} tokens" in note


def test_sizes_that_cannot_both_be_right_are_named() -> None:
    other = Sizes(vocab_size=51, image=(3, 4, 4), image_tokens=7, sliding_window=9)
    assert list(disagreements(WHOLE, other)) == [
        "vocabulary: 50 in A, 51 in B",
        "images (channels, height, width): (3, 4, 5) in A, (3, 4, 4) in B",
        "tokens of an image (by its size, and with or without the class token): 6 in A, 7 in B",
        "sliding window: None in A, 9 in B",
    ]
    assert list(disagreements(WHOLE, Sizes(50, IMAGE, image_tokens=None))) == []
    assert len(list(disagreements(WHOLE, Sizes(50)))) == 1


def test_a_length_that_one_side_needs_and_the_other_has_not_is_told() -> None:
    long, short = Sizes(50, max_length=64, needed_length=33), Sizes(50, max_length=32)
    assert list(disagreements(long, short)) == ["texts: A is made for more than 32 tokens, B for 32"]
    assert list(disagreements(short, long)) == ["texts: B is made for more than 32 tokens, A for 32"]
    assert list(disagreements(long, Sizes(50, max_length=33))) == []


def test_inputs_for_both_sides_fit_what_either_knows() -> None:
    a = Sizes(50, IMAGE, 6, max_length=64, sliding_window=40)
    assert together(a, Sizes(50, IMAGE, None, None, 33, 40)) == Sizes(50, IMAGE, None, 64, 33, 40)
    assert together(a, Sizes(50, IMAGE, 6, 48, 0, 40)) == Sizes(50, IMAGE, 6, 48, 0, 40)
    assert together(Sizes(50, IMAGE), a).image_tokens is None
