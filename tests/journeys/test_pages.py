"""The pages in docs/journeys/, followed to the letter: their blocks are run in order, each page in an empty folder."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import OFFLINE

ROOT = Path(__file__).parent.parent.parent
FOLDER = ROOT / "docs/journeys"
PAGES = [page for page in sorted(FOLDER.glob("*.md")) if page.name != "README.md"]
BLOCK = re.compile(r"^```(?P<language>\w+)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)
# What blocks are for; those that need other programs are `text`.
RUN, SHOWN, LEFT = ("sh", "python"), "console", "text"
# What a command says of its exit code, where that is not 0.
ENDS = re.compile(r"  # ends with (\d+)$")
# What pages lead to, by paths from two levels below the repository's root.
BORROWED = ("docs", "mmsimple", "tests")
OURS = ("mmconvert", "mmsimple")

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)


@dataclass(frozen=True)
class Block:
    language: str
    text: str

    @property
    def commands(self) -> list[str]:
        """Those of a list of commands, continued lines joined; a block of Python is one."""
        if self.language != "sh":
            return [shlex.join([sys.executable, "-c", self.text])]
        return self.text.replace("\\\n", "").splitlines()


def blocks(page: Path) -> list[Block]:
    return [Block(found["language"], found["text"]) for found in BLOCK.finditer(page.read_text("utf-8"))]


def environment() -> dict[str, str]:
    """That of a user with this installation, without a network; as in other tests, one thread."""
    return {
        **OFFLINE,
        "PATH": os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]]),
        "COLUMNS": "200",
        "OMP_NUM_THREADS": "1",
        "PYTHONWARNINGS": "ignore",
    }


def run(command: str, folder: Path) -> str:
    """What a command says, its exit code being the one that the page gives."""
    said = ENDS.search(command)
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        timeout=120,
    )
    assert done.returncode == (int(said[1]) if said else 0), f"{command}\n{done.stdout}"
    return done.stdout


def words(text: str) -> str:
    """A text without the places at which its lines end."""
    return " ".join(text.split())


def absent(shown: str, said: str) -> Iterator[str]:
    """The lines that a page shows and the commands did not say."""
    for line in map(words, shown.splitlines()):
        if re.search(".*".join(map(re.escape, line.split("…"))), words(said)) is None:
            yield line


@every_page
def test_a_page_is_followed_to_its_end(page: Path, tmp_path: Path) -> None:
    for name in BORROWED:
        (tmp_path / name).symlink_to(ROOT / name)
    folder = tmp_path / "demo" / page.stem
    folder.mkdir(parents=True)
    said = ""
    for block in blocks(page):
        if block.language in RUN:
            said = "\n".join([run(command, folder) for command in block.commands])
        elif block.language == SHOWN:
            assert list(absent(block.text, said)) == [], said


@every_page
def test_every_block_is_run_or_shown_or_marked_as_neither(page: Path) -> None:
    found = blocks(page)
    assert len(found) == page.read_text("utf-8").count("```") / 2
    assert {block.language for block in found} <= {*RUN, SHOWN, LEFT}
    assert found[0].language in RUN


@every_page
def test_only_programs_of_others_are_not_run(page: Path) -> None:
    lines = [line for block in blocks(page) if block.language == LEFT for line in block.text.splitlines()]
    assert [line for line in lines if line.startswith(OURS)] == []


def test_the_index_leads_to_every_page() -> None:
    index = (FOLDER / "README.md").read_text("utf-8")
    assert [page.name for page in PAGES if f"]({page.name})" not in index] == []


def test_what_was_not_said_is_missed() -> None:
    said = "a  folder:\n3 tensors, 2.0 MB in 1.5 s\n"
    assert list(absent("a folder: 3 tensors, …\n… in 1.5 s", said)) == []
    assert list(absent("a folder: 4 tensors\n3 tensors", said)) == ["a folder: 4 tensors"]
