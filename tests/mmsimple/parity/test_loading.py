"""What transformers takes lightly is refused by name, what it refuses is passed on in a line, and it keeps quiet."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from mmconvert.errors import InputRefused

if TYPE_CHECKING:
    from tests.conftest import Make, Tensors
    from tests.mmsimple.parity.conftest import Apart, Run


def test_a_weight_that_is_missing_is_named(make_llama: Make, run: Run, tmp_path: Path) -> None:
    src = make_llama(tmp_path / "src", edit=lambda tensors: tensors.pop("model.layers.1.mlp.up_proj.weight"))
    with pytest.raises(InputRefused, match=r"src: model\.layers\.1\.mlp\.up_proj\.weight is missing$"):
        run(src)


def test_several_that_are_missing_are_counted(make_clip: Make, run: Run, tmp_path: Path) -> None:
    def edit(tensors: Tensors) -> None:
        del tensors["vision_model.post_layernorm.weight"], tensors["vision_model.post_layernorm.bias"]

    with pytest.raises(InputRefused, match=r"post_layernorm\.bias is missing \(and 1 more\)$"):
        run(make_clip(tmp_path / "src", edit=edit))


def test_a_weight_of_nothing_is_named(make_llama: Make, run: Run, tmp_path: Path) -> None:
    src = make_llama(tmp_path / "src", edit=lambda tensors: tensors.update(stray=torch.zeros(1)))
    with pytest.raises(InputRefused, match=r"src: stray is no tensor of LlamaForCausalLM$"):
        run(src)


def test_a_weight_of_another_shape_is_named(
    make_llama: Make, run: Run, tmp_path: Path, set_config: Callable[..., None]
) -> None:
    src = make_llama(tmp_path / "src")
    set_config(src, vocab_size=99)
    with pytest.raises(InputRefused, match=r"has another shape than its config says \(and 1 more\)$"):
        run(src)


def test_a_config_that_transformers_refuses_is_refused_in_its_words(make_llama: Make, run: Run, tmp_path: Path) -> None:
    src = make_llama(tmp_path / "src", num_attention_heads=5)
    with pytest.raises(InputRefused, match=r"src: transformers does not load it: .*heads") as caught:
        run(src)
    assert "\n" not in str(caught.value)


def test_a_file_of_a_folder_is_run_if_transformers_would_find_it(
    make_llama: Make, tame: Callable[[Tensors], None], run: Run, apart: Apart, tmp_path: Path
) -> None:
    src = make_llama(tmp_path / "src", edit=tame)
    assert apart(run(src / "model.safetensors"), run(src)) == {"text logits": 0}
    odd = (src / "model.safetensors").rename(src / "odd.safetensors")
    with pytest.raises(InputRefused, match=r"odd\.safetensors: transformers loads whole folders"):
        run(odd)


def test_the_file_that_is_named_is_the_one_that_is_run(
    make_llama: Make, tame: Callable[[Tensors], None], run: Run, apart: Apart, tmp_path: Path
) -> None:
    src = make_llama(tmp_path / "src", edit=tame)
    other = make_llama(tmp_path / "other", edit=tame, seed=5, container="bin")
    (other / "pytorch_model.bin").rename(src / "pytorch_model.bin")
    assert apart(run(src), run(src / "pytorch_model.bin"))["text logits"] > 1e-2


def test_a_shard_by_itself_is_refused(make_llama: Make, run: Run, tmp_path: Path) -> None:
    src = make_llama(tmp_path / "src", shards=2)
    with pytest.raises(InputRefused, match="transformers loads whole folders"):
        run(src / "model-00001-of-00002.safetensors")


def test_nothing_is_said(
    make_llama: Make,
    run: Run,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    recwarn: pytest.WarningsRecorder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def edit(tensors: Tensors) -> None:
        tensors["model.mm_projector.weight"] = torch.zeros(1)

    logged: list[logging.LogRecord] = []
    handler = logging.Handler()
    monkeypatch.setattr(handler, "emit", logged.append)
    logging.getLogger("transformers").addHandler(handler)
    try:
        run(make_llama(tmp_path / "src", edit=edit, pretraining_tp=2, unknown_field=1))
    finally:
        logging.getLogger("transformers").removeHandler(handler)
    assert not logged
    assert tuple(capfd.readouterr()) == ("", "")
    assert not recwarn.list


def test_the_callers_own_settings_are_left_as_they_were(make_llama: Make, run: Run, tmp_path: Path) -> None:
    from transformers.utils import logging as settings

    before = settings.get_verbosity()
    settings.set_verbosity(logging.ERROR)
    try:
        run(make_llama(tmp_path / "src"))
        assert (settings.get_verbosity(), settings.is_progress_bar_enabled()) == (logging.ERROR, True)
    finally:
        settings.set_verbosity(before)
