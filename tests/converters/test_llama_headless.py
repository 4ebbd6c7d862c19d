"""A LLaMA without its output head: CS has one, so it must be made, and is left behind on the way back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mmconvert import Options, api

if TYPE_CHECKING:
    from tests.converters.conftest import Draft, Reader, Workshop

HEAD = "lm_head.weight"


def headless(workshop: Workshop, name: str) -> Draft:
    """A golden LLaMA cut down to its `LlamaModel`."""
    draft = workshop.draft(f"inputs/{name}")
    tensors = {key.removeprefix("model."): tensor for key, tensor in draft.tensors().items() if key != HEAD}
    draft.write_tensors(tensors)
    draft.set(architectures=["LlamaModel"])
    return draft


def options(**given: Any) -> Options:
    return Options(container="safetensors", **given)


def test_it_is_known_by_its_architecture(workshop: Workshop) -> None:
    assert api.inspect(headless(workshop, "llama_gqa").path).model == "llama-headless"


def test_without_a_head_it_is_refused_with_what_makes_one(workshop: Workshop) -> None:
    refusal = workshop.refusal(headless(workshop, "llama_gqa").path)
    assert "lm_head.weight is missing (expected 320 x 48); --init lm_head=uniform:SEED makes it" in refusal


def test_the_head_is_made_and_left_behind_again(workshop: Workshop, facts: Reader, golden: Path) -> None:
    source = headless(workshop, "llama_gqa")
    cs = workshop.convert(source.path, "cs", options(init={"lm_head": 7}))
    whole = facts(workshop.convert(golden / "inputs/llama_gqa", "cs"))
    found = facts(cs)
    assert found.pop(HEAD) != whole.pop(HEAD)
    assert found == whole
    assert [each["subject"] for each in workshop.read_json(cs / "mmconvert.json")["invented"]] == [HEAD]
    back = workshop.convert(cs, "hf", options(), model="llama-headless")
    assert facts(back) == facts(source.path)
    dropped = {each["subject"]: each["why"] for each in workshop.read_json(back / "mmconvert.json")["dropped"]}
    assert dropped[HEAD] == "a LlamaModel has no output head"
    assert workshop.edit(back).config()["architectures"] == ["LlamaModel"]
    assert api.verify(source.path, back).problems == []


def test_a_tied_head_is_the_embedding(workshop: Workshop, facts: Reader, golden: Path) -> None:
    source = headless(workshop, "llama_tied")
    cs = workshop.convert(source.path, "cs")
    assert facts(cs) == facts(workshop.convert(golden / "inputs/llama_tied", "cs"))
    assert facts(workshop.convert(cs, "hf", model="llama-headless")) == facts(source.path)


def test_a_cs_llama_is_a_whole_one_unless_the_user_says_otherwise(workshop: Workshop, golden: Path) -> None:
    cs = workshop.convert(golden / "inputs/llama_gqa", "cs")
    assert api.inspect(cs).model == "llama"


@pytest.mark.parametrize("name", ["llama_gqa", "llama_tied"])
def test_any_cs_llama_gives_its_headless_half(name: str, workshop: Workshop, facts: Reader, golden: Path) -> None:
    cs = workshop.convert(golden / "inputs" / name, "cs")
    back = workshop.convert(cs, "hf", model="llama-headless")
    assert facts(back) == facts(headless(workshop, name).path)


def test_between_releases_the_head_is_a_tensor_like_any_other(workshop: Workshop, facts: Reader, golden: Path) -> None:
    cs = workshop.convert(golden / "inputs/llama_gqa", "cs-2.4")
    assert facts(workshop.convert(cs, "cs-1.9", model="llama-headless")) == facts(cs)
