"""One tensor's journey, told from headers and a few rows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mmconvert import Options, api
from mmconvert.errors import UsageError
from mmconvert.explanation import Explanation
from mmconvert.report.conversions import explanation_document

Make = Callable[..., Path]

Q = "model.layers.0.self_attn.q_proj.weight"
CS_Q = "transformer_decoder.layers.0.self_attn.proj_q_dense_layer.weight"


def explained(source: Path, target: str, key: str, options: Options | None = None) -> Explanation:
    return api.explain(api.plan(source, None, target, options=options or Options()), key)


def test_a_tensor_is_found_by_its_name_on_either_side(llama: Path) -> None:
    by_source, by_target = explained(llama, "cs", Q), explained(llama, "cs", CS_Q)
    assert by_source == by_target
    assert (by_source.source, by_source.target) == (Q, CS_Q)
    assert by_source.source_file.startswith("model-0000")
    assert by_source.target_file == "model.mdl"


def test_each_row_before_stands_where_its_index_says_after(llama: Path) -> None:
    found = explained(llama, "cs", Q)
    assert found.rows == (0, 6, 1, 7, 2, 8, 3, 9)
    assert [found.after[at] for at in (0, 2, 4, 6)] == [found.before[row] for row in (0, 1, 2, 3)]
    assert found.before[1] != found.after[1]


def test_every_step_says_its_rule_and_where_it_is_known_from(llava: Path) -> None:
    key = "text_model/model.layers.0.self_attn.q_proj.weight"
    there, back = explained(llava, "hf", key).steps
    assert (there.before, back.before, back.after) == (key, f"text_model.{CS_Q}", key)
    assert "interleaved" in there.rule
    assert "undone" in back.rule
    assert "forward passes" in there.source


def test_a_cast_shows_in_types_and_values(llama: Path) -> None:
    from mmconvert.options import parse_dtype

    found = explained(llama, "cs", "lm_head.weight", Options(dtype=parse_dtype("fp32")))
    assert found.dtypes == ("bfloat16", "float32")
    assert found.before == found.after


def test_what_is_dropped_says_why(llama: Path, tmp_path: Path) -> None:
    api.convert(llama, tmp_path / "cs", "cs", fsync=False)
    found = explained(tmp_path / "cs", "hf", "ln_f.weight")
    assert (found.target, found.note) == (None, "the same tensor as transformer_decoder.norm.weight")


def test_what_is_made_says_how(llama: Path, clip: Path, tmp_path: Path) -> None:
    for name, folder in (("image", clip), ("text", llama)):
        (tmp_path / name).symlink_to(folder)
    options = Options(init={"projector": 3})
    found = explained(tmp_path, "cs", "image_model.projection.ffn.0.linear_layer.bias", options)
    assert (found.source, "seed 3" in found.rule) == (None, True)


def test_an_unknown_name_is_refused_with_its_neighbours(llama: Path) -> None:
    with pytest.raises(UsageError, match=rf"--key {Q}s: no tensor of this name; near it are .*{Q}"):
        explained(llama, "cs", Q + "s")


def test_a_target_of_several_folders_needs_no_folder_named_where_no_doubt_is_left(llava: Path, tmp_path: Path) -> None:
    api.convert(llava, tmp_path / "cs", "cs", fsync=False)
    whole = explained(tmp_path / "cs", "llava", "text_model_llava/model.mm_projector.0.weight")
    assert explained(tmp_path / "cs", "llava", "model.mm_projector.0.weight") == whole


def test_what_else_becomes_of_a_tensor_is_said(llama: Path) -> None:
    found = explained(llama, "cs", "model.norm.weight")
    assert (found.target, found.also) == ("transformer_decoder.norm.weight", ("ln_f.weight",))


def test_values_that_json_has_no_word_for_are_null(make_llama: Make, tmp_path: Path) -> None:
    def spoil(tensors: Any) -> None:
        tensors["model.norm.weight"][:2] = torch.tensor([float("nan"), float("inf")])

    source = make_llama(tmp_path / "odd", edit=spoil)
    document = explanation_document(explained(source, "cs", "model.norm.weight"))
    assert document["before"][:2] == [[None], [None]]
    json.dumps(document, allow_nan=False)
