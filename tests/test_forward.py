"""Comparing forward passes: which side is given what, what is said of it, and who is asked."""

from __future__ import annotations

import gc
import json
import shutil
import subprocess
import sys
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mmconvert import Hints, Options, api, forward
from mmconvert.dtypes import BY_FLAG
from mmconvert.errors import InputRefused, NoConversion, UsageError, VerificationFailed
from mmconvert.forward import Inputs, Sizes, compare_forward
from mmconvert.layouts import Checkpoint
from mmconvert.writing import plan_writing
from tests.forward_fakes import TEXT, Fake, Lab, Outputs, install, install_without_torch, logits

Make = Callable[..., Path]
Tensors = dict[str, torch.Tensor]
LLAVA = Path(__file__).parent / "golden" / "llava"


@pytest.fixture(scope="module")
def cs(tmp_path_factory: pytest.TempPathFactory, llama: Path) -> Path:
    out = tmp_path_factory.mktemp("cs") / "cs"
    api.convert(llama, out, "cs", options=Options(container="safetensors"), fsync=False)
    return out


def lab(patch: pytest.MonkeyPatch, hf: Fake | None = None, cs: Fake | None = None) -> Lab:
    """One provider for both formats."""
    made = Lab({"hf": hf or Fake(), "cs": cs or Fake()})
    install(patch, made)
    return made


def both(inputs: Inputs) -> Outputs:
    """Logits, and an output that only this model has."""
    return {**logits(inputs), "image embeds": np.zeros((1, 1), np.float32)}


# --- what is compared -----------------------------------------------------------------------------------------------


def test_models_that_compute_the_same_agree(llama: Path, cs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab(monkeypatch)
    found = compare_forward(llama, cs)
    assert (found.ok, found.a, found.b, found.problems) == (True, str(llama), str(cs), ())
    assert found.outputs["text logits"].max_abs == 0


@pytest.mark.parametrize(("shift", "ok"), [(1e-6, True), (1e-3, False)])
def test_a_difference_is_one_past_the_tolerance(
    shift: float, ok: bool, llama: Path, cs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab(monkeypatch, cs=Fake(lambda inputs: logits(inputs, shift)))
    found = compare_forward(llama, cs)
    assert found.ok is ok
    assert all(problem.startswith("text logits: differs by") for problem in found.problems)
    assert compare_forward(llama, cs, tolerance=1e-2).ok


def test_a_seed_draws_the_same_inputs_for_both_sides_and_another_seed_others(
    llama: Path, cs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Inputs] = []

    def remember(inputs: Inputs) -> Outputs:
        given.append(inputs)
        return logits(inputs)

    lab(monkeypatch, Fake(remember), Fake(remember))
    assert compare_forward(llama, cs, seed=3).seed == 3
    compare_forward(llama, cs, seed=4)
    ids = [each.input_ids for each in given if each.input_ids is not None]
    assert np.array_equal(ids[0], ids[1])
    assert not np.array_equal(ids[0], ids[2])


def test_a_computes_again_where_only_b_knows_of_a_length(
    llama: Path, cs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both must get what suits both, and A was asked before B was built."""
    lengths: list[int] = []

    def remember(inputs: Inputs) -> Outputs:
        assert inputs.input_ids is not None
        lengths.append(inputs.input_ids.shape[1])
        return logits(inputs)

    lab(monkeypatch, Fake(remember), Fake(remember, replace(TEXT, needed_length=40)))
    assert compare_forward(llama, cs).ok
    assert lengths == [32, 40, 40]


def test_b_gets_what_a_needs(llama: Path, cs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths: list[int] = []

    def remember(inputs: Inputs) -> Outputs:
        assert inputs.input_ids is not None
        lengths.append(inputs.input_ids.shape[1])
        return logits(inputs)

    lab(monkeypatch, Fake(remember, replace(TEXT, needed_length=40)), Fake(remember))
    assert compare_forward(llama, cs).ok
    assert lengths == [40, 40]


def test_one_model_at_a_time_is_in_memory(llama: Path, cs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alive: weakref.WeakSet[Fake] = weakref.WeakSet()
    most: list[int] = []

    def provide(checkpoint: Checkpoint) -> Fake:
        gc.collect()
        most.append(len(alive))
        model = Fake(sizes=replace(TEXT, needed_length=40 if checkpoint.node.format == "cs" else 0))
        alive.add(model)
        return model

    install(monkeypatch, provide)
    assert compare_forward(llama, cs).ok
    assert most == [0, 0, 0]


def test_sizes_that_no_input_fits_are_a_difference(llama: Path, cs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab(monkeypatch, cs=Fake(sizes=replace(TEXT, vocab_size=12)))
    assert compare_forward(llama, cs).problems == ("vocabulary: 11 in A, 12 in B",)


def test_outputs_of_two_shapes_are_a_difference(llama: Path, cs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab(monkeypatch, cs=Fake(lambda inputs: {"text logits": logits(inputs)["text logits"][..., 1:]}))
    assert compare_forward(llama, cs).problems == ("text logits: shape [2, 32, 11] in A, [2, 32, 10] in B",)


def test_what_one_side_alone_gives_is_noted(llama: Path, cs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab(monkeypatch, cs=Fake(both))
    found = compare_forward(llama, cs)
    assert found.ok
    assert "no image projection in A, without image embeds" in found.notes


def test_nan_on_both_sides_is_noted_and_on_one_side_a_difference(
    llama: Path, cs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = Fake(lambda inputs: logits(inputs, float("nan")))
    lab(monkeypatch, broken, broken)
    found = compare_forward(llama, cs)
    assert found.ok
    assert "text logits: 64 values are NaN or infinite, equal on both sides" in found.notes
    lab(monkeypatch, cs=broken)
    assert compare_forward(llama, cs).problems == ("text logits: NaN or infinite in one of the two only",)


# --- which precision ------------------------------------------------------------------------------------------------


def values(checkpoint: Checkpoint, part: str) -> list[float]:
    """All weights of a part, as they are computed with; in float32."""
    refs = [ref for key, ref in sorted(checkpoint.tensors.items()) if key.startswith(part)]
    return [float(value) for ref in refs for value in np.frombuffer(ref.read(), np.float32)]


@pytest.fixture(scope="module")
def llava32(tmp_path_factory: pytest.TempPathFactory, make_llava: Make) -> Path:
    """A LLaVA whose text part is float32 too."""

    def widen(tensors: Tensors) -> None:
        for key, tensor in tensors.items():
            tensors[key] = tensor.float() * 1.001

    return make_llava(tmp_path_factory.mktemp("llava") / "llava", edit=widen)


@pytest.mark.parametrize("forget", [False, True])
def test_weights_of_a_are_rounded_part_by_part_as_bs_were(
    forget: bool, llava32: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where B does not record its casts: each tensor's own type says it."""
    options = Options(container="safetensors", dtype={"text": BY_FLAG["bf16"]})
    api.convert(llava32, tmp_path / "cs", "cs", options=options, fsync=False)
    if forget:
        (tmp_path / "cs" / "mmconvert.json").unlink()
    made = Lab({"llava": Fake(), "cs": Fake()})
    install(monkeypatch, made)
    found = compare_forward(llava32, tmp_path / "cs")
    given, unchanged = made.asked[0], api.recognise(llava32)
    assert made.formats == ["llava", "cs"]
    assert values(given, "image_model/") == values(unchanged, "image_model/")
    text, exact = (values(each, "text_model/model.layers") for each in (given, unchanged))
    assert text != exact
    assert torch.equal(torch.tensor(text), torch.tensor(exact).to(torch.bfloat16).float())
    assert "A's weights are rounded to bfloat16 first, where B's are" in found.notes


def test_what_becomes_infinite_is_a_difference(
    make_clip: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def edit(tensors: Tensors) -> None:
        tensors["visual_projection.weight"][0, :2] = 1e6

    clip = make_clip(tmp_path / "clip", edit=edit)
    options = Options(container="safetensors", dtype={"": BY_FLAG["fp16"]})
    api.convert(clip, tmp_path / "cs", "cs", options=options, fsync=False)

    class Reading(Lab):
        """Reads all weights, as whatever computes with them does."""

        def __call__(self, checkpoint: Checkpoint) -> Fake:
            for ref in checkpoint.tensors.values():
                ref.read()
            return Fake()

    install(monkeypatch, Reading({}))
    (problem,) = compare_forward(clip, tmp_path / "cs").problems
    assert problem == "visual_projection.weight: 2 values of A become infinite in B's element type"


def test_outputs_that_are_nothing_but_nan_are_not_taken_for_equal(
    llama: Path, cs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = Fake(lambda inputs: {"text logits": np.full_like(logits(inputs)["text logits"], np.nan)})
    lab(monkeypatch, broken, broken)
    (problem,) = compare_forward(llama, cs).problems
    assert problem == "text logits: is NaN or infinite all over in A, so that nothing can be compared"


@pytest.mark.parametrize(("choice", "flag"), [("text", True), ("image", False)])
def test_the_tower_that_was_chosen_is_the_one_that_is_computed(
    choice: str, flag: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Path(shutil.copytree(LLAVA / "tiny_src_tower_tuned", tmp_path / "src"))
    file = source / "text_model_llava" / "config.json"
    config = {**json.loads(file.read_text("utf-8")), "unfreeze_mm_vision_tower": not flag}
    file.write_text(json.dumps(config), "utf-8")
    made = Lab({"llava": Fake(), "cs": Fake()})
    install(monkeypatch, made)
    api.convert(source, tmp_path / "cs", "cs", options=Options(take=choice), verify="forward", fsync=False)
    compare_forward(source, tmp_path / "cs")
    assert [each.config["text_model"]["unfreeze_mm_vision_tower"] for each in made.asked[::2]] == [flag, flag]


# --- who computes ---------------------------------------------------------------------------------------------------


def test_the_first_provider_that_knows_a_checkpoint_computes_it(
    llama: Path, cs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hf, other, late = Lab({"hf": Fake()}), Lab({"cs": Fake()}), Lab({"cs": Fake(lambda inputs: logits(inputs, 1))})
    install(monkeypatch, hf, other, late)
    assert compare_forward(llama, cs).ok
    assert hf.formats == ["hf", "cs"]
    assert late.asked == []


def test_a_side_that_nobody_computes_is_named(llama: Path, cs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, Lab({"hf": Fake()}))
    with pytest.raises(NoConversion) as caught:
        compare_forward(llama, cs)
    assert f"{cs}: nothing here computes a llama in format cs; forward passes are provided by fake0" in str(
        caught.value
    )
    install(monkeypatch)
    with pytest.raises(NoConversion, match="provided by no installed package"):
        compare_forward(llama, cs)


def test_without_torch_the_remedy_is_named(llama: Path, cs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_without_torch(monkeypatch)
    with pytest.raises(UsageError, match=r'No module named .torch.; `pip install "mmconvert\[train\]"`'):
        compare_forward(llama, cs)


def test_our_own_providers_are_found_by_their_entry_points() -> None:
    assert {"cerebras", "transformers"} <= forward.providers().keys()


def test_comparing_forward_passes_imports_no_torch_itself() -> None:
    program = "import sys, mmconvert.forward; assert not {'torch', 'mmsimple', 'transformers'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", program], check=True)


# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tolerance", [0.0, -1.0, float("nan"), float("inf")])
def test_a_tolerance_that_is_none_is_refused(tolerance: float, llama: Path, cs: Path) -> None:
    with pytest.raises(UsageError, match="must be a finite number above 0"):
        compare_forward(llama, cs, tolerance=tolerance)


def test_a_negative_seed_is_refused(llama: Path, cs: Path) -> None:
    with pytest.raises(UsageError, match="seed -1: must not be negative"):
        compare_forward(llama, cs, seed=-1)


def test_a_params_file_alone_has_nothing_to_compute_with(
    llama: Path, cs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab(monkeypatch)
    with pytest.raises(InputRefused, match=r"config\.yaml: a params file alone has no weights"):
        compare_forward(llama, cs / "config.yaml")


def test_sides_without_an_output_in_common_are_refused(llama: Path, cs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab(monkeypatch, cs=Fake(lambda inputs: {"other": logits(inputs)["text logits"]}))
    with pytest.raises(NoConversion, match=r"gives text logits, .* other: there is nothing to compare"):
        compare_forward(llama, cs)


def test_a_model_that_takes_no_input_is_refused(llama: Path, cs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab(monkeypatch, Fake(sizes=Sizes()))
    with pytest.raises(NoConversion, match="there is nothing to compute: it takes no input"):
        compare_forward(llama, cs)


# --- as the last step of a conversion -------------------------------------------------------------------------------


def test_a_conversion_is_checked_before_its_target_appears(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab(monkeypatch, cs=Fake(lambda inputs: logits(inputs, 1.0)))
    with pytest.raises(VerificationFailed) as caught:
        api.convert(llama, tmp_path / "cs", "cs", verify="forward", fsync=False)
    assert str(caught.value).startswith(f"{tmp_path / 'cs'}: would not compute what {llama} does: text logits: differs")
    assert list(tmp_path.iterdir()) == []


def test_a_conversion_that_computes_the_same_appears(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = lab(monkeypatch)
    options = Options(dtype={"": BY_FLAG["fp16"]})
    api.convert(llama, tmp_path / "cs", "cs", options=options, verify="forward", fsync=False)
    assert {ref.dtype for ref in api.open(tmp_path / "cs").values()} == {BY_FLAG["fp16"]}
    assert made.formats == ["hf", "cs"]
    assert all(ref.path is None for ref in made.asked[0].tensors.values())


def test_a_source_that_nobody_computes_is_refused_before_anything_is_written(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, Lab({"cs": Fake()}))
    monkeypatch.setattr(api, "execute", lambda *_, **__: pytest.fail("wrote"))
    with pytest.raises(NoConversion, match="nothing here computes a llama in format hf"):
        api.convert(llama, tmp_path / "cs", "cs", verify="forward", fsync=False)


def test_a_plan_of_no_checkpoint_has_nothing_to_be_compared_with(tmp_path: Path) -> None:
    planned = plan_writing(tmp_path / "cs", "llama", {}, [], assets={})
    with pytest.raises(UsageError, match="is made without weights"):
        forward.compute_source(planned)


def test_the_written_folder_is_taken_for_the_model_that_was_converted(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tower looks like any encoder: what the source was, its conversion is."""
    images = Sizes(image=(3, 28, 28))
    model = Fake(lambda inputs: {"image features": inputs.pixel_values}, images)  # type: ignore[dict-item]
    made = lab(monkeypatch, model, model)
    api.convert(clip, tmp_path / "cs", "cs", hints=Hints(model="clip-vit"), verify="forward", fsync=False)
    assert made.formats == ["hf", "cs"]
