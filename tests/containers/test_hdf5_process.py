"""Processes that open foreign HDF5 files are limited by the size of the file, and never above what the user may."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mmconvert.containers.hdf5_process import cpu_limit, environment


@pytest.mark.parametrize(("size", "seconds"), [(0, 3), (10_000, 3), (5 << 20, 3), (100 << 20, 7), (1 << 40, 120)])
def test_time_is_limited_by_the_size(size: int, seconds: int) -> None:
    assert cpu_limit(size) == seconds


@pytest.mark.parametrize(("hard", "soft"), [("50", 7), ("5", 5)])
def test_the_hard_limit_stays_and_the_soft_one_is_not_above_it(hard: str, soft: int) -> None:
    script = (
        f"import json, resource; resource.setrlimit(resource.RLIMIT_CPU, ({hard}, {hard}))\n"
        "from mmconvert.containers.hdf5_process import limit_cpu; limit_cpu(7)\n"
        "print(json.dumps(resource.getrlimit(resource.RLIMIT_CPU)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [soft, int(hard)]


def test_a_process_finds_this_package_and_nothing_where_the_user_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend("relative")
    paths = environment()["PYTHONPATH"].split(os.pathsep)
    assert all(map(os.path.isabs, paths))
    (tmp_path / "payload.py").write_text("open('marker', 'w')")
    command = [sys.executable, "-P", "-c", "import payload"]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert "No module named 'payload'" in done.stderr
    assert not (tmp_path / "marker").exists()
