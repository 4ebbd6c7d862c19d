"""`mmsimple train` as a user meets it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.mmsimple.train.runs import write_params

if TYPE_CHECKING:
    from tests.conftest import Run


@pytest.fixture
def arguments(tmp_path: Path) -> list[object]:
    return ["train", write_params(tmp_path, init__loop__max_steps=2), "--model-dir", tmp_path / "model"]


def test_it_tells_what_trains_and_how_it_goes(arguments: list[object], tmp_path: Path, mmsimple: Run) -> None:
    done = mmsimple(*arguments)
    assert (done.returncode, done.stdout) == (0, f"{tmp_path}/model/checkpoint_2.mdl: update 2\n")
    said = done.stderr.splitlines()
    assert said[1].startswith("training 94.7 k of 94.7 k parameters: ")
    assert said[2].startswith("update 1 of 2  loss ")
    assert said[-1].startswith("validation at update 2: loss ")
    assert mmsimple(*arguments).stderr.splitlines()[-1] == "nothing is left to do after update 2"


def test_it_gives_scripts_one_document(arguments: list[object], tmp_path: Path, mmsimple: Run) -> None:
    found = json.loads(mmsimple(*arguments, "--json").stdout)
    assert (found["schema"], found["step"], found["checkpoint"]) == (1, 2, f"{tmp_path}/model/checkpoint_2.mdl")
    (validation,) = found["validation"]
    assert set(validation) == {"loss", "tokens", "perplexity"}
    quiet = mmsimple(*arguments, "--quiet")
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, "", "")


def test_options_change_the_file(arguments: list[object], tmp_path: Path, mmsimple: Run) -> None:
    more = ["--mode", "train", "--max-steps", 3, "--device", "cpu", "--set", "trainer.init.checkpoint.steps=1"]
    done = mmsimple(*arguments, *more)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in sorted((tmp_path / "model").glob("*.mdl"))] == [
        f"checkpoint_{step}.mdl" for step in (1, 2, 3)
    ]
    assert "validation" not in done.stderr


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        (["--set", "trainer.init.sead=1"], 2, "sead"),
        (["--set", "seed"], 2, "write a path and a value"),
        (["--resume", "nowhere"], 2, "--resume nowhere: does not exist"),
        (["--max-steps", "0"], 2, "--max-steps"),
        (["--set", "trainer.init.model.freeze=['^nothing']"], 2, "'^nothing' matches no parameter"),
        (["--set", "trainer.fit.train_dataloader.data_dir=/nowhere"], 3, "/nowhere"),
    ],
)
def test_what_is_wrong_is_told_in_a_line_or_two(
    more: list[str], code: int, said: str, arguments: list[object], mmsimple: Run
) -> None:
    done = mmsimple(*arguments, *more)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert len([line for line in done.stderr.splitlines() if line.startswith("error: ")]) == 1


def test_a_run_that_diverges_ends_with_8(arguments: list[object], mmsimple: Run) -> None:
    more = ["--set", "trainer.init.schedulers=1.0e+30", "--max-steps", "50"]
    done = mmsimple(*arguments, *more)
    assert done.returncode == 8
    assert "not finite 6 times in a row" in done.stderr
    assert "Traceback" not in done.stderr


def test_eval_measures_what_it_is_given(arguments: list[object], tmp_path: Path, mmsimple: Run) -> None:
    trained = json.loads(mmsimple(*arguments, "--json").stdout)
    elsewhere = [*arguments[:-1], tmp_path / "other", "--mode", "eval", "--json"]
    found = json.loads(mmsimple(*elsewhere, "--init-from", tmp_path / "model" / "checkpoint_2.mdl").stdout)
    assert found["validation"] == trained["validation"]
    assert not (tmp_path / "other").exists()
