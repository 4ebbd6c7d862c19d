"""What a params file says of a step, and what is asked for in its place."""

from __future__ import annotations

from typing import Any

import pytest

from mmconvert.errors import InputRefused, UsageError
from mmsimple.workload import workload
from tests.mmsimple.small import DECODER, MULTIMODAL, VIT


def trainer(batch_size: Any = None, micro: Any = None, precision: Any = None) -> dict[str, Any]:
    flags = {"ScopedTrainFlags": {"csx.performance.micro_batch_size": micro}}
    init = {"callbacks": ["ComputeNorm", flags], "precision": precision}
    return {"trainer": {"init": init, "fit": {"train_dataloader": {"batch_size": batch_size}}}}


@pytest.mark.parametrize(
    ("params", "size", "source"),
    [
        ({}, 1, "the file gives none"),
        (trainer(220), 220, "trainer.fit.train_dataloader.batch_size"),
        (trainer(220, 24), 24, "csx.performance.micro_batch_size"),
        (trainer(220, "auto"), 220, "trainer.fit.train_dataloader.batch_size"),
        ({"train_input": {"batch_size": 7}}, 7, "train_input.batch_size"),
    ],
)
def test_the_batch_is_the_micro_batch_or_the_whole_or_one(params: dict[str, Any], size: int, source: str) -> None:
    found = workload(MULTIMODAL, params, "x.yaml")
    assert (found.batch_size, found.batch_size_from) == (size, source)


def test_options_win() -> None:
    found = workload(MULTIMODAL, trainer(220, 24), "x.yaml", batch_size=3, sequence_length=5)
    assert (found.batch_size, found.batch_size_from) == (3, "--batch-size")
    assert (found.sequence_length, found.sequence_length_from) == (5, "--sequence-length")


def test_the_length_is_the_longest_that_the_decoder_has_positions_for() -> None:
    assert workload(MULTIMODAL, {}, "x.yaml").sequence_length == 64
    assert workload(DECODER, {}, "x.yaml").sequence_length == 64


@pytest.mark.parametrize(("config", "images"), [(MULTIMODAL, 1), (DECODER, 0), (VIT, 1)])
def test_a_sample_has_an_image_where_the_model_sees_any(config: Any, images: int) -> None:
    assert workload(config, {}, "x.yaml").images_per_sample == images


def test_an_encoder_has_no_length() -> None:
    assert workload(VIT, {}, "x.yaml").sequence_length == 0
    with pytest.raises(UsageError, match=r"the model in x\.yaml reads no text"):
        workload(VIT, {}, "x.yaml", sequence_length=5)


@pytest.mark.parametrize(
    ("params", "half"),
    [
        ({}, None),
        (trainer(precision={"enabled": True, "fp16_type": "cbfloat16"}), "bfloat16"),
        (trainer(precision={"fp16_type": "bfloat16"}), "bfloat16"),
        (trainer(precision={"enabled": True}), "float16"),
        (trainer(precision={"enabled": False, "fp16_type": "float16"}), None),
        ({"model": {"mixed_precision": True, "fp16_type": "bfloat16"}}, "bfloat16"),
        ({"model": {"fp16_type": "bfloat16"}}, None),
    ],
)
def test_the_precision_is_the_files_or_float32(params: dict[str, Any], half: str | None) -> None:
    assert workload(MULTIMODAL, params, "x.yaml").half == half


@pytest.mark.parametrize("size", [0, -1, "nine", True, 1.5])
def test_a_batch_that_has_no_size_is_refused(size: Any) -> None:
    with pytest.raises(InputRefused, match=r"x.yaml: trainer.fit.train_dataloader.batch_size is"):
        workload(MULTIMODAL, trainer(size), "x.yaml")


def test_a_precision_that_is_not_known_is_refused() -> None:
    with pytest.raises(InputRefused, match=r"x.yaml: trainer.init.precision.fp16_type is 'fp8'"):
        workload(MULTIMODAL, trainer(precision={"fp16_type": "fp8"}), "x.yaml")
