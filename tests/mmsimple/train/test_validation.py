"""The loss on data that is not learned from: over tokens, whatever batches they come in."""

from __future__ import annotations

from dataclasses import replace
from math import exp, isnan
from pathlib import Path

import pytest
import torch

from mmsimple.data.loader import Loader
from mmsimple.model import MultimodalModel
from mmsimple.train.config import TrainConfig
from mmsimple.train.reading import read_run_file
from mmsimple.train.validation import Validation, Validator
from tests.mmsimple.small import drawn
from tests.mmsimple.train.runs import SAMPLES, write_params

CPU = torch.device("cpu")


def config_of(folder: Path, size: int, *, batches: int | None = None, micro: int | None = None) -> TrainConfig:
    section = {"fit__val_dataloader__batch_size": size, "fit__val_dataloader__drop_last": True}
    config = read_run_file(write_params(folder, **section))
    return replace(config, loop=replace(config.loop, eval_steps=batches), validation_micro_batch_size=micro)


def measured(config: TrainConfig) -> Validation:
    (found,) = Validator(config, drawn(MultimodalModel(config.model)), CPU).run()
    return found


@pytest.mark.parametrize(("size", "micro"), [(1, None), (2, None), (7, 3), (50, None)])
def test_every_sample_counts_once_whatever_batch_it_is_in(size: int, micro: int | None, tmp_path: Path) -> None:
    whole = measured(config_of(tmp_path, SAMPLES))
    found = measured(config_of(tmp_path, size, micro=micro))
    assert found.tokens == whole.tokens
    assert found.loss == pytest.approx(whole.loss, rel=1e-5)


def test_it_is_the_models_loss_without_dropout(tmp_path: Path) -> None:
    config = config_of(tmp_path, SAMPLES)
    (batch,) = Loader(replace(config.validation_data[0], drop_last=False))
    model = drawn(MultimodalModel(config.model))
    with torch.no_grad():
        expected = model.eval().loss(batch).item()
    found = measured(config)
    assert found.loss == pytest.approx(expected, rel=1e-6)
    assert batch.loss_mask is not None
    assert found.tokens == int((batch.loss_mask != 0).sum())


def test_loss_scaling_makes_no_difference(tmp_path: Path) -> None:
    config = config_of(tmp_path, 2)
    other = replace(config, model=replace(config.model, loss_scaling="batch_size", loss_weight=0.1))
    assert measured(other) == measured(config)


def test_it_begins_anew_each_time_and_reads_so_many_batches(tmp_path: Path) -> None:
    config = config_of(tmp_path, 2, batches=2)
    model = drawn(MultimodalModel(config.model)).train()
    validator = Validator(config, model, CPU)
    first = validator.run()
    assert validator.run() == first
    assert model.training
    assert first[0].tokens < measured(config_of(tmp_path, 2)).tokens


def test_perplexity_is_e_to_the_loss() -> None:
    assert Validation(2.0, 1).perplexity == pytest.approx(exp(2))
    assert Validation(1e9, 1).perplexity > 1e300
    assert isnan(Validation(float("nan"), 0).perplexity)
