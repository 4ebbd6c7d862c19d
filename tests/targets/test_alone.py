"""The folder of one part: what its config says, and which files come with it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mmconvert
from mmconvert import Options
from mmconvert.dtypes import BY_FLAG

Make = Callable[..., Path]


def take(source: Path, out: Path, part: str, **options: Any) -> Path:
    mmconvert.convert(source, out, "hf", options=Options(only=part, **options), fsync=False)
    return out


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


@pytest.mark.parametrize(("part", "dtype"), [("vision", "float32"), ("text", "bfloat16"), ("projector", "bfloat16")])
def test_its_config_says_the_element_type_of_its_own_tensors(
    llava: Path, tmp_path: Path, part: str, dtype: str
) -> None:
    config = json.loads((take(llava, tmp_path / "out", part) / "config.json").read_text())
    assert config["torch_dtype"] == dtype


def test_its_config_says_the_element_type_that_was_asked_for(make_llava: Make, tmp_path: Path) -> None:
    source = make_llava(tmp_path / "source", torch_dtype="bfloat16")
    out = take(source, tmp_path / "out", "text", dtype={"": BY_FLAG["fp16"]})
    assert json.loads((out / "config.json").read_text())["torch_dtype"] == "float16"


def test_a_projector_takes_licences_along_and_no_tokenizer(make_llava: Make, tmp_path: Path) -> None:
    source = make_llava(tmp_path / "source")
    (source / "text_model_llava/LICENSE").write_text("of the language model")
    (source / "text_model_llava/generation_config.json").write_text("{}")
    out = take(source, tmp_path / "out", "projector")
    assert (out / "LICENSE").read_text() == "of the language model"
    assert names(out) == {"LICENSE", "README.md", "config.json", "mm_projector.bin", "mmconvert.json"}


def test_a_part_takes_no_file_of_another_along(make_llava: Make, tmp_path: Path) -> None:
    source = make_llava(tmp_path / "source")
    (source / "text_model_llava/LICENSE").write_text("of the language model")
    out = take(source, tmp_path / "out", "vision")
    assert names(out) == {"README.md", "config.json", "mmconvert.json", "model.safetensors", "preprocessor_config.json"}


def test_a_tower_whose_preprocessor_did_not_travel_gets_one_and_no_other_part_does(
    make_llava: Make, tmp_path: Path
) -> None:
    source = make_llava(tmp_path / "source")
    (source / "image_model/preprocessor_config.json").unlink()
    preprocessor = take(source, tmp_path / "vision", "vision") / "preprocessor_config.json"
    assert json.loads(preprocessor.read_text())["size"] == {"shortest_edge": 28}
    for part in ("text", "projector"):
        assert not [name for name in names(take(source, tmp_path / part, part)) if "preprocessor" in name]
