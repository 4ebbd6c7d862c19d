"""Whether B is A, converted; and whether what has just been written reads back before it takes its place."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

import mmconvert
from mmconvert import Hints, Options, Plan, api
from mmconvert.compare import check_written
from mmconvert.errors import InputRefused, NoConversion, UsageError, VerificationFailed
from mmconvert.releases import NEWEST

Make = Callable[..., Path]
KEY = "vit_model.encoder.transformer_encoder.norm.bias"
TUNED = Path(__file__).parent / "golden" / "llava" / "tiny_src_tower_tuned"
INSIDE = "model.vision_tower.vision_tower."


def converted(source: Path, to: str) -> Path:
    out = source.parent / f"{source.name}-{to}"
    mmconvert.convert(source, out, to, options=Options(container="safetensors"), fsync=False)
    return out


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    weights: dict[str, torch.Tensor] = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors")


def set_fields(folder: Path, **fields: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **fields}))


# --- two checkpoints: of which model, and of which release ----------------------------------------------------------


def without_head(tensors: dict[str, torch.Tensor]) -> None:
    """Leave what `LlamaModel` has."""
    del tensors["lm_head.weight"]
    for key in list(tensors):
        tensors[key.removeprefix("model.")] = tensors.pop(key)


@pytest.fixture
def headless(make_llama: Make, tmp_path: Path) -> tuple[Path, Path]:
    """A LLaMA without its output head, and the CS checkpoint made from it, which looks like a whole LLaMA's."""
    source = make_llama(tmp_path / "hf", edit=without_head, architectures=["LlamaModel"])
    out = tmp_path / "cs"
    mmconvert.convert(source, out, "cs", options=Options(container="safetensors", init={"lm_head": 3}), fsync=False)
    return source, out


def test_a_cs_side_that_looks_like_another_model_is_taken_as_the_other_side_s(headless: tuple[Path, Path]) -> None:
    source, cs = headless
    found = api.verify(source, cs)
    assert (found.problems, found.tensors) == ([], 22)
    assert api.verify(cs, source).problems == []
    change_weights(cs, lambda weights: weights["ln_f.weight"].add_(1))
    assert "ln_f.weight: differs from A's norm.weight" in api.verify(source, cs).problems[0]


def test_folders_that_look_like_another_model_are_taken_as_the_other_side_s(llava: Path, tmp_path: Path) -> None:
    out = tmp_path / "cs"
    mmconvert.convert(llava, out, "cs", hints=Hints(model="llava"), fsync=False)
    assert api.inspect(llava).model == "mmsimple-llava"
    assert api.verify(llava, out).problems == []
    assert api.verify(out, llava).problems == []


def test_a_side_whose_model_was_named_is_that(headless: tuple[Path, Path]) -> None:
    source, cs = headless
    with pytest.raises(NoConversion, match=r"a llama-headless, .* a llama: nothing maps one to the other"):
        api.verify(source, cs, hints_b=Hints(model="llama"))


def test_a_side_that_cannot_be_of_the_other_s_model_is_what_it_is(headless: tuple[Path, Path], clip: Path) -> None:
    _, cs = headless
    for a, b in ((clip, cs), (cs, clip)):
        with pytest.raises(NoConversion, match=r"nothing maps one to the other; .*name that with --model"):
            api.verify(a, b)


def test_a_release_that_is_not_known_is_compared_and_noted(clip: Path, tmp_path: Path) -> None:
    cs = tmp_path / "cs"
    mmconvert.convert(clip, cs, "cs", options=mmconvert.Options(container="safetensors"), fsync=False)
    file = cs / "mmconvert.json"
    facts = json.loads(file.read_text())
    file.write_text(json.dumps({**facts, "target": {**facts["target"], "release": "9.9"}}))
    found = api.verify(clip, cs)
    assert (found.problems, found.tensors) == ([], 56)
    assert any("9.9" in note for note in found.notes)


def test_hints_about_cs_are_refused_for_what_is_not_cs(clip: Path, tmp_path: Path) -> None:
    cs = tmp_path / "cs"
    mmconvert.convert(clip, cs, "cs", fsync=False)
    for hints, option in (
        (Hints(config=cs / "config.yaml"), "--config"),
        (Hints(encoder=0), "--encoder"),
        (Hints(release=NEWEST), "--from-release"),
    ):
        with pytest.raises(UsageError, match=f"{option} is for CS checkpoints, and {clip} is none"):
            api.verify(clip, cs, hints_a=hints)
        with pytest.raises(UsageError, match=f"{option} is for CS checkpoints, and {clip} is none"):
            api.verify(cs, clip, hints_b=hints)


# --- two checkpoints: params files ----------------------------------------------------------------------------------


def test_fields_of_two_cs_checkpoints_are_compared_by_dotted_path(llava: Path, tmp_path: Path) -> None:
    cs = tmp_path / "cs"
    mmconvert.convert(llava, cs, "cs", options=Options(container="safetensors"), fsync=False)
    other = converted(cs, "cs-2.4")
    params = other / "config.yaml"
    document = yaml.safe_load(params.read_text())
    document["model"]["text_model"]["initializer_range"] = 0.5
    params.write_text(yaml.safe_dump(document))
    assert api.verify(cs, other).problems == ["config: text_model.initializer_range is 0.5, expected 0.02"]


UNCOMPARED = "the model sections are compared; of params files no more"


@pytest.mark.parametrize("side", [0, 1])
def test_what_is_not_compared_of_two_params_files_is_told(clip: Path, tmp_path: Path, side: int) -> None:
    sides = [tmp_path / "a", tmp_path / "b"]
    for each in sides:
        mmconvert.convert(clip, each, "cs", options=Options(container="safetensors"), fsync=False)
    assert api.verify(*sides).notes == []
    params = sides[side] / "config.yaml"
    params.write_text(f"{params.read_text()}\ntrain_input:\n  batch_size: 8\n")
    found = api.verify(*sides)
    assert (found.problems, found.notes) == ([], [UNCOMPARED])
    assert UNCOMPARED not in api.verify(clip, sides[side]).notes


# --- two checkpoints: a tied head -----------------------------------------------------------------------------------


def untie(tensors: dict[str, torch.Tensor]) -> None:
    """Save the head of a tied model too, as some do."""
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()


@pytest.mark.parametrize("edit", [lambda tensors: None, untie], ids=["one name", "two names"])
def test_a_tied_model_is_the_same_on_both_sides(
    make_llama: Make, tmp_path: Path, edit: Callable[[dict[str, torch.Tensor]], object]
) -> None:
    source = make_llama(tmp_path / "hf", tie_word_embeddings=True, edit=edit)
    cs = converted(source, "cs")
    back = converted(cs, "hf")
    for a, b in ((source, cs), (cs, source), (cs, back), (source, back), (back, source)):
        assert api.verify(a, b).problems == []


def test_a_tied_text_part_of_a_pair_is_the_same_on_both_sides(make_llava: Make, tmp_path: Path) -> None:
    source = make_llava(tmp_path / "llava", tie_word_embeddings=True)
    cs = converted(source, "cs")
    back, parts = converted(cs, "llava"), converted(cs, "hf")
    for a, b in ((source, cs), (cs, source), (cs, back), (cs, parts), (source, parts)):
        assert api.verify(a, b).problems == []


def test_a_tied_head_that_was_changed_is_a_problem(make_llama: Make, tmp_path: Path) -> None:
    source = make_llama(tmp_path / "hf", tie_word_embeddings=True)
    cs = converted(source, "cs")
    change_weights(cs, lambda weights: weights["lm_head.weight"].add_(1))
    (problem,) = api.verify(source, cs).problems
    assert problem.startswith("lm_head.weight: differs from A's model.embed_tokens.weight")


def test_a_second_copy_that_differs_is_found_on_either_side(make_llama: Make, tmp_path: Path) -> None:
    source = make_llama(tmp_path / "hf", tie_word_embeddings=True)
    cs = converted(source, "cs")
    for head in (torch.zeros(101, 48), torch.zeros(3, 48)):
        change_weights(source, lambda weights, head=head: weights.update({"lm_head.weight": head}))  # type: ignore[misc]
        assert "lm_head.weight" in api.verify(cs, source).problems[0]
        with pytest.raises(InputRefused, match=r"lm_head\.weight"):
            api.verify(source, cs)


def test_of_two_copies_either_one_is_enough(make_llama: Make, tmp_path: Path) -> None:
    source = make_llama(tmp_path / "hf")
    cs = converted(source, "cs")
    change_weights(cs, lambda weights: weights.pop("transformer_decoder.norm.weight"))
    assert api.verify(source, cs).problems == []


def test_a_tied_head_may_be_left_out_of_b(make_llama: Make, tmp_path: Path) -> None:
    source = make_llama(tmp_path / "hf", tie_word_embeddings=True)
    cs = converted(source, "cs")
    change_weights(cs, lambda weights: weights.pop("lm_head.weight"))
    assert api.verify(source, cs).problems == []


# --- two checkpoints: a tower in the text part ----------------------------------------------------------------------


@pytest.fixture
def tuned(tmp_path: Path) -> tuple[Path, Path]:
    """A LLaVA whose trained tower lies inside its text checkpoint, and the CS checkpoint made from it."""
    source = tmp_path / "llava"
    shutil.copytree(TUNED, source)
    return source, converted(source, "cs")


def test_a_trained_tower_in_the_text_part_is_what_cs_has(tuned: tuple[Path, Path]) -> None:
    source, cs = tuned
    assert api.verify(source, cs).problems == []
    assert api.verify(cs, source).problems == []


def test_a_trained_tower_that_differs_is_a_problem(tuned: tuple[Path, Path]) -> None:
    source, cs = tuned
    key = f"{INSIDE}vision_model.post_layernorm.bias"
    change_weights(source / "text_model_llava", lambda weights: weights[key].add_(1))
    (problem,) = api.verify(cs, source).problems
    assert "post_layernorm.bias: differs from A's" in problem


def test_a_trained_tower_that_is_not_there_is_a_problem(tuned: tuple[Path, Path]) -> None:
    source, cs = tuned

    def forget(weights: dict[str, torch.Tensor]) -> None:
        for key in [key for key in weights if key.startswith(INSIDE)]:
            del weights[key]

    change_weights(source / "text_model_llava", forget)
    problems = api.verify(cs, source).problems
    assert f"{source}: text_model.unfreeze_mm_vision_tower is true, but the checkpoint holds no" in problems[0]


def test_two_towers_that_differ_without_a_word_are_a_problem(tuned: tuple[Path, Path]) -> None:
    source, cs = tuned
    set_fields(source / "text_model_llava", unfreeze_mm_vision_tower=False)
    problems = api.verify(cs, source).problems
    assert any(
        problem.startswith(f"text_model/{INSIDE}") and "differs from image_model/" in problem for problem in problems
    )


# --- what has just been written -------------------------------------------------------------------------------------


@pytest.fixture
def written(clip: Path, tmp_path: Path) -> tuple[Plan, Path]:
    """A plan that was carried out, and its weights file."""
    plan = mmconvert.plan(clip, tmp_path / "cs", "cs", options=Options(container="safetensors"))
    api.run(plan, fsync=False)
    return plan, tmp_path / "cs" / "model.safetensors"


@pytest.mark.parametrize("level", ["keys", "bytes", "none"])
def test_what_was_written_as_planned_passes(written: tuple[Plan, Path], level: str) -> None:
    plan, _ = written
    check_written(plan.out, plan, level)


CHANGES: Mapping[str, tuple[dict[str, torch.Tensor], str]] = {
    "another shape": ({KEY: torch.zeros(31)}, f"{KEY} does not read back as it was planned"),
    "another type": ({KEY: torch.zeros(32, dtype=torch.float16)}, f"{KEY} does not read back as it was planned"),
    "a tensor too many": ({"stray": torch.zeros(1)}, "holds stray, which was not planned"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_header_that_differs_from_the_plan_is_found(written: tuple[Plan, Path], name: str) -> None:
    plan, file = written
    changed, message = CHANGES[name]
    save_file({**load_file(file), **changed}, file)
    with pytest.raises(VerificationFailed, match=message):
        check_written(plan.out, plan, "keys")
    check_written(plan.out, plan, "none")


def test_bytes_that_differ_are_found_when_bytes_are_checked(written: tuple[Plan, Path]) -> None:
    plan, file = written
    save_file({**load_file(file), KEY: torch.zeros(32)}, file)
    check_written(plan.out, plan, "keys")
    with pytest.raises(VerificationFailed, match=f"{KEY} does not read back as it was written"):
        check_written(plan.out, plan, "bytes")


def test_a_run_that_fails_its_check_leaves_nothing(clip: Path, tmp_path: Path) -> None:
    plan = mmconvert.plan(clip, tmp_path / "cs", "cs")
    (output,) = plan.outputs
    first, *rest = output.tensors
    # The file says one thing of this tensor and the plan another.
    misplanned = replace(output, tensors=(replace(first, shape=(1, *first.shape)), *rest))
    with pytest.raises(VerificationFailed):
        api.run(replace(plan, outputs=(misplanned,)), fsync=False)
    assert list(tmp_path.iterdir()) == []
