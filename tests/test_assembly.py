"""Every tensor of the target: options that fit, casts, and what is made where nothing was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import mmconvert
from mmconvert import Options
from mmconvert.assembly import prevailing
from mmconvert.dtypes import BY_NAME
from mmconvert.errors import InputRefused, UsageError
from mmconvert.plans import Plan
from mmconvert.sources import FileSpan, TensorRef

Make = Callable[..., Path]
Contents = Callable[[Path], dict[str, tuple[str, tuple[int, ...], bytes]]]


def plan(source: Path, to: str = "cs", **options: Any) -> Plan:
    return mmconvert.plan(source, source.parent / "out", to, options=Options(**options))


def converted(source: Path, to: str = "cs", **options: Any) -> Path:
    out = source.parent / f"{source.name}-{to}"
    mmconvert.convert(source, out, to, options=Options(container="safetensors", **options), fsync=False)
    return out


def test_options_that_name_nothing_of_this_model_are_refused_with_what_there_is(llama: Path) -> None:
    with pytest.raises(UsageError, match=r"projector.*in this model is lm_head"):
        plan(llama, init={"projector": 1})
    with pytest.raises(UsageError, match=r"vision.*parts are text"):
        plan(llama, dtype={"vision": BY_NAME["float32"]})


def test_what_is_invented_is_the_same_in_both_directions(make_llama: Make, contents: Contents, tmp_path: Path) -> None:
    source = make_llama(tmp_path / "llama", edit=lambda tensors: tensors.pop("lm_head.weight"))
    through_cs = converted(converted(source, init={"lm_head": 5}), "hf")
    at_once = converted(source, "hf", init={"lm_head": 5})
    assert contents(through_cs) == contents(at_once)


def test_floats_that_cannot_be_cast_are_refused_by_name(make_clip: Make, tmp_path: Path) -> None:
    key = "vision_model.post_layernorm.bias"
    source = make_clip(tmp_path / "clip", edit=lambda t: t.update({key: torch.zeros(32).to(torch.float8_e5m2)}))
    assert plan(source, container="safetensors").tensors
    with pytest.raises(InputRefused, match=r"post_layernorm\.bias is float8_e5m2, which cannot be cast"):
        plan(source, dtype={"": BY_NAME["float16"]})


def test_the_prevailing_type_is_that_of_most_bytes() -> None:
    def ref(name: str, count: int) -> TensorRef:
        return TensorRef("key", BY_NAME[name], (count,), FileSpan(Path("file"), 0, 0))

    assert prevailing([ref("float32", 3), ref("bfloat16", 5), ref("int64", 99)]).name == "float32"
    assert prevailing([ref("float32", 2), ref("bfloat16", 5)]).name == "bfloat16"
    assert prevailing([ref("int64", 99)]).name == "float32"
