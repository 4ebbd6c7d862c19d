"""A whole run, from a params file to its last checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from mmconvert.errors import DiskError, OutputRefused, UsageError
from mmconvert.staging import disk_errors, locked, write_whole
from mmsimple.data.section import DataConfig
from mmsimple.data.workers import WorkerDied, worker_errors
from mmsimple.device import device_of
from mmsimple.model import MultimodalModel
from mmsimple.train import checkpoint
from mmsimple.train.config import Backend, TrainConfig
from mmsimple.train.features import with_features
from mmsimple.train.fitting import check_data
from mmsimple.train.loop import Trainer
from mmsimple.train.performance import tune
from mmsimple.train.start import Origin, Resume, Say, begin, measured, origin
from mmsimple.train.validation import Validation, Validator

DEVICES: dict[Backend, str] = {"CSX": "auto", "CPU": "cpu", "GPU": "cuda"}


@dataclass(frozen=True)
class Done:
    """What a run has come to: its last update, None where it only measured, its checkpoint, and the validation."""

    step: int | None
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

    Raises what `origin`, `begin` and `Trainer` raise, WorkerDied, and UsageError for a `device` that is not there and
    where there is nothing to train on or to validate with. What disks and workers do to it names the last checkpoint.
    """
    if mode == "eval" and not config.validation_data:
        raise UsageError(
            "--mode eval: the params file names no validation data, such as trainer.validate.val_dataloader"
        )
    if mode != "eval" and config.train_data is None:
        raise UsageError("trainer.fit.train_dataloader is missing: there is nothing to train on")
    place = _device(config, device, say)
    if mode == "eval":
        with worker_errors():
            return _measure(config, folder, measured(config, folder, init_from, resume), place, say)
    if mode == "train":
        config = replace(config, validation_data=())
    if folder.exists() and not folder.is_dir():
        raise OutputRefused(f"{folder}: is a file, where the model folder is to be")
    with _told(folder), ExitStack() as held:
        is_new = not folder.exists()
        with disk_errors(folder, 0):
            folder.mkdir(parents=True, exist_ok=True)
            # Before anything is read: another run that writes here changes what there is to go on from.
            held.enter_context(locked(folder.resolve()))
        if is_new:
            held.callback(_remove_empty, folder)
        checkpoint.clear_up(folder)
        return _train(config, folder, place, origin(config, folder, init_from, resume), say)


def _remove_empty(folder: Path) -> None:
    """What is refused leaves nothing, and what has begun has something in its folder."""
    with suppress(OSError):
        folder.rmdir()


@contextmanager
def _told(folder: Path) -> Iterator[None]:
    """Where disks or workers end a run, say what there is to go on from."""
    try:
        with worker_errors():
            yield
    except (DiskError, WorkerDied) as error:
        last = next(reversed(checkpoint.saved(folder).values()), None)
        kept = "no checkpoint has been saved" if last is None else f"the last good checkpoint is {last.name}"
        raise type(error)(f"{error}; {kept}") from error


def _train(config: TrainConfig, folder: Path, device: torch.device, origin: Origin, say: Say) -> Done:
    _check_data(config, config.train_data, *config.validation_data)
    model, state = begin(config, origin, device, say)
    tune(model, config.performance, device)
    config = with_features(config, model, folder, device, say)
    _put_assets(folder / "assets", model)
    trainer = Trainer(config, model, folder, device, say)
    if state is not None:
        trainer.load_state_dict(state, str(origin.path))
        # The optimizer has moments of its own.
        del state
    was_done = trainer.is_done
    # A run that is done may have been stopped before its last validation.
    validation = trainer.train()
    if was_done and not validation:
        say(f"nothing is left to do after update {trainer.step}")
    path = origin.path if was_done else checkpoint.path_of(folder, trainer.step)
    return Done(trainer.step, path, validation)


def _measure(config: TrainConfig, folder: Path, path: Path, device: torch.device, say: Say) -> Done:
    _check_data(config, *config.validation_data)
    model, _ = begin(config, Origin(path), device, say)
    tune(model, config.performance, device)
    config = with_features(replace(config, train_data=None), model, folder, device, say)
    found = Validator(config, model, device).run()
    for each in found:
        say(f"validation: {each}")
    return Done(None, path, found)


def _check_data(config: TrainConfig, *sets: DataConfig | None) -> None:
    """Before weights are read, which may take minutes."""
    for each in filter(None, sets):
        check_data(each, config.model)


def _device(config: TrainConfig, device: str | None, say: Say) -> torch.device:
    found = device_of(device or DEVICES[config.backend])
    if config.backend == "CSX":
        say(f"backend_type CSX: no such hardware here, training on {found}")
    return found


def _put_assets(folder: Path, model: MultimodalModel) -> None:
    """The files that came with the weights, beside the checkpoints: to convert one takes them."""
    for name, content in model.assets.items():
        place = folder / name
        with disk_errors(place, len(content)):
            place.parent.mkdir(parents=True, exist_ok=True)
        write_whole(place, content)
