"""What a run tells, and to whom: people, programs, TensorBoard and `mmsimple plot`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from mmsimple.train.metrics import THROUGHPUT, Lines, Metrics, set_names
from mmsimple.train.progress import Progress
from mmsimple.train.tensorboard import TensorBoard
from mmsimple.train.validation import Validation

# What TensorBoard shows of an update.
SCALARS = ("loss", "learning_rate", "gradient_norm", "parameter_norm", "loss_scale")


class Journal:
    """All that is told of a run that begins, or goes on, after `step`; entered, it is closed at the end.

    Raises DiskError, and InputRefused for lines of before that are damaged.
    """

    def __init__(self, folder: Path, step: int, last_step: int, say: Callable[[str], None]) -> None:
        self._say = say
        self._metrics = Metrics(folder, step)
        self._throughput = Lines(folder / THROUGHPUT, step)
        self._tensorboard = TensorBoard(folder, step, say)
        self._progress = Progress(step, last_step)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._tensorboard.close()

    @property
    def validated(self) -> int:
        """The last step whose validation is told of, that of an earlier process too."""
        return self._metrics.validated

    def update(self, values: Mapping[str, Any], seconds: float, *, is_shown: bool) -> None:
        """Tell of an update that took so long; people are told of those that are shown."""
        step = values["step"]
        scalars = {f"train/{name}": values[name] for name in SCALARS if name in values}
        self._metrics.add(values)
        self._progress.add(values, seconds)
        if is_shown:
            throughput = self._progress.take()
            scalars["train/samples_per_second"] = throughput.samples_per_second
            scalars["train/tokens_per_second"] = throughput.tokens_per_second
            self._throughput.add({"step": step, **vars(throughput)})
            self._say(self._progress.line(values, throughput))
        self._tensorboard.add(step, scalars)

    def validation(self, step: int, found: Sequence[Validation]) -> None:
        """Tell how each validation set was, after an update."""
        told = [{"loss": each.loss, "perplexity": each.perplexity, "tokens": each.tokens} for each in found]
        self._metrics.add({"step": step, "validation": told})
        for name, each in zip(set_names(len(found)), found, strict=True):
            self._say(f"validation at update {step}: {each}")
            self._tensorboard.add(step, {f"{name}/loss": each.loss, f"{name}/perplexity": each.perplexity})
