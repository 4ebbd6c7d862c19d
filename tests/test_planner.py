"""What users write for a target, and what a plan says of itself."""

from __future__ import annotations

from pathlib import Path

import pytest

import mmconvert
from mmconvert.errors import NoConversion, OutputRefused
from mmconvert.planner import parse_target
from mmconvert.releases import Release


@pytest.mark.parametrize(
    ("text", "target"),
    [("hf", ("hf", None)), ("cs", ("cs", None)), ("cs-2.10", ("cs", Release(2, 10))), ("llava-hf", ("llava-hf", None))],
)
def test_a_target_is_a_format_and_for_cs_a_release(text: str, target: tuple[str, Release | None]) -> None:
    assert parse_target(text) == target


@pytest.mark.parametrize("text", ["cs-", "cs-new", "cs-2"])
def test_a_release_that_is_none_is_no_target(text: str) -> None:
    with pytest.raises(NoConversion, match=text):
        parse_target(text)


def test_a_plan_says_where_from_where_to_and_by_which_way(llava: Path, tmp_path: Path) -> None:
    plan = mmconvert.plan(llava, tmp_path / "out", "hf")
    assert plan.facts["source"] == {"model": "mmsimple-llava", "format": "llava", "release": None}
    assert plan.facts["target"] == {"model": "mmsimple-llava", "format": "hf", "release": None}
    assert plan.facts["path"] == ["mmsimple-llava: llava -> cs", "mmsimple-llava: cs -> hf"]
    assert set(plan.files) == {llava / name / "model.safetensors" for name in ("image_model", "text_model_llava")}


def test_no_part_of_the_source_may_be_the_target(llava: Path) -> None:
    for out in (llava, llava / "image_model", llava / "image_model" / "out", llava.parent):
        with pytest.raises(OutputRefused):
            mmconvert.plan(llava, out, "cs", overwrite=True)
