"""What a person sees of a run: a line now and then."""

from __future__ import annotations

from collections.abc import Mapping
from time import monotonic
from typing import Any


class Progress:
    """Tells how fast a run is and how long it will take, from the updates since it began or went on."""

    def __init__(self, step: int, last_step: int | None) -> None:
        self.begun, self.last_step, self.since = step, last_step, monotonic()
        self.samples = self.tokens = 0

    def add(self, values: Mapping[str, Any]) -> None:
        """Count an update, of which these are the metrics."""
        self.samples += values["samples"]
        self.tokens += values["tokens"]

    def line(self, values: Mapping[str, Any]) -> str:
        step, seconds = values["step"], max(monotonic() - self.since, 1e-9)
        words = [
            f"update {step}" if self.last_step is None else f"update {step} of {self.last_step}",
            "no loss" if values.get("loss") is None else f"loss {values['loss']:.4f}",
            f"rate {values['learning_rate']:.2e}",
            f"{self.samples / seconds:.1f} samples/s",
            f"{self.tokens / seconds:.0f} tokens/s",
        ]
        if self.last_step is not None:
            words.append(f"{_clock((self.last_step - step) * seconds / (step - self.begun))} left")
        return "  ".join(words)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
