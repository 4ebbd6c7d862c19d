"""A run of training as its params file describes it: frozen descriptions of what stands under `trainer`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch

from mmsimple.config import MultimodalConfig
from mmsimple.data.section import DataConfig
from mmsimple.element_types import HALVES
from mmsimple.train.optimizer import AdamWConfig
from mmsimple.train.schedules import Schedule
from mmsimple.workload import Half

Backend: TypeAlias = Literal["CSX", "CPU", "GPU"]
Cache: TypeAlias = Literal["none", "features"]


@dataclass(frozen=True)
class Precision:
    """What is computed in (None: float32), how float16's loss is scaled (None: by itself), how gradients are cut."""

    half: Half | None = None
    loss_scaling_factor: float | None = None
    max_gradient_norm: float | None = None
    max_gradient_value: float | None = None
    log_loss_scale: bool = False

    @property
    def dtype(self) -> torch.dtype | None:
        """`half` as torch has it."""
        return None if self.half is None else HALVES[self.half]


@dataclass(frozen=True)
class Loop:
    """How long a run goes on, in updates or epochs, those before a restart included; and how often it validates.

    `eval_steps` are the batches of a validation (None: all), `eval_frequency` the updates from one to the next (None:
    none). `grad_accum_steps` batches make an update.
    """

    max_steps: int | None = None
    max_epochs: int | None = None
    eval_steps: int | None = None
    eval_frequency: int | None = None
    grad_accum_steps: int = 1


@dataclass(frozen=True)
class Checkpointing:
    """When checkpoints are written, in updates (None: at the end), and how many of the newest stay (None: all)."""

    steps: int | None = None
    keep: int | None = None
    save_initial: bool = False
    autoload_last: bool = True
    strict: bool = True


@dataclass(frozen=True)
class Performance:
    """What a run costs, and not what it comes to; a section of mmsimple's own.

    `compile`: layers go through torch.compile. `activation_checkpointing`: layers keep their inputs alone, and compute
    the rest again in the backward pass. `cache` "features": what frozen encoders make of a picture is kept in the
    folder `cache_dir` (None: `features` in the model folder).
    """

    compile: bool = False
    activation_checkpointing: bool = False
    cache: Cache = "none"
    cache_dir: Path | None = None


@dataclass(frozen=True)
class TrainConfig:
    """A whole run. `params` is the document that it was read from, with what was set on the command line.

    `ckpt_path` is where weights start from, and with `load_whole` optimizer and place in the data too;
    `validation_ckpt_path` is what is measured where nothing is trained. Micro batches
    are samples that go through the model at a time (None: whole batches).
    """

    params: Mapping[str, Any]
    model: MultimodalConfig
    backend: Backend
    seed: int | None
    optimizer: AdamWConfig
    schedule: Schedule
    precision: Precision
    loop: Loop
    checkpointing: Checkpointing
    log_steps: int
    performance: Performance = Performance()
    compute_norm: bool = False
    micro_batch_size: int | None = None
    validation_micro_batch_size: int | None = None
    ckpt_path: Path | None = None
    validation_ckpt_path: Path | None = None
    load_whole: bool = True
    train_data: DataConfig | None = None
    validation_data: tuple[DataConfig, ...] = ()
