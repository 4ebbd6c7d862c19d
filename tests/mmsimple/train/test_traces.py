"""Twenty updates of each kind of run: as they were recorded, and as transformers and plain arithmetic have them."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmsimple.data.loader import Loader
from tests.mmsimple.train import plain_training
from tests.mmsimple.train.traces import KINDS, RECORDED, UPDATES, Values, config_of, make_start, recorded, trace

FLOAT32 = [name for name, kind in KINDS.items() if "init.precision" not in kind.changes]
# Half precision, and the run in float32 that it is the same as.
HALVES = {"phase2_bfloat16": "phase2", "phase2_float16": "phase2_accumulated"}


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_start(tmp_path_factory.mktemp("traces"))


def apart(ours: Values, theirs: Values) -> float:
    """The largest difference, as a share of what it is of."""
    assert ours.keys() == theirs.keys()
    pairs = [pair for name in theirs for pair in zip(ours[name], theirs[name], strict=True)]
    return max(abs(one - other) / other for one, other in pairs)


def test_every_recording_is_of_a_run() -> None:
    assert {path.stem for path in RECORDED.glob("*.json")} == set(KINDS)
    assert {len(values) for name in KINDS for values in recorded(name).values()} == {UPDATES}


@pytest.mark.parametrize("name", KINDS)
def test_a_run_is_what_it_was(name: str, start: Path, tmp_path: Path) -> None:
    assert apart(trace(KINDS[name], start, tmp_path), recorded(name)) < KINDS[name].tolerance


@pytest.mark.parametrize("name", FLOAT32)
def test_it_is_what_others_compute(name: str, start: Path) -> None:
    data = config_of(KINDS[name], start).train_data
    assert data is not None
    assert apart(plain_training.trace(KINDS[name], Loader(data)), recorded(name)) < KINDS[name].tolerance


@pytest.mark.parametrize("name", HALVES)
def test_half_precision_learns_as_float32_does(name: str) -> None:
    assert apart(recorded(name), recorded(HALVES[name])) < KINDS[name].tolerance
