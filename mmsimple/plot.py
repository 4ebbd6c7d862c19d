"""A picture of a run: its loss, learning rate and throughput, update by update. Needs matplotlib, and no torch.

Shape letters: U updates, T lines of throughput.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mmconvert.errors import InputRefused, UsageError
from mmconvert.excerpt import excerpt
from mmconvert.staging import check_file, disk_errors, write_whole
from mmsimple.train.metrics import METRICS, THROUGHPUT, read_lines, set_names

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Numbers: TypeAlias = NDArray[np.float64]
Points: TypeAlias = list[tuple[float, float]]

FILE = "plot.png"
# Of more updates than these a line is drawn that is smoothed, over a share of them.
MANY = 200
SHARE = 50
# Of fewer, each is a dot as well: a line of one would not be seen.
FEW = 50
# How far the largest loss is from the smallest where a logarithmic scale shows more than a linear one.
FAR = 10.0
BLUE, GREY, GREEN = "#2f6db5", "#6b6b6b", "#3d8f5f"
MEASURED = ("#d9822b", "#b5446e", "#7a5ab5", "#8a7a2b")


@dataclass(frozen=True)
class Curves:
    """What a run has told: `steps`, `loss` and `learning_rate` [U], `spoken` and `tokens_per_second` [T].

    NaN stands for the loss of updates that have none. `validation` has step and loss by validation set.
    """

    steps: Numbers
    loss: Numbers
    learning_rate: Numbers
    validation: Mapping[str, Points]
    spoken: Numbers
    tokens_per_second: Numbers


def plot(folder: Path, out: Path | None = None) -> tuple[Path, int]:
    """Draw the run in a model folder as a PNG, `plot.png` beside its metrics if nothing else is said.

    Gives where that is and how many updates it shows. The picture appears whole or not at all; one that stands there is
    replaced. Raises UsageError for another kind of file, InputRefused for a run that has told nothing yet or whose
    lines are damaged, OutputRefused for a place that is no file's, and DiskError.
    """
    out = folder / FILE if out is None else out
    if out.suffix.lower() != ".png":
        raise UsageError(f"--out {out}: what is drawn is a PNG; name it so")
    check_file(out, overwrite=True)
    curves = read_curves(folder)
    picture = io.BytesIO()
    with _plain():
        draw(curves, excerpt(folder.resolve().name)).savefig(picture, format="png")
    with disk_errors(out, picture.tell()):
        out.parent.mkdir(parents=True, exist_ok=True)
    write_whole(out, picture.getvalue())
    return out, len(curves.steps)


def read_curves(folder: Path) -> Curves:
    """What the run in a model folder has told. Raises InputRefused, see `plot`."""
    path = folder / METRICS
    if not path.is_file():
        raise InputRefused(f"{path}: is not there; RUN_DIR is the --model-dir of mmsimple train")
    updates: list[tuple[float, ...]] = []
    validation: dict[str, Points] = {}
    for line in read_lines(path):
        if "validation" not in line:
            updates.append(_numbers(line, ("step", "loss", "learning_rate"), path))
            continue
        entries = line["validation"]
        if not isinstance(entries, list) or not all(isinstance(each, dict) for each in entries):
            raise InputRefused(f"{path}: step {line['step']}: validation is no list of sets; remove the line")
        for name, each in zip(set_names(len(entries)), entries, strict=True):
            (loss,) = _numbers({**each, "step": line["step"]}, ("loss",), path)
            validation.setdefault(name, []).append((line["step"], loss))
    if not updates:
        raise InputRefused(f"{path}: tells of no update yet")
    path = folder / THROUGHPUT
    rates = [_numbers(line, ("step", "tokens", "seconds"), path) for line in read_lines(path)]
    # Of no line at all there are three columns too.
    spoken, tokens, seconds = np.array(rates, float).reshape(-1, 3).T
    steps, loss, learning_rate = np.array(updates, float).T
    return Curves(steps, loss, learning_rate, validation, spoken, tokens / seconds)


def _numbers(line: Mapping[str, Any], names: Sequence[str], path: Path) -> tuple[float, ...]:
    """Some values of a line; NaN for those that are null, or not there."""
    found = [line.get(name) for name in names]
    for name, each in zip(names, found, strict=True):
        if not isinstance(each, int | float | None):
            raise InputRefused(f"{path}: step {line['step']}: {name} is {excerpt(each)}, no number; remove the line")
    return tuple(np.nan if each is None else each for each in found)


def running_mean(values: Numbers, window: int) -> Numbers:
    """The mean of so many values around each, fewer at the ends, [U]; NaN counts in none, and stays where it is."""
    there = np.isfinite(values)
    ends = np.arange(len(values)) + window - window // 2
    starts, ends = np.maximum(ends - window, 0), np.minimum(ends, len(values))
    sums, counts = (np.concatenate([[0.0], np.cumsum(each)]) for each in (np.where(there, values, 0.0), there))
    with np.errstate(invalid="ignore"):
        means = (sums[ends] - sums[starts]) / (counts[ends] - counts[starts])
    return np.where(there, means, np.nan)


def draw(curves: Curves, title: str) -> Figure:
    """The figure: loss above, learning rate and, where it is known, throughput below, over the same updates."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    rows = 3 if len(curves.spoken) else 2
    figure = Figure(figsize=(8.0, 2.2 + 1.8 * rows), dpi=150, layout="constrained")
    loss, rate, *others = figure.subplots(rows, sharex=True, height_ratios=[2.6, 1.0, 1.0][:rows])
    thousands = FuncFormatter(lambda value, place: f"{value:,.0f}")
    _loss(loss, curves)
    rate.plot(curves.steps, curves.learning_rate, color=GREY, **_dots(curves.steps))
    rate.set_ylabel("learning rate")
    rate.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3), useMathText=True)
    rate.set_ylim(bottom=0)
    for axes in others:
        _line(axes, curves.spoken, curves.tokens_per_second, GREEN)
        axes.set_ylabel("tokens/s")
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(thousands)
    for axes in (loss, rate, *others):
        axes.grid(alpha=0.25, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.margins(x=0.01)
    bottom = (rate, *others)[-1]
    bottom.set_xlabel("update")
    bottom.xaxis.set_major_locator(MaxNLocator(8, integer=True, steps=[1, 2, 5, 10]))
    bottom.xaxis.set_major_formatter(thousands)
    loss.set_title(title, loc="left", fontweight="bold", parse_math=False)
    figure.align_ylabels()
    return figure


def _loss(axes: Axes, curves: Curves) -> None:
    smooth = _line(axes, curves.steps, curves.loss, BLUE, label="training")
    seen = [smooth[np.isfinite(smooth)]]
    for number, (name, points) in enumerate(curves.validation.items()):
        steps, losses = np.array(points, float).T
        color = MEASURED[number % len(MEASURED)]
        axes.plot(steps, losses, color=color, label=name.replace("_", " "), marker="o", markersize=4, linewidth=1.2)
        seen.append(losses[np.isfinite(losses)])
    shown = np.concatenate(seen)
    if len(shown) and shown.min() > 0 and shown.max() > FAR * shown.min():
        _logarithmic(axes)
    axes.set_ylabel("loss")
    axes.legend(frameon=False, loc="upper right")


def _logarithmic(axes: Axes) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, place: f"{value:g}"))
    axes.yaxis.set_minor_locator(NullLocator())


def _line(axes: Axes, steps: Numbers, values: Numbers, color: str, label: str | None = None) -> Numbers:
    """Draw values as they are, or, of many, their running mean over them; gives what is drawn."""
    if len(values) <= MANY:
        axes.plot(steps, values, color=color, label=label, linewidth=1.5, **_dots(steps))
        return values
    smooth = running_mean(values, len(values) // SHARE)
    axes.plot(steps, values, color=color, alpha=0.25, linewidth=0.5)
    axes.plot(steps, smooth, color=color, label=label, linewidth=1.5)
    return smooth


def _dots(steps: Numbers) -> dict[str, Any]:
    return {"marker": ".", "markersize": 5} if len(steps) <= FEW else {}


@contextmanager
def _plain() -> Iterator[None]:
    """matplotlib as it comes, whatever a user has set, and silent about letters that its font lacks."""
    import matplotlib

    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        matplotlib.rcdefaults()
        yield
