"""How far what two models compute is apart, output by output, in float64 and a few rows at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from math import inf, isfinite, prod
from typing import TYPE_CHECKING

from mmconvert.difference import distances
from mmconvert.sources import blocks

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# What float32 leaves between two ways to compute the same, in units of the largest value that is at least 1.
TOLERANCE = 2e-5
# Outputs over the vocabulary, which are distributions of the next token.
LOGITS = ("text logits", "logits")
# Why an output may be on one side only: what a model without it lacks.
LACKING = {
    "logits": "projector",
    "projected image features": "projector",
    "image embeds": "image projection",
    "text logits": "language model head",
}
# An output that is computed from another one needs no word where that one is compared.
FOLLOWS = {"text hidden states": "text logits"}
# Elements that are compared at a time.
PIECE = 1 << 18


@dataclass(frozen=True)
class Agreement:
    """How far B's values of one output are from A's.

    `largest` is the largest absolute value of A, `max_abs` the largest absolute difference, `max_rel` the same as a
    share of `largest`, `allowed` how large `max_abs` may be. Differences are infinite where a NaN or an infinity meets
    anything else; `nonfinite` counts what is NaN or infinite in A. Of logits, `kl` is the mean divergence KL(A || B) in
    nats over all positions that are finite, and `argmax` the share of them whose likeliest token is the same.
    """

    shape: tuple[int, ...]
    largest: float
    max_abs: float
    allowed: float
    nonfinite: int = 0
    kl: float | None = None
    argmax: float | None = None

    @property
    def max_rel(self) -> float:
        if not self.largest:
            return inf if self.max_abs else 0.0
        return self.max_abs / self.largest

    @property
    def ok(self) -> bool:
        return self.max_abs <= self.allowed and self.nonfinite < prod(self.shape)

    @property
    def complaint(self) -> str:
        """What to say where it is not ok."""
        if self.nonfinite == prod(self.shape):
            return "is NaN or infinite all over in A, so that nothing can be compared"
        if not isfinite(self.max_abs):
            return "NaN or infinite in one of the two only"
        return f"differs by {self.max_abs:.1e}, and {self.allowed:.1e} is allowed"


@dataclass(frozen=True)
class Parity:
    """What two checkpoints compute from the same random inputs; all is well where `problems` is empty.

    `outputs` has those that both give, by name; `notes` are worth knowing and no problem.
    """

    a: str
    b: str
    tolerance: float
    seed: int
    outputs: Mapping[str, Agreement]
    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return not self.problems

    @property
    def complaint(self) -> str:
        """The first problem, and how many others there are; to be asked for where there is one."""
        more = f" (and {len(self.problems) - 1} more)" if len(self.problems) > 1 else ""
        return self.problems[0] + more


def agreement(a: NDArray[np.float32], b: NDArray[np.float32], tolerance: float, *, logits: bool = False) -> Agreement:
    """Compare one output of two models, of one shape; `tolerance` is in units of A's largest value, or of 1."""
    import numpy as np

    width = a.shape[-1]
    left, right = a.reshape(-1, width), b.reshape(-1, width)
    largest = max_abs = divergence = 0.0
    nonfinite = same = positions = 0
    for start, count in blocks(len(left), max(1, PIECE // width)):
        x, y = (each[start : start + count].astype(np.float64) for each in (left, right))
        finite = np.isfinite(x)
        nonfinite += int(np.count_nonzero(~finite))
        largest = max(largest, float(np.abs(x).max(where=finite, initial=0.0)))
        max_abs = max(max_abs, float(distances(x, y).max()))
        if logits:
            usable = (finite & np.isfinite(y)).all(axis=1)
            x, y = x[usable], y[usable]
            positions += len(x)
            divergence += float(_divergences(x, y).sum())
            same += int(np.count_nonzero(x.argmax(axis=1) == y.argmax(axis=1)))
    allowed = tolerance * max(1.0, largest)
    if not positions:
        return Agreement(a.shape, largest, max_abs, allowed, nonfinite)
    # Rounding may leave it a little below zero, which no divergence is.
    kl = max(0.0, divergence / positions)
    return Agreement(a.shape, largest, max_abs, allowed, nonfinite, kl, same / positions)


def _divergences(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """KL(x || y) in nats of each row of logits, [N, V] -> [N]."""
    import numpy as np

    p, q = _log_softmax(x), _log_softmax(y)
    found: NDArray[np.float64] = (np.exp(p) * (p - q)).sum(axis=1)
    return found


def _log_softmax(x: NDArray[np.float64]) -> NDArray[np.float64]:
    import numpy as np

    shifted = x - x.max(axis=1, keepdims=True)
    found: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return found


def only_one_side(a: Set[str], b: Set[str]) -> Iterator[str]:
    """What is said of outputs that only one side gives: that they are not compared, and why."""
    for here, there, other in ((a, b, "B"), (b, a, "A")):
        alone = sorted(name for name in here - there if FOLLOWS.get(name) not in a & b)
        for what in dict.fromkeys(LACKING.get(name) for name in alone):
            names = ", ".join(name for name in alone if LACKING.get(name) == what)
            if what is None:
                yield f"{names}: not compared, {other} does not give it"
            else:
                apart = ": the parts are compared apart" if what == "projector" else ""
                yield f"no {what} in {other}{apart}, without {names}"
