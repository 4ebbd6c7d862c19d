"""`mmconvert list`: every converter, for people and for scripts."""

from __future__ import annotations

import json
from collections.abc import Callable
from subprocess import CompletedProcess

Run = Callable[..., CompletedProcess[str]]


def test_scripts_get_a_list_of_plain_entries(shell: Run) -> None:
    done = shell("list", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    entries = json.loads(done.stdout)
    assert all(set(each) == {"model", "a", "b", "a_releases", "b_releases", "note"} for each in entries)
    llama = next(each for each in entries if each["model"] == "llama")
    assert (llama["a"], llama["b"], llama["a_releases"]) == ("hf", "cs", [])
    assert llama["b_releases"] == [f"2.{minor}" for minor in range(1, 11)]


def test_people_get_a_table_of_all_models(mmconvert: Run) -> None:
    done = mmconvert("list")
    assert done.returncode == 0
    for model in ("clip-vit", "llama", "mistral", "mmsimple-llava"):
        assert model in done.stdout
    assert "2.1 to 2.10" in done.stdout


def test_one_model_can_be_asked_for(mmconvert: Run) -> None:
    entries = json.loads(mmconvert("list", "--model", "mmsimple-llava", "--json").stdout)
    assert [(each["model"], each["a"]) for each in entries] == [("mmsimple-llava", "hf"), ("mmsimple-llava", "llava")]


def test_an_unknown_model_is_refused_with_those_that_are_known(mmconvert: Run) -> None:
    done = mmconvert("list", "--model", "gpt2")
    assert done.returncode == 4
    assert "'gpt2'" in done.stderr
    assert "clip-vit, llama, mistral, mmsimple-llava" in done.stderr
