"""llava-hf in transformers' own class, against what LLaVA's loader gave, and against both sides that it comes from."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from mmconvert import Options, api
from mmconvert.dtypes import BY_FLAG
from mmconvert.errors import InputRefused
from tests.mmsimple.parity.test_llava import GOLDEN, RECORDED, recorded_inputs

if TYPE_CHECKING:
    from tests.conftest import Make
    from tests.mmsimple.parity.conftest import Apart, Run, ToCS

Joined = Callable[..., Path]
# In units of the largest value: what adding up in another order makes.
CLOSE = 2e-5


@pytest.fixture
def joined(tmp_path: Path) -> Joined:
    """`joined(path)`: the checkpoint as llava-hf."""

    def convert(path: Path, **options: Any) -> Path:
        out = tmp_path / f"joined{len(list(tmp_path.iterdir()))}"
        api.convert(path, out, "llava-hf", options=Options(**options), fsync=False)
        return out

    return convert


def set_config(folder: Path, **fields: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text("utf-8")), **fields}), "utf-8")


def change(folder: Path, edit: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize("name", ["tiny_src", "tiny_src_gqa", "tiny_src_tower_tuned"])
def test_what_llavas_own_loader_gave_is_given(name: str, run: Run, joined: Joined) -> None:
    given = run(joined(GOLDEN / name)).outputs(recorded_inputs())
    expected = load_file(GOLDEN / "forward" / f"{name}.expected.safetensors")
    for ours, theirs in RECORDED.items():
        wanted = expected[theirs].numpy()
        np.testing.assert_allclose(given[ours], wanted, rtol=0, atol=CLOSE * abs(wanted).max(), err_msg=ours)


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"mm_vision_select_feature": "cls_patch", "mm_vision_select_layer": -1},
        {"mm_vision_select_layer": 1, "num_key_value_heads": 4},
        {"model_type": "llava_mistral", "sliding_window": 8},
        {"tie_word_embeddings": True},
        {"hidden_size": 48, "num_attention_heads": 12, "num_key_value_heads": 4},
    ],
)
def test_all_three_compute_the_same(
    config: dict[str, Any], small_llava: Make, run: Run, joined: Joined, to_cs: ToCS, apart: Apart, tmp_path: Path
) -> None:
    source = small_llava(tmp_path / "source", **config)
    there = joined(source)
    found = apart(run(source), run(there))
    assert found.keys() == {"text logits", "image features", "projected image features", "logits"}
    assert max(found.values()) < CLOSE
    assert max(apart(run(there), run(to_cs(there))).values()) < CLOSE


@pytest.mark.parametrize(
    ("fields", "seen"),
    [
        ({"vision_feature_layer": -1}, "logits"),
        ({"vision_feature_layer": -1}, "projected image features"),
        ({"projector_hidden_act": "relu"}, "projected image features"),
    ],
)
def test_another_config_shows(
    fields: dict[str, Any], seen: str, small_llava: Make, run: Run, joined: Joined, apart: Apart, tmp_path: Path
) -> None:
    source = small_llava(tmp_path / "source")
    there = joined(source)
    set_config(there, **fields)
    assert apart(run(source), run(there))[seen] > 10 * CLOSE


def test_swapped_layers_of_the_projector_show(run: Run, joined: Joined, apart: Apart) -> None:
    there = joined(GOLDEN / "tiny_src")

    def swap(tensors: dict[str, torch.Tensor]) -> None:
        first, second = (f"multi_modal_projector.linear_{number}.bias" for number in (1, 2))
        tensors[first], tensors[second] = tensors[second], tensors[first]

    change(there, swap)
    assert apart(run(GOLDEN / "tiny_src"), run(there))["logits"] > 100 * CLOSE


def test_rows_past_the_language_models_own_are_no_output(run: Run, joined: Joined, apart: Apart) -> None:
    there = joined(GOLDEN / "tiny_src")
    change(there, lambda tensors: [each[320:].fill_(1e3) for each in tensors.values() if len(each) == 384])
    assert max(apart(run(GOLDEN / "tiny_src"), run(there)).values()) < CLOSE


def test_a_narrower_copy_is_compared_after_rounding(run: Run, joined: Joined, apart: Apart) -> None:
    there = joined(GOLDEN / "tiny_src", dtype={"text": BY_FLAG["bf16"]})
    rounding = {"text_model": BY_FLAG["bf16"]}
    wide, narrow = run(GOLDEN / "tiny_src"), run(GOLDEN / "tiny_src", rounding=rounding)
    assert apart(wide, run(there))["text logits"] > CLOSE
    assert apart(narrow, run(there))["text logits"] < CLOSE


@pytest.mark.parametrize("key", ["language_model.model.norm.weight", "multi_modal_projector.linear_2.bias"])
def test_what_transformers_would_fill_with_random_numbers_is_refused(key: str, run: Run, joined: Joined) -> None:
    there = joined(GOLDEN / "tiny_src")
    change(there, lambda tensors: tensors.pop(key))
    with pytest.raises(InputRefused, match="is missing"):
        run(there)
