"""A dataset to learn seeing from: shapes of one colour in grey noise, captions, and questions of colour and number.

The answer follows from the picture and from which of the two is asked. Every colour comes with every number and every
question equally often, so that who does not look at the picture is right once in four times.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageDraw

SIDE = 28
COLOURS = {"red": (220, 40, 40), "green": (40, 170, 60), "blue": (50, 80, 220), "yellow": (230, 210, 50)}
NUMBERS = ("one", "two", "three", "four")
QUESTIONS: dict[str, Literal["colour", "number"]] = {
    "What colour do the shapes have?": "colour",
    "Name the colour.": "colour",
    "How many shapes are there?": "number",
    "Count the shapes.": "number",
}
CHANCE = 1 / 4


@dataclass(frozen=True)
class Example:
    """What is in a picture, and what is asked about it."""

    name: str
    colour: str
    number: str
    question: str

    @property
    def caption(self) -> str:
        return f"{self.number} {self.colour}"

    @property
    def answer(self) -> str:
        return self.colour if QUESTIONS[self.question] == "colour" else self.number


def make(folder: Path, count: int, seed: int) -> list[Example]:
    """`images/`, pictures of the same names with nothing to see in `blank/`, and a file of records for each phase."""
    every = list(product(COLOURS, NUMBERS, QUESTIONS))
    assert count % len(every) == 0
    examples = [Example(f"{number:03}.png", *every[number % len(every)]) for number in range(count)]
    random = np.random.default_rng(seed)
    for name in ("images", "blank"):
        (folder / name).mkdir(parents=True)
    for each in examples:
        draw(each, random).save(folder / "images" / each.name)
        Image.new("RGB", (SIDE, SIDE), "grey").save(folder / "blank" / each.name)
    write(folder / "captions.json", (record(each, "<image>", each.caption) for each in examples))
    write(folder / "questions.json", (record(each, f"<image>\n{each.question}", each.answer) for each in examples))
    return examples


def draw(example: Example, random: np.random.Generator) -> Image.Image:
    """Squares and discs of any size, each somewhere in a quarter of its own, in about their colour."""
    noise = random.normal(random.uniform(100, 150), 15, (SIDE, SIDE, 1)).repeat(3, 2)
    picture = Image.fromarray(noise.clip(0, 255).astype(np.uint8))
    pen = ImageDraw.Draw(picture)
    for place in random.permutation(4)[: NUMBERS.index(example.number) + 1]:
        size = int(random.integers(7, 12))
        top, left = (SIDE // 2 * int(at) + int(random.integers(SIDE // 2 - size)) for at in divmod(place, 2))
        red, green, blue = (int(level + random.integers(-20, 21)) for level in COLOURS[example.colour])
        paint = pen.rectangle if random.integers(2) else pen.ellipse
        paint((left, top, left + size, top + size), (red, green, blue))
    return picture


def record(example: Example, said: str, answer: str) -> dict[str, Any]:
    """One of LLaVA's."""
    turns = [{"from": "human", "value": said}, {"from": "gpt", "value": answer}]
    return {"id": example.name, "image": example.name, "conversations": turns}


def write(path: Path, records: Iterable[dict[str, Any]]) -> None:
    path.write_text(json.dumps(list(records)), "utf-8")
