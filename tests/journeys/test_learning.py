"""Models that never met learn to answer questions about pictures that they have not seen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mmconvert import api
from tests.journeys.journey import Journey
from tests.journeys.pictures import CHANCE, QUESTIONS, Example

if TYPE_CHECKING:
    from tests.conftest import Run

PROJECTOR, DECODER = "image_model.projection.", "text_model."
# Answers that are asked for again, of the exported model.
AGAIN = 16


def pictures(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in (folder / "images").iterdir()]


def tensors(checkpoint: Path) -> dict[str, bytes]:
    """Their bytes, by their names in the model; a run's checkpoint sets `model.` before these."""
    return {name.removeprefix("model."): ref.read() for name, ref in api.open(checkpoint).items()}


def changed(before: Path, after: Path) -> set[str]:
    """The tensors that are not the same to the bit."""
    old, new = tensors(before), tensors(after)
    assert old.keys() == new.keys()
    return {name for name in old if old[name] != new[name]}


def accuracy(answers: Sequence[str], examples: Sequence[Example], kind: str) -> float:
    """The share of questions of a kind, `colour` or `number`, whose answer is the very word."""
    asked = [pair for pair in zip(answers, examples, strict=True) if QUESTIONS[pair[1].question] == kind]
    return sum(answer == each.answer for answer, each in asked) / len(asked)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_it_learns_to_see(seed: int, tmp_path: Path, mmconvert: Run, mmsimple: Run) -> None:
    journey = Journey(tmp_path, seed, mmconvert, mmsimple)
    held_out = journey.begin()
    every = pictures(tmp_path / "train") + pictures(tmp_path / "held_out")
    assert len(set(every)) == len(every)

    # Phase 1: of captions the projector learns, and nothing else changes.
    start = journey.convert()
    names = tensors(start).keys()
    journey.prepare(1)
    aligned = journey.train(1, start)
    assert changed(start, aligned) == {name for name in names if name.startswith(PROJECTOR)}
    assert journey.held_out_loss(1, aligned) < 0.75 * journey.held_out_loss(1, start)

    # Phase 2: of questions and answers the language model learns, too.
    journey.prepare(2)
    tuned = journey.train(2, aligned)
    assert changed(aligned, tuned) == {name for name in names if name.startswith((PROJECTOR, DECODER))}
    answers = journey.answers(tuned, held_out)
    blind, before = journey.answers(tuned, held_out, "blank"), journey.answers(aligned, held_out)
    for kind in ("colour", "number"):
        assert accuracy(answers, held_out, kind) >= 2 * CHANCE
        # What is the same of all pictures is right for one in four.
        assert accuracy(blind, held_out, kind) <= CHANCE
        assert accuracy(before, held_out, kind) <= CHANCE
    loss = journey.held_out_loss(2, tuned)
    assert loss < journey.held_out_loss(2, tuned, "blank") / 4
    assert loss < journey.held_out_loss(2, aligned) / 4

    # And home, where it says the same.
    exported = journey.export(tuned)
    assert journey.answers(exported, held_out[:AGAIN]) == answers[:AGAIN]
    assert journey.generate(exported, held_out[0]) == answers[0]
