"""The training loop: forward, backward, unscale, norms, clip, update, and what is written on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from math import isfinite
from pathlib import Path
from typing import Any

import torch

from mmconvert.errors import InputRefused, TrainingStopped, UsageError
from mmsimple.data.loader import Loader
from mmsimple.loss import NothingToLearn
from mmsimple.model import Batch, MultimodalModel
from mmsimple.train import checkpoint
from mmsimple.train.config import TrainConfig
from mmsimple.train.metrics import Metrics
from mmsimple.train.norms import clip, parameter_norm
from mmsimple.train.optimizer import build_optimizer, load_optimizer_state, optimizer_state
from mmsimple.train.progress import Progress
from mmsimple.train.rng import rng_state, set_rng_state
from mmsimple.train.stopping import EXIT, Stopping
from mmsimple.train.update import accumulate, learned_tokens
from mmsimple.train.validation import Validation, Validator

# Updates in a row without a finite loss and gradient that are passed over before a run gives up.
MOST_SKIPPED = 5
# The scale of a float16 loss below which an infinite gradient is not the scale's doing.
LEAST_SCALE = 1.0
FIRST_SCALE = 2.0**16


class Trainer:
    """A run of a model that is on its device, frozen where it is to be.

    `say` is told a line now and then, for people. Raises UsageError for a config without training data, and what the
    data raises.
    """

    def __init__(
        self,
        config: TrainConfig,
        model: MultimodalModel,
        folder: Path,
        device: torch.device,
        say: Callable[[str], None] = print,
    ) -> None:
        if config.train_data is None:
            raise UsageError("trainer.fit.train_dataloader is missing: there is nothing to train on")
        self.config, self.model, self.folder, self.device, self.say = config, model, folder, device, say
        self.step = 0
        self.skipped = 0
        self.loader = Loader(config.train_data)
        self.optimizer = build_optimizer(model, config.optimizer)
        precision = config.precision
        scale = precision.loss_scaling_factor or FIRST_SCALE
        self.scaler = torch.amp.GradScaler(device.type, scale, enabled=precision.dtype == torch.float16)
        self._place = self.loader.state_dict()

    # --- the state of a run ---

    def state_dict(self) -> dict[str, Any]:
        """All but the weights that the next update depends on; learning rates follow from the step."""
        return {
            "optimizer": optimizer_state(self.optimizer),
            "schedulers": [],
            "scaler": self.scaler.state_dict(),
            "dataloader": self._place,
            "rng": rng_state(),
            "global_step": self.step,
            "skipped": self.skipped,
        }

    def load_state_dict(self, state: Mapping[str, Any], where: str) -> None:
        """Go on as the trainer would have that gave this state, whose weights the model has already.

        Raises InputRefused, beginning with `where`, for a state of other parameters.
        """
        strict = self.config.checkpointing.strict
        for problem in load_optimizer_state(self.optimizer, state["optimizer"], f"{where}: optimizer", strict=strict):
            self.say(f"warning: optimizer: {problem}")
        if state.get("scaler"):
            self.scaler.load_state_dict(dict(state["scaler"]))
        self.loader.load_state_dict(state["dataloader"])
        self._place = self.loader.state_dict()
        self.step, self.skipped = state["global_step"], state.get("skipped", 0)
        set_rng_state(state["rng"])

    def save(self) -> Path:
        """Write a checkpoint of this step, and remove those that are not to stay. Raises DiskError."""
        path = checkpoint.path_of(self.folder, self.step)
        checkpoint.save(path, self.model, self.config.params, self.state_dict())
        checkpoint.keep_newest(self.folder, self.config.checkpointing.keep, self.step)
        return path

    # --- training ---

    @property
    def is_done(self) -> bool:
        loop = self.config.loop
        if loop.max_steps is not None:
            return self.step >= loop.max_steps
        return self.loader.epoch >= (loop.max_epochs or 0)

    def train(self, *, validates: bool = True) -> tuple[Validation, ...]:
        """All updates that are left, and the validation after the last one, if there was any.

        SIGTERM ends it after the update that it comes in, with a checkpoint and exit 143.

        Raises TrainingStopped where the loss stays infinite or NaN, and what data and disk raise.
        """
        self.model.train()
        metrics = Metrics(self.folder, self.step)
        progress = Progress(self.step, self.config.loop.max_steps)
        frequency, steps = self.config.loop.eval_frequency, self.config.checkpointing.steps
        if self.step == 0 and self.config.checkpointing.save_initial:
            self.save()
        validator = Validator(self.config, self.model, self.device) if validates else None
        batches = self._batches()
        validation: tuple[Validation, ...] = ()
        with Stopping() as stopping:
            while not self.is_done:
                values = self._update(self._next(batches, stopping))
                metrics.add(values)
                progress.add(values)
                if self.is_done or self.step % self.config.log_steps == 0:
                    self.say(progress.line(values))
                if validator and (self.is_done or (frequency and self.step % frequency == 0)):
                    validation = validator.run()
                    for each in validation:
                        self.say(f"validation at update {self.step}: {each}")
                if stopping.is_asked or self.is_done or (steps and self.step % steps == 0):
                    self.save()
                if stopping.is_asked:
                    self._stop()
        return validation

    def _batches(self) -> Iterator[Batch]:
        """The stream, epoch after epoch."""
        while True:
            before = self.loader.streamed
            came = False
            for batch in self.loader:
                came = True
                yield batch
            if not came:
                left = self.loader.streamed - before
                raise InputRefused(f"the training data gives no batch in an epoch; {left} samples of it were left out")

    def _next(self, batches: Iterator[Batch], stopping: Stopping) -> list[Batch]:
        """The batches of an update."""
        try:
            return list(islice(batches, self.config.loop.grad_accum_steps))
        except RuntimeError:
            # Whoever ends a whole group of processes ends the data's workers too; the last update is whole.
            if stopping.is_asked:
                self.save()
                self._stop()
            raise

    def _stop(self) -> None:
        self.say(f"stopped at update {self.step}, which is saved")
        raise SystemExit(EXIT)

    def _update(self, batches: list[Batch]) -> dict[str, Any]:
        """Learn from these batches, and tell how that went."""
        rate = self.config.schedule(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        values: dict[str, Any] = {"step": self.step + 1, "learning_rate": rate}
        try:
            values["loss"] = accumulate(
                self.model,
                batches,
                lambda loss: torch.autograd.backward(self.scaler.scale(loss)),
                micro_batch_size=self.config.micro_batch_size,
                device=self.device,
                half=self.config.precision.dtype,
            )
        except NothingToLearn:
            values["passed_over"] = "no token counts"
        else:
            self._apply(values)
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self._place = self.loader.state_dict()
        return {
            **values,
            "samples": sum(len(batch.text_input_ids) for batch in batches),
            "learned_tokens": learned_tokens(batches),
            "bad_samples": self.loader.bad_samples.total(),
        }

    def _apply(self, values: dict[str, Any]) -> None:
        """Unscale, norms, clip, update. Raises TrainingStopped where there was nothing finite too often in a row."""
        precision = self.config.precision
        parameters = [each for group in self.optimizer.param_groups for each in group["params"]]
        if not any(parameter.grad is not None for parameter in parameters):
            values["passed_over"] = "nothing that trains was used"
            return
        self.scaler.unscale_(self.optimizer)
        if self.config.compute_norm:
            values["parameter_norm"] = float(parameter_norm(parameters))
        values["gradient_norm"] = float(clip(parameters, precision.max_gradient_norm, precision.max_gradient_value))
        if self.scaler.is_enabled() and precision.log_loss_scale:
            values["loss_scale"] = self.scaler.get_scale()
        if isfinite(values["loss"]) and isfinite(values["gradient_norm"]):
            self.skipped = 0
            self.scaler.step(self.optimizer)
        else:
            values["passed_over"] = "loss or gradient not finite"
            # The scale may be what made the gradient infinite; it becomes smaller, and then that is no excuse.
            excused = isfinite(values["loss"]) and self.scaler.is_enabled() and self.scaler.get_scale() > LEAST_SCALE
            self.skipped += not excused
        # A scale that the params file states stays.
        self.scaler.update(precision.loss_scaling_factor)
        if self.skipped > MOST_SKIPPED:
            last = list(checkpoint.saved(self.folder).values())[-1:]
            kept = f"{last[0]} is the last checkpoint" if last else "there is no checkpoint"
            raise TrainingStopped(
                f"update {self.step + 1}: loss or gradient not finite {self.skipped} times in a row; {kept}; "
                "try a lower learning rate, or bfloat16 where it was float16"
            )
