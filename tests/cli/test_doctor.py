"""The command `doctor`: what scripts and people are told, and how it exits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.conftest import Make, Run

MEND = "set mm_use_im_patch_token to false in config.json"


@pytest.fixture
def ill(make_llava: Make, tmp_path: Path) -> Path:
    return make_llava(tmp_path / "llava", mm_use_im_patch_token=True)


def test_scripts_get_every_symptom_with_its_cure(mmconvert: Run, ill: Path) -> None:
    done = mmconvert("doctor", ill, "--json")
    assert done.returncode == 6
    document = json.loads(done.stdout)
    assert {name: document[name] for name in ("schema", "path", "reader", "ok")} == {
        "schema": 1,
        "path": str(ill),
        "reader": "llava",
        "ok": False,
    }
    assert {
        "trap": "im-patch-token",
        "severity": "error",
        "what": "text_model_llava/config.json: mm_use_im_patch_token is true; LLaVA takes that for true and adds the "
        "token <im_patch>, with random rows",
        "mend": MEND,
    } in document["symptoms"]


def test_people_get_the_same_in_words_that_fit_their_terminal(
    mmconvert: Run, ill: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "72")
    done = mmconvert("doctor", ill)
    assert "error: im-patch-token" in done.stdout
    assert f"  mend: {MEND}" in done.stdout
    for line in done.stdout.splitlines():
        # A path, or a command that must survive being copied, is never broken.
        assert len(line) <= 72 or str(ill) in line or "`mmconvert" in line


def test_an_error_ends_with_one_line_and_code_6(mmconvert: Run, ill: Path) -> None:
    done = mmconvert("doctor", ill)
    assert done.returncode == 6
    assert done.stderr.splitlines() == [
        f"error: {ill}: would not load, or not rightly, in the LLaVA source repository (LLaVA 1.2, transformers 4.37)"
    ]


def test_warnings_alone_end_with_code_0(mmconvert: Run, llama: Path) -> None:
    done = mmconvert("doctor", llama, "--json")
    document = json.loads(done.stdout)
    assert (done.returncode, document["ok"], document["reader"]) == (0, True, "transformers")
    assert {each["severity"] for each in document["symptoms"]} == {"warning"}


def test_a_sound_checkpoint_is_called_so(mmconvert: Run, clip: Path, tmp_path: Path) -> None:
    mmconvert("hf-to-cs", "--src", clip, "--out", tmp_path / "cs", "--no-fsync")
    done = mmconvert("doctor", tmp_path / "cs")
    assert (done.returncode, done.stderr) == (0, "")
    assert "nothing is wrong with it, as far as headers tell" in " ".join(done.stdout.split())


def test_the_reader_may_be_named(mmconvert: Run, llama: Path) -> None:
    assert json.loads(mmconvert("doctor", llama, "--for", "cs", "--json").stdout)["reader"] == "cs"
    done = mmconvert("doctor", llama, "--for", "vllm")
    assert done.returncode == 2
    assert "no reader is called 'vllm'; known: cs, llava, transformers" in done.stderr


def test_nothing_there_is_a_usage_error(mmconvert: Run, tmp_path: Path) -> None:
    done = mmconvert("doctor", tmp_path / "absent")
    assert (done.returncode, done.stderr) == (2, f"error: {tmp_path / 'absent'}: no such file or folder\n")


def test_a_folder_of_nothing_is_refused(mmconvert: Run, tmp_path: Path) -> None:
    done = mmconvert("doctor", tmp_path)
    assert done.returncode == 3
    assert "no checkpoint is recognised here; say with --for" in done.stderr


def test_the_installed_command_has_it(shell: Run, llama: Path) -> None:
    assert shell("doctor", llama).returncode == 0
