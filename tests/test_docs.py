"""The page on adding a family, followed to the letter: its files are written, its commands run, in an empty folder.

What it builds is the package in tests/plugin/, which is installed nowhere but below a temporary folder.
"""

from __future__ import annotations

import os
import re
import subprocess
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from mmconvert import api, registry

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/adding-a-family.md").read_text("utf-8")
# A block of code is of the file that the words before it name, or a list of commands.
BLOCK = re.compile(r"(?:In `(?P<file>[\w.]+)`:\n\n)?```(?P<language>\w+)\n(?P<code>.*?)```\n", re.DOTALL)
# What keeps `pip install .` off the network and out of this environment.
OFFLINE = 'pip() { command pip "$@" --quiet --no-deps --no-build-isolation --no-index --target site; }'


def files() -> dict[str, str]:
    """The files of the page; where a file comes in several blocks, two empty lines stand between them."""
    parts: dict[str, list[str]] = {}
    for block in BLOCK.finditer(PAGE):
        if block["language"] != "sh":
            parts.setdefault(block["file"], []).append(block["code"])
    return {name: "\n\n".join(codes) for name, codes in parts.items()}


def commands() -> list[str]:
    return [line for block in BLOCK.finditer(PAGE) if block["language"] == "sh" for line in block["code"].splitlines()]


@dataclass(frozen=True)
class Followed:
    """The folder in which the page was followed, and what each of its commands did."""

    folder: Path
    runs: Mapping[str, CompletedProcess[str]]

    def output(self, command: str) -> str:
        return self.runs[command].stdout


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> Followed:
    folder = tmp_path_factory.mktemp("family")
    for name, text in files().items():
        (folder / name).write_text(text, "utf-8")
    paths = [str(folder / "site"), *filter(None, [os.environ.get("PYTHONPATH")])]
    env = {
        **os.environ,
        "PATH": os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]]),
        "PYTHONPATH": os.pathsep.join(paths),
        # The package's own tests are run as by anyone, whatever this run was told.
        "PYTEST_ADDOPTS": "",
    }
    runs = {}
    for command in commands():
        runs[command] = subprocess.run(
            ["bash", "-c", f"{OFFLINE}\n{command}"], cwd=folder, env=env, capture_output=True, text=True, timeout=120
        )
    return Followed(folder, runs)


def test_the_page_s_files_are_those_of_the_package() -> None:
    folder = ROOT / "tests/plugin"
    kept = {each.name: each.read_text("utf-8") for each in folder.iterdir() if each.is_file()}
    del kept["conftest.py"]
    assert files() == kept


def test_every_block_is_a_file_s_or_a_list_of_commands() -> None:
    blocks = list(BLOCK.finditer(PAGE))
    assert len(blocks) == PAGE.count("```") / 2
    assert [block["code"] for block in blocks if (block["file"] is None) != (block["language"] == "sh")] == []


@pytest.mark.parametrize("command", commands())
def test_every_command_succeeds(command: str, followed: Followed) -> None:
    run = followed.runs[command]
    assert run.returncode == 0, run.stdout + run.stderr


def test_the_family_is_listed_beside_the_others(followed: Followed) -> None:
    listed = followed.output("mmconvert list").splitlines()
    assert len([line for line in listed if line.split()[:1] == ["gptj"]]) == 2
    assert any(line.split()[:1] == ["llama"] for line in listed)


def test_a_plan_names_its_tensors(followed: Followed) -> None:
    plan = followed.output("mmconvert plan hf-to-cs --src small")
    assert "transformer.h.1.mlp.fc_in.bias" in plan
    assert "transformer_decoder.layers.1.ffn.ffn.0.linear_layer.bias" in plan


def test_what_came_back_is_proved_equal(followed: Followed) -> None:
    assert "25 tensors" in followed.output("mmconvert verify small back")
    # The family is unknown here, so these are tensors and nothing else.
    found = api.diff(followed.folder / "small", followed.folder / "back")
    assert found.tensors == 25
    assert (found.only_a, found.only_b, found.shapes, found.dtypes, found.values) == ((), (), {}, {}, {})


def test_its_own_tests_are_run(followed: Followed) -> None:
    assert "2 passed" in followed.output("python -m pytest -q")


def test_nothing_is_installed_here(followed: Followed) -> None:
    assert (followed.folder / "site/mmconvert_gptj.py").is_file()
    assert not Path(sysconfig.get_path("purelib"), "mmconvert_gptj.py").exists()
    assert "gptj" not in {each.model for each in registry.converters()}
