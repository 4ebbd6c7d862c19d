"""Models that compute next to nothing, for tests of what is done with forward passes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import pytest
from numpy.typing import NDArray

from mmconvert import forward
from mmconvert.forward import Inputs, Model, Provider, Sizes
from mmconvert.layouts import Checkpoint

Outputs = dict[str, NDArray[np.float32]]
VOCAB = 11
TEXT = Sizes(vocab_size=VOCAB, max_length=64)


def logits(inputs: Inputs, shift: float = 0.0) -> Outputs:
    """Text logits that follow from the tokens; `shift` is added to the first of each position."""
    assert inputs.input_ids is not None
    found = np.random.default_rng(7).standard_normal((VOCAB, VOCAB)).astype(np.float32)[inputs.input_ids]
    found[..., 0] += np.float32(shift)
    return {"text logits": found}


class Fake(Model):
    def __init__(self, compute: Callable[[Inputs], Outputs] = logits, sizes: Sizes = TEXT) -> None:
        self.compute, self.sizes = compute, sizes

    def outputs(self, inputs: Inputs) -> Outputs:
        return self.compute(inputs)


@dataclass
class Lab:
    """A provider for the formats of `models`, which remembers what it was asked for."""

    models: Mapping[str, Model]
    asked: list[Checkpoint] = field(default_factory=list)

    def __call__(self, checkpoint: Checkpoint) -> Model | None:
        self.asked.append(checkpoint)
        return self.models.get(checkpoint.node.format)

    @property
    def formats(self) -> list[str]:
        return [checkpoint.node.format for checkpoint in self.asked]


def install(patch: pytest.MonkeyPatch, *providers: Provider) -> None:
    """Let these be all the providers that there are."""
    patch.setattr(forward, "providers", lambda: {f"fake{at}": lambda it=it: it for at, it in enumerate(providers)})


def install_without_torch(patch: pytest.MonkeyPatch) -> None:
    """Let the only provider be one that cannot be imported."""

    def load() -> Provider:
        raise ImportError("No module named 'torch'")

    patch.setattr(forward, "providers", lambda: {"fake": load})
