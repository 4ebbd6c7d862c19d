"""Data of another model is refused in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mmconvert.errors import InputRefused
from mmsimple.train import run as module
from mmsimple.train.fitting import check_tokens
from mmsimple.train.reading import read_run_file
from mmsimple.train.run import run
from tests.mmsimple.small import MULTIMODAL
from tests.mmsimple.train.batches import batch_of
from tests.mmsimple.train.runs import write_params

ENCODER = "init__model__image_model_list__image_models__0__image_encoder"


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({f"{ENCODER}__image_size": [42, 42]}, r"image_data_size is \[3, 28, 28\], but the model's .* \[3, 42, 42\]"),
        ({f"{ENCODER}__patch_size": [7, 7]}, "data: has 4 tokens for each image, but the model makes 16 of one"),
        (
            {"fit__train_dataloader__img_data_dir": "no", "fit__val_dataloader__img_data_dir": "no"},
            "no: img_data_dir is",
        ),
    ],
    ids=["image_size", "patch_size", "img_data_dir"],
)
def test_data_of_another_shape_is_refused_before_weights_are_read(
    changes: dict[str, Any], said: str, mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "begin", lambda *_: pytest.fail("weights were read"))
    config = read_run_file(write_params(tmp_path, **changes))
    (tmp_path / "start.mdl").touch()
    with pytest.raises(InputRefused, match=said):
        run(config, tmp_path / "run", mode=mode, init_from=tmp_path / "start.mdl", say=lambda _: None)


@pytest.mark.parametrize("mode", ["train", "train_and_eval"])
def test_tokens_that_the_model_lacks_end_a_run(mode: str, tmp_path: Path) -> None:
    config = read_run_file(write_params(tmp_path, init__model__text_model__vocab_size=8))
    with pytest.raises(InputRefused, match=r"has the token id \d+, but the model's vocab_size is 8"):
        run(config, tmp_path / "run", mode=mode, say=lambda _: None)


def test_labels_are_looked_at_where_they_count() -> None:
    batch = batch_of(2)
    assert batch.labels is not None
    assert batch.loss_mask is not None
    check_tokens(batch, MULTIMODAL)
    unused, used = (torch.where(batch.loss_mask == value, 101, batch.labels) for value in (0, 1))
    check_tokens(batch._replace(labels=unused), MULTIMODAL)
    with pytest.raises(InputRefused, match="token id 101"):
        check_tokens(batch._replace(labels=used), MULTIMODAL)
