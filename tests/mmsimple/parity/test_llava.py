"""LLaVA's two folders against what LLaVA's own loader gave, and against mmsimple after a conversion."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from mmconvert import Options
from mmconvert.dtypes import BY_FLAG
from mmconvert.errors import InputRefused
from mmconvert.forward import Inputs

if TYPE_CHECKING:
    from tests.conftest import Make, Tensors
    from tests.mmsimple.parity.conftest import Apart, Run, ToCS

GOLDEN = Path(__file__).parents[2] / "golden" / "llava"
IMAGE_ID = -200
RECORDED = {"logits": "logits", "image features": "features_tower", "projected image features": "features_projector"}


def recorded_inputs() -> Inputs:
    """The recorded prompt, in which one id stands for all tokens of the picture."""
    recorded = load_file(GOLDEN / "forward" / "inputs.safetensors")
    (prompt,), images = recorded["input_ids"], recorded["pixel_values"]
    (place,) = np.flatnonzero(prompt == IMAGE_ID)
    places = np.arange(place, place + 4)
    joined = np.insert(np.delete(prompt, place), place, np.zeros(4, prompt.dtype))
    return Inputs(
        input_ids=None,
        pixel_values=images,
        joined_ids=joined[None],
        image_positions=places[None, None],
        joined_pixels=images[:, None],
    )


@pytest.mark.parametrize("converted", [False, True])
@pytest.mark.parametrize("name", ["tiny_src", "tiny_src_gqa", "tiny_src_tower_tuned"])
def test_what_llavas_own_loader_gave_is_given(name: str, converted: bool, run: Run, to_cs: ToCS) -> None:
    model = run(to_cs(GOLDEN / name) if converted else GOLDEN / name)
    given = model.outputs(recorded_inputs())
    expected = load_file(GOLDEN / "forward" / f"{name}.expected.safetensors")
    for ours, theirs in RECORDED.items():
        scale = max(1, abs(expected[theirs]).max())
        limit = 2e-5 if ours == "logits" else 1e-5
        np.testing.assert_allclose(given[ours], expected[theirs], rtol=0, atol=limit * scale, err_msg=ours)


@pytest.mark.parametrize("converted", [False, True])
def test_text_alone_is_what_llavas_own_loader_gave(converted: bool, run: Run, to_cs: ToCS) -> None:
    model = run(to_cs(GOLDEN / "tiny_src") if converted else GOLDEN / "tiny_src")
    prompt = load_file(GOLDEN / "forward" / "inputs_text.safetensors")["input_ids"]
    given = model.outputs(Inputs(prompt, None, None, None, None))
    expected = load_file(GOLDEN / "forward" / "tiny_src.expected_text.safetensors")["logits"]
    assert given.keys() == {"text logits"}
    np.testing.assert_allclose(given["text logits"], expected, rtol=0, atol=2e-5 * abs(expected).max())


def test_a_text_folder_alone_finds_its_tower(run: Run, apart: Apart) -> None:
    whole = run(GOLDEN / "tiny_src")
    text = run(GOLDEN / "tiny_src" / "text_model_llava", vision_tower=GOLDEN / "tiny_src" / "image_model")
    assert set(apart(whole, text).values()) == {0}


def test_shards_make_no_difference(run: Run, apart: Apart, to_cs: ToCS) -> None:
    src = GOLDEN / "tiny_src_sharded"
    assert max(apart(run(src), run(to_cs(src))).values()) < 2e-5


def copy(name: str, tmp_path: Path) -> Path:
    return Path(shutil.copytree(GOLDEN / name, tmp_path / name))


def test_the_towers_own_folder_is_used_where_the_text_file_has_none_to_train(
    run: Run, apart: Apart, tmp_path: Path, set_config: Callable[..., None]
) -> None:
    src = copy("tiny_src_tower_tuned", tmp_path)
    tuned = run(src)
    set_config(src / "text_model_llava", unfreeze_mm_vision_tower=False)
    assert apart(tuned, run(src))["image features"] > 1e-3


def test_a_trained_tower_that_is_not_there_is_refused(
    run: Run, tmp_path: Path, set_config: Callable[..., None]
) -> None:
    src = copy("tiny_src", tmp_path)
    set_config(src / "text_model_llava", unfreeze_mm_vision_tower=True)
    with pytest.raises(InputRefused, match="unfreeze_mm_vision_tower is true"):
        run(src)


@pytest.mark.parametrize("model", ["mmsimple-llava", "llava"])
@pytest.mark.parametrize(
    "config",
    [
        {"mm_vision_select_layer": 1, "mm_vision_select_feature": "cls_patch"},
        {"mm_vision_select_layer": -1},
        {"model_type": "llava_mistral", "architectures": ["LlavaMistralForCausalLM"], "sliding_window": 6},
    ],
    ids=["first-layer-with-class-token", "last-layer", "mistral"],
)
def test_every_choice_of_a_llava_computes_the_same_in_both(
    model: str, config: dict[str, Any], small_llava: Make, run: Run, to_cs: ToCS, apart: Apart, tmp_path: Path
) -> None:
    src = small_llava(tmp_path / "src", **config)
    found = apart(run(src, model=model), run(to_cs(src, model=model)))
    assert found.keys() == {"text logits", "logits", *RECORDED}
    assert max(found.values()) < 2e-5


@pytest.mark.parametrize("kind", ["linear", "mlp3x_gelu"])
def test_projectors_of_every_depth_compute_the_same_in_both(
    kind: str, small_llava: Make, run: Run, to_cs: ToCS, apart: Apart, tmp_path: Path
) -> None:
    def edit(tensors: Tensors) -> None:
        projector = "model.mm_projector."
        if kind == "mlp3x_gelu":
            tensors |= {f"{projector}4.{p}": tensors[f"{projector}2.{p}"].clone() for p in ("weight", "bias")}
            return
        for p in ("weight", "bias"):
            tensors[projector + p] = tensors.pop(f"{projector}0.{p}")
            del tensors[f"{projector}2.{p}"]

    src = small_llava(tmp_path / "src", edit=edit, mm_projector_type=kind)
    assert max(apart(run(src), run(to_cs(src))).values()) < 2e-5


def test_a_projector_weight_that_is_missing_is_named(small_llava: Make, run: Run, tmp_path: Path) -> None:
    src = small_llava(tmp_path / "src", edit=lambda tensors: tensors.pop("model.mm_projector.2.bias"))
    with pytest.raises(InputRefused, match=r"text_model_llava: mm_projector\.2\.bias is missing"):
        run(src)


def test_a_projector_of_another_kind_is_refused(small_llava: Make, run: Run, tmp_path: Path) -> None:
    src = small_llava(tmp_path / "src", mm_projector_type="resampler")
    with pytest.raises(InputRefused, match="mm_projector_type 'resampler'"):
        run(src)


def test_a_layer_that_the_tower_has_not_is_told_in_a_line(
    small_llava: Make, run: Run, apart: Apart, tmp_path: Path
) -> None:
    src = small_llava(tmp_path / "src", mm_vision_select_layer=-9)
    with pytest.raises(InputRefused, match=r"transformers does not compute it: .* out of range"):
        apart(run(src), run(src))


def test_two_folders_without_a_projector_have_features_and_text_logits(
    golden_input: Callable[[str], Path], run: Run, to_cs: ToCS, apart: Apart
) -> None:
    src = golden_input("mmsimple_noproj")
    found = apart(run(src), run(to_cs(src, Options(container="safetensors", init={"projector": 1}))))
    assert found.keys() == {"text logits", "image features"}
    assert max(found.values()) < 2e-5


def test_two_plain_folders_with_a_projector_are_a_whole_model(
    golden_input: Callable[[str], Path], run: Run, to_cs: ToCS, apart: Apart
) -> None:
    src = golden_input("mmsimple")
    found = apart(run(src), run(to_cs(src)))
    assert found.keys() == {"text logits", "logits", *RECORDED}
    assert max(found.values()) < 2e-5


@pytest.mark.parametrize("layers", [1, 2])
def test_a_plain_decoders_folder_has_as_many_projector_layers_as_it_holds(
    layers: int, small_llava: Make, run: Run, to_cs: ToCS, apart: Apart, tmp_path: Path
) -> None:
    def edit(tensors: Tensors) -> None:
        for p in ("weight", "bias") if layers == 1 else ():
            tensors[f"model.mm_projector.{p}"] = tensors.pop(f"model.mm_projector.0.{p}")
            del tensors[f"model.mm_projector.2.{p}"]

    src = small_llava(tmp_path / "src", edit=edit)
    file = src / "text_model_llava" / "config.json"
    config = json.loads(file.read_text("utf-8"))
    plain = {name: value for name, value in config.items() if not name.startswith("mm_")}
    file.write_text(json.dumps({**plain, "model_type": "llama", "architectures": ["LlamaForCausalLM"]}), "utf-8")
    found = apart(run(src), run(to_cs(src)))
    assert found.keys() == {"text logits", "logits", *RECORDED}
    assert max(found.values()) < 2e-5


@pytest.mark.parametrize(
    ("part", "same"),
    [
        ("image_model/", {"text logits"}),
        ("mm_projector", {"text logits", "image features"}),
        ("model.layers", set(RECORDED) - {"logits"}),
    ],
)
def test_rounding_a_part_changes_what_comes_after_it(part: str, same: set[str], run: Run, apart: Apart) -> None:
    plain, rounded = run(GOLDEN / "tiny_src"), run(GOLDEN / "tiny_src", {part: BY_FLAG["bf16"]})
    assert {name for name, distance in apart(plain, rounded).items() if distance == 0} == same


def test_a_cast_conversion_agrees_once_the_source_is_rounded_too(run: Run, apart: Apart, to_cs: ToCS) -> None:
    half = BY_FLAG["bf16"]
    cast = run(to_cs(GOLDEN / "tiny_src", Options(container="safetensors", dtype={"": half})))
    for uncast in (GOLDEN / "tiny_src", to_cs(GOLDEN / "tiny_src")):
        assert max(apart(run(uncast, {"": half}), cast).values()) < 2e-5
        assert max(apart(run(uncast), cast).values()) > 1e-4


def test_sizes_are_those_of_the_whole_model(run: Run, to_cs: ToCS) -> None:
    theirs, ours = run(GOLDEN / "tiny_src").sizes, run(to_cs(GOLDEN / "tiny_src")).sizes
    assert theirs == ours
    assert (ours.vocab_size, ours.image, ours.image_tokens, ours.max_length) == (320, (3, 28, 28), 4, 256)
