"""What a run costs may change; what it comes to does not."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from shutil import which
from typing import Any

import pytest
import torch
from torch import nn

from mmconvert.errors import UsageError
from mmsimple.freeze import freeze
from mmsimple.llama import DecoderLayer
from mmsimple.model import MultimodalModel
from mmsimple.train.config import Performance
from mmsimple.train.metrics import read_metrics
from mmsimple.train.performance import tune
from mmsimple.train.reading import read_run_file
from mmsimple.train.run import run
from mmsimple.vit import EncoderLayer
from tests.mmsimple.small import MULTIMODAL, apart, drawn
from tests.mmsimple.train.batches import batch_of
from tests.mmsimple.train.runs import assert_equal, write_params

CPU = torch.device("cpu")
ENCODERS = "^image_model.image_model_list"


def trained(folder: Path, name: str, **changes: Any) -> Path:
    """The last checkpoint of a small run, which has dropout, in a folder of its own."""
    config = read_run_file(write_params(folder, **changes))
    found = run(config, folder / name, mode="train", say=lambda _: None).checkpoint
    assert found is not None
    return found


@pytest.mark.parametrize("frozen", [[ENCODERS], [ENCODERS, "^text_model"], []], ids=["phase 2", "phase 1", "all"])
def test_activation_checkpointing_changes_no_bit(frozen: list[str], tmp_path: Path) -> None:
    changes = {"init__loop": {"max_steps": 3}, "init__model__freeze": frozen}
    plain = trained(tmp_path, "plain", **changes)
    saving = {"activation_checkpointing": True}
    ours = trained(tmp_path, "saving", **changes, init__performance=saving)
    assert_equal(ours, plain)
    assert list(read_metrics(ours.parent)) == list(read_metrics(plain.parent))


@pytest.mark.parametrize(("frozen", "encoders"), [([ENCODERS], 1), ([], 2)], ids=["frozen", "trained"])
def test_layers_that_gradients_pass_through_are_computed_twice(frozen: list[str], encoders: int) -> None:
    model = MultimodalModel(MULTIMODAL)
    freeze(model, frozen)
    tune(model, Performance(activation_checkpointing=True), CPU)
    computed: Counter[nn.Module] = Counter()
    layers = [each for each in model.modules() if isinstance(each, DecoderLayer | EncoderLayer)]
    for layer in layers:
        layer.norm1.register_forward_hook(lambda module, *_: computed.update([module]))
    model.train()
    torch.autograd.backward(model.loss(batch_of(2)))
    assert {computed[each.norm1] for each in layers if isinstance(each, DecoderLayer)} == {2}
    # Those behind the layer that is wanted are not computed at all.
    assert {computed[each.norm1] for each in layers if isinstance(each, EncoderLayer)} == {0, encoders}


@pytest.mark.skipif(all(which(each) is None for each in ("c++", "g++", "clang++")), reason="needs a C++ compiler")
def test_compiled_layers_compute_the_same_and_drop_the_same() -> None:
    model = drawn(MultimodalModel(MULTIMODAL))
    freeze(model, [ENCODERS])
    data = batch_of(2)
    quiet = model.loss(data).item()
    model.train()
    torch.manual_seed(0)
    expected = model.loss(data)
    torch.autograd.backward(expected)
    gradients = {name: each.grad for name, each in model.named_parameters() if each.grad is not None}
    model.zero_grad(set_to_none=True)
    names = list(model.state_dict())
    tune(model, Performance(compile=True), CPU)
    assert list(model.state_dict()) == names
    before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    torch.manual_seed(0)
    found = model.loss(data)
    torch.autograd.backward(found)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > before
    assert expected.item() != pytest.approx(quiet, rel=1e-3), "nothing was dropped"
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    for name, each in model.named_parameters():
        if each.grad is not None:
            assert apart(each.grad, gradients[name]) < 1e-5, name


def test_without_a_compiler_a_run_says_so_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no C++ compiler was found\nand more")

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(
        UsageError, match=r"performance\.compile: torch\.compile does not work here: no C\+\+ compiler was found$"
    ):
        tune(MultimodalModel(MULTIMODAL), Performance(compile=True), CPU)
