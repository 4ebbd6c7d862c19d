"""What a run begins with: the command line first, then the params file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mmconvert.errors import InputRefused, OutputRefused, UsageError
from mmsimple.checkpoint import save
from mmsimple.llama import LlamaModel
from mmsimple.load import load_model
from mmsimple.model import MultimodalModel
from mmsimple.train import checkpoint
from mmsimple.train.config import TrainConfig
from mmsimple.train.reading import read_run_file
from mmsimple.train.run import run as train
from mmsimple.train.start import Origin, Resume, begin, measured, origin, resume_of
from tests.mmsimple.small import DECODER, MULTIMODAL, drawn
from tests.mmsimple.train.runs import write_params

CPU = torch.device("cpu")


@pytest.fixture
def config(tmp_path: Path) -> TrainConfig:
    return read_run_file(write_params(tmp_path))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model folder with three checkpoints, which nobody opens."""
    (tmp_path / "model").mkdir()
    for step in (2, 9, 10):
        checkpoint.path_of(tmp_path / "model", step).write_bytes(b"")
    return tmp_path / "model"


def changed(config: TrainConfig, **fields: Any) -> TrainConfig:
    names = [name for name in fields if hasattr(config.checkpointing, name)]
    kept = replace(config.checkpointing, **{name: fields.pop(name) for name in names})
    return replace(config, checkpointing=kept, **fields)


# --- which checkpoint -----------------------------------------------------------------------------------------------


def test_a_run_goes_on_from_its_newest_checkpoint(config: TrainConfig, folder: Path) -> None:
    newest = Origin(folder / "checkpoint_10.mdl", goes_on=True)
    assert origin(config, folder) == newest
    # The command that began the run takes it up again too.
    assert origin(config, folder, init_from=Path("elsewhere")) == newest
    assert origin(changed(config, ckpt_path=Path("elsewhere")), folder) == newest
    assert origin(changed(config, autoload_last=False), folder, resume="auto") == newest


def test_a_new_run_draws_its_weights_or_begins_with_others(config: TrainConfig, tmp_path: Path) -> None:
    empty, file = tmp_path / "empty", tmp_path / "checkpoint_3.mdl"
    named = changed(config, ckpt_path=file)
    assert origin(config, empty) == Origin(None)
    assert origin(config, empty, init_from=tmp_path) == Origin(tmp_path)
    assert origin(named, empty, init_from=tmp_path) == Origin(tmp_path)
    assert origin(named, empty) == Origin(file, goes_on=True)
    assert origin(changed(named, load_whole=False), empty) == Origin(file)
    # A folder is a converted checkpoint, with nothing in it but weights.
    assert origin(changed(config, ckpt_path=tmp_path), empty) == Origin(tmp_path)


def test_a_run_goes_on_from_what_is_named(config: TrainConfig, folder: Path, tmp_path: Path) -> None:
    last = Origin(folder / "checkpoint_10.mdl", goes_on=True)
    assert origin(config, folder, resume=folder / "checkpoint_10.mdl") == last
    assert origin(config, tmp_path / "new", resume=folder) == last
    assert origin(config, tmp_path / "new", resume=folder / "checkpoint_2.mdl").path == folder / "checkpoint_2.mdl"
    with pytest.raises(InputRefused, match="holds no checkpoint_STEP"):
        origin(config, folder, resume=tmp_path)


def test_checkpoints_that_would_be_taken_for_the_runs_own_are_refused(config: TrainConfig, folder: Path) -> None:
    earlier: tuple[Resume, ...] = ("never", folder / "checkpoint_2.mdl")
    for resume in earlier:
        with pytest.raises(OutputRefused, match=r"checkpoint_10\.mdl would be taken for this run's"):
            origin(config, folder, resume=resume)
    with pytest.raises(OutputRefused):
        origin(changed(config, autoload_last=False), folder)


def test_two_wishes_at_a_time_are_refused(config: TrainConfig, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--init-from and --resume"):
        origin(config, tmp_path / "new", init_from=tmp_path, resume=folder)


def test_resume_is_a_word_or_a_path_that_is_there(tmp_path: Path) -> None:
    assert (resume_of(None), resume_of("auto"), resume_of("never")) == (None, "auto", "never")
    assert resume_of(str(tmp_path)) == tmp_path
    with pytest.raises(UsageError, match="--resume newest: does not exist"):
        resume_of("newest")


def test_one_path_in_two_spellings_is_one(config: TrainConfig, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    assert origin(config, Path("model"), resume=folder / "checkpoint_10.mdl").goes_on


def test_what_is_measured_is_what_is_named_then_the_newest(config: TrainConfig, folder: Path, tmp_path: Path) -> None:
    file, newest = folder / "checkpoint_2.mdl", folder / "checkpoint_10.mdl"
    assert measured(config, folder, init_from=file) == file
    assert measured(config, folder, resume=file) == file
    assert measured(config, tmp_path / "none", resume=folder) == newest
    assert measured(config, folder) == newest
    assert measured(changed(config, ckpt_path=file), tmp_path / "none") == file
    assert measured(changed(config, ckpt_path=newest, validation_ckpt_path=file), tmp_path / "none") == file
    with pytest.raises(UsageError, match="holds no checkpoint to measure"):
        measured(config, tmp_path / "none")


# --- its weights ----------------------------------------------------------------------------------------------------


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """A checkpoint of the run's model in bfloat16."""
    drawn(MultimodalModel(MULTIMODAL)).to(torch.bfloat16).save(tmp_path / "other")
    return tmp_path / "other"


def test_weights_become_float32_and_nothing_is_drawn(config: TrainConfig, other: Path) -> None:
    said: list[str] = []
    model, state = begin(config, Origin(other), CPU, said.append)
    assert state is None
    expected = load_model(other).state_dict()
    for name, weight in model.state_dict().items():
        assert weight.dtype == torch.float32
        assert torch.equal(weight, expected[name].float()), name
    assert any(text.startswith("training 94.7 k of 94.7 k parameters") for text in said)


def test_drawn_weights_follow_from_the_seed(config: TrainConfig) -> None:
    def weights(seed: int) -> torch.Tensor:
        model, _ = begin(changed(config, seed=seed), Origin(None), CPU, lambda text: None)
        return model.text_model.lm_head.weight

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_what_is_missing_or_too_much_is_refused_or_told(config: TrainConfig, tmp_path: Path) -> None:
    deeper = replace(MULTIMODAL, text_model=replace(DECODER, num_hidden_layers=3))
    drawn(MultimodalModel(deeper)).save(tmp_path / "deeper")
    drawn(MultimodalModel(MULTIMODAL)).save(tmp_path / "same")
    shallow = config
    deep = changed(
        config, model=replace(config.model, text_model=replace(config.model.text_model, num_hidden_layers=3))
    )
    with pytest.raises(InputRefused, match="is no tensor of the model"):
        begin(shallow, Origin(tmp_path / "deeper"), CPU, lambda text: None)
    with pytest.raises(InputRefused, match="is missing"):
        begin(deep, Origin(tmp_path / "same"), CPU, lambda text: None)
    for run, path, told in ((shallow, "deeper", "left out"), (deep, "same", "drawn")):
        said: list[str] = []
        model, _ = begin(changed(run, strict=False), Origin(tmp_path / path), CPU, said.append)
        expected = load_model(tmp_path / path).state_dict()
        assert torch.equal(model.text_model.lm_head.weight, expected["text_model.lm_head.weight"])
        assert any(f"{told}: text_model.transformer_decoder.layers.2." in text for text in said), said


def test_a_model_that_computes_otherwise_is_told_of(config: TrainConfig, other: Path) -> None:
    far = replace(config.model, text_model=replace(config.model.text_model, rope_theta=5e5))
    said: list[str] = []
    begin(changed(config, model=far), Origin(other), CPU, said.append)
    assert any("text_model.rope_theta" in text and "500000" in text for text in said), said


def test_where_the_newest_checkpoint_is_damaged_the_one_before_is_named(tmp_path: Path) -> None:
    params, model = read_run_file(write_params(tmp_path)), tmp_path / "model"
    train(params, model, mode="train", say=lambda text: None)
    newest, earlier = model / "checkpoint_10.mdl", model / "checkpoint_9.mdl"
    newest.write_bytes(newest.read_bytes()[:-10])
    with pytest.raises(
        InputRefused, match=rf"checkpoint_10\.mdl: .*truncated.*; move it away to go on from {earlier}$"
    ):
        train(params, model, say=lambda text: None)
    # What it says works.
    newest.rename(tmp_path / "damaged.mdl")
    said: list[str] = []
    assert train(params, model, mode="train", say=said.append).step == 10
    assert f"going on from {earlier}" in said


def test_where_there_is_none_before_a_damaged_checkpoint_none_is_named(config: TrainConfig, folder: Path) -> None:
    # Weights to begin with have none before them either.
    for begun in (Origin(folder / "checkpoint_2.mdl", goes_on=True), Origin(folder / "checkpoint_10.mdl")):
        with pytest.raises(InputRefused, match="is not an HDF5 file") as caught:
            begin(config, begun, CPU, lambda text: None)
        assert "go on" not in str(caught.value)


def test_a_decoder_alone_is_refused(config: TrainConfig, tmp_path: Path) -> None:
    save(drawn(LlamaModel(DECODER)), DECODER, tmp_path / "decoder")
    with pytest.raises(InputRefused, match="is no multimodal model"):
        begin(config, Origin(tmp_path / "decoder"), CPU, lambda text: None)
