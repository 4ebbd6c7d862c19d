"""The training loop: forward, backward, unscale, norms, clip, update, and what is written on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from math import isfinite
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from mmconvert.errors import InputRefused, TrainingStopped
from mmsimple.data.loader import Loader
from mmsimple.loss import NothingToLearn
from mmsimple.model import Batch, MultimodalModel
from mmsimple.train import checkpoint
from mmsimple.train.config import TrainConfig
from mmsimple.train.journal import Journal
from mmsimple.train.norms import clip, parameter_norm
from mmsimple.train.optimizer import build_optimizer, load_optimizer_state, optimizer_state
from mmsimple.train.rng import rng_state, set_rng_state
from mmsimple.train.stopping import EXIT, Stopping
from mmsimple.train.update import accumulate, learned_tokens, tokens
from mmsimple.train.validation import Validation, Validator

# Updates in a row without a finite loss and gradient that are passed over before a run gives up.
MOST_SKIPPED = 5
# The scale of a float16 loss below which an infinite gradient is not the scale's doing.
LEAST_SCALE = 1.0
FIRST_SCALE = 2.0**16


class Trainer:
    """A run of a model that is on its device, frozen where it is to be.

    `say` is told a line now and then, for people. Raises what the data raises, which there must be.
    """

    def __init__(
        self,
        config: TrainConfig,
        model: MultimodalModel,
        folder: Path,
        device: torch.device,
        say: Callable[[str], None] = print,
    ) -> None:
        assert config.train_data is not None
        self.config, self.model, self.folder, self.device, self.say = config, model, folder, device, say
        self.step = 0
        self.skipped = 0
        self.loader = Loader(config.train_data)
        self.optimizer = build_optimizer(model, config.optimizer)
        precision = config.precision
        scale = precision.loss_scaling_factor or FIRST_SCALE
        self.scaler = torch.amp.GradScaler(device.type, scale, enabled=precision.dtype == torch.float16)
        self._place = self.loader.state_dict()
        # Whether a checkpoint was written whose weights have not yet been seen to give something finite.
        self._is_unproven = False

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
        try:
            problems = load_optimizer_state(self.optimizer, state["optimizer"], f"{where}: optimizer", strict=strict)
        except InputRefused as error:
            remedy = "a run of other parameters, such as the next phase, takes a --model-dir of its own and --init-from"
            raise InputRefused(f"{error}; {remedy}") from error
        for problem in problems:
            self.say(f"warning: optimizer: {problem}")
        if state.get("scaler"):
            self.scaler.load_state_dict(dict(state["scaler"]))
        self.loader.load_state_dict(state["dataloader"])
        self._place = self.loader.state_dict()
        self.step, self.skipped = state["global_step"], state.get("skipped", 0)
        # It may have been stopped before it removed what is not to stay.
        self._is_unproven = True
        set_rng_state(state["rng"])

    def save(self) -> Path:
        """Write a checkpoint of this step. Raises DiskError."""
        path = checkpoint.path_of(self.folder, self.step)
        checkpoint.save(path, self.model, self.config.params, self.state_dict())
        self._is_unproven = True
        return path

    def _prune(self) -> None:
        """Remove checkpoints that are not to stay, once what the newest holds has given a finite loss."""
        if self._is_unproven:
            checkpoint.keep_newest(self.folder, self.config.checkpointing.keep, self.step)
            self._is_unproven = False

    # --- training ---

    @property
    def is_done(self) -> bool:
        loop = self.config.loop
        if loop.max_steps is not None:
            return self.step >= loop.max_steps
        return self.loader.epoch >= (loop.max_epochs or 0)

    @property
    def last_step(self) -> int:
        """The update that ends the run; of `max_epochs`, where all samples of a batch are bad it comes earlier."""
        loop = self.config.loop
        if loop.max_steps is not None:
            return loop.max_steps
        return -(-self.loader.in_epochs(loop.max_epochs or 0) // loop.grad_accum_steps)

    @property
    def _is_validation_due(self) -> bool:
        """Whether a validation is due after this step."""
        frequency = self.config.loop.eval_frequency
        return self.is_done or bool(frequency and self.step % frequency == 0)

    def train(self) -> tuple[Validation, ...]:
        """All updates that are left, and the last validation, if there was any.

        SIGTERM ends it after the update that it comes in, with a checkpoint and exit 143. A validation that was due
        then is made when the run goes on, which so tells what it would have told undisturbed.

        Raises TrainingStopped where the loss stays infinite or NaN, and what data and disk raise.
        """
        self.model.train()
        steps, log_steps = self.config.checkpointing.steps, self.config.log_steps
        if self.step == 0 and self.config.checkpointing.save_initial:
            self.save()
        validator = None
        if self.config.validation_data:
            validator = Validator(self.config, self.model, self.device)
        batches = self._batches()
        validation: tuple[Validation, ...] = ()
        journal = Journal(self.folder, self.step, self.last_step, self.say)
        with journal, Stopping() as stopping:
            while True:
                # Before anything: where a run goes on, it may have been stopped before this one.
                if validator and self._is_validation_due and journal.validated < self.step:
                    validation = validator.run()
                    journal.validation(self.step, validation)
                if self.is_done:
                    break
                begun = perf_counter()
                values = self._update(batches)
                seconds = perf_counter() - begun
                journal.update(values, seconds, is_shown=self.is_done or self.step % log_steps == 0)
                # Looked at once: what is asked for after this is done after the next update.
                stops = stopping.is_asked
                # While updates are passed over there is nothing new to keep.
                if stops or self.is_done or (steps and self.step % steps == 0 and not self.skipped):
                    self.save()
                if stops:
                    self.say(f"stopped at update {self.step}, which is saved")
                    raise SystemExit(EXIT)
        if self.skipped:
            self.say(f"warning: the last {self.skipped} updates had no finite loss or gradient, and changed nothing")
        else:
            self._prune()
        return validation

    def _batches(self) -> Iterator[Batch]:
        """The stream, epoch after epoch."""
        empty = 0
        while True:
            for batch in self.loader:
                empty = 0
                yield batch
            # What is left of an epoch may be nothing but bad samples; a whole one may not.
            empty += 1
            if empty > 1:
                raise InputRefused("the training data gives no batch in a whole epoch: all samples are left out")

    def _update(self, stream: Iterator[Batch]) -> dict[str, Any]:
        """Learn from the next batches, and tell how that went."""
        bad = self.loader.bad_samples.total()
        batches = list(islice(stream, self.config.loop.grad_accum_steps))
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
        except NothingToLearn as error:
            # The reference divides 0 by 0.
            if self.loader.config.on_bad_sample == "error":
                problem = f"update {self.step + 1}: no token of its samples counts in the loss"
                raise InputRefused(f"{problem}; on_bad_sample: skip passes over such updates") from error
            values["passed_over"] = "no token counts"
        else:
            self._apply(values)
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self._place = self.loader.state_dict()
        return {
            **values,
            "samples": sum(len(batch.text_input_ids) for batch in batches),
            "tokens": tokens(batches),
            "learned_tokens": learned_tokens(batches),
            "bad_samples": self.loader.bad_samples.total() - bad,
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
            self._prune()
            self.scaler.step(self.optimizer)
        else:
            values["passed_over"] = "loss or gradient not finite"
        scale = self.scaler.get_scale()
        # A scale that the params file states stays.
        self.scaler.update(precision.loss_scaling_factor)
        if "passed_over" in values:
            # The scale may have been what made a gradient infinite, and then it has become smaller.
            is_excused = isfinite(values["loss"]) and LEAST_SCALE < scale > self.scaler.get_scale()
            self.skipped += not is_excused
        if self.skipped > MOST_SKIPPED:
            kept = ", ".join(path.name for path in checkpoint.saved(self.folder).values()) or "none"
            raise TrainingStopped(
                f"update {self.step + 1}: loss or gradient not finite {self.skipped} times in a row; "
                f"checkpoints in {self.folder}: {kept}; "
                "try a lower learning rate, or bfloat16 where it was float16"
            )
