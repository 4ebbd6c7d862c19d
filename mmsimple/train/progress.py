"""What a person sees of a run: a line now and then."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Any


@dataclass(frozen=True)
class Throughput:
    """What went through a model in so many seconds of updates; those of validation and checkpoints are none of them."""

    seconds: float
    samples: int
    tokens: int

    @property
    def samples_per_second(self) -> float:
        return self.samples / self.seconds

    @property
    def tokens_per_second(self) -> float:
        """Without padding, image tokens included."""
        return self.tokens / self.seconds


class Progress:
    """How fast a run is, from one line to the next, and how long it will take, by all since it began or went on."""

    def __init__(self, step: int, last_step: int) -> None:
        self.begun, self.last_step, self.since = step, last_step, monotonic()
        self._counted = Throughput(0.0, 0, 0)

    def add(self, values: Mapping[str, Any], seconds: float) -> None:
        """Count an update that took so long, of which these are the metrics."""
        so_far = self._counted
        self._counted = Throughput(
            so_far.seconds + seconds, so_far.samples + values["samples"], so_far.tokens + values["tokens"]
        )

    def take(self) -> Throughput:
        """That of the updates since it was taken before."""
        taken, self._counted = self._counted, Throughput(0.0, 0, 0)
        return taken

    def line(self, values: Mapping[str, Any], throughput: Throughput) -> str:
        step = values["step"]
        left = (self.last_step - step) * (monotonic() - self.since) / (step - self.begun)
        words = [
            f"update {step} of {self.last_step}",
            "no loss" if values.get("loss") is None else f"loss {values['loss']:.4f}",
            f"rate {values['learning_rate']:.2e}",
            f"{throughput.samples_per_second:.1f} samples/s",
            f"{throughput.tokens_per_second:.0f} tokens/s",
            f"{_clock(left)} left",
        ]
        return "  ".join(words)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
