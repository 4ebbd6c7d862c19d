"""Where a run begins: with drawn weights, with those of another checkpoint, or where it was when it stopped."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch

from mmconvert.errors import InputRefused, OutputRefused, UsageError
from mmconvert.paths import differing
from mmconvert.sources import TensorRef
from mmsimple import sections
from mmsimple.checkpoint import Opened, fill, open_checkpoint, refs
from mmsimple.config import MultimodalConfig
from mmsimple.freeze import freeze
from mmsimple.model import MultimodalModel
from mmsimple.train import checkpoint
from mmsimple.train.config import TrainConfig
from mmsimple.train.rng import seed_all

Word: TypeAlias = Literal["auto", "never"]
Resume: TypeAlias = Word | Path
Say: TypeAlias = Callable[[str], None]

WORDS: dict[str, Word] = {"auto": "auto", "never": "never"}
# What a run may say otherwise than the checkpoint that it begins with: how it is trained.
OF_TRAINING = ("freeze", "loss_scaling", "loss_weight")
SHOWN = 3


@dataclass(frozen=True)
class Origin:
    """The checkpoint that a run begins with, None for drawn weights; `goes_on`: with its optimizer, data and all."""

    path: Path | None
    goes_on: bool = False


def resume_of(text: str | None) -> Resume | None:
    """`auto`, `never` or a path, by the words of the command line. Raises UsageError for a path that is not there."""
    word = None if text is None else WORDS.get(text)
    if text is None or word is not None:
        return word
    path = Path(text)
    if not path.exists():
        raise UsageError(f"--resume {path}: does not exist; it may be auto, never, a checkpoint, or a folder of them")
    return path


def origin(config: TrainConfig, folder: Path, init_from: Path | None = None, resume: Resume | None = None) -> Origin:
    """What a run in a model folder begins with, by the command line and, where that says nothing, the params file.

    A run that has checkpoints goes on from the newest, so that one command starts it and takes it up again. Raises
    UsageError for two wishes at a time, InputRefused for a folder without checkpoints to go on from, and OutputRefused
    where other checkpoints in the model folder would be taken for this run's.
    """
    if resume is None:
        resume = "auto" if config.checkpointing.autoload_last else "never"
    own = list(checkpoint.saved(folder).values())
    if resume == "auto" and own:
        return Origin(own[-1], goes_on=True)
    if isinstance(resume, Path):
        found = Origin(_named(resume, init_from), goes_on=True)
    elif init_from is not None:
        found = Origin(init_from)
    else:
        # CS goes on from a file unless told not to; a converted folder has nothing but weights.
        path = config.ckpt_path
        found = Origin(path, goes_on=path is not None and config.load_whole and not path.is_dir())
    places = [path.resolve() for path in own]
    at = None if found.path is None else found.path.resolve()
    later = own[places.index(at) + 1 :] if found.goes_on and at in places else own
    if later:
        taken = f"{folder}: {later[-1].name} would be taken for this run's"
        raise OutputRefused(f"{taken}; choose another --model-dir, or remove it")
    return found


def measured(config: TrainConfig, folder: Path, init_from: Path | None = None, resume: Resume | None = None) -> Path:
    """The checkpoint that `--mode eval` measures: one that is named, else the model folder's newest, else the file's.

    Raises UsageError where there is none, for drawn weights are nothing to measure.
    """
    own = list(checkpoint.saved(folder).values()) if resume != "never" else []
    if isinstance(resume, Path):
        return _named(resume, init_from)
    found = init_from or (own[-1] if own else None) or config.validation_ckpt_path or config.ckpt_path
    if found is None:
        raise UsageError(f"{folder}: holds no checkpoint to measure; --init-from names another one")
    return found


def _named(resume: Path, init_from: Path | None) -> Path:
    """The checkpoint at a path, or the newest in a folder."""
    if init_from is not None:
        raise UsageError("--init-from and --resume PATH: a run begins with the one or goes on from the other")
    if not resume.is_dir():
        return resume
    inside = list(checkpoint.saved(resume).values())
    if not inside:
        raise InputRefused(f"{resume}: holds no checkpoint_STEP.mdl to go on from")
    return inside[-1]


def begin(
    config: TrainConfig, origin: Origin, device: torch.device, say: Say
) -> tuple[MultimodalModel, Mapping[str, Any] | None]:
    """The model of a run, on its device, frozen where it is to be, and the state that it goes on with, if it does.

    Weights are in float32. Raises what reading the checkpoint raises, and InputRefused for tensors that the run's model
    lacks or has beside them; with `disable_strict_checkpoint_loading` it says so, and draws what is missing.
    """
    if config.seed is not None:
        seed_all(config.seed)
    model, state = _weights(config, origin, say)
    say(str(freeze(model, config.model.freeze, "trainer.init.model.freeze")))
    return model.to(device), state


def _weights(config: TrainConfig, origin: Origin, say: Say) -> tuple[MultimodalModel, Mapping[str, Any] | None]:
    if origin.path is None:
        say("weights are drawn: no checkpoint is named")
        return MultimodalModel(config.model), None
    opened = _opened(origin.path, origin.goes_on)
    _compare(config.model, opened, say)
    if config.checkpointing.strict:
        tensors = opened.tensors
        with torch.device("meta"):
            model = MultimodalModel(config.model)
    else:
        model = MultimodalModel(config.model)
        tensors = _merged(model, opened, say)
    fill(model, tensors, str(origin.path), dtype=torch.float32)
    model.assets = opened.assets
    if not origin.goes_on:
        say(f"weights are those of {origin.path}")
        return model, None
    state = checkpoint.load_state(origin.path)
    say(f"going on from {origin.path}")
    return model, state


def _opened(path: Path, goes_on: bool) -> Opened:
    """A checkpoint, unread. Where a run cannot go on from one that is damaged, the error says which is before it."""
    try:
        return open_checkpoint(path)
    except InputRefused as error:
        earlier = checkpoint.before(path) if goes_on else None
        if earlier is None:
            raise
        raise InputRefused(f"{error}; move it away to go on from {earlier}") from error


def _compare(config: MultimodalConfig, opened: Opened, say: Say) -> None:
    """Warn where a checkpoint's model computes otherwise than that of the run with the same weights."""
    theirs = sections.read(opened.model, opened.section, opened.where)
    if not isinstance(theirs, MultimodalConfig):
        raise InputRefused(f"{opened.path}: is no multimodal model; a run begins with all of one")
    found = dict(differing(sections.write(theirs)[1], sections.write(config)[1]))
    for path, (there, here) in found.items():
        if path.partition(".")[0] not in OF_TRAINING:
            say(f"warning: {path} is {there} in {opened.where}, and {here} in this run")


def _merged(model: MultimodalModel, opened: Opened, say: Say) -> Mapping[str, TensorRef]:
    """A checkpoint's tensors that the model has, and the model's own where it has none."""
    own = {ref.key: ref for ref in refs(model)}
    fitting = {
        name: ref for name, ref in opened.tensors.items() if name in own and tuple(ref.shape) == tuple(own[name].shape)
    }
    for names, what in ((own.keys() - fitting.keys(), "drawn"), (opened.tensors.keys() - fitting.keys(), "left out")):
        if names:
            shown = ", ".join(sorted(names)[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
            say(f"warning: {opened.path}: {what}: {shown}")
    return {**own, **fitting}
