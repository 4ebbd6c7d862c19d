"""A whole run, from a params file to its last checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from mmconvert.errors import DiskError, OutputRefused, UsageError
from mmsimple.device import device_of
from mmsimple.model import MultimodalModel
from mmsimple.train import checkpoint
from mmsimple.train.config import Backend, TrainConfig
from mmsimple.train.loop import Trainer
from mmsimple.train.start import Resume, Say, begin, origin
from mmsimple.train.validation import Validation, Validator

DEVICES: dict[Backend, str] = {"CSX": "auto", "CPU": "cpu", "GPU": "cuda"}


@dataclass(frozen=True)
class Done:
    """What a run has come to: its last update, the checkpoint of it, and the validation after it, if there were any."""

    step: int
    checkpoint: Path | None
    validation: tuple[Validation, ...]


def run(
    config: TrainConfig,
    folder: Path,
    *,
    mode: str = "train_and_eval",
    init_from: Path | None = None,
    resume: Resume | None = None,
    device: str | None = None,
    say: Say = print,
) -> Done:
    """Train, validate or both, in a model folder, which is made where it is missing.

    Raises what `origin`, `begin` and `Trainer` raise, and UsageError for a `device` that is not there and where there
    is nothing to train on or to validate with.
    """
    if mode == "eval" and not config.validation_data:
        raise UsageError(
            "--mode eval: the params file names no validation data, such as trainer.validate.val_dataloader"
        )
    if mode != "eval" and config.train_data is None:
        raise UsageError("trainer.fit.train_dataloader is missing: there is nothing to train on")
    place = _device(config, device, say)
    begins = origin(config, folder, init_from, resume)
    model, state = begin(config, begins, place, say)
    if mode == "eval":
        found = Validator(config, model, place).run()
        for each in found:
            say(f"validation: {each}")
        return Done(0 if state is None else state["global_step"], begins.path, found)
    _prepare(folder, model)
    trainer = Trainer(config, model, folder, place, say)
    if state is not None:
        trainer.load_state_dict(state, str(begins.path))
    validation = trainer.train(validates=mode == "train_and_eval")
    return Done(trainer.step, checkpoint.path_of(folder, trainer.step), validation)


def _device(config: TrainConfig, device: str | None, say: Say) -> torch.device:
    found = device_of(device or DEVICES[config.backend])
    if config.backend == "CSX":
        say(f"backend_type CSX: no such hardware here, training on {found}")
    return found


def _prepare(folder: Path, model: MultimodalModel) -> None:
    """Make the model folder, with the files that travel with the weights: to convert a checkpoint takes them."""
    if folder.exists() and not folder.is_dir():
        raise OutputRefused(f"{folder}: is a file, where the model folder is to be")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in model.assets.items():
            place = folder / "assets" / name
            if not place.exists():
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(content)
    except OSError as error:
        raise DiskError(f"{error.filename or folder}: {error.strerror}") from error
