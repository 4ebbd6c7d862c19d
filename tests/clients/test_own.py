"""The transformers of this environment, release 5, reads what mmconvert exports: in every run of the tests."""

from __future__ import annotations

from pathlib import Path

from tests.clients import llava_hf
from tests.clients.environments import own


def test_it_finds_every_key_of_llava_hf_and_computes_and_generates_what_llava_does(tmp_path: Path) -> None:
    found = list(llava_hf.check(own(), tmp_path))
    assert len(found) > 5 * len(llava_hf.SOURCES)
    assert [f"{check}: {problem}" for check, problem in found if problem] == []
