"""Which checkpoints each provider runs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from mmconvert import api
from mmconvert.registry import Node
from mmsimple import parity


def test_each_runs_its_own_formats(golden_input: Callable[[str], Path]) -> None:
    found = api.recognise(golden_input("llama_tied"))
    assert parity.cerebras(found) is None
    assert parity.transformers(found) is not None


def test_neither_runs_a_model_that_mmsimple_has_not(golden_input: Callable[[str], Path]) -> None:
    found = api.recognise(golden_input("llama_tied"))
    for form in ("cs", "hf"):
        stranger = replace(found, node=Node("stranger", form))
        assert parity.cerebras(stranger) is None
        assert parity.transformers(stranger) is None


def test_torch_is_not_imported_before_there_is_something_to_run() -> None:
    program = "import sys, mmsimple.parity; assert not {'torch', 'transformers'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", program], check=True)
