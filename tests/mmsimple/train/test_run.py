"""A run: what it learns, what it leaves, what it writes, and how it ends where nothing finite comes out."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import mmconvert
from mmconvert.errors import InputRefused, OutputRefused, TrainingStopped, UsageError
from mmconvert.paths import leaves, put
from mmconvert.staging import locked
from mmsimple.data.h5 import ROWS
from mmsimple.load import load_model
from mmsimple.model import MultimodalModel
from mmsimple.train import checkpoint, loop, update
from mmsimple.train.loop import MOST_SKIPPED
from mmsimple.train.metrics import THROUGHPUT, read_lines, read_metrics
from mmsimple.train.reading import read_run_file
from mmsimple.train.run import Done, run
from tests.mmsimple.data.pictures import make_dataset
from tests.mmsimple.data.test_loader import numbered
from tests.mmsimple.small import MULTIMODAL, drawn
from tests.mmsimple.train.runs import params_of, tensors, write_params

TOO_FAST = [{"ConstantLR": {"learning_rate": 1e30}}]


def train(folder: Path, workers: int = 0, *, settings: tuple[str, ...] = (), **changes: Any) -> tuple[Done, list[str]]:
    """A run in `folder/model`, and what it said."""
    said: list[str] = []
    config = read_run_file(write_params(folder, workers, **changes), settings)
    return run(config, folder / "model", say=said.append), said


def metrics(folder: Path) -> list[dict[str, Any]]:
    """Those of its updates."""
    return [each for each in read_metrics(folder / "model") if "validation" not in each]


def weights(path: Path) -> dict[str, torch.Tensor]:
    return {name: each for name, each in tensors(path).items() if name.startswith("/model/")}


# --- learning -------------------------------------------------------------------------------------------------------


def test_it_learns_what_it_reads(tmp_path: Path) -> None:
    done, said = train(tmp_path, init__loop__max_steps=30)
    losses = [each["loss"] for each in metrics(tmp_path)]
    assert len(losses) == done.step == 30
    assert losses[-1] < losses[0] / 4
    (validation,) = done.validation
    assert validation.loss < losses[0] / 4
    assert said[-1] == f"validation at update 30: {validation}"
    assert list(read_metrics(tmp_path / "model"))[-1] == {
        "step": 30,
        "validation": [{"loss": validation.loss, "perplexity": validation.perplexity, "tokens": validation.tokens}],
    }


def test_frozen_tensors_stay_as_they_are_and_all_others_learn(tmp_path: Path) -> None:
    checkpoints = {"steps": 10, "save_initial_checkpoint": True}
    frozen = ("image_model.image_model_list", "text_model")
    patterns = [f"^{name}" for name in frozen]
    done, said = train(tmp_path, init__model__freeze=patterns, init__checkpoint=checkpoints)
    assert any("frozen: image_model.image_model_list, text_model" in text for text in said)
    assert done.checkpoint is not None
    before, after = weights(tmp_path / "model" / "checkpoint_0.mdl"), weights(done.checkpoint)
    for name, weight in after.items():
        stays = name.removeprefix("/model/model.").startswith(frozen)
        assert torch.equal(weight, before[name]) == stays, name


def test_rates_are_those_of_the_schedule(tmp_path: Path) -> None:
    train(tmp_path)
    schedule = read_run_file(tmp_path / "run.yaml").schedule
    assert [each["learning_rate"] for each in metrics(tmp_path)] == [schedule(step) for step in range(10)]


def test_batches_that_are_accumulated_are_one_update(tmp_path: Path) -> None:
    """Samples of one epoch in one update: 7 at once, or 2, 2, 2 and 1."""
    model = params_of(tmp_path)["trainer"]["init"]["model"]
    for path, _ in list(leaves(model)):
        if path.endswith("dropout_rate"):
            model = put(model, path, 0.0)
    found = []
    for size, count in ((7, 1), (2, 4)):
        folder = tmp_path / str(size)
        folder.mkdir()
        data: dict[str, Any] = {"fit__train_dataloader__batch_size": size, "fit__train_dataloader__drop_last": False}
        train(folder, init__model=model, init__loop={"max_steps": 3, "grad_accum_steps": count}, **data)
        assert [each["samples"] for each in metrics(folder)] == [7, 7, 7]
        # Every other sample is text of 3 tokens; four have 10, of which 4 are an image's.
        assert [each["tokens"] for each in metrics(folder)] == [4 * 10 + 3 * 3] * 3
        found.append([each[name] for each in metrics(folder) for name in ("loss", "gradient_norm", "parameter_norm")])
    assert found[1] == pytest.approx(found[0], rel=1e-4)


@pytest.mark.parametrize("half", ["bfloat16", "float16"])
def test_half_precision_learns_and_keeps_weights_in_float32(half: str, tmp_path: Path) -> None:
    precision = {"enabled": True, "fp16_type": half, "log_loss_scale": True}
    done, _ = train(tmp_path, init__precision=precision, init__loop__max_steps=20)
    found = metrics(tmp_path)
    assert found[-1]["loss"] < found[0]["loss"] / 2
    assert ("loss_scale" in found[0]) == (half == "float16")
    assert done.checkpoint is not None
    assert {weight.dtype for weight in weights(done.checkpoint).values()} == {torch.float32}


def test_a_stated_scale_stays(tmp_path: Path) -> None:
    precision = {"enabled": True, "fp16_type": "float16", "log_loss_scale": True, "loss_scaling_factor": 32.0}
    train(tmp_path, init__precision=precision)
    assert {each["loss_scale"] for each in metrics(tmp_path)} == {32.0}


def test_gradients_are_cut_after_their_norm_is_told(tmp_path: Path) -> None:
    train(tmp_path, init__precision={"enabled": False, "max_gradient_norm": 1e-3}, init__loop__max_steps=2)
    assert all(each["gradient_norm"] > 1e-2 for each in metrics(tmp_path))
    assert all("parameter_norm" in each for each in metrics(tmp_path))


@pytest.mark.parametrize("drop_last", [True, False])
@pytest.mark.parametrize(("epochs", "batches"), [(1, 1), (2, 1), (3, 1), (2, 2), (3, 2), (3, 5)])
def test_a_run_of_epochs_knows_its_last_update(epochs: int, batches: int, drop_last: bool, tmp_path: Path) -> None:
    loop = {"max_epochs": epochs, "grad_accum_steps": batches}
    done, said = train(tmp_path, init__loop=loop, fit__train_dataloader__drop_last=drop_last)
    assert [line.split("  ")[0] for line in said if line.startswith("update ")] == [
        f"update {number} of {done.step}" for number in range(1, (done.step or 0) + 1)
    ]


def test_epochs_are_counted_in_place_of_updates(tmp_path: Path) -> None:
    done, _ = train(tmp_path, init__loop={"max_epochs": 2}, fit__train_dataloader__drop_last=False)
    assert sum(each["samples"] for each in metrics(tmp_path)) == 14
    assert done.step == len(metrics(tmp_path))


def test_throughput_is_told_as_often_as_people_are(tmp_path: Path) -> None:
    for steps in (5, 10):
        _, said = train(tmp_path, init__logging={"log_steps": 4}, init__loop__max_steps=steps)
    assert [text.split(" of")[0] for text in said if text.startswith("update")] == ["update 8", "update 10"]
    told = list(read_lines(tmp_path / "model" / THROUGHPUT))
    assert [each["step"] for each in told] == [4, 5, 8, 10]
    for name in ("samples", "tokens"):
        assert sum(each[name] for each in told) == sum(each[name] for each in metrics(tmp_path)), name
    assert all(each["seconds"] > 0 for each in told)


# --- what is written ------------------------------------------------------------------------------------------------


def test_checkpoints_come_at_their_updates_and_at_the_end(tmp_path: Path) -> None:
    train(tmp_path)
    assert list(checkpoint.saved(tmp_path / "model")) == [3, 6, 9, 10]


def test_only_the_newest_stay(tmp_path: Path) -> None:
    train(tmp_path, init__callbacks=[{"KeepNCheckpoints": {"n": 2}}])
    assert list(checkpoint.saved(tmp_path / "model")) == [9, 10]


def test_what_was_not_removed_before_a_run_was_stopped_is_removed_by_the_next(tmp_path: Path) -> None:
    train(tmp_path, init__loop__max_steps=5)
    for steps in (5, 7):
        train(tmp_path, init__loop__max_steps=steps, init__callbacks=[{"KeepNCheckpoints": {"n": 1}}])
        assert list(checkpoint.saved(tmp_path / "model")) == [steps]


def test_what_a_killed_run_did_not_finish_is_cleared_up(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    for name in (".checkpoint_5.mdl.mmconvert-staging", ".checkpoint_5.mdl.mmconvert-lock"):
        (tmp_path / "model" / name).write_bytes(b"half of it")
    train(tmp_path)
    assert [path.name for path in (tmp_path / "model").iterdir() if path.name.startswith(".")] == []


def test_newer_checkpoints_are_never_removed_for_older_ones(tmp_path: Path) -> None:
    for step in (1, 2, 3, 9):
        checkpoint.path_of(tmp_path, step).write_bytes(b"")
    checkpoint.keep_newest(tmp_path, 1, 3)
    assert list(checkpoint.saved(tmp_path)) == [3, 9]
    checkpoint.keep_newest(tmp_path, None, 9)
    assert list(checkpoint.saved(tmp_path)) == [3, 9]


def test_a_checkpoint_is_one_that_mmconvert_reads(tmp_path: Path) -> None:
    done, _ = train(tmp_path)
    assert done.checkpoint is not None
    found = mmconvert.recognise(done.checkpoint)
    assert found.node.model == "mmsimple-llava"
    assert found.params["trainer"] == yaml.safe_load((tmp_path / "run.yaml").read_text("utf-8"))["trainer"]
    model = load_model(done.checkpoint)
    for name, weight in weights(done.checkpoint).items():
        assert torch.equal(model.state_dict()[name.removeprefix("/model/model.")], weight), name


def test_optimizer_state_has_the_names_of_cs(tmp_path: Path) -> None:
    done, _ = train(tmp_path, init__model__freeze=["^image_model", "^text_model.transformer_decoder"])
    assert done.checkpoint is not None
    names = [name for name in tensors(done.checkpoint) if name.startswith("/optimizer/state/")]
    assert "/optimizer/state/model.text_model.lm_head.weight/exp_avg" in names
    assert not [name for name in names if "image_model" in name]


def test_the_files_of_the_weights_come_along(tmp_path: Path) -> None:
    model = drawn(MultimodalModel(MULTIMODAL))
    model.assets = {"tokenizer_config.json": b"{}", "preprocessor_config.json": b"{}"}
    model.save(tmp_path / "weights")
    config = read_run_file(write_params(tmp_path))
    done = run(config, tmp_path / "model", init_from=tmp_path / "weights", say=lambda text: None)
    assert (tmp_path / "model" / "assets" / "preprocessor_config.json").read_bytes() == b"{}"
    assert done.checkpoint is not None
    assert set(mmconvert.recognise(done.checkpoint).sidecars) == set(model.assets)


# --- where nothing finite comes out ---------------------------------------------------------------------------------


def test_updates_that_are_not_finite_are_passed_over_and_then_it_ends(tmp_path: Path) -> None:
    one = [{"KeepNCheckpoints": {"n": 1}}]
    train(tmp_path, init__loop__max_steps=3, init__callbacks=one)
    good = (tmp_path / "model" / "checkpoint_3.mdl").read_bytes()
    often: dict[str, Any] = {"init__checkpoint__steps": 1, "init__callbacks": one}
    with pytest.raises(TrainingStopped) as caught:
        train(tmp_path, init__schedulers=TOO_FAST, init__loop__max_steps=100, **often)
    assert caught.value.exit_code == 8
    assert f"{MOST_SKIPPED + 1} times in a row" in str(caught.value)
    # The one that is good, and the one of the update that spoilt the weights: nobody could see that yet.
    assert list(checkpoint.saved(tmp_path / "model")) == [3, 4]
    assert "checkpoint_3.mdl, checkpoint_4.mdl" in str(caught.value)
    assert (tmp_path / "model" / "checkpoint_3.mdl").read_bytes() == good
    # The update that spoilt the weights, and those that were passed over.
    found = metrics(tmp_path)[3:]
    assert len(found) == 1 + MOST_SKIPPED
    assert [each.get("passed_over") for each in found[1:]] == ["loss or gradient not finite"] * MOST_SKIPPED
    assert all(each["loss"] is None for each in found[1:])


@pytest.fixture
def spoil(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`spoil(2, 3)`: the gradients of the second and third update from now on are not finite."""

    def spoil(*numbers: int) -> None:
        count = itertools.count(1)

        def spoilt(model: Any, *given: Any, **options: Any) -> float:
            loss = update.accumulate(model, *given, **options)
            if next(count) in numbers:
                model.text_model.lm_head.weight.grad[0, 0] = float("inf")
            return loss

        monkeypatch.setattr("mmsimple.train.loop.accumulate", spoilt)

    return spoil


def test_an_update_without_a_token_that_counts_is_an_error_or_passed_over(tmp_path: Path) -> None:
    silent = [row._replace(data=row.data.copy()) for row in numbered(4)]
    for row in silent[2:]:
        row.data[ROWS.index("loss_mask")] = 0
    make_dataset(tmp_path, silent)
    changes: dict[str, Any] = {"fit__train_dataloader__shuffle": False, "init__loop__max_steps": 4}
    with pytest.raises(InputRefused, match="update 2: no token of its samples counts in the loss; on_bad_sample: skip"):
        train(tmp_path, **changes)
    assert len(metrics(tmp_path)) == 1
    shutil.rmtree(tmp_path / "model")
    train(tmp_path, **changes, fit__train_dataloader__on_bad_sample="skip")
    assert [each.get("passed_over") for each in metrics(tmp_path)] == [None, "no token counts"] * 2
    assert [each["learned_tokens"] > 0 for each in metrics(tmp_path)] == [True, False] * 2


def test_an_update_that_is_passed_over_changes_no_weight(tmp_path: Path, spoil: Callable[..., None]) -> None:
    spoil(*range(1, MOST_SKIPPED + 1))
    checkpoints = {"steps": 10, "save_initial_checkpoint": True}
    done, said = train(tmp_path, init__loop__max_steps=MOST_SKIPPED, init__checkpoint=checkpoints)
    assert said[-1] == "warning: the last 5 updates had no finite loss or gradient, and changed nothing"
    assert done.checkpoint is not None
    before = weights(tmp_path / "model" / "checkpoint_0.mdl")
    assert all(torch.equal(weight, before[name]) for name, weight in weights(done.checkpoint).items())


def test_only_those_in_a_row_are_counted(tmp_path: Path, spoil: Callable[..., None]) -> None:
    spoil(1, 2, 3, 5, 6, 7, 9, 10)
    done, _ = train(tmp_path)
    assert done.step == 10
    assert len([each for each in metrics(tmp_path) if "passed_over" in each]) == 8


def test_they_are_counted_across_a_restart(tmp_path: Path, spoil: Callable[..., None]) -> None:
    spoil(1, 2, 3)
    train(tmp_path, init__loop__max_steps=3)
    spoil(*range(1, 10))
    with pytest.raises(TrainingStopped):
        train(tmp_path)
    assert len(metrics(tmp_path)) == MOST_SKIPPED


def test_a_scale_that_is_too_large_costs_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "FIRST_SCALE", 2.0**40)
    precision = {"enabled": True, "fp16_type": "float16"}
    train(tmp_path, init__precision=precision, init__loop__max_steps=40)
    found = metrics(tmp_path)
    assert len([each for each in found if "passed_over" in each]) > MOST_SKIPPED
    assert found[-1]["loss"] < found[0]["loss"] - 1


def test_a_stated_scale_is_no_excuse(tmp_path: Path) -> None:
    precision = {"enabled": True, "fp16_type": "float16", "loss_scaling_factor": 1.0e30}
    with pytest.raises(TrainingStopped):
        train(tmp_path, init__precision=precision)


# --- what cannot be run ---------------------------------------------------------------------------------------------


def test_what_there_is_no_data_for_is_refused_before_any_weight_is_read(tmp_path: Path) -> None:
    for mode, lacks in (("train", "train_dataloader"), ("eval", "val_dataloader")):
        document = params_of(tmp_path)
        del document["trainer"]["fit"][lacks]
        (tmp_path / "run.yaml").write_text(yaml.safe_dump(document), "utf-8")
        with pytest.raises(UsageError, match=lacks):
            run(read_run_file(tmp_path / "run.yaml"), tmp_path / "model", mode=mode, init_from=tmp_path / "none")
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("loader", ["train_dataloader", "val_dataloader"])
@pytest.mark.parametrize("mode", ["train_and_eval", "eval"])
def test_data_that_is_not_there_or_does_not_fit_is_refused_before_any_weight_is_read(
    mode: str, loader: str, tmp_path: Path
) -> None:
    broken = tmp_path / "weights.mdl"
    broken.write_bytes(b"no checkpoint")
    for field, value, why in (("data_dir", "/nowhere", "is no folder"), ("num_patches", 3, "but num_patches is 3")):
        changes: dict[str, Any] = {f"fit__{loader}__{field}": value}
        config = read_run_file(write_params(tmp_path, **changes))
        expected = why if (mode, loader) != ("eval", "train_dataloader") else "weights.mdl"
        with pytest.raises(InputRefused, match=expected):
            run(config, tmp_path / "model", mode=mode, init_from=broken, say=lambda text: None)
        assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("held", [(), ("notes.txt",)])
def test_a_model_folder_that_was_there_stays_where_a_run_is_refused(held: tuple[str, ...], tmp_path: Path) -> None:
    config = read_run_file(write_params(tmp_path, fit__train_dataloader__data_dir="/nowhere"))
    (tmp_path / "model").mkdir()
    for name in held:
        (tmp_path / "model" / name).touch()
    with pytest.raises(InputRefused, match="is no folder"):
        run(config, tmp_path / "model", say=lambda text: None)
    assert [each.name for each in (tmp_path / "model").iterdir()] == list(held)


def test_eval_measures_a_checkpoint_and_writes_nothing(tmp_path: Path) -> None:
    done, _ = train(tmp_path)
    before = sorted((tmp_path / "model").iterdir())
    found = run(read_run_file(tmp_path / "run.yaml"), tmp_path / "model", mode="eval", say=lambda text: None)
    assert found == replace(done, step=None)
    assert sorted((tmp_path / "model").iterdir()) == before


def test_train_alone_measures_nothing(tmp_path: Path) -> None:
    config = read_run_file(write_params(tmp_path, fit__val_dataloader__data_dir="/nowhere"))
    done = run(config, tmp_path / "model", mode="train", say=lambda text: None)
    assert done.validation == ()
    assert len(list(read_metrics(tmp_path / "model"))) == len(metrics(tmp_path)) == 10


def test_validation_comes_at_its_updates_and_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    often, said = train(tmp_path / "a", init__loop={"max_steps": 10, "eval_frequency": 4})
    assert [text.split(":")[0] for text in said if text.startswith("validation")] == [
        f"validation at update {step}" for step in (4, 8, 10)
    ]
    once, _ = train(tmp_path / "b")
    assert often.checkpoint is not None
    assert once.checkpoint is not None
    ours, theirs = weights(often.checkpoint), weights(once.checkpoint)
    assert all(torch.equal(ours[name], weight) for name, weight in theirs.items())


def test_a_file_in_the_model_folders_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(b"")
    with pytest.raises(OutputRefused, match="is a file"):
        train(tmp_path)


def test_a_checkpoint_of_weights_alone_is_no_run(tmp_path: Path) -> None:
    drawn(MultimodalModel(MULTIMODAL)).save(tmp_path / "weights")
    config = read_run_file(write_params(tmp_path))
    with pytest.raises(InputRefused, match="has no optimizer, dataloader, rng, global_step to go on with; --init-from"):
        run(config, tmp_path / "model", resume=tmp_path / "weights" / "model.mdl", say=lambda text: None)


def test_a_run_that_is_done_is_not_written_again(tmp_path: Path) -> None:
    done, _ = train(tmp_path)
    assert done.checkpoint is not None
    written = done.checkpoint.stat().st_mtime_ns
    again, said = train(tmp_path)
    assert said[-1] == "nothing is left to do after update 10"
    assert (again.step, again.checkpoint) == (done.step, done.checkpoint)
    assert done.checkpoint.stat().st_mtime_ns == written


def test_two_runs_do_not_share_a_model_folder(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    with locked(tmp_path / "model"), pytest.raises(OutputRefused, match="another run is writing here"):
        train(tmp_path)
    train(tmp_path)


def test_bad_samples_are_counted_by_update_and_may_fill_the_end_of_an_epoch(tmp_path: Path) -> None:
    write_params(tmp_path)
    (tmp_path / "images" / "sub" / "a.png").write_bytes(b"")
    changes: dict[str, Any] = {"fit__train_dataloader__on_bad_sample": "skip", "fit__train_dataloader__batch_size": 1}
    changes |= {"init__checkpoint__steps": 1, "fit__val_dataloader__on_bad_sample": "skip"}
    train(tmp_path, **changes)
    expected = metrics(tmp_path)
    assert sum(each["bad_samples"] for each in expected) > 0
    for step in range(1, 10):
        config = read_run_file(tmp_path / "run.yaml")
        parts = tmp_path / f"from_{step}"
        run(config, parts, resume=tmp_path / "model" / f"checkpoint_{step}.mdl", say=lambda text: None)
        assert [each for each in read_metrics(parts) if "validation" not in each] == expected[step:]
