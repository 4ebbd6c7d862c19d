"""The command `relocate`: what scripts and people are told, and how it exits."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.conftest import Make, Run

TEXT = "text_model_llava"


@pytest.fixture
def moved(mmconvert: Run, llava: Path, tmp_path: Path) -> Path:
    """An export that was moved to another place."""
    mmconvert("convert", "--to", "llava", "--src", llava, "--out", tmp_path / "before", "--no-fsync")
    return (tmp_path / "before").rename(tmp_path / "after")


def test_people_are_told_the_path_before_and_after(mmconvert: Run, moved: Path) -> None:
    done = mmconvert("relocate", moved)
    assert (done.returncode, done.stderr) == (0, "")
    before = moved.with_name("before")
    said = f"mm_vision_tower: {before}/image_model -> {moved}/image_model"
    assert done.stdout == f"{moved}/{TEXT}/config.json: {said}\n"
    assert mmconvert("verify", moved).returncode == 0


def test_and_that_there_is_nothing_to_do(mmconvert: Run, moved: Path) -> None:
    mmconvert("relocate", moved)
    done = mmconvert("relocate", moved)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{moved}/{TEXT}/config.json: mm_vision_tower: already points there: {moved}/image_model\n"


def test_scripts_get_one_document(mmconvert: Run, moved: Path) -> None:
    document = {
        "schema": 1,
        "path": str(moved),
        "config": f"{moved}/{TEXT}/config.json",
        "field": "mm_vision_tower",
        "before": f"{moved.with_name('before')}/image_model",
        "after": f"{moved}/image_model",
        "changed": True,
        "tower": f"{moved}/image_model",
        "written": [f"{moved}/{TEXT}/config.json", f"{moved}/mmconvert.json"],
    }
    assert json.loads(mmconvert("relocate", moved, "--json").stdout) == document
    again = {**document, "before": document["after"], "changed": False, "written": []}
    assert json.loads(mmconvert("relocate", moved, "--json").stdout) == again


def test_quiet_says_nothing(mmconvert: Run, moved: Path) -> None:
    done = mmconvert("relocate", moved, "-q")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_field_that_was_absent_is_said_to_be(mmconvert: Run, make_llava: Make, tmp_path: Path) -> None:
    folder = make_llava(tmp_path / "llava", mm_vision_tower=None)
    assert f": mm_vision_tower: absent -> {folder}/image_model\n" in mmconvert("relocate", folder).stdout


def test_what_a_config_said_reaches_no_terminal_as_it_stands(mmconvert: Run, make_llava: Make, tmp_path: Path) -> None:
    folder = make_llava(tmp_path / "llava", mm_vision_tower="\x1b[2Jgone")
    assert ': mm_vision_tower: "\\u001b[2Jgone" -> ' in mmconvert("relocate", folder).stdout


def test_a_name_is_taken_with_a_note(mmconvert: Run, moved: Path) -> None:
    done = mmconvert("relocate", moved, "--tower-path", "openai/clip")
    assert done.returncode == 0
    assert done.stderr == "note: openai/clip is no folder here; it was taken as a name\n"
    assert json.loads((moved / TEXT / "config.json").read_text())["mm_vision_tower"] == "openai/clip"


def test_an_interrupted_run_is_said_to_be_finished(mmconvert: Run, moved: Path) -> None:
    saved = (moved / "mmconvert.json").read_bytes()
    mmconvert("relocate", moved)
    (moved / "mmconvert.json").rename(moved / "mmconvert.json.amended")
    (moved / "mmconvert.json").write_bytes(saved)
    assert "already points there" in (done := mmconvert("relocate", moved)).stdout
    assert f"{moved}/mmconvert.json: brought up to date" in done.stdout
    assert mmconvert("verify", moved).returncode == 0


def test_refusals_have_their_codes_and_at_most_two_lines(
    mmconvert: Run, moved: Path, llama: Path, tmp_path: Path
) -> None:
    damaged = shutil.copytree(moved, tmp_path / "damaged")
    with (damaged / TEXT / "config.json").open("a") as file:
        file.write("\n")
    for code, arguments in {
        2: (llama,),
        3: (moved, "--tower-path", llama),
        6: (damaged,),
    }.items():
        done = mmconvert("relocate", *arguments)
        assert (done.returncode, done.stdout) == (code, "")
        assert done.stderr.startswith("error: ")
        assert len(done.stderr.splitlines()) <= 2


def test_what_was_relocated_is_still_the_source_converted(mmconvert: Run, llava: Path, moved: Path) -> None:
    mmconvert("relocate", moved)
    assert mmconvert("verify", llava, moved).returncode == 0


def test_the_installed_command_has_it(shell: Run, moved: Path) -> None:
    assert shell("relocate", moved).returncode == 0
