"""What tests of the forward passes share: random inputs, conversions, and how far two models are apart.

Importing transformers takes seconds: tests ask for models through these fixtures.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from mmconvert import Hints, Options, api
from mmconvert.casts import Overflow
from mmconvert.dtypes import DType
from mmconvert.forward import Inputs, Model, Sizes
from mmconvert.inputs import draw_inputs, together
from mmconvert.rounding import rounded
from mmsimple import parity

if TYPE_CHECKING:
    from tests.conftest import Make, Tensors

Run = Callable[..., Model]
ToCS = Callable[..., Path]
Apart = Callable[[Model, Model], dict[str, float]]
Tame = Callable[[dict[str, torch.Tensor]], None]

SAFETENSORS = Options(container="safetensors")


@pytest.fixture(scope="session")
def inputs() -> Callable[[Sizes], Inputs]:
    """`inputs(model.sizes)`: everything that a model of these sizes can be given, as `verify --forward` draws it."""
    return lambda sizes: draw_inputs(sizes, seed=0)[0]


@pytest.fixture(scope="session")
def run() -> Run:
    """`run(path)`: the model of a checkpoint, in transformers or in mmsimple, by the checkpoint's format.

    `rounding` gives element types for the tensors that have some text in their names.
    """

    def run(path: Path, rounding: Mapping[str, DType] | None = None, **hints: Any) -> Model:
        checkpoint = api.recognise(path, hints=Hints(**hints))
        made = {key: dtype for key in checkpoint.tensors for part, dtype in (rounding or {}).items() if part in key}
        checkpoint = replace(checkpoint, tensors=rounded(checkpoint.tensors, made, Overflow())[0])
        found = [provider(checkpoint) for provider in (parity.cerebras, parity.transformers)]
        (model,) = [each for each in found if each is not None]
        return model

    return run


@pytest.fixture
def to_cs(tmp_path: Path) -> ToCS:
    """`to_cs(path)`: the checkpoint as a CS one."""
    numbers = count()

    def convert(path: Path, options: Options = SAFETENSORS, **hints: Any) -> Path:
        out = tmp_path / f"cs{next(numbers)}"
        api.convert(path, out, "cs-2.10", options=options, hints=Hints(**hints), fsync=False)
        return out

    return convert


@pytest.fixture(scope="session")
def apart(inputs: Callable[[Sizes], Inputs]) -> Apart:
    """`apart(a, b)`: by name of an output, the largest difference, in units of the largest value that is at least 1."""

    def compare(a: Model, b: Model) -> dict[str, float]:
        given = inputs(together(a.sizes, b.sizes))
        left, right = a.outputs(given), b.outputs(given)
        both = [name for name in left if name in right]
        return {name: float(abs(left[name] - right[name]).max() / max(1, abs(left[name]).max())) for name in both}

    return compare


@pytest.fixture(scope="session")
def tame() -> Tame:
    """Makes drawn weights as small as trained ones: large ones make a model that magnifies every rounding error."""

    def scale(tensors: dict[str, torch.Tensor]) -> None:
        for tensor in tensors.values():
            tensor.mul_(0.1 if tensor.dim() > 1 else 1)

    return scale


@pytest.fixture(scope="session")
def golden_input() -> Callable[[str], Path]:
    """`golden_input("mmsimple")`: a recorded Hugging Face checkpoint."""
    return lambda name: Path(__file__).parents[2] / "golden" / "inputs" / name


@pytest.fixture(scope="session")
def set_config() -> Callable[..., None]:
    """`set_config(folder, field=value)`: change fields of a folder's `config.json`."""

    def change(folder: Path, **fields: Any) -> None:
        file = folder / "config.json"
        file.write_text(json.dumps({**json.loads(file.read_text("utf-8")), **fields}), "utf-8")

    return change


@pytest.fixture(scope="session")
def small_llava(make_llava: Make, tame: Tame) -> Make:
    """`small_llava(folder, **text_config)`: a LLaVA of two folders whose text part has tame weights."""

    def make(folder: Path, edit: Callable[[Tensors], object] = lambda tensors: None, **config: Any) -> Path:
        def both(tensors: Tensors) -> None:
            tame(tensors)
            edit(tensors)

        return make_llava(folder, edit=both, **config)

    return make
