"""What a model has to do in one step: how many samples of what length, computed in which type, and who says so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from mmconvert.errors import InputRefused, UsageError
from mmsimple.config import LlamaConfig, ModelConfig, MultimodalConfig

Half: TypeAlias = Literal["bfloat16", "float16"]

BATCH_SIZES = ("trainer.fit.train_dataloader.batch_size", "train_input.batch_size")
MICRO_BATCH_SIZE = "csx.performance.micro_batch_size"
# Where the callbacks of a run set that flag.
FLAGS = ("ScopedTrainFlags", "GlobalFlags")
# Where `fp16_type` stands under `trainer` and in flat files, and beside it what switches it on, with its default.
PRECISIONS = (("trainer.init.precision", "enabled", True), ("model", "mixed_precision", False))
# cbfloat16 is what Cerebras hardware has in place of bfloat16.
HALVES: dict[str, Half] = {"cbfloat16": "bfloat16", "bfloat16": "bfloat16", "float16": "float16"}


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
    length of a model that reads no text.
    """
    batch, batch_from = (batch_size, "--batch-size") if batch_size else _batch_size(params, where)
    half, half_from = _half(params, where)
    decoder = config.text_model if isinstance(config, MultimodalConfig) else config
    if isinstance(decoder, LlamaConfig):
        length, length_from = decoder.max_position_embeddings, "max_position_embeddings"
        if sequence_length:
            length, length_from = sequence_length, "--sequence-length"
        images = 1 if isinstance(config, MultimodalConfig) else 0
        return Workload(batch, batch_from, length, length_from, images, half, half_from)
    if sequence_length:
        raise UsageError(f"--sequence-length {sequence_length}: the model in {where} reads no text")
    return Workload(batch, batch_from, 0, "a model without text", 1, half, half_from)


def _batch_size(params: Mapping[str, Any], where: str) -> tuple[int, str]:
    """What is held in memory at a time is the micro batch, where a file gives one as a number."""
    for flags in _flags(params):
        size = flags.get(MICRO_BATCH_SIZE)
        if isinstance(size, int) and not isinstance(size, bool):
            return _checked(size, where, MICRO_BATCH_SIZE), MICRO_BATCH_SIZE
    for path in BATCH_SIZES:
        size = _at(params, path)
        if size is not None:
            return _checked(size, where, path), path
    return 1, "the file gives none"


def _checked(size: Any, where: str, path: str) -> int:
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise InputRefused(f"{where}: {path} is {size!r:.60}, but must be a whole number of samples, at least 1")
    return size


def _flags(params: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    callbacks = _at(params, "trainer.init.callbacks")
    for callback in callbacks if isinstance(callbacks, list) else []:
        for name, flags in callback.items() if isinstance(callback, Mapping) else ():
            if name in FLAGS and isinstance(flags, Mapping):
                yield flags


def _half(params: Mapping[str, Any], where: str) -> tuple[Half | None, str]:
    for path, switch, default in PRECISIONS:
        precision = _at(params, path)
        if not isinstance(precision, Mapping) or not precision.get(switch, default):
            continue
        name = precision.get("fp16_type", "float16")
        if name not in HALVES:
            raise InputRefused(f"{where}: {path}.fp16_type is {name!r:.60}; mmsimple computes in {', '.join(HALVES)}")
        return HALVES[name], path
    return None, "the file asks for no other"


def _at(params: Mapping[str, Any], path: str) -> Any:
    """What stands at a dotted path, or None."""
    held: Any = params
    for name in path.split("."):
        held = held.get(name) if isinstance(held, Mapping) else None
    return held
