"""What a params file says of a step, and what is asked for in its place."""

from __future__ import annotations

from typing import Any

import pytest

from mmconvert.errors import InputRefused, UsageError
from mmsimple.config import ClassifierConfig, ModelConfig
from mmsimple.workload import workload
from tests.mmsimple.small import DECODER, MULTIMODAL, VIT

# What no dictionary can have as a key, and what would be too long or too many lines for an error.
ODD: tuple[Any, ...] = (["bfloat16"], {"a": 1}, "x\n" * 99)


def trainer(batch_size: Any = None, micro: Any = None, precision: Any = None) -> dict[str, Any]:
    flags = {"ScopedTrainFlags": {"csx.performance.micro_batch_size": micro}}
    init = {"callbacks": ["ComputeNorm", flags], "precision": precision}
    return {"trainer": {"init": init, "fit": {"train_dataloader": {"batch_size": batch_size}}}}


def refuse(params: dict[str, Any], *said: str) -> None:
    """One short line names the file and says all of these."""
    with pytest.raises(InputRefused) as refused:
        workload(MULTIMODAL, params, "x.yaml")
    message = str(refused.value)
    assert message.startswith("x.yaml: ")
    assert message.isprintable()
    assert len(message) < 200
    for each in said:
        assert each in message, message


@pytest.mark.parametrize(
    ("params", "size", "source"),
    [
        ({}, 1, "the file gives none"),
        (trainer(220), 220, "trainer.fit.train_dataloader.batch_size"),
        (trainer(220, 24), 24, "csx.performance.micro_batch_size"),
        *(
            (trainer(220, chosen), 220, "trainer.fit.train_dataloader.batch_size")
            for chosen in ("auto", "explore", "disable", {"explore": {"min": 1, "max": 9}})
        ),
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


@pytest.mark.parametrize("size", [0, -1, "nine", "auto", True, 1.5, *ODD])
def test_a_batch_that_has_no_size_is_refused(size: Any) -> None:
    refuse(trainer(size), "trainer.fit.train_dataloader.batch_size is ", "a whole number of samples, at least 1")


@pytest.mark.parametrize("size", [0, -1, "AUTO", True, 1.5, ["auto"], "x\n" * 99])
def test_a_micro_batch_that_has_no_size_is_refused(size: Any) -> None:
    refuse(trainer(220, size), "csx.performance.micro_batch_size is ", "at least 1, or auto, explore, disable")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"batch_size": 2**31}, "2147483648 (--batch-size) times 64 positions (max_position_embeddings)"),
        ({"batch_size": 10**999}, f"1{'0' * 59} (--batch-size) times 64 positions"),
        ({"sequence_length": 2**24 + 1}, "1 (the file gives none) times 16777217 positions (--sequence-length)"),
        ({"sequence_length": 10**999}, f"1 (the file gives none) times 1{'0' * 59} positions (--sequence-length)"),
    ],
)
def test_a_step_too_large_to_reckon_with_is_refused(options: dict[str, int], said: str) -> None:
    with pytest.raises(UsageError) as refused:
        workload(DECODER, {}, "x.yaml", **options)
    assert str(refused.value).startswith(f"x.yaml: no machine holds a step of {said}")


@pytest.mark.parametrize("config", [MULTIMODAL, VIT, ClassifierConfig(VIT, 3)])
def test_so_is_one_of_too_many_pixels(config: ModelConfig) -> None:
    said = r"^x.yaml: no machine holds a step of 100000000 \(trainer.fit.*.batch_size\) times 784 pixels$"
    with pytest.raises(UsageError, match=said):
        workload(config, trainer(10**8), "x.yaml")


@pytest.mark.parametrize("name", ["fp8", None, *ODD])
def test_a_precision_that_is_not_known_is_refused(name: Any) -> None:
    refuse(trainer(precision={"fp16_type": name}), "trainer.init.precision.fp16_type is ", "mmsimple computes in cbfl")
    refuse({"model": {"mixed_precision": True, "fp16_type": name}}, "model.fp16_type is ", "mmsimple computes in cbfl")


@pytest.mark.parametrize("value", [True, 1, "bfloat16", ["bfloat16"], "x\n" * 99])
def test_a_precision_that_is_no_mapping_is_refused(value: Any) -> None:
    refuse(trainer(precision=value), "trainer.init.precision is ", "but must be a mapping")


@pytest.mark.parametrize("value", [1, 0, "yes", *ODD])
def test_a_switch_is_true_or_false(value: Any) -> None:
    refuse(trainer(precision={"enabled": value}), "trainer.init.precision.enabled is ", "but must be true or false")
    refuse({"model": {"mixed_precision": value}}, "model.mixed_precision is ", "but must be true or false")


def test_a_precision_has_the_fields_that_it_has_and_no_others() -> None:
    known = ("loss_scaling_factor", "max_gradient_norm", "max_gradient_value", "log_loss_scale")
    fields = {"enabled": True, "fp16_type": "bfloat16", **dict.fromkeys(known, 1.0)}
    assert workload(MULTIMODAL, trainer(precision=fields), "x.yaml").half == "bfloat16"
    refuse(trainer(precision={**fields, "fp16_typ": 1}), "precision.fp16_typ: no such field; did you mean fp16_type?")
    refuse(trainer(precision={**fields, "x\n" * 99: 1}), "precision.x\\nx\\n", "x\\n: no such field")


@pytest.mark.parametrize("model", [{}, None, {"name": "llama"}])
def test_two_models_are_refused(model: Any) -> None:
    refuse({**trainer(), "model": model}, "has a model under trainer and another beside it")
