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
    there, between = (each for each in entries if each["model"] == "llama")
    releases = ["1.9", *(f"2.{minor}" for minor in range(11))]
    assert (there["a"], there["b"], there["a_releases"], there["b_releases"]) == ("hf", "cs", [], releases)
    assert (between["a"], between["b"]) == ("cs", "cs")
    assert between["a_releases"] == between["b_releases"] == releases


def test_people_get_a_table_of_all_models(mmconvert: Run) -> None:
    done = mmconvert("list")
    assert done.returncode == 0
    for model in ("clip-vit", "llama", "llama-headless", "llava", "mistral", "mmsimple-llava"):
        assert model in done.stdout
    assert "2.1 to 2.10" in done.stdout


def test_one_model_can_be_asked_for(mmconvert: Run) -> None:
    entries = json.loads(mmconvert("list", "--model", "mmsimple-llava", "--json").stdout)
    assert {each["model"] for each in entries} == {"mmsimple-llava"}
    assert [each["a"] for each in entries] == ["hf", "llava", "llava-hf", "cs"]


def test_an_unknown_model_is_refused_with_those_that_are_known(mmconvert: Run) -> None:
    done = mmconvert("list", "--model", "gpt2")
    assert done.returncode == 4
    assert "'gpt2'" in done.stderr
    assert "clip-encoder, clip-vit, llama, llama-headless, llava, mistral, mmsimple-llava" in done.stderr
