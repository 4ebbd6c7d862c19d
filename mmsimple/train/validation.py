"""How well a model does on data that it does not learn from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import exp, nan

import torch

from mmsimple.data.loader import Loader
from mmsimple.model import MultimodalModel
from mmsimple.train.config import TrainConfig
from mmsimple.train.fitting import check_tokens
from mmsimple.train.update import on_device, parts

# e to the power of more is past the end of floating-point numbers.
LARGEST = 700.0


@dataclass(frozen=True)
class Validation:
    """The mean loss over all tokens that count, by their weights; NaN where there are none."""

    loss: float
    tokens: int

    @property
    def perplexity(self) -> float:
        return exp(min(self.loss, LARGEST))

    def __str__(self) -> str:
        return f"loss {self.loss:.4f}, perplexity {self.perplexity:.2f} over {self.tokens} tokens"


class Validator:
    """The validation sets of a run. Raises what the data raises."""

    def __init__(self, config: TrainConfig, model: MultimodalModel, device: torch.device) -> None:
        self.config, self.model, self.device = config, model, device
        # Each sample once: what drop_last would carry into another epoch belongs to this one.
        self.loaders = [Loader(replace(each, drop_last=False)) for each in config.validation_data]

    def run(self) -> tuple[Validation, ...]:
        """Each set from its beginning, as much as the config says; the model is in train mode afterwards."""
        self.model.eval()
        found = tuple(map(self._measure, self.loaders))
        self.model.train()
        return found

    @torch.no_grad()
    def _measure(self, loader: Loader) -> Validation:
        loader.load_state_dict({"samples_streamed": 0})
        half = self.config.precision.dtype
        total = weight = 0.0
        tokens = 0
        for number, batch in enumerate(loader):
            if number == self.config.loop.eval_steps:
                break
            check_tokens(batch, self.config.model)
            for part in parts(batch, self.config.validation_micro_batch_size):
                with torch.autocast(self.device.type, half, enabled=half is not None):
                    losses, weights = self.model.losses(on_device(part, self.device))
                total += float((losses.double() * weights).sum())
                weight += float(weights.double().sum())
                tokens += len(weights)
        return Validation(total / weight if weight else nan, tokens)
