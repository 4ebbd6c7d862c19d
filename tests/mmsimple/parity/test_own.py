"""CS checkpoints in mmsimple: what they give that no Hugging Face checkpoint does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load_file, save_file

from mmconvert import api
from mmconvert.dtypes import BY_FLAG
from mmconvert.errors import InputRefused
from mmconvert.forward import Inputs, Sizes
from mmsimple.checkpoint import save
from mmsimple.config import FeedForwardConfig, ImageModelConfig, LlamaConfig, MultimodalConfig, ViTConfig
from mmsimple.load import build

if TYPE_CHECKING:
    from tests.mmsimple.parity.conftest import Apart, Run, ToCS

ENCODER = ViTConfig(16, 3, 2, 24, (28, 28), (14, 14), image_layer_idx=-2)
WIDE = ViTConfig(32, 2, 2, 24, (28, 28), (7, 7))
DECODER = LlamaConfig(50, 24, 2, 2, 2, 32, 12, 40)


def saved(config: MultimodalConfig, path: Path) -> Path:
    torch.manual_seed(0)
    save(build(config), config, path, container="safetensors")
    return path


def projection(width: int) -> FeedForwardConfig:
    return FeedForwardConfig(width, (24,), (None,), (0.0,))


def test_encoders_of_one_width_give_their_features_one_after_the_other(
    run: Run, inputs: Callable[[Sizes], Inputs], tmp_path: Path
) -> None:
    models = (ImageModelConfig(ENCODER), ImageModelConfig(ENCODER))
    model = run(saved(MultimodalConfig(models, DECODER, projection(16)), tmp_path / "cs"))
    given = model.outputs(inputs(model.sizes))
    assert model.sizes.image_tokens == 8
    assert given["image features"].shape == (2, 8, 16)
    assert given["projected image features"].shape == (2, 8, 24)


def test_features_of_several_widths_are_given_projected_only(
    run: Run, inputs: Callable[[Sizes], Inputs], tmp_path: Path
) -> None:
    models = (ImageModelConfig(ENCODER, projection(16)), ImageModelConfig(WIDE, projection(32)))
    model = run(saved(MultimodalConfig(models, DECODER), tmp_path / "cs"))
    assert model.outputs(inputs(model.sizes)).keys() == {"text logits", "projected image features", "logits"}


def test_rounding_an_encoders_own_projection_changes_what_comes_after_it(
    run: Run, apart: Apart, tmp_path: Path
) -> None:
    models = (ImageModelConfig(ENCODER, projection(16)), ImageModelConfig(WIDE, projection(32)))
    path = saved(MultimodalConfig(models, DECODER), tmp_path / "cs")
    found = apart(run(path), run(path, {".0.1.": BY_FLAG["bf16"], ".1.1.": BY_FLAG["bf16"]}))
    assert {name for name, distance in found.items() if distance > 0} == {"projected image features", "logits"}


def test_dual_experts_are_chosen_by_where_the_pictures_are(run: Run, apart: Apart, tmp_path: Path) -> None:
    decoder = replace(DECODER, static_dual_expert=True)
    path = saved(MultimodalConfig((ImageModelConfig(ENCODER),), decoder, projection(16)), tmp_path / "cs")
    changed = saved(MultimodalConfig((ImageModelConfig(ENCODER),), decoder, projection(16)), tmp_path / "changed")
    file = changed / "model.safetensors"
    tensors = load_file(file)
    for key in tensors:
        if "linear_img" in key:
            tensors[key] = tensors[key] + 1
    save_file(tensors, file)
    found = apart(run(path), run(changed))
    assert found["text logits"] == 0
    assert found["logits"] > 1e-2


def test_an_encoder_taken_out_runs_all_its_layers(
    run: Run, inputs: Callable[[Sizes], Inputs], to_cs: ToCS, golden_input: Callable[[str], Path]
) -> None:
    cs = to_cs(golden_input("mmsimple"))
    encoder, whole = run(cs, encoder=0), run(cs)
    both = (each.outputs(inputs(encoder.sizes))["image features"] for each in (encoder, whole))
    alone, inside = both
    assert alone.shape[1] == inside.shape[1] + 1
    assert abs(alone[:, 1:] - inside).max() > 1e-2


def test_a_params_file_alone_is_refused(run: Run, to_cs: ToCS, golden_input: Callable[[str], Path]) -> None:
    cs = to_cs(golden_input("llama_tied"))
    with pytest.raises(InputRefused, match="a params file alone, without weights"):
        run(cs / "config.yaml")


def test_what_is_held_is_in_float32(run: Run, to_cs: ToCS, golden_input: Callable[[str], Path]) -> None:
    src = golden_input("llama_gqa_bf16")
    assert {ref.dtype.name for ref in api.open(src).values()} == {"bfloat16"}
    theirs, ours = vars(run(src))["model"], run(to_cs(src))
    for model in (theirs, ours):
        assert {parameter.dtype for parameter in vars(model)["module"].parameters()} == {torch.float32}
