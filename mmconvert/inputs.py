"""Random inputs that fit a model: text, images, and text with images in it. One seed gives the same ones every time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SAMPLES = 2
IMAGES = 2
# Tokens of a text, where nothing asks for more.
LENGTH = 32
# One token more than a window holds shows that it slides; a few more, that it does so in every layer.
MARGIN = 8
# Logits of longer texts take gigabytes. A window is worth less than what is needed: sizes tell of it too.
LONGEST = 8192
LONGEST_FOR_WINDOW = 512


@dataclass(frozen=True)
class Sizes:
    """What the inputs of a model must fit.

    Without `vocab_size` it takes no text, without `image` (channels, height, width) no images. `image_tokens` is how
    many tokens an image takes in a text, None where the two do not meet. `max_length` is the longest text, in tokens.
    Texts shorter than `needed_length` are computed otherwise by the two architectures, so none is compared. A token
    sees `sliding_window` tokens, itself included; None for all before it.
    """

    vocab_size: int | None = None
    image: tuple[int, int, int] | None = None
    image_tokens: int | None = None
    max_length: int | None = None
    needed_length: int = 0
    sliding_window: int | None = None


@dataclass(frozen=True)
class Inputs:
    """What a model is given; None where it takes no such thing.

    Shape letters: B samples, S positions, I image slots of a sample, P tokens of an image, N images, C channels. The
    token at an image's position is 0; the positions of a slot without an image are all S, one past the end.
    """

    input_ids: NDArray[np.int64] | None  # [B, S], text alone
    pixel_values: NDArray[np.float32] | None  # [N, C, height, width], images alone
    joined_ids: NDArray[np.int64] | None  # [B, S], text with images
    image_positions: NDArray[np.int64] | None  # [B, I, P]
    joined_pixels: NDArray[np.float32] | None  # [B, I, C, height, width]


def disagreements(a: Sizes, b: Sizes) -> Iterator[str]:
    """What two sides say of themselves that cannot both be right; no input is needed to see it.

    Where one side has no `image_tokens`, nothing is joined.
    """
    for name, words in (
        ("vocab_size", "vocabulary"),
        ("image", "images (channels, height, width)"),
        ("image_tokens", "tokens of an image (by its size, and with or without the class token)"),
        ("sliding_window", "sliding window"),
    ):
        x, y = getattr(a, name), getattr(b, name)
        if x != y and not (name == "image_tokens" and None in (x, y)):
            yield f"{words}: {x} in A, {y} in B"
    for one, other, this, that in ((a, b, "A", "B"), (b, a, "B", "A")):
        if other.max_length is not None and one.needed_length > other.max_length:
            yield f"texts: {this} is made for more than {one.needed_length - 1} tokens, {that} for {other.max_length}"


def together(a: Sizes, b: Sizes) -> Sizes:
    """What inputs for both sides must fit; each may know of a length that the other does not."""
    lengths = [each.max_length for each in (a, b) if each.max_length is not None]
    return replace(
        a,
        image_tokens=None if b.image_tokens is None else a.image_tokens,
        max_length=min(lengths, default=None),
        needed_length=max(a.needed_length, b.needed_length),
    )


def draw_inputs(sizes: Sizes, seed: int) -> tuple[Inputs, tuple[str, ...]]:
    """Inputs for a model of these sizes, and what they do not show, in words."""
    import numpy as np

    draw = np.random.default_rng(seed)
    notes: list[str] = []
    length = None if sizes.vocab_size is None else _text_length(sizes, notes)
    images = 0 if length is None else _images(sizes, notes)
    ids = pixels = joined_ids = positions = joined_pixels = None
    if sizes.image is not None:
        pixels = draw.standard_normal((IMAGES, *sizes.image), np.float32)
    if sizes.vocab_size is not None and length is not None:
        ids = draw.integers(0, sizes.vocab_size, (SAMPLES, length))
        if sizes.image is not None and sizes.image_tokens is not None and images:
            length = min(_longest(sizes), max(length, images * sizes.image_tokens + LENGTH))
            positions = _positions(length, images, sizes.image_tokens)
            joined_ids = draw.integers(0, sizes.vocab_size, (SAMPLES, length))
            for sample, slot in np.argwhere(positions[..., 0] < length):
                joined_ids[sample, positions[sample, slot]] = 0
            joined_pixels = draw.standard_normal((SAMPLES, images, *sizes.image), np.float32)
    return Inputs(ids, pixels, joined_ids, positions, joined_pixels), tuple(notes)


def _longest(sizes: Sizes) -> int:
    return LONGEST if sizes.max_length is None else min(sizes.max_length, LONGEST)


def _text_length(sizes: Sizes, notes: list[str]) -> int | None:
    """How many tokens a text has; None where no text would do."""
    longest = _longest(sizes)
    if sizes.needed_length > longest:
        notes.append(
            f"no text is compared: below {sizes.needed_length} tokens the two architectures compute differently, "
            f"and {longest} are the most that a text has here"
        )
        return None
    window = sizes.sliding_window
    wanted = 0 if window is None else min(window + MARGIN, LONGEST_FOR_WINDOW)
    length = min(longest, max(LENGTH, sizes.needed_length, wanted))
    if window is not None and length <= window:
        notes.append(
            f"both say that their window is {window} tokens; the texts have {length}, so that it does not show"
        )
    return length


def _images(sizes: Sizes, notes: list[str]) -> int:
    """How many images a text has room for, with a token of text before, between and after them."""
    if sizes.image is None or sizes.image_tokens is None:
        return 0
    longest = _longest(sizes)
    images = min(IMAGES, (longest - 1) // (sizes.image_tokens + 1))
    if images < 1:
        notes.append(
            f"text with images is not compared: an image takes {sizes.image_tokens} tokens, a text at most {longest}"
        )
    return images


def _positions(length: int, images: int, tokens: int) -> NDArray[np.int64]:
    """[B, I, P]: where the images stand, evenly apart; the second sample has one less than the first."""
    import numpy as np

    found = np.full((SAMPLES, images, tokens), length, np.int64)
    for sample in range(SAMPLES):
        held = images - sample
        gap = (length - held * tokens) // (held + 1)
        for slot in range(held):
            start = gap * (slot + 1) + tokens * slot
            found[sample, slot] = np.arange(start, start + tokens)
    return found
