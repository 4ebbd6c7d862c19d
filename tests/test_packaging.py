"""What an installation consists of: the packages of the tree, and commands that start without torch."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
# Folders at the top of the repository that are installed inside mmconvert.
MOVED = {folder: name for name, folder in SETTINGS["tool"]["setuptools"]["package-dir"].items()}


def test_every_package_of_the_tree_is_listed() -> None:
    found = []
    for top in ("mmconvert", "mmsimple", *MOVED):
        for init in (ROOT / top).rglob("__init__.py"):
            name = ".".join(init.parent.relative_to(ROOT).parts)
            found.append(name.replace(top, MOVED.get(top, top), 1))
    assert sorted(SETTINGS["tool"]["setuptools"]["packages"]) == sorted(found)


def test_no_folder_of_modules_lacks_its_init() -> None:
    for top in ("mmconvert", "mmsimple", *MOVED):
        for module in (ROOT / top).rglob("*.py"):
            assert (module.parent / "__init__.py").is_file(), module


def test_mmsimple_draws_a_run_without_torch(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 1.5, "learning_rate": 0.1}\n', "utf-8")
    program = "import sys; sys.modules['torch'] = None; from mmsimple.cli import main; main()"
    run = subprocess.run([sys.executable, "-c", program, "plot", tmp_path], capture_output=True, text=True, cwd=ROOT)
    assert (run.returncode, run.stdout) == (0, f"{tmp_path}/plot.png: 1 update\n"), run.stderr
