"""Draw the demo's data: a shape of one colour in each picture, and what LLaVA's records say of them.

Usage: python docs/small_pictures.py FOLDER. Writes FOLDER/images with FOLDER/captions.json for phase 1 and
FOLDER/questions.json for phase 2, and FOLDER/unseen with a picture of each colour that is in neither.
"""

from __future__ import annotations

import json
import sys
from itertools import product
from pathlib import Path
from random import Random

from PIL import Image, ImageDraw

COLOURS = ("red", "green", "blue", "yellow")
SHAPES = ("square", "disc")
QUESTION = "What colour is it?"
COPIES, SIDE = 8, 28


def draw(colour: str, shape: str, random: Random) -> Image.Image:
    """A shape of any size, anywhere, on any grey."""
    grey, size = random.randint(90, 170), random.randint(12, 20)
    left, top = (random.randint(0, SIDE - size) for _ in "xy")
    picture = Image.new("RGB", (SIDE, SIDE), (grey, grey, grey))
    pen = ImageDraw.Draw(picture)
    paint = pen.rectangle if shape == "square" else pen.ellipse
    paint((left, top, left + size, top + size), colour)
    return picture


def record(image: str, asked: str, answer: str) -> dict[str, object]:
    turns = [{"from": "human", "value": f"<image>\n{asked}"}, {"from": "gpt", "value": answer}]
    return {"id": image, "image": image, "conversations": turns}


def main(folder: Path) -> None:
    random = Random(0)
    captions, questions = [], []
    for name in ("images", "unseen"):
        (folder / name).mkdir(parents=True)
    for copy, colour, shape in product(range(COPIES), COLOURS, SHAPES):
        name = f"{colour}-{shape}-{copy}.png"
        draw(colour, shape, random).save(folder / "images" / name)
        captions.append(record(name, "Describe it.", f"a {colour} {shape}"))
        questions.append(record(name, QUESTION, colour))
    for colour in COLOURS:
        draw(colour, "disc", random).save(folder / "unseen" / f"{colour}.png")
    for file, records in (("captions.json", captions), ("questions.json", questions)):
        (folder / file).write_text(json.dumps(records, indent=1), "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
