"""Pictures of runs: what they show, of runs of any length, and what cannot be drawn."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from mmsimple import cli
from mmsimple.plot import MANY, draw, read_curves, running_mean

if TYPE_CHECKING:
    from tests.conftest import Run

PNG = b"\x89PNG\r\n\x1a\n"


def write(folder: Path, updates: int, loss: Callable[[int], float | None] = lambda step: 1 + 1 / step) -> Path:
    """A run with a validation of two sets every tenth update, and a line of throughput every fifth."""
    folder.mkdir(parents=True, exist_ok=True)
    told: list[dict[str, Any]] = []
    for step in range(1, updates + 1):
        told.append({"step": step, "learning_rate": step / 1000, "loss": loss(step), "samples": 2, "tokens": 30})
        if step % 10 == 0:
            told.append({"step": step, "validation": [{"loss": 2.0}, {"loss": None}]})
    speed = [{"step": step, "seconds": 0.5, "samples": 10, "tokens": 150} for step in range(5, updates + 1, 5)]
    for name, lines in (("metrics", told), ("throughput", speed)):
        (folder / f"{name}.jsonl").write_text("".join(f"{json.dumps(each)}\n" for each in lines), "utf-8")
    return folder


# --- what is shown --------------------------------------------------------------------------------------------------


def test_it_shows_loss_learning_rate_and_throughput(tmp_path: Path) -> None:
    figure = draw(read_curves(write(tmp_path, 20)), "a run")
    loss, rate, speed = figure.axes
    assert [axes.get_ylabel() for axes in figure.axes] == ["loss", "learning rate", "tokens/s"]
    assert speed.get_xlabel() == "update"
    assert loss.get_title("left") == "a run"
    legend = loss.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["training", "validation 1", "validation 2"]
    training, first, second = loss.lines
    assert_array_equal(training.get_xdata(), range(1, 21))
    assert_array_equal(training.get_ydata(), [1 + 1 / step for step in range(1, 21)])
    assert_array_equal(first.get_xydata(), [(10, 2), (20, 2)])
    assert_array_equal(second.get_xydata(), [(10, np.nan), (20, np.nan)])
    assert_array_equal(rate.lines[0].get_ydata(), [step / 1000 for step in range(1, 21)])
    assert_array_equal(speed.lines[0].get_xydata(), [(5, 300), (10, 300), (15, 300), (20, 300)])


def test_a_run_whose_speed_is_not_known_has_two_parts(tmp_path: Path) -> None:
    write(tmp_path, 3)
    (tmp_path / "throughput.jsonl").unlink()
    figure = draw(read_curves(tmp_path), "")
    assert [axes.get_ylabel() for axes in figure.axes] == ["loss", "learning rate"]


@pytest.mark.parametrize("updates", [20, 2 * MANY])
def test_updates_that_were_passed_over_leave_gaps(updates: int, tmp_path: Path) -> None:
    gone = {updates // 2, updates // 2 + 1}
    figure = draw(read_curves(write(tmp_path, updates, lambda step: None if step in gone else 1.0)), "")
    for line in figure.axes[0].lines[:2] if updates > MANY else figure.axes[0].lines[:1]:
        values = np.asarray(line.get_ydata())
        assert {int(at) + 1 for at in np.flatnonzero(np.isnan(values))} == gone
        assert_allclose(values[np.isfinite(values)], 1.0)


def test_of_many_updates_a_running_mean_is_drawn_over_them(tmp_path: Path) -> None:
    figure = draw(read_curves(write(tmp_path, 5000, lambda step: 1.0 + step % 2)), "")
    raw, mean = (np.asarray(line.get_ydata()) for line in figure.axes[0].lines[:2])
    assert set(raw) == {1.0, 2.0}
    assert_allclose(mean, 1.5, atol=0.02)


def test_a_loss_that_falls_far_is_shown_by_its_logarithm(tmp_path: Path) -> None:
    for first, scale in ((5.0, "linear"), (50.0, "log")):
        figure = draw(read_curves(write(tmp_path, 20, lambda step, first=first: first if step == 1 else 1.0)), "")  # type: ignore[misc]
        assert figure.axes[0].get_yscale() == scale


@pytest.mark.parametrize("window", [1, 2, 5, 100])
def test_a_running_mean_is_over_what_is_there(window: int) -> None:
    values = np.random.default_rng(0).normal(size=30)
    values[[3, 4, 17]] = np.nan
    found = running_mean(values, window)
    for at, mean in enumerate(found):
        start = at - window // 2
        around = values[max(start, 0) : start + window]
        assert mean == pytest.approx(np.nan if np.isnan(values[at]) else np.nanmean(around), nan_ok=True)


# --- the command ----------------------------------------------------------------------------------------------------


def test_the_picture_stands_beside_the_metrics(tmp_path: Path, mmsimple: Run) -> None:
    write(tmp_path, 3)
    (tmp_path / "plot.png").write_bytes(b"an older one")
    done = mmsimple("plot", tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{tmp_path}/plot.png: 3 updates\n", "")
    assert (tmp_path / "plot.png").read_bytes().startswith(PNG)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metrics.jsonl", "plot.png", "throughput.jsonl"]


def test_it_may_stand_elsewhere_and_scripts_are_told_where(tmp_path: Path, mmsimple: Run) -> None:
    out = tmp_path / "pictures" / "run.PNG"
    found = json.loads(mmsimple("plot", write(tmp_path / "run", 3), "--out", out, "--json").stdout)
    assert found == {"schema": 1, "plot": str(out), "updates": 3}
    assert out.read_bytes().startswith(PNG)
    assert not (tmp_path / "run" / "plot.png").exists()
    quiet = mmsimple("plot", tmp_path / "run", "-q")
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, "", "")


@pytest.mark.parametrize("name", ["$x_$", "训练", "two\nlines"])
def test_a_run_may_have_any_name(name: str, tmp_path: Path, mmsimple: Run) -> None:
    done = mmsimple("plot", write(tmp_path / name, 3))
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("updates", [1, 3])
def test_a_run_without_any_loss_is_drawn(updates: int, tmp_path: Path, mmsimple: Run) -> None:
    done = mmsimple("plot", write(tmp_path, updates, lambda step: None))
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "metrics.jsonl: is not there; RUN_DIR is the --model-dir of mmsimple train"),
        ("", "metrics.jsonl: tells of no update yet"),
        ('{"step": 1, "validation": [{"loss": 1}]}\n', "metrics.jsonl: tells of no update yet"),
        ('{"step": 1}\n{"ste\n', "metrics.jsonl: line 2 is no JSON with a step"),
        ('{"step": 1, "loss": "low"}\n', "metrics.jsonl: step 1: loss is low, no number"),
        ('{"step": 1, "validation": {"loss": 1}}\n', "metrics.jsonl: step 1: validation is no list of sets"),
    ],
)
def test_what_is_no_run_is_refused_and_nothing_is_written(
    content: str | None, said: str, tmp_path: Path, mmsimple: Run
) -> None:
    if content is not None:
        (tmp_path / "metrics.jsonl").write_text(content, "utf-8")
    done = mmsimple("plot", tmp_path)
    assert done.returncode == 3
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "plot.png").exists()


def test_a_damaged_line_of_throughput_is_refused(tmp_path: Path, mmsimple: Run) -> None:
    write(tmp_path, 3)
    (tmp_path / "throughput.jsonl").write_bytes(b"\0\0\n")
    done = mmsimple("plot", tmp_path)
    assert done.returncode == 3
    assert "throughput.jsonl: line 1 is no JSON" in done.stderr


def test_a_place_that_is_no_pictures_is_refused(tmp_path: Path, mmsimple: Run) -> None:
    write(tmp_path, 3)
    (tmp_path / "folder.png").mkdir()
    assert mmsimple("plot", tmp_path, "--out", tmp_path / "plot.pdf").returncode == 2
    assert mmsimple("plot", tmp_path, "--out", tmp_path / "folder.png").returncode == 5
    assert mmsimple("plot", tmp_path / "nowhere").returncode == 2


def test_without_matplotlib_it_names_what_to_install(
    tmp_path: Path, mmsimple: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "find_spec", lambda name: None)
    done = mmsimple("plot", write(tmp_path, 3))
    assert (done.returncode, done.stdout) == (2, "")
    assert 'this needs matplotlib: pip install "mmconvert[plot]"' in done.stderr
