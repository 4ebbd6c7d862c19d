"""What a model has to do in one step: how many samples of what length, computed in which type, and who says so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from mmconvert.errors import UsageError
from mmconvert.paths import ABSENT, get
from mmsimple.config import ClassifierConfig, LlamaConfig, ModelConfig, MultimodalConfig, ViTConfig
from mmsimple.sections.supported import check_names, require, shown

Half: TypeAlias = Literal["bfloat16", "float16"]

BATCH_SIZES = ("trainer.fit.train_dataloader.batch_size", "train_input.batch_size")
MICRO_BATCH_SIZE = "csx.performance.micro_batch_size"
# Where the callbacks of a run set that flag, and what it may be instead of a number: the hardware's choice.
FLAGS = ("ScopedTrainFlags", "GlobalFlags")
CHOSEN = ("auto", "explore", "disable")
# Where `fp16_type` stands under `trainer` and in flat files, and beside it what switches it on, with its default.
PRECISION = "trainer.init.precision"
PRECISIONS = ((PRECISION, "enabled", True), ("model", "mixed_precision", None))
SCALING_FIELDS = ("log_loss_scale", "loss_scaling_factor", "max_gradient_norm", "max_gradient_value")
PRECISION_FIELDS = ("enabled", "fp16_type", *SCALING_FIELDS)
# cbfloat16 is what Cerebras hardware has in place of bfloat16.
HALVES: dict[str, Half] = {"cbfloat16": "bfloat16", "bfloat16": "bfloat16", "float16": "float16"}
# As many as any decoder has positions; and all positions, or pixels, of a step: a layer may have 2^24 outputs for each,
# of 4 bytes, and torch counts a tensor's bytes in 64 bits.
MOST_POSITIONS, MOST_TOGETHER = 2**24, 2**36


@dataclass(frozen=True)
class Workload:
    """One step, which is one micro batch. A model without text has a `sequence_length` of 0, float32 a `half` of None.

    The sources say where the numbers are from, for people.
    """

    batch_size: int
    batch_size_from: str
    sequence_length: int
    sequence_length_from: str
    images_per_sample: int
    half: Half | None
    half_from: str


def workload(
    config: ModelConfig,
    params: Mapping[str, Any],
    where: str,
    *,
    batch_size: int | None = None,
    sequence_length: int | None = None,
) -> Workload:
    """The work that a params document of the file `where` sets a model, or what is asked for in its place.

    Raises InputRefused, naming file and field, for sizes that are none and types that are not known; UsageError for a
    length of a model that reads no text, and for a step that is too large to reckon with.
    """
    require(not {"trainer", "model"} <= params.keys(), where, "has a model under trainer and another beside it")
    batch, batch_from = (batch_size, "--batch-size") if batch_size else _batch_size(params, where)
    half, half_from = _half(params, where)
    length, length_from = 0, "a model without text"
    decoder = config.text_model if isinstance(config, MultimodalConfig) else config
    if isinstance(decoder, LlamaConfig):
        length, length_from = decoder.max_position_embeddings, "max_position_embeddings"
    elif sequence_length:
        raise UsageError(f"--sequence-length {shown(sequence_length)}: the model in {where} reads no text")
    if sequence_length:
        length, length_from = sequence_length, "--sequence-length"
    pixels = _pixels(config)
    if length > MOST_POSITIONS or batch * max(length, pixels) > MOST_TOGETHER:
        each = f"{pixels} pixels" if pixels > length else f"{shown(length)} positions ({length_from})"
        raise UsageError(f"{where}: no machine holds a step of {shown(batch)} ({batch_from}) times {each}")
    return Workload(batch, batch_from, length, length_from, 1 if pixels else 0, half, half_from)


def _pixels(config: ModelConfig) -> int:
    """Of an image; 0 for a model that sees none."""
    match config:
        case LlamaConfig():
            return 0
        case MultimodalConfig():
            return _pixels(config.image_models[0].encoder)
        case ClassifierConfig():
            return _pixels(config.encoder)
        case ViTConfig():
            return config.image_size[0] * config.image_size[1]


def _batch_size(params: Mapping[str, Any], where: str) -> tuple[int, str]:
    """What is held in memory at a time is the micro batch, where a file gives one as a number."""
    for flags in _flags(params):
        size = flags.get(MICRO_BATCH_SIZE)
        if size is not None and size not in CHOSEN and not isinstance(size, Mapping):
            return _checked(size, where, MICRO_BATCH_SIZE, f", or {', '.join(CHOSEN)}"), MICRO_BATCH_SIZE
    for path in BATCH_SIZES:
        size = _at(params, path)
        if size is not None:
            return _checked(size, where, path), path
    return 1, "the file gives none"


def _checked(size: Any, where: str, path: str, otherwise: str = "") -> int:
    fits = isinstance(size, int) and not isinstance(size, bool) and size > 0
    wanted = f"a whole number of samples, at least 1{otherwise}"
    require(fits, where, f"{path} is {shown(size)}, but must be {wanted}")
    return int(size)


def _flags(params: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    callbacks = _at(params, "trainer.init.callbacks")
    for callback in callbacks if isinstance(callbacks, list) else []:
        for name, flags in callback.items() if isinstance(callback, Mapping) else ():
            if name in FLAGS and isinstance(flags, Mapping):
                yield flags


def _half(params: Mapping[str, Any], where: str) -> tuple[Half | None, str]:
    for path, switch, default in PRECISIONS:
        precision = _at(params, path)
        if precision is None:
            continue
        require(isinstance(precision, Mapping), where, f"{path} is {shown(precision)}, but must be a mapping")
        if path == PRECISION:
            check_names(precision, PRECISION_FIELDS, where, path)
        is_on = precision.get(switch, default)
        fits = isinstance(is_on, bool) or is_on is default
        require(fits, where, f"{path}.{switch} is {shown(is_on)}, but must be true or false")
        if is_on:
            name = precision.get("fp16_type", "float16")
            choices = ", ".join(HALVES)
            is_known = isinstance(name, str) and name in HALVES
            require(is_known, where, f"{path}.fp16_type is {shown(name)}; mmsimple computes in {choices}")
            return HALVES[name], path
    return None, "the file asks for no other"


def _at(params: Mapping[str, Any], path: str) -> Any:
    """What stands at a dotted path, or None."""
    found = get(params, path)
    return None if found is ABSENT else found
