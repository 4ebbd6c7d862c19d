"""`verify` between llava-hf and all that it is converted from and to: it finds what is changed on either side."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import TYPE_CHECKING, Any

import pytest

from mmconvert import api
from mmconvert.errors import InputRefused
from mmconvert.paths import put

if TYPE_CHECKING:
    from tests.converters.conftest import Arrays, Draft, Workshop

EMBEDDING, HEAD = "language_model.model.embed_tokens.weight", "language_model.lm_head.weight"
LINEAR = "multi_modal_projector.linear_2.bias"
Change = Callable[["Draft"], object]


def value(key: str, row: int) -> Change:
    """The values of one row become greater by one."""

    def change(tensors: Arrays) -> None:
        tensors[key][row] += 1

    return lambda draft: draft.change_tensors(change)


def config(path: str, other: Any) -> Change:
    return lambda draft: draft.write_config(put(draft.config(), path, other))


def gone(key: str) -> Change:
    return lambda draft: draft.change_tensors(lambda tensors: tensors.pop(key))


@pytest.fixture(params=["llava", "cs-2.10", "llava-hf"])
def pair(workshop: Workshop, golden: Path, request: pytest.FixtureRequest) -> tuple[Draft, Path]:
    """A LLaVA as llava-hf, to be changed, and the same one in each format that it may come from or go to."""
    joined = workshop.edit(workshop.convert(golden / "llava/tiny_src", "llava-hf"))
    return joined, workshop.convert(joined.path, request.param)


def test_both_directions_hold(pair: tuple[Draft, Path]) -> None:
    joined, other = pair
    for a, b in ((joined.path, other), (other, joined.path)):
        found = api.verify(a, b)
        assert (found.problems, found.notes) == ([], [])
        assert found.tensors >= 88


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (value(EMBEDDING, 3), f"{EMBEDDING}: differs .* element 192$"),
        (value(HEAD, 319), f"{HEAD}: differs .* element 20,416$"),
        # One of those that are no token's: the mean of the others.
        (value(EMBEDDING, 320), f"{EMBEDDING}: differs .* element 20,480$"),
        (value(HEAD, 383), f"{HEAD}: differs .* element 24,512$"),
        (value(LINEAR, 0), f"{LINEAR}: differs .* element 0$"),
        (gone(EMBEDDING), f"{EMBEDDING}: missing in B"),
        (gone(LINEAR), f"{LINEAR}: missing in B"),
        (config("vision_feature_layer", -1), "config: vision_feature_layer is -1, expected -2"),
        (config("vision_feature_select_strategy", "full"), "config: vision_feature_select_strategy is 'full'"),
        (config("multimodal_projector_bias", False), "config: multimodal_projector_bias is False, expected True"),
        (config("image_token_index", 319), "config: image_token_index is 319, expected 320"),
        (config("text_config.vocab_size", 448), f"{EMBEDDING}: 384 rows, and B's config demands 448"),
        (config("text_config.rope_theta", 5000.0), r"config: text_config.rope_theta is 5000\.0, expected 10000\.0"),
        (config("vision_config.hidden_act", "gelu"), "config: vision_config.hidden_act is 'gelu'"),
    ],
)
def test_what_is_changed_in_it_is_found(pair: tuple[Draft, Path], change: Change, what: str) -> None:
    joined, other = pair
    change(joined)
    problems = api.verify(other, joined.path).problems
    assert any(re.match(what, each) for each in problems), problems


@pytest.mark.parametrize(
    "change",
    [
        config("tie_word_embeddings", None),
        lambda joined: joined.drop("tie_word_embeddings"),
        config("image_seq_length", 575),
        config("text_config.architectures", ["Another"]),
        config("dtype", "float32"),
    ],
)
def test_what_means_nothing_may_be_otherwise(pair: tuple[Draft, Path], change: Change) -> None:
    joined, other = pair
    change(joined)
    assert api.verify(other, joined.path).problems == []


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (value(EMBEDDING, 3), "element 192$"),
        (value(HEAD, 319), "element 20,416$"),
        (value(LINEAR, 0), "element 0$"),
        (config("vision_feature_layer", -1), "config: .* is -2, expected -1"),
        (config("text_config.rope_theta", 5000.0), r"rope_theta is 10000\.0, expected 5000\.0"),
        (config("image_token_index", 319), "config: .* is 320, expected 319"),
    ],
)
def test_what_is_changed_in_it_is_found_in_what_was_made_of_it(
    pair: tuple[Draft, Path], change: Change, what: str
) -> None:
    joined, other = pair
    change(joined)
    problems = api.verify(joined.path, other).problems
    assert any(re.search(what, each) for each in problems), problems


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (gone(EMBEDDING), "embed_tokens.weight is missing .expected 384 x 64"),
        (gone(LINEAR), "linear_2.bias is missing, but .*linear_1.weight is there"),
        (config("text_config.vocab_size", 448), "is 384 x 64, but the config demands 448 x 64"),
        (config("image_token_index", 384), "image_token_index is 384, but text_config.vocab_size is 384"),
    ],
)
def test_what_is_broken_in_itself_is_compared_with_nothing(pair: tuple[Draft, Path], change: Change, why: str) -> None:
    joined, other = pair
    change(joined)
    with pytest.raises(InputRefused, match=why):
        api.verify(joined.path, other)


@pytest.mark.parametrize("name", ["tiny_llava_hf", "tiny_llava_hf_457"])
def test_a_row_of_no_token_counts_for_nothing_where_there_is_none(name: str, golden: Path, workshop: Workshop) -> None:
    joined = workshop.draft(f"llava/{name}")
    value(EMBEDDING, 383)(joined)
    assert api.verify(joined.path, golden / "llava/tiny_src").problems == []


def test_the_command_names_what_differs(
    pair: tuple[Draft, Path], mmconvert: Callable[..., CompletedProcess[str]]
) -> None:
    joined, other = pair
    assert mmconvert("verify", other, joined.path).returncode == 0
    value(EMBEDDING, 3)(joined)
    run = mmconvert("verify", other, joined.path)
    assert run.returncode == 6
    assert EMBEDDING in run.stdout + run.stderr


@pytest.mark.parametrize("saved", ["tiny_llava_hf", "tiny_llava_hf_457"])
def test_what_transformers_fills_rows_with_is_its_own_affair(golden: Path, saved: str) -> None:
    source, joined = golden / "llava/tiny_src", golden / "llava" / saved
    for a, b in ((source, joined), (joined, joined), (joined, source)):
        assert api.verify(a, b).problems == []
    notes = api.verify(source, joined).notes
    assert "language_model.lm_head.weight: rows 320 to 383 are not A's, so not compared" in notes


def test_a_row_of_the_language_model_s_own_is_compared_whoever_saved_it(golden: Path, workshop: Workshop) -> None:
    joined = workshop.draft("llava/tiny_llava_hf")
    value(HEAD, 319)(joined)
    (problem,) = api.verify(golden / "llava/tiny_src", joined.path).problems
    assert problem.startswith(f"{HEAD}: differs from A's")
